// SPDX-License-Identifier: GPL-2.0

//! Transmit packets: gathered from descriptors, then checked as a whole.
//!
//! [`Gather`] takes parsed descriptors one by one and outlives a poll, so that a packet may arrive
//! in parts. When the last segment is there the packet is checked; what passes can be had as
//! [`Checked`], the only thing that can be mapped.

use crate::addr::GuestAddr;
use crate::check::Rejection;
use crate::desc::tx::{
    ContextIndex,
    L4Type,
    Offload,
    PacketInfo,
    TxContext,
    TxData,
    TxDesc, //
};
use crate::ring::RingIndex;
use crate::source::SourceRules;

/// Most data descriptors in a packet. Linux needs 18 (MAX_SKB_FRAGS and the head).
pub const MAX_SEGMENTS: usize = 40;
/// Shortest frame in bytes that the NIC sends even with padding on (igb_main.c,
/// igb_xmit_frame).
pub const MIN_FRAME: u32 = 17;
/// Smallest payload of a TSO segment, in bytes: Linux goes down to 48 less 40 of TCP options.
/// Bounds how many frames one packet becomes.
pub const MIN_MSS: u16 = 8;
/// Longest TSO header in bytes; igbvf keeps its length in 8 bits.
pub const MAX_TSO_HEADER: u32 = 255;
/// Longest TSO payload in bytes.
pub const MAX_TSO_PAYLOAD: u32 = 1 << 16;
/// Frame check sequence, in bytes.
pub const FCS_BYTES: u32 = 4;
/// VLAN tag, in bytes.
pub const VLAN_BYTES: u32 = 4;

/// Bounds that the host sets for a slice.
#[derive(Clone, Copy, Debug)]
pub struct TxLimits {
    /// Longest frame on the wire in bytes, with Ethernet header, VLAN tag and FCS.
    pub max_frame_bytes: u32,
    /// The NIC tags every frame by itself.
    pub port_vlan: bool,
    /// Rules for what is in a frame; `None`: anything may be.
    pub source: Option<SourceRules>,
}

/// One piece of a packet in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte.
    pub addr: GuestAddr,
    /// Length in bytes; not zero.
    pub len: u16,
}

/// What a packet is, after all checks. Made by [`TxFrame::check`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Offloads.
    pub offload: Offload,
    /// Context for the offloads, reduced to what they use.
    pub context: Option<TxContext>,
    /// PAYLEN in bytes.
    pub payload_len: u32,
    /// Frames on the wire.
    pub wire_frames: u32,
    /// Bytes on the wire with headers, tags and FCS.
    pub wire_bytes: u32,
    /// The guest wants its last descriptor marked done.
    pub report: bool,
    /// Guest's last descriptor.
    pub last: RingIndex,
    /// Data descriptors.
    pub taken: u16,
}

/// A packet as the guest asks for it.
#[derive(Debug)]
pub struct TxFrame {
    segments: [Segment; MAX_SEGMENTS],
    count: usize,
    /// Sum of the segments, in bytes: at most 40 times 64 KiB.
    len: u32,
    info: PacketInfo,
    report: bool,
    last: RingIndex,
}

impl TxFrame {
    const EMPTY: Self = Self {
        segments: [Segment {
            addr: GuestAddr::new(0),
            len: 0,
        }; MAX_SEGMENTS],
        count: 0,
        len: 0,
        info: PacketInfo {
            offload: Offload {
                vlan: false,
                tso: false,
                ip_checksum: false,
                l4_checksum: false,
            },
            context: ContextIndex::First,
            check_context: false,
            payload_len: 0,
        },
        report: false,
        last: RingIndex::ZERO,
    };

    /// The segments, in order.
    pub fn segments(&self) -> &[Segment] {
        self.segments.get(..self.count).unwrap_or(&[])
    }

    fn push(&mut self, data: &TxData, index: RingIndex) -> Result<(), Rejection> {
        if self.count == 0 {
            self.info = data.info;
            self.len = 0;
        } else if !data.agrees_with(&self.info) {
            return Err(Rejection::SegmentsDisagree);
        }
        let slot = self.segments.get_mut(self.count);
        *slot.ok_or(Rejection::TooManySegments)? = Segment {
            addr: data.addr,
            len: data.len.get(),
        };
        self.count += 1;
        self.len += u32::from(data.len.get());
        self.report = data.report;
        self.last = index;
        Ok(())
    }

    /// Checks the packet as a whole against the rules and the slice's bounds.
    fn check(&self, context: Option<&TxContext>, limits: &TxLimits) -> Result<Plan, Rejection> {
        let offload = self.info.offload;
        let context = if offload.needs_context() || self.info.check_context {
            Some(context.ok_or(Rejection::ContextMissing)?)
        } else {
            None
        };
        let tagged = offload.vlan || limits.port_vlan;
        let around = FCS_BYTES + if tagged { VLAN_BYTES } else { 0 };
        if self.len < MIN_FRAME {
            return Err(Rejection::FrameTooShort);
        }
        let (wire_frames, wire_bytes) = match context {
            Some(context) if offload.tso => self.check_tso(context, limits, around)?,
            _ => {
                if self.len + around > limits.max_frame_bytes {
                    return Err(Rejection::FrameTooLong);
                }
                if self.info.payload_len != self.len {
                    return Err(Rejection::PayloadLength);
                }
                if let Some(context) = context {
                    self.check_checksum(context)?;
                }
                (1, self.len + around)
            }
        };
        Ok(Plan {
            offload,
            context: context
                .filter(|_| offload.needs_context())
                .map(|context| context.reduced_to(offload)),
            payload_len: self.info.payload_len,
            wire_frames,
            wire_bytes,
            report: self.report,
            last: self.last,
            taken: self.count as u16,
        })
    }

