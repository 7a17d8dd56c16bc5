// SPDX-License-Identifier: GPL-2.0

//! A whole slice: a driver (and a vandal) on its registers, a simulated NIC behind it.

use crate::sim::bench::*;
use crate::sim::guest::{
    GuestRx,
    GuestTx,
    Send, //
};
use crate::sim::nic::{
    Dir,
    WirePacket, //
};
use crate::sim::rng::Rng;
use crate::sim::Shared;
use proptest::prelude::{
    proptest,
    ProptestConfig, //
};
use sluice_core::addr::GuestAddr;
use sluice_core::check::Rejection;
use sluice_core::map::Strategy;
use sluice_core::slice::*;
use sluice_core::vf::{
    Queue,
    Width, //
};

fn sends(len: u16) -> Send {
    Send {
        segments: vec![(BUFFERS, len)],
        ..Send::default()
    }
}

#[test]
fn packets_go_both_ways() {
    let mut b = Bench::new(3);
    b.bring_up();
    assert_eq!(b.read(STATUS) & 2, 2, "link");
    let mut tx = GuestTx::new(TX_RING, 64);
    let mut rx = GuestRx::new(RX_RING, 64, 2048, 0);
    let fill = |rx: &mut GuestRx, world: &Shared| {
        let place = |i: u16| (BUFFERS + 0x1000 + u64::from(i) * 0x1080, 0);
        rx.fill(&mut world.borrow_mut(), place);
    };
    fill(&mut rx, &b.world);
    b.write(RX + TAIL, rx.tail());
    assert!(b.slice.take_kick());
    for round in 0..500u16 {
        let send = sends(60 + round);
        b.world
            .borrow_mut()
            .guest_write(BUFFERS, &[round as u8; 600]);
        assert!(tx.send(&mut b.world.borrow_mut(), &send));
        let expected = send.expected(&b.world.borrow());
        b.write(TX + TAIL, tx.tail());
        b.poll();
        b.world
            .borrow_mut()
            .nic_rx_arrives(&[round as u8; 100], None);
        b.nic_runs();
        b.poll();
        assert_eq!(tx.clean(&mut b.world.borrow_mut()), 1);
        let wire: Vec<WirePacket> = b.world.borrow_mut().wire.drain(..).collect();
        assert_eq!(wire, [expected]);
        let received = rx.poll(&b.world.borrow());
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].bytes, [round as u8; 100]);
        fill(&mut rx, &b.world);
        b.write(RX + TAIL, rx.tail());
    }
    let stats = b.slice.stats();
    assert_eq!((stats.tx.packets, stats.rx.packets), (500, 500));
    assert_eq!(b.read(0x0F10), 500, "VFGPRC");
    assert_eq!(b.slice.stats().faults(), 0);
    let maps = b.slice.map_stats();
    assert!(maps.hits > 2 * maps.misses, "reuse: {maps:?}");
    b.close();
}

#[test]
fn a_fault_stops_one_queue_until_reset() {
    let mut b = Bench::new(4);
    b.bring_up();
    let mut tx = GuestTx::new(TX_RING, 64);
    let bad = Send {
        segments: vec![(0xFEE0_0000, 60)],
        ..Send::default()
    };
    tx.send(&mut b.world.borrow_mut(), &bad);
    b.write(TX + TAIL, tx.tail());
    b.poll();
    let State::Faulted(stopped) = b.slice.state() else {
        panic!("{:?}", b.slice.state());
    };
    assert_eq!(stopped.queue, Queue::Tx);
    assert!(matches!(stopped.reason, StopReason::Fault(f) if f.rejection == Rejection::NotMemory));
    assert_eq!(b.slice.take_report(), Some(stopped));
    assert_eq!(b.slice.take_report(), None);
    assert_eq!(b.slice.stats().rejected(Rejection::NotMemory), 1);
    assert_eq!(b.read(TX + DCTL) & ENABLE, 0);
    assert_eq!(b.read(RX + DCTL) & ENABLE, ENABLE, "reception goes on");
    b.bring_up();
    assert!(b.slice.stats().rejected(Rejection::NotMemory) == 1);
    b.close();
}

