// SPDX-License-Identifier: GPL-2.0

//! Hardware that does not do as told, or leaves: pages that the NIC may still use are kept, those
//! that it cannot use go, and the slice says why it stands still.

use crate::sim::bench::*;
use crate::sim::guest::{
    GuestRx,
    GuestTx,
    Send, //
};
use crate::sim::nic::Dir;
use sluice_core::addr::GuestAddr;
use sluice_core::map::Strategy;
use sluice_core::platform::HwError;
use sluice_core::slice::*;
use sluice_core::vf::Queue;

const QUEUES: [(Dir, Queue); 2] = [(Dir::Rx, Queue::Rx), (Dir::Tx, Queue::Tx)];
const PACKETS: u64 = 20;

/// A slice with buffers of both directions in flight, one page each.
fn in_flight(strategy: Strategy) -> Bench {
    let mut b = Bench::new(11);
    assert_eq!(b.slice.set_strategy(strategy, 0), Ok(()));
    b.bring_up();
    let mut rx = GuestRx::new(RX_RING, 64, 2048, 0);
    let place = |i: u16| (BUFFERS + u64::from(i) * 0x1000, 0);
    rx.fill(&mut b.world.borrow_mut(), place);
    let mut tx = GuestTx::new(TX_RING, 64);
    for i in 0..PACKETS {
        let send = Send {
            segments: vec![(BUFFERS + (100 + i) * 0x1000, 1000)],
            ..Send::default()
        };
        assert!(tx.send(&mut b.world.borrow_mut(), &send));
    }
    b.write(RX + TAIL, rx.tail());
    b.write(TX + TAIL, tx.tail());
    b.poll();
    assert_ne!(b.world.borrow().live(Dir::Rx), 0);
    assert_ne!(b.world.borrow().live(Dir::Tx), 0);
    b
}

fn stopped(b: &Bench) -> Stopped {
    match b.slice.state() {
        State::Faulted(stopped) => stopped,
        state => panic!("{state:?}"),
    }
}

type Deed = fn(&mut Bench);

/// All that can make a slice stop its queues, and whether it says afterwards why it stands still:
/// a reset makes it forget.
fn stops(queue: Queue) -> Vec<(&'static str, bool, Deed)> {
    let off: Deed = match queue {
        Queue::Rx => |b| b.disable(RX),
        Queue::Tx => |b| b.disable(TX),
    };
    vec![
        ("the guest switches it off", true, off),
        ("the guest resets", false, |b| b.write(CTRL, 1 << 26)),
        ("the VMM resets", false, |b| b.slice.reset(b.now_ns)),
        ("bus mastering goes off", true, |b| b.master(false)),
        ("memory is taken away", true, |b| {
            b.slice.dma_unmap(GuestAddr::new(0), PAGES << 12, b.now_ns)
        }),
        ("the hardware is taken away", true, |b| {
            b.slice.withdraw(b.now_ns)
        }),
        ("the hardware is taken away for good", true, |b| {
            b.slice.end(b.now_ns);
        }),
        ("it breaks a rule", true, |b| {
            b.write(RX + TAIL, 0xffff);
            b.write(TX + TAIL, 0xffff);
            b.poll();
        }),
        ("the VMM closes", false, |b| {
            b.slice.close(b.now_ns);
        }),
    ]
}

/// However the stop comes about, a queue that does not stop keeps what it has, and is found out.
#[test]
fn what_does_not_stop_keeps_its_pages() {
    for strategy in [Strategy::Persistent, Strategy::SingleUse] {
        for error in [HwError::Timeout, HwError::Gone] {
            for (dir, queue) in QUEUES {
                for (name, says_why, stop) in stops(queue) {
                    let mut b = in_flight(strategy);
                    let held = u64::from(b.world.borrow().live(dir));
                    b.world.borrow_mut().set_stop_error(dir, Some(error));
                    stop(&mut b);
                    // The simulated NIC objects if one of its pages is unpinned.
                    b.world.borrow().check_live();
                    let leaked = b.slice.map_stats().leaked;
                    assert!(leaked >= PACKETS.min(held), "{name}: {leaked} of {held}");
                    let reason = StopReason::Hardware(error);
                    if says_why {
                        assert_eq!(stopped(&b).reason, reason, "{name}");
                    }
                    let report = b.slice.take_report();
                    assert_eq!(report.map(|s| s.reason), Some(reason), "{name}");
                    // Now and later.
                    b.poll();
                    b.slice.close(b.now_ns);
                    b.world.borrow().check_live();
                    b.world.borrow().check_canaries();
                    assert_eq!(b.slice.map_stats().leaked, leaked, "{name}");
                    assert_eq!(b.world.borrow().pinned(), leaked, "{name}");
                }
            }
        }
    }
}

