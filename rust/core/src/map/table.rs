// SPDX-License-Identifier: GPL-2.0

//! A table of pinned pages, or of pinned granules: hash chains to find them, and a list of the idle
//! ones by age.
//!
//! Of fixed size, allocated once. Knows nothing of when a page is pinned or unpinned.

use crate::addr::GuestPage;
use crate::platform::{
    Access,
    Alloc, //
};

/// No entry.
pub(super) const NIL: u32 = u32::MAX;

/// One pinned page or granule, or a free slot.
pub(super) struct Entry<Page> {
    /// `None` in a free slot.
    pub(super) page: Option<Page>,
    /// The page; of a granule, the first one.
    pub(super) key: GuestPage,
    pub(super) access: Access,
    /// Acquired and not given back.
    pub(super) users: u32,
    /// Taken away by the VMM, or given up: not handed out again.
    pub(super) doomed: bool,
    /// Given up: one user never gives it back, so that it stays for ever.
    pub(super) leaked: bool,
    /// Next in the hash chain, or in the free list.
    next: u32,
    /// Before it in the hash chain; of no meaning in a free slot.
    prev: u32,
    /// When it was last put among the idle ones.
    pub(super) idle_since: u32,
    /// Neighbours among the idle ones, in order of use.
    older: u32,
    newer: u32,
}

/// The table. A look-up is a walk of a short chain; the hash is keyed, so that a guest cannot
/// choose pages that share a chain.
pub(super) struct Table<Page, A: Alloc> {
    entries: A::Buf<Entry<Page>>,
    buckets: A::Buf<u32>,
    hash_shift: u32,
    hash_key: u64,
    free: u32,
    oldest: u32,
    newest: u32,
}

impl<Page, A: Alloc> Table<Page, A> {
    /// A table for `len` pages, at least 2. `None` when out of memory. Sleeps.
    pub(super) fn new(len: u32, seed: u64) -> Option<Self> {
        let bits = len.checked_sub(1)?.checked_ilog2()? + 1;
        let entries = A::filled(len as usize, |i| {
            let next = i as u32 + 1;
            Entry {
                page: None,
                key: GuestPage::new(0),
                access: Access::Read,
                users: 0,
                doomed: false,
                leaked: false,
                next: if next < len { next } else { NIL },
                prev: NIL,
                idle_since: 0,
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
        })
    }

    /// Number of slots.
    pub(super) fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    /// All slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<Page>> {
        self.entries.iter()
    }

    pub(super) fn get(&self, index: u32) -> Option<&Entry<Page>> {
        self.entries.get(index as usize)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Entry<Page>> {
        self.entries.get_mut(index as usize)
    }

    /// Multiply-shift hashing; the bucket table has 2^(64 - shift) entries.
    fn bucket(&self, key: GuestPage, writes: bool) -> usize {
        let key = (key.pfn() << 1) | u64::from(writes);
        (key.wrapping_mul(self.hash_key) >> self.hash_shift) as usize
    }

    /// The first of those that may be pages `key`, pinned for writing or not; more by
    /// [`Self::after`].
    pub(super) fn first(&self, key: GuestPage, writes: bool) -> u32 {
        let bucket = self.bucket(key, writes);
        self.buckets.get(bucket).copied().unwrap_or(NIL)
    }

    /// The next in a chain.
    pub(super) fn after(&self, index: u32) -> u32 {
        self.get(index).map_or(NIL, |entry| entry.next)
    }

    /// A page that can be handed out.
    pub(super) fn find(&self, key: GuestPage, access: Access) -> Option<u32> {
        let mut index = self.first(key, access.writes());
        // A chain is no longer than the table; the bound makes termination plain.
        for _ in 0..self.entries.len() {
            let entry = self.get(index)?;
            if entry.key == key && entry.access == access && !entry.doomed {
                return Some(index);
            }
            index = entry.next;
        }
        None
    }

    /// Takes in a page without users, in no idle list. Gives it back if the table is full.
    pub(super) fn insert(
        &mut self,
        key: GuestPage,
        access: Access,
        page: Page,
    ) -> Result<u32, Page> {
        let (index, bucket) = (self.free, self.bucket(key, access.writes()));
        let Some(entry) = self.entries.get_mut(index as usize) else {
            return Err(page);
        };
        let Some(first) = self.buckets.get_mut(bucket) else {
            return Err(page);
        };
        self.free = entry.next;
        let second = core::mem::replace(first, index);
        entry.next = second;
        entry.prev = NIL;
        entry.page = Some(page);
        entry.key = key;
        entry.access = access;
        entry.users = 0;
        entry.doomed = false;
        entry.leaked = false;
        if let Some(second) = self.get_mut(second) {
            second.prev = index;
        }
        Ok(index)
    }

    /// Takes out a page that is in no idle list.
    pub(super) fn remove(&mut self, index: u32) -> Option<Page> {
        let page = self.get_mut(index)?.page.take()?;
        self.unchain(index);
        let free = self.free;
        let entry = self.get_mut(index)?;
        entry.doomed = false;
        entry.next = free;
        self.free = index;
        Some(page)
    }

    /// Without a walk: single uses of one page are a chain as long as a guest likes, and the worker gives
    /// them back.
    fn unchain(&mut self, index: u32) {
        let Some(entry) = self.get(index) else {
            return;
        };
        let (prev, next) = (entry.prev, entry.next);
        let bucket = self.bucket(entry.key, entry.access.writes());
        match self.get_mut(prev) {
            Some(entry) => entry.next = next,
            None => {
                if let Some(first) = self.buckets.get_mut(bucket) {
                    *first = next;
                }
            }
        }
        if let Some(entry) = self.get_mut(next) {
            entry.prev = prev;
        }
    }

    /// The idle page that was used longest ago.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NIL).then_some(self.oldest)
    }

    /// Puts an entry behind all idle ones.
    pub(super) fn idle_push(&mut self, index: u32, now: u32) {
        let older = core::mem::replace(&mut self.newest, index);
        if let Some(entry) = self.get_mut(index) {
            entry.idle_since = now;
            entry.older = older;
            entry.newer = NIL;
        }
        match self.get_mut(older) {
            Some(entry) => entry.newer = index,
            None => self.oldest = index,
        }
    }

    /// Takes an entry out of the list of idle ones, where it is.
    pub(super) fn idle_remove(&mut self, index: u32) {
        let Some(entry) = self.get_mut(index) else {
            return;
        };
        let (older, newer) = (entry.older, entry.newer);
        match self.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }
}
