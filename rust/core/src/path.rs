// SPDX-License-Identifier: GPL-2.0

//! What the transmit and the receive path have in common.

use crate::check::Rejection;
use crate::platform::{
    HwError,
    Platform, //
};
use crate::ring::RingIndex;
use crate::stats::Stats;

/// What a path works with. Lent anew for each call; a path must always be given the same queue.
pub struct Io<'a, P: Platform, M> {
    /// The path's queue of the NIC.
    pub queue: &'a mut P::Queue,
    /// The slice's pins.
    pub pinner: &'a mut P::Pinner,
    /// The slice's mappings.
    pub map: &'a mut M,
    /// The path's host buffers.
    pub bounce: &'a mut P::Bounce,
    /// The slice's counters.
    pub stats: &'a mut Stats,
}

/// A rule broken by a guest: the queue takes no more descriptors until it is stopped and enabled
/// again. What was posted before completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule.
    pub rejection: Rejection,
    /// Guest descriptor at which it showed.
    pub index: RingIndex,
    /// The offending value: a descriptor's second word, an address, or a tail.
    pub value: u64,
}

/// What a poll did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Guest descriptors copied.
    pub taken: u16,
    /// Packets (transmit) or buffers (receive) shown to the NIC.
    pub posted: u16,
    /// Packets (transmit) or buffers (receive) that the NIC has done with.
    pub completed: u16,
    /// Something was completed that the guest wants to hear of.
    pub notify: bool,
    /// The shadow ring or the map is full: poll again after completions.
    pub busy: bool,
    /// The budget ran out before the work did: poll again at once.
    pub more: bool,
    /// A rule was broken in this poll. Later ones report it no more; see the path's `fault`.
    pub fault: Option<Fault>,
}

impl Progress {
    /// Whether anything happened; a worker that sees none for a while may sleep.
    pub const fn any(&self) -> bool {
        self.taken != 0 || self.posted != 0 || self.completed != 0 || self.fault.is_some()
    }
}

/// Why a queue could not be enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableError {
    /// The guest's ring breaks a rule; it was counted.
    Refused(Rejection),
    /// The NIC's queue did not start.
    Hw(HwError),
    /// The queue is enabled already.
    Running,
}

impl From<Rejection> for EnableError {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

/// Life of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No guest ring.
    Off,
    /// Takes descriptors.
    Running,
    /// Completes what was posted and takes no more.
    Faulted(Fault),
}
