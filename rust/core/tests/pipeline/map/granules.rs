// SPDX-License-Identifier: GPL-2.0

//! Granules, one rule at a time.

use proptest::strategy::{
    Strategy as _,
    ValueTree, //
};
use proptest::test_runner::TestRunner;
use sluice_core::addr::{
    BusPage,
    GuestPage,
    GRANULE_PAGES, //
};
use sluice_core::map::{
    MapError,
    MapRef,
    Mapper,
    Strategy, //
};
use sluice_core::platform::Access;

use super::naive::{
    access,
    op_with_memory,
    range,
    run,
    Seen,
    RESERVE, //
};
use super::LARGE_PAGES;
use crate::sim::rig::Map;
use crate::sim::{
    SimBuilder,
    SimMachine, //
};

const GRANULE: u64 = GRANULE_PAGES as u64;
/// Pages of a granule that are pinned one by one before the whole.
const FIRST: u64 = 3;

/// A map with room for two granules, and its machine.
struct Setup {
    sim: SimMachine,
    map: Map,
}

fn huge() -> SimBuilder {
    SimMachine::builder()
        .guest_pages(4 * GRANULE + 40)
        .huge_percent(100)
}

impl Setup {
    fn new(builder: SimBuilder) -> Self {
        let map = Map::new(Strategy::Persistent, 2048, 9).unwrap();
        let sim = builder.build();
        Self { sim, map }
    }

    fn acquire(&mut self, page: u64, write: bool) -> Result<MapRef, MapError> {
        let page = GuestPage::new(page);
        self.map.acquire(&mut self.sim.pinner, page, access(write))
    }

    /// Uses a page for a moment; whether that pinned it alone or with others.
    fn touch(&mut self, page: u64, write: bool) -> u64 {
        let before = self.map.stats().pins;
        let mapped = self.acquire(page, write).expect("a page");
        let bus = self.sim.world().bus_of_page(page).unwrap();
        assert_eq!(mapped.bus(), BusPage::from_mapping(bus));
        self.map.cancel(&mut self.sim.pinner, mapped);
        let stats = self.map.stats();
        assert_eq!(u64::from(stats.pinned), self.sim.world().pinned());
        stats.pins - before
    }

    /// Pins a granule whole.
    fn pin_whole(&mut self, granule: u64, write: bool) {
        for page in 0..FIRST {
            assert_eq!(self.touch(granule * GRANULE + page, write), 1);
        }
        assert_eq!(self.touch(granule * GRANULE + FIRST, write), GRANULE);
    }

    fn tries(&self) -> u64 {
        self.sim.world().granule_tries
    }

    /// The VMM takes pages away, of which none is in flight.
    fn unmap(&mut self, first: u64, pages: u64) {
        let range = range(first, pages - 1);
        assert_eq!(self.map.invalidate(&mut self.sim.pinner, range), 0);
        for page in first..first + pages {
            self.sim.world().unmap(page, false);
        }
    }

    /// Pins the first three granules' pages one by one: all that the limit leaves beside one more.
    fn fill_but_one(&mut self) {
        for granule in 0..3 {
            self.unmap(granule * GRANULE + 511, 1);
            for page in 0..511 {
                assert_eq!(self.touch(granule * GRANULE + page, true), 1);
            }
        }
    }

    fn finish(mut self) {
        assert_eq!(self.map.unpin_all(&mut self.sim.pinner), 0);
        assert_eq!(self.map.stats().granules, 0);
        assert_eq!(self.sim.world().pinned(), 0);
    }
}

