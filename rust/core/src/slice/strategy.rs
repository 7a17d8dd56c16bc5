// SPDX-License-Identifier: GPL-2.0

//! Another strategy for a slice, at any time.

use super::{
    Slice,
    StopReason,
    Stopped, //
};
use crate::map::Strategy;
use crate::platform::Platform;
use crate::vf::Queue;

/// The host is out of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl<P: Platform> Slice<P> {
    /// How long the guest's pages stay pinned.
    pub const fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Changes [`Self::strategy`], at any time; an error changes nothing. Sleeps.
    ///
    /// Strategies differ in what becomes of idle pages, and these are unpinned at once. Pages in flight
    /// are pinned under every strategy and are treated as the new one says when they come back, so
    /// that queues go on and nothing is lost. Only to [`Strategy::Copy`] and from there the queues are
    /// stopped and started again where they were, so that the change is complete on return: no guest
    /// page is mapped for the NIC under [`Strategy::Copy`]. That costs what a link costs that fails for
    /// a moment.
    pub fn set_strategy(&mut self, strategy: Strategy, now_ns: u64) -> Result<(), NoMemory> {
        let restart = self.strategy.copies() != strategy.copies();
        if let Some(open) = &mut self.open {
            if !open.set_strategy(strategy) {
                return Err(NoMemory);
            }
        }
        self.strategy = strategy;
        if restart {
            self.restart_queue(Queue::Rx);
            self.restart_queue(Queue::Tx);
            self.signal(now_ns);
            // Receive buffers are to be posted anew, and an interrupt may be held back.
            self.kicked = true;
        }
        Ok(())
    }

    pub(super) fn restart_queue(&mut self, queue: Queue) {
        let Some(open) = self.open.as_mut().filter(|open| open.queue_runs(queue)) else {
            return;
        };
        let before = (self.stats.tx, self.stats.rx);
        let result = open.restart(queue, &mut self.stats);
        self.account(&before);
        match result {
            Ok((progress, head)) => self.progressed(queue, &progress, head),
            Err(error) => {
                self.record(Stopped {
                    queue,
                    reason: StopReason::Hardware(error),
                });
                let _ = self.function.queue_enabled(queue, false);
            }
        }
    }
}
