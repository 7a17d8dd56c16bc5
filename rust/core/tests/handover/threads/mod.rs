// SPDX-License-Identifier: GPL-2.0

//! Kernel means under loom, which tries every order of steps, and every value that a load may see.

#![allow(dead_code)] // Each test uses its part.

use loom::sync::atomic::{
    fence,
    AtomicU64,
    Ordering::*, //
};
use loom::sync::{
    Condvar,
    Mutex, //
};

/// Runs `body` in every order with at most `preemptions` switches that no thread asked for. A thread
/// that is never woken panics as a deadlock.
pub fn in_every_order(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

/// `rust/sys/word.rs`: "fully ordered" is a barrier on both sides in the kernel's memory model.
pub struct Word(AtomicU64);

impl Word {
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl sluice_core::handover::Word for Word {
    fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }
    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        fence(SeqCst);
        self.0.compare_exchange(old, new, AcqRel, Relaxed)?;
        fence(SeqCst);
        Ok(())
    }
    fn swap(&self, new: u64) -> u64 {
        fence(SeqCst);
        let old = self.0.swap(new, AcqRel);
        fence(SeqCst);
        old
    }
}

/// A thread that sleeps: `sluice_park` in `rust/sys/shim.c`, and the kernel's `wake_up_process`.
pub struct Sleeper {
    asleep: Mutex<bool>,
    woken: Condvar,
}

impl Sleeper {
    pub fn new() -> Self {
        Self {
            asleep: Mutex::new(false),
            woken: Condvar::new(),
        }
    }

    /// The thread is marked as sleeping; then `is_ready` is asked; then it sleeps.
    pub fn park(&self, is_ready: impl Fn() -> bool) {
        *self.asleep.lock().unwrap() = true;
        fence(SeqCst);
        if is_ready() {
            *self.asleep.lock().unwrap() = false;
            return;
        }
        let mut asleep = self.asleep.lock().unwrap();
        while *asleep {
            asleep = self.woken.wait(asleep).unwrap();
        }
    }

    pub fn wake(&self) {
        fence(SeqCst);
        let mut asleep = self.asleep.lock().unwrap();
        if std::mem::take(&mut *asleep) {
            self.woken.notify_one();
        }
    }
}
