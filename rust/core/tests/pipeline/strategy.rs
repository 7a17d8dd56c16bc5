// SPDX-License-Identifier: GPL-2.0

//! A slice whose strategy changes under traffic: each packet arrives once, or is counted as lost.

use std::collections::VecDeque;

use crate::sim::bench::*;
use crate::sim::guest::{
    GuestRx,
    GuestTx,
    Received,
    Send, //
};
use crate::sim::nic::{
    Dir,
    WirePacket, //
};
use crate::sim::rng::Rng;
use proptest::prelude::{
    any,
    prop_assert,
    prop_assert_eq,
    proptest,
    ProptestConfig, //
};
use proptest::test_runner::TestCaseError;
use sluice_core::map::{
    MapStats,
    Strategy, //
};
use sluice_core::slice::*;
use sluice_core::vf::Queue;

/// Two transmit buffers for each packet that fits the ring, then the receive buffers.
const TX_STEP: u64 = 0x2100;
const RX_BUFFERS: u64 = BUFFERS + 64 * TX_STEP;
const RX_STEP: u64 = 0x1100;

/// A guest that sends and receives numbered packets, and the wire.
struct Traffic {
    bench: Bench,
    rng: Rng,
    tx: GuestTx,
    rx: GuestRx,
    sent: u64,
    /// Descriptors of the packets that the wire has not seen.
    expected: VecDeque<(u64, WirePacket, u64)>,
    on_wire: u64,
    cleaned: u64,
    arrived: u64,
    arriving: VecDeque<Received>,
    received: u64,
    /// Data descriptors of packets that were skipped on the wire.
    skipped: u64,
}

fn number(bytes: &mut [u8], number: u64) {
    bytes[..6].fill(2);
    bytes[6..12].copy_from_slice(&MAC.bytes());
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14..22].copy_from_slice(&number.to_le_bytes());
}

impl Traffic {
    fn new(seed: u64) -> Self {
        // Half of them send from copied headers.
        let mut bench = Bench::with_policy(
            seed,
            Policy {
                check_source: seed % 2 == 0,
                ..Policy::default()
            },
        );
        bench.bring_up();
        let mut rx = GuestRx::new(RX_RING, 64, 2048, 0);
        rx.damaged = Some(0);
        Self {
            bench,
            rng: Rng::new(!seed),
            tx: GuestTx::new(TX_RING, 64),
            rx,
            sent: 0,
            expected: VecDeque::new(),
            on_wire: 0,
            cleaned: 0,
            arrived: 0,
            arriving: VecDeque::new(),
            received: 0,
            skipped: 0,
        }
    }

    fn send(&mut self, count: u64) {
        let before = self.sent;
        for _ in 0..count {
            if self.tx.in_flight() >= 60 {
                break;
            }
            let world = &mut self.bench.world.borrow_mut();
            let place = BUFFERS + self.sent % 64 * TX_STEP + self.rng.below(64);
            let len = self.rng.within(64, 1514);
            let mut bytes = vec![self.sent as u8; len as usize];
            number(&mut bytes, self.sent);
            world.guest_write(place, &bytes);
            let cut = self.rng.within(17, len - 1);
            let send = Send {
                segments: if self.rng.chance(50) {
                    vec![(place, len as u16)]
                } else {
                    vec![(place, cut as u16), (place + cut, (len - cut) as u16)]
                },
                // Few, so that the NIC often has the context already.
                vlan: self.rng.chance(60).then_some(5 + self.rng.below(2) as u16),
                ..Send::default()
            };
            if !self.tx.send(world, &send) {
                break;
            }
            let descs = send.segments.len() as u64;
            self.expected
                .push_back((self.sent, send.expected(world), descs));
            self.sent += 1;
        }
        // Sometimes the tail is told when only half a packet is there.
        let back = u32::from(self.sent != before && self.rng.chance(20));
        let tail = (self.tx.tail() + 64 - back) % 64;
        self.bench.write(TX + TAIL, tail);
    }

