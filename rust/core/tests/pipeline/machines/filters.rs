// SPDX-License-Identifier: GPL-2.0

//! Pools, claimed and given back, and their receive filters. The NIC's tables are followed the way
//! `rust/nic/pools.rs` does it: only what a change is said to have touched is written.

use std::collections::{
    BTreeMap,
    BTreeSet, //
};

use proptest::prelude::*;
use proptest_state_machine::{
    prop_state_machine,
    ReferenceStateMachine,
    StateMachineTest, //
};
use sluice_core::addr::PoolId;
use sluice_core::net::MacAddr;
use sluice_core::pool::{
    AddressSlot,
    Claims,
    FilterError,
    Filters,
    VlanSlot,
    ADDRESS_SLOTS,
    HASHES_MAX,
    MORE_MACS_EACH,
    TABLE_WORDS,
    VLANS_EACH,
    VLAN_SLOTS, //
};
use sluice_core::source::MacList;

/// Pools that the NIC has.
const POOLS: u8 = 7;
/// Ends of the addresses that no pool can have: a group's, and the card's.
const GROUP: u8 = 9;
const CARD: u8 = 10;
/// What all pools have together beyond each one's own share.
const MORE_SHARED: usize = ADDRESS_SLOTS - PoolId::MAX - PoolId::MAX * MORE_MACS_EACH;
const VLANS_SHARED: usize = VLAN_SLOTS - 1 - PoolId::MAX * VLANS_EACH;

#[derive(Clone, Debug)]
enum Step {
    Claim,
    /// Whether its queues have stopped.
    Release {
        pool: u8,
        stopped: bool,
    },
    Recover,
    Mac {
        pool: u8,
        last: u8,
    },
    /// The administrator gives it these, and no others.
    MoreMacs {
        pool: u8,
        list: Vec<u8>,
    },
    /// Its guest wants another address, or one more, or one less.
    ReplaceMac {
        pool: u8,
        old: Option<u8>,
        new: Option<u8>,
    },
    Hashes {
        pool: u8,
        hashes: Vec<u16>,
    },
    Vlan {
        pool: u8,
        vid: u16,
        member: bool,
    },
    /// All that its guest asked for.
    Reset {
        pool: u8,
    },
}

#[derive(Clone, Debug, Default)]
struct Model {
    claimed: BTreeSet<u8>,
    stuck: BTreeSet<u8>,
    macs: BTreeMap<u8, u8>,
    /// Further addresses: the pool's, and whether its guest asked.
    more: BTreeMap<u8, (u8, bool)>,
    hashes: BTreeMap<u8, BTreeSet<u16>>,
    vlans: BTreeMap<u16, BTreeSet<u8>>,
}

fn mac(last: u8) -> MacAddr {
    // An odd first byte is a group's.
    MacAddr::new([if last == GROUP { 3 } else { 2 }, 0, 0, 0, 0, last])
}

/// Whether one more for `pool` stays within what each has for certain, and all have together.
fn has_share(held: impl Fn(u8) -> usize, pool: u8, each: usize, shared: usize) -> bool {
    let beyond = |p| (held(p) + usize::from(p == pool)).saturating_sub(each);
    (0..POOLS).map(beyond).sum::<usize>() <= shared
}

