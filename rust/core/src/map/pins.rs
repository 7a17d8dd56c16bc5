// SPDX-License-Identifier: GPL-2.0

//! Every strategy over one table: they differ in what is looked up, and in what an idle page is
//! worth.

use super::hints::Hints;
use super::slot::{
    At,
    Kind,
    Slot, //
};
use super::table::{
    Entry,
    Table, //
};
use super::{
    InFlight,
    MapError,
    MapRef,
    MapStats,
    Mapper,
    Memory,
    PageRange,
    Strategy, //
};
use crate::addr::{
    GuestPage,
    GRANULE_PAGES, //
};
use crate::check::Rejection;
use crate::platform::{
    Access,
    Alloc,
    NoGranule,
    PinError,
    PinnedPage,
    Pinner, //
};
use crate::ring::AtRest;

/// Ranges of fewer pages than this (less one) are looked up page by page, larger ones by
/// walking the table.
const SMALL_RANGE: u64 = 64;

/// The pins of a slice, under a [`Strategy`] that can be changed at any time.
///
/// A hit takes no lock and no allocation.
///
/// A granule counts for all of its pages, in use or not. None is ever evicted to make room for another: a
/// guest whose pages do not fit would have them pinned and unpinned by the thousand.
pub struct PinMap<P: Pinner, A: Alloc> {
    strategy: Strategy,
    pages: Table<P::Page, A>,
    granules: Table<P::Page, A>,
    hints: Hints<A>,
    limit_pages: u32,
    /// Pages that transmission cannot count on. Those of entries for [`Access::Write`] in use: receive
    /// buffers wait long for their packet. And those of granules for [`Access::Read`]: a packet that
    /// has a few bytes in one keeps it from making room for the rest.
    spoken_for: u32,
    /// Times that an entry has become idle, for their order across the tables.
    now: u32,
    stats: MapStats,
}

impl<P: Pinner, A: Alloc> PinMap<P, A> {
    /// Fewest pages that a table may have: a transmit packet and as much for receive buffers.
    pub const MIN_PAGES: u32 = 2 * Self::TX_RESERVE;
    /// Most pages.
    const MAX_PAGES: u32 = 1 << 24;
    /// Pages that receive buffers leave to transmission: two for each piece of the largest packet.
    const TX_RESERVE: u32 = 2 * crate::tx::MAX_PIECES as u32;

    /// A map of at most `limit_pages` pages ([`Self::MIN_PAGES`] at least). `seed` should be random
    /// and hidden from the guest. `None` when out of memory or out of range. Sleeps.
    pub fn new(strategy: Strategy, limit_pages: u32, seed: u64) -> Option<Self> {
        const { assert!(Self::MAX_PAGES <= Slot::MAX_PAGES) };
        const { assert!(Self::MAX_PAGES / GRANULE_PAGES <= Slot::MAX_GRANULES) };
        if !(Self::MIN_PAGES..=Self::MAX_PAGES).contains(&limit_pages) {
            return None;
        }
        Some(Self {
            strategy,
            pages: Table::new(limit_pages, seed)?,
            granules: Table::new(Self::max_granules(limit_pages).max(2), seed)?,
            hints: Hints::new()?,
            limit_pages,
            spoken_for: 0,
            now: 0,
            stats: MapStats::default(),
        })
    }

    /// Half of the pages may be in granules. The other half is enough for a full ring of receive
    /// buffers, whatever the guest sends from.
    const fn max_granules(limit_pages: u32) -> u32 {
        limit_pages / 2 / GRANULE_PAGES
    }

    /// The strategy.
    pub const fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Changes the strategy and unpins what is idle. What is in flight stays pinned, as under every
    /// strategy, and is treated by the new one when it is given back; a caller who wants no page
    /// mapped for the NIC from now on stops the queues first.
    pub fn set_strategy(&mut self, pinner: &mut P, strategy: Strategy) {
        self.strategy = strategy;
        while let Some(at) = self.oldest() {
            self.table_mut(at.kind).idle_remove(at.index);
            self.unpin(pinner, at);
        }
    }

    fn table(&self, kind: Kind) -> &Table<P::Page, A> {
        match kind {
            Kind::Page => &self.pages,
            Kind::Granule => &self.granules,
        }
    }

    fn table_mut(&mut self, kind: Kind) -> &mut Table<P::Page, A> {
        match kind {
            Kind::Page => &mut self.pages,
            Kind::Granule => &mut self.granules,
        }
    }

