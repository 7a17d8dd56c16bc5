// SPDX-License-Identifier: GPL-2.0

//! Events for one thread, which sleeps while there are none.

/// A number that threads share.
pub trait Word {
    /// Reads it. Orders nothing.
    fn load(&self) -> u64;
    /// Replaces `old` by `new`; fully ordered. What is there instead on an error, which orders
    /// nothing.
    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64>;
    /// Replaces the number and returns the old one; fully ordered.
    fn swap(&self, new: u64) -> u64;
}

/// What has happened since the thread last looked, one bit for each kind of event.
///
/// The thread takes the events, does what they ask for, and goes to sleep; but not if
/// [`Self::is_any`], asked after it was marked as sleeping. Whoever posts an event adds it first
/// and wakes the thread afterwards. So one of the two comes second, and sees the other.
///
/// An event that is posted while it is pending orders nothing: what it stands for must be under a
/// lock that the thread takes as well.
pub struct Pending<W>(W);

impl<W: Word> Pending<W> {
    /// `word` is zero: nothing has happened.
    pub const fn new(word: W) -> Self {
        Self(word)
    }

    /// Adds events. If this returns `true`, the thread must be woken.
    #[must_use]
    pub fn post(&self, events: u64) -> bool {
        let mut seen = self.0.load();
        // Bounded in practice: it repeats only when another CPU has just changed an event.
        while seen & events != events {
            match self.0.compare_exchange(seen, seen | events) {
                Ok(()) => return true,
                Err(now) => seen = now,
            }
        }
        // All of it was already pending: whoever posted it wakes the thread, which has not looked.
        false
    }

    /// Takes all events. For the thread.
    pub fn take(&self) -> u64 {
        self.0.swap(0)
    }

    /// Whether something has happened.
    pub fn is_any(&self) -> bool {
        self.0.load() != 0
    }
}