#[test]
fn one_pin_serves_a_whole_granule() {
    let mut s = Setup::new(huge());
    s.pin_whole(1, true);
    let before = s.map.stats();
    for page in GRANULE..2 * GRANULE {
        assert_eq!(s.touch(page, true), 0);
    }
    let stats = s.map.stats();
    assert_eq!(stats.hits - before.hits, GRANULE);
    assert_eq!((stats.misses, stats.granules), (FIRST + 1, 1));
    assert_eq!(stats.pins, FIRST + GRANULE);
    assert_eq!(stats.entries() as u64, FIRST + 1 - stats.unpins);
    assert_eq!(s.touch(GRANULE + 7, false), 1, "the other direction");
    assert_eq!(s.touch(0, true), 1, "another granule");
    assert_eq!(s.touch(2 * GRANULE, true), 1, "and another");
    s.finish();
}

#[test]
fn a_page_of_a_granule_has_its_own_memory() {
    let mut s = Setup::new(huge());
    s.pin_whole(0, true);
    for page in [0, 1, 2, 255, 256, 511] {
        let at = (page << 12) + 100;
        s.sim.world().guest_write(at, &page.to_le_bytes());
        let mapped = s.acquire(page, true).unwrap();
        let memory = s.map.acquired(&mapped).unwrap();
        let mut bytes = [0; 8];
        memory.copy_out(100, &mut bytes);
        assert_eq!(u64::from_le_bytes(bytes), page);
        memory.copy_in(4090, &[7; 20]);
        s.map.cancel(&mut s.sim.pinner, mapped);
        assert_eq!(s.sim.world().guest_read((page << 12) + 4090, 6), [7; 6]);
        if page != 511 {
            let next = s.sim.world().guest_read((page + 1) << 12, 8);
            assert_eq!(next, [0; 8], "what did not fit is dropped");
        }
    }
    s.finish();
}

#[test]
fn a_granule_is_given_up_whole() {
    let mut s = Setup::new(huge());
    s.pin_whole(0, true);
    s.sim.world().guest_write(300 << 12, &[8; 4]);
    let [first, second] = [300, 301].map(|page| s.acquire(page, true).unwrap().posted());
    let mut bytes = [0; 4];
    s.map.page(&first).unwrap().copy_out(0, &mut bytes);
    assert_eq!(bytes, [8; 4]);
    for page in [first, second] {
        s.map.leak(&mut s.sim.pinner, page);
    }
    assert_eq!(s.map.stats().leaked, GRANULE);
    assert_eq!(s.map.unpin_all(&mut s.sim.pinner), GRANULE_PAGES);
    assert_eq!(s.sim.world().pinned(), GRANULE);
}

/// Each: memory in which the first granule cannot be pinned whole for writing.
#[test]
fn what_cannot_be_had_whole_is_pinned_by_the_page() {
    type Spoil = fn(&mut Setup);
    let cases: [(&str, SimBuilder, Spoil); 6] = [
        ("scattered", huge().huge_percent(0), |_| {}),
        ("one page elsewhere", huge(), |s| {
            s.unmap(500, 1);
            s.unmap(1500, 20);
            s.sim.world().homes.clear();
            s.sim.world().map(500, true);
            assert!(s.sim.world().granule(0, true).is_none());
        }),
        ("a hole", huge(), |s| s.unmap(511, 1)),
        ("a page for reading only", huge(), |s| {
            s.unmap(77, 1);
            s.sim.world().map(77, false);
        }),
        ("the edge of memory", huge().guest_pages(300), |_| {}),
        ("the VMM's limit", huge().memlock_pages(400), |_| {}),
    ];
    for (what, builder, spoil) in cases {
        let mut s = Setup::new(builder);
        spoil(&mut s);
        for page in 0..40 {
            assert_eq!(s.touch(page, true), 1, "{what}");
        }
        assert_eq!(s.tries(), 1, "{what}: once and not for each miss");
        assert_eq!(s.map.stats().granules, 0);
        assert_eq!(s.sim.world().pinned(), 40, "{what}: nothing is left of it");
        s.finish();
    }
}

