// SPDX-License-Identifier: GPL-2.0

//! Moving descriptors, and signalling what is due.

use super::{
    Slice,
    StopReason,
    Stopped, //
};
use crate::path::Progress;
use crate::platform::Platform;
use crate::stats::PathStats;
use crate::vf::Queue;

/// What a poll leaves to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// Poll again at once.
    pub more: bool,
    /// Poll again at this time at the latest: an interrupt is held back until then.
    pub deadline_ns: Option<u64>,
    /// A queue broke a rule and awaits [`Slice::poll`], which stops it.
    pub stop_wanted: bool,
}

impl<P: Platform> Slice<P> {
    /// As [`Self::poll_hastily`], and stops queues that broke a rule, which waits for the NIC.
    pub fn poll(&mut self, now_ns: u64, budget: u16) -> Polled {
        let mut polled = self.poll_hastily(now_ns, budget);
        if core::mem::take(&mut polled.stop_wanted) {
            for queue in [Queue::Rx, Queue::Tx] {
                if self.wants_stop(queue) {
                    self.stop_queue(queue, None, now_ns);
                }
            }
            polled.deadline_ns = self.signal(now_ns);
        }
        polled
    }

    /// Moves descriptors both ways, at most `budget` new ones of each queue, and signals what is
    /// due. Does not wait: a queue that breaks a rule takes no more descriptors, and stays so until
    /// [`Self::poll`] stops it.
    pub fn poll_hastily(&mut self, now_ns: u64, budget: u16) -> Polled {
        let mut polled = Polled::default();
        if self.function.bus_master() {
            for queue in [Queue::Rx, Queue::Tx] {
                polled.more |= self.poll_queue(queue, budget);
            }
        }
        polled.stop_wanted = self.wants_stop(Queue::Rx) || self.wants_stop(Queue::Tx);
        polled.deadline_ns = self.signal(now_ns);
        polled
    }

    /// Polls one queue; `true` if there is more to do at once.
    fn poll_queue(&mut self, queue: Queue, budget: u16) -> bool {
        if self.is_disabling(queue) {
            return false;
        }
        let tail = self.function.tail(queue);
        let Some(open) = &mut self.open else {
            return false;
        };
        if !open.queue_runs(queue) {
            return false;
        }
        let before = (self.stats.tx, self.stats.rx);
        let (progress, head) = open.poll(queue, tail, budget, &mut self.stats);
        self.account(&before);
        self.progressed(queue, &progress, head);
        if let Some(fault) = progress.fault {
            self.record(Stopped {
                queue,
                reason: StopReason::Fault(fault),
            });
            return false;
        }
        progress.more
    }

    /// Tells the model where a queue is.
    pub(super) fn progressed(&mut self, queue: Queue, progress: &Progress, head: u16) {
        self.function.set_head(queue, head);
        if progress.notify {
            self.function.raise(match queue {
                Queue::Tx => crate::vf::Cause::Tx0,
                Queue::Rx => crate::vf::Cause::Rx0,
            });
        }
    }

    /// Adds what the data path did since `before` to the function's statistics registers, which
    /// are 32 bits wide and wrap.
    pub(super) fn account(&mut self, (tx_before, rx_before): &(PathStats, PathStats)) {
        let since = |now: u64, before: u64| now.wrapping_sub(before) as u32;
        let (tx, rx) = (&self.stats.tx, &self.stats.rx);
        let delta = crate::vf::Stats {
            rx_frames: since(rx.packets, rx_before.packets),
            rx_bytes: since(rx.bytes, rx_before.bytes),
            rx_multicast: since(rx.multicast, rx_before.multicast),
            tx_frames: since(tx.packets, tx_before.packets),
            tx_bytes: since(tx.bytes, tx_before.bytes),
            ..Default::default()
        };
        self.function.add_stats(&delta);
    }

    /// Signals what is due; the time of what is held back.
    pub(super) fn signal(&mut self, now_ns: u64) -> Option<u64> {
        let signals = self.function.take_signals(now_ns);
        if let Some(open) = &mut self.open {
            for vector in signals.vectors.iter() {
                open.signal(vector);
            }
        }
        signals.deadline_ns
    }
}