#[test]
fn memory_goes_away_under_live_buffers_and_rings() {
    for seed in 0..20 {
        let mut b = Bench::new(seed);
        b.bring_up();
        let mut rx = GuestRx::new(RX_RING, 64, 2048, 0);
        let place = |i: u16| (BUFFERS + u64::from(i) * 0x1000, 0);
        rx.fill(&mut b.world.borrow_mut(), place);
        b.write(RX + TAIL, rx.tail());
        b.poll();
        // The ring's page, a buffer's page, or all there is.
        match seed % 3 {
            0 => b.unmap(RX_RING >> 12, 1),
            1 => b.unmap((BUFFERS >> 12) + 7, 1),
            _ => b.unmap(0, PAGES),
        }
        assert!(
            matches!(b.slice.state(), State::Faulted(s) if s.reason == StopReason::MemoryRemoved),
            "{:?}",
            b.slice.state()
        );
        for _ in 0..100 {
            b.world.borrow_mut().nic_rx_arrives(&[0xAA; 1500], None);
        }
        b.nic_runs();
        b.world.borrow().check_canaries();
        b.close();
    }
}

/// A queue that has nothing where memory goes away goes on.
#[test]
fn memory_that_goes_away_stops_those_that_use_it() {
    let receive = BUFFERS + 0x1000;
    for (gone, stops, goes_on) in [(BUFFERS, TX, RX), (receive, RX, TX)] {
        let mut b = Bench::new(11);
        b.bring_up();
        let mut tx = GuestTx::new(TX_RING, 64);
        let mut rx = GuestRx::new(RX_RING, 64, 2048, 0);
        rx.fill(&mut b.world.borrow_mut(), |_| (receive, 0));
        b.write(RX + TAIL, rx.tail());
        assert!(tx.send(&mut b.world.borrow_mut(), &sends(1500)));
        b.write(TX + TAIL, tx.tail());
        b.poll();
        b.unmap(gone >> 12, 1);
        assert_eq!(b.read(stops + DCTL) & ENABLE, 0);
        assert_eq!(b.read(goes_on + DCTL) & ENABLE, ENABLE);
        b.close();
    }
}

#[test]
fn unmapping_everything_takes_bounded_steps() {
    let mut b = Bench::new(9);
    b.bring_up();
    b.slice.dma_unmap(GuestAddr::new(0), u64::MAX, 1);
    assert_eq!(b.world.borrow().pinned(), 0);
    b.close();
}

#[test]
fn rings_may_not_overlap() {
    let mut b = Bench::new(5);
    b.master(true);
    b.enable_tx();
    b.ring(RX, TX_RING, RING_LEN);
    b.write(RX + SRRCTL, ONE_BUFFER_2K);
    b.write(RX + DCTL, ENABLE);
    assert_eq!(b.read(RX + DCTL) & ENABLE, 0);
    assert_eq!(b.slice.stats().rejected(Rejection::RingsOverlap), 1);
    b.close();
}

/// A ring that is memory, but more than the VMM may lock, is told from one that is none.
#[test]
fn a_ring_beyond_the_limit_says_so() {
    let mut b = Bench::new(5);
    b.master(true);
    b.world.borrow_mut().memlock_pages = 0;
    b.enable_tx();
    assert_eq!(b.read(TX + DCTL) & ENABLE, 0);
    assert_eq!(b.slice.stats().rejected(Rejection::PinLimit), 1);
    assert_eq!(b.slice.stats().rejected(Rejection::RingNotMemory), 0);
    b.close();
}

#[test]
fn without_bus_master_nothing_moves() {
    let mut b = Bench::new(7);
    b.bring_up();
    let mut tx = GuestTx::new(TX_RING, 64);
    tx.send(&mut b.world.borrow_mut(), &sends(60));
    b.master(false);
    b.write(TX + TAIL, tx.tail());
    b.poll();
    b.nic_runs();
    assert!(b.world.borrow().wire.is_empty());
    assert_eq!(b.read(TX + DCTL) & ENABLE, 0);
    b.close();
}

/// The guest's CPU does not stand still while the NIC is waited for: a queue that it has disabled
/// takes nothing more, and says that it is at rest when it is.
#[test]
fn a_queue_is_disabled_without_waiting() {
    let mut b = Bench::new(9);
    b.bring_up();
    let mut tx = GuestTx::new(TX_RING, 64);
    assert!(tx.send(&mut b.world.borrow_mut(), &sends(60)));
    b.write(TX + TAIL, tx.tail());
    b.poll();
    // The NIC does not let go of the queue for now: nobody may notice who does not wait.
    b.world.borrow_mut().set_stuck(Dir::Tx, true);
    b.slice.take_kick();
    b.write(TX + DCTL, 0);
    assert!(b.slice.take_kick());
    assert_eq!(b.slice.state(), State::Running);
    assert!(tx.send(&mut b.world.borrow_mut(), &sends(61)));
    b.write(TX + TAIL, tx.tail());
    for _ in 0..3 {
        assert!(b.slice.poll_hastily(b.now_ns, 64).stop_wanted);
        assert_eq!(b.read(TX + DCTL) & ENABLE, ENABLE);
    }
    assert_eq!(b.slice.state(), State::Running);
    assert_eq!(b.slice.stats().tx.taken, 1);
    b.world.borrow_mut().set_stuck(Dir::Tx, false);
    b.poll();
    assert_eq!(b.read(TX + DCTL) & ENABLE, 0);
    assert!(!b.slice.poll_hastily(b.now_ns, 64).stop_wanted);
    b.close();
}

