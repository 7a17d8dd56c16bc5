// SPDX-License-Identifier: GPL-2.0

//! The map against a naive one, under every strategy: same answers, same victims, same counts.

mod granules;
mod naive;

use std::collections::BTreeSet;

use crate::sim::rig::Map;
use crate::sim::SimMachine;
use naive::{
    op,
    op_with_memory,
    range,
    run,
    Op,
    Seen, //
};
use proptest::prelude::{
    prop,
    proptest,
    ProptestConfig, //
};
use proptest::test_runner::TestCaseError;
use sluice_core::addr::GuestPage;
use sluice_core::check::Rejection;
use sluice_core::map::{
    MapError,
    Mapper,
    PageRange,
    Strategy, //
};
use sluice_core::platform::Access;

const LIMIT: u32 = Map::MIN_PAGES;

/// Memory without granules.
fn run_small(which: usize, seed: u64, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let sim = SimMachine::builder().guest_pages(650).seed(seed).build();
    run(sim, LIMIT, Strategy::ALL[which], ops, &mut Seen::default())
}

/// Six granules and a part of one, two thirds of them in one piece; room for two.
fn run_large(which: usize, seed: u64, ops: Vec<Op>, seen: &mut Seen) -> Result<(), TestCaseError> {
    let sim = SimMachine::builder()
        .guest_pages(LARGE_PAGES)
        .huge_percent(66)
        .seed(seed)
        .build();
    run(sim, 2048, Strategy::ALL[which], ops, seen)
}

const LARGE_PAGES: u64 = 6 * 512 + 300;
const PERSISTENT: usize = 2;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_naive_map(
        which in 0..Strategy::ALL.len(),
        seed: u64,
        ops in prop::collection::vec(op(0, 650), 1..1500),
    ) {
        run_small(which, seed, ops)?;
    }

    #[test]
    fn agrees_whatever_the_strategy_was(
        which in 0..Strategy::ALL.len(),
        seed: u64,
        ops in prop::collection::vec(op(2, 650), 1..1500),
    ) {
        run_small(which, seed, ops)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_on_granules(
        seed: u64,
        ops in prop::collection::vec(op_with_memory(0, LARGE_PAGES), 1..3000),
    ) {
        run_large(PERSISTENT, seed, ops, &mut Seen::default())?;
    }

    #[test]
    fn agrees_on_granules_whatever_the_strategy_was(
        seed: u64,
        ops in prop::collection::vec(op_with_memory(1, LARGE_PAGES), 1..3000),
    ) {
        run_large(PERSISTENT, seed, ops, &mut Seen::default())?;
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
