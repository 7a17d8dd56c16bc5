// SPDX-License-Identifier: GPL-2.0

//! Hardware that fails or is taken away while a slice is open.

use super::{
    Hardware,
    Slice,
    StopReason,
    Stopped, //
};
use crate::map::PageRange;
use crate::platform::{
    HwError,
    Platform, //
};
use crate::vf::Queue;

impl StopReason {
    /// Which of two reasons an administrator needs to see.
    pub(super) const fn gravity(&self) -> u8 {
        match self {
            // Memory may be lost for ever.
            Self::Hardware(HwError::Timeout) => 2,
            Self::Hardware(HwError::Gone) => 1,
            Self::Fault(_) | Self::Refused(_) | Self::MemoryRemoved => 0,
        }
    }
}

impl<P: Platform> Slice<P> {
    /// The NIC has left, or its owner wants it back. Queues that run are stopped for
    /// [`HwError::Gone`], every page is unpinned that the NIC let go of, and the guest sees the link
    /// go down. The platform's queues do not start any more, so that all stays at rest whatever the
    /// guest does until the slice is closed.
    pub fn withdraw(&mut self, now_ns: u64) {
        self.stop_queues(Some(StopReason::Hardware(HwError::Gone)), now_ns);
        let everything = PageRange::from_bytes(0, u64::MAX);
        if let (Some(open), Some(everything)) = (&mut self.open, everything) {
            open.invalidate(everything);
        }
        self.link_changed(now_ns);
    }

    /// Takes the hardware from the slice for good, though the VMM has it open and keeps it: stops the
    /// queues and unpins what the NIC let go of. The slice does nothing any more, and says why, until
    /// it is closed.
    pub fn end(&mut self, now_ns: u64) -> Option<Hardware<P>> {
        self.stop_queues(None, now_ns);
        // Others can have the addresses that the guest had asked for.
        if let Some(open) = &mut self.open {
            open.reset_filters(self.function.identity().mac, &self.policy);
        }
        let hardware = self.dismantle()?;
        for queue in [Queue::Rx, Queue::Tx] {
            self.record(Stopped {
                queue,
                reason: StopReason::Hardware(HwError::Gone),
            });
        }
        Some(hardware)
    }

    /// What is left when both queues have been stopped.
    pub(super) fn dismantle(&mut self) -> Option<Hardware<P>> {
        let (hardware, maps) = self.open.take()?.dismantle();
        self.past_maps = maps.after(&self.past_maps).at_rest();
        self.function.reset();
        Some(hardware)
    }
}
