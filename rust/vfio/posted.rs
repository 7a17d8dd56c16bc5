// SPDX-License-Identifier: GPL-2.0

//! Register writes that wait for whoever has the slice's lock; see `Door` in core.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};
use sluice_core::handover::Fifo;

/// Writes that can wait. A guest's vCPUs rarely have more than one each.
pub(super) const CAPACITY: usize = 16;

/// A write to a register: offset in BAR0, and value.
pub(super) type Write = (u32, u32);

/// The queue. Its lock is innermost and held for a few instructions.
#[pin_data]
pub(super) struct Posted {
    #[pin]
    fifo: SpinLock<Fifo<Write, CAPACITY>>,
}

impl Posted {
    /// An empty queue.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            fifo <- new_spinlock!(Fifo::new()),
        })
    }

    /// Queues a write; `false` when the queue is full.
    pub(super) fn push(&self, write: Write) -> bool {
        self.fifo.lock().push(write)
    }

    /// The oldest write. For the holder of the slice's lock.
    pub(super) fn pop(&self) -> Option<Write> {
        self.fifo.lock().pop()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.fifo.lock().is_empty()
    }
}
