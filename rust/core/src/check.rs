// SPDX-License-Identifier: GPL-2.0

//! The rules that a guest can break, each with its name.
//!
//! A [`Rejection`] stops the queue it occurs on (or drops one frame: [`Rejection::drops_frame`]) and is
//! counted under its own name
//! ([`crate::stats::Stats::rejections`]), so that an administrator reads the rule and not a number.

use core::fmt;

use crate::platform::PinError;

macro_rules! rejections {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a guest's ring or descriptor was refused. One variant per rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Rejection {
            $($(#[$doc])* $variant,)*
        }

        impl Rejection {
            /// Every rule, in the order of [`Self::index`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// Number of rules.
            pub const COUNT: usize = Self::ALL.len();

            /// The rule's name as it is shown to the administrator (lower case, underscores).
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Position in [`Self::ALL`] and in counter tables; below [`Self::COUNT`].
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

rejections! {
    /// Ring base is not a multiple of 128 (82576 datasheet 8.10.5, 8.12.8).
    RingBaseUnaligned = "ring_base_unaligned",
    /// Ring length is zero, not a multiple of 128, or above 64 KiB.
    RingLength = "ring_length",
    /// Ring reaches past the top of the address space.
    RingWraps = "ring_wraps",
    /// Some of the ring is not guest memory, or not writable.
    RingNotMemory = "ring_not_memory",
    /// Two rings of one slice share bytes.
    RingsOverlap = "rings_overlap",
    /// Tail at or past the ring's end.
    TailOutsideRing = "tail_outside_ring",
    /// Transmit descriptor of the legacy kind (DEXT clear).
    LegacyDescriptor = "legacy_descriptor",
    /// DTYP is neither context nor data.
    DescriptorType = "descriptor_type",
    /// A reserved bit of a data descriptor is set.
    DataReservedBits = "data_reserved_bits",
    /// A reserved bit of a context descriptor is set.
    ContextReservedBits = "context_reserved_bits",
    /// Time stamp requested (MAC.1588): the clock is the host's.
    Timestamp = "timestamp",
    /// MACsec or IPsec requested: the keys are the host's.
    Encryption = "encryption",
    /// SNAP encapsulation flagged in a context.
    Snap = "snap",
    /// Context index other than 0 or 1.
    ContextIndex = "context_index",
    /// Data descriptor of length zero.
    EmptySegment = "empty_segment",
    /// Data descriptor asks the NIC to leave out the frame check sequence.
    FcsNotInserted = "fcs_not_inserted",
    /// Report Status on a descriptor that does not end a packet.
    ReportWithoutEop = "report_without_eop",
    /// Context descriptor between the data descriptors of one packet.
    ContextInsidePacket = "context_inside_packet",
    /// Data descriptors of one packet ask for different offloads.
    SegmentsDisagree = "segments_disagree",
    /// More data descriptors in a packet than [`crate::frame::MAX_SEGMENTS`].
    TooManySegments = "too_many_segments",
    /// More bus-contiguous pieces in a packet than [`crate::tx::MAX_PIECES`].
    TooManyPieces = "too_many_pieces",
    /// Frame shorter than the NIC can send.
    FrameTooShort = "frame_too_short",
    /// Frame longer than the slice may send.
    FrameTooLong = "frame_too_long",
    /// PAYLEN is not the sum of the segments (less the headers, for TSO).
    PayloadLength = "payload_length",
    /// An offload names a context that the guest has not written.
    ContextMissing = "context_missing",
    /// MACLEN below 14.
    MacHeaderLength = "mac_header_length",
    /// IPLEN is missing or too small for the offload.
    IpHeaderLength = "ip_header_length",
    /// L4T reserved, or not TCP for TSO.
    L4Type = "l4_type",
    /// L4LEN is not the length of a TCP header.
    L4HeaderLength = "l4_header_length",
    /// IP checksum requested for a packet whose context does not say IPv4.
    ChecksumNotIpv4 = "checksum_not_ipv4",
    /// TSO without the TCP checksum that each segment needs.
    TsoNoChecksum = "tso_no_checksum",
    /// Headers named by the context reach past the packet.
    HeaderBeyondPacket = "header_beyond_packet",
    /// MSS zero or below [`crate::frame::MIN_MSS`].
    MssTooSmall = "mss_too_small",
    /// MSS plus headers exceed the longest frame.
    MssTooLarge = "mss_too_large",
    /// TSO headers longer than [`crate::frame::MAX_TSO_HEADER`].
    TsoHeaderTooLong = "tso_header_too_long",
    /// TSO without payload.
    TsoNoPayload = "tso_no_payload",
    /// A buffer reaches past the top of the address space.
    AddressWraps = "address_wraps",
    /// A buffer is not guest memory.
    NotMemory = "not_memory",
    /// A buffer is guest memory that the NIC may not use so.
    AccessDenied = "access_denied",
    /// A limit on locked memory leaves no room for one packet: the VMM's, or, where pages are never
    /// unpinned, the slice's.
    PinLimit = "pin_limit",
    /// The host cannot pin the page or the NIC cannot reach it.
    PinFailed = "pin_failed",
    /// Packet buffer size not a multiple of 1024 from 1024 to 16384.
    RxPacketSize = "rx_packet_size",
    /// Header buffer size not a multiple of 64 up to 960.
    RxHeaderSize = "rx_header_size",
    /// Receive packet address odd (its lowest bit is a command bit).
    RxPacketOdd = "rx_packet_odd",
    /// Receive header address odd (its lowest bit is the done bit).
    RxHeaderOdd = "rx_header_odd",
    /// Receive buffer is scattered on the bus and too large to bounce.
    RxScattered = "rx_scattered",
    /// Packet or receive buffer larger than what the host has for copies.
    CopyTooLarge = "copy_too_large",
    /// Frame whose source address is not the slice's. The frame is dropped.
    SpoofedSource = "spoofed_source",
    /// Frame in a VLAN that the slice may not send into. The frame is dropped.
    VlanNotAllowed = "vlan_not_allowed",
    /// Frame of MAC control (PAUSE), or to its address. The frame is dropped.
    MacControl = "mac_control",
    /// Frame to another address that bridges keep for themselves. The frame is dropped.
    LinkLocal = "link_local",
    /// Frame to everybody, from a slice that may not send any. The frame is dropped.
    BroadcastNotAllowed = "broadcast_not_allowed",
}

impl Rejection {
    /// Whether breaking the rule costs one frame only, and the queue goes on.
    pub const fn drops_frame(self) -> bool {
        matches!(
            self,
            Self::SpoofedSource
                | Self::VlanNotAllowed
                | Self::MacControl
                | Self::LinkLocal
                | Self::BroadcastNotAllowed
        )
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<PinError> for Rejection {
    /// The rule that a buffer breaks when its page cannot be pinned.
    fn from(error: PinError) -> Self {
        match error {
            PinError::NotMapped => Self::NotMemory,
            PinError::Denied => Self::AccessDenied,
            PinError::MemlockLimit => Self::PinLimit,
            // A map takes "later" for busy; a ring is pinned by whoever may wait.
            PinError::NoMemory | PinError::Later => Self::PinFailed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_consistent() {
        for (i, r) in Rejection::ALL.iter().enumerate() {
            assert_eq!(r.index(), i);
            assert!(r
                .name()
                .bytes()
                .all(|c| c == b'_' || c.is_ascii_alphanumeric()));
            assert!(Rejection::ALL
                .iter()
                .skip(i + 1)
                .all(|o| o.name() != r.name()));
        }
    }
}
