// SPDX-License-Identifier: GPL-2.0

//! What stands between a guest and harm, one rule at a time: each of these fails when its rule is
//! taken out of the code (tests/breakages).

use crate::sim::bench::*;
use crate::sim::guest::{
    data_word,
    GuestTx,
    Send, //
};
use crate::sim::nic::Dir;
use crate::sim::rig::Map;
use crate::sim::SimMachine;
use sluice_core::addr::{
    GuestAddr,
    GuestPage, //
};
use sluice_core::check::Rejection;
use sluice_core::map::{
    MapError,
    Mapper,
    Strategy, //
};
use sluice_core::platform::Access;
use sluice_core::slice::*;
use sluice_core::tx::MAX_PIECES;
use sluice_core::vf::Queue;

fn sends(addr: u64, len: u16) -> Send {
    Send {
        segments: vec![(addr, len)],
        ..Send::default()
    }
}

/// Why the queue was stopped that was to be.
fn fault_of(b: &Bench, queue: Queue) -> Rejection {
    match b.slice.state() {
        State::Faulted(Stopped {
            queue: stopped,
            reason: StopReason::Fault(fault),
        }) if stopped == queue => fault.rejection,
        state => panic!("{state:?}"),
    }
}

/// Has the guest post one descriptor.
fn post(b: &mut Bench, block: u32, words: [u64; 2]) {
    let ring = if block == TX { TX_RING } else { RX_RING };
    b.world.borrow_mut().guest_write_desc(ring, words);
    b.write(block + TAIL, 1);
    b.poll();
}

/// Invariant 2: the last page and the first do not follow each other, though both are memory.
#[test]
fn nothing_wraps_around() {
    let last = u64::MAX >> 12;
    for (block, queue) in [(TX, Queue::Tx), (RX, Queue::Rx)] {
        let mut b = Bench::new(1);
        b.world.borrow_mut().map(last, true);
        b.bring_up();
        let second = match queue {
            Queue::Tx => data_word(60, true, &Send::default(), 60),
            Queue::Rx => 0,
        };
        post(&mut b, block, [u64::MAX - 19, second]);
        assert_eq!(fault_of(&b, queue), Rejection::AddressWraps);
        b.close();
    }
}

/// Invariant 2: a receive buffer is memory as far as the NIC may write, whatever the guest expects.
#[test]
fn a_buffer_is_memory_for_all_that_may_be_written() {
    let end = PAGES << 12;
    for (before_end, refused) in [(1000u64, true), (1520, true), (1600, false), (2048, false)] {
        let mut b = Bench::new(1);
        b.bring_up();
        post(&mut b, RX, [end - before_end, 0]);
        if refused {
            assert_eq!(fault_of(&b, Queue::Rx), Rejection::NotMemory);
        } else {
            assert_eq!(b.slice.state(), State::Running);
            assert_eq!(b.slice.stats().rx.posted, 1);
            // What is longer than the memory there goes nowhere else.
            b.world.borrow_mut().nic_rx_arrives(&[0xAA; 1522], None);
            b.nic_runs();
            b.poll();
            b.world.borrow().check_canaries();
        }
        b.close();
    }
}

/// Invariant 3: a host buffer that the NIC may still read is not used for another frame.
#[test]
fn a_stuck_queue_keeps_its_host_buffers() {
    let mut b = Bench::with_policy(1, Policy::default());
    b.bring_up();
    let mut bytes = [0x33; 60];
    bytes[6..12].copy_from_slice(&MAC.bytes());
    b.world.borrow_mut().guest_write(BUFFERS, &bytes);
    let mut tx = GuestTx::new(TX_RING, 64);
    for _ in 0..10 {
        assert!(tx.send(&mut b.world.borrow_mut(), &sends(BUFFERS, 60)));
    }
    b.write(TX + TAIL, tx.tail());
    b.poll();
    b.world.borrow_mut().set_stuck(Dir::Tx, true);
    b.disable(TX);
    assert!(matches!(
        b.slice.state(),
        State::Faulted(Stopped {
            reason: StopReason::Hardware(_),
            ..
        })
    ));
    b.world.borrow_mut().set_stuck(Dir::Tx, false);
    b.write(TX + 0x10, 0);
    b.write(TX + TAIL, 0);
    b.enable_tx();
    // The simulated NIC panics where bytes are written that it may be reading.
    let mut tx = GuestTx::new(TX_RING, 64);
    for _ in 0..20 {
        assert!(tx.send(&mut b.world.borrow_mut(), &sends(BUFFERS, 60)));
    }
    b.write(TX + TAIL, tx.tail());
    b.poll();
    b.nic_runs();
    assert_eq!(b.world.borrow().wire.len(), 20);
}

/// Invariant 3: a length that leaves the address space takes all that is there, not what it wraps to.
#[test]
fn an_unmapped_range_ends_at_the_top() {
    let mut b = Bench::new(1);
    b.bring_up();
    post(&mut b, RX, [BUFFERS, 0]);
    assert!(b.world.borrow().nic_pinned() != 0);
    b.slice.dma_unmap(GuestAddr::new(0x1000), u64::MAX, 1);
    assert_eq!(b.world.borrow().pinned(), 0);
    b.close();
}

