// SPDX-License-Identifier: GPL-2.0

//! The VMM's limit on locked memory, as far as it is known.
//!
//! The limit is VFIO's to keep. But each time that VFIO refuses a page for it, it writes a line into the
//! kernel's log, and a guest can have it asked for every packet: so it is asked only where the
//! answer may be another one than before, and never more than a few times in vain.

/// For how long VFIO's word is believed.
const WINDOW_NS: u64 = 1_000_000_000;

/// Most refusals in that time: the limit is shared with all that the VMM locks, so that it may be
/// reached with ever fewer pages.
const REFUSALS_MAX: u32 = 8;

/// Most of these before granules are not tried any more: pages can be had one by one.
const REFUSALS_MAX_OF_GRANULES: u32 = REFUSALS_MAX / 2;

/// What VFIO has said about the limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memlock {
    last: Option<Refusals>,
}

#[derive(Clone, Copy, Debug)]
struct Refusals {
    /// So many pages would have been pinned after the last one.
    total: u32,
    count: u32,
    /// When the first of them came.
    since_ns: u64,
}

impl Memlock {
    /// Nothing is known.
    pub const fn new() -> Self {
        Self { last: None }
    }

    /// VFIO has refused `more` pages while `pinned` were pinned.
    pub fn refused(&mut self, pinned: u32, more: u32, now_ns: u64) {
        let earlier = self.current(now_ns);
        self.last = Some(Refusals {
            total: pinned.saturating_add(more),
            count: earlier.map_or(0, |refusals| refusals.count) + 1,
            since_ns: earlier.map_or(now_ns, |refusals| refusals.since_ns),
        });
    }

    /// Whether there is no use in asking for `more` pages while `pinned` are pinned.
    pub fn is_reached(&self, pinned: u32, more: u32, now_ns: u64) -> bool {
        let total = pinned.saturating_add(more);
        let most = if more > 1 {
            REFUSALS_MAX_OF_GRANULES
        } else {
            REFUSALS_MAX
        };
        self.current(now_ns)
            .is_some_and(|refusals| total >= refusals.total || refusals.count >= most)
    }

    /// Whether VFIO has refused so often that it is not to be asked again, though fewer pages may be
    /// pinned than before.
    pub fn is_exhausted(&self, now_ns: u64) -> bool {
        self.is_reached(0, 0, now_ns)
    }

    /// From when on VFIO's last word does not count any more; `None` if it has refused nothing.
    pub fn forgotten_ns(&self) -> Option<u64> {
        self.last
            .map(|refusals| refusals.since_ns.saturating_add(WINDOW_NS))
    }

    /// Until when VFIO's last word counts, if it still does.
    pub fn counts_until_ns(&self, now_ns: u64) -> Option<u64> {
        self.forgotten_ns().filter(|at_ns| *at_ns > now_ns)
    }

    /// What is left of it for another limit, or another count of pages: how often VFIO has been asked in vain.
    pub fn for_another(&self) -> Self {
        let total = u32::MAX;
        Self {
            last: self.last.map(|refusals| Refusals { total, ..refusals }),
        }
    }

