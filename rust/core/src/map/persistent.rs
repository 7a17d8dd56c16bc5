// SPDX-License-Identifier: GPL-2.0

//! Persistent mappings: a page stays pinned after use, and the least recently used one makes room.

use core::num::NonZeroU32;

use super::{
    InFlight,
    MapError,
    MapRef,
    MapStats,
    Mapper,
    PageRange, //
};
use crate::addr::GuestPage;
use crate::platform::{
    Access,
    Alloc,
    PinError,
    PinnedPage,
    Pinner, //
};
use crate::ring::AtRest;

/// No entry.
const NIL: u32 = u32::MAX;
/// Ranges of fewer pages than this (less one) are looked up page by page, larger ones by
/// walking the table.
const SMALL_RANGE: u64 = 64;

/// One pinned page, or a free slot.
struct Entry<Page> {
    /// `None` in a free slot.
    page: Option<Page>,
    key: GuestPage,
    access: Access,
    /// Acquired and not given back.
    users: u32,
    /// Taken away by the VMM, or given up: not handed out again.
    doomed: bool,
    /// Given up: one user never gives it back, so that it stays for ever.
    leaked: bool,
    /// Next in the hash chain, or in the free list.
    next: u32,
    /// Neighbours among the idle ones, in order of use.
    older: u32,
    newer: u32,
}

/// The persistent strategy.
///
/// A table of fixed size, allocated once: a hit takes no lock, no allocation, and a walk of a
/// short hash chain. The hash is keyed, so that a guest cannot choose pages that share a chain.
pub struct Persistent<P: Pinner, A: Alloc> {
    entries: A::Buf<Entry<P::Page>>,
    buckets: A::Buf<u32>,
    hash_shift: u32,
    hash_key: u64,
    free: u32,
    oldest: u32,
    newest: u32,
    /// Entries for [`Access::Write`] in use. Receive buffers wait long for their packet; they may
    /// not starve transmission of slots.
    write_users: u32,
    write_limit: u32,
    stats: MapStats,
}

impl<P: Pinner, A: Alloc> Persistent<P, A> {
    /// Fewest pages that a table may have: a transmit packet and as much for receive buffers.
    pub const MIN_PAGES: u32 = 2 * Self::TX_RESERVE;
    /// Pages that receive buffers leave to transmission: two for each piece of the largest packet.
    const TX_RESERVE: u32 = 2 * crate::tx::MAX_PIECES as u32;

    /// A table for `limit_pages` pages ([`Self::MIN_PAGES`] at least). `seed` should be random and
    /// hidden from the guest. `None` when out of memory or out of range. Sleeps.
    pub fn new(limit_pages: u32, seed: u64) -> Option<Self> {
        if !(Self::MIN_PAGES..=1 << 24).contains(&limit_pages) {
            return None;
        }
        let bits = (limit_pages - 1).ilog2() + 1;
        let entries = A::filled(limit_pages as usize, |i| {
            let next = i as u32 + 1;
            Entry {
                page: None,
                key: GuestPage::new(0),
                access: Access::Read,
                users: 0,
                doomed: false,
                leaked: false,
                next: if next < limit_pages { next } else { NIL },
                older: NIL,
                newer: NIL,
            }
        })?;
        Some(Self {
            entries,
            buckets: A::filled(1 << bits, |_| NIL)?,
            hash_shift: u64::BITS - bits,
            hash_key: seed | 1,
            free: 0,
            oldest: NIL,
            newest: NIL,
            write_users: 0,
            write_limit: limit_pages - Self::TX_RESERVE,
            stats: MapStats::default(),
        })
    }

