// SPDX-License-Identifier: GPL-2.0

//! The receive filters of all pools of a NIC, as a table that the hardware follows.
//!
//! The NIC's tables are shared: 24 address registers, 32 VLAN entries, one multicast hash table.
//! Who owns which entry is decided here, so that a pool that is given up leaves nothing behind
//! (invariant 8) and no pool can take or widen what is another's (invariant 7).

use crate::addr::PoolId;
use crate::net::MacAddr;

/// VLAN entries that all pools share (VLVF, 82576 datasheet 8.14).
pub const VLAN_SLOTS: usize = 32;
/// Words of the multicast hash table and of the VLAN bitmap (MTA and VFTA, 82576 datasheet 8.10).
pub const TABLE_WORDS: usize = 128;
/// Most multicast hashes one pool may ask for; the `igbvf` mailbox message carries 30.
pub const HASHES_MAX: usize = 32;

/// Highest VLAN id that a frame can carry and that names a VLAN.
const VID_MAX: u16 = 4094;
/// Bits in a multicast hash.
const HASH_MASK: u16 = 0xfff;

/// Why a filter was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// The address is zero or a group address.
    BadAddress,
    /// Another pool has the address.
    AddressTaken,
    /// More than [`HASHES_MAX`] multicast hashes.
    TooManyHashes,
    /// Not a VLAN id.
    BadVlan,
    /// All [`VLAN_SLOTS`] entries are in use.
    VlanTableFull,
}

/// One entry of the VLAN table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanSlot {
    /// The VLAN id.
    pub vid: u16,
    /// The pools that are members, one bit each. Never zero.
    pub pools: u8,
}

/// One pool's own part.
#[derive(Clone, Copy)]
struct Entry {
    mac: Option<MacAddr>,
    hashes: [u16; HASHES_MAX],
    hash_count: usize,
}

impl Entry {
    const EMPTY: Self = Self {
        mac: None,
        hashes: [0; HASHES_MAX],
        hash_count: 0,
    };

    fn hashes(&self) -> impl Iterator<Item = u16> + '_ {
        self.hashes.iter().take(self.hash_count).copied()
    }
}

/// The filters of all pools.
pub struct Filters {
    pools: [Entry; PoolId::MAX],
    vlans: [Option<VlanSlot>; VLAN_SLOTS],
}

impl Default for Filters {
    fn default() -> Self {
        Self::new()
    }
}

impl Filters {
    /// No pool receives anything.
    pub const fn new() -> Self {
        Self {
            pools: [Entry::EMPTY; PoolId::MAX],
            vlans: [None; VLAN_SLOTS],
        }
    }

    /// The pool's unicast address.
    pub fn mac(&self, pool: PoolId) -> Option<MacAddr> {
        self.pools.get(pool.index()).and_then(|entry| entry.mac)
    }

    /// Replaces the pool's unicast address. Nothing changes on an error.
    pub fn set_mac(&mut self, pool: PoolId, mac: MacAddr) -> Result<(), FilterError> {
        if !mac.is_valid_station() {
            return Err(FilterError::BadAddress);
        }
        let taken = self
            .pools
            .iter()
            .enumerate()
            .any(|(index, entry)| index != pool.index() && entry.mac == Some(mac));
        if taken {
            return Err(FilterError::AddressTaken);
        }
        if let Some(entry) = self.pools.get_mut(pool.index()) {
            entry.mac = Some(mac);
        }
        Ok(())
    }

    /// Replaces the pool's multicast hashes. Nothing changes on an error.
    pub fn set_hashes(&mut self, pool: PoolId, hashes: &[u16]) -> Result<(), FilterError> {
        let Some(entry) = self.pools.get_mut(pool.index()) else {
            return Ok(());
        };
        if hashes.len() > HASHES_MAX {
            return Err(FilterError::TooManyHashes);
        }
        entry.hashes = [0; HASHES_MAX];
        for (slot, hash) in entry.hashes.iter_mut().zip(hashes) {
            *slot = hash & HASH_MASK;
        }
        entry.hash_count = hashes.len();
        Ok(())
    }

    /// Whether the pool asked for any multicast.
    pub fn has_hashes(&self, pool: PoolId) -> bool {
        self.pools
            .get(pool.index())
            .is_some_and(|entry| entry.hash_count != 0)
    }