    fn post(&mut self) {
        let offset = self.rng.below(64) * 2;
        let place = |i: u16| (RX_BUFFERS + u64::from(i) * RX_STEP + offset, 0);
        self.rx.fill(&mut self.bench.world.borrow_mut(), place);
        self.bench.write(RX + TAIL, self.rx.tail());
    }

    fn arrive(&mut self, count: u64) {
        for _ in 0..count {
            let world = &mut self.bench.world.borrow_mut();
            if world.rx_backlog() > 60 {
                break;
            }
            let mut bytes = vec![self.arrived as u8; self.rng.within(60, 5000) as usize];
            number(&mut bytes, self.arrived);
            world.nic_rx_arrives(&bytes, None);
            self.arriving.push_back(Received { bytes, vlan: None });
            self.arrived += 1;
        }
    }

    /// The wire and the guest take what is there; nothing comes twice, out of order or changed.
    fn collect(&mut self) -> Result<(), TestCaseError> {
        let world = &mut self.bench.world.borrow_mut();
        for packet in std::mem::take(&mut world.wire) {
            loop {
                let next = self.expected.pop_front();
                let (_, expected, descs) = next.expect("a packet came from nowhere, or twice");
                if packet == expected {
                    break;
                }
                self.skipped += descs;
            }
            self.on_wire += 1;
        }
        self.cleaned += self.tx.clean(world) as u64;
        for packet in self.rx.poll(world) {
            loop {
                let next = self.arriving.pop_front();
                if packet == next.expect("a packet came from nowhere, or twice") {
                    break;
                }
            }
            self.received += 1;
        }
        Ok(())
    }

    fn nic(&mut self, most: u64) {
        let world = &mut self.bench.world.borrow_mut();
        world.nic_tx_fetch(self.rng.below(most) as u16);
        world.nic_tx_write_back(self.rng.below(most) as u16);
        world.nic_rx_fill(self.rng.below(most) as u16);
    }

    fn switch(&mut self, strategy: Strategy) {
        let before = self.bench.slice.map_stats();
        let result = self.bench.slice.set_strategy(strategy, self.bench.now_ns);
        assert_eq!(result, Ok(()));
        assert_eq!(self.bench.slice.strategy(), strategy);
        assert!(self.bench.slice.map_stats().unpins >= before.unpins);
        let world = self.bench.world.borrow();
        world.check_live();
        if strategy.copies() {
            assert_eq!(world.nic_pinned(), 0, "on return, not some time later");
        }
    }

    fn step(&mut self, strategies: &[Strategy]) -> Result<(), TestCaseError> {
        let some = self.rng.below(12);
        match self.rng.below(100) {
            0..=24 => self.send(some),
            25..=39 => self.post(),
            40..=54 => self.arrive(some),
            55..=69 => self.nic(40),
            70..=92 => drop(self.bench.poll()),
            93..=96 => self.collect()?,
            _ => {
                let strategy = self.rng.pick(strategies);
                self.switch(strategy);
            }
        }
        Ok(())
    }

    /// Everything comes to rest.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..40 {
            self.bench.write(TX + TAIL, self.tx.tail());
            self.post();
            self.bench.poll();
            self.bench.nic_runs();
            self.bench.poll();
            self.collect()?;
        }
        prop_assert_eq!(self.tx.in_flight(), 0, "the guest has its buffers back");
        prop_assert_eq!(self.bench.slice.state(), State::Running);
        let stats = self.bench.slice.stats();
        prop_assert_eq!(stats.faults(), 0);
        self.skipped += self
            .expected
            .drain(..)
            .map(|(_, _, descs)| descs)
            .sum::<u64>();
        prop_assert_eq!(self.skipped, stats.tx.abandoned, "lost packets are counted");
        prop_assert_eq!(stats.tx.packets, self.on_wire);
        prop_assert_eq!(self.cleaned, self.sent);
        for s in [&stats.tx, &stats.rx] {
            let sum = s.contexts + s.posted + s.dropped + s.filtered + s.faulted;
            prop_assert_eq!(s.taken, sum, "{:?}", s);
        }
        let missed = self.bench.world.borrow().missed;
        prop_assert_eq!(self.received + missed, self.arrived);
        let damaged = self.rx.damaged.unwrap_or(0);
        prop_assert!(damaged <= missed);
        prop_assert_eq!(stats.rx.errors, damaged);
        Ok(())
    }
}

