// SPDX-License-Identifier: GPL-2.0

//! The worker's thread.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use sluice_core::addr::PoolId;

use super::{
    Events,
    Mailbox,
    Polled,
    PoolMask,
    Source, //
};
use crate::sys::{
    thread::{
        cond_resched,
        park,
        should_stop,
        Body,
        Thread, //
    },
    time::now_ns,
};

/// Most descriptors per direction that a slice may move before it is another's turn.
const BUDGET: u32 = 128;

/// A worker: its thread ends when this is dropped.
pub(crate) struct Worker<S: Source> {
    _thread: Thread<Loop<S>>,
}

impl<S: Source> Worker<S> {
    /// Starts the thread, named `name`, for the pools whose interrupts `source` controls.
    pub(crate) fn start(name: &CStr, mailbox: Arc<Mailbox>, source: Arc<S>) -> Result<Self> {
        let body = Arc::new(
            Loop {
                mailbox: mailbox.clone(),
                source,
            },
            GFP_KERNEL,
        )?;
        let thread = Thread::run(name, body)?;
        mailbox.thread.populate(thread.task().clone());
        // Events that came before the line above woke nobody.
        thread.task().wake_up();
        Ok(Self { _thread: thread })
    }
}

/// What the thread runs.
struct Loop<S> {
    mailbox: Arc<Mailbox>,
    source: Arc<S>,
}

/// What the thread remembers between rounds.
struct State {
    /// Pools that said there is more to do.
    busy: PoolMask,
    /// Pools whose interrupt can fire.
    armed: PoolMask,
    /// When each pool wants to be looked at again.
    deadlines: [Option<u64>; PoolId::MAX],
    /// The pool that is first in the next round.
    first: usize,
}

impl<S: Source> Body for Loop<S> {
    fn run(&self) {
        let mut state = State {
            busy: 0,
            armed: 0,
            deadlines: [None; PoolId::MAX],
            first: 0,
        };
        while !should_stop() {
            let events = self.mailbox.take();
            if events.has_link() && self.source.link_event() {
                self.link_changed();
            }
            state.armed &= !events.fired();
            let now = now_ns();
            let due = state.due(events, now);
            if due == 0 {
                let deadline = state.deadlines.iter().flatten().min().copied();
                park(deadline, || self.mailbox.is_pending());
            } else {
                self.round(&mut state, due, now);
                cond_resched();
            }
        }
    }
}

impl<S: Source> Loop<S> {
    fn link_changed(&self) {
        let now = now_ns();
        for pool in pools() {
            if let Some(target) = self.mailbox.target(pool) {
                target.link_changed(now);
            }
        }
    }

    /// Gives each pool in `due` one burst, beginning with another one each time.
    fn round(&self, state: &mut State, due: PoolMask, now_ns: u64) {
        for turn in 0..PoolId::MAX {
            let index = (state.first + turn) % PoolId::MAX;
            let Some(pool) = u8::try_from(index).ok().and_then(PoolId::new) else {
                continue;
            };
            if due >> index & 1 != 0 {
                self.serve(state, pool, now_ns);
            }
        }
        state.first = (state.first + 1) % PoolId::MAX;
    }

    fn serve(&self, state: &mut State, pool: PoolId, now_ns: u64) {
        let bit: PoolMask = 1 << pool.index();
        let Some(target) = self.mailbox.target(pool) else {
            // Nobody's interrupt stays masked until somebody is attached, which kicks.
            state.settle(pool, Polled::default());
            return;
        };
        let mut polled = target.poll(now_ns, BUDGET);
        if !polled.more && state.armed & bit == 0 {
            // What the poll above has seen need not interrupt again; what comes after the
            // acknowledgement is seen by the poll below or interrupts once armed.
            self.source.acknowledge(pool);
            polled = target.poll(now_ns, BUDGET);
            if !polled.more {
                self.source.arm(pool);
                state.armed |= bit;
            }
        }
        state.settle(pool, polled);
    }
}

impl State {
    /// The pools that have something to do at `now_ns`.
    fn due(&self, events: Events, now_ns: u64) -> PoolMask {
        let mut due = self.busy | events.pools();
        for (index, deadline) in self.deadlines.iter().enumerate() {
            if deadline.is_some_and(|at| at <= now_ns) {
                due |= 1 << index;
            }
        }
        due
    }

    fn settle(&mut self, pool: PoolId, polled: Polled) {
        let bit: PoolMask = 1 << pool.index();
        if polled.more {
            self.busy |= bit;
        } else {
            self.busy &= !bit;
        }
        if let Some(deadline) = self.deadlines.get_mut(pool.index()) {
            *deadline = polled.deadline_ns;
        }
    }
}

/// All pools in order.
fn pools() -> impl Iterator<Item = PoolId> {
    (0..PoolId::MAX).filter_map(|index| PoolId::new(u8::try_from(index).ok()?))
}
