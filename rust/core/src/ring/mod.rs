// SPDX-License-Identifier: GPL-2.0

//! Descriptor rings: the guest's ([`GuestRing`]) and the NIC's ([`ShadowRing`]).

mod guest;
mod shadow;

pub use guest::GuestRing;
pub use shadow::{
    AtRest,
    Quiesced,
    ShadowRing,
    WrittenBack, //
};

use crate::addr::{
    GuestAddr,
    GuestPage, //
};
use crate::check::Rejection;
use crate::desc::DESC_BYTES;

/// Number of descriptors in a guest ring: a multiple of 8, from 8 to 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSize(u16);

impl RingSize {
    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Checks a tail as the guest wrote it.
    pub fn tail(self, raw: u32) -> Result<RingIndex, Rejection> {
        match u16::try_from(raw) {
            Ok(index) if index < self.0 => Ok(RingIndex(index)),
            _ => Err(Rejection::TailOutsideRing),
        }
    }

    /// The index after `index`.
    pub const fn next(self, index: RingIndex) -> RingIndex {
        if index.0 + 1 < self.0 {
            RingIndex(index.0 + 1)
        } else {
            RingIndex(0)
        }
    }

    /// Steps from `from` to `to`, below the ring's size.
    pub const fn distance(self, from: RingIndex, to: RingIndex) -> u16 {
        if to.0 >= from.0 {
            to.0 - from.0
        } else {
            // Both are below the size, so neither step leaves the range.
            self.0 - (from.0 - to.0)
        }
    }
}

/// Index of a descriptor in a guest ring. Made by [`RingSize`], below its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingIndex(u16);

impl RingIndex {
    /// Where a ring starts.
    pub const ZERO: Self = Self(0);

    /// The index, for a register or a report.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Where a guest ring lies: aligned, of legal length, and without wrap-around. Whether it is guest
/// memory shows when it is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    base: GuestAddr,
    size: RingSize,
}

impl RingConfig {
    /// Alignment of a ring's base and of its length, in bytes.
    pub const ALIGN_BYTES: u32 = 128;
    /// Longest ring in bytes: 4096 descriptors, as many as the in-tree drivers use.
    pub const MAX_BYTES: u32 = 1 << 16;

    /// Checks the base and length registers of a queue.
    pub fn new(base: u64, len_bytes: u32) -> Result<Self, Rejection> {
        if base % u64::from(Self::ALIGN_BYTES) != 0 {
            return Err(Rejection::RingBaseUnaligned);
        }
        if len_bytes == 0 || len_bytes % Self::ALIGN_BYTES != 0 || len_bytes > Self::MAX_BYTES {
            return Err(Rejection::RingLength);
        }
        if base.checked_add(u64::from(len_bytes) - 1).is_none() {
            return Err(Rejection::RingWraps);
        }
        Ok(Self {
            base: GuestAddr::new(base),
            size: RingSize((len_bytes / u32::from(DESC_BYTES)) as u16),
        })
    }

    /// A ring of any number of descriptors, for tests that go through all that can happen in one. No
    /// guest can have it: the module is built without.
    #[cfg(not(kernel))]
    pub fn small(base: u64, count: u16) -> Option<Self> {
        let config = Self::new(base, Self::ALIGN_BYTES).ok()?;
        (2..config.size.0).contains(&count).then_some(Self {
            size: RingSize(count),
            ..config
        })
    }

    /// First byte.
    pub const fn base(&self) -> GuestAddr {
        self.base
    }

    /// Number of descriptors.
    pub const fn size(&self) -> RingSize {
        self.size
    }

    /// Last byte; does not wrap (checked by [`Self::new`]).
    const fn last(&self) -> GuestAddr {
        let bytes = self.size.0 as u64 * DESC_BYTES as u64;
        GuestAddr::new(self.base.raw().saturating_add(bytes - 1))
    }

    /// First and last page.
    pub const fn pages(&self) -> (GuestPage, GuestPage) {
        (self.base.page(), self.last().page())
    }

    /// Whether the two share a byte.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.base.raw() <= other.last().raw() && other.base.raw() <= self.last().raw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_rules() {
        assert_eq!(RingConfig::new(64, 128), Err(Rejection::RingBaseUnaligned));
        for len in [0, 16, 127, 129, 65536 + 128, u32::MAX] {
            assert_eq!(RingConfig::new(128, len), Err(Rejection::RingLength));
        }
        let top = u64::MAX - 127;
        assert!(RingConfig::new(top, 128).is_ok());
        assert_eq!(RingConfig::new(top, 256), Err(Rejection::RingWraps));
        let (a, b) = (
            RingConfig::new(0x1000, 4096),
            RingConfig::new(0x2000, 65536),
        );
        let (a, b) = (a.unwrap(), b.unwrap());
        assert!(!a.overlaps(&b) && !b.overlaps(&a) && a.overlaps(&a));
        assert!(RingConfig::new(0x1f80, 256).unwrap().overlaps(&b));
        assert_eq!(b.size().get(), 4096);
        let unaligned = RingConfig::new(0x1080, 65536).unwrap();
        let (first, last) = unaligned.pages();
        assert_eq!(last.pfn() - first.pfn(), 16);
    }

    #[test]
    fn arithmetic_is_modular() {
        for count in [8u16, 24, 4096] {
            let size = RingConfig::new(0, u32::from(count) * 16).unwrap().size();
            assert_eq!(size.tail(u32::from(count)), Err(Rejection::TailOutsideRing));
            assert_eq!(size.tail(0x1_0000), Err(Rejection::TailOutsideRing));
            for from in [0, 1, count / 2, count - 1] {
                for to in [0, 1, count / 2, count - 1] {
                    let (a, b) = (size.tail(from.into()), size.tail(to.into()));
                    let (mut a, b) = (a.unwrap(), b.unwrap());
                    for _ in 0..size.distance(a, b) {
                        assert_ne!(a, b);
                        a = size.next(a);
                    }
                    assert_eq!(a, b);
                }
            }
        }
    }
}
