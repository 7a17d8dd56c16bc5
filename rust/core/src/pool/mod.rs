// SPDX-License-Identifier: GPL-2.0

//! Who has which pool of a NIC, and the receive filters of all, as a table that the hardware
//! follows.
//!
//! The NIC's tables are shared: 24 address registers, 32 VLAN entries, one multicast hash table.
//! Who owns which entry is decided here, so that a pool that is given up leaves nothing behind
//! (invariant 8), and no pool can take or widen what is another's, or leave none for it
//! (invariant 7).

mod addresses;
mod claims;
mod shares;
mod vlans;

use crate::addr::PoolId;
use crate::net::MacAddr;
use crate::source::MacList;
use addresses::Addresses;
use vlans::Vlans;

pub use addresses::{
    AddressSlot,
    ADDRESS_SLOTS,
    MORE_MACS_EACH, //
};
pub use claims::Claims;
pub use vlans::{
    VlanSlot,
    VLANS_EACH,
    VLAN_SLOTS, //
};

/// Words of the multicast hash table and of the VLAN bitmap (MTA and VFTA, 82576 datasheet 8.10).
pub const TABLE_WORDS: usize = 128;
/// Most multicast hashes one pool may ask for; the `igbvf` mailbox message carries 30.
pub const HASHES_MAX: usize = 32;

/// Bits in a multicast hash.
const HASH_MASK: u16 = 0xfff;

/// Why a filter was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// The address is zero or a group address.
    BadAddress,
    /// Another pool, or the card, has the address.
    AddressTaken,
    /// The pool's share of the [`ADDRESS_SLOTS`] is in use.
    AddressTableFull,
    /// More than [`HASHES_MAX`] multicast hashes.
    TooManyHashes,
    /// Not a VLAN id.
    BadVlan,
    /// The pool's share of the [`VLAN_SLOTS`] is in use.
    VlanTableFull,
}

/// What the administrator has the NIC do for a pool, whatever its guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolRules {
    /// Tag what the pool sends with this VLAN, and let it receive nothing else.
    pub port_vlan: Option<u16>,
    /// The pool receives broadcast.
    pub broadcast: bool,
    /// The NIC's own check of source addresses and VLANs.
    pub check_source: bool,
}

impl PoolRules {
    /// As for a pool that nobody has.
    pub const DEFAULT: Self = Self {
        port_vlan: None,
        broadcast: true,
        check_source: true,
    };
}

/// The multicast that one pool asks for.
#[derive(Clone, Copy)]
struct Hashes {
    hashes: [u16; HASHES_MAX],
    hash_count: usize,
}

impl Hashes {
    const EMPTY: Self = Self {
        hashes: [0; HASHES_MAX],
        hash_count: 0,
    };

    fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.hashes.iter().take(self.hash_count).copied()
    }
}

/// The filters of all pools.
pub struct Filters {
    hashes: [Hashes; PoolId::MAX],
    addresses: Addresses,
    vlans: Vlans,
}

impl Filters {
    /// No pool receives anything. `card` is an address that none of them gets.
    pub const fn new(card: Option<MacAddr>) -> Self {
        Self {
            hashes: [Hashes::EMPTY; PoolId::MAX],
            addresses: Addresses::new(card),
            vlans: Vlans::new(),
        }
    }

    /// The pool's own address.
    pub fn mac(&self, pool: PoolId) -> Option<MacAddr> {
        self.addresses.own(pool)
    }

    /// Entry `index` of the address table.
    pub fn address_slot(&self, index: usize) -> Option<AddressSlot> {
        self.addresses.slot(index)
    }

    /// Replaces the pool's own address. Nothing changes on an error.
    pub fn set_mac(&mut self, pool: PoolId, mac: MacAddr) -> Result<(), FilterError> {
        self.addresses.set_own(pool, mac)
    }

    /// Replaces the further addresses that the administrator gives the pool. Nothing changes on
    /// an error.
    pub fn set_more_macs(&mut self, pool: PoolId, list: &MacList) -> Result<(), FilterError> {
        self.addresses.set_listed(pool, list)
    }

    /// Takes `old` from the pool, if its guest had asked for it, and gives it `new`, as its guest
    /// asks. Nothing changes on an error.
    pub fn replace_mac(
        &mut self,
        pool: PoolId,
        old: Option<MacAddr>,
        new: Option<MacAddr>,
    ) -> Result<(), FilterError> {
        self.addresses.replace(pool, old, new)
    }

