// SPDX-License-Identifier: GPL-2.0

//! Moving a slice's packets: in the worker's thread as long as nothing has to be waited for, else
//! in the helper's.

use kernel::sync::atomic::{
    Full,
    Relaxed, //
};
use sluice_core::{
    handover::Door as _,
    turns::BUDGET, //
};

use super::{
    SliceDev,
    State, //
};
use crate::{
    sys::{
        thread::{
            Body,
            Current, //
        },
        time::now_ns,
    },
    worker::{
        Pollable,
        Polled, //
    }, //
};

/// The one event that the helper knows beside what its interrupts owe: it is to poll.
const HELP: u64 = 1;

impl Pollable for SliceDev {
    fn poll(&self, now_ns: u64, budget: u16) -> Polled {
        let Some(mut state) = self.try_enter() else {
            return Polled::default();
        };
        if self.link_pending.xchg(false, Relaxed) {
            state.slice.link_changed(now_ns);
        }
        // Whatever asked for this poll is served by it.
        let _ = state.slice.take_kick();
        let polled = self
            .pins
            .hastily(|| state.slice.poll_hastily(now_ns, budget));
        let report = state.slice.take_report();
        let withdrawn = self.withdrawn.load(Relaxed);
        if self.pins.take_wanted() | polled.stop_wanted | withdrawn {
            self.want_help(&state);
        }
        drop(state);
        self.report(report);
        polled
    }

    fn link_changed(&self, _now_ns: u64) {
        self.link_pending.store(true, Relaxed);
        self.kick();
    }

    fn ask(&self) {
        self.irqs.request();
    }

    fn withdraw(&self) {
        // Ordered before the kick also where a kick is pending, which then only looks: see
        // `handover::pending`.
        self.withdrawn.xchg(true, Full);
        self.irqs.request();
        self.nic.kick(self.pool);
    }
}

/// The helper: does what the worker must not wait for.
impl Body for SliceDev {
    fn run(&self, current: &Current) {
        let mut deadline_ns = None;
        while !current.should_stop() {
            self.irqs.signal_owed();
            let wanted = self.help_wanted.take() != 0;
            if wanted || deadline_ns.is_some_and(|at| at <= now_ns()) {
                deadline_ns = self.help();
            } else {
                current.park(deadline_ns, || {
                    self.help_wanted.is_any() || self.irqs.is_owed()
                });
            }
        }
    }
}

impl SliceDev {
    /// Has the helper do what there is to do, once it can have the slice's lock.
    pub(super) fn want_help(&self, state: &State) {
        if self.help_wanted.post(HELP) {
            if let Some(helper) = &state.helper {
                helper.task().wake_up();
            }
        }
    }

    /// Takes the hardware from the slice, though the VMM still has it open.
    fn take_hardware(&self, state: &mut State) {
        if let Some(claim) = &state.claim {
            claim.revoke();
        }
        state.slice.withdraw(now_ns());
        self.pins.settle();
    }

    /// Pins what the worker found wanting, by polling in its place, unpins what it put off, and
    /// stops queues that broke a rule: all that waits for a VMM or for the NIC.
    ///
    /// Returns when to do so again: an interrupt is due that the guest's moderation holds back, or
    /// the VMM's limit may allow a page. The worker is not woken for that: with a page still
    /// wanting it would ask for help at once, and the two would wake each other until then.
    fn help(&self) -> Option<u64> {
        let mut state = self.enter();
        self.pins.settle();
        if self.withdrawn.xchg(false, Full) {
            self.take_hardware(&mut state);
        }
        let polled = state.slice.poll(now_ns(), BUDGET);
        let report = state.slice.take_report();
        drop(state);
        self.report(report);
        if polled.more {
            self.kick();
        }
        let retry_ns = self.pins.take_retry_ns();
        polled.deadline_ns.into_iter().chain(retry_ns).min()
    }
}