/// Setting it up anew, or enabling it, without having waited, waits.
#[test]
fn a_driver_that_does_not_wait_finds_its_queue_at_rest() {
    for register in [BAL, DCTL] {
        let mut b = Bench::new(10);
        b.bring_up();
        b.write(TX + DCTL, 0);
        b.write(RX + DCTL, 0);
        b.write(RX + TAIL, 0);
        assert_eq!(b.read(RX + DCTL) & ENABLE, ENABLE);
        b.write(RX + register, ENABLE);
        let on = if register == DCTL { ENABLE } else { 0 };
        assert_eq!(b.read(RX + DCTL) & ENABLE, on);
        assert_eq!(b.read(TX + DCTL) & ENABLE, ENABLE);
        b.close();
    }
}

/// The guest asked for it before the VMM did.
#[test]
fn a_disabled_queue_that_loses_its_memory_is_no_failure() {
    let mut b = Bench::new(10);
    b.bring_up();
    let mut rx = GuestRx::new(RX_RING, 64, 2048, 0);
    rx.fill(&mut b.world.borrow_mut(), |i| {
        (BUFFERS + u64::from(i) * 0x1000, 0)
    });
    b.write(RX + TAIL, rx.tail());
    b.poll();
    // One for its buffers, the other for its ring.
    b.write(RX + DCTL, 0);
    b.write(TX + DCTL, 0);
    b.unmap(BUFFERS >> 12, 1);
    b.unmap(TX_RING >> 12, 1);
    assert_eq!(b.slice.state(), State::Open);
    assert_eq!(b.slice.take_report(), None);
    for queue in [RX, TX] {
        assert_eq!(b.read(queue + DCTL) & ENABLE, 0);
    }
    b.close();
}

#[test]
fn a_stuck_queue_keeps_its_pins() {
    let mut b = Bench::new(8);
    b.bring_up();
    let mut rx = GuestRx::new(RX_RING, 64, 2048, 0);
    let place = |i: u16| (BUFFERS + u64::from(i) * 0x1000, 0);
    rx.fill(&mut b.world.borrow_mut(), place);
    b.write(RX + TAIL, rx.tail());
    b.poll();
    b.world.borrow_mut().set_stuck(Dir::Rx, true);
    b.disable(RX);
    assert!(matches!(
        b.slice.state(),
        State::Faulted(Stopped {
            reason: StopReason::Hardware(_),
            ..
        })
    ));
    let leaked = b.slice.map_stats().leaked;
    assert!(leaked >= 63, "{leaked}");
    b.slice.close(2);
    assert!(b.world.borrow().pinned() >= leaked);
    b.world.borrow().check_live();
}

