// SPDX-License-Identifier: GPL-2.0

//! [`Pending`]: what is posted is found by the thread that it is for. Stands for the worker's mailbox
//! (`rust/worker/mod.rs`) and the helper's (`rust/vfio/device/polling.rs`).

use std::sync::Arc;

use crate::threads::{
    in_every_order,
    Sleeper,
    Word, //
};
use loom::sync::atomic::{
    AtomicBool,
    AtomicU64,
    Ordering::*, //
};
use loom::sync::Mutex;
use loom::thread;
use sluice_core::handover::Pending;

/// What is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// The thread goes to sleep without looking once more.
    SleepsBlindly,
    /// The thread is woken before the event is there.
    WakesFirst,
    /// The thread does what events ask for, and takes them afterwards.
    TakesLast,
    /// What an event stands for is under no lock.
    NoLock,
    /// The one who starts the thread does not wake it.
    NoFirstWake,
}

struct Mailbox {
    pending: Pending<Word>,
    sleeper: Sleeper,
    /// Others know the thread, so that they can wake it.
    is_known: AtomicBool,
    /// What there is to do.
    work: Mutex<u64>,
    unlocked_work: AtomicU64,
    flaw: Flaw,
}

impl Mailbox {
    fn new(flaw: Flaw, is_known: bool) -> Arc<Self> {
        Arc::new(Self {
            pending: Pending::new(Word::new()),
            sleeper: Sleeper::new(),
            is_known: AtomicBool::new(is_known),
            work: Mutex::new(0),
            unlocked_work: AtomicU64::new(0),
            flaw,
        })
    }

    /// `Mailbox::post` in the module.
    fn post(&self, event: u64) {
        if self.flaw == Flaw::NoLock {
            self.unlocked_work.fetch_add(1, Relaxed);
        } else {
            *self.work.lock().unwrap() += 1;
        }
        if self.flaw == Flaw::WakesFirst {
            self.sleeper.wake();
            let _ = self.pending.post(event);
        } else if self.pending.post(event) && self.is_known.load(Acquire) {
            self.sleeper.wake();
        }
    }

    fn work(&self) -> u64 {
        match self.flaw {
            Flaw::NoLock => self.unlocked_work.load(Relaxed),
            _ => *self.work.lock().unwrap(),
        }
    }

    /// The thread's loop, until all `expected` work is seen.
    fn run(&self, expected: u64) {
        loop {
            if self.flaw == Flaw::TakesLast && self.pending.is_any() {
                let seen = self.work();
                self.pending.take();
                if seen == expected {
                    return;
                }
            } else if self.flaw != Flaw::TakesLast && self.pending.take() != 0 {
                if self.work() == expected {
                    return;
                }
            } else {
                let blind = self.flaw == Flaw::SleepsBlindly;
                self.sleeper.park(|| !blind && self.pending.is_any());
            }
        }
    }
}

/// Two threads post the same event, or two.
fn two_post(flaw: Flaw, events: [u64; 2]) {
    in_every_order(2, move || {
        let mailbox = Mailbox::new(flaw, true);
        let posters = events.map(|event| {
            let mailbox = mailbox.clone();
            thread::spawn(move || mailbox.post(event))
        });
        mailbox.run(2);
        posters.into_iter().for_each(|t| t.join().unwrap());
    });
}

/// An event comes while the thread is being started, as in `Worker::start`.
fn one_posts_early(flaw: Flaw) {
    in_every_order(3, move || {
        let mailbox = Mailbox::new(flaw, false);
        let (poster, body) = (mailbox.clone(), mailbox.clone());
        let poster = thread::spawn(move || poster.post(1));
        let body = thread::spawn(move || body.run(1));
        mailbox.is_known.store(true, Release);
        if flaw != Flaw::NoFirstWake {
            mailbox.sleeper.wake();
        }
        poster.join().unwrap();
        body.join().unwrap();
    });
}

#[test]
fn what_is_posted_is_found() {
    two_post(Flaw::None, [1, 1]);
    two_post(Flaw::None, [1, 2]);
}

#[test]
fn what_is_posted_before_the_thread_is_known_is_found() {
    one_posts_early(Flaw::None);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_thread_that_sleeps_blindly_is_seen() {
    two_post(Flaw::SleepsBlindly, [1, 2]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_before_the_event_is_seen() {
    two_post(Flaw::WakesFirst, [1, 2]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn events_that_are_taken_too_late_are_seen() {
    two_post(Flaw::TakesLast, [1, 1]);
}

/// Why the documentation of [`Pending`] asks for a lock.
#[test]
#[should_panic(expected = "deadlock")]
fn work_under_no_lock_is_seen() {
    two_post(Flaw::NoLock, [1, 1]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_start_without_a_wake_is_seen() {
    one_posts_early(Flaw::NoFirstWake);
}
