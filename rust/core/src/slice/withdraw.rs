// SPDX-License-Identifier: GPL-2.0

//! Hardware that fails or is taken away while a slice is open.

use super::{
    Slice,
    StopReason, //
};
use crate::map::PageRange;
use crate::platform::{
    HwError,
    Platform, //
};

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
}
