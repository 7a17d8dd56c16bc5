// SPDX-License-Identifier: GPL-2.0

//! A lock for those who must not wait for it.
//!
//! A real function's registers are written without waiting: the bus posts the write. Here the
//! worker has the slice's lock for a burst of packets at a time, and a vCPU that rings a doorbell
//! should not wait for the end of it. So frequent writes go into a short queue; whoever has the lock
//! carries them out, in order, and every access that takes the lock finds them carried out first.
//!
//! None is forgotten. The writer pushes, and then tries the lock; the holder frees the lock, and then
//! looks at the queue. Both do so under the queue's own lock, so one of the two comes second and
//! sees the other. The worker, which does not wait for the lock either, says that it was there and
//! tries once more; the holder asks for that after it has freed the lock.

use core::ops::{
    Deref,
    DerefMut, //
};

/// A lock, the queue of what waits for its holder, and the worker, which is told.
pub trait Door {
    /// The lock, held. Dropping it frees the lock.
    type Guard<'a>
    where
        Self: 'a;
    /// What can wait.
    type Write;

    /// Takes the lock. Waits.
    fn wait(&self) -> Self::Guard<'_>;
    /// Takes the lock if it is free. Need not order anything if it is not.
    fn attempt(&self) -> Option<Self::Guard<'_>>;
    /// Says whether the worker has found the lock taken; what was said before. Fully ordered.
    fn note_in_vain(&self, in_vain: bool) -> bool;
    /// Queues a write, under the queue's own lock; `false` when the queue is full.
    fn push(&self, write: Self::Write) -> bool;
    /// Whether no write waits, seen under the queue's own lock.
    fn is_empty(&self) -> bool;
    /// Carries out writes in order, at most as many as the queue holds.
    fn carry_out(&self, guard: &mut Self::Guard<'_>);
    /// Has the worker come.
    fn kick(&self);

    /// Takes the lock. Waits: not for the worker.
    fn enter(&self) -> Held<'_, Self> {
        Held::new(self, self.wait())
    }

    /// Takes the lock if it is free. If not, the worker is kicked when it is. For the worker.
    fn try_enter(&self) -> Option<Held<'_, Self>> {
        let guard = self.attempt().or_else(|| {
            self.note_in_vain(true);
            self.attempt()
        })?;
        Some(Held::new(self, guard))
    }

    /// Takes the lock if it is free. If not, nobody is told.
    fn enter_if_free(&self) -> Option<Held<'_, Self>> {
        Some(Held::new(self, self.attempt()?))
    }

    /// Has a write carried out, by whoever has the lock, and does not wait. `false` if the queue is
    /// full, so that it has to be made under the lock.
    fn post(&self, write: Self::Write) -> bool {
        if !self.push(write) {
            return false;
        }
        if let Some(guard) = self.attempt() {
            drop(Held::new(self, guard));
        }
        true
    }
}

/// The lock of a [`Door`], held, with all that was posted before carried out.
pub struct Held<'a, D: Door + ?Sized> {
    guard: D::Guard<'a>,
    // Dropped after the field above, which frees the lock.
    _tell: Tell<'a, D>,
}

impl<'a, D: Door + ?Sized> Held<'a, D> {
    fn new(door: &'a D, mut guard: D::Guard<'a>) -> Self {
        // All that was there when the lock was had; what comes later is for the next holder.
        door.carry_out(&mut guard);
        Self {
            guard,
            _tell: Tell(door),
        }
    }
}

impl<'a, D: Door + ?Sized> Deref for Held<'a, D> {
    type Target = D::Guard<'a>;

    fn deref(&self) -> &Self::Target {
        &self.guard
    }
}

impl<D: Door + ?Sized> DerefMut for Held<'_, D> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.guard
    }
}

/// Has the worker try again if it came in vain, and carry out what was posted meanwhile.
struct Tell<'a, D: Door + ?Sized>(&'a D);

impl<D: Door + ?Sized> Drop for Tell<'_, D> {
    fn drop(&mut self) {
        // Fully ordered after the unlock, as the worker's note is before its second try: one of
        // the two sees the other.
        if self.0.note_in_vain(false) || !self.0.is_empty() {
            self.0.kick();
        }
    }
}

/// A short queue, oldest first.
#[derive(Debug)]
pub struct Fifo<T, const N: usize> {
    items: [T; N],
    /// Index of the oldest.
    first: usize,
    len: usize,
}

impl<T: Copy + Default, const N: usize> Fifo<T, N> {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            items: [T::default(); N],
            first: 0,
            len: 0,
        }
    }

    /// Adds an item; `false` when the queue is full.
    pub fn push(&mut self, item: T) -> bool {
        if self.len >= N {
            return false;
        }
        let at = (self.first + self.len) % N;
        if let Some(place) = self.items.get_mut(at) {
            *place = item;
            self.len += 1;
        }
        true
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        let at = self.first;
        self.first = (at + 1) % N;
        self.items.get(at).copied()
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T: Copy + Default, const N: usize> Default for Fifo<T, N> {
    fn default() -> Self {
        Self::new()
    }
}
