// SPDX-License-Identifier: GPL-2.0

//! What the function refused, and why.

macro_rules! refusals {
    ($($(#[$doc:meta])+ $variant:ident => $name:literal,)+) => {
        /// Why an access, or a part of its effect, was refused. One variant and one counter for
        /// each rule of the model.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Refusal {
            $($(#[$doc])+ $variant,)+
        }

        impl Refusal {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$variant,)+];

            /// Name of the counter, for attributes and logs.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Refusal::$variant => $name,)+
                }
            }
        }
    };
}

refusals! {
    /// No register of this name: reads zero, a write is dropped.
    UnknownRegister => "unknown_register",
    /// Registers are accessed by 32 bits at a time (datasheet 8.1).
    BadWidth => "bad_width",
    /// A 32-bit access at an address that is no multiple of 4.
    Misaligned => "misaligned",
    /// Write to a register that can only be read.
    ReadOnly => "read_only",
    /// Read of a register that can only be written.
    WriteOnly => "write_only",
    /// The ring, its layout or its head may not change while the queue runs.
    QueueBusy => "queue_busy",
    /// Software may set a head to zero only.
    HeadNonZero => "head_non_zero",
    /// A queue is enabled only with its head at zero.
    HeadNotReset => "head_not_reset",
    /// A slice has one queue pair; the second exists, but does not run.
    SecondQueue => "second_queue",
    /// Ring length is zero or beyond 4096 descriptors.
    RingLength => "ring_length",
    /// The ring reaches past the end of the address space.
    RingWraps => "ring_wraps",
    /// Receive descriptor type that the data path does not know.
    RxDescType => "rx_desc_type",
    /// Receive buffer size of zero, or beyond what the data path carries.
    RxBufferSize => "rx_buffer_size",
    /// Head write-back would let the device write where no descriptor says so.
    HeadWriteBack => "head_write_back",
    /// The function is still being reset (RSTI is shown).
    ResetPending => "reset_pending",
    /// The guest used the mailbox without owning it (VFU).
    MailboxNotOwned => "mailbox_not_owned",
    /// The guest asked for the mailbox while the host owns it (PFU).
    MailboxBusy => "mailbox_busy",
    /// A request before the guest sent a reset request, or after it lost its clearance.
    MailboxNotClear => "mailbox_not_clear",
    /// A message that is none of the known requests, or has values out of range.
    MailboxUnknown => "mailbox_unknown",
    /// The guest asked for an address that the administrator does not let it have.
    MacNotAllowed => "mac_not_allowed",
    /// The guest asked for an address that another slice has, or for more than its share of filters.
    MacUnavailable => "mac_unavailable",
    /// The guest asked for a VLAN that the administrator does not let it join.
    VlanJoinDenied => "vlan_join_denied",
    /// The guest asked for more VLANs than its share of the NIC's table.
    VlanUnavailable => "vlan_unavailable",
    /// The guest asked for more multicast hashes than the administrator lets it have.
    MulticastLimit => "multicast_limit",
    /// The guest asked for promiscuous reception.
    PromiscDenied => "promisc_denied",
    /// The guest asked for longer frames than the NIC receives.
    FrameLimit => "frame_limit",
    /// Access past the end of configuration space.
    ConfigOutOfRange => "config_out_of_range",
    /// Write to a part of configuration space with nothing writable in it.
    ConfigReadOnly => "config_read_only",
    /// Access beside the MSI-X table and pending bits.
    MsixOutOfRange => "msix_out_of_range",
    /// A cause was routed to a vector that the function does not have.
    NoSuchVector => "no_such_vector",
}

/// Events of one function since it was made. They survive resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    refused: [u64; Refusal::ALL.len()],
    /// Requests taken from the mailbox and passed to the host.
    pub mailbox_requests: u64,
    /// Replies with "accepted".
    pub mailbox_acks: u64,
    /// Replies with "refused", those of the model included.
    pub mailbox_nacks: u64,
    /// Unasked messages to the guest (link changes).
    pub mailbox_pings: u64,
    /// Resets by CTRL.RST.
    pub control_resets: u64,
    /// Function level resets.
    pub function_resets: u64,
    /// Resets asked for by the VMM.
    pub vmm_resets: u64,
    /// Queues that the host could not start.
    pub enable_failures: u64,
    /// Interrupts signalled, of all vectors.
    pub signals: u64,
    /// Causes that met no valid vector assignment.
    pub unrouted: u64,
}

impl Counters {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            refused: [0; Refusal::ALL.len()],
            mailbox_requests: 0,
            mailbox_acks: 0,
            mailbox_nacks: 0,
            mailbox_pings: 0,
            control_resets: 0,
            function_resets: 0,
            vmm_resets: 0,
            enable_failures: 0,
            signals: 0,
            unrouted: 0,
        }
    }

    /// How often `reason` applied.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refused.get(reason as usize).copied().unwrap_or(0)
    }

    /// Refusals of every kind.
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().fold(0, |sum, &n| sum.wrapping_add(n))
    }

    pub(super) fn refuse(&mut self, reason: Refusal) {
        if let Some(n) = self.refused.get_mut(reason as usize) {
            *n = n.wrapping_add(1);
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}