#[test]
fn a_refusal_is_remembered_for_a_while() {
    let mut s = Setup::new(huge());
    s.unmap(511, 1);
    let mut misses = 0;
    while s.tries() < 3 {
        s.touch(misses % 40, true);
        // Unpins the page.
        s.map.set_strategy(&mut s.sim.pinner, Strategy::Persistent);
        misses += 1;
        assert!(misses <= 2 * 4096 + FIRST + 1);
    }
    assert_eq!(misses, 2 * 4096 + FIRST + 1);
    // What the VMM does in the granule makes it another one.
    s.map.invalidate(&mut s.sim.pinner, range(100, 0));
    for page in 50..50 + FIRST {
        s.touch(page, true);
    }
    assert_eq!(s.tries(), 3);
    s.touch(60, true);
    assert_eq!(s.tries(), 4);
    s.finish();
}

#[test]
fn granules_take_half_of_the_limit() {
    let mut s = Setup::new(huge());
    s.pin_whole(0, false);
    s.pin_whole(1, true);
    for page in 0..40 {
        assert_eq!(s.touch(2 * GRANULE + page, false), 1);
    }
    assert_eq!((s.map.stats().granules, s.tries()), (2, 2));
    assert_eq!(s.map.stats().evictions, 0);
    s.finish();
}

#[test]
fn nothing_makes_room_for_a_granule() {
    let mut s = Setup::new(huge());
    s.fill_but_one();
    s.pin_whole(3, true);
    assert_eq!((s.map.stats().pinned, s.map.stats().evictions), (2048, 0));
    // With one page more there is no room for it.
    let gone = range(3 * GRANULE + 100, 0);
    assert_eq!(s.map.invalidate(&mut s.sim.pinner, gone), 0);
    for page in 10..30 {
        assert_eq!(s.touch(3 * GRANULE + page, true), 1);
    }
    assert_eq!((s.map.stats().granules, s.map.stats().evictions), (0, 0));
    s.finish();
}

/// Whatever is in flight for reception, and whatever is pinned to send from: one packet always fits.
#[test]
fn transmission_keeps_its_reserve() {
    let mut s = Setup::new(huge().guest_pages(8 * GRANULE));
    s.pin_whole(0, false);
    let mut held = Vec::new();
    for page in GRANULE..8 * GRANULE {
        // Every page a receive buffer, in flight.
        match s.acquire(page, true) {
            Ok(page) => held.push(page),
            Err(error) => assert_eq!(error, MapError::Busy),
        }
    }
    assert!(held.len() > 512);
    let mut packet = vec![s.acquire(5, false).unwrap()];
    for page in 0..u64::from(RESERVE) - 1 {
        packet.push(s.acquire(2 * GRANULE + page * 7, false).expect("room"));
    }
    assert!(s.map.stats().pinned <= 2048);
    for page in packet.into_iter().chain(held) {
        s.map.cancel(&mut s.sim.pinner, page);
    }
    s.finish();
}

#[test]
fn a_granule_goes_with_any_of_its_pages() {
    for (first, pages) in [
        (700, 1),
        (1023, 1),
        (512, 1),
        (0, 513),
        (1023, 200),
        (0, 2048),
    ] {
        let mut s = Setup::new(huge());
        s.pin_whole(1, true);
        let held = [520, 521].map(|page| s.acquire(page, true).unwrap());
        let range = range(first, pages - 1);
        assert_eq!(s.map.invalidate(&mut s.sim.pinner, range), GRANULE_PAGES);
        assert_eq!(s.map.invalidate(&mut s.sim.pinner, range), GRANULE_PAGES);
        // It is handed out to nobody any more.
        assert_eq!(s.touch(600, true), 1);
        let others = s.map.stats().pinned - GRANULE_PAGES;
        for page in held {
            assert!(s.sim.world().pinned() > GRANULE);
            s.map.cancel(&mut s.sim.pinner, page);
        }
        assert_eq!(s.map.stats().pinned, others);
        assert!(s.map.stats().invalidations >= GRANULE);
        s.finish();
    }
}