    /// Replaces the pool's multicast hashes. Nothing changes on an error.
    pub fn set_hashes(&mut self, pool: PoolId, hashes: &[u16]) -> Result<(), FilterError> {
        let Some(entry) = self.hashes.get_mut(pool.index()) else {
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
        self.hashes
            .get(pool.index())
            .is_some_and(|entry| entry.hash_count != 0)
    }

    /// The multicast hash table: the union of what all pools asked for.
    pub fn hash_table(&self) -> [u32; TABLE_WORDS] {
        let mut table = [0; TABLE_WORDS];
        for hash in self.hashes.iter().flat_map(Hashes::iter) {
            if let Some(word) = table.get_mut(usize::from(hash >> 5)) {
                *word |= 1 << (hash & 31);
            }
        }
        table
    }

    /// Makes the pool a member of a VLAN, or not. Returns the index of the entry that changed, or
    /// `None` where nothing did. Nothing changes on an error. VLAN 0 costs no share.
    pub fn set_vlan(
        &mut self,
        pool: PoolId,
        vid: u16,
        member: bool,
    ) -> Result<Option<usize>, FilterError> {
        self.vlans.set(pool, vid, member)
    }

    /// Entry `index` of the VLAN table.
    pub fn vlan_slot(&self, index: usize) -> Option<VlanSlot> {
        self.vlans.slot(index)
    }

    /// Word `index` of the VLAN bitmap: bit n stands for VLAN `32 * index + n`.
    pub fn vlan_word(&self, index: usize) -> u32 {
        self.vlans.word(index)
    }

    /// Forgets what the pool's guest asked for: VLANs, multicast, addresses. What the administrator
    /// gave it stays.
    pub fn clear_guest(&mut self, pool: PoolId) {
        if let Some(entry) = self.hashes.get_mut(pool.index()) {
            *entry = Hashes::EMPTY;
        }
        self.vlans.clear(pool);
        self.addresses.clear_guest(pool);
    }

    /// Removes every trace of the pool (invariant 8).
    pub fn clear(&mut self, pool: PoolId) {
        self.clear_guest(pool);
        self.addresses.clear(pool);
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
            && (0..ADDRESS_SLOTS).all(|i| filters.address_slot(i).is_none())
            && (0..VLAN_SLOTS).all(|i| filters.vlan_slot(i).is_none())
            && (0..TABLE_WORDS).all(|i| filters.vlan_word(i) == 0)
            && filters.hash_table() == [0; TABLE_WORDS]
    }

    #[test]
    fn starts_denying_everything() {
        assert!(is_empty(&Filters::new(None)));
    }

    #[test]
    fn address_belongs_to_one_pool() {
        let mut f = Filters::new(None);
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
        let mut f = Filters::new(None);
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
        let mut f = Filters::new(None);
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

    /// VLANs that the pool could join of those from `first` on.
    fn greedy(f: &mut Filters, p: u8, first: u16) -> usize {
        (first..first + 100)
            .filter(|vid| f.set_vlan(pool(p), *vid, true).is_ok())
            .count()
    }

    #[test]
    fn no_pool_takes_the_vlans_of_others() {
        let mut f = Filters::new(None);
        for p in 0..8 {
            f.set_vlan(pool(p), 0, true).unwrap();
        }
        // More than its own: what nobody has a right to.
        assert_eq!(greedy(&mut f, 0, 100), VLANS_EACH + 7);
        assert_eq!(
            f.set_vlan(pool(0), 99, true),
            Err(FilterError::VlanTableFull)
        );
        for p in 1..8 {
            // A VLAN that is there already costs the same, or it would be there for nothing.
            assert!(f.set_vlan(pool(p), 100, true).is_ok());
            let first = 200 + 100 * u16::from(p);
            assert_eq!(greedy(&mut f, p, first), VLANS_EACH - 1);
            assert_eq!(
                f.set_vlan(pool(p), 101, true),
                Err(FilterError::VlanTableFull)
            );
        }
        // What one gives back is there for who comes first.
        assert!(f.set_vlan(pool(0), 105, false).is_ok());
        assert!(f.set_vlan(pool(7), 101, true).is_ok());
        assert_eq!(
            f.set_vlan(pool(0), 105, true),
            Err(FilterError::VlanTableFull)
        );
        f.clear_guest(pool(0));
        assert_eq!(greedy(&mut f, 0, 100), VLANS_EACH + 6);
    }

    fn macs(range: core::ops::Range<u8>) -> MacList {
        range.fold(MacList::EMPTY, |list, last| list.with(mac(last)).unwrap())
    }

    #[test]
    fn no_pool_takes_the_addresses_of_others() {
        let mut f = Filters::new(Some(mac(250)));
        for p in 0..8 {
            f.set_mac(pool(p), mac(p + 1)).unwrap();
        }
        assert_eq!(f.set_mac(pool(0), mac(250)), Err(FilterError::AddressTaken));
        let add = |f: &mut Filters, p, last| f.replace_mac(pool(p), None, Some(mac(last)));
        assert_eq!(add(&mut f, 0, 2), Err(FilterError::AddressTaken));
        assert_eq!(add(&mut f, 0, 250), Err(FilterError::AddressTaken));
        for last in 100..108 {
            assert_eq!(add(&mut f, 0, last), Ok(()));
        }
        assert_eq!(add(&mut f, 0, 108), Err(FilterError::AddressTableFull));
        // Its own and what it has are no news.
        assert_eq!((add(&mut f, 0, 1), add(&mut f, 0, 103)), (Ok(()), Ok(())));
        // One more for everybody, and one that nobody has a right to.
        assert_eq!(f.set_more_macs(pool(1), &macs(110..112)), Ok(()));
        assert_eq!(
            f.set_more_macs(pool(2), &macs(120..122)),
            Err(FilterError::AddressTableFull)
        );
        assert_eq!(
            f.set_more_macs(pool(2), &macs(100..101)),
            Err(FilterError::AddressTaken)
        );
        for p in 2..8 {
            assert_eq!(add(&mut f, p, 150 + p), Ok(()));
            assert_eq!(add(&mut f, p, 160 + p), Err(FilterError::AddressTableFull));
        }
        assert!((0..ADDRESS_SLOTS).all(|i| f.address_slot(i).is_some()));
        // One for another, though there is no room for one more.
        assert_eq!(
            f.replace_mac(pool(2), Some(mac(152)), Some(mac(170))),
            Ok(())
        );
        assert_eq!(add(&mut f, 3, 152), Err(FilterError::AddressTableFull));
        let failed = f.replace_mac(pool(2), Some(mac(170)), Some(mac(111)));
        assert_eq!(failed, Err(FilterError::AddressTaken));
        assert!((0..ADDRESS_SLOTS).any(|i| f.address_slot(i).is_some_and(|s| s.mac == mac(170))));
        // A guest does not give away what the administrator gave, nor what is another's.
        f.replace_mac(pool(1), Some(mac(110)), None).unwrap();
        f.replace_mac(pool(1), Some(mac(170)), None).unwrap();
        assert_eq!(add(&mut f, 0, 110), Err(FilterError::AddressTaken));
        f.clear_guest(pool(1));
        f.clear_guest(pool(0));
        assert_eq!(add(&mut f, 0, 110), Err(FilterError::AddressTaken));
        assert_eq!(add(&mut f, 0, 170), Err(FilterError::AddressTaken));
        assert_eq!(f.mac(pool(0)), Some(mac(1)));
        assert_eq!(f.set_more_macs(pool(1), &MacList::EMPTY), Ok(()));
        assert_eq!(add(&mut f, 0, 110), Ok(()));
        // What becomes its own address is not there twice.
        assert_eq!(f.set_mac(pool(0), mac(110)), Ok(()));
        let all = (0..ADDRESS_SLOTS).filter_map(|i| f.address_slot(i));
        assert_eq!(all.filter(|s| s.mac == mac(110)).count(), 1);
    }

    #[test]
    fn released_pool_leaves_nothing() {
        let mut f = Filters::new(None);
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
        f.clear_guest(pool(3));
        assert_eq!(f.mac(pool(3)), Some(mac(4)));
        assert!(!f.has_hashes(pool(3)));
        for p in 0..8 {
            f.clear(pool(p));
        }
        assert!(is_empty(&f));
    }
}
