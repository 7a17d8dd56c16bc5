// SPDX-License-Identifier: GPL-2.0

//! A ring in guest memory.

use super::{
    RingConfig,
    RingIndex,
    RingSize, //
};
use crate::addr::{
    GuestPage,
    PAGE_SIZE, //
};
use crate::check::Rejection;
use crate::desc::{
    RawDesc,
    DESC_BYTES, //
};
use crate::platform::{
    Access,
    PinError,
    PinnedPage,
    Pinner, //
};

/// Pages that a ring of 64 KiB can touch when its base is not page-aligned.
const MAX_PAGES: usize = 17;
const DESCS_PER_PAGE: u16 = PAGE_SIZE as u16 / DESC_BYTES;

/// A guest's ring with its pages pinned. Only the CPU touches it; the NIC never does
/// (invariant 1), so it may be closed at any time.
pub struct GuestRing<Page> {
    config: RingConfig,
    pages: [Option<Page>; MAX_PAGES],
    /// Slots of the first page that lie before the ring.
    lead: u16,
}

impl<Page: PinnedPage> GuestRing<Page> {
    /// Pins the ring's pages. On an error none stays pinned.
    pub fn open<P>(config: RingConfig, pinner: &mut P) -> Result<Self, Rejection>
    where
        P: Pinner<Page = Page>,
    {
        let mut ring = Self {
            config,
            pages: [const { None }; MAX_PAGES],
            lead: config.base().page_offset() / DESC_BYTES,
        };
        let (first, last) = config.pages();
        let mut next = Some(first);
        for slot in &mut ring.pages {
            let Some(page) = next.filter(|page| *page <= last) else {
                break;
            };
            match pinner.pin(page, Access::CpuWrite) {
                Ok(pinned) => *slot = Some(pinned),
                Err(error) => {
                    ring.close(pinner);
                    return Err(match error {
                        PinError::MemlockLimit | PinError::NoMemory => error.into(),
                        _ => Rejection::RingNotMemory,
                    });
                }
            }
            next = page.next();
        }
        Ok(ring)
    }

    /// Unpins the ring's pages.
    pub fn close<P>(self, pinner: &mut P)
    where
        P: Pinner<Page = Page>,
    {
        for page in self.pages.into_iter().flatten() {
            pinner.unpin(page);
        }
    }

    /// Where the ring lies.
    pub const fn config(&self) -> &RingConfig {
        &self.config
    }

    /// Number of descriptors.
    pub const fn size(&self) -> RingSize {
        self.config.size()
    }

    /// Whether the ring has a byte in the pages from `first` to `last`, both included.
    pub fn touches(&self, first: GuestPage, last: GuestPage) -> bool {
        let (own_first, own_last) = self.config.pages();
        own_first <= last && first <= own_last
    }

    /// The page that holds descriptor `index`, and the descriptor's offset in it.
    fn place(&self, index: RingIndex) -> Option<(&Page, u16)> {
        let slot = self.lead + index.get();
        let page = self.pages.get(usize::from(slot / DESCS_PER_PAGE))?;
        Some((page.as_ref()?, slot % DESCS_PER_PAGE * DESC_BYTES))
    }

    /// Copies descriptor `index` out of guest memory: the one read that a decision rests on
    /// (invariant 4). `None` for an index of another, larger ring.
    pub fn load(&self, index: RingIndex) -> Option<RawDesc> {
        let (page, offset) = self.place(index)?;
        Some(RawDesc::copied(page.load_desc(offset)))
    }

    /// Writes descriptor `index` back; the second word becomes visible last.
    pub fn store(&self, index: RingIndex, words: [u64; 2]) {
        if let Some((page, offset)) = self.place(index) {
            page.store_desc(offset, words);
        }
    }

    /// Writes the last 32 bits of descriptor `index` (a transmit descriptor's status).
    pub fn store_status(&self, index: RingIndex, status: u32) {
        if let Some((page, offset)) = self.place(index) {
            page.store_u32(offset + 12, status);
        }
    }
}
