// SPDX-License-Identifier: GPL-2.0

//! Each call that can fail does so in turn, alone or with all that follow: in a slice's whole life, under each
//! strategy. Nothing breaks then, nothing is left, and the slice works again after a reset, for this
//! owner and the next.

use crate::sim::bench::*;
use crate::sim::faults::{
    arm,
    disarm,
    Fault,
    HowMany, //
};
use crate::sim::guest::{
    GuestRx,
    GuestTx,
    Send, //
};
use crate::sim::SimMachine;
use sluice_core::map::Strategy;
use sluice_core::platform::{
    NoGranule,
    PinError, //
};
use sluice_core::slice::*;

const PACKETS: u64 = 8;

/// Rings in two pages each.
const TX_AT: u64 = 0x1e00;
const RX_AT: u64 = 0x3e00;
/// Receive buffers, two to a page, from this page on.
const RX_PFN: u64 = 0x80;
const RX_PAGES: u64 = 32;

fn enable(b: &mut Bench) {
    b.ring(TX, TX_AT, RING_LEN);
    b.write(TX + DCTL, ENABLE);
    b.ring(RX, RX_AT, RING_LEN);
    b.write(RX + SRRCTL, ONE_BUFFER_2K);
    b.write(RX + DCTL, ENABLE);
}

/// As far as it goes.
fn bring_up(b: &mut Bench) {
    b.master(true);
    b.write(CTRL, 1 << 26);
    // As igbvf: reset, a multicast address, a VLAN, frames of that length.
    for words in [&[1][..], &[3 | 1 << 16, 5], &[4 | 1 << 16, 7], &[5, 1522]] {
        b.request(words);
    }
    enable(b);
}

/// Packets of two pages, with a copied header.
fn send(b: &mut Bench, tx: &mut GuestTx) {
    for i in 0..PACKETS {
        let at = BUFFERS + i * 0x2000;
        let mut bytes = [i as u8; 1400];
        bytes[6..12].copy_from_slice(&MAC.bytes());
        bytes[12..14].copy_from_slice(&[8, 0]);
        b.world.borrow_mut().guest_write(at + 0xc00, &bytes);
        let send = Send {
            segments: vec![(at + 0xc00, 200), (at + 0xcc8, 1200)],
            ..Send::default()
        };
        assert!(tx.send(&mut b.world.borrow_mut(), &send));
    }
    b.write(TX + TAIL, tx.tail());
}

/// Packets out, and packets in; how many of each came.
fn traffic(b: &mut Bench) -> (usize, usize) {
    let mut tx = GuestTx::new(TX_AT, 64);
    let mut rx = GuestRx::new(RX_AT, 64, 2048, 0);
    send(b, &mut tx);
    let place = |i: u16| ((RX_PFN << 12) + u64::from(i) * 2048, 0);
    rx.fill(&mut b.world.borrow_mut(), place);
    b.write(RX + TAIL, rx.tail());
    for i in 0..PACKETS {
        b.world.borrow_mut().nic_rx_arrives(&[i as u8; 900], None);
    }
    let (mut out, mut into) = (0, 0);
    for _ in 0..4 {
        b.poll();
        b.nic_runs();
        b.poll();
        out += tx.clean(&mut b.world.borrow_mut());
        into += rx.poll(&b.world.borrow()).len();
    }
    (out, into)
}

/// The VMM takes a piece of guest memory away, and maps it again.
fn remap(b: &mut Bench, pfn: u64, pages: u64) {
    let start = sluice_core::addr::GuestAddr::new(pfn << 12);
    b.slice.dma_unmap(start, pages << 12, b.now_ns);
    let leaked = b.slice.map_stats().leaked != 0;
    let mut world = b.world.borrow_mut();
    for pfn in pfn..pfn + pages {
        world.unmap(pfn, leaked);
        world.map(pfn, true);
    }
    world.check_live();
}

/// What a slice goes through; none of it need work.
fn events(b: &mut Bench, strategy: Strategy) {
    bring_up(b);
    traffic(b);
    // Under way: other mappings, other owners' pages, queues that stop and start.
    let other = if strategy.copies() {
        Strategy::Shared
    } else {
        Strategy::Copy
    };
    for next in [other, strategy] {
        let before = b.slice.strategy();
        if b.slice.set_strategy(next, b.now_ns).is_err() {
            assert_eq!(b.slice.strategy(), before, "refused, but done");
        }
        traffic(b);
    }
    remap(b, RX_PFN, RX_PAGES / 2);
    b.disable(RX);
    b.disable(TX);
    enable(b);
    traffic(b);
    remap(b, (TX_AT >> 12) + 1, 1);
    b.write(CTRL, 1 << 26);
    bring_up(b);
    traffic(b);
    b.slice.reset(b.now_ns);
}