    fn current(&self, now_ns: u64) -> Option<Refusals> {
        let recent = |refusals: &Refusals| now_ns.saturating_sub(refusals.since_ns) < WINDOW_NS;
        self.last.filter(recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_refusal_is_believed_for_as_many_pages() {
        let mut limit = Memlock::new();
        assert!(!limit.is_reached(100, 1, 0));
        limit.refused(10, 1, 5);
        assert!(limit.is_reached(10, 1, 6));
        assert!(limit.is_reached(11, 1, 6));
        assert!(!limit.is_reached(9, 1, 6));
        assert!(limit.is_reached(10, 1, 4 + SECOND_NS));
        assert!(!limit.is_reached(10, 1, 5 + SECOND_NS));
    }

    /// Who waits until then is not refused unheard.
    #[test]
    fn a_refusal_is_forgotten_when_it_says_so() {
        let mut limit = Memlock::new();
        assert_eq!(limit.forgotten_ns(), None);
        for now_ns in [7, SECOND_NS / 2, 3 * SECOND_NS, 4 * SECOND_NS - 1] {
            limit.refused(0, 1, now_ns);
            let at = limit.forgotten_ns().unwrap();
            assert!(at > now_ns);
            assert!(limit.is_reached(0, 1, at - 1));
            assert!(!limit.is_reached(0, 1, at));
        }
    }

    /// However pages come and go, VFIO is refused a few times a second.
    #[test]
    fn refusals_are_bounded() {
        const SECONDS: u64 = 10;
        let mut limit = Memlock::new();
        let (mut now_ns, mut refusals) = (0, 0);
        let mut pinned = 5000;
        while now_ns < SECONDS * SECOND_NS {
            now_ns += 10_000;
            pinned = if pinned == 0 { 5000 } else { pinned - 1 };
            if !limit.is_reached(pinned, 1, now_ns) {
                limit.refused(pinned, 1, now_ns);
                refusals += 1;
            }
        }
        assert!(refusals > 0 && refusals <= u64::from(REFUSALS_MAX) * (SECONDS + 1));
    }

    /// To open the slice again is none, and another limit is tried all the same.
    #[test]
    fn there_is_no_way_around() {
        let (mut limit, mut refusals) = (Memlock::new(), 0);
        for now_ns in 0..10 * SECOND_NS / 1_000_000 {
            limit = limit.for_another();
            if !limit.is_reached(0, 1, now_ns * 1_000_000) {
                limit.refused(0, 1, now_ns * 1_000_000);
                refusals += 1;
            }
        }
        assert_eq!(refusals, 10 * REFUSALS_MAX);
    }

    /// Who waits for that is asked for like the first one.
    #[test]
    fn the_next_owner_need_not_be_refused_unheard() {
        let mut limit = Memlock::new();
        assert_eq!(limit.for_another().counts_until_ns(5), None);
        for refusal in 0..REFUSALS_MAX {
            limit.refused(100 - refusal, 1, 7 + u64::from(refusal));
            let limit = limit.for_another();
            // Also where less is refused unheard: granules, or pages after one refusal more.
            assert_eq!(limit.counts_until_ns(20), Some(7 + WINDOW_NS));
            assert_eq!(limit.counts_until_ns(7 + WINDOW_NS), None);
        }
        let limit = limit.for_another();
        for more in [1, 512] {
            assert!(limit.is_reached(0, more, 6 + WINDOW_NS));
            assert!(!limit.is_reached(0, more, 7 + WINDOW_NS));
        }
    }

    /// A line in the log is a line in the log, whoever asked.
    #[test]
    fn granules_and_pages_share_the_refusals() {
        let mut limit = Memlock::new();
        let (mut granules, mut pages) = (0, 0);
        for pinned in (0..10_000).rev() {
            if !limit.is_reached(pinned, 512, 5) {
                limit.refused(pinned, 512, 5);
                granules += 1;
            }
        }
        assert_eq!(granules, REFUSALS_MAX_OF_GRANULES);
        assert!(!limit.is_exhausted(5));
        for pinned in (0..500).rev() {
            if !limit.is_reached(pinned, 1, 5) {
                limit.refused(pinned, 1, 5);
                pages += 1;
            }
        }
        assert_eq!(granules + pages, REFUSALS_MAX);
        assert!(limit.is_exhausted(5));
        assert!(!limit.is_exhausted(5 + SECOND_NS));
    }

    #[test]
    fn a_granule_that_was_refused_says_something_about_pages() {
        let mut limit = Memlock::new();
        limit.refused(100, 512, 5);
        assert!(limit.is_reached(100, 512, 6));
        assert!(!limit.is_reached(99, 512, 6));
        assert!(!limit.is_reached(610, 1, 6));
        assert!(limit.is_reached(611, 1, 6));
        limit.refused(610, 1, 6);
        assert!(limit.is_reached(99, 512, 7));
    }
}
