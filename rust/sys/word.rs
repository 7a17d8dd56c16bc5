// SPDX-License-Identifier: GPL-2.0

//! A number that threads share, for the hand-overs in core.

use kernel::sync::atomic::{
    Atomic,
    Full,
    Relaxed, //
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
