// SPDX-License-Identifier: GPL-2.0

//! Says the same thing as the map, with no regard for speed.

use std::collections::BTreeMap;

use proptest::prelude::{
    any,
    prop_assert,
    prop_assert_eq,
    prop_oneof,
    Just,
    Strategy as _, //
};
use proptest::test_runner::TestCaseError;
use sluice_core::addr::{
    BusPage,
    GuestPage,
    GRANULE_PAGES, //
};
use sluice_core::check::Rejection;
use sluice_core::map::{
    MapError,
    MapRef,
    Mapper,
    PageRange,
    Strategy, //
};
use sluice_core::platform::Access;

use crate::sim::rig::Map;
use crate::sim::world::World;
use crate::sim::SimMachine;

const GRANULE: u64 = GRANULE_PAGES as u64;
/// What receive buffers may not take.
pub const RESERVE: u32 = Map::MIN_PAGES / 2;

/// First guest page, whether it is written, whether by the CPU alone.
type Key = (u64, bool, bool);

/// One pin.
struct Pin {
    key: Key,
    pages: u32,
    users: u32,
    doomed: bool,
}

/// What is remembered of a granule that is not pinned: how many of its pages were, or after how many
/// misses it could not be.
#[derive(Clone, Copy)]
enum Known {
    Pins(u32),
    Refused(u64),
}

/// The map.
#[derive(Default)]
struct Naive {
    strategy: Strategy,
    limit: u32,
    entries: BTreeMap<u64, Pin>,
    /// Idle ones, oldest first.
    idle: Vec<u64>,
    /// By granule and direction; few enough that none displaces another.
    known: BTreeMap<(u64, bool), Known>,
    next: u64,
    pins: u64,
    unpins: u64,
    misses: u64,
    tries: u64,
}

impl Naive {
    fn pinned(&self) -> u32 {
        self.entries.values().map(|e| e.pages).sum()
    }

    fn granules(&self) -> u32 {
        self.entries.values().filter(|e| e.pages > 1).count() as u32
    }

    /// Whether transmission has that many pages to spare.
    fn spares(&self, pages: u32) -> bool {
        let counted = |e: &&Pin| if e.key.1 { e.users != 0 } else { e.pages > 1 };
        let spoken_for: u32 = self.entries.values().filter(counted).map(|e| e.pages).sum();
        spoken_for + pages <= self.limit - RESERVE
    }

    fn unpin(&mut self, id: u64) {
        self.idle.retain(|i| *i != id);
        self.unpins += u64::from(self.entries.remove(&id).unwrap().pages);
    }

    fn pin(&mut self, key: Key, pages: u32) -> u64 {
        self.pins += u64::from(pages);
        self.next += 1;
        let pin = Pin {
            key,
            pages,
            users: 0,
            doomed: false,
        };
        self.entries.insert(self.next, pin);
        self.next
    }

    /// The youngest, as the map finds it: pins of single uses may be several.
    fn live(&self, key: Key, pages: u32) -> Option<u64> {
        let live = |(_, e): &(&u64, &Pin)| e.key == key && e.pages == pages && !e.doomed;
        self.entries.iter().filter(live).next_back().map(|e| *e.0)
    }

    /// Whether the granule is to be pinned as a whole.
    fn tries_granule(&self, first: u64, write: bool) -> bool {
        let due = match self.known.get(&(first, write)) {
            None => false,
            Some(Known::Pins(pins)) => *pins >= 3,
            Some(Known::Refused(then)) => self.misses - then >= 4096,
        };
        self.strategy == Strategy::Persistent
            && due
            && (self.granules() + 1) * GRANULE_PAGES <= self.limit / 2
            && self.pinned() + GRANULE_PAGES <= self.limit
            && self.spares(GRANULE_PAGES)
    }