    /// The multicast hash table: the union of what all pools asked for.
    pub fn hash_table(&self) -> [u32; TABLE_WORDS] {
        let mut table = [0; TABLE_WORDS];
        for hash in self.pools.iter().flat_map(Entry::hashes) {
            if let Some(word) = table.get_mut(usize::from(hash >> 5)) {
                *word |= 1 << (hash & 31);
            }
        }
        table
    }

    /// Makes the pool a member of a VLAN, or not. Returns the index of the entry that changed, or
    /// `None` where nothing did. Nothing changes on an error.
    pub fn set_vlan(
        &mut self,
        pool: PoolId,
        vid: u16,
        member: bool,
    ) -> Result<Option<usize>, FilterError> {
        if vid > VID_MAX {
            return Err(FilterError::BadVlan);
        }
        let bit = 1u8 << pool.index();
        let found = self
            .vlans
            .iter_mut()
            .enumerate()
            .find(|(_, slot)| slot.is_some_and(|s| s.vid == vid));
        match (found, member) {
            (Some((index, slot)), _) => {
                let before = *slot;
                let pools = before.map_or(0, |s| s.pools);
                let pools = if member { pools | bit } else { pools & !bit };
                *slot = (pools != 0).then_some(VlanSlot { vid, pools });
                Ok((*slot != before).then_some(index))
            }
            (None, false) => Ok(None),
            (None, true) => {
                let free = self.vlans.iter_mut().enumerate().find(|(_, s)| s.is_none());
                let (index, slot) = free.ok_or(FilterError::VlanTableFull)?;
                *slot = Some(VlanSlot { vid, pools: bit });
                Ok(Some(index))
            }
        }
    }

    /// Entry `index` of the VLAN table.
    pub fn vlan_slot(&self, index: usize) -> Option<VlanSlot> {
        self.vlans.get(index).copied().flatten()
    }

    /// Word `index` of the VLAN bitmap: bit n stands for VLAN `32 * index + n`.
    pub fn vlan_word(&self, index: usize) -> u32 {
        self.vlans
            .iter()
            .flatten()
            .filter(|slot| usize::from(slot.vid >> 5) == index)
            .fold(0, |word, slot| word | 1 << (slot.vid & 31))
    }

    /// Takes the pool out of all VLANs and drops its multicast hashes; its address stays.
    pub fn clear_but_mac(&mut self, pool: PoolId) {
        if let Some(entry) = self.pools.get_mut(pool.index()) {
            *entry = Entry {
                mac: entry.mac,
                ..Entry::EMPTY
            };
        }
        let bit = 1u8 << pool.index();
        for slot in &mut self.vlans {
            *slot = slot.and_then(|s| {
                let pools = s.pools & !bit;
                (pools != 0).then_some(VlanSlot { pools, ..s })
            });
        }
    }

