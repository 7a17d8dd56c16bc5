// SPDX-License-Identifier: GPL-2.0

//! Which pools are members of which VLAN.

use super::shares::has_share;
use super::FilterError;
use crate::addr::PoolId;

/// VLAN entries that all pools share (VLVF, 82576 datasheet 8.14).
pub const VLAN_SLOTS: usize = 32;
/// VLANs that each pool can join for certain. Beyond these it is who comes first.
pub const VLANS_EACH: usize = 3;

/// Memberships beyond [`VLANS_EACH`] that all pools have together. One entry is for VLAN 0.
const VLANS_SHARED: usize = VLAN_SLOTS - 1 - VLANS_EACH * PoolId::MAX;
/// Highest VLAN id that a frame can carry and that names a VLAN.
const VID_MAX: u16 = 4094;

/// One entry of the VLAN table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanSlot {
    /// The VLAN id.
    pub vid: u16,
    /// The pools that are members, one bit each. Never zero.
    pub pools: u8,
}

/// The VLAN table.
///
/// What counts against a pool's share is its memberships, not the entries that it brought about: a
/// VLAN that others have joined costs the same, so that nobody's leaving makes anything dearer for
/// those who stay, and there are never more entries than memberships.
pub(super) struct Vlans {
    slots: [Option<VlanSlot>; VLAN_SLOTS],
}

impl Vlans {
    pub(super) const fn new() -> Self {
        Self {
            slots: [None; VLAN_SLOTS],
        }
    }

    pub(super) fn slot(&self, index: usize) -> Option<VlanSlot> {
        self.slots.get(index).copied().flatten()
    }

    /// Makes the pool a member of a VLAN, or not. Returns the index of the entry that changed, or
    /// `None` where nothing did. Nothing changes on an error.
    pub(super) fn set(
        &mut self,
        pool: PoolId,
        vid: u16,
        member: bool,
    ) -> Result<Option<usize>, FilterError> {
        if vid > VID_MAX {
            return Err(FilterError::BadVlan);
        }
        let bit = 1u8 << pool.index();
        let at = |slot: &Option<VlanSlot>| slot.is_some_and(|s| s.vid == vid);
        let found = self.slots.iter().position(at);
        let before = found.and_then(|index| self.slot(index));
        let pools = before.map_or(0, |slot| slot.pools);
        if (pools & bit != 0) == member {
            return Ok(None);
        }
        if member && !self.may_join(pool, vid) {
            return Err(FilterError::VlanTableFull);
        }
        let pools = pools ^ bit;
        let index = found.or_else(|| self.slots.iter().position(Option::is_none));
        let index = index.ok_or(FilterError::VlanTableFull)?;
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = (pools != 0).then_some(VlanSlot { vid, pools });
        }
        Ok(Some(index))
    }

    /// Whether the pool's share leaves room for one VLAN more.
    fn may_join(&self, pool: PoolId, vid: u16) -> bool {
        if vid == 0 {
            return true;
        }
        let mut held = [0; PoolId::MAX];
        for slot in self.slots.iter().flatten().filter(|slot| slot.vid != 0) {
            for (index, count) in held.iter_mut().enumerate() {
                *count += usize::from(slot.pools >> index & 1);
            }
        }
        has_share(&held, pool, VLANS_EACH, VLANS_SHARED)
    }

    /// Word `index` of the VLAN bitmap: bit n stands for VLAN `32 * index + n`.
    pub(super) fn word(&self, index: usize) -> u32 {
        self.slots
            .iter()
            .flatten()
            .filter(|slot| usize::from(slot.vid >> 5) == index)
            .fold(0, |word, slot| word | 1 << (slot.vid & 31))
    }

    /// Takes the pool out of all VLANs.
    pub(super) fn clear(&mut self, pool: PoolId) {
        let bit = 1u8 << pool.index();
        for slot in &mut self.slots {
            *slot = slot.and_then(|s| {
                let pools = s.pools & !bit;
                (pools != 0).then_some(VlanSlot { pools, ..s })
            });
        }
    }
}
