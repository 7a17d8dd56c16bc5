// SPDX-License-Identifier: GPL-2.0

//! The map against a naive one, under every strategy: same answers, same victims, same counts.

use std::collections::{
    BTreeMap,
    BTreeSet, //
};

use crate::sim::rig::Map;
use crate::sim::SimMachine;
use proptest::prelude::{
    any,
    prop,
    prop_assert,
    prop_assert_eq,
    prop_oneof,
    proptest,
    Just,
    ProptestConfig,
    Strategy as _, //
};
use proptest::test_runner::TestCaseError;
use sluice_core::addr::GuestPage;
use sluice_core::check::Rejection;
use sluice_core::map::{
    MapError,
    MapRef,
    Mapper,
    PageRange,
    Strategy, //
};
use sluice_core::platform::Access;

const LIMIT: u32 = Map::MIN_PAGES;
/// What receive buffers may not take.
const RESERVE: u32 = LIMIT / 2;

/// Guest page, whether it is written, whether by the CPU alone.
type Key = (u64, bool, bool);

/// One pin.
struct Pin {
    key: Key,
    users: u32,
    doomed: bool,
}

/// Says the same thing as the map, with no regard for speed.
#[derive(Default)]
struct Naive {
    strategy: Strategy,
    entries: BTreeMap<u64, Pin>,
    /// Idle ones, oldest first.
    idle: Vec<u64>,
    next: u64,
    pins: u64,
    unpins: u64,
}

impl Naive {
    fn write_busy(&self) -> u32 {
        let busy = self.entries.values().filter(|e| e.key.1 && e.users != 0);
        busy.count() as u32
    }

    fn unpin(&mut self, id: u64) {
        self.idle.retain(|i| *i != id);
        self.entries.remove(&id).unwrap();
        self.unpins += 1;
    }

    /// Returns a name for the pin.
    fn acquire(&mut self, page: u64, write: bool, mapped: bool) -> Result<u64, MapError> {
        let key = (page, write, self.strategy == Strategy::Copy);
        // Pins of single uses may be several; the map finds the youngest.
        let mut live = self
            .entries
            .iter()
            .filter(|(_, e)| e.key == key && !e.doomed);
        let found = match self.strategy {
            Strategy::SingleUse => None,
            _ => live.next_back().map(|(id, e)| (*id, e.users)),
        };
        if write && found.map_or(0, |f| f.1) == 0 && self.write_busy() >= LIMIT - RESERVE {
            return Err(MapError::Busy);
        }
        let id = match found {
            Some((id, _)) => {
                self.idle.retain(|i| *i != id);
                id
            }
            None => {
                if self.entries.len() == LIMIT as usize {
                    if self.strategy == Strategy::DirectMap {
                        return Err(MapError::Refused(Rejection::PinLimit));
                    }
                    let oldest = self.idle.first().copied();
                    self.unpin(oldest.ok_or(MapError::Busy)?);
                }
                if !mapped {
                    return Err(MapError::Refused(Rejection::NotMemory));
                }
                self.pins += 1;
                self.next += 1;
                let pin = Pin {
                    key,
                    users: 0,
                    doomed: false,
                };
                self.entries.insert(self.next, pin);
                self.next
            }
        };
        self.entries.get_mut(&id).unwrap().users += 1;
        Ok(id)
    }

    fn release(&mut self, id: u64) {
        let entry = self.entries.get_mut(&id).unwrap();
        entry.users -= 1;
        if entry.users != 0 {
            return;
        }
        let by_cpu = entry.key.2;
        let keep = match self.strategy {
            Strategy::SingleUse | Strategy::Shared => false,
            Strategy::Persistent | Strategy::DirectMap => !by_cpu,
            Strategy::Copy => by_cpu,
        };
        if keep && !entry.doomed {
            self.idle.push(id);
        } else {
            self.unpin(id);
        }
    }

    fn invalidate(&mut self, range: PageRange) -> u32 {
        let within = |(_, e): &(&u64, &Pin)| range.contains(GuestPage::new(e.key.0));
        let ids: Vec<_> = self
            .entries
            .iter()
            .filter(within)
            .map(|(i, _)| *i)
            .collect();
        let mut busy = 0;
        for id in ids {
            let entry = self.entries.get_mut(&id).unwrap();
            if entry.users == 0 {
                self.unpin(id);
            } else {
                entry.doomed = true;
                busy += 1;
            }
        }
        busy
    }