    fn entry(&self, index: u32) -> Option<&Entry<P::Page>> {
        self.entries.get(index as usize)
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<P::Page>> {
        self.entries.get_mut(index as usize)
    }

    /// Multiply-shift hashing; the bucket table has 2^(64 - shift) entries.
    fn bucket(&self, key: GuestPage, access: Access) -> usize {
        let key = (key.pfn() << 1) | u64::from(access == Access::Write);
        (key.wrapping_mul(self.hash_key) >> self.hash_shift) as usize
    }

    fn find(&self, key: GuestPage, access: Access) -> Option<u32> {
        let mut index = *self.buckets.get(self.bucket(key, access))?;
        // A chain is no longer than the table; the bound makes termination plain.
        for _ in 0..self.entries.len() {
            let entry = self.entry(index)?;
            if entry.key == key && entry.access == access && !entry.doomed {
                return Some(index);
            }
            index = entry.next;
        }
        None
    }

    fn chain(&mut self, index: u32, key: GuestPage, access: Access) {
        let bucket = self.bucket(key, access);
        if let Some(first) = self.buckets.get_mut(bucket) {
            let next = core::mem::replace(first, index);
            if let Some(entry) = self.entry_mut(index) {
                entry.next = next;
            }
        }
    }

    fn unchain(&mut self, index: u32) {
        let Some(entry) = self.entry(index) else {
            return;
        };
        let (bucket, next) = (self.bucket(entry.key, entry.access), entry.next);
        let Some(first) = self.buckets.get_mut(bucket) else {
            return;
        };
        if *first == index {
            *first = next;
            return;
        }
        let mut at = *first;
        for _ in 0..self.entries.len() {
            let Some(entry) = self.entry_mut(at) else {
                return;
            };
            if entry.next == index {
                entry.next = next;
                return;
            }
            at = entry.next;
        }
    }

    /// Puts an entry behind all idle ones.
    fn idle_push(&mut self, index: u32) {
        let older = core::mem::replace(&mut self.newest, index);
        if let Some(entry) = self.entry_mut(index) {
            entry.older = older;
            entry.newer = NIL;
        }
        match self.entry_mut(older) {
            Some(entry) => entry.newer = index,
            None => self.oldest = index,
        }
    }

    fn idle_remove(&mut self, index: u32) {
        let Some(entry) = self.entry_mut(index) else {
            return;
        };
        let (older, newer) = (entry.older, entry.newer);
        match self.entry_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.entry_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }

    /// Unpins an entry without users that is in no idle list, and frees its slot.
    fn unpin(&mut self, pinner: &mut P, index: u32) {
        self.unchain(index);
        let free = self.free;
        let Some(entry) = self.entry_mut(index) else {
            return;
        };
        entry.doomed = false;
        entry.next = free;
        if let Some(page) = entry.page.take() {
            pinner.unpin(page);
            self.stats.unpins += 1;
            self.stats.pinned = self.stats.pinned.saturating_sub(1);
        }
        self.free = index;
    }

    /// Unpins the least recently used idle entry; `false` if there is none.
    fn evict(&mut self, pinner: &mut P) -> bool {
        let index = self.oldest;
        if index == NIL {
            return false;
        }
        self.idle_remove(index);
        self.unpin(pinner, index);
        self.stats.evictions += 1;
        true
    }

    /// Pins a page that is not in the table.
    fn pin(&mut self, pinner: &mut P, key: GuestPage, access: Access) -> Result<P::Page, MapError> {
        match pinner.pin(key, access) {
            Ok(page) => Ok(page),
            Err(PinError::Later) => Err(MapError::Busy),
            // One idle page may be what is missing. If it is not, later ones are tried one by
            // one, and in the end the limit is too small for a packet.
            Err(PinError::MemlockLimit | PinError::NoMemory) if self.evict(pinner) => {
                match pinner.pin(key, access) {
                    Err(PinError::MemlockLimit) if self.stats.pinned != 0 => Err(MapError::Busy),
                    result => result.map_err(|e| MapError::Refused(e.into())),
                }
            }
            Err(PinError::MemlockLimit) if self.stats.pinned != 0 => Err(MapError::Busy),
            Err(error) => Err(MapError::Refused(error.into())),
        }
    }

    fn insert(&mut self, pinner: &mut P, key: GuestPage, access: Access) -> Result<u32, MapError> {
        if self.free == NIL && !self.evict(pinner) {
            return Err(MapError::Busy);
        }
        let page = self.pin(pinner, key, access)?;
        self.stats.pins += 1;
        self.stats.pinned += 1;
        self.stats.pinned_most = self.stats.pinned_most.max(self.stats.pinned);
        let index = self.free;
        let Some(entry) = self.entry_mut(index) else {
            // Not reached: a free slot was seen above, and pinning takes none.
            pinner.unpin(page);
            return Err(MapError::Busy);
        };
        entry.page = Some(page);
        entry.key = key;
        entry.access = access;
        entry.users = 0;
        entry.doomed = false;
        entry.leaked = false;
        self.free = entry.next;
        self.chain(index, key, access);
        Ok(index)
    }

    fn put(&mut self, pinner: &mut P, slot: NonZeroU32) {
        let index = slot.get() - 1;
        let Some(entry) = self.entry_mut(index) else {
            return;
        };
        entry.users = entry.users.saturating_sub(1);
        if entry.users != 0 {
            return;
        }
        let (doomed, write) = (entry.doomed, entry.access == Access::Write);
        if write {
            self.write_users = self.write_users.saturating_sub(1);
        }
        if doomed {
            self.unpin(pinner, index);
            self.stats.invalidations += 1;
        } else {
            self.idle_push(index);
        }
    }

    /// Takes entry `index` from the VMM's side. Returns whether it is still pinned.
    fn doom(&mut self, pinner: &mut P, index: u32) -> bool {
        let Some(entry) = self.entry_mut(index) else {
            return false;
        };
        if entry.page.is_none() {
            return false;
        }
        if entry.users != 0 {
            entry.doomed = true;
            return true;
        }
        self.idle_remove(index);
        self.unpin(pinner, index);
        self.stats.invalidations += 1;
        false
    }
}

impl<P: Pinner, A: Alloc> Persistent<P, A> {
    /// Takes every entry for one page; returns how many are still pinned.
    fn doom_all(&mut self, pinner: &mut P, key: GuestPage, access: Access) -> u32 {
        let mut busy = 0;
        let bucket = self.bucket(key, access);
        let mut index = self.buckets.get(bucket).copied().unwrap_or(NIL);
        for _ in 0..self.entries.len() {
            let Some(entry) = self.entry(index) else {
                break;
            };
            let (next, hit) = (entry.next, entry.key == key && entry.access == access);
            if hit {
                busy += u32::from(self.doom(pinner, index));
            }
            index = next;
        }
        busy
    }
}

impl<P: Pinner, A: Alloc> Mapper<P> for Persistent<P, A> {
    fn acquire(
        &mut self,
        pinner: &mut P,
        page: GuestPage,
        access: Access,
    ) -> Result<MapRef, MapError> {
        let found = self.find(page, access);
        let write = access == Access::Write;
        let idle = match found {
            Some(index) => self.entry(index).is_some_and(|entry| entry.users == 0),
            None => true,
        };
        if write && idle && self.write_users >= self.write_limit {
            self.stats.busy += 1;
            return Err(MapError::Busy);
        }
        let index = match found {
            Some(index) => {
                self.stats.hits += 1;
                if idle {
                    self.idle_remove(index);
                }
                index
            }
            None => {
                self.stats.misses += 1;
                match self.insert(pinner, page, access) {
                    Ok(index) => index,
                    Err(error) => {
                        if error == MapError::Busy {
                            self.stats.busy += 1;
                        }
                        return Err(error);
                    }
                }
            }
        };
        let entry = self.entry_mut(index).ok_or(MapError::Busy)?;
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

    fn leak(&mut self, page: InFlight) {
        let Some(entry) = self.entry_mut(page.slot.get() - 1) else {
            return;
        };
        entry.doomed = true;
        if !core::mem::replace(&mut entry.leaked, true) {
            self.stats.leaked += 1;
        }
    }

    fn page(&self, page: &InFlight) -> Option<&P::Page> {
        self.entry(page.slot.get() - 1)?.page.as_ref()
    }

    fn invalidate(&mut self, pinner: &mut P, range: PageRange) -> u32 {
        // The work is bounded by the table, never by the range: the VMM takes away 2^52 pages at
        // a time when it leaves.
        let mut busy = 0;
        if range.span() < SMALL_RANGE {
            let mut page = Some(range.first());
            while let Some(key) = page.filter(|page| range.contains(*page)) {
                for access in [Access::Read, Access::Write] {
                    busy += self.doom_all(pinner, key, access);
                }
                page = key.next();
            }
            return busy;
        }
        for index in 0..self.entries.len() as u32 {
            let within = |e: &Entry<P::Page>| e.page.is_some() && range.contains(e.key);
            if self.entry(index).is_some_and(within) {
                busy += u32::from(self.doom(pinner, index));
            }
        }
        busy
    }

    fn stats(&self) -> MapStats {
        self.stats
    }
}
