// SPDX-License-Identifier: GPL-2.0

//! The model of an Intel 82576 virtual function (8086:10ca): what the guest's `igbvf` drives.
//!
//! [`Function`] is a pure state machine. The guest's accesses go in; what they mean for the host
//! comes out as an [`Action`], which the caller carries out and, where it says so, confirms. No
//! value that a guest wrote reaches hardware through this module (invariant 5), every access takes
//! bounded time, and what the model does not name is refused and counted.
//!
//! Actions may be carried out later, on another thread, if that happens in their order. Answers to
//! what a reset has overtaken do nothing, as long as they come before [`Function::reset_done`].
//!
//! One queue pair of the two that a real function has is usable. The registers of the second exist
//! and read back, but it cannot be enabled.
//!
//! For a mode in which the guest writes tails and interrupt masks to shared memory, the pages'
//! contents come from [`Function::peek`] over [`regs::all`], and what the worker finds changed
//! goes through [`Function::mmio_write`] like any other access.

pub mod config;
pub mod counters;
mod function;
pub mod irq;
pub mod mailbox;
pub mod msix;
pub mod queue;
pub mod regs;

pub use counters::{
    Counters,
    Refusal, //
};
pub use function::Function;
pub use irq::{
    Cause,
    Signals,
    VectorMask, //
};
pub use mailbox::{
    Reply,
    Request, //
};
pub use queue::{
    Queue,
    QueueState,
    RxRing,
    TxRing, //
};

use crate::net::MacAddr;

/// Who the function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The address that the administrator gave to the slice; not valid for a station where the
    /// guest is to choose its own.
    pub mac: MacAddr,
}

/// Width of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Dword,
}

impl Width {
    /// From a length in bytes: 1, 2 or 4.
    pub const fn from_bytes(len: usize) -> Option<Self> {
        match len {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            _ => None,
        }
    }

    /// Length in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }

    /// The bits that such an access carries.
    pub const fn mask(self) -> u32 {
        match self {
            Self::Byte => 0xFF,
            Self::Word => 0xFFFF,
            Self::Dword => u32::MAX,
        }
    }
}

/// Which reset the guest asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// Function level reset: configuration space is reset too, and bus mastering is off.
    Flr,
    /// CTRL.RST: registers, queues, interrupts and mailbox.
    Ctrl,
}

/// What the caller has to do after an access.
///
/// After every action but [`Action::None`], and after what it leads to, the caller asks
/// [`Function::take_signals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Nothing.
    None,
    /// Start the transmit queue, then confirm with [`Function::queue_enabled`]. Tail moves
    /// meanwhile are kept, and come out of the confirmation.
    TxEnable(TxRing),
    /// As [`Action::TxEnable`], for the receive queue.
    RxEnable(RxRing),
    /// Stop the queue, then confirm with [`Function::queue_enabled`]. Until then its registers are
    /// locked and it cannot be enabled again.
    Disable(Queue),
    /// The guest moved the tail of a running queue. The value is as written: check it.
    Doorbell {
        /// Which queue.
        queue: Queue,
        /// The tail as written.
        tail: u32,
    },
    /// Do as asked, then answer with [`Function::mailbox_reply`]. Never [`Request::Unknown`],
    /// which is answered by the model.
    Mailbox(Request),
    /// Stop both queues, drop what was set up through the mailbox, then call
    /// [`Function::reset_done`]. The model is reset already; until then it accepts no request and
    /// enables no queue.
    Reset(ResetKind),
    /// The guest switched bus mastering. While it is off the data path touches no guest memory.
    BusMaster(bool),
    /// Only the state of interrupts changed.
    Signals,
}

/// What the data path did, to be added to the function's statistics registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames received (VFGPRC).
    pub rx_frames: u32,
    /// Bytes received, with FCS (VFGORC).
    pub rx_bytes: u32,
    /// Multicast frames received (VFMPRC).
    pub rx_multicast: u32,
    /// Frames that found no receive descriptor (RQDPC).
    pub rx_dropped: u32,
    /// Frames sent (VFGPTC).
    pub tx_frames: u32,
    /// Bytes sent, with FCS (VFGOTC).
    pub tx_bytes: u32,
    /// Frames received from other slices of the same card (VFGPRLBC).
    pub rx_local_frames: u32,
    /// Bytes of these (VFGORLBC).
    pub rx_local_bytes: u32,
    /// Frames sent to other slices of the same card (VFGPTLBC).
    pub tx_local_frames: u32,
    /// Bytes of these (VFGOTLBC).
    pub tx_local_bytes: u32,
}