/// One step of a guest that does anything, on a NIC that acts at any time.
fn vandalise(b: &mut Bench, rng: &mut Rng) {
    let block = rng.pick(&[TX, RX]);
    match rng.below(100) {
        0..=29 => {
            // Mostly plausible descriptors, sometimes noise.
            let base = if block == TX { TX_RING } else { RX_RING };
            let addr = match rng.below(10) {
                0 => rng.next(),
                1 => 0xFEE0_0000 + rng.below(4096),
                2 => (PAGES << 12) - rng.below(64),
                _ => BUFFERS + rng.below(0x10_0000),
            };
            let len = rng.within(17, 3000);
            let word = match rng.below(12) {
                0 => rng.next(),
                1..=3 if block == TX => len | 0x2 << 20 | rng.next() & !0xFFFF_FFFF,
                _ if block == TX => len | 0x2B << 24 | 0x3 << 20 | len << 46,
                _ => rng.next() & 0xFF_FFFE,
            };
            let at = base + rng.below(64) * 16;
            let mut world = b.world.borrow_mut();
            if world.is_mapped(at >> 12) {
                world.guest_write_desc(at, [addr, word]);
            }
        }
        30..=49 => {
            let tail = if rng.chance(2) {
                rng.next()
            } else {
                rng.below(64)
            };
            b.write(block + TAIL, tail as u32);
        }
        50..=69 => drop(b.poll()),
        70..=79 => {
            let mut world = b.world.borrow_mut();
            world.nic_tx_fetch(rng.below(8) as u16);
            world.nic_tx_write_back(rng.below(8) as u16);
        }
        80..=85 => {
            let mut world = b.world.borrow_mut();
            world.nic_rx_arrives(&vec![7; rng.within(60, 1522) as usize], None);
            world.nic_rx_fill(rng.below(8) as u16);
        }
        86..=88 => {
            let reg = rng.below(0x4000) as u32;
            b.write(reg & !3, rng.next() as u32);
        }
        89 => {
            let width = rng.pick(&[Width::Byte, Width::Word, Width::Dword]);
            let (offset, value) = (rng.below(4096) as u16, rng.next() as u32);
            b.slice.config_write(offset, width, value, b.now_ns);
            b.master(true);
        }
        90..=92 => {
            let pfn = rng.below(PAGES);
            if rng.chance(50) {
                b.unmap(pfn, rng.within(1, (PAGES - pfn).min(9)));
            } else {
                let mut world = b.world.borrow_mut();
                for pfn in pfn..PAGES.min(pfn + 64) {
                    world.map(pfn, true);
                }
            }
        }
        93..=96 => {
            let mut world = b.world.borrow_mut();
            for pfn in (0..PAGES).filter(|_| rng.chance(30)) {
                world.map(pfn, true);
            }
            drop(world);
            if block == TX {
                b.enable_tx();
            } else {
                b.enable_rx();
            }
        }
        97 if rng.chance(50) => b.write(block + DCTL, 0),
        97 => {
            let strategy = rng.pick(&Strategy::ALL);
            assert!(b.slice.set_strategy(strategy, b.now_ns).is_ok());
        }
        98 => b.write(CTRL, 1 << 26),
        _ => b.slice.reset(b.now_ns),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The simulated world panics at the first breach of invariants 1 to 4.
    #[test]
    fn a_vandal_breaks_nothing(seed: u64) {
        let mut rng = Rng::new(seed);
        let policy = Policy {
            check_source: seed % 2 == 0,
            ..Policy::default()
        };
        let mut b = Bench::with_policy(seed, policy);
        b.bring_up();
        for _ in 0..3000 {
            vandalise(&mut b, &mut rng);
            b.world.borrow().check_live();
        }
        b.world.borrow().check_canaries();
        // Whatever it did, a reset makes it whole.
        for pfn in 0..PAGES {
            b.world.borrow_mut().map(pfn, true);
        }
        b.slice.reset(b.now_ns);
        b.close();
    }
}

#[test]
fn receive_buffers_wake_the_worker_when_they_run_low() {
    let mut b = Bench::new(5);
    b.bring_up();
    let mut rx = GuestRx::new(RX_RING, 64, 2048, 0);
    let fill = |rx: &mut GuestRx, world: &Shared| {
        let place = |i: u16| (BUFFERS + 0x1000 + u64::from(i) * 0x1080, 0);
        rx.fill(&mut world.borrow_mut(), place);
    };
    fill(&mut rx, &b.world);
    b.write(RX + TAIL, rx.tail());
    assert!(b.slice.take_kick(), "the NIC has none yet");
    b.poll();
    let mut quiet = 0;
    for round in 0..500u16 {
        let burst = 1 + round % 50;
        for _ in 0..burst {
            b.world.borrow_mut().nic_rx_arrives(&[7; 100], None);
        }
        b.nic_runs();
        b.poll();
        assert_eq!(rx.poll(&b.world.borrow()).len(), usize::from(burst));
        fill(&mut rx, &b.world);
        b.write(RX + TAIL, rx.tail());
        let kicked = b.slice.take_kick();
        assert_eq!(kicked, burst > 15, "less than three quarters are left");
        if kicked {
            b.poll();
        } else {
            quiet += 1;
        }
    }
    assert!(quiet > 100);
    b.poll();
    b.write(RX + TAIL, rx.tail());
    assert!(!b.slice.take_kick());
    b.write(RX + TAIL, 64);
    assert!(b.slice.take_kick(), "a tail outside the ring is looked at");
    assert_eq!(
        b.slice.stats().rx.packets,
        (0..500u64).map(|r| 1 + r % 50).sum()
    );
    b.close();
}