#[test]
fn the_oldest_goes_first_whatever_it_is() {
    for touched in [false, true] {
        let mut s = Setup::new(huge());
        // Three pages, a granule, and then pages: 2048 in all.
        s.pin_whole(3, true);
        s.fill_but_one();
        if touched {
            s.touch(3 * GRANULE + 9, true);
        }
        for page in 0..3 {
            s.touch(page, false);
            assert_eq!(s.map.stats().evictions, page + 1);
        }
        s.touch(3, false);
        let evictions = if touched { 4 } else { 3 + GRANULE };
        assert_eq!(s.map.stats().evictions, evictions);
        assert_eq!(s.map.stats().granules, u32::from(touched));
        s.finish();
    }
}

#[test]
fn whoever_must_not_wait_pins_no_granule() {
    let mut s = Setup::new(huge());
    for page in 0..FIRST {
        s.touch(page, false);
    }
    s.sim.world().later = true;
    assert_eq!(s.acquire(9, false).err(), Some(MapError::Busy));
    assert_eq!(s.map.stats().busy, 1);
    s.sim.world().later = false;
    assert_eq!(s.touch(9, false), GRANULE);
    s.finish();
}

#[test]
fn only_persistent_pins_granules() {
    for strategy in Strategy::ALL {
        let mut s = Setup::new(huge());
        s.map.set_strategy(&mut s.sim.pinner, strategy);
        for page in 0..20 {
            let page = s.acquire(page, false).unwrap();
            s.map.cancel(&mut s.sim.pinner, page);
        }
        let is_persistent = strategy == Strategy::Persistent;
        assert_eq!(s.map.stats().granules, u32::from(is_persistent));
        // One in flight lasts until it comes back, and is not found meanwhile.
        s.map.set_strategy(&mut s.sim.pinner, Strategy::Persistent);
        s.pin_whole(2, true);
        let held = s.acquire(2 * GRANULE + 9, true).unwrap();
        s.map.set_strategy(&mut s.sim.pinner, strategy);
        assert_eq!(s.map.stats().granules, 1);
        let other = s.acquire(2 * GRANULE + 9, true).unwrap();
        let alone = u64::from(!is_persistent);
        assert_eq!(s.sim.world().pinned(), GRANULE + alone);
        s.map.cancel(&mut s.sim.pinner, held);
        assert_eq!(s.map.stats().granules, u32::from(is_persistent));
        s.map.cancel(&mut s.sim.pinner, other);
        s.finish();
    }
}

#[test]
fn pages_far_apart_are_pinned_alone() {
    let mut s = Setup::new(huge().guest_pages(12 * GRANULE));
    for page in 0..FIRST {
        for granule in 0..12 {
            s.touch(granule * GRANULE + page * 50, true);
        }
    }
    assert_eq!(s.tries(), 0);
    s.finish();
}

/// The random runs of `agrees_on_granules` meet what they are about.
#[test]
fn granules_do_occur() {
    let mut runner = TestRunner::deterministic();
    let mut seen = Seen::default();
    let ops = proptest::collection::vec(op_with_memory(1, LARGE_PAGES), 2000);
    for seed in 0..10 {
        let ops = ops.new_tree(&mut runner).unwrap().current();
        let sim = SimMachine::builder()
            .guest_pages(LARGE_PAGES)
            .huge_percent(66)
            .seed(seed)
            .build();
        run(sim, 2048, Strategy::Persistent, ops, &mut seen).unwrap();
    }
    println!("{seen:?}");
    assert!(seen.pinned_whole > 10 && seen.refused > 10);
    assert!(seen.doomed_in_flight > 5);
}

#[test]
fn memory_for_the_cpu_is_not_pinned_whole() {
    let mut s = Setup::new(huge());
    for page in 0..20 {
        let page = GuestPage::new(page);
        let mapped = s.map.acquire(&mut s.sim.pinner, page, Access::CpuRead);
        s.map.cancel(&mut s.sim.pinner, mapped.unwrap());
    }
    s.finish();
}
