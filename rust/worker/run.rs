// SPDX-License-Identifier: GPL-2.0

//! The worker's thread.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use sluice_core::{
    addr::PoolId,
    turns::{
        Pools,
        Turns, //
    }, //
};

use super::{
    Mailbox,
    Pollable,
    Polled,
    Source, //
};
use crate::sys::{
    thread::{
        Body,
        Current,
        Thread, //
    },
    time::now_ns,
};

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

impl<S: Source> Body for Loop<S> {
    fn run(&self, current: &Current) {
        let mut turns = Turns::new();
        while !current.should_stop() {
            let events = self.mailbox.take();
            if events.has_link() && self.source.link_event() {
                self.link_changed();
            }
            turns.fired(events.fired());
            let now_ns = now_ns();
            let due = turns.due(events.pools(), now_ns);
            if due == 0 {
                current.park(turns.deadline_ns(), || self.mailbox.is_pending());
            } else {
                turns.round(due, &mut Round { run: self, now_ns });
                current.cond_resched();
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
}

/// One round, which began at `now_ns`.
struct Round<'a, S> {
    run: &'a Loop<S>,
    now_ns: u64,
}

impl<S: Source> Pools for Round<'_, S> {
    type Owner = Arc<dyn Pollable>;

    fn owner(&mut self, pool: PoolId) -> Option<Self::Owner> {
        self.run.mailbox.target(pool)
    }

    fn poll(&mut self, owner: &Self::Owner, budget: u16) -> Polled {
        owner.poll(self.now_ns, budget)
    }

    fn acknowledge(&mut self, pool: PoolId) {
        self.run.source.acknowledge(pool);
    }

    fn arm(&mut self, pool: PoolId) {
        self.run.source.arm(pool);
    }
}

/// All pools in order.
fn pools() -> impl Iterator<Item = PoolId> {
    (0..PoolId::MAX).filter_map(|index| PoolId::new(u8::try_from(index).ok()?))
}