fn run(
    seed: u64,
    steps: u32,
    drains: bool,
    strategies: &[Strategy],
) -> Result<Traffic, TestCaseError> {
    let mut traffic = Traffic::new(seed);
    traffic.bench.world.borrow_mut().drains = drains;
    for _ in 0..steps {
        traffic.step(strategies)?;
    }
    traffic.settle()?;
    Ok(traffic)
}

const BY_NIC: [Strategy; 4] = [
    Strategy::SingleUse,
    Strategy::Shared,
    Strategy::Persistent,
    Strategy::DirectMap,
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_packet_arrives_once_or_is_counted(seed: u64, drains in any::<bool>()) {
        let traffic = run(seed, 1500, drains, &Strategy::ALL)?;
        if drains {
            // The link is up: what was handed over leaves.
            prop_assert_eq!(traffic.on_wire, traffic.sent);
        }
        traffic.bench.close();
    }

    #[test]
    fn without_copies_nothing_is_lost(seed: u64) {
        let traffic = run(seed, 1500, false, &BY_NIC)?;
        prop_assert_eq!(traffic.on_wire, traffic.sent);
        prop_assert_eq!(traffic.received, traffic.arrived);
        let stats = traffic.bench.slice.stats();
        prop_assert_eq!((stats.tx.abandoned, stats.rx.abandoned), (0, 0));
        prop_assert_eq!(traffic.bench.world.borrow().missed, 0);
        traffic.bench.close();
    }
}

#[test]
fn losses_and_ends_do_occur() {
    let (mut lost, mut missed, mut damaged, mut sent) = (0, 0, 0, 0);
    for seed in 0..30 {
        let traffic = run(seed, 1500, false, &Strategy::ALL).unwrap();
        sent += traffic.sent;
        lost += traffic.sent - traffic.on_wire;
        missed += traffic.arrived - traffic.received;
        damaged += traffic.rx.damaged.unwrap();
    }
    println!("{sent} sent, {lost} lost with the link down; {missed} missed, {damaged} of them cut");
    assert!(sent > 10_000 && lost > 100 && missed > 100 && damaged > 10);
}

#[test]
fn without_memory_for_copies_nothing_changes() {
    let mut t = Traffic::new(5);
    t.bench.world.borrow_mut().no_memory = true;
    let now_ns = t.bench.now_ns;
    assert_eq!(
        t.bench.slice.set_strategy(Strategy::Copy, now_ns),
        Err(NoMemory)
    );
    assert_eq!(t.bench.slice.strategy(), Strategy::Persistent);
    t.post();
    t.send(10);
    t.arrive(10);
    t.settle().unwrap();
    assert_eq!((t.on_wire, t.received), (t.sent, t.arrived));
    let hardware = t.bench.slice.close(9).unwrap();
    assert_eq!(
        t.bench.slice.set_strategy(Strategy::Copy, 9),
        Ok(()),
        "closed"
    );
    let refused = t.bench.slice.open(hardware);
    assert!(matches!(refused, Err((OpenError::NoMemory, _))));
    t.bench.world.borrow_mut().no_memory = false;
    assert!(t.bench.slice.open(refused.err().unwrap().1).is_ok());
    assert_eq!(t.bench.slice.strategy(), Strategy::Copy);
    t.bench.close();
}

