// SPDX-License-Identifier: GPL-2.0

//! Kinds of addresses and indices. Each is its own type, so that one cannot stand for another.

use core::fmt;
use core::num::NonZeroU64;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Size of a guest page and of a pin, in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// log2 of [`GRANULE_PAGES`].
pub const GRANULE_SHIFT: u32 = 9;
/// Pages in a granule, which are pinned together where the host has them in one huge page: 2 MiB.
pub const GRANULE_PAGES: u32 = 1 << GRANULE_SHIFT;

/// An address as the guest wrote it into a descriptor or a ring base register (an IOVA of the
/// slice). Nothing is known about it: it may lie anywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestAddr(u64);

impl GuestAddr {
    /// Takes a raw value as the guest wrote it.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw value.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The page that holds this address.
    pub const fn page(self) -> GuestPage {
        GuestPage(self.0 >> PAGE_SHIFT)
    }

    /// Offset within [`Self::page`], in bytes.
    pub const fn page_offset(self) -> u16 {
        (self.0 & (PAGE_SIZE - 1)) as u16
    }

    /// This address plus `len_bytes`, or `None` where that wraps around 2^64.
    pub const fn checked_add(self, len_bytes: u64) -> Option<Self> {
        match self.0.checked_add(len_bytes) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }
}

impl fmt::Debug for GuestAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestAddr({:#x})", self.0)
    }
}

/// A page frame number in the guest's (IOVA) address space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPage(u64);

impl GuestPage {
    /// Takes a page frame number; bits that no 64-bit address can have are dropped.
    pub const fn new(pfn: u64) -> Self {
        Self(pfn & (u64::MAX >> PAGE_SHIFT))
    }

    /// The page frame number.
    pub const fn pfn(self) -> u64 {
        self.0
    }

    /// First address of the page.
    pub const fn start(self) -> GuestAddr {
        GuestAddr(self.0 << PAGE_SHIFT)
    }

    /// First page of the granule that holds this page.
    pub const fn granule(self) -> Self {
        Self(self.0 & !(GRANULE_PAGES as u64 - 1))
    }

    /// This page's place in its granule.
    pub const fn granule_index(self) -> u16 {
        (self.0 & (GRANULE_PAGES as u64 - 1)) as u16
    }

    /// The page after this one, or `None` at the top of the address space.
    pub const fn next(self) -> Option<Self> {
        if self.0 == u64::MAX >> PAGE_SHIFT {
            None
        } else {
            Some(Self(self.0 + 1))
        }
    }
}

impl fmt::Debug for GuestPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestPage({:#x})", self.0)
    }
}

/// A page-aligned address as the NIC puts it on the bus, obtained by pinning a guest page or
/// allocating host memory.
///
/// Kept with its lowest bit set, so that an `Option` of it takes no more room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BusPage(NonZeroU64);

impl BusPage {
    const MARK: u64 = 1;

    /// Takes the bus address of a page that is mapped for the NIC, or `None` if it is not aligned.
    ///
    /// For the platform only: it vouches that the page is pinned and mapped.
    pub const fn from_mapping(raw: u64) -> Option<Self> {
        if raw & (PAGE_SIZE - 1) != 0 {
            return None;
        }
        match NonZeroU64::new(raw | Self::MARK) {
            Some(marked) => Some(Self(marked)),
            None => None,
        }
    }

    /// The bus address of a byte in this page; `offset` is reduced modulo the page size.
    pub const fn at(self, offset: u16) -> BusAddr {
        BusAddr((self.0.get() & !Self::MARK) | (offset as u64 & (PAGE_SIZE - 1)))
    }

    /// The page `pages` further on, for pages that were mapped together.
    pub const fn ahead(self, pages: u16) -> Option<Self> {
        match self.0.checked_add((pages as u64) << PAGE_SHIFT) {
            Some(marked) => Some(Self(marked)),
            None => None,
        }
    }

    /// Whether `other` follows this page directly on the bus.
    pub const fn is_followed_by(self, other: BusPage) -> bool {
        match self.0.get().checked_add(PAGE_SIZE) {
            Some(next) => next == other.0.get(),
            None => false,
        }
    }
}

impl fmt::Debug for BusPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BusPage({:#x})", self.at(0).raw())
    }
}

/// An address as the NIC puts it on the bus. Made only from a [`BusPage`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BusAddr(u64);

impl BusAddr {
    /// The raw value, for a descriptor that the NIC reads.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for BusAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BusAddr({:#x})", self.0)
    }
}

/// A VMDq pool of the NIC: a set of queues with its own filters (82576 datasheet 7.10.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(u8);

impl PoolId {
    /// Most pools that any supported NIC has.
    pub const MAX: usize = 8;

    /// Pool `index`, or `None` where no supported NIC has so many.
    pub const fn new(index: u8) -> Option<Self> {
        if (index as usize) < Self::MAX {
            Some(Self(index))
        } else {
            None
        }
    }

    /// The pool's number, below [`Self::MAX`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
