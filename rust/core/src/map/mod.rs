// SPDX-License-Identifier: GPL-2.0

//! From guest page to bus page, and how long the pin lasts.
//!
//! The policy is a [`Strategy`]; [`PinMap`] follows any of them and can change from one to another. The
//! data path is generic over [`Mapper`], so that a look-up is never an indirect call. A mapping lives
//! through three types that consume each other, which is how invariant 3 is kept:
//!
//! [`MapRef`] (acquired, not yet shown to the NIC) → [`InFlight`] (named by a shadow descriptor) →
//! [`Mapper::release`], which asks for an [`AtRest`].

mod hints;
mod pins;
mod slot;
mod strategy;
mod table;

pub use pins::PinMap;
pub use strategy::Strategy;

use crate::addr::{
    BusPage,
    GuestPage,
    GRANULE_PAGES,
    PAGE_SHIFT,
    PAGE_SIZE, //
};
use crate::check::Rejection;
use crate::platform::{
    Access,
    PinnedPage,
    Pinner, //
};
use crate::ring::AtRest;
use slot::Slot;

/// Guest pages from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    first: GuestPage,
    last: GuestPage,
}

impl PageRange {
    /// Every page.
    pub const ALL: Self = Self {
        first: GuestPage::new(0),
        last: GuestPage::new(u64::MAX),
    };

    /// Pages that `len_bytes` bytes from `iova` touch; a length that wraps reaches the top. `None`
    /// for no bytes.
    pub const fn from_bytes(iova: u64, len_bytes: u64) -> Option<Self> {
        if len_bytes == 0 {
            return None;
        }
        Some(Self {
            first: crate::addr::GuestAddr::new(iova).page(),
            last: crate::addr::GuestAddr::new(iova.saturating_add(len_bytes - 1)).page(),
        })
    }

    /// First page.
    pub const fn first(&self) -> GuestPage {
        self.first
    }

    /// Last page.
    pub const fn last(&self) -> GuestPage {
        self.last
    }

    /// Whether `page` is in the range.
    pub fn contains(&self, page: GuestPage) -> bool {
        self.first <= page && page <= self.last
    }

    /// Whether the granule that begins with `first` has a page in the range.
    fn touches_granule(&self, first: GuestPage) -> bool {
        self.first.granule() <= first && first <= self.last
    }

    /// Pages less one (the number itself need not fit).
    const fn span(&self) -> u64 {
        self.last.pfn().saturating_sub(self.first.pfn())
    }
}

/// A page acquired for a descriptor that the NIC has not seen. Goes back through
/// [`Mapper::cancel`], or forward through [`MapRef::posted`]. If it is lost, the page stays pinned.
#[derive(Debug)]
#[must_use]
pub struct MapRef {
    slot: Slot,
    bus: Option<BusPage>,
}

impl MapRef {
    /// Where the NIC finds the page; `None` where only the CPU may use it.
    pub const fn bus(&self) -> Option<BusPage> {
        self.bus
    }

    /// From now on a shadow descriptor names the page.
    pub fn posted(self) -> InFlight {
        InFlight { slot: self.slot }
    }
}

/// A page named by a shadow descriptor. Goes back through [`Mapper::release`] with a proof, or
/// stays pinned for ever.
#[derive(Debug)]
#[must_use]
pub struct InFlight {
    slot: Slot,
}

/// The memory of a pinned page, for the CPU.
#[derive(Debug)]
pub struct Memory<'a, Page> {
    /// What was pinned: the page itself, or the granule that it lies in.
    pinned: &'a Page,
    /// The page's place in it.
    index: u16,
}

impl<Page: PinnedPage> Memory<'_, Page> {
    /// Where `len` bytes from `offset` of the page begin in what was pinned, and how many of them
    /// lie in the page.
    fn span(&self, offset: u16, len: usize) -> (u32, usize) {
        let offset = offset & (PAGE_SIZE as u16 - 1);
        let start = (u32::from(self.index) << PAGE_SHIFT) + u32::from(offset);
        (start, len.min(usize::from(PAGE_SIZE as u16 - offset)))
    }

    /// Copies `bytes` into the page at `offset`. Bytes past the end of the page are dropped.
    pub fn copy_in(&self, offset: u16, bytes: &[u8]) {
        let (start, len) = self.span(offset, bytes.len());
        self.pinned
            .copy_in(start, bytes.get(..len).unwrap_or_default());
    }

    /// Copies out of the page at `offset` into `bytes`. Bytes past the end of the page are left.
    pub fn copy_out(&self, offset: u16, bytes: &mut [u8]) {
        let (start, len) = self.span(offset, bytes.len());
        self.pinned
            .copy_out(start, bytes.get_mut(..len).unwrap_or_default());
    }
}