impl Model {
    fn free(&self) -> impl Iterator<Item = u8> + '_ {
        (0..POOLS).filter(|pool| !self.claimed.contains(pool) && !self.stuck.contains(pool))
    }

    fn can_recover(&self) -> bool {
        !self.stuck.is_empty() && self.claimed.is_empty()
    }

    fn reset(&mut self, pool: u8) {
        self.more.retain(|_, of| *of != (pool, true));
        self.hashes.remove(&pool);
        for pools in self.vlans.values_mut() {
            pools.remove(&pool);
        }
        self.vlans.retain(|_, pools| !pools.is_empty());
    }

    /// Whether the pool might have the address.
    fn check(&self, pool: u8, last: u8) -> Result<(), FilterError> {
        let mut others = self.macs.iter().filter(|(other, _)| **other != pool);
        let further = self.more.get(&last).is_some_and(|of| of.0 != pool);
        match last {
            GROUP => Err(FilterError::BadAddress),
            CARD => Err(FilterError::AddressTaken),
            _ if further || others.any(|(_, taken)| *taken == last) => {
                Err(FilterError::AddressTaken)
            }
            _ => Ok(()),
        }
    }

    fn add(&mut self, pool: u8, last: u8, by_guest: bool) -> Result<(), FilterError> {
        self.check(pool, last)?;
        if self.macs.get(&pool) == Some(&last) || self.more.contains_key(&last) {
            return Ok(());
        }
        let held = |p| self.more.values().filter(|of| of.0 == p).count();
        if held(pool) == MacList::MAX || !has_share(held, pool, MORE_MACS_EACH, MORE_SHARED) {
            return Err(FilterError::AddressTableFull);
        }
        self.more.insert(last, (pool, by_guest));
        Ok(())
    }

    /// Makes the change in whole, or not at all.
    fn try_on(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(), FilterError>,
    ) -> Result<(), FilterError> {
        let mut next = self.clone();
        change(&mut next)?;
        *self = next;
        Ok(())
    }

    fn may_join(&self, pool: u8, vid: u16) -> bool {
        let held = |p| {
            let joined = |(vid, pools): (&u16, &BTreeSet<u8>)| *vid != 0 && pools.contains(&p);
            self.vlans.iter().filter(|entry| joined(*entry)).count()
        };
        vid == 0 || has_share(held, pool, VLANS_EACH, VLANS_SHARED)
    }

    /// What the step answers.
    fn take(&mut self, step: &Step) -> Result<Option<u8>, FilterError> {
        match step {
            Step::Claim => {
                let pool = self.free().next();
                self.claimed.extend(pool);
                return Ok(pool);
            }
            Step::Release { pool, stopped } => {
                self.reset(*pool);
                self.macs.remove(pool);
                self.more.retain(|_, of| of.0 != *pool);
                self.claimed.remove(pool);
                if !stopped {
                    self.stuck.insert(*pool);
                }
            }
            Step::Recover => self.stuck.clear(),
            Step::Mac { pool, last } => {
                self.check(*pool, *last)?;
                self.more.remove(last);
                self.macs.insert(*pool, *last);
            }
            Step::MoreMacs { pool, list } => self.try_on(|next| {
                next.more.retain(|_, of| *of != (*pool, false));
                list.iter()
                    .try_for_each(|last| next.add(*pool, *last, false))
            })?,
            Step::ReplaceMac { pool, old, new } => self.try_on(|next| {
                let gone = |last: &u8, of: &(u8, bool)| *of == (*pool, true) && Some(*last) == *old;
                next.more.retain(|last, of| !gone(last, of));
                new.map_or(Ok(()), |last| next.add(*pool, last, true))
            })?,
            Step::Hashes { hashes, .. } if hashes.len() > HASHES_MAX => {
                return Err(FilterError::TooManyHashes);
            }
            Step::Hashes { pool, hashes } => {
                let hashes = hashes.iter().map(|hash| hash & 0xfff);
                self.hashes.insert(*pool, hashes.collect());
            }
            Step::Vlan { vid: 4095.., .. } => return Err(FilterError::BadVlan),
            Step::Vlan { pool, vid, member } => {
                if !member {
                    if let Some(pools) = self.vlans.get_mut(vid) {
                        pools.remove(pool);
                    }
                    self.vlans.retain(|_, pools| !pools.is_empty());
                } else if self.vlans.get(vid).is_some_and(|p| p.contains(pool)) {
                    // As it is.
                } else if self.may_join(*pool, *vid) {
                    self.vlans.entry(*vid).or_default().insert(*pool);
                } else {
                    return Err(FilterError::VlanTableFull);
                }
            }
            Step::Reset { pool } => self.reset(*pool),
        }
        Ok(None)
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        let pool = || 0..POOLS;
        let last = || 0..40u8;
        let vid = prop_oneof![20 => 0..40u16, 1 => 4090..=4096u16];
        prop_oneof![
            6 => Just(Step::Claim),
            1 => (pool(), prop::bool::weighted(0.7))
                .prop_map(|(pool, stopped)| Step::Release { pool, stopped }),
            1 => Just(Step::Recover),
            6 => (pool(), last()).prop_map(|(pool, last)| Step::Mac { pool, last }),
            6 => (pool(), prop::collection::vec(last(), 0..=MacList::MAX)).prop_map(
                // A list has no address twice, and no group's.
                |(pool, mut list)| {
                    list.retain(|last| *last != GROUP);
                    Step::MoreMacs { pool, list }
                }
            ),
            12 => (pool(), prop::option::of(last()), prop::option::of(last()))
                .prop_map(|(pool, old, new)| Step::ReplaceMac { pool, old, new }),
            6 => (pool(), prop::collection::vec(any::<u16>(), 0..=HASHES_MAX + 1))
                .prop_map(|(pool, hashes)| Step::Hashes { pool, hashes }),
            30 => (pool(), vid, prop::bool::weighted(0.8))
                .prop_map(|(pool, vid, member)| Step::Vlan { pool, vid, member }),
            1 => pool().prop_map(|pool| Step::Reset { pool }),
        ]
        .boxed()
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        let _ = state.take(step);
        state
    }

    /// Only who has a pool changes it.
    fn preconditions(state: &Self, step: &Step) -> bool {
        match step {
            Step::Claim => true,
            Step::Recover => state.can_recover(),
            Step::Release { pool, .. }
            | Step::Mac { pool, .. }
            | Step::MoreMacs { pool, .. }
            | Step::ReplaceMac { pool, .. }
            | Step::Hashes { pool, .. }
            | Step::Vlan { pool, .. }
            | Step::Reset { pool } => state.claimed.contains(pool),
        }
    }
}

/// The real ones, and the NIC's tables.
struct Tables {
    claims: Claims,
    filters: Filters,
    vlans: [Option<VlanSlot>; VLAN_SLOTS],
    /// The model before the next step, for what that step answers.
    model: Model,
}

