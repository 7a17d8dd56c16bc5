// SPDX-License-Identifier: GPL-2.0

//! How much of others' time somebody may take.
//!
//! Signalling an eventfd runs whatever waits for it. That is KVM as a rule, which takes a microsecond or a
//! few; or as many watchers as a VMM likes, one after the other, with interrupts off. Nobody knows
//! beforehand. So it is measured, and who takes long has others wait for a small part of the time
//! only, in the long run.

/// What may be owed: an interrupt or the hypervisor below may have come in between.
const DEBT_MAX_NS: u64 = 5_000_000;

/// What is owed is forgiven in this many times the time that it took: a card has so many slices, and
/// each may have its part of the worker's time.
const SHARE: u64 = 8;

/// Patience with one that takes the time of others. It is lost when too much is owed, and comes back
/// when nothing is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    debt_ns: u64,
    /// Up to when the debt was forgiven.
    settled_ns: u64,
    lost: bool,
}

impl Patience {
    /// Nothing is owed.
    pub const fn new() -> Self {
        Self {
            debt_ns: 0,
            settled_ns: 0,
            lost: false,
        }
    }

    /// Whether it is somebody else's time that is to be taken now.
    pub fn is_lost(&mut self, now_ns: u64) -> bool {
        let forgiven_ns = now_ns.saturating_sub(self.settled_ns) / SHARE;
        self.settled_ns += forgiven_ns * SHARE;
        self.debt_ns = self.debt_ns.saturating_sub(forgiven_ns);
        self.lost &= self.debt_ns != 0;
        self.lost
    }

    /// It took from `start_ns` to `end_ns`.
    pub fn took(&mut self, start_ns: u64, end_ns: u64) {
        let took_ns = end_ns.saturating_sub(start_ns);
        self.debt_ns = self.debt_ns.saturating_add(took_ns);
        self.lost |= self.debt_ns > DEBT_MAX_NS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    /// Signals that take `each_ns`, one after the other, for so many seconds: how many were left to
    /// others, how many there were, and how long the rest took.
    fn signals(each_ns: u64, pause_ns: u64, seconds: u64) -> (u64, u64, u64) {
        let mut patience = Patience::new();
        let (mut now_ns, mut left, mut count, mut taken_ns) = (7 * SECOND_NS, 0, 0, 0);
        let end_ns = now_ns + seconds * SECOND_NS;
        while now_ns < end_ns {
            count += 1;
            if patience.is_lost(now_ns) {
                left += 1;
            } else {
                patience.took(now_ns, now_ns + each_ns);
                taken_ns += each_ns;
                now_ns += each_ns;
            }
            now_ns += pause_ns;
        }
        (left, count, taken_ns)
    }

    /// A few microseconds, as often as the card can; and what an emulated machine needs.
    #[test]
    fn what_is_usual_is_not_too_much() {
        for (each_ns, pause_ns) in [(0, 100), (3_000, 30_000), (100_000, 1_000_000)] {
            assert_eq!(signals(each_ns, pause_ns, 1).0, 0);
        }
    }

    /// However long one takes, others wait for their share and one signal.
    #[test]
    fn the_others_wait_for_a_small_part_of_the_time() {
        for each_ns in [50_000, 1_100_000, 30_000_000, 700_000_000] {
            let (left, count, taken_ns) = signals(each_ns, 100_000, 1000);
            let share_ns = 1000 * SECOND_NS / SHARE;
            assert!(left != 0 && left < count, "{each_ns}: {left} of {count}");
            assert!(
                taken_ns <= share_ns + DEBT_MAX_NS + each_ns,
                "{each_ns}: {taken_ns}"
            );
        }
    }

    #[test]
    fn it_is_lost_until_all_is_forgiven() {
        let mut patience = Patience::new();
        patience.took(0, DEBT_MAX_NS);
        assert!(!patience.is_lost(SHARE - 1));
        patience.took(20, 70);
        let all_ns = (DEBT_MAX_NS + 50) * SHARE;
        assert!(patience.is_lost(30));
        assert!(patience.is_lost(all_ns - 1));
        assert!(!patience.is_lost(all_ns));
        // The clock may be read on another CPU.
        assert!(!patience.is_lost(5));
    }

    #[test]
    fn nothing_overflows() {
        let mut patience = Patience::new();
        for _ in 0..3 {
            patience.took(0, u64::MAX);
            assert!(patience.is_lost(u64::MAX));
            assert!(patience.is_lost(0));
        }
    }
}
