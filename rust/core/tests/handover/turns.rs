// SPDX-License-Identifier: GPL-2.0

//! [`Turns`]: whatever the NIC writes back is polled, though the worker forgets causes and its
//! interrupt masks itself. The worker's loop is that of `rust/worker/run.rs`, the handler that of
//! `rust/nic/mod.rs`.

use std::sync::Arc;

use crate::threads::{
    in_every_order,
    Sleeper,
    Word, //
};
use loom::sync::atomic::{
    AtomicU64,
    Ordering::*, //
};
use loom::sync::Mutex;
use loom::thread;
use sluice_core::addr::PoolId;
use sluice_core::handover::{
    Events,
    Pending, //
};
use sluice_core::slice::Polled;
use sluice_core::turns::{
    Pools,
    Turns, //
};

/// What is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// Causes are forgotten after the last look.
    AcknowledgesLate,
    /// A cause that came while the vector was masked does not interrupt.
    ArmsDeaf,
    /// The handler tells the worker before it masks the vector.
    MasksLate,
}

/// A vector, as the 82576 has it (datasheet 7.3).
#[derive(Default)]
struct Vector {
    cause: bool,
    enabled: bool,
}

struct Nic {
    vector: Mutex<Vector>,
    /// Descriptors written back.
    done: AtomicU64,
    pending: Pending<Word>,
    worker: Sleeper,
    flaw: Flaw,
}

fn pool() -> PoolId {
    PoolId::new(0).unwrap()
}

impl Nic {
    fn new(flaw: Flaw) -> Arc<Self> {
        Arc::new(Self {
            vector: Mutex::new(Vector::default()),
            done: AtomicU64::new(0),
            pending: Pending::new(Word::new()),
            worker: Sleeper::new(),
            flaw,
        })
    }

    fn post(&self, events: Events) {
        if self.pending.post(events.bits()) {
            self.worker.wake();
        }
    }

    /// The NIC has a cause to interrupt, or has been allowed to.
    fn signal(&self, change: impl FnOnce(&mut Vector)) {
        let fires = {
            let mut vector = self.vector.lock().unwrap();
            change(&mut vector);
            // The cause clears when the vector fires (EIAC). QEMU's NIC does not mask it.
            vector.enabled && std::mem::take(&mut vector.cause)
        };
        if !fires {
            return;
        }
        // The handler.
        let mask = || self.vector.lock().unwrap().enabled = false;
        if self.flaw != Flaw::MasksLate {
            mask();
        }
        self.post(Events::interrupted(1));
        if self.flaw == Flaw::MasksLate {
            mask();
        }
    }

    fn write_back(&self) {
        self.done.fetch_add(1, Release);
        self.signal(|vector| vector.cause = true);
    }

    /// The worker's loop, until it has seen `expected` write-backs.
    fn run(&self, expected: u64) {
        let mut turns = Turns::new();
        let mut round = Round { nic: self, seen: 0 };
        while round.seen != expected {
            let events = Events::new(self.pending.take());
            turns.fired(events.fired());
            let due = turns.due(events.pools(), 0);
            if due == 0 {
                self.worker.park(|| self.pending.is_any());
            } else {
                turns.round(due, &mut round);
            }
        }
    }
}

struct Round<'a> {
    nic: &'a Nic,
    /// Write-backs that a poll has found.
    seen: u64,
}

impl Pools for Round<'_> {
    type Owner = ();

    fn owner(&mut self, _: PoolId) -> Option<()> {
        Some(())
    }

    fn poll(&mut self, (): &(), _: u16) -> Polled {
        // One at a time: sometimes there is more.
        let done = self.nic.done.load(Acquire);
        self.seen = done.min(self.seen + 1);
        Polled {
            more: self.seen != done,
            ..Polled::default()
        }
    }

    fn acknowledge(&mut self, _: PoolId) {
        if self.nic.flaw != Flaw::AcknowledgesLate {
            self.nic.vector.lock().unwrap().cause = false;
        }
    }

    fn arm(&mut self, _: PoolId) {
        let flaw = self.nic.flaw;
        if matches!(flaw, Flaw::AcknowledgesLate | Flaw::ArmsDeaf) {
            let mut vector = self.nic.vector.lock().unwrap();
            vector.enabled = true;
            vector.cause &= flaw == Flaw::ArmsDeaf;
        } else {
            self.nic.signal(|vector| vector.enabled = true);
        }
    }
}

fn write_backs(flaw: Flaw, count: u64) {
    in_every_order(3, move || {
        let nic = Nic::new(flaw);
        // The slice is attached.
        nic.post(Events::kicked(pool()));
        let hardware = nic.clone();
        let hardware = thread::spawn(move || (0..count).for_each(|_| hardware.write_back()));
        nic.run(count);
        hardware.join().unwrap();
    });
}

#[test]
fn what_is_written_back_is_polled() {
    write_backs(Flaw::None, 1);
    write_backs(Flaw::None, 2);
    write_backs(Flaw::None, 3);
}

#[test]
#[should_panic(expected = "deadlock")]
fn causes_that_are_forgotten_too_late_are_seen() {
    write_backs(Flaw::AcknowledgesLate, 1);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_vector_that_forgets_while_it_is_masked_is_seen() {
    write_backs(Flaw::ArmsDeaf, 1);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_vector_that_is_masked_too_late_is_seen() {
    write_backs(Flaw::MasksLate, 2);
}
