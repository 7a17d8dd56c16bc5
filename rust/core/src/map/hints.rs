// SPDX-License-Identifier: GPL-2.0

//! Which granules are worth a try: a small memory of those that are not pinned whole, which forgets
//! everything but refusals.

use super::PageRange;
use crate::addr::{
    GuestPage,
    GRANULE_SHIFT, //
};
use crate::platform::Alloc;

/// Granules remembered at a time, each at a place of its own: one more displaces another, or is not
/// remembered where that one was refused.
const PLACES: usize = 64;

/// Pages of a granule that were pinned one by one before the whole is tried: a guest that names a page
/// here and there would have 511 pinned in vain with each.
const ENOUGH_PINS: u32 = 3;

/// Misses after which a refusal is forgotten. An attempt costs a few pins; after so many it no longer
/// matters.
const REFUSED_FOR_MISSES: u64 = 4096;

/// One granule, for one direction.
#[derive(Clone, Copy)]
struct Hint {
    first: GuestPage,
    writes: bool,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Unknown,
    /// So many of its pages were pinned.
    Pinned(u32),
    /// It could not be had, when so many misses had been counted.
    Refused(u64),
}

pub(super) struct Hints<A: Alloc> {
    places: A::Buf<Hint>,
}

impl<A: Alloc> Hints<A> {
    /// `None` when out of memory. Sleeps.
    pub(super) fn new() -> Option<Self> {
        let places = A::filled(PLACES, |_| Hint {
            first: GuestPage::new(0),
            writes: false,
            state: State::Unknown,
        })?;
        Some(Self { places })
    }

    fn place(first: GuestPage, writes: bool) -> usize {
        let granule = (first.pfn() >> GRANULE_SHIFT) as usize;
        (granule << 1 | usize::from(writes)) % PLACES
    }

    /// What is known of a granule.
    fn state(&self, first: GuestPage, writes: bool) -> State {
        match self.places.get(Self::place(first, writes)) {
            Some(hint) if hint.first == first && hint.writes == writes => hint.state,
            _ => State::Unknown,
        }
    }

    fn set(&mut self, first: GuestPage, writes: bool, state: State) {
        if let Some(hint) = self.places.get_mut(Self::place(first, writes)) {
            *hint = Hint {
                first,
                writes,
                state,
            };
        }
    }

    /// Whether it is time to try the granule that begins with `first`; `misses`: how many there were.
    pub(super) fn is_due(&self, first: GuestPage, writes: bool, misses: u64) -> bool {
        match self.state(first, writes) {
            State::Unknown => false,
            State::Pinned(pages) => pages >= ENOUGH_PINS,
            State::Refused(then) => misses.saturating_sub(then) >= REFUSED_FOR_MISSES,
        }
    }

    /// One page of the granule was pinned; `misses`: how many there were.
    pub(super) fn note_pin(&mut self, first: GuestPage, writes: bool, misses: u64) {
        let pages = match self.state(first, writes) {
            State::Unknown if self.is_taken(first, writes, misses) => return,
            State::Unknown => 1,
            State::Pinned(pages) => pages.saturating_add(1),
            State::Refused(_) => return,
        };
        self.set(first, writes, State::Pinned(pages));
    }

    /// Whether the granule's place has a refusal, of whichever granule, that is not to be forgotten yet: a
    /// guest could have it forgotten, and the attempt made again, by pages of others.
    fn is_taken(&self, first: GuestPage, writes: bool, misses: u64) -> bool {
        match self.places.get(Self::place(first, writes)) {
            Some(hint) => match hint.state {
                State::Refused(then) => misses.saturating_sub(then) < REFUSED_FOR_MISSES,
                State::Unknown | State::Pinned(_) => false,
            },
            None => true,
        }
    }

    /// The granule cannot be had.
    pub(super) fn note_refusal(&mut self, first: GuestPage, writes: bool, misses: u64) {
        self.set(first, writes, State::Refused(misses));
    }

    /// The granule is pinned.
    pub(super) fn forget(&mut self, first: GuestPage, writes: bool) {
        self.set(first, writes, State::Unknown);
    }

    /// The memory in `range` is another one from now on.
    pub(super) fn forget_range(&mut self, range: PageRange) {
        for hint in self.places.iter_mut() {
            if range.touches_granule(hint.first) {
                hint.state = State::Unknown;
            }
        }
    }
}