#[test]
fn a_queue_that_does_not_stop_for_the_change() {
    for (dir, queue) in [(Dir::Rx, Queue::Rx), (Dir::Tx, Queue::Tx)] {
        let mut t = Traffic::new(6);
        t.post();
        t.send(20);
        t.bench.poll();
        t.bench.world.borrow_mut().set_stuck(dir, true);
        t.switch_despite_stuck(Strategy::Copy);
        let State::Faulted(stopped) = t.bench.slice.state() else {
            panic!("{:?}", t.bench.slice.state());
        };
        assert_eq!(stopped.queue, queue);
        assert!(matches!(stopped.reason, StopReason::Hardware(_)));
        let leaked = t.bench.slice.map_stats().leaked;
        assert!(leaked != 0);
        assert_eq!(t.bench.world.borrow().nic_pinned(), leaked);
        t.bench.poll();
        t.bench.slice.close(9);
        t.bench.world.borrow().check_live();
        assert_eq!(t.bench.world.borrow().pinned(), leaked);
    }
}

impl Traffic {
    fn switch_despite_stuck(&mut self, strategy: Strategy) {
        let result = self.bench.slice.set_strategy(strategy, self.bench.now_ns);
        assert_eq!(result, Ok(()));
        self.bench.world.borrow().check_live();
    }
}

/// Counts for the same traffic: 2000 packets each way of up to 1514 bytes, in 64 buffers each way
/// of 2 KiB, two to a page, as a Linux guest has them.
fn cost(strategy: Strategy) -> (MapStats, u64) {
    let mut b = Bench::new(7);
    b.bring_up();
    b.slice.set_strategy(strategy, 1).unwrap();
    let mut tx = GuestTx::new(TX_RING, 64);
    let mut rx = GuestRx::new(RX_RING, 64, 2048, 0);
    for round in 0..125u64 {
        for i in 0..16 {
            let at = BUFFERS + (round * 16 + i) % 64 * 2048;
            let send = Send {
                segments: vec![(at, 1514)],
                ..Send::default()
            };
            assert!(tx.send(&mut b.world.borrow_mut(), &send));
            b.world.borrow_mut().nic_rx_arrives(&[2; 1514], None);
        }
        let place = |i: u16| (BUFFERS + 0x4_0000 + u64::from(i) * 2048, 0);
        rx.fill(&mut b.world.borrow_mut(), place);
        b.write(TX + TAIL, tx.tail());
        b.write(RX + TAIL, rx.tail());
        b.poll();
        b.nic_runs();
        b.poll();
        assert_eq!(tx.clean(&mut b.world.borrow_mut()), 16);
        assert_eq!(rx.poll(&b.world.borrow()).len(), 16);
        b.world.borrow_mut().wire.clear();
    }
    let stats = b.slice.stats().clone();
    assert_eq!((stats.tx.packets, stats.rx.packets), (2000, 2000));
    let maps = b.slice.map_stats();
    b.close();
    (maps, stats.tx.copied_bytes + stats.rx.copied_bytes)
}

#[test]
fn what_each_strategy_costs() {
    println!("strategy    pins unpins  hits misses pinned most  copied, of 2000 packets each way");
    let all = Strategy::ALL.map(|strategy| {
        let (m, copied) = cost(strategy);
        println!(
            "{:<10} {:>5} {:>6} {:>5} {:>6} {:>6} {:>4} {:>7}",
            strategy.name(),
            m.pins,
            m.unpins,
            m.hits,
            m.misses,
            m.pinned,
            m.pinned_most,
            copied
        );
        (m, copied)
    });
    let [single, shared, persistent, direct, copy] = all;
    // One for each packet and buffer, as neither crosses a page; 47 buffers are still posted.
    let uses = 2000 + 2000 + 47;
    assert_eq!((single.0.pins, single.0.pinned), (uses, 47));
    for (m, copied) in [single, shared, persistent, direct] {
        assert_eq!((m.hits + m.misses, copied), (uses, 0));
    }
    assert!(single.0.pins > shared.0.pins && shared.0.pins > 20 * persistent.0.pins);
    assert_eq!((persistent.0.pins, persistent.0.unpins), (64, 0));
    assert_eq!(persistent.0, direct.0);
    assert_eq!((copy.0.pins, copy.1), (64, 4000 * 1514));
}
