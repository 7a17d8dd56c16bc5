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
    /// The lowest number.
    first: u16,
    /// Buffers taken in so far.
    known: u16,
    /// Buffers that the NIC may use for ever.
    lost: u16,
}

impl<A: Alloc> Slots<A> {
    /// Room for `max` buffers from number `first` on, with those that `bounce` has. `None` when out of
    /// memory. Sleeps.
    pub(crate) fn new<B: Bounce>(first: u16, max: u16, bounce: &B) -> Option<Self> {
        let mut slots = Self {
            numbers: A::filled(max.into(), |_| 0)?,
            free: 0,
            first,
            known: 0,
            lost: 0,
        };
        slots.grow(bounce);
        Some(slots)
    }

    /// Buffers 0 to `count`, not included, which the caller knows to be there. `None` when out of
    /// memory. Sleeps.
    pub(crate) fn all(count: u16) -> Option<Self> {
        Some(Self {
            numbers: A::filled(count.into(), |number| number as u16)?,
            free: count.into(),
            first: 0,
            known: count,
            lost: 0,
        })
    }

    /// Takes in what `bounce` has got since.
    pub(crate) fn grow<B: Bounce>(&mut self, bounce: &B) {
        while usize::from(self.known) < self.numbers.len() {
            let number = self.first.saturating_add(self.known);
            if bounce.bus(number).is_none() {
                return;
            }
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
