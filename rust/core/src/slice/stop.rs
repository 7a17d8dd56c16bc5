// SPDX-License-Identifier: GPL-2.0

//! Queues that stop: because the guest disabled them, broke a rule, or lost the memory under them.

use super::{
    Open,
    Slice,
    StopReason,
    Stopped, //
};
use crate::addr::GuestAddr;
use crate::map::PageRange;
use crate::platform::Platform;
use crate::vf::{
    Queue,
    QueueState, //
};

impl<P: Platform> Slice<P> {
    /// Whether the guest has disabled a queue, which has not been stopped yet.
    pub(super) fn is_disabling(&self, queue: Queue) -> bool {
        self.function.queue_state(queue) == QueueState::Disabling
    }

    /// Whether a queue is to be stopped by somebody who may wait for the NIC.
    pub(super) fn wants_stop(&self, queue: Queue) -> bool {
        let faulted = |open: &Open<P>| open.has_faulted(queue);
        self.is_disabling(queue) || self.open.as_ref().is_some_and(faulted)
    }

    /// The VMM takes memory away. When this returns no page of the range is pinned for the slice,
    /// save those that the NIC would not let go of, which stay pinned and are counted as leaked.
    pub fn dma_unmap(&mut self, iova: GuestAddr, len_bytes: u64, now_ns: u64) {
        let Some(range) = PageRange::from_bytes(iova.raw(), len_bytes) else {
            return;
        };
        for queue in [Queue::Rx, Queue::Tx] {
            if self
                .open
                .as_ref()
                .is_some_and(|o| o.ring_touches(queue, range))
            {
                self.stop_without_memory(queue, now_ns);
            }
        }
        // What is idle goes at once; what is in flight goes when its queue has stopped. The other
        // queue goes on.
        for queue in [Queue::Rx, Queue::Tx] {
            let Some(open) = &mut self.open else {
                return;
            };
            if open.invalidate(range) == 0 {
                break;
            }
            if open.uses(queue, range) {
                self.stop_without_memory(queue, now_ns);
            }
        }
        if let Some(open) = &mut self.open {
            open.invalidate(range);
        }
        self.signal(now_ns);
    }

    /// Stops a queue that loses its memory. The guest is not to blame where it had disabled the queue: it
    /// would have been stopped all the same.
    fn stop_without_memory(&mut self, queue: Queue, now_ns: u64) {
        let reason = (!self.is_disabling(queue)).then_some(StopReason::MemoryRemoved);
        self.stop_queue(queue, reason, now_ns);
    }

    pub(super) fn record(&mut self, stopped: Stopped) {
        for place in [&mut self.stopped, &mut self.unreported] {
            // What the NIC failed to do is not hidden by what came of it.
            if place.is_none_or(|before| before.reason.gravity() <= stopped.reason.gravity()) {
                *place = Some(stopped);
            }
        }
    }

    pub(super) fn stop_queues(&mut self, reason: Option<StopReason>, now_ns: u64) {
        self.stop_queue(Queue::Rx, reason, now_ns);
        self.stop_queue(Queue::Tx, reason, now_ns);
    }

    /// Stops a queue and tells the model. `reason` if the guest did not ask for it.
    pub(super) fn stop_queue(&mut self, queue: Queue, reason: Option<StopReason>, _now_ns: u64) {
        let Some(open) = &mut self.open else {
            return;
        };
        let before = (self.stats.tx, self.stats.rx);
        let was_running = open.queue_runs(queue);
        let result = open.stop(queue, &mut self.stats);
        self.account(&before);
        if let Err(error) = result {
            self.record(Stopped {
                queue,
                reason: StopReason::Hardware(error),
            });
        } else if let (Some(reason), true) = (reason, was_running) {
            self.record(Stopped { queue, reason });
        }
        let _ = self.function.queue_enabled(queue, false);
    }
}