/// Why a page could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// Too many pages are in flight: later, after completions. Not an offence.
    Busy,
    /// Breaks a rule.
    Refused(Rejection),
}

/// What a strategy has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapStats {
    /// Look-ups that found the page pinned.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Pages pinned.
    pub pins: u64,
    /// Pages unpinned, for whatever reason.
    pub unpins: u64,
    /// Pages unpinned to make room.
    pub evictions: u64,
    /// Pages unpinned because the VMM took the memory away.
    pub invalidations: u64,
    /// Look-ups refused for now because everything was in flight.
    pub busy: u64,
    /// Pages kept pinned for ever because the NIC could not be stopped.
    pub leaked: u64,
    /// Nanoseconds spent in pinning and unpinning. A map has no clock: the slice adds this.
    pub pin_time_ns: u64,
    /// Pages pinned now.
    pub pinned: u32,
    /// Granules pinned now. Their pages are among [`Self::pinned`], and so in all counts of pages.
    pub granules: u32,
    /// Most pages that were pinned at a time.
    pub pinned_most: u32,
}

impl MapStats {
    /// What is pinned now, a granule counted as one.
    pub fn entries(&self) -> usize {
        let inner = self.granules.saturating_mul(GRANULE_PAGES - 1);
        self.pinned.saturating_sub(inner) as usize
    }

    /// These counters with those of an earlier map of the same slice. What is
    /// pinned now is this map's affair alone.
    pub fn after(&self, earlier: &Self) -> Self {
        Self {
            hits: self.hits + earlier.hits,
            misses: self.misses + earlier.misses,
            pins: self.pins + earlier.pins,
            unpins: self.unpins + earlier.unpins,
            evictions: self.evictions + earlier.evictions,
            invalidations: self.invalidations + earlier.invalidations,
            busy: self.busy + earlier.busy,
            leaked: self.leaked + earlier.leaked,
            pin_time_ns: self.pin_time_ns + earlier.pin_time_ns,
            pinned: self.pinned,
            granules: self.granules,
            pinned_most: self.pinned_most.max(earlier.pinned_most),
        }
    }

    /// These counters when the map is gone: what it leaked stays in [`Self::leaked`].
    pub fn at_rest(mut self) -> Self {
        self.pinned = 0;
        self.granules = 0;
        self
    }
}

/// Pins under a policy.
pub trait Mapper<P: Pinner> {
    /// Whether pages are for the CPU to copy, and have no place on the bus.
    fn copies(&self) -> bool;

    /// Pins and maps `page`, alone or with its granule, or finds it pinned. Sleeps when it must pin.
    fn acquire(
        &mut self,
        pinner: &mut P,
        page: GuestPage,
        access: Access,
    ) -> Result<MapRef, MapError>;

    /// Gives back a page that was not shown to the NIC.
    fn cancel(&mut self, pinner: &mut P, page: MapRef);

    /// Gives back a page that the NIC has done with.
    fn release(&mut self, pinner: &mut P, page: InFlight, proof: AtRest<'_>);

    /// Gives up a page that the NIC may use for ever: it stays pinned, and is counted. One that was
    /// never mapped for the NIC is given back.
    fn leak(&mut self, pinner: &mut P, page: InFlight);

    /// The memory of a posted page, for the CPU's access.
    fn page(&self, page: &InFlight) -> Option<Memory<'_, P::Page>>;

    /// The memory of a page that was not shown to the NIC, for the CPU's access.
    fn acquired(&self, page: &MapRef) -> Option<Memory<'_, P::Page>>;

    /// The VMM takes `range` away: unpins at once what is idle, and marks the rest to be unpinned
    /// at its last release; none of it is handed out again. A granule that has a page in the range
    /// goes as a whole. Returns how many of these pages are still pinned; the caller quiesces until
    /// it is 0.
    fn invalidate(&mut self, pinner: &mut P, range: PageRange) -> u32;

    /// Whether a page of `range` is in use: for reception if `writes`, for transmission if not.
    fn uses(&self, range: PageRange, writes: bool) -> bool;

    /// Unpins whatever is idle. After all queues have stopped, that is everything. Returns how
    /// many pages are still pinned.
    fn unpin_all(&mut self, pinner: &mut P) -> u32 {
        self.invalidate(pinner, PageRange::ALL)
    }

    /// Counters.
    fn stats(&self) -> MapStats;
}
