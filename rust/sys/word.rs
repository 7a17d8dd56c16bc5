// SPDX-License-Identifier: GPL-2.0

//! A number that threads share, for the hand-overs in core.

use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    }, //
};
use sluice_core::handover;

/// A number in the kernel's memory model.
pub(crate) struct Word(Atomic<u64>);

impl Word {
    /// Zero.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }
}

impl handover::Word for Word {
    #[inline]
    fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }

    #[inline]
    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0.cmpxchg(old, new, Full).map(|_| ())
    }

    #[inline]
    fn swap(&self, new: u64) -> u64 {
        self.0.xchg(new, Full)
    }
}

#[kunit_tests(sluice_word)]
mod tests {
    use kernel::{
        prelude::*,
        sync::Arc,
        time::{
            delay::fsleep,
            Delta, //
        }, //
    };
    use sluice_core::handover::Word as _;

    use super::{
        super::thread::{
            Body,
            Current,
            Thread, //
        },
        Word, //
    };

    const ROUNDS: u64 = 20_000;

    /// Adds one to `sum` in so many steps of "compare and exchange", and one to `done` by the end.
    struct Adder {
        sum: Word,
        done: Word,
    }

    fn add(word: &Word) {
        let mut old = word.load();
        while let Err(now) = word.compare_exchange(old, old + 1) {
            old = now;
        }
    }

    impl Body for Adder {
        fn run(&self, current: &Current) {
            for _ in 0..ROUNDS {
                add(&self.sum);
            }
            add(&self.done);
            while !current.should_stop() {
                current.park(None, || false);
            }
        }
    }

    #[test]
    fn exchanges() {
        let word = Word::new();
        assert_eq!(word.load(), 0);
        assert_eq!(word.compare_exchange(1, 2), Err(0));
        assert_eq!(word.compare_exchange(0, u64::MAX), Ok(()));
        assert_eq!(word.swap(7), u64::MAX);
        assert_eq!(word.load(), 7);
    }

    #[test]
    fn nothing_is_lost_between_threads() -> Result {
        let adder = Arc::new(
            Adder {
                sum: Word::new(),
                done: Word::new(),
            },
            GFP_KERNEL,
        )?;
        {
            // Ended before anything is asserted: what fails never returns.
            let _first = Thread::run(c"sluice-kunit/0", adder.clone())?;
            let _second = Thread::run(c"sluice-kunit/1", adder.clone())?;
            for _ in 0..60_000 {
                if adder.done.load() == 2 {
                    break;
                }
                fsleep(Delta::from_millis(1));
            }
        }
        assert_eq!(adder.done.load(), 2);
        assert_eq!(adder.sum.load(), 2 * ROUNDS);
        Ok(())
    }
}