    /// Checksum insertion without segmentation: what the NIC writes lies inside the packet.
    fn check_checksum(&self, context: &TxContext) -> Result<(), Rejection> {
        let offload = self.info.offload;
        if !offload.ip_checksum && !offload.l4_checksum {
            return Ok(());
        }
        if offload.ip_checksum && !context.ipv4 {
            return Err(Rejection::ChecksumNotIpv4);
        }
        if context.ip_len() == 0 {
            return Err(Rejection::IpHeaderLength);
        }
        let mut needed = u32::from(context.mac_len()) + u32::from(context.ip_len());
        if offload.l4_checksum {
            needed += u32::from(context.l4.checksum_end());
        }
        if needed > self.len {
            return Err(Rejection::HeaderBeyondPacket);
        }
        Ok(())
    }

    /// Segmentation (82576 datasheet 7.2.4): headers, payload and segment size fit together.
    /// Returns frames and bytes on the wire.
    fn check_tso(
        &self,
        context: &TxContext,
        limits: &TxLimits,
        around: u32,
    ) -> Result<(u32, u32), Rejection> {
        let offload = self.info.offload;
        if context.l4 != L4Type::Tcp {
            return Err(Rejection::L4Type);
        }
        if !offload.l4_checksum {
            return Err(Rejection::TsoNoChecksum);
        }
        if offload.ip_checksum && !context.ipv4 {
            return Err(Rejection::ChecksumNotIpv4);
        }
        if context.ip_len() < if context.ipv4 { 20 } else { 40 } {
            return Err(Rejection::IpHeaderLength);
        }
        if !(20..=60).contains(&context.l4_len) || context.l4_len % 4 != 0 {
            return Err(Rejection::L4HeaderLength);
        }
        let header =
            u32::from(context.mac_len()) + u32::from(context.ip_len()) + u32::from(context.l4_len);
        if header > MAX_TSO_HEADER {
            return Err(Rejection::TsoHeaderTooLong);
        }
        let Some(payload) = self.len.checked_sub(header) else {
            return Err(Rejection::HeaderBeyondPacket);
        };
        if payload == 0 {
            return Err(Rejection::TsoNoPayload);
        }
        if payload > MAX_TSO_PAYLOAD {
            return Err(Rejection::FrameTooLong);
        }
        // PAYLEN leaves out the headers.
        if self.info.payload_len != payload {
            return Err(Rejection::PayloadLength);
        }
        if context.mss < MIN_MSS {
            return Err(Rejection::MssTooSmall);
        }
        if header + u32::from(context.mss) + around > limits.max_frame_bytes {
            return Err(Rejection::MssTooLarge);
        }
        // At most 8192 frames of 263 bytes beside the payload.
        let frames = payload.div_ceil(u32::from(context.mss));
        Ok((frames, payload + frames * (header + around)))
    }
}

/// A packet that may be mapped and sent.
///
/// Its bytes still lie where the guest can change them. The first of them are copied, checked as
/// the copy ([`SourceRules`]), and sent from there.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    frame: &'a TxFrame,
    plan: Plan,
}

impl<'a> Checked<'a> {
    /// Where the bytes are, in order; at most [`MAX_SEGMENTS`].
    pub fn segments(&self) -> &'a [Segment] {
        self.frame.segments()
    }

    /// How many bytes there are; not zero.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> u32 {
        self.frame.len
    }

    /// What the NIC is to do with them.
    pub const fn plan(&self) -> Plan {
        self.plan
    }
}

/// Gathers descriptors into a packet; keeps a queue's contexts and a partial packet across polls.
#[derive(Debug)]
pub struct Gather {
    contexts: [Option<TxContext>; 2],
    frame: TxFrame,
    ready: Option<Plan>,
}

impl Gather {
    /// As after a reset of the queue.
    pub const fn new() -> Self {
        Self {
            contexts: [None; 2],
            frame: TxFrame::EMPTY,
            ready: None,
        }
    }

    /// Takes the next descriptor of the ring. Must not be called while [`Self::checked`] has a
    /// packet. Returns whether it was a context.
    pub fn push(
        &mut self,
        desc: TxDesc,
        index: RingIndex,
        limits: &TxLimits,
    ) -> Result<bool, Rejection> {
        let [first, second] = &mut self.contexts;
        match desc {
            TxDesc::Context(which, context) => {
                if self.frame.count != 0 {
                    return Err(Rejection::ContextInsidePacket);
                }
                match which {
                    ContextIndex::First => *first = Some(context),
                    ContextIndex::Second => *second = Some(context),
                }
                Ok(true)
            }
            TxDesc::Data(data) => {
                self.frame.push(&data, index)?;
                if data.end_of_packet {
                    let context = match self.frame.info.context {
                        ContextIndex::First => first,
                        ContextIndex::Second => second,
                    };
                    self.ready = Some(self.frame.check(context.as_ref(), limits)?);
                }
                Ok(false)
            }
        }
    }

    /// The packet, once it is whole.
    pub fn checked(&self) -> Option<Checked<'_>> {
        let frame = &self.frame;
        self.ready.map(|plan| Checked { frame, plan })
    }

    /// Data descriptors held.
    pub const fn held(&self) -> u16 {
        self.frame.count as u16
    }

    /// Forgets the packet (sent or given up); the contexts stay.
    pub fn clear(&mut self) {
        self.frame.count = 0;
        self.frame.len = 0;
        self.ready = None;
    }

    /// Forgets the packet and the contexts.
    pub fn reset(&mut self) {
        self.clear();
        self.contexts = [None; 2];
    }
}

impl Default for Gather {
    fn default() -> Self {
        Self::new()
    }
}
