// SPDX-License-Identifier: GPL-2.0

//! The persistent map against a naive one: same answers, same victims, same counts.

mod sim;

use std::collections::{
    BTreeMap,
    BTreeSet, //
};

use proptest::prelude::*;
use sim::rig::Map;
use sim::{
    SimMachine,
    SimPinner, //
};
use sluice_core::addr::GuestPage;
use sluice_core::check::Rejection;
use sluice_core::map::{
    MapError,
    MapRef,
    Mapper,
    PageRange, //
};
use sluice_core::platform::Access;

const LIMIT: u32 = Map::MIN_PAGES;
/// What receive buffers may not take.
const RESERVE: u32 = LIMIT / 2;

/// Says the same thing as the map, with no regard for speed.
#[derive(Default)]
struct Naive {
    /// Users of each page that can be handed out.
    users: BTreeMap<(u64, bool), u32>,
    /// Idle pages, oldest first.
    idle: Vec<(u64, bool)>,
    /// Users of each page that was taken away while in use.
    doomed: Vec<((u64, bool), u32)>,
    pins: u64,
    unpins: u64,
}

impl Naive {
    fn pinned(&self) -> usize {
        self.users.len() + self.doomed.len()
    }

    fn write_busy(&self) -> u32 {
        let live = self.users.iter().filter(|((_, w), n)| *w && **n != 0);
        let doomed = self.doomed.iter().filter(|((_, w), _)| *w);
        (live.count() + doomed.count()) as u32
    }

    fn acquire(&mut self, key: (u64, bool), mapped: bool) -> Result<(), MapError> {
        let found = self.users.get(&key).copied();
        if key.1 && found.unwrap_or(0) == 0 && self.write_busy() >= LIMIT - RESERVE {
            return Err(MapError::Busy);
        }
        match found {
            Some(_) => self.idle.retain(|k| *k != key),
            None => {
                if self.pinned() == LIMIT as usize {
                    if self.idle.is_empty() {
                        return Err(MapError::Busy);
                    }
                    let victim = self.idle.remove(0);
                    self.users.remove(&victim);
                    self.unpins += 1;
                }
                if !mapped {
                    return Err(MapError::Refused(Rejection::NotMemory));
                }
                self.pins += 1;
            }
        }
        *self.users.entry(key).or_insert(0) += 1;
        Ok(())
    }

    /// `old` tells a page that was taken away from one that was pinned again since.
    fn release(&mut self, key: (u64, bool), old: bool) {
        if old {
            let at = self.doomed.iter().position(|(k, _)| *k == key).unwrap();
            self.doomed[at].1 -= 1;
            if self.doomed[at].1 == 0 {
                self.doomed.remove(at);
                self.unpins += 1;
            }
            return;
        }
        let users = self.users.get_mut(&key).unwrap();
        *users -= 1;
        if *users == 0 {
            self.idle.push(key);
        }
    }

    fn invalidate(&mut self, range: PageRange) -> u32 {
        let within = |k: &(u64, bool)| range.contains(GuestPage::new(k.0));
        for key in self
            .users
            .keys()
            .copied()
            .filter(within)
            .collect::<Vec<_>>()
        {
            match self.users.remove(&key).unwrap() {
                0 => {
                    self.idle.retain(|k| *k != key);
                    self.unpins += 1;
                }
                users => self.doomed.push((key, users)),
            }
        }
        self.doomed.iter().filter(|(k, _)| within(k)).count() as u32
    }
}

#[derive(Clone, Debug)]
enum Op {
    Acquire(u64, bool),
    /// The oldest, or the one at this place.
    Release(usize),
    Invalidate(u64, u64),
    InvalidateAll,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        60 => (0..700u64, any::<bool>()).prop_map(|(p, w)| Op::Acquire(p, w)),
        50 => any::<usize>().prop_map(Op::Release),
        2 => (0..700u64, 0..8u64).prop_map(|(p, n)| Op::Invalidate(p, n)),
        1 => (0..700u64, 0..700u64).prop_map(|(p, n)| Op::Invalidate(p, n)),
        1 => Just(Op::InvalidateAll),
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

/// What is held: page, direction, and whether it was taken away meanwhile.
type Held = ((u64, bool), MapRef, bool);

fn drop_one(
    held: &mut Vec<Held>,
    at: usize,
    map: &mut Map,
    pin: &mut SimPinner,
    naive: &mut Naive,
) {
    let (key, page, old) = held.remove(at);
    // Most of the doomed come back in the order of their taking away; any order must do.
    naive.release(key, old);
    map.cancel(pin, page);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_naive_map(seed: u64, ops in prop::collection::vec(op(), 1..1500)) {
        let mut sim = SimMachine::builder().guest_pages(650).seed(seed).build();
        let mut map = Map::new(LIMIT, seed).unwrap();
        let mut naive = Naive::default();
        let mut held: Vec<Held> = Vec::new();
        for op in ops {
            match op {
                Op::Acquire(page, write) => {
                    let doomed = naive.doomed.iter().any(|(k, _)| *k == (page, write));
                    if doomed {
                        // Two generations of one page: checked on its own below.
                        continue;
                    }
                    let mapped = sim.world().is_mapped(page);
                    let result = map.acquire(&mut sim.pinner, GuestPage::new(page), access(write));
                    let expected = naive.acquire((page, write), mapped);
                    match (result, expected) {
                        (Ok(r), Ok(())) => held.push(((page, write), r, false)),
                        (result, expected) => prop_assert_eq!(result.map(|_| ()), expected),
                    }
                }
                Op::Release(at) if !held.is_empty() => {
                    let at = at % held.len();
                    drop_one(&mut held, at, &mut map, &mut sim.pinner, &mut naive);
                }
                Op::Release(_) => {}
                Op::Invalidate(first, pages) => {
                    let range = range(first, pages);
                    let busy = map.invalidate(&mut sim.pinner, range);
                    prop_assert_eq!(busy, naive.invalidate(range));
                    for (key, _, old) in &mut held {
                        *old |= range.contains(GuestPage::new(key.0));
                    }
                }
                Op::InvalidateAll => {
                    let busy = map.unpin_all(&mut sim.pinner);
                    prop_assert_eq!(busy, naive.invalidate(PageRange::ALL));
                    held.iter_mut().for_each(|(_, _, old)| *old = true);
                }
            }
            let stats = map.stats();
            prop_assert_eq!(stats.pinned as usize, naive.pinned());
            prop_assert_eq!((stats.pins, stats.unpins), (naive.pins, naive.unpins));
            prop_assert_eq!(sim.world().pinned(), u64::from(stats.pinned));
            prop_assert!(stats.pinned <= LIMIT);
        }
        while !held.is_empty() {
            drop_one(&mut held, 0, &mut map, &mut sim.pinner, &mut naive);
        }
        prop_assert_eq!(map.unpin_all(&mut sim.pinner), 0);
        prop_assert_eq!(sim.world().pinned(), 0);
    }
}

#[test]
fn a_page_taken_away_is_pinned_anew() {
    let mut sim = SimMachine::builder().guest_pages(16).build();
    let mut map = Map::new(LIMIT, 9).unwrap();
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
fn taking_everything_away_costs_no_walk_of_the_address_space() {
    let mut sim = SimMachine::builder().guest_pages(16).build();
    let mut map = Map::new(1 << 16, 9).unwrap();
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
    let mut map = Map::new(LIMIT, 9).unwrap();
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
    let mut map = Map::new(LIMIT, 9).unwrap();
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
