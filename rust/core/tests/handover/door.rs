// SPDX-License-Identifier: GPL-2.0

//! [`Door`]: a write that is posted is carried out, in order, and the worker polls afterwards,
//! whoever had the lock meanwhile. Stands for `SliceDev` in `rust/vfio/device.rs`.

use std::sync::Arc;

use crate::threads::{
    in_every_order,
    Sleeper,
    Word, //
};
use loom::sync::atomic::{
    fence,
    AtomicBool,
    Ordering::*, //
};
use loom::sync::{
    Mutex,
    MutexGuard, //
};
use loom::thread;
use sluice_core::handover::{
    Door,
    Fifo,
    Pending, //
};

/// What is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// The worker does not say that it was there in vain.
    LeavesNoNote,
    /// The holder does not look at the queue after it has freed the lock.
    LooksAway,
    /// A read takes the lock without carrying out what is queued.
    ReadsPast,
}

const CAPACITY: usize = 2;

#[derive(Default)]
struct State {
    /// Writes carried out, in order.
    written: Vec<u32>,
}

struct Slice {
    state: Mutex<State>,
    posted: Mutex<Fifo<u32, CAPACITY>>,
    in_vain: AtomicBool,
    pending: Pending<Word>,
    worker: Sleeper,
    /// Others can come here, while the lock is held.
    instant: AtomicBool,
    flaw: Flaw,
}

impl Door for Slice {
    type Guard<'a> = MutexGuard<'a, State>;
    type Write = u32;

    fn wait(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
    fn attempt(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock().ok()
    }
    fn note_in_vain(&self, in_vain: bool) -> bool {
        if self.flaw == Flaw::LeavesNoNote {
            return false;
        }
        fence(SeqCst);
        let before = self.in_vain.swap(in_vain, AcqRel);
        fence(SeqCst);
        before
    }
    fn push(&self, write: u32) -> bool {
        self.posted.lock().unwrap().push(write)
    }
    fn is_empty(&self) -> bool {
        self.flaw == Flaw::LooksAway || self.posted.lock().unwrap().is_empty()
    }
    fn carry_out(&self, state: &mut MutexGuard<'_, State>) {
        let before = state.written.len();
        let posted = (0..CAPACITY).map_while(|_| self.posted.lock().unwrap().pop());
        state.written.extend(posted);
        self.instant.store(true, Relaxed);
        // A tail has moved.
        if state.written.len() != before {
            self.kick();
        }
    }
    fn kick(&self) {
        if self.pending.post(1) {
            self.worker.wake();
        }
    }
}

impl Slice {
    fn new(flaw: Flaw) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            posted: Mutex::new(Fifo::new()),
            in_vain: AtomicBool::new(false),
            pending: Pending::new(Word::new()),
            worker: Sleeper::new(),
            instant: AtomicBool::new(false),
            flaw,
        })
    }

    /// A vCPU writes registers, the way `SliceDev::write` does.
    fn write(&self, value: u32) {
        if !self.post(value) {
            self.enter().written.push(value);
            self.kick();
        }
    }

    /// A vCPU reads what it has written before.
    fn read_back(&self, value: u32) {
        let is_there = if self.flaw == Flaw::ReadsPast {
            self.wait().written.contains(&value)
        } else {
            self.enter().written.contains(&value)
        };
        assert!(is_there, "read too early");
    }

    /// The worker, until a poll has seen `count` writes.
    fn run(&self, count: usize) -> Vec<u32> {
        loop {
            if self.pending.take() == 0 {
                self.worker.park(|| self.pending.is_any());
            } else if let Some(state) = self.try_enter() {
                if state.written.len() == count {
                    return state.written.clone();
                }
            }
        }
    }
}

/// One vCPU writes `count` times, another has the lock for a while.
fn one_writes(flaw: Flaw, count: u32, preemptions: usize) {
    in_every_order(preemptions, move || {
        let slice = Slice::new(flaw);
        let (writer, other) = (slice.clone(), slice.clone());
        let writer = thread::spawn(move || (0..count).for_each(|value| writer.write(value)));
        let other = thread::spawn(move || drop(other.enter()));
        let seen = slice.run(count as usize);
        assert_eq!(seen, (0..count).collect::<Vec<_>>(), "order");
        writer.join().unwrap();
        other.join().unwrap();
    });
}

/// Two vCPUs write, and one of them reads.
fn two_write(flaw: Flaw, preemptions: usize) {
    in_every_order(preemptions, move || {
        let slice = Slice::new(flaw);
        let (first, second) = (slice.clone(), slice.clone());
        let first = thread::spawn(move || first.write(1));
        let second = thread::spawn(move || {
            second.write(2);
            second.read_back(2);
        });
        let mut seen = slice.run(2);
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
        first.join().unwrap();
        second.join().unwrap();
    });
}

/// A change under the lock, and the kick after it, as in `SliceDev::change`.
fn one_changes(flaw: Flaw) {
    in_every_order(3, move || {
        let slice = Slice::new(flaw);
        let other = slice.clone();
        let other = thread::spawn(move || {
            let mut held = other.enter();
            held.written.push(0);
            // The worker comes while the lock is held.
            other.kick();
            drop(held);
        });
        assert_eq!(slice.run(1), [0]);
        other.join().unwrap();
    });
}

#[test]
fn posted_writes_are_carried_out_in_order() {
    one_writes(Flaw::None, 1, 2);
    one_writes(Flaw::None, 2, 2);
}

#[test]
fn a_full_queue_loses_nothing() {
    one_writes(Flaw::None, CAPACITY as u32 + 1, 1);
}

#[test]
fn writes_of_two_are_carried_out_before_a_read() {
    two_write(Flaw::None, 2);
}

#[test]
fn a_worker_that_comes_in_vain_comes_again() {
    one_changes(Flaw::None);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_worker_that_leaves_no_note_is_seen() {
    one_changes(Flaw::LeavesNoNote);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_holder_that_looks_away_is_seen() {
    one_writes(Flaw::LooksAway, 1, 2);
}

#[test]
#[should_panic(expected = "read too early")]
fn a_read_before_the_writes_is_seen() {
    two_write(Flaw::ReadsPast, 2);
}
