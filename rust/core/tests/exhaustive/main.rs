// SPDX-License-Identifier: GPL-2.0

//! Everything that can happen in small rings: each order of the guest's, the worker's and the NIC's
//! steps, with the queue stopped and started again at any point. The real transmit and receive paths
//! run; what they do is compared with a ring's rules at each step (see [`machine`]), and in each state
//! that is new
//!
//! - if all go on, everything that the guest has posted comes back, and
//! - if the queue is stopped, nothing is left of it.
//!
//! States are told apart by a hash. To get back to a state, the steps that led to it are repeated, on
//! the same queue, which was stopped and enabled again in between: whatever it carries over shows as
//! another state.

mod machine;
mod platform;

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::HashSet;
use std::hash::{
    Hash,
    Hasher, //
};
use std::rc::Rc;

use machine::*;
use platform::*;
use sluice_core::desc::rx::BufferSizes;
use sluice_core::frame::TxLimits;
use sluice_core::map::{
    Mapper,
    PinMap,
    Strategy, //
};
use sluice_core::path::{
    Io,
    Progress,
    State, //
};
use sluice_core::platform::RxLayout;
use sluice_core::ring::RingConfig;
use sluice_core::rx::{
    RxConfig,
    RxPath, //
};
use sluice_core::stats::{
    PathStats,
    Stats, //
};
use sluice_core::tx::TxPath;

type Map = PinMap<PagePinner, Heap>;

enum Path {
    Tx(Box<TxPath<Small>>),
    Rx(Box<RxPath<Small>>),
}

/// Does something with the path, of whichever kind, and what it works with.
macro_rules! with_path {
    ($system:ident, |$path:ident, $io:ident| $what:expr) => {{
        let $io = &mut Io {
            queue: &mut $system.queue,
            pinner: &mut $system.pinner,
            map: &mut $system.map,
            bounce: &mut $system.bounce,
            stats: &mut $system.stats,
        };
        match &mut $system.path {
            Path::Tx($path) => $what,
            Path::Rx($path) => $what,
        }
    }};
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Post,
    Ring,
    Clean,
    Poll(u16),
    Fetch,
    WriteBack,
    /// Stop and start; what the NIC holds is sent before, or lost.
    Restart {
        drains: bool,
    },
}

struct System {
    world: Shared,
    pinner: PagePinner,
    queue: NicQueue,
    bounce: Unused,
    map: Map,
    stats: Stats,
    path: Path,
}

impl System {
    fn new(config: Config) -> Self {
        let world = Rc::new(RefCell::new(World::new(config)));
        let path = match config.dir {
            Dir::Tx => Path::Tx(Box::new(TxPath::small(config.shadow, &Unused).unwrap())),
            Dir::Rx => Path::Rx(Box::new(RxPath::new(config.shadow, &Unused).unwrap())),
        };
        Self {
            pinner: PagePinner(world.clone()),
            queue: NicQueue(world.clone()),
            bounce: Unused,
            map: PinMap::new(Strategy::SingleUse, Map::MIN_PAGES, 1).unwrap(),
            stats: Stats::new(),
            path,
            world,
        }
    }

    fn enable(&mut self) {
        let config = self.world.borrow().config;
        let ring = RingConfig::small(RING_BASE, config.guest);
        let ring = ring.unwrap_or_else(|| RingConfig::new(RING_BASE, 128).unwrap());
        assert_eq!(ring.size().get(), config.guest);
        let layout = RxLayout {
            packet_bytes: RX_BYTES as u16,
            header_bytes: 0,
        };
        let io = &mut Io {
            queue: &mut self.queue,
            pinner: &mut self.pinner,
            map: &mut self.map,
            bounce: &mut self.bounce,
            stats: &mut self.stats,
        };
        let enabled = match &mut self.path {
            Path::Tx(path) => path.enable(
                io,
                ring,
                TxLimits {
                    max_frame_bytes: 1522,
                    port_vlan: false,
                    source: None,
                },
            ),
            Path::Rx(path) => path.enable(
                io,
                RxConfig {
                    ring,
                    sizes: BufferSizes::new(layout).unwrap(),
                    max_frame_bytes: 1522,
                    hide_vlan: false,
                },
            ),
        };
        assert_eq!(enabled, Ok(()));
    }