    fn entry(&self, at: At) -> Option<&Entry<P::Page>> {
        self.table(at.kind).get(at.index)
    }

    fn entry_mut(&mut self, at: At) -> Option<&mut Entry<P::Page>> {
        self.table_mut(at.kind).get_mut(at.index)
    }

    /// What holds `page` and can be handed out. There are granules under one strategy only.
    fn find(&self, page: GuestPage, access: Access) -> Option<At> {
        if self.stats.granules != 0 && self.strategy.pins_granules(access) {
            if let Some(index) = self.granules.find(page.granule(), access) {
                return Some(At::granule(index));
            }
        }
        if !self.strategy.shares() {
            return None;
        }
        self.pages.find(page, access).map(At::page)
    }

    /// The idle entry that was used longest ago.
    fn oldest(&self) -> Option<At> {
        let (page, granule) = (self.pages.oldest(), self.granules.oldest());
        let (page, granule) = (page.map(At::page), granule.map(At::granule));
        // The count of times wraps.
        let age = |at| self.entry(at).map(|e| self.now.wrapping_sub(e.idle_since));
        match (page, granule) {
            (Some(page), Some(granule)) if age(granule) > age(page) => Some(granule),
            (None, granule) => granule,
            (page, _) => page,
        }
    }

    fn idle_push(&mut self, at: At) {
        self.now = self.now.wrapping_add(1);
        let now = self.now;
        self.table_mut(at.kind).idle_push(at.index, now);
    }

    /// Takes in what was pinned.
    fn insert(
        &mut self,
        pinner: &mut P,
        (key, access): (GuestPage, Access),
        kind: Kind,
        pinned: P::Page,
    ) -> Result<At, MapError> {
        let index = match self.table_mut(kind).insert(key, access, pinned) {
            Ok(index) => index,
            Err(pinned) => {
                // Not reached: there are as many slots as the limit on pages allows.
                pinner.unpin(pinned);
                return Err(MapError::Busy);
            }
        };
        self.stats.pins += u64::from(kind.pages());
        self.stats.pinned += kind.pages();
        self.stats.pinned_most = self.stats.pinned_most.max(self.stats.pinned);
        if kind == Kind::Granule {
            self.stats.granules += 1;
            if !access.writes() {
                self.spoken_for += kind.pages();
            }
        }
        Ok(At { kind, index })
    }

    /// Unpins an entry without users that is in no idle list, and frees its slot.
    fn unpin(&mut self, pinner: &mut P, at: At) {
        let reads = self.entry(at).is_some_and(|entry| !entry.access.writes());
        let Some(pinned) = self.table_mut(at.kind).remove(at.index) else {
            return;
        };
        pinner.unpin(pinned);
        let pages = at.kind.pages();
        self.stats.unpins += u64::from(pages);
        self.stats.pinned = self.stats.pinned.saturating_sub(pages);
        if at.kind == Kind::Granule {
            self.stats.granules = self.stats.granules.saturating_sub(1);
            if reads {
                self.spoken_for = self.spoken_for.saturating_sub(pages);
            }
        }
    }

    /// Unpins the least recently used idle entry, if the strategy allows it; `false` if there is
    /// none.
    fn evict(&mut self, pinner: &mut P) -> bool {
        let Some(at) = self.oldest().filter(|_| self.strategy.evicts()) else {
            return false;
        };
        self.table_mut(at.kind).idle_remove(at.index);
        self.unpin(pinner, at);
        self.stats.evictions += u64::from(at.kind.pages());
        true
    }

    /// What it means that there is no room: later there will be, or never.
    fn full(&self) -> MapError {
        if self.strategy.evicts() && self.stats.pinned != 0 {
            MapError::Busy
        } else {
            MapError::Refused(Rejection::PinLimit)
        }
    }

    /// Whether transmission can spare that many pages more.
    const fn spares(&self, pages: u32) -> bool {
        self.spoken_for + pages <= self.limit_pages - Self::TX_RESERVE
    }

    /// Whether there is room for another granule as things are.
    const fn fits_granule(&self) -> bool {
        self.stats.granules < Self::max_granules(self.limit_pages)
            && self.stats.pinned + GRANULE_PAGES <= self.limit_pages
            && self.spares(GRANULE_PAGES)
    }

