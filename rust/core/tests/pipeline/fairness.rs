// SPDX-License-Identifier: GPL-2.0

//! Invariant 10: however much there is to do for one pool, another waits for two of its turns at
//! most, and a turn is no more than a budget of descriptors.

use crate::sim::bench::*;
use crate::sim::guest::{
    context_words,
    data_word,
    Csum,
    Send, //
};
use crate::sim::rng::Rng;
use sluice_core::addr::PoolId;
use sluice_core::slice::Polled;
use sluice_core::turns::{
    PoolMask,
    Pools,
    Turns,
    BUDGET, //
};

const POOLS: usize = PoolId::MAX;

/// Pools that have things to do at random, and the books of who had to wait for whom.
struct Script {
    rng: Rng,
    /// What is left to do, for each pool.
    work: [u32; POOLS],
    /// Pools with an event that the worker has not taken.
    events: PoolMask,
    armed: PoolMask,
    /// Turns of each other pool since the pool had something to do; `None` if it has not.
    waited: [Option<[u32; POOLS]>; POOLS],
    /// Descriptors in the turn under way.
    moved: u32,
    turns: u64,
    longest: u32,
}

impl Script {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            work: [0; POOLS],
            events: 0,
            armed: 0,
            waited: [None; POOLS],
            moved: 0,
            turns: 0,
            longest: 0,
        }
    }

    /// Things happen to pools at any time, also while others have their turn.
    fn happens(&mut self) {
        for pool in 0..POOLS {
            // The first two never end.
            let more = match pool {
                0 | 1 => 100_000,
                _ if self.rng.chance(10) => self.rng.below(600) as u32,
                _ => 0,
            };
            if more != 0 {
                self.work[pool] += more;
                self.events |= 1 << pool;
                self.waited[pool].get_or_insert([0; POOLS]);
            }
        }
    }
}

impl Pools for Script {
    type Owner = PoolId;

    fn owner(&mut self, pool: PoolId) -> Option<PoolId> {
        self.happens();
        self.moved = 0;
        self.turns += 1;
        if let Some(waited) = self.waited[pool.index()].take() {
            let most = waited.into_iter().max().unwrap();
            assert!(most <= 2, "pool {pool:?} waited for {waited:?} turns");
            self.longest = self.longest.max(most);
        }
        for waited in self.waited.iter_mut().flatten() {
            waited[pool.index()] += 1;
        }
        Some(pool)
    }

    fn poll(&mut self, owner: &PoolId, budget: u16) -> Polled {
        let work = &mut self.work[owner.index()];
        let now = (*work).min(budget.into());
        *work -= now;
        self.moved += now;
        assert!(self.moved <= BUDGET.into(), "a turn of {}", self.moved);
        let more = *work != 0;
        if more {
            self.waited[owner.index()].get_or_insert([0; POOLS]);
        }
        self.happens();
        Polled {
            more,
            ..Polled::default()
        }
    }

    fn acknowledge(&mut self, _pool: PoolId) {}

    fn arm(&mut self, pool: PoolId) {
        self.armed |= 1 << pool.index();
    }
}

#[test]
fn nobody_waits_for_more_than_two_turns_of_another() {
    let mut longest = 0;
    for seed in 0..50 {
        let (mut script, mut turns) = (Script::new(seed), Turns::new());
        for _ in 0..500 {
            script.happens();
            let events = core::mem::take(&mut script.events);
            let fired = script.armed & script.rng.next() as PoolMask;
            script.armed &= !fired;
            turns.fired(fired);
            let (due, before) = (turns.due(events | fired, 1), script.turns);
            turns.round(due, &mut script);
            assert_eq!(script.turns - before, due.count_ones().into());
        }
        longest = longest.max(script.longest);
    }
    assert_eq!(longest, 2, "the bound is met");
}

/// What a pool asks for decides when it is looked at again, and whether it may interrupt.
#[test]
fn who_is_due() {
    struct One {
        polled: Polled,
        polls: u32,
        armed: bool,
    }
    impl Pools for One {
        type Owner = ();
        fn owner(&mut self, pool: PoolId) -> Option<()> {
            (pool.index() == 3).then_some(())
        }
        fn poll(&mut self, (): &(), _budget: u16) -> Polled {
            self.polls += 1;
            self.polled
        }
        fn acknowledge(&mut self, _pool: PoolId) {
            assert!(!self.armed);
        }
        fn arm(&mut self, _pool: PoolId) {
            self.armed = true;
        }
    }
    let mut turns = Turns::new();
    let mut one = One {
        polled: Polled::default(),
        polls: 0,
        armed: false,
    };
    assert_eq!((turns.due(0, u64::MAX), turns.deadline_ns()), (0, None));
    // A pool without an owner has nothing to do, whatever happens to it.
    turns.round(0b0100, &mut one);
    assert_eq!((turns.due(0, 0), one.polls), (0, 0));
    // More to do: due at once, and not armed.
    one.polled.more = true;
    turns.round(0b1000, &mut one);
    assert_eq!((turns.due(0, 0), one.polls, one.armed), (0b1000, 1, false));
    // Nothing more: a second look before it is armed, and a deadline.
    one.polled = Polled {
        deadline_ns: Some(10),
        ..Polled::default()
    };
    turns.round(0b1000, &mut one);
    assert_eq!((one.polls, one.armed), (3, true));
    assert_eq!((turns.due(0, 9), turns.due(0, 10)), (0, 0b1000));
    assert_eq!(turns.deadline_ns(), Some(10));
    // Armed: one look is enough.
    turns.round(0b1000, &mut one);
    assert_eq!(one.polls, 4);
    // Its interrupt has fired.
    one.armed = false;
    turns.fired(0b1000);
    turns.round(0b1000, &mut one);
    assert_eq!((one.polls, one.armed), (6, true));
}

