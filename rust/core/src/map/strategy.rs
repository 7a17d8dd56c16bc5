// SPDX-License-Identifier: GPL-2.0

//! The policies for pins, by name.

use crate::platform::Access;

/// How long guest pages stay pinned, and who reaches them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Each use pins the page anew and unpins it when that use ends.
    SingleUse,
    /// Uses at the same time share one pin; the last to end unpins.
    Shared,
    /// Pages stay pinned after use; the least recently used makes room.
    #[default]
    Persistent,
    /// Pages stay pinned from their first use on, until the VMM takes them away or the slice
    /// closes. There is no list of what the VMM has mapped, so that guest memory cannot be pinned
    /// before it is named; what does not fit is refused, for nothing would ever make room.
    DirectMap,
    /// The NIC sees host memory only; the CPU copies. Guest pages are pinned, as by
    /// [`Self::Persistent`], for the CPU, and not mapped for the NIC.
    Copy,
}

impl Strategy {
    /// All of them, from the strictest for the NIC's view of guest memory to the loosest, and the
    /// one without such a view.
    pub const ALL: [Self; 5] = [
        Self::SingleUse,
        Self::Shared,
        Self::Persistent,
        Self::DirectMap,
        Self::Copy,
    ];

    /// The name that administrators use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SingleUse => "single-use",
            Self::Shared => "shared",
            Self::Persistent => "persistent",
            Self::DirectMap => "direct-map",
            Self::Copy => "copy",
        }
    }

    /// The strategy of that name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name().as_bytes() == name)
    }

    /// Whether packets are copied by the CPU.
    pub const fn copies(self) -> bool {
        matches!(self, Self::Copy)
    }

    /// Whether a page is looked for among those in use.
    pub(super) const fn shares(self) -> bool {
        !matches!(self, Self::SingleUse)
    }

    /// Whether an idle page may go so that another one fits.
    pub(super) const fn evicts(self) -> bool {
        !matches!(self, Self::DirectMap)
    }

    /// Whether whole granules are pinned where they can be.
    pub(super) const fn pins_granules(self, access: Access) -> bool {
        matches!(self, Self::Persistent) && access.is_by_nic()
    }

    /// Whether a page pinned for `access` stays pinned when nobody uses it.
    pub(super) const fn keeps(self, access: Access) -> bool {
        match self {
            Self::SingleUse | Self::Shared => false,
            Self::Persistent | Self::DirectMap => access.is_by_nic(),
            Self::Copy => !access.is_by_nic(),
        }
    }

    /// For what a page is pinned that the data path wants for `access`.
    pub(super) const fn pin_for(self, access: Access) -> Access {
        match self {
            Self::Copy => access.by_cpu(),
            _ => access,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        for strategy in Strategy::ALL {
            assert_eq!(Strategy::parse(strategy.name().as_bytes()), Some(strategy));
        }
        for wrong in ["", "Persistent", "persistent\n", "single_use", "direct"] {
            assert_eq!(Strategy::parse(wrong.as_bytes()), None);
        }
        assert_eq!(Strategy::default(), Strategy::Persistent);
    }
}