    /// Pins the granule of a page that is not in the tables, if that looks worth it. `None`: it is to
    /// be the page alone.
    fn pin_granule(
        &mut self,
        pinner: &mut P,
        page: GuestPage,
        access: Access,
    ) -> Result<Option<At>, MapError> {
        let (key, misses) = (page.granule(), self.stats.misses);
        if !self.strategy.pins_granules(access)
            || !self.fits_granule()
            || !self.hints.is_due(key, access.writes(), misses)
        {
            return Ok(None);
        }
        match pinner.pin_granule(key, access) {
            Ok(granule) => {
                // Its pages that were pinned before are found no more, and go as the oldest.
                self.hints.forget(key, access.writes());
                let at = self.insert(pinner, (key, access), Kind::Granule, granule)?;
                Ok(Some(at))
            }
            Err(NoGranule::Later) => Err(MapError::Busy),
            Err(NoGranule::Refused) => {
                self.hints.note_refusal(key, access.writes(), misses);
                Ok(None)
            }
        }
    }

    /// Pins a page that is not in the tables.
    fn pin_page(
        &mut self,
        pinner: &mut P,
        page: GuestPage,
        access: Access,
    ) -> Result<At, MapError> {
        if self.stats.pinned >= self.limit_pages && !self.evict(pinner) {
            return Err(self.full());
        }
        let mut result = pinner.pin(page, access);
        // One idle page may be what is missing. If it is not, later ones are tried one by one, and
        // in the end the limit is too small for a packet.
        if let Err(PinError::MemlockLimit | PinError::NoMemory) = result {
            if self.evict(pinner) {
                result = pinner.pin(page, access);
            }
        }
        let pinned = result.map_err(|error| match error {
            PinError::MemlockLimit => self.full(),
            PinError::Later => MapError::Busy,
            error => MapError::Refused(error.into()),
        })?;
        if self.strategy.pins_granules(access) {
            let misses = self.stats.misses;
            self.hints.note_pin(page.granule(), access.writes(), misses);
        }
        self.insert(pinner, (page, access), Kind::Page, pinned)
    }

    /// Pins what is not in the tables.
    fn miss(&mut self, pinner: &mut P, page: GuestPage, access: Access) -> Result<At, MapError> {
        match self.pin_granule(pinner, page, access)? {
            Some(at) => Ok(at),
            None => self.pin_page(pinner, page, access),
        }
    }

    fn put(&mut self, pinner: &mut P, slot: Slot) {
        let at = slot.at();
        let Some(entry) = self.entry_mut(at) else {
            return;
        };
        entry.users = entry.users.saturating_sub(1);
        if entry.users != 0 {
            return;
        }
        let (doomed, access) = (entry.doomed, entry.access);
        if access.writes() {
            self.spoken_for = self.spoken_for.saturating_sub(at.kind.pages());
        }
        let keeps = match at.kind {
            Kind::Page => self.strategy.keeps(access),
            Kind::Granule => self.strategy.pins_granules(access),
        };
        if !doomed && keeps {
            self.idle_push(at);
        } else {
            self.unpin(pinner, at);
            if doomed {
                self.stats.invalidations += u64::from(at.kind.pages());
            }
        }
    }

    /// Takes an entry from the VMM's side. Returns how many pages are still pinned.
    fn doom(&mut self, pinner: &mut P, at: At) -> u32 {
        let Some(entry) = self.entry_mut(at) else {
            return 0;
        };
        if entry.page.is_none() {
            return 0;
        }
        if entry.users != 0 {
            entry.doomed = true;
            return at.kind.pages();
        }
        self.table_mut(at.kind).idle_remove(at.index);
        self.unpin(pinner, at);
        self.stats.invalidations += u64::from(at.kind.pages());
        0
    }

    /// Takes every entry for one page or granule; returns how many pages are still pinned.
    fn doom_all(&mut self, pinner: &mut P, key: GuestPage, kind: Kind) -> u32 {
        let mut busy = 0;
        for writes in [false, true] {
            let mut index = self.table(kind).first(key, writes);
            for _ in 0..self.table(kind).len() {
                let next = self.table(kind).after(index);
                let at = At { kind, index };
                let Some(entry) = self.entry(at) else {
                    break;
                };
                if entry.key == key && entry.access.writes() == writes {
                    busy += self.doom(pinner, at);
                }
                index = next;
            }
        }
        busy
    }