fn works(b: &mut Bench) {
    b.slice.reset(b.now_ns);
    b.world.borrow_mut().wire.clear();
    bring_up(b);
    assert_eq!(b.slice.state(), State::Running);
    assert_eq!(traffic(b), (PACKETS as usize, PACKETS as usize));
    assert_eq!(b.world.borrow().wire.len(), PACKETS as usize);
    for (i, packet) in b.world.borrow().wire.iter().enumerate() {
        assert_eq!((packet.bytes.len(), packet.bytes[1000]), (1400, i as u8));
    }
}

/// A slice's life in which the `n`-th such call fails, or all do from there on; whether there was one.
fn life(strategy: Strategy, fault: Fault, n: u64, how_many: HowMany) -> bool {
    let builder = SimMachine::builder().seed(7).huge_percent(100);
    let sim = builder.guest_pages(PAGES + 200).bounce(0, 1).build();
    let (world, hardware) = sim.into_hardware(2 * MAP_PAGES);
    let mut slice = Slice::new(MAC);
    assert_eq!(slice.set_strategy(strategy, 0), Ok(()));
    arm(fault, n, how_many);
    let mut failed = 0;
    if let Err((error, hardware)) = slice.open(hardware) {
        failed = disarm();
        assert_eq!(error, OpenError::NoMemory);
        assert_eq!((slice.state(), world.borrow().pinned()), (State::Closed, 0));
        assert!(slice.open(hardware).is_ok(), "the next attempt works");
    }
    let mut b = Bench {
        world,
        slice,
        now_ns: 1,
    };
    events(&mut b, strategy);
    failed += disarm();

    works(&mut b);
    let hardware = b.slice.close(b.now_ns).expect("it is open");
    let leaked = b.slice.map_stats().leaked;
    assert!(leaked == 0 || fault == Fault::Stop);
    assert_eq!(b.world.borrow().pinned(), leaked);
    // Pages that the NIC may still use stay pinned, and are nobody else's.
    b.world.borrow().check_live();
    b.world.borrow().check_canaries();
    assert!(b.slice.open(hardware).is_ok());
    works(&mut b);
    b.slice.close(b.now_ns);
    assert_eq!(b.world.borrow().pinned(), leaked);
    failed != 0
}

/// Has every `step`-th call of the kind fail, under every strategy. There are at least so many under one of them.
fn sweep(fault: Fault, step: usize, least: u64) {
    for how_many in [HowMany::One, HowMany::All] {
        let lives = |strategy| {
            let mut all = (0..).step_by(step);
            all.find(|n| !life(strategy, fault, *n, how_many))
                .unwrap_or(0)
        };
        let counts = Strategy::ALL.map(lives);
        println!("{fault:?}, {how_many:?}, each {step}-th: {counts:?} calls");
        assert!(counts.iter().any(|count| *count >= least));
    }
}

/// A packet that is put off again and again takes no more host buffers than one that is not.
#[test]
fn what_is_put_off_keeps_nothing() {
    for strategy in Strategy::ALL {
        let mut b = Bench::with_policy(9, Policy::default());
        assert_eq!(b.slice.set_strategy(strategy, 0), Ok(()));
        bring_up(&mut b);
        // The CPU has the first page, for the headers; the NIC has none.
        arm(Fault::Pin(PinError::Later), 1, HowMany::All);
        let mut tx = GuestTx::new(TX_AT, 64);
        send(&mut b, &mut tx);
        for _ in 0..1000 {
            b.poll();
        }
        assert!(disarm() >= 1000);
        assert!(strategy.copies() || b.slice.stats().tx.posted == 0);
        for _ in 0..4 {
            b.poll();
            b.nic_runs();
        }
        b.poll();
        assert_eq!(tx.clean(&mut b.world.borrow_mut()), PACKETS as usize);
        b.close();
    }
}

#[test]
fn allocations() {
    sweep(Fault::Alloc, 1, 8);
}

#[test]
fn pins_of_what_is_no_memory() {
    sweep(Fault::Pin(PinError::NotMapped), 1, 150);
}

#[test]
fn pins_that_are_denied() {
    sweep(Fault::Pin(PinError::Denied), 1, 150);
}

#[test]
fn pins_over_the_limit() {
    sweep(Fault::Pin(PinError::MemlockLimit), 1, 150);
}

#[test]
fn pins_without_memory() {
    sweep(Fault::Pin(PinError::NoMemory), 1, 150);
}

#[test]
fn pins_that_are_put_off() {
    sweep(Fault::Pin(PinError::Later), 1, 150);
}

#[test]
fn granules() {
    sweep(Fault::Granule(NoGranule::Refused), 1, 1);
}

#[test]
fn granules_that_are_put_off() {
    sweep(Fault::Granule(NoGranule::Later), 1, 1);
}

#[test]
fn filters_that_the_port_refuses() {
    sweep(Fault::Port, 1, 8);
}

#[test]
fn host_buffers() {
    sweep(Fault::Buffer, 16, 100);
}

#[test]
fn queues_that_do_not_start() {
    sweep(Fault::Start, 1, 8);
}

#[test]
fn queues_that_do_not_stop() {
    sweep(Fault::Stop, 1, 8);
}
