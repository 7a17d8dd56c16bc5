// SPDX-License-Identifier: GPL-2.0

//! A slice whose guest has huge pages: what is pinned, for how long, and what it cost.

use crate::sim::bench::*;
use crate::sim::guest::{
    GuestRx,
    GuestTx,
    Send, //
};
use crate::sim::SimMachine;
use sluice_core::addr::GRANULE_PAGES;
use sluice_core::map::Strategy;
use sluice_core::slice::*;

const GRANULE: u64 = GRANULE_PAGES as u64;
/// The second granule, for what is received, and the third, for what is sent.
const RX_AREA: u64 = GRANULE << 12;
const TX_AREA: u64 = 2 * GRANULE << 12;

struct Traffic {
    b: Bench,
    tx: GuestTx,
    rx: GuestRx,
    next: u64,
}

impl Traffic {
    fn new() -> Self {
        let builder = SimMachine::builder().huge_percent(100);
        let policy = Policy {
            check_source: false,
            ..Policy::default()
        };
        let mut b = Bench::with_memory(3, policy, builder, (4 * GRANULE, 2048));
        b.bring_up();
        Self {
            b,
            tx: GuestTx::new(TX_RING, 64),
            rx: GuestRx::new(RX_RING, 64, 2048, 0),
            next: 0,
        }
    }

    /// Sixteen packets each way, in buffers that move through their granules.
    fn round(&mut self) {
        let Self { b, tx, rx, next } = self;
        for _ in 0..16 {
            let at = TX_AREA + *next * 4096 % (GRANULE << 12);
            let bytes: Vec<u8> = (0..1514).map(|i| (i + *next) as u8).collect();
            b.world.borrow_mut().guest_write(at, &bytes);
            let send = Send {
                segments: vec![(at, 1514)],
                ..Send::default()
            };
            assert!(tx.send(&mut b.world.borrow_mut(), &send));
            b.world.borrow_mut().nic_rx_arrives(&bytes, None);
            *next += 1;
        }
        let base = *next;
        let place = |i: u16| (RX_AREA + (base + u64::from(i)) % GRANULE * 4096, 0);
        rx.fill(&mut b.world.borrow_mut(), place);
        b.write(TX + TAIL, tx.tail());
        b.write(RX + TAIL, rx.tail());
        b.poll();
        b.nic_runs();
        b.poll();
        assert_eq!(tx.clean(&mut b.world.borrow_mut()), 16);
        let received = rx.poll(&b.world.borrow());
        let sent = std::mem::take(&mut b.world.borrow_mut().wire);
        assert_eq!((received.len(), sent.len()), (16, 16));
        for (received, sent) in received.iter().zip(sent) {
            assert_eq!(received.bytes, sent.bytes);
        }
    }

    fn pin_time_is_right(&self) {
        let spent_ns = self.b.world.borrow().spent_ns;
        assert_eq!(self.b.slice.map_stats().pin_time_ns, spent_ns);
    }
}

#[test]
fn packets_go_through_granules() {
    let mut t = Traffic::new();
    for _ in 0..100 {
        t.round();
    }
    let stats = t.b.slice.map_stats();
    // Three pages of each area before it is pinned as one; then nothing more.
    assert_eq!((stats.granules, stats.misses), (2, 8));
    assert_eq!((stats.pins, stats.unpins), (2 * (3 + GRANULE), 0));
    assert_eq!(u64::from(stats.pinned), stats.pins);
    t.pin_time_is_right();
    t.b.close();
}

#[test]
fn any_page_of_a_granule_in_flight_stops_its_queue() {
    for page in [0, 400, 511] {
        let mut t = Traffic::new();
        t.round();
        // No buffer is there. The neighbours' granules are idle, or not touched.
        t.b.unmap(page, 1);
        let ring = [TX_RING, RX_RING].contains(&(page << 12));
        assert_eq!(ring, t.b.slice.state() != State::Running);
        t.b.unmap(2 * GRANULE + page, 1);
        assert_eq!(t.b.slice.state(), State::Running);
        assert_eq!(t.b.slice.map_stats().granules, 1);
        t.b.unmap(GRANULE + page, 1);
        assert!(
            matches!(t.b.slice.state(), State::Faulted(s) if s.reason == StopReason::MemoryRemoved)
        );
        assert_eq!(t.b.slice.map_stats().granules, 0);
        assert_eq!(t.b.read(RX + DCTL) & ENABLE, 0);
        assert_eq!(t.b.read(TX + DCTL) & ENABLE, ENABLE, "sending goes on");
        t.b.nic_runs();
        t.b.world.borrow().check_canaries();
        t.pin_time_is_right();
        t.b.close();
    }
}

#[test]
fn time_spent_in_pinning_is_counted() {
    let mut t = Traffic::new();
    for strategy in Strategy::ALL {
        let now_ns = t.b.now_ns;
        assert_eq!(t.b.slice.set_strategy(strategy, now_ns), Ok(()));
        t.round();
        t.pin_time_is_right();
    }
    // A hit costs none.
    let now_ns = t.b.now_ns;
    assert_eq!(t.b.slice.set_strategy(Strategy::Persistent, now_ns), Ok(()));
    for _ in 0..4 {
        t.round();
    }
    let before = t.b.slice.map_stats();
    for _ in 0..40 {
        t.round();
    }
    let after = t.b.slice.map_stats();
    assert!(after.hits > before.hits);
    assert_eq!(after.pin_time_ns, before.pin_time_ns);
    // It is the slice's, whoever has it open.
    let hardware = t.b.slice.close(t.b.now_ns).expect("it was open");
    t.pin_time_is_right();
    assert!(t.b.slice.map_stats().pin_time_ns > after.pin_time_ns);
    t.b.world.borrow_mut().spent_ns = 0;
    let before = t.b.slice.map_stats().pin_time_ns;
    assert!(t.b.slice.open(hardware).is_ok());
    t.b.bring_up();
    let spent_ns = t.b.world.borrow().spent_ns;
    assert!(spent_ns != 0);
    assert_eq!(t.b.slice.map_stats().pin_time_ns, before + spent_ns);
    t.b.close();
}
