// SPDX-License-Identifier: GPL-2.0

//! Where we are in a ring that the NIC reads, and the proofs that it has done with memory.

use core::marker::PhantomData;

use crate::platform::{
    HwError,
    HwQueue,
    RxLayout, //
};

/// Proof that a queue has been stopped: none of its descriptors is in flight.
#[derive(Debug)]
#[must_use]
pub struct Quiesced(());

impl Quiesced {
    /// Every page that only this queue named is at rest.
    pub fn at_rest(&self) -> AtRest<'_> {
        AtRest(PhantomData)
    }
}

/// Proof that the NIC wrote a descriptor back: it has done with that descriptor's buffers and
/// with those of all descriptors before it (the queue retires in order; 82576 datasheet 7.2.3).
#[derive(Debug)]
#[must_use]
pub struct WrittenBack(());

impl WrittenBack {
    /// Every page named up to that descriptor is at rest.
    pub fn at_rest(&self) -> AtRest<'_> {
        AtRest(PhantomData)
    }
}

/// Proof that the NIC no longer uses a page, which invariant 3 asks for before an unpin. Comes
/// from [`Quiesced`] or [`WrittenBack`] only.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct AtRest<'a>(PhantomData<&'a ()>);

/// Position in a shadow ring. The queue itself is passed in by its owner, always the same.
///
/// One slot stays free, so that a full ring differs from an empty one.
#[derive(Debug)]
pub struct ShadowRing {
    len: u16,
    /// Oldest slot in flight.
    head: u16,
    /// Next slot to write.
    tail: u16,
    /// Tail that the NIC was told.
    told: u16,
}

impl ShadowRing {
    /// For a queue of `len` descriptors, a power of two of at least 2.
    pub const fn new(len: u16) -> Option<Self> {
        if len < 2 || !len.is_power_of_two() {
            return None;
        }
        Some(Self {
            len,
            head: 0,
            tail: 0,
            told: 0,
        })
    }

    const fn mask(&self) -> u16 {
        self.len - 1
    }

    /// Number of slots.
    pub const fn len(&self) -> u16 {
        self.len
    }

    /// Whether nothing is in flight.
    pub const fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Slots in flight.
    pub const fn used(&self) -> u16 {
        self.tail.wrapping_sub(self.head) & self.mask()
    }

    /// Slots that can be written.
    pub const fn free(&self) -> u16 {
        self.mask() - self.used()
    }

    /// Oldest slot in flight.
    pub const fn head(&self) -> u16 {
        self.head
    }

    /// Slot that the next [`Self::push`] writes.
    pub const fn tail(&self) -> u16 {
        self.tail
    }

    /// Slot `steps` after the oldest one in flight.
    pub const fn after_head(&self, steps: u16) -> u16 {
        self.head.wrapping_add(steps) & self.mask()
    }

    /// Slot `steps` after the next one to write.
    pub const fn after_tail(&self, steps: u16) -> u16 {
        self.tail.wrapping_add(steps) & self.mask()
    }

    /// Starts the queue, empty.
    pub(crate) fn start<Q: HwQueue>(
        &mut self,
        queue: &mut Q,
        layout: RxLayout,
    ) -> Result<(), HwError> {
        queue.start(layout)?;
        self.head = 0;
        self.tail = 0;
        self.told = 0;
        Ok(())
    }

    /// Writes a descriptor, not yet shown to the NIC. Only for words made from pages mapped for
    /// the slice; hence not public. The caller has seen that there is a free slot.
    pub(crate) fn push<Q: HwQueue>(&mut self, queue: &mut Q, words: [u64; 2]) {
        queue.write(self.tail, words);
        self.tail = self.after_tail(1);
    }

    /// Shows what was pushed to the NIC: one doorbell for all. `false` if there was nothing.
    pub(crate) fn flush<Q: HwQueue>(&mut self, queue: &mut Q) -> bool {
        if self.told == self.tail {
            return false;
        }
        queue.doorbell(self.tail);
        self.told = self.tail;
        true
    }

    /// The descriptor `steps` after the oldest one in flight, if it was written back, which
    /// `is_done` tells from its words.
    pub(crate) fn written_back<Q: HwQueue>(
        &self,
        queue: &Q,
        steps: u16,
        is_done: impl FnOnce([u64; 2]) -> bool,
    ) -> Option<([u64; 2], WrittenBack)> {
        if steps >= self.used() {
            return None;
        }
        let words = queue.read(self.after_head(steps));
        is_done(words).then_some((words, WrittenBack(())))
    }

    /// Forgets the `count` oldest slots.
    pub(crate) fn retire(&mut self, count: u16) {
        self.head = self.after_head(count.min(self.used()));
    }

    /// Stops the queue. On an error nothing may be assumed to be at rest.
    pub(crate) fn stop<Q: HwQueue>(&mut self, queue: &mut Q) -> Result<Quiesced, HwError> {
        queue.stop()?;
        Ok(Quiesced(()))
    }
}