    /// What is not pinned.
    fn miss(&mut self, page: u64, write: bool, world: &World) -> Result<u64, MapError> {
        self.misses += 1;
        let first = page / GRANULE * GRANULE;
        if self.tries_granule(first, write) {
            if world.later {
                return Err(MapError::Busy);
            }
            self.tries += 1;
            if world.granule(first, write).is_some() {
                self.known.remove(&(first, write));
                return Ok(self.pin((first, write, false), GRANULE_PAGES));
            }
            let refused = Known::Refused(self.misses);
            self.known.insert((first, write), refused);
        }
        if self.pinned() == self.limit {
            if self.strategy == Strategy::DirectMap {
                return Err(MapError::Refused(Rejection::PinLimit));
            }
            let oldest = self.idle.first().copied();
            self.unpin(oldest.ok_or(MapError::Busy)?);
        }
        if world.later {
            return Err(MapError::Busy);
        }
        match world.is_writable(page) {
            None => return Err(MapError::Refused(Rejection::NotMemory)),
            Some(false) if write => return Err(MapError::Refused(Rejection::AccessDenied)),
            Some(_) => {}
        }
        if self.strategy == Strategy::Persistent {
            let known = self.known.entry((first, write)).or_insert(Known::Pins(0));
            if let Known::Pins(pins) = known {
                *pins += 1;
            }
        }
        Ok(self.pin((page, write, self.strategy == Strategy::Copy), 1))
    }

    /// Returns a name for the pin.
    fn acquire(&mut self, page: u64, write: bool, world: &World) -> Result<u64, MapError> {
        let found = match self.strategy {
            Strategy::SingleUse => None,
            Strategy::Persistent => self
                .live((page / GRANULE * GRANULE, write, false), GRANULE_PAGES)
                .or_else(|| self.live((page, write, false), 1)),
            _ => self.live((page, write, self.strategy == Strategy::Copy), 1),
        };
        let (users, pages) = found.map_or((0, 1), |id| {
            let entry = &self.entries[&id];
            (entry.users, entry.pages)
        });
        if write && users == 0 && !self.spares(pages) {
            return Err(MapError::Busy);
        }
        let id = match found {
            Some(id) => {
                self.idle.retain(|i| *i != id);
                id
            }
            None => self.miss(page, write, world)?,
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
            Strategy::Persistent => !by_cpu,
            Strategy::DirectMap => !by_cpu && entry.pages == 1,
            Strategy::Copy => by_cpu,
        };
        if keep && !entry.doomed {
            self.idle.push(id);
        } else {
            self.unpin(id);
        }
    }

