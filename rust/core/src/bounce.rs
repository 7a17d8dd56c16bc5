// SPDX-License-Identifier: GPL-2.0

//! Which host buffers are free.

use crate::platform::{
    Alloc,
    Bounce, //
};

/// Numbers of the host buffers of one queue.
pub(crate) struct Slots<A: Alloc> {
    /// The first `free` entries are free buffers.
    numbers: A::Buf<u16>,
    free: usize,
    /// Buffers taken in so far.
    known: u16,
    /// Buffers that the NIC may use for ever.
    lost: u16,
}

impl<A: Alloc> Slots<A> {
    /// Room for `max` buffers, with those that `bounce` has. `None` when out of memory. Sleeps.
    pub(crate) fn new<B: Bounce>(max: u16, bounce: &B) -> Option<Self> {
        let mut slots = Self {
            numbers: A::filled(max.into(), |_| 0)?,
            free: 0,
            known: 0,
            lost: 0,
        };
        slots.grow(bounce);
        Some(slots)
    }

    /// Takes in what `bounce` has got since.
    pub(crate) fn grow<B: Bounce>(&mut self, bounce: &B) {
        while usize::from(self.known) < self.numbers.len() && bounce.bus(self.known).is_some() {
            let number = self.known;
            self.known += 1;
            self.give(number);
        }
    }

    /// Buffers that are not lost.
    pub(crate) const fn usable(&self) -> u16 {
        self.known - self.lost
    }

    /// Free buffers.
    pub(crate) const fn free(&self) -> u16 {
        // No more than `known`.
        self.free as u16
    }

    /// A free buffer.
    pub(crate) fn take(&mut self) -> Option<u16> {
        let last = self.free.checked_sub(1)?;
        let number = *self.numbers.get(last)?;
        self.free = last;
        Some(number)
    }

    /// Buffer `number` is free again.
    pub(crate) fn give(&mut self, number: u16) {
        if let Some(slot) = self.numbers.get_mut(self.free) {
            *slot = number;
            self.free += 1;
        }
    }

    /// The NIC may use a buffer for ever: it is not given back.
    pub(crate) fn lose(&mut self) {
        self.lost = self.lost.saturating_add(1).min(self.known);
    }
}