    fn switch(&mut self, strategy: Strategy) {
        self.strategy = strategy;
        while let Some(id) = self.idle.first().copied() {
            self.unpin(id);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Acquire(u64, bool),
    /// The one at this place.
    Release(usize),
    Invalidate(u64, u64),
    InvalidateAll,
    Switch(usize),
}

/// `switches` of about a hundred steps change the strategy.
fn op(switches: u32) -> impl proptest::strategy::Strategy<Value = Op> {
    prop_oneof![
        60 => (0..700u64, any::<bool>()).prop_map(|(p, w)| Op::Acquire(p, w)),
        50 => any::<usize>().prop_map(Op::Release),
        2 => (0..700u64, 0..8u64).prop_map(|(p, n)| Op::Invalidate(p, n)),
        1 => (0..700u64, 0..700u64).prop_map(|(p, n)| Op::Invalidate(p, n)),
        1 => Just(Op::InvalidateAll),
        switches => (0..Strategy::ALL.len()).prop_map(Op::Switch),
    ]
}

fn access(write: bool) -> Access {
    if write {
        Access::Write
    } else {
        Access::Read
    }
}

fn range(first: u64, pages: u64) -> PageRange {
    PageRange::from_bytes(first << 12, (pages + 1) << 12).unwrap()
}

fn run(strategy: Strategy, seed: u64, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut sim = SimMachine::builder().guest_pages(650).seed(seed).build();
    let mut map = Map::new(strategy, LIMIT, seed).unwrap();
    let mut naive = Naive::default();
    naive.switch(strategy);
    let mut held: Vec<(u64, MapRef)> = Vec::new();
    for op in ops {
        match op {
            Op::Acquire(page, write) => {
                let mapped = sim.world().is_mapped(page);
                let result = map.acquire(&mut sim.pinner, GuestPage::new(page), access(write));
                match (result, naive.acquire(page, write, mapped)) {
                    (Ok(page), Ok(id)) => {
                        prop_assert_eq!(page.bus().is_none(), naive.strategy == Strategy::Copy);
                        prop_assert!(map.acquired(&page).is_some());
                        held.push((id, page));
                    }
                    (result, expected) => {
                        prop_assert_eq!(result.map(|_| ()), expected.map(|_| ()));
                    }
                }
            }
            Op::Release(at) if !held.is_empty() => {
                let (id, page) = held.remove(at % held.len());
                naive.release(id);
                map.cancel(&mut sim.pinner, page);
            }
            Op::Release(_) => {}
            Op::Invalidate(first, pages) => {
                let range = range(first, pages);
                let busy = map.invalidate(&mut sim.pinner, range);
                prop_assert_eq!(busy, naive.invalidate(range));
            }
            Op::InvalidateAll => {
                let busy = map.unpin_all(&mut sim.pinner);
                prop_assert_eq!(busy, naive.invalidate(PageRange::ALL));
            }
            Op::Switch(to) => {
                let strategy = Strategy::ALL[to];
                map.set_strategy(&mut sim.pinner, strategy);
                naive.switch(strategy);
                prop_assert_eq!(map.strategy(), strategy);
            }
        }
        let stats = map.stats();
        prop_assert_eq!(stats.pinned as usize, naive.entries.len());
        prop_assert_eq!((stats.pins, stats.unpins), (naive.pins, naive.unpins));
        prop_assert_eq!(sim.world().pinned(), u64::from(stats.pinned));
        prop_assert!(stats.pinned <= LIMIT);
        let by_nic = naive.entries.values().filter(|e| !e.key.2).count();
        prop_assert_eq!(sim.world().nic_pinned(), by_nic as u64);
    }
    for (id, page) in held {
        naive.release(id);
        map.cancel(&mut sim.pinner, page);
    }
    if matches!(map.strategy(), Strategy::SingleUse | Strategy::Shared) {
        prop_assert_eq!(sim.world().pinned(), 0);
    }
    prop_assert_eq!(map.unpin_all(&mut sim.pinner), 0);
    prop_assert_eq!(sim.world().pinned(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_naive_map(
        which in 0..Strategy::ALL.len(),
        seed: u64,
        ops in prop::collection::vec(op(0), 1..1500),
    ) {
        run(Strategy::ALL[which], seed, ops)?;
    }

    #[test]
    fn agrees_whatever_the_strategy_was(
        which in 0..Strategy::ALL.len(),
        seed: u64,
        ops in prop::collection::vec(op(2), 1..1500),
    ) {
        run(Strategy::ALL[which], seed, ops)?;
    }
}

/// What each strategy does with the same work: 8 rounds over 32 pages, each page named twice at a
/// time, as by two packets that share it.
#[test]
fn what_each_strategy_costs() {
    for (strategy, pins, unpins, hits, pinned, most) in [
        (Strategy::SingleUse, 512, 512, 0, 0, 2),
        (Strategy::Shared, 256, 256, 256, 0, 1),
        (Strategy::Persistent, 32, 0, 480, 32, 32),
        (Strategy::DirectMap, 32, 0, 480, 32, 32),
        (Strategy::Copy, 32, 0, 480, 32, 32),
    ] {
        let mut sim = SimMachine::builder().guest_pages(64).build();
        let mut map = Map::new(strategy, LIMIT, 9).unwrap();
        for page in (0..8 * 32).map(|i| GuestPage::new(i % 32)) {
            let first = map.acquire(&mut sim.pinner, page, Access::Read).unwrap();
            let second = map.acquire(&mut sim.pinner, page, Access::Read).unwrap();
            map.cancel(&mut sim.pinner, first);
            map.cancel(&mut sim.pinner, second);
        }
        let stats = map.stats();
        println!("{:<10} {stats:?}", strategy.name());
        assert_eq!((stats.pins, stats.unpins, stats.hits), (pins, unpins, hits));
        assert_eq!(stats.hits + stats.misses, 512);
        assert_eq!((stats.pinned, stats.pinned_most), (pinned, most));
        let nic = if strategy.copies() { 0 } else { pinned };
        assert_eq!(sim.world().nic_pinned(), u64::from(nic));
    }
}

#[test]
fn a_direct_map_that_is_full_says_so() {
    let mut sim = SimMachine::builder().guest_pages(1000).build();
    let mut map = Map::new(Strategy::DirectMap, LIMIT, 9).unwrap();
    for page in 0..u64::from(LIMIT) {
        let page = map.acquire(&mut sim.pinner, GuestPage::new(page), Access::Read);
        map.cancel(&mut sim.pinner, page.unwrap());
    }
    let full = Some(MapError::Refused(Rejection::PinLimit));
    let more = map.acquire(&mut sim.pinner, GuestPage::new(900), Access::Read);
    assert_eq!(more.err(), full);
    sim.world().memlock_pages = LIMIT.into();
    map.invalidate(&mut sim.pinner, range(3, 0));
    let more = map.acquire(&mut sim.pinner, GuestPage::new(900), Access::Read);
    map.cancel(&mut sim.pinner, more.unwrap());
    map.invalidate(&mut sim.pinner, range(4, 0));
    sim.world().memlock_pages = 10;
    let more = map.acquire(&mut sim.pinner, GuestPage::new(4), Access::Read);
    assert_eq!(more.err(), full, "the VMM's limit is no better");
    assert_eq!(map.stats().evictions, 0);
}

#[test]
fn a_page_taken_away_is_pinned_anew() {
    let mut sim = SimMachine::builder().guest_pages(16).build();
    let mut map = Map::new(Strategy::Persistent, LIMIT, 9).unwrap();
    let page = GuestPage::new(3);
    let old = map.acquire(&mut sim.pinner, page, Access::Read).unwrap();
    assert_eq!(map.invalidate(&mut sim.pinner, range(3, 0)), 1);
    let new = map.acquire(&mut sim.pinner, page, Access::Read).unwrap();
    assert_eq!(map.stats().pins, 2);
    // Both generations are busy, and counted so.
    assert_eq!(map.invalidate(&mut sim.pinner, PageRange::ALL), 2);
    map.cancel(&mut sim.pinner, old);
    assert_eq!((map.stats().pinned, sim.world().pinned()), (1, 1));
    map.cancel(&mut sim.pinner, new);
    assert_eq!((map.stats().pinned, sim.world().pinned()), (0, 0));
    assert_eq!(map.stats().invalidations, 2);
}

#[test]
fn a_page_is_pinned_for_each_direction() {
    let mut sim = SimMachine::builder().guest_pages(16).build();
    let mut map = Map::new(Strategy::Persistent, LIMIT, 9).unwrap();
    let page = GuestPage::new(3);
    sim.world().unmap(3, false);
    sim.world().map(3, false);
    let read = map.acquire(&mut sim.pinner, page, Access::Read).unwrap();
    // Pinned for reading does not do for writing, also while it is in use.
    let denied = Some(MapError::Refused(Rejection::AccessDenied));
    let write = map.acquire(&mut sim.pinner, page, Access::Write);
    assert_eq!(write.err(), denied);
    map.cancel(&mut sim.pinner, read);
    let write = map.acquire(&mut sim.pinner, page, Access::Write);
    assert_eq!(write.err(), denied);
    assert_eq!(map.unpin_all(&mut sim.pinner), 0);
}

#[test]
fn taking_everything_away_costs_no_walk_of_the_address_space() {
    let mut sim = SimMachine::builder().guest_pages(16).build();
    let mut map = Map::new(Strategy::Persistent, 1 << 16, 9).unwrap();
    let page = map.acquire(&mut sim.pinner, GuestPage::new(1), Access::Write);
    map.cancel(&mut sim.pinner, page.unwrap());
    assert_eq!(PageRange::from_bytes(0, u64::MAX), Some(PageRange::ALL));
    let start = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(map.invalidate(&mut sim.pinner, PageRange::ALL), 0);
    }
    println!("ten times everything: {:?}", start.elapsed());
    assert_eq!(sim.world().pinned(), 0);
}

#[test]
fn a_limit_on_locked_memory_evicts_before_it_refuses() {
    let mut sim = SimMachine::builder()
        .guest_pages(64)
        .memlock_pages(4)
        .build();
    let mut map = Map::new(Strategy::Persistent, LIMIT, 9).unwrap();
    for page in 0..32 {
        let page = map.acquire(&mut sim.pinner, GuestPage::new(page), Access::Read);
        map.cancel(&mut sim.pinner, page.expect("room is made"));
    }
    assert_eq!((map.stats().evictions, map.stats().pinned), (28, 4));
    let held: Vec<_> = (0..4)
        .map(|page| {
            map.acquire(&mut sim.pinner, GuestPage::new(page), Access::Read)
                .unwrap()
        })
        .collect();
    let fifth = map.acquire(&mut sim.pinner, GuestPage::new(9), Access::Read);
    assert_eq!(fifth.err(), Some(MapError::Busy));
    for page in held {
        map.cancel(&mut sim.pinner, page);
    }
    sim.world().memlock_pages = 0;
    map.unpin_all(&mut sim.pinner);
    let none = map.acquire(&mut sim.pinner, GuestPage::new(9), Access::Read);
    assert_eq!(none.err(), Some(MapError::Refused(Rejection::PinLimit)));
}

#[test]
fn eviction_takes_the_least_recently_used() {
    let mut sim = SimMachine::builder().guest_pages(1000).build();
    let mut map = Map::new(Strategy::Persistent, LIMIT, 9).unwrap();
    let mut touch = |map: &mut Map, page| {
        let before = map.stats().misses;
        let page = map.acquire(&mut sim.pinner, GuestPage::new(page), Access::Read);
        map.cancel(&mut sim.pinner, page.unwrap());
        map.stats().misses != before
    };
    for page in 0..u64::from(LIMIT) {
        assert!(touch(&mut map, page));
    }
    assert!(!touch(&mut map, 0));
    assert!(touch(&mut map, 900));
    assert!(!touch(&mut map, 0), "just used");
    assert!(touch(&mut map, 1), "the oldest went");
    let seen: BTreeSet<_> = (3..u64::from(LIMIT))
        .filter(|p| touch(&mut map, *p))
        .collect();
    assert!(seen.is_empty(), "{seen:?}");
}
