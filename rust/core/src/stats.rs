// SPDX-License-Identifier: GPL-2.0

//! Counters of one slice.

use crate::check::Rejection;

/// One direction's counters. All of them only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathStats {
    /// Frames on the wire: a TSO packet counts as many as it is cut into.
    pub packets: u64,
    /// Bytes on the wire, from destination address to FCS, with VLAN tag (what VFGORC and VFGOTC
    /// count; 82576 datasheet 8.19).
    pub bytes: u64,
    /// Frames to a multicast address, broadcast left out (VFMPRC). Receive only.
    pub multicast: u64,
    /// Frames that the NIC marked as damaged. Receive only; not in [`Self::packets`].
    pub errors: u64,
    /// Guest descriptors copied and checked. Always the sum of [`Self::contexts`],
    /// [`Self::posted`], [`Self::dropped`], [`Self::filtered`], [`Self::faulted`] and what is held at
    /// the moment.
    pub taken: u64,
    /// Guest descriptors that set a context. Transmit only.
    pub contexts: u64,
    /// Guest descriptors whose buffers were shown to the NIC.
    pub posted: u64,
    /// Of [`Self::posted`]: written back by the NIC.
    pub completed: u64,
    /// Of [`Self::posted`]: still in flight when the queue was stopped.
    pub abandoned: u64,
    /// Guest descriptors given up before they were posted because the queue was stopped.
    pub dropped: u64,
    /// Guest descriptors of frames that were not sent because of what is in them. Transmit only.
    pub filtered: u64,
    /// Guest descriptors given up because one of their packet broke a rule.
    pub faulted: u64,
    /// Packets (transmit) or buffers (receive) that were copied by the CPU.
    pub bounced: u64,
    /// Bytes of these.
    pub copied_bytes: u64,
    /// Polls that ended because the shadow ring or the map was full.
    pub busy: u64,
    /// Doorbells rung.
    pub doorbells: u64,
}

/// A slice's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Transmit.
    pub tx: PathStats,
    /// Receive.
    pub rx: PathStats,
    rejections: [u64; Rejection::COUNT],
}

impl Stats {
    /// All zero.
    pub const fn new() -> Self {
        const ZERO: PathStats = PathStats {
            packets: 0,
            bytes: 0,
            multicast: 0,
            errors: 0,
            taken: 0,
            contexts: 0,
            posted: 0,
            completed: 0,
            abandoned: 0,
            dropped: 0,
            filtered: 0,
            faulted: 0,
            bounced: 0,
            copied_bytes: 0,
            busy: 0,
            doorbells: 0,
        };
        Self {
            tx: ZERO,
            rx: ZERO,
            rejections: [0; Rejection::COUNT],
        }
    }

    /// Counts a rejection under its name.
    pub fn reject(&mut self, rejection: Rejection) {
        if let Some(count) = self.rejections.get_mut(rejection.index()) {
            *count += 1;
        }
    }

    /// How often a rule was broken.
    pub fn rejected(&self, rejection: Rejection) -> u64 {
        self.rejections.get(rejection.index()).copied().unwrap_or(0)
    }

    /// Every rule with its count, in the order of [`Rejection::ALL`].
    pub fn rejections(&self) -> impl Iterator<Item = (Rejection, u64)> + '_ {
        Rejection::ALL.iter().map(|r| (*r, self.rejected(*r)))
    }

    /// Rules broken, in all: each one stopped a queue or kept it from starting.
    pub fn faults(&self) -> u64 {
        let stops = self.rejections().filter(|(rule, _)| !rule.drops_frame());
        stops.map(|(_, count)| count).sum()
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}