fn id(pool: u8) -> PoolId {
    PoolId::new(pool).unwrap()
}

impl Tables {
    fn take(&mut self, step: &Step) -> Result<Option<u8>, FilterError> {
        match step {
            Step::Claim => {
                let pool = self.claims.claim(POOLS);
                return Ok(pool.map(|pool| pool.index() as u8));
            }
            Step::Release { pool, stopped } => {
                self.filters.clear(id(*pool));
                self.claims.release(id(*pool), *stopped);
                self.reload();
            }
            Step::Recover => {
                assert!(self.claims.wants_recovery());
                self.claims.recovered();
            }
            Step::Mac { pool, last } => self.filters.set_mac(id(*pool), mac(*last))?,
            Step::MoreMacs { pool, list } => {
                let add = |list: MacList, last: &u8| list.with(mac(*last)).unwrap();
                let list = list.iter().fold(MacList::EMPTY, add);
                self.filters.set_more_macs(id(*pool), &list)?;
            }
            Step::ReplaceMac { pool, old, new } => {
                self.filters
                    .replace_mac(id(*pool), old.map(mac), new.map(mac))?;
            }
            Step::Hashes { pool, hashes } => self.filters.set_hashes(id(*pool), hashes)?,
            Step::Vlan { pool, vid, member } => {
                if let Some(changed) = self.filters.set_vlan(id(*pool), *vid, *member)? {
                    self.vlans[changed] = self.filters.vlan_slot(changed);
                }
            }
            Step::Reset { pool } => {
                self.filters.clear_guest(id(*pool));
                self.reload();
            }
        }
        Ok(None)
    }

    fn reload(&mut self) {
        self.vlans = std::array::from_fn(|index| self.filters.vlan_slot(index));
    }

    fn check_addresses(&self, model: &Model) {
        let slots = (0..ADDRESS_SLOTS).filter_map(|index| self.filters.address_slot(index));
        let mut is: Vec<_> = slots
            .map(|AddressSlot { mac, pool }| (pool.index(), mac))
            .collect();
        let own = model.macs.iter().map(|(pool, last)| (*pool, *last));
        let more = model.more.iter().map(|(last, of)| (of.0, *last));
        let mut should: Vec<_> = own
            .chain(more)
            .map(|(pool, last)| (usize::from(pool), mac(last)))
            .collect();
        is.sort();
        should.sort();
        assert_eq!(is, should);
    }

    fn check(&self, model: &Model) {
        assert_eq!(self.claims.free(POOLS), model.free().count() as u32);
        assert_eq!(self.claims.wants_recovery(), model.can_recover());
        let mut table = [0u32; TABLE_WORDS];
        for pool in 0..PoolId::MAX as u8 {
            assert_eq!(self.claims.has(id(pool)), model.claimed.contains(&pool));
            let own = model.macs.get(&pool).copied().map(mac);
            assert_eq!(self.filters.mac(id(pool)), own);
            let hashes = model.hashes.get(&pool).cloned().unwrap_or_default();
            assert_eq!(self.filters.has_hashes(id(pool)), !hashes.is_empty());
            for hash in hashes {
                table[usize::from(hash / 32)] |= 1 << (hash % 32);
            }
        }
        assert_eq!(self.filters.hash_table(), table);
        self.check_addresses(model);

        let mut vlans = BTreeMap::new();
        for (index, slot) in self.vlans.iter().enumerate() {
            assert_eq!(*slot, self.filters.vlan_slot(index), "the NIC was not told");
            if let Some(VlanSlot { vid, pools }) = *slot {
                let pools = (0..8).filter(|pool| pools >> pool & 1 != 0).collect();
                assert_eq!(vlans.insert(vid, pools), None, "VLAN {vid} twice");
            }
        }
        assert_eq!(vlans, model.vlans);
        let mut words = [0u32; TABLE_WORDS];
        for vid in vlans.into_keys() {
            words[usize::from(vid / 32)] |= 1 << (vid % 32);
        }
        for (index, word) in words.into_iter().enumerate() {
            assert_eq!(self.filters.vlan_word(index), word);
        }
    }
}

struct FiltersTest;

impl StateMachineTest for FiltersTest {
    type SystemUnderTest = Tables;
    type Reference = Model;

    fn init_test(model: &Model) -> Tables {
        Tables {
            claims: Claims::new(),
            filters: Filters::new(Some(mac(CARD))),
            vlans: [None; VLAN_SLOTS],
            model: model.clone(),
        }
    }

    fn apply(mut tables: Tables, after: &Model, step: Step) -> Tables {
        let should = tables.model.take(&step);
        assert_eq!(tables.take(&step), should);
        tables.check(after);
        tables
    }

    fn teardown(mut tables: Tables, model: Model) {
        for pool in model.claimed {
            assert_eq!(
                tables.take(&Step::Release {
                    pool,
                    stopped: true
                }),
                Ok(None)
            );
        }
        tables.check(&Model {
            stuck: model.stuck,
            ..Model::default()
        });
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn pools_and_filters_are_as_their_model(sequential 20..150 => FiltersTest);
}