    fn invalidate(&mut self, range: PageRange) -> u32 {
        let (first, last) = (range.first().pfn(), range.last().pfn());
        let touched = |start: u64, pages: u64| start <= last && start + pages > first;
        self.known.retain(|(start, _), _| !touched(*start, GRANULE));
        let within = |(_, e): &(&u64, &Pin)| touched(e.key.0, e.pages.into());
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
                busy += entry.pages;
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
pub enum Op {
    Acquire(u64, bool),
    /// The one at this place.
    Release(usize),
    Invalidate(u64, u64),
    InvalidateAll,
    /// The VMM takes memory away, if nothing of it is in flight.
    Unmap(u64, u64),
    /// And gives a page back, maybe for reading only.
    Map(u64, bool),
    /// Whether pinning would have to wait.
    Later(bool),
    Switch(usize),
}

/// `switches` of about a hundred steps change the strategy; pages up to `pages`, and some more.
pub fn op(switches: u32, pages: u64) -> impl proptest::strategy::Strategy<Value = Op> {
    let end = pages + 50;
    prop_oneof![
        60 => (0..end, any::<bool>()).prop_map(|(p, w)| Op::Acquire(p, w)),
        50 => any::<usize>().prop_map(Op::Release),
        2 => (0..end, 0..8u64).prop_map(|(p, n)| Op::Invalidate(p, n)),
        1 => (0..end, 0..end).prop_map(|(p, n)| Op::Invalidate(p, n)),
        1 => Just(Op::InvalidateAll),
        switches => (0..Strategy::ALL.len()).prop_map(Op::Switch),
    ]
}

/// As [`op`], and the memory changes. Pages are near each other more often than not.
pub fn op_with_memory(switches: u32, pages: u64) -> impl proptest::strategy::Strategy<Value = Op> {
    let near = move || (0..pages / 256, 0..16u64).prop_map(|(at, p)| at * 256 + p);
    prop_oneof![
        250 => (near(), any::<bool>()).prop_map(|(p, w)| Op::Acquire(p, w)),
        250 => op(switches, pages),
        20 => any::<usize>().prop_map(Op::Release),
        1 => (near(), 0..8u64).prop_map(|(p, n)| Op::Unmap(p, n)),
        1 => (0..pages, 0..600u64).prop_map(|(p, n)| Op::Unmap(p, n)),
        4 => (near(), any::<bool>()).prop_map(|(p, w)| Op::Map(p, w)),
        2 => any::<bool>().prop_map(Op::Later),
    ]
}

pub fn access(write: bool) -> Access {
    if write {
        Access::Write
    } else {
        Access::Read
    }
}

/// `pages` more than one.
pub fn range(first: u64, pages: u64) -> PageRange {
    PageRange::from_bytes(first << 12, (pages + 1) << 12).unwrap()
}

/// How much a run had to do with granules.
#[derive(Debug, Default)]
pub struct Seen {
    pub pinned_whole: u64,
    pub refused: u64,
    pub doomed_in_flight: u64,
}

pub fn run(
    mut sim: SimMachine,
    limit: u32,
    strategy: Strategy,
    ops: Vec<Op>,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    let seed = sim.world().rng.next();
    let mut map = Map::new(strategy, limit, seed).unwrap();
    let mut naive = Naive {
        limit,
        ..Naive::default()
    };
    naive.switch(strategy);
    let mut held: Vec<(u64, MapRef)> = Vec::new();
    for op in ops {
        let (granules, tries) = (naive.granules(), naive.tries);
        match op {
            Op::Acquire(page, write) => {
                let expected = naive.acquire(page, write, &sim.world());
                let result = map.acquire(&mut sim.pinner, GuestPage::new(page), access(write));
                match (result, expected) {
                    (Ok(mapped), Ok(id)) => {
                        let bus = sim.world().bus_of_page(page);
                        let copied = naive.strategy == Strategy::Copy;
                        let bus = BusPage::from_mapping(bus.unwrap()).filter(|_| !copied);
                        prop_assert_eq!(mapped.bus(), bus);
                        prop_assert!(map.acquired(&mapped).is_some());
                        held.push((id, mapped));
                    }
                    (result, expected) => {
                        prop_assert_eq!(result.map(|_| ()), expected.map(|_| ()));
                    }
                }
                if naive.tries != tries {
                    seen.pinned_whole += u64::from(naive.granules() > granules);
                    seen.refused += u64::from(naive.granules() == granules);
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
                seen.doomed_in_flight += u64::from(busy > GRANULE_PAGES);
            }
            Op::Unmap(first, pages) => {
                let range = range(first, pages);
                let busy = map.invalidate(&mut sim.pinner, range);
                prop_assert_eq!(busy, naive.invalidate(range));
                seen.doomed_in_flight += u64::from(busy >= GRANULE_PAGES);
                for page in (first..=first + pages).filter(|_| busy == 0) {
                    // Panics if it is still pinned.
                    sim.world().unmap(page, false);
                }
            }
            Op::Map(page, writable) => sim.world().map(page, writable),
            Op::Later(later) => sim.world().later = later,
            Op::Switch(to) => {
                let strategy = Strategy::ALL[to];
                map.set_strategy(&mut sim.pinner, strategy);
                naive.switch(strategy);
                prop_assert_eq!(map.strategy(), strategy);
            }
        }
        let stats = map.stats();
        prop_assert_eq!(stats.pinned, naive.pinned());
        prop_assert_eq!(stats.granules, naive.granules());
        prop_assert_eq!((stats.pins, stats.unpins), (naive.pins, naive.unpins));
        prop_assert_eq!(sim.world().granule_tries, naive.tries);
        prop_assert_eq!(sim.world().pinned(), u64::from(stats.pinned));
        prop_assert!(stats.pinned <= limit);
        let by_nic = naive.entries.values().filter(|e| !e.key.2);
        let by_nic: u32 = by_nic.map(|e| e.pages).sum();
        prop_assert_eq!(sim.world().nic_pinned(), u64::from(by_nic));
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
    prop_assert_eq!(map.stats().granules, 0);
    Ok(())
}