    /// Removes every trace of the pool (invariant 8).
    pub fn clear(&mut self, pool: PoolId) {
        self.clear_but_mac(pool);
        if let Some(entry) = self.pools.get_mut(pool.index()) {
            entry.mac = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(index: u8) -> PoolId {
        PoolId::new(index).unwrap()
    }

    fn mac(last: u8) -> MacAddr {
        MacAddr::new([2, 0, 0, 0, 0, last])
    }

    fn is_empty(filters: &Filters) -> bool {
        (0..8).all(|p| filters.mac(pool(p)).is_none() && !filters.has_hashes(pool(p)))
            && (0..VLAN_SLOTS).all(|i| filters.vlan_slot(i).is_none())
            && (0..TABLE_WORDS).all(|i| filters.vlan_word(i) == 0)
            && filters.hash_table() == [0; TABLE_WORDS]
    }

    #[test]
    fn starts_denying_everything() {
        assert!(is_empty(&Filters::new()));
    }

    #[test]
    fn address_belongs_to_one_pool() {
        let mut f = Filters::new();
        assert_eq!(f.set_mac(pool(0), mac(1)), Ok(()));
        assert_eq!(f.set_mac(pool(1), mac(1)), Err(FilterError::AddressTaken));
        assert_eq!(f.mac(pool(1)), None);
        assert_eq!(f.set_mac(pool(0), mac(1)), Ok(()));
        assert_eq!(f.set_mac(pool(0), mac(2)), Ok(()));
        assert_eq!(f.set_mac(pool(1), mac(1)), Ok(()));
        let group = MacAddr::new([1, 0, 0, 0, 0, 1]);
        assert_eq!(f.set_mac(pool(0), group), Err(FilterError::BadAddress));
        assert_eq!(
            f.set_mac(pool(0), MacAddr::new([0; 6])),
            Err(FilterError::BadAddress)
        );
        assert_eq!(f.mac(pool(0)), Some(mac(2)));
    }

    #[test]
    fn hash_table_is_the_union_and_shrinks() {
        let mut f = Filters::new();
        f.set_hashes(pool(0), &[0, 33, 0xfff]).unwrap();
        f.set_hashes(pool(7), &[33, 34, 0xf001]).unwrap();
        let table = f.hash_table();
        assert_eq!((table[0], table[1], table[127]), (0b11, 0b110, 1 << 31));
        f.set_hashes(pool(0), &[]).unwrap();
        let table = f.hash_table();
        assert_eq!((table[0], table[1], table[127]), (0b10, 0b110, 0));
        assert!(!f.has_hashes(pool(0)) && f.has_hashes(pool(7)));
        assert_eq!(
            f.set_hashes(pool(7), &[0; HASHES_MAX + 1]),
            Err(FilterError::TooManyHashes)
        );
        assert!(f.has_hashes(pool(7)));
    }

    #[test]
    fn vlan_entries_are_shared_and_freed() {
        let mut f = Filters::new();
        assert_eq!(f.set_vlan(pool(0), 100, true), Ok(Some(0)));
        assert_eq!(f.set_vlan(pool(0), 100, true), Ok(None));
        assert_eq!(f.set_vlan(pool(3), 100, true), Ok(Some(0)));
        assert_eq!(f.set_vlan(pool(3), 101, true), Ok(Some(1)));
        assert_eq!(f.vlan_word(3), 1 << 4 | 1 << 5);
        assert_eq!(
            f.vlan_slot(0),
            Some(VlanSlot {
                vid: 100,
                pools: 0b1001
            })
        );
        assert_eq!(f.set_vlan(pool(0), 100, false), Ok(Some(0)));
        assert_eq!(f.set_vlan(pool(0), 101, false), Ok(None));
        assert_eq!(f.set_vlan(pool(3), 100, false), Ok(Some(0)));
        assert_eq!(f.vlan_slot(0), None);
        assert_eq!(f.vlan_word(3), 1 << 5);
        assert_eq!(f.set_vlan(pool(0), 4095, true), Err(FilterError::BadVlan));
        assert_eq!(f.set_vlan(pool(0), 7, false), Ok(None));
    }

    #[test]
    fn full_vlan_table_refuses_without_change() {
        let mut f = Filters::new();
        for vid in 0..VLAN_SLOTS as u16 {
            assert!(f.set_vlan(pool(0), vid, true).is_ok());
        }
        assert_eq!(
            f.set_vlan(pool(1), 99, true),
            Err(FilterError::VlanTableFull)
        );
        // A VLAN that has an entry still takes members.
        assert_eq!(f.set_vlan(pool(1), 5, true), Ok(Some(5)));
    }

    #[test]
    fn released_pool_leaves_nothing() {
        let mut f = Filters::new();
        let fill = |f: &mut Filters, p: u8| {
            f.set_mac(pool(p), mac(p + 1)).unwrap();
            f.set_hashes(pool(p), &[u16::from(p), 70]).unwrap();
            f.set_vlan(pool(p), 10, true).unwrap();
            f.set_vlan(pool(p), 20 + u16::from(p), true).unwrap();
        };
        for p in 0..8 {
            fill(&mut f, p);
        }
        f.clear(pool(2));
        assert_eq!(f.mac(pool(2)), None);
        assert_eq!(f.vlan_slot(0).map(|s| s.pools), Some(!0b100));
        assert_eq!(f.vlan_word(0) >> 22 & 1, 0);
        assert_eq!(f.hash_table()[0] >> 2 & 1, 0);
        assert_eq!(f.hash_table()[2], 1 << 6);
        f.clear_but_mac(pool(3));
        assert_eq!(f.mac(pool(3)), Some(mac(4)));
        assert!(!f.has_hashes(pool(3)));
        for p in 0..8 {
            f.clear(pool(p));
        }
        assert!(is_empty(&f));
    }
}