/// Invariants 3, 5: a reset ends what was posted before it.
#[test]
fn a_reset_stops_both_queues() {
    let mut b = Bench::new(1);
    b.bring_up();
    post(&mut b, RX, [BUFFERS, 0]);
    let word = data_word(60, true, &Send::default(), 60);
    post(&mut b, TX, [BUFFERS, word]);
    b.write(CTRL, 1 << 26);
    let world = b.world.borrow();
    assert_eq!((world.live(Dir::Rx), world.live(Dir::Tx)), (0, 0));
    drop(world);
    assert_eq!(b.slice.state(), State::Open);
    b.close();
}

/// Invariant 5: registers may be set up without bus mastering, but nothing is done with them.
#[test]
fn without_bus_master_nothing_starts() {
    let mut b = Bench::new(7);
    b.write(CTRL, 1 << 26);
    b.enable_tx();
    let mut tx = GuestTx::new(TX_RING, 64);
    tx.send(&mut b.world.borrow_mut(), &sends(BUFFERS, 60));
    b.write(TX + TAIL, tx.tail());
    b.poll();
    b.nic_runs();
    assert_eq!(b.slice.stats().tx.taken, 0);
    assert!(b.world.borrow().wire.is_empty());
    b.master(true);
    b.poll();
    b.nic_runs();
    assert_eq!(b.world.borrow().wire.len(), 1);
    b.close();
}

/// Invariant 5: link, heads, statistics and the like are the model's to say.
#[test]
fn what_is_the_devices_cannot_be_written() {
    use sluice_core::vf::regs::{
        self,
        Access as Kind, //
    };
    let mut b = Bench::new(1);
    b.bring_up();
    let fixed = regs::all().filter(|slot| {
        let access = slot.spec().access;
        matches!(access, Kind::ReadOnly | Kind::Counter)
    });
    let mut count = 0;
    for slot in fixed {
        let before = b.read(slot.offset());
        b.write(slot.offset(), !before);
        assert_eq!(b.read(slot.offset()), before, "{}", slot.spec().name);
        count += 1;
    }
    assert!(count > 10, "{count}");
    b.write(TX + 0x10, 5);
    assert_eq!(b.read(TX + 0x10), 0, "the head of a queue");
    b.close();
}

/// Invariant 7.
#[test]
fn a_faulty_receive_queue_is_stopped_and_counted() {
    let mut b = Bench::new(1);
    b.bring_up();
    post(&mut b, RX, [BUFFERS + 1, 0]);
    assert_eq!(fault_of(&b, Queue::Rx), Rejection::RxPacketOdd);
    assert_eq!(b.slice.stats().rejected(Rejection::RxPacketOdd), 1);
    assert_eq!(b.read(RX + DCTL) & ENABLE, 0);
    assert_eq!(b.read(TX + DCTL) & ENABLE, ENABLE, "transmission goes on");
    post(
        &mut b,
        TX,
        [BUFFERS, data_word(60, true, &Send::default(), 60)],
    );
    b.nic_runs();
    assert_eq!(b.world.borrow().wire.len(), 1);
    b.close();
}

/// Invariant 7: to stop a queue is to wait for the NIC, which whoever polls for all slices must not.
#[test]
fn the_worker_leaves_stopping_to_others() {
    for (block, words) in [
        (TX, [0xFEE0_0000, data_word(60, true, &Send::default(), 60)]),
        (RX, [0xFEE0_0000, 0]),
    ] {
        let mut b = Bench::new(1);
        b.bring_up();
        let ring = if block == TX { TX_RING } else { RX_RING };
        b.world.borrow_mut().guest_write_desc(ring, words);
        b.write(block + TAIL, 1);
        for _ in 0..3 {
            let polled = b.slice.poll_hastily(b.now_ns, 64);
            assert!(polled.stop_wanted && !polled.more);
            assert_eq!(b.read(block + DCTL) & ENABLE, ENABLE);
        }
        assert_eq!(b.slice.stats().faults(), 1, "counted once");
        assert!(!b.slice.poll(b.now_ns, 64).stop_wanted);
        assert_eq!(b.read(block + DCTL) & ENABLE, 0);
        b.close();
    }
}

/// Invariant 7: a guest may post as many receive buffers as it likes, and still sends.
#[test]
fn receive_buffers_leave_room_to_transmit() {
    let pages = u64::from(Map::MIN_PAGES);
    let mut sim = SimMachine::builder().guest_pages(4 * pages).build();
    let mut map = Map::new(Strategy::Persistent, Map::MIN_PAGES, 9).unwrap();
    let mut held = Vec::new();
    for pfn in 0..pages + 1 {
        match map.acquire(&mut sim.pinner, GuestPage::new(pfn), Access::Write) {
            Ok(page) => held.push(page),
            Err(error) => {
                assert_eq!(error, MapError::Busy);
                break;
            }
        }
    }
    assert!(held.len() < pages as usize, "there is a bound");
    for pfn in 0..2 * MAX_PIECES as u64 {
        let page = GuestPage::new(2 * pages + pfn);
        held.push(map.acquire(&mut sim.pinner, page, Access::Read).unwrap());
    }
    for page in held {
        map.cancel(&mut sim.pinner, page);
    }
    assert_eq!(map.unpin_all(&mut sim.pinner), 0);
}
