// SPDX-License-Identifier: GPL-2.0

//! One test for each rule of the queues.

use sluice_core::net::MacAddr;
use sluice_core::vf::regs;
use sluice_core::vf::{
    Action,
    Function,
    Identity,
    Queue,
    QueueState,
    Refusal,
    ResetKind,
    Width, //
};

fn function() -> Function {
    Function::new(Identity {
        mac: MacAddr::new([0x02, 0, 0, 0, 0, 1]),
    })
}

const RX: u32 = 0x2800;
const TX: u32 = 0x3800;
// Offsets from RX and TX.
const BAL: u32 = 0x00;
const BAH: u32 = 0x04;
const LEN: u32 = 0x08;
const SRRCTL: u32 = 0x0C;
const HEAD: u32 = 0x10;
const TAIL: u32 = 0x18;
const DCTL: u32 = 0x28;

fn base(queue: Queue) -> u32 {
    match queue {
        Queue::Tx => TX,
        Queue::Rx => RX,
    }
}

/// Sets up a ring and asks for the queue. Returns the action of the last write.
fn open(f: &mut Function, queue: Queue, n: u32) -> Action {
    let regs = [
        (BAL, 0x1000),
        (BAH, 1),
        (LEN, n * 128),
        (SRRCTL, 0x8200_0002),
        (HEAD, 0),
    ];
    for (offset, value) in regs {
        if offset != SRRCTL || queue == Queue::Rx {
            let _ = f.mmio_write(base(queue) + offset, Width::Dword, value);
        }
    }
    f.mmio_write(base(queue) + DCTL, Width::Dword, regs::DCTL_ENABLE)
}

#[test]
fn a_running_ring_is_locked() {
    for queue in [Queue::Tx, Queue::Rx] {
        let mut f = function();
        let regs = base(queue);
        assert_ne!(open(&mut f, queue, 1), Action::None);
        let mut locked = 0;
        for stop in [false, true] {
            for offset in [BAL, BAH, LEN, HEAD] {
                let before = f.mmio_read(regs + offset, Width::Dword);
                let _ = f.mmio_write(regs + offset, Width::Dword, 0x2000);
                assert_eq!(f.mmio_read(regs + offset, Width::Dword), before);
                locked += 1;
                assert_eq!(f.counters().refused(Refusal::QueueBusy), locked);
            }
            let _ = f.queue_enabled(queue, true);
            if !stop {
                let off = f.mmio_write(regs + DCTL, Width::Dword, 0);
                assert_eq!(off, Action::Disable(queue));
            }
        }
        // Not before the host has stopped it.
        let on = f.mmio_write(regs + DCTL, Width::Dword, regs::DCTL_ENABLE);
        assert_eq!(on, Action::None);
        assert_eq!(f.counters().refused(Refusal::QueueBusy), locked + 1);
        let _ = f.queue_enabled(queue, false);
        assert_ne!(open(&mut f, queue, 2), Action::None);
    }
}

#[test]
fn a_reset_in_progress_starts_no_queue() {
    for queue in [Queue::Tx, Queue::Rx] {
        let mut f = function();
        let action = f.mmio_write(0, Width::Dword, regs::CTRL_RST);
        assert_eq!(action, Action::Reset(ResetKind::Ctrl));
        // A second one is part of the first.
        assert_eq!(f.mmio_write(4, Width::Dword, regs::CTRL_RST), Action::None);
        assert_eq!(f.counters().control_resets, 2);
        assert_eq!(open(&mut f, queue, 1), Action::None);
        assert_eq!(f.counters().refused(Refusal::ResetPending), 1);
        f.reset_done();
        assert_ne!(open(&mut f, queue, 1), Action::None);
    }
}

