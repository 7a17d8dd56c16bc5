// SPDX-License-Identifier: GPL-2.0

//! Register writes that wait for whoever has the slice's lock.
//!
//! A real function's registers are written without waiting: the bus posts the write. Here the
//! worker has the slice's lock for a burst of packets at a time, and a vCPU that rings a doorbell
//! should not wait for the end of it. So frequent writes go into a short queue; whoever has the lock
//! carries them out, in order, and every access that takes the lock finds them carried out first.
//!
//! None is forgotten. The writer pushes, and then tries the slice's lock; the holder frees the lock,
//! and then looks at the queue. Both do so under the queue's own lock, so one of the two comes
//! second and sees the other.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};

/// Writes that can wait. A guest's vCPUs rarely have more than one each.
pub(super) const CAPACITY: usize = 16;

/// A write to a register: offset in BAR0, and value.
pub(super) type Write = (u32, u32);

/// The queue. Its lock is innermost and held for a few instructions.
#[pin_data]
pub(super) struct Posted {
    #[pin]
    fifo: SpinLock<Fifo>,
}

struct Fifo {
    writes: [Write; CAPACITY],
    /// Index of the oldest.
    first: usize,
    len: usize,
}

impl Posted {
    /// An empty queue.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            fifo <- new_spinlock!(Fifo {
                writes: [(0, 0); CAPACITY],
                first: 0,
                len: 0,
            }),
        })
    }

    /// Queues a write; `false` when the queue is full.
    pub(super) fn push(&self, write: Write) -> bool {
        let mut fifo = self.fifo.lock();
        if fifo.len >= CAPACITY {
            return false;
        }
        let at = (fifo.first + fifo.len) % CAPACITY;
        if let Some(place) = fifo.writes.get_mut(at) {
            *place = write;
            fifo.len += 1;
        }
        true
    }

    /// The oldest write. For the holder of the slice's lock.
    pub(super) fn pop(&self) -> Option<Write> {
        let mut fifo = self.fifo.lock();
        fifo.len = fifo.len.checked_sub(1)?;
        let at = fifo.first;
        fifo.first = (at + 1) % CAPACITY;
        fifo.writes.get(at).copied()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.fifo.lock().len == 0
    }
}
