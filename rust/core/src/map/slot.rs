// SPDX-License-Identifier: GPL-2.0

//! Which entry of which table.

use core::num::NonZeroU32;

use crate::addr::{
    GRANULE_PAGES,
    GRANULE_SHIFT, //
};

/// What was pinned as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Page,
    Granule,
}

impl Kind {
    pub(super) const fn pages(self) -> u32 {
        match self {
            Self::Page => 1,
            Self::Granule => GRANULE_PAGES,
        }
    }
}

/// An entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) kind: Kind,
    pub(super) index: u32,
}

impl At {
    pub(super) const fn page(index: u32) -> Self {
        let kind = Kind::Page;
        Self { kind, index }
    }

    pub(super) const fn granule(index: u32) -> Self {
        let kind = Kind::Granule;
        Self { kind, index }
    }
}

/// An entry, and in a granule the place of one page, in 32 bits that are not all zero: the top bit
/// tells the granules; their entries are so few that the place fits beside the index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(NonZeroU32);

impl Slot {
    const GRANULE: u32 = 1 << 31;
    /// Most entries of each table.
    pub(super) const MAX_PAGES: u32 = Self::GRANULE - 1;
    pub(super) const MAX_GRANULES: u32 = 1 << (31 - GRANULE_SHIFT);

    /// `place` counts in a granule only. `None` for an index past the bounds.
    pub(super) const fn new(at: At, place: u16) -> Option<Self> {
        let raw = match at.kind {
            Kind::Page if at.index < Self::MAX_PAGES => at.index + 1,
            Kind::Granule if at.index < Self::MAX_GRANULES => {
                let place = place as u32 & (GRANULE_PAGES - 1);
                Self::GRANULE | at.index << GRANULE_SHIFT | place
            }
            _ => return None,
        };
        match NonZeroU32::new(raw) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    pub(super) const fn at(self) -> At {
        let raw = self.0.get();
        if raw & Self::GRANULE == 0 {
            At::page(raw - 1)
        } else {
            At::granule((raw & !Self::GRANULE) >> GRANULE_SHIFT)
        }
    }

    /// The page's place in what was pinned.
    pub(super) const fn place(self) -> u16 {
        let raw = self.0.get();
        if raw & Self::GRANULE == 0 {
            0
        } else {
            (raw & (GRANULE_PAGES - 1)) as u16
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_places_are_kept() {
        for index in [0, 1, 511, 512, Slot::MAX_PAGES - 1] {
            let slot = Slot::new(At::page(index), 77).unwrap();
            assert_eq!((slot.at().kind, slot.at().index), (Kind::Page, index));
            assert_eq!(slot.place(), 0);
        }
        for index in [0, 1, 511, Slot::MAX_GRANULES - 1] {
            for place in [0, 1, 255, 511] {
                let slot = Slot::new(At::granule(index), place).unwrap();
                assert_eq!((slot.at().kind, slot.at().index), (Kind::Granule, index));
                assert_eq!(slot.place(), place);
            }
        }
        assert!(Slot::new(At::page(Slot::MAX_PAGES), 0).is_none());
        assert!(Slot::new(At::granule(Slot::MAX_GRANULES), 0).is_none());
        assert_eq!(size_of::<Option<Slot>>(), 4);
    }
}