/// A slice whose hardware is taken away while its VMM has it open stays that VMM's: it says why it
/// stands still, whatever the guest does, and takes no setting until it is closed.
#[test]
fn a_slice_that_ends_is_open_until_it_is_closed() {
    for (dir, queue) in QUEUES {
        for reset in [false, true] {
            let mut b = in_flight(Strategy::Persistent);
            b.request(&[4 | 1 << 16, 7]);
            b.world.borrow_mut().set_stuck(dir, true);
            b.slice.dma_unmap(GuestAddr::new(0), PAGES << 12, b.now_ns);
            let why = stopped(&b);
            let timeout = StopReason::Hardware(HwError::Timeout);
            assert_eq!((why.queue, why.reason), (queue, timeout));
            if reset {
                // The guest has the reason forgotten, and the slice another one then.
                b.write(CTRL, 1 << 26);
                assert_eq!(b.slice.state(), State::Open);
            }
            let hardware = b.slice.end(b.now_ns).expect("it was there");
            assert_eq!(hardware.port.vlans, [], "others may want them");
            let gone = StopReason::Hardware(HwError::Gone);
            let reason = if reset { gone } else { timeout };
            assert_eq!(stopped(&b).reason, reason);

            b.write(CTRL, 1 << 26);
            b.master(true);
            b.enable_rx();
            b.enable_tx();
            b.slice.reset(b.now_ns);
            b.poll();
            b.slice.dma_unmap(GuestAddr::new(0), PAGES << 12, b.now_ns);
            b.slice.withdraw(b.now_ns);
            assert_eq!(stopped(&b).reason, reason);
            assert_eq!(b.slice.set_mac(b.slice.mac()), Err(Busy));
            assert_eq!(b.slice.set_policy(Policy::default()), Err(Busy));
            let opened = b.slice.open(hardware);
            let hardware = match opened {
                Err((OpenError::Busy, hardware)) => hardware,
                _ => panic!("it is open"),
            };
            assert!(b.slice.end(b.now_ns).is_none());

            assert!(b.slice.close(b.now_ns).is_none());
            assert_eq!(b.slice.state(), State::Closed);
            assert_eq!(b.slice.set_mac(b.slice.mac()), Ok(()));
            assert!(b.slice.open(hardware).is_ok());
            assert_eq!(b.slice.state(), State::Open);
        }
    }
}

/// The other direction is not hurt.
#[test]
fn a_stuck_receiver_does_not_stop_the_sender() {
    let mut b = in_flight(Strategy::Persistent);
    b.world.borrow_mut().set_stuck(Dir::Rx, true);
    b.write(RX + DCTL, 0);
    b.nic_runs();
    b.poll();
    assert_eq!(b.slice.stats().tx.packets, PACKETS);
    assert_eq!(b.read(TX + DCTL) & ENABLE, ENABLE);
}

#[test]
fn what_does_not_start_holds_nothing() {
    for error in [HwError::Timeout, HwError::Gone] {
        for (dir, queue) in QUEUES {
            let mut b = Bench::new(12);
            b.world.borrow_mut().set_start_error(dir, Some(error));
            b.master(true);
            b.write(CTRL, 1 << 26);
            b.enable_rx();
            b.enable_tx();
            let block = if queue == Queue::Rx { RX } else { TX };
            assert_eq!(b.read(block + DCTL) & ENABLE, 0);
            let reason = StopReason::Hardware(error);
            assert_eq!(stopped(&b), Stopped { queue, reason });
            assert_eq!(b.slice.map_stats().leaked, 0);
            // The guest tries again when the NIC has come round.
            b.world.borrow_mut().set_start_error(dir, None);
            b.bring_up();
            b.close();
        }
    }
}

/// A queue that stops and does not start again, in a change that restarts it.
#[test]
fn what_does_not_start_again_holds_nothing() {
    for (dir, queue) in QUEUES {
        let mut b = in_flight(Strategy::Persistent);
        let timeout = Some(HwError::Timeout);
        b.world.borrow_mut().set_start_error(dir, timeout);
        assert_eq!(b.slice.set_strategy(Strategy::Copy, b.now_ns), Ok(()));
        let reason = StopReason::Hardware(HwError::Timeout);
        assert_eq!(stopped(&b), Stopped { queue, reason });
        assert_eq!(b.slice.map_stats().leaked, 0);
        b.close();
    }
}

/// A NIC that is known to reach no memory any more: nothing stays pinned though the VMM keeps the
/// slice open, nothing is lost for ever, and nothing starts again.
#[test]
fn a_nic_that_has_left_gives_everything_back() {
    for strategy in Strategy::ALL {
        let mut b = in_flight(strategy);
        b.world.borrow_mut().gone = true;
        b.slice.withdraw(b.now_ns);
        assert_eq!(b.world.borrow().pinned(), 0);
        let reason = StopReason::Hardware(HwError::Gone);
        assert_eq!(stopped(&b).reason, reason);
        assert_eq!(b.slice.take_report().map(|s| s.reason), Some(reason));
        assert_eq!(b.slice.map_stats().leaked, 0);
        assert_eq!(b.read(STATUS) & 2, 0, "link");

        // Whatever the guest does, it stays so.
        b.write(RX + TAIL, 1);
        b.write(TX + TAIL, 30);
        b.poll();
        b.enable_rx();
        b.enable_tx();
        assert_eq!(b.read(RX + DCTL) & ENABLE, 0);
        assert_eq!(b.read(TX + DCTL) & ENABLE, 0);
        b.write(CTRL, 1 << 26);
        b.enable_rx();
        b.enable_tx();
        assert_eq!(stopped(&b).reason, reason);
        b.poll();
        assert_eq!(b.world.borrow().pinned(), 0);
        assert_eq!(b.world.borrow().live(Dir::Rx), 0);
        assert_eq!(b.world.borrow().live(Dir::Tx), 0);

        b.slice.withdraw(b.now_ns);
        b.close();
    }
}

#[test]
fn an_idle_slice_learns_of_it_when_it_starts() {
    let mut b = Bench::new(13);
    b.world.borrow_mut().gone = true;
    b.slice.withdraw(b.now_ns);
    assert_eq!(b.slice.state(), State::Open);
    b.master(true);
    b.enable_tx();
    let reason = StopReason::Hardware(HwError::Gone);
    assert_eq!(stopped(&b).reason, reason);
    b.close();
}
