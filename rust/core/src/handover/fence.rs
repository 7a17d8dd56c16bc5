// SPDX-License-Identifier: GPL-2.0

//! Which pages nobody may pin, because a thread of the VMM is unmapping them.
//!
//! The thread puts its bar first, and then takes the slice's lock to have unpinned what is pinned.
//! Whoever pins has that lock, and asks [`Bars::has`] under it. So a page that is pinned in spite of
//! the bar was pinned before the thread had the lock, and goes with the others.

use core::ops::Range;

use crate::addr::{
    GuestPage,
    GRANULE_PAGES,
    PAGE_SHIFT,
    PAGE_SIZE, //
};

/// Threads that unmap at a time without barring more than they unmap.
const PLACES: usize = 8;

/// Slices that may have bars when one more is opened.
const BARRED_MAX: u32 = 8;

/// Whether a slice may be opened while so many have bars, whosever they are.
///
/// VFIO calls until nothing is pinned, and stops the host after eleven calls in vain. A slice that is opened
/// after one call has no bar until the next, and may make that one vain; then it has one. Who belongs
/// to which container is VFIO's secret.
pub const fn admits(barred: u32) -> bool {
    barred < BARRED_MAX
}

/// What one thread unmaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Numbers of the pages.
    pages: Range<u64>,
    /// The thread, by whatever tells it from others.
    thread: usize,
}

impl Bar {
    /// Every page that has one of the `len_bytes` bytes from `iova` on, for `thread`.
    pub const fn new(iova: u64, len_bytes: u64, thread: usize) -> Self {
        Self {
            pages: iova >> PAGE_SHIFT..iova.saturating_add(len_bytes).div_ceil(PAGE_SIZE),
            thread,
        }
    }
}

/// All bars.
#[derive(Debug, Default)]
pub struct Bars {
    bars: [Option<Bar>; PLACES],
    /// Threads beyond those: everything is barred until they are through.
    others: u32,
}

impl Bars {
    /// None.
    pub const fn new() -> Self {
        Self {
            bars: [const { None }; PLACES],
            others: 0,
        }
    }

    /// Adds a bar, or adds to that of the same thread. Whether this is the thread's first since
    /// [`Self::lift`].
    pub fn put(&mut self, new: Bar) -> bool {
        let mut placed = self.bars.iter_mut().flatten();
        if let Some(bar) = placed.find(|bar| bar.thread == new.thread) {
            bar.pages.start = bar.pages.start.min(new.pages.start);
            bar.pages.end = bar.pages.end.max(new.pages.end);
            return false;
        }
        match self.bars.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(new),
            None => self.others = self.others.saturating_add(1),
        }
        true
    }

    /// The thread is through.
    pub fn lift(&mut self, thread: usize) {
        let own = |place: &&mut Option<Bar>| place.as_ref().is_some_and(|b| b.thread == thread);
        match self.bars.iter_mut().find(own) {
            Some(place) => *place = None,
            None => self.others = self.others.saturating_sub(1),
        }
    }

    /// Whether nothing is barred, and no thread of the VMM that had the slice last can still be
    /// unmapping: only then may the slice be opened again.
    pub fn is_empty(&self) -> bool {
        self.others == 0 && self.bars.iter().all(Option::is_none)
    }

    /// Whether `page` may not be pinned now.
    pub fn has(&self, page: GuestPage) -> bool {
        let within = |bar: &Bar| bar.pages.contains(&page.pfn());
        self.others != 0 || self.bars.iter().flatten().any(within)
    }

    /// Whether a page of the granule that begins with `first` may not be pinned now.
    pub fn has_of_granule(&self, first: GuestPage) -> bool {
        let end = first.pfn().saturating_add(GRANULE_PAGES.into());
        let touches = |bar: &Bar| bar.pages.start < end && first.pfn() < bar.pages.end;
        self.others != 0 || self.bars.iter().flatten().any(touches)
    }
}