    /// Stops the queue and checks that nothing of it is left.
    fn disable(&mut self) {
        let stopped = with_path!(self, |path, io| path.stop(io));
        assert!(stopped.is_ok());
        self.world.borrow_mut().check_off();
        let (map, stats) = (self.map.stats(), self.path_stats());
        assert_eq!((map.pins, map.pinned), (map.unpins, 0));
        assert_eq!(stats.posted, stats.completed + stats.abandoned);
        assert_eq!(self.in_flight(), (0, false));
    }

    fn path_stats(&self) -> PathStats {
        match self.path {
            Path::Tx(_) => self.stats.tx,
            Path::Rx(_) => self.stats.rx,
        }
    }

    /// Descriptors held back, and whether some are in flight.
    fn in_flight(&self) -> (u16, bool) {
        match &self.path {
            Path::Tx(path) => (path.held(), path.in_flight()),
            Path::Rx(path) => (path.held(), path.in_flight()),
        }
    }

    /// Whether the step can be taken now.
    fn allows(&self, step: Step) -> bool {
        let world = self.world.borrow();
        match step {
            Step::Post => world.can_post(),
            Step::Ring => world.can_ring(),
            Step::Clean => world.can_clean(),
            Step::Fetch => world.can_fetch(),
            Step::WriteBack => world.can_write_back(),
            Step::Poll(_) | Step::Restart { .. } => true,
        }
    }

    fn poll(&mut self, budget: u16) -> Progress {
        let (tail, before) = {
            let world = self.world.borrow();
            (world.tail(), world.loaded)
        };
        let progress = with_path!(self, |path, io| path.poll(io, tail, budget));
        assert!(progress.taken <= budget);
        assert_eq!(
            u32::from(progress.taken),
            self.world.borrow().loaded - before
        );
        progress
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Post => self.world.borrow_mut().post(),
            Step::Ring => self.world.borrow_mut().ring(),
            Step::Clean => self.world.borrow_mut().clean(),
            Step::Fetch => self.world.borrow_mut().fetch(),
            Step::WriteBack => self.world.borrow_mut().write_back(),
            Step::Poll(budget) => drop(self.poll(budget)),
            Step::Restart { drains } => {
                self.world.borrow_mut().drains = drains;
                let restarted = with_path!(self, |path, io| path.restart(io));
                assert!(restarted.is_ok());
                let mut world = self.world.borrow_mut();
                world.drains = false;
                world.restarted();
            }
        }
        self.check();
    }

    /// What holds between two steps.
    fn check(&self) {
        let world = self.world.borrow();
        world.check();
        let (held, in_flight) = self.in_flight();
        assert_eq!(u32::from(held), world.loaded - world.emitted);
        let stats = self.path_stats();
        let open = stats.posted - stats.completed - stats.abandoned;
        assert_eq!(open, world.in_flight() as u64, "in flight");
        assert_eq!(in_flight, open != 0);
        let (head, state) = match &self.path {
            Path::Tx(path) => (path.head(), path.state()),
            Path::Rx(path) => (path.head(), path.state()),
        };
        assert_eq!(
            u32::from(head.get()),
            world.done % u32::from(world.config.guest)
        );
        assert_eq!(state, State::Running);
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.world.borrow().hash(&mut hasher);
        self.in_flight().hash(&mut hasher);
        hasher.finish()
    }

    /// All go on: whatever the guest has posted comes back.
    fn drain(&mut self) {
        if self.allows(Step::Ring) {
            self.take(Step::Ring);
        }
        // In the smallest shadow ring there is room for one descriptor at a time.
        let rounds = 2 * self.world.borrow().config.guest;
        for _ in 0..rounds {
            if self.world.borrow().is_served() {
                return;
            }
            self.take(Step::Poll(u16::MAX));
            for step in [Step::Fetch, Step::WriteBack, Step::Clean] {
                while self.allows(step) {
                    self.take(step);
                }
            }
        }
        assert!(self.world.borrow().is_served(), "something is lost");
    }
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    states: usize,
    steps: usize,
    depth: usize,
}