const BIG_TX: u64 = 0x10_0000;
const BIG_RX: u64 = 0x12_0000;
const BIG_COUNT: u64 = 4096;

/// Slices under one worker: all but the last flood.
struct Slices {
    benches: Vec<Bench>,
    /// Descriptors that each slice has given, by direction, since the quiet one had a packet to send.
    given: Vec<[u64; 2]>,
    tail: u32,
}

impl Slices {
    /// The NIC ends all that it has, and the guest fills both its rings.
    fn flood(&mut self, index: usize) {
        self.tail = (self.tail + 4001) % BIG_COUNT as u32;
        let tail = self.tail;
        let b = &mut self.benches[index];
        {
            let mut world = b.world.borrow_mut();
            for _ in 0..300 {
                world.nic_rx_arrives(&[1; 60], None);
            }
        }
        b.nic_runs();
        b.world.borrow_mut().wire.clear();
        fill_rings(b, index);
        b.write(TX + TAIL, tail);
        b.write(RX + TAIL, tail);
    }
}

impl Pools for Slices {
    type Owner = usize;

    fn owner(&mut self, pool: PoolId) -> Option<usize> {
        let index = pool.index();
        if index + 1 < self.benches.len() {
            self.flood(index);
        }
        Some(index)
    }

    fn poll(&mut self, owner: &usize, budget: u16) -> Polled {
        let b = &mut self.benches[*owner];
        let before = (b.slice.stats().tx.taken, b.slice.stats().rx.taken);
        let polled = b.slice.poll_hastily(b.now_ns, budget);
        assert!(!polled.stop_wanted);
        let stats = b.slice.stats();
        let (tx, rx) = (stats.tx.taken - before.0, stats.rx.taken - before.1);
        assert!(tx <= budget.into() && rx <= budget.into(), "{tx} {rx}");
        self.given[*owner][0] += tx;
        self.given[*owner][1] += rx;
        polled
    }

    fn acknowledge(&mut self, _pool: PoolId) {}
    fn arm(&mut self, _pool: PoolId) {}
}

/// Writes packets, or contexts that are never used: these fill no ring of the NIC's.
fn fill_rings(b: &Bench, index: usize) {
    let send = Send {
        segments: vec![(BUFFERS, 60)],
        csum: Some(Csum {
            mac_len: 14,
            ip_len: 20,
            ipv4: true,
            l4: 1,
            ip_checksum: true,
        }),
        ..Send::default()
    };
    let packet = [BUFFERS, data_word(60, true, &Send::default(), 60)];
    let words = if index % 2 == 0 {
        packet
    } else {
        context_words(&send)
    };
    let bytes = |[low, high]: [u64; 2]| [low.to_le_bytes(), high.to_le_bytes()].concat();
    let tx = bytes(words).repeat(BIG_COUNT as usize);
    let place = |i: u64| bytes([BUFFERS + 0x1000 + i % 200 * 2048, 0]);
    let rx: Vec<u8> = (0..BIG_COUNT).flat_map(place).collect();
    let mut world = b.world.borrow_mut();
    world.guest_write(BIG_TX, &tx);
    world.guest_write(BIG_RX, &rx);
}

fn flooder(seed: u64) -> Bench {
    let mut b = Bench::new(seed);
    b.master(true);
    b.write(CTRL, 1 << 26);
    b.ring(TX, BIG_TX, BIG_COUNT as u32 * 16);
    b.write(TX + DCTL, ENABLE);
    b.ring(RX, BIG_RX, BIG_COUNT as u32 * 16);
    b.write(RX + SRRCTL, ONE_BUFFER_2K);
    b.write(RX + DCTL, ENABLE);
    b
}

#[test]
fn a_flood_takes_no_more_than_its_budget() {
    let mut benches: Vec<_> = (0..POOLS as u64 - 1).map(flooder).collect();
    let mut quiet = Bench::new(99);
    quiet.bring_up();
    benches.push(quiet);
    let last = POOLS - 1;
    let mut slices = Slices {
        given: vec![[0; 2]; POOLS],
        benches,
        tail: 0,
    };
    let mut turns = Turns::new();
    let most = u64::from(2 * BUDGET);
    let word = data_word(60, true, &Send::default(), 60);
    for packet in 0..40u32 {
        let b = &mut slices.benches[last];
        let at = TX_RING + u64::from(packet) * 16;
        b.world.borrow_mut().guest_write_desc(at, [BUFFERS, word]);
        b.write(TX + TAIL, packet + 1);
        slices.given = vec![[0; 2]; POOLS];
        let sent = |slices: &Slices| slices.benches[last].slice.stats().tx.posted;
        for _ in 0..2 {
            if sent(&slices) > packet.into() {
                break;
            }
            let due = turns.due(PoolMask::MAX, 1);
            turns.round(due, &mut slices);
            assert_eq!(due, PoolMask::MAX);
        }
        assert_eq!(sent(&slices), u64::from(packet) + 1);
        for given in &slices.given[..last] {
            assert!(given.iter().all(|count| *count <= most), "{given:?}");
        }
        slices.benches[last].nic_runs();
    }
    for (index, given) in slices.given[..last].iter().enumerate() {
        let b = &slices.benches[index];
        assert!(b.slice.stats().tx.taken > 1000, "{index} does flood");
        assert!(b.slice.stats().rx.taken > 1000, "{index} does flood");
        assert_ne!(*given, [0; 2]);
    }
}
