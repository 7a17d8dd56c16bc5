// SPDX-License-Identifier: GPL-2.0

//! Every strategy over one table: they differ in what is looked up, and in what an idle page is
//! worth.

use core::num::NonZeroU32;

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
    PageRange,
    Strategy, //
};
use crate::addr::GuestPage;
use crate::check::Rejection;
use crate::platform::{
    Access,
    Alloc,
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
pub struct PinMap<P: Pinner, A: Alloc> {
    strategy: Strategy,
    table: Table<P::Page, A>,
    /// Entries for [`Access::Write`] in use. Receive buffers wait long for their packet; they may
    /// not starve transmission of slots.
    write_users: u32,
    write_limit: u32,
    stats: MapStats,
}

impl<P: Pinner, A: Alloc> PinMap<P, A> {
    /// Fewest pages that a table may have: a transmit packet and as much for receive buffers.
    pub const MIN_PAGES: u32 = 2 * Self::TX_RESERVE;
    /// Pages that receive buffers leave to transmission: two for each piece of the largest packet.
    const TX_RESERVE: u32 = 2 * crate::tx::MAX_PIECES as u32;

    /// A map of at most `limit_pages` pages ([`Self::MIN_PAGES`] at least). `seed` should be random
    /// and hidden from the guest. `None` when out of memory or out of range. Sleeps.
    pub fn new(strategy: Strategy, limit_pages: u32, seed: u64) -> Option<Self> {
        if !(Self::MIN_PAGES..=1 << 24).contains(&limit_pages) {
            return None;
        }
        Some(Self {
            strategy,
            table: Table::new(limit_pages, seed)?,
            write_users: 0,
            write_limit: limit_pages - Self::TX_RESERVE,
            stats: MapStats::default(),
        })
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
        while let Some(index) = self.table.oldest() {
            self.table.idle_remove(index);
            self.unpin(pinner, index);
        }
    }

    /// Unpins an entry without users that is in no idle list, and frees its slot.
    fn unpin(&mut self, pinner: &mut P, index: u32) {
        if let Some(page) = self.table.remove(index) {
            pinner.unpin(page);
            self.stats.unpins += 1;
            self.stats.pinned = self.stats.pinned.saturating_sub(1);
        }
    }

    /// Unpins the least recently used idle entry, if the strategy allows it; `false` if there is
    /// none.
    fn evict(&mut self, pinner: &mut P) -> bool {
        let Some(index) = self.table.oldest().filter(|_| self.strategy.evicts()) else {
            return false;
        };
        self.table.idle_remove(index);
        self.unpin(pinner, index);
        self.stats.evictions += 1;
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

    /// Pins a page that is not in the table.
    fn pin(&mut self, pinner: &mut P, key: GuestPage, access: Access) -> Result<P::Page, MapError> {
        let mut result = pinner.pin(key, access);
        // One idle page may be what is missing. If it is not, later ones are tried one by one, and
        // in the end the limit is too small for a packet.
        if let Err(PinError::MemlockLimit | PinError::NoMemory) = result {
            if self.evict(pinner) {
                result = pinner.pin(key, access);
            }
        }
        result.map_err(|error| match error {
            PinError::MemlockLimit => self.full(),
            PinError::Later => MapError::Busy,
            error => MapError::Refused(error.into()),
        })
    }

    fn insert(&mut self, pinner: &mut P, key: GuestPage, access: Access) -> Result<u32, MapError> {
        if self.table.is_full() && !self.evict(pinner) {
            return Err(self.full());
        }
        let page = self.pin(pinner, key, access)?;
        self.stats.pins += 1;
        self.stats.pinned += 1;
        self.stats.pinned_most = self.stats.pinned_most.max(self.stats.pinned);
        self.table.insert(key, access, page).map_err(|page| {
            // Not reached: a free slot was seen above, and pinning takes none.
            pinner.unpin(page);
            self.stats.unpins += 1;
            self.stats.pinned -= 1;
            MapError::Busy
        })
    }

    fn put(&mut self, pinner: &mut P, slot: NonZeroU32) {
        let index = slot.get() - 1;
        let Some(entry) = self.table.get_mut(index) else {
            return;
        };
        entry.users = entry.users.saturating_sub(1);
        if entry.users != 0 {
            return;
        }
        let (doomed, access) = (entry.doomed, entry.access);
        if access.writes() {
            self.write_users = self.write_users.saturating_sub(1);
        }
        if !doomed && self.strategy.keeps(access) {
            self.table.idle_push(index);
        } else {
            self.unpin(pinner, index);
            self.stats.invalidations += u64::from(doomed);
        }
    }

    /// Takes entry `index` from the VMM's side. Returns whether it is still pinned.
    fn doom(&mut self, pinner: &mut P, index: u32) -> bool {
        let Some(entry) = self.table.get_mut(index) else {
            return false;
        };
        if entry.page.is_none() {
            return false;
        }
        if entry.users != 0 {
            entry.doomed = true;
            return true;
        }
        self.table.idle_remove(index);
        self.unpin(pinner, index);
        self.stats.invalidations += 1;
        false
    }

    /// Takes every entry for one page; returns how many are still pinned.
    fn doom_all(&mut self, pinner: &mut P, key: GuestPage, writes: bool) -> u32 {
        let mut busy = 0;
        let mut index = self.table.first(key, writes);
        for _ in 0..self.table.len() {
            let next = self.table.after(index);
            let Some(entry) = self.table.get(index) else {
                break;
            };
            if entry.key == key && entry.access.writes() == writes {
                busy += u32::from(self.doom(pinner, index));
            }
            index = next;
        }
        busy
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
        let found = if self.strategy.shares() {
            self.table.find(page, access)
        } else {
            None
        };
        let write = access.writes();
        let users = |index| self.table.get(index).map_or(0, |entry| entry.users);
        let idle = found.map_or(0, users) == 0;
        if write && idle && self.write_users >= self.write_limit {
            self.stats.busy += 1;
            return Err(MapError::Busy);
        }
        let index = match found {
            Some(index) => {
                self.stats.hits += 1;
                if idle {
                    self.table.idle_remove(index);
                }
                index
            }
            None => {
                self.stats.misses += 1;
                self.insert(pinner, page, access).inspect_err(|error| {
                    self.stats.busy += u64::from(*error == MapError::Busy);
                })?
            }
        };
        let entry = self.table.get_mut(index).ok_or(MapError::Busy)?;
        let bus = entry.page.as_ref().ok_or(MapError::Busy)?.bus();
        let slot = NonZeroU32::new(index + 1).ok_or(MapError::Busy)?;
        entry.users += 1;
        if write && idle {
            self.write_users += 1;
        }
        Ok(MapRef { slot, bus })
    }

    fn cancel(&mut self, pinner: &mut P, page: MapRef) {
        self.put(pinner, page.slot);
    }

    fn release(&mut self, pinner: &mut P, page: InFlight, _proof: AtRest<'_>) {
        self.put(pinner, page.slot);
    }

    fn leak(&mut self, pinner: &mut P, page: InFlight) {
        let Some(entry) = self.table.get_mut(page.slot.get() - 1) else {
            return;
        };
        if !entry.access.is_by_nic() {
            self.put(pinner, page.slot);
            return;
        }
        entry.doomed = true;
        if !core::mem::replace(&mut entry.leaked, true) {
            self.stats.leaked += 1;
        }
    }

    fn page(&self, page: &InFlight) -> Option<&P::Page> {
        self.table.get(page.slot.get() - 1)?.page.as_ref()
    }

    fn acquired(&self, page: &MapRef) -> Option<&P::Page> {
        self.table.get(page.slot.get() - 1)?.page.as_ref()
    }

    fn invalidate(&mut self, pinner: &mut P, range: PageRange) -> u32 {
        // The work is bounded by the table, never by the range: the VMM takes away 2^52 pages at
        // a time when it leaves.
        let mut busy = 0;
        if range.span() < SMALL_RANGE {
            let mut page = Some(range.first());
            while let Some(key) = page.filter(|page| range.contains(*page)) {
                for writes in [false, true] {
                    busy += self.doom_all(pinner, key, writes);
                }
                page = key.next();
            }
            return busy;
        }
        for index in 0..self.table.len() {
            let within = |e: &Entry<P::Page>| e.page.is_some() && range.contains(e.key);
            if self.table.get(index).is_some_and(within) {
                busy += u32::from(self.doom(pinner, index));
            }
        }
        busy
    }

    fn uses(&self, range: PageRange, writes: bool) -> bool {
        (0..self.table.len())
            .filter_map(|index| self.table.get(index))
            .any(|e| e.users != 0 && e.access.writes() == writes && range.contains(e.key))
    }

    fn stats(&self) -> MapStats {
        self.stats
    }
}