#[test]
fn a_function_reset_during_another_still_ends_bus_mastering() {
    let mut f = function();
    assert_eq!(f.config_write(4, Width::Word, 6), Action::BusMaster(true));
    let _ = f.mmio_write(0, Width::Dword, regs::CTRL_RST);
    let action = f.config_write(0xA8, Width::Word, 0x8000);
    assert_eq!(action, Action::BusMaster(false));
    assert_eq!(f.config_write(0xA8, Width::Word, 0x8000), Action::None);
}

#[test]
fn the_second_pair_stores_and_does_not_start() {
    let mut f = function();
    for (n, regs) in [TX + 0x100, RX + 0x100].into_iter().enumerate() {
        for (offset, value) in [(BAL, 0x1000), (LEN, 128), (TAIL, 5), (DCTL, 0x0001_0810)] {
            let action = f.mmio_write(regs + offset, Width::Dword, value);
            assert_eq!(action, Action::None);
            assert_eq!(f.mmio_read(regs + offset, Width::Dword), value);
        }
        let on = f.mmio_write(regs + DCTL, Width::Dword, regs::DCTL_ENABLE);
        assert_eq!(on, Action::None);
        assert_eq!(f.mmio_read(regs + DCTL, Width::Dword), 0);
        let refused = f.counters().refused(Refusal::SecondQueue);
        assert_eq!(refused, n as u64 + 1);
    }
    // Not even beside a running first pair.
    let _ = open(&mut f, Queue::Tx, 1);
    let _ = f.queue_enabled(Queue::Tx, true);
    let action = f.mmio_write(TX + 0x100 + TAIL, Width::Dword, 9);
    assert_eq!(action, Action::None);
}

#[test]
fn heads_and_head_write_back_belong_to_the_device() {
    let mut f = function();
    for regs in [TX, RX] {
        let _ = f.mmio_write(regs + HEAD, Width::Dword, 1);
        assert_eq!(f.mmio_read(regs + HEAD, Width::Dword), 0);
    }
    assert_eq!(f.counters().refused(Refusal::HeadNonZero), 2);
    let _ = f.mmio_write(TX + 0x38, Width::Dword, 0x1001);
    assert_eq!(f.mmio_read(TX + 0x38, Width::Dword), 0);
    assert_eq!(f.counters().refused(Refusal::HeadWriteBack), 1);
    // At rest, the host's reports do not show.
    f.set_head(Queue::Tx, 3);
    assert_eq!(f.mmio_read(TX + HEAD, Width::Dword), 0);
}

#[test]
fn a_queue_starts_from_a_head_of_zero() {
    let mut f = function();
    let _ = open(&mut f, Queue::Rx, 1);
    let _ = f.queue_enabled(Queue::Rx, true);
    f.set_head(Queue::Rx, 3);
    let _ = f.mmio_write(RX + DCTL, Width::Dword, 0);
    let _ = f.queue_enabled(Queue::Rx, false);
    assert_eq!(f.mmio_read(RX + HEAD, Width::Dword), 3);
    let on = f.mmio_write(RX + DCTL, Width::Dword, regs::DCTL_ENABLE);
    assert_eq!(on, Action::None);
    assert_eq!(f.counters().refused(Refusal::HeadNotReset), 1);
    assert_ne!(open(&mut f, Queue::Rx, 1), Action::None);
}

#[test]
fn late_confirmations_are_dropped() {
    let mut f = function();
    let _ = open(&mut f, Queue::Tx, 1);
    let off = f.mmio_write(TX + DCTL, Width::Dword, 0);
    assert_eq!(off, Action::Disable(Queue::Tx));
    // The host reports the start first, then the stop.
    assert_eq!(f.queue_enabled(Queue::Tx, true), Action::None);
    assert_eq!(f.queue_state(Queue::Tx), QueueState::Disabling);
    assert_eq!(f.queue_enabled(Queue::Tx, false), Action::None);
    assert_eq!(f.queue_enabled(Queue::Tx, true), Action::None);
    assert_eq!(f.queue_state(Queue::Tx), QueueState::Disabled);
}