/// Goes through all states, nearest first.
fn explore(config: Config) -> Seen {
    let mut steps = vec![
        Step::Post,
        Step::Ring,
        Step::Clean,
        Step::Fetch,
        Step::WriteBack,
        Step::Restart { drains: false },
    ];
    steps.extend((1..=config.budgets).map(Step::Poll));
    if config.dir == Dir::Tx {
        steps.push(Step::Restart { drains: true });
    }
    let allowed = |system: &System| -> Vec<Step> {
        let steps = steps.iter().copied();
        steps.filter(|step| system.allows(*step)).collect()
    };

    let mut system = System::new(config);
    system.enable();
    let mut known = HashSet::from([system.hash()]);
    // How each state was reached, from which and by which step, and what can be done there.
    let mut states = vec![(0, Step::Post, allowed(&system))];
    let mut seen = Seen::default();
    let (mut path, mut next) = (Vec::new(), 0);
    while next < states.len() {
        path.clear();
        let mut at = next;
        while at != 0 {
            path.push(states[at].1);
            at = states[at].0;
        }
        seen.depth = path.len();
        for step in std::mem::take(&mut states[next].2) {
            system.disable();
            system.enable();
            path.iter().rev().for_each(|step| system.take(*step));
            system.take(step);
            seen.steps += 1;
            if known.insert(system.hash()) {
                states.push((next, step, allowed(&system)));
                system.drain();
            }
        }
        next += 1;
    }
    system.disable();
    seen.states = states.len();
    println!("{config:?}: {seen:?}");
    seen
}

const SMALL: Config = Config {
    dir: Dir::Tx,
    guest: 4,
    shadow: 4,
    frame: 1,
    budgets: 3,
    prompt: false,
    flaw: Flaw::None,
};

/// A guest's ring of each size that can hold a packet, over a shadow ring. Larger ones have fewer
/// budgets, and guests that do not save up doorbells.
fn explore_each(dir: Dir, shadow: u16, frame: u16, sizes: std::ops::RangeInclusive<u16>) {
    for guest in sizes.filter(|guest| *guest > frame) {
        let seen = explore(Config {
            dir,
            guest,
            shadow,
            frame,
            budgets: if guest > 4 { 2 } else { 3 },
            prompt: guest > 4,
            ..SMALL
        });
        assert!(seen.states > 10, "{seen:?}");
    }
}

// A transmit queue has a slot to spare for a packet's context: 4 is the least.

#[test]
fn transmit_rings_over_4_slots() {
    explore_each(Dir::Tx, 4, 1, 2..=8);
    explore_each(Dir::Tx, 4, 2, 3..=8);
}

#[test]
fn transmit_rings_over_8_slots() {
    explore_each(Dir::Tx, 8, 1, 2..=5);
    explore_each(Dir::Tx, 8, 2, 3..=8);
}

#[test]
fn receive_rings_over_2_slots() {
    explore_each(Dir::Rx, 2, 1, 2..=8);
    explore_each(Dir::Rx, 2, 2, 3..=8);
}

#[test]
fn receive_rings_over_4_slots() {
    explore_each(Dir::Rx, 4, 1, 2..=7);
    explore_each(Dir::Rx, 4, 2, 3..=6);
}

#[test]
fn receive_rings_over_8_slots() {
    explore_each(Dir::Rx, 8, 1, 2..=5);
    explore_each(Dir::Rx, 8, 2, 3..=4);
}

/// What the tests above leave out, for it takes long.
#[test]
#[ignore = "a minute; best with --release"]
fn the_largest_rings() {
    explore_each(Dir::Tx, 8, 1, 6..=8);
    explore_each(Dir::Rx, 4, 1, 8..=8);
    explore_each(Dir::Rx, 4, 2, 7..=8);
    explore_each(Dir::Rx, 8, 1, 6..=8);
    explore_each(Dir::Rx, 8, 2, 5..=8);
}

// What the checks must see.

fn explore_broken(flaw: Flaw) {
    explore(Config { flaw, ..SMALL });
}

#[test]
#[should_panic(expected = "unpinned in flight")]
fn a_write_back_that_comes_too_early_is_seen() {
    explore_broken(Flaw::EarlyDone);
}

#[test]
#[should_panic(expected = "something is lost")]
fn a_doorbell_that_gets_lost_is_seen() {
    explore_broken(Flaw::LostDoorbell);
}

#[test]
#[should_panic(expected = "no buffer of the guest's")]
fn a_fetch_of_another_slot_is_seen() {
    explore_broken(Flaw::StaleFetch);
}

#[test]
#[should_panic(expected = "unpinned in flight")]
fn a_stop_that_is_none_is_seen() {
    explore_broken(Flaw::StopLies);
}