    /// Takes every entry of one table that `within` names; returns how many pages are still pinned.
    fn doom_within(
        &mut self,
        pinner: &mut P,
        kind: Kind,
        within: impl Fn(GuestPage) -> bool,
    ) -> u32 {
        let mut busy = 0;
        for index in 0..self.table(kind).len() {
            let at = At { kind, index };
            let doomed = |e: &Entry<P::Page>| e.page.is_some() && within(e.key);
            if self.entry(at).is_some_and(doomed) {
                busy += self.doom(pinner, at);
            }
        }
        busy
    }

    /// The pinned memory behind a page.
    fn memory(&self, slot: Slot) -> Option<Memory<'_, P::Page>> {
        Some(Memory {
            pinned: self.entry(slot.at())?.page.as_ref()?,
            index: slot.place(),
        })
    }
}

impl<P: Pinner, A: Alloc> Mapper<P> for PinMap<P, A> {
    fn copies(&self) -> bool {
        self.strategy.copies()
    }

    fn acquire(
        &mut self,
        pinner: &mut P,
        page: GuestPage,
        access: Access,
    ) -> Result<MapRef, MapError> {
        let access = self.strategy.pin_for(access);
        let write = access.writes();
        let found = self.find(page, access);
        let users = |at| self.entry(at).map_or(0, |entry| entry.users);
        let idle = found.map_or(0, users) == 0;
        let pages = found.map_or(1, |at| at.kind.pages());
        if write && idle && !self.spares(pages) {
            self.stats.busy += 1;
            return Err(MapError::Busy);
        }
        let at = match found {
            Some(at) => {
                self.stats.hits += 1;
                if idle {
                    self.table_mut(at.kind).idle_remove(at.index);
                }
                at
            }
            None => {
                self.stats.misses += 1;
                self.miss(pinner, page, access).inspect_err(|error| {
                    self.stats.busy += u64::from(*error == MapError::Busy);
                })?
            }
        };
        let slot = Slot::new(at, page.granule_index()).ok_or(MapError::Busy)?;
        let entry = self.entry_mut(at).ok_or(MapError::Busy)?;
        let bus = entry.page.as_ref().ok_or(MapError::Busy)?.bus();
        entry.users += 1;
        if write && idle {
            self.spoken_for += at.kind.pages();
        }
        let bus = bus.and_then(|first| first.ahead(slot.place()));
        Ok(MapRef { slot, bus })
    }

    fn cancel(&mut self, pinner: &mut P, page: MapRef) {
        self.put(pinner, page.slot);
    }

    fn release(&mut self, pinner: &mut P, page: InFlight, _proof: AtRest<'_>) {
        self.put(pinner, page.slot);
    }

    fn leak(&mut self, pinner: &mut P, page: InFlight) {
        let at = page.slot.at();
        let Some(entry) = self.entry_mut(at) else {
            return;
        };
        if !entry.access.is_by_nic() {
            self.put(pinner, page.slot);
            return;
        }
        entry.doomed = true;
        if !core::mem::replace(&mut entry.leaked, true) {
            self.stats.leaked += u64::from(at.kind.pages());
        }
    }

    fn page(&self, page: &InFlight) -> Option<Memory<'_, P::Page>> {
        self.memory(page.slot)
    }

    fn acquired(&self, page: &MapRef) -> Option<Memory<'_, P::Page>> {
        self.memory(page.slot)
    }

    fn invalidate(&mut self, pinner: &mut P, range: PageRange) -> u32 {
        self.hints.forget_range(range);
        // The work is bounded by the tables, never by the range: the VMM takes away 2^52 pages at
        // a time when it leaves.
        if range.span() >= SMALL_RANGE {
            let touched = |first| range.touches_granule(first);
            return self.doom_within(pinner, Kind::Granule, touched)
                + self.doom_within(pinner, Kind::Page, |page| range.contains(page));
        }
        let mut busy = 0;
        let mut page = Some(range.first());
        let mut granule = None;
        while let Some(key) = page.filter(|page| range.contains(*page)) {
            busy += self.doom_all(pinner, key, Kind::Page);
            if granule.replace(key.granule()) != Some(key.granule()) {
                busy += self.doom_all(pinner, key.granule(), Kind::Granule);
            }
            page = key.next();
        }
        busy
    }

    fn uses(&self, range: PageRange, writes: bool) -> bool {
        let used = |e: &Entry<P::Page>| e.users != 0 && e.access.writes() == writes;
        self.granules
            .iter()
            .any(|e| used(e) && range.touches_granule(e.key))
            || self.pages.iter().any(|e| used(e) && range.contains(e.key))
    }

    fn stats(&self) -> MapStats {
        self.stats
    }
}
