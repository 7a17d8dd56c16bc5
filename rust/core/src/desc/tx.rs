// SPDX-License-Identifier: GPL-2.0

//! Transmit descriptors: context (82576 datasheet 7.2.2.2) and data (7.2.2.3).

use core::num::NonZeroU16;

use super::{
    field,
    flag,
    set,
    RawDesc, //
};
use crate::addr::{
    BusAddr,
    GuestAddr, //
};
use crate::check::Rejection;

// Second word of both kinds.
const DTYP: u32 = 20;
const DTYP_CONTEXT: u64 = 2;
const DTYP_DATA: u64 = 3;
const DEXT: u32 = 29;

// Second word of a data descriptor: command in the lower half, options and PAYLEN in the upper.
const DTALEN: u32 = 0;
const LINKSEC: u32 = 18;
const TS1588: u32 = 19;
const EOP: u32 = 24;
const IFCS: u32 = 25;
const RS: u32 = 27;
const VLE: u32 = 30;
const TSE: u32 = 31;
const STA_DD: u32 = 32;
const IDX: u32 = 36;
const CC: u32 = 39;
const IXSM: u32 = 40;
const TXSM: u32 = 41;
const IPSEC: u32 = 42;
const PAYLEN: u32 = 46;
/// Bits 17:16, 26, 28 of the command; STA (35:32); POPTS above IPSEC (45:43).
const DATA_RESERVED: u64 = (3 << 16) | (1 << 26) | (1 << 28) | (0xf << 32) | (7 << 43);

// First word of a context descriptor.
const IPLEN: u32 = 0;
const MACLEN: u32 = 9;
const VLAN: u32 = 16;
// Second word of a context descriptor.
const SNAP: u32 = 9;
const IPV4: u32 = 10;
const L4T: u32 = 11;
const L4LEN: u32 = 40;
const MSS: u32 = 48;
/// IPS_ESP_LEN (8:0), IPSEC_TYPE (13), encryption (14).
const CONTEXT_IPSEC: u64 = 0x1ff | (1 << 13) | (1 << 14);
/// Above TUCMD (19:15), bits 28:24 and 31:30, 35:32, 39.
const CONTEXT_RESERVED: u64 = (0x1f << 15) | (0x1f << 24) | (3 << 30) | (0xf << 32) | (1 << 39);

/// Longest PAYLEN that the descriptor can hold, in bytes.
pub const MAX_PAYLEN: u32 = (1 << 18) - 1;
/// Shortest MACLEN: an Ethernet header.
pub const MIN_MAC_LEN: u8 = 14;
/// Shortest IPLEN: an IPv4 header without options.
pub const MIN_IP_LEN: u16 = 20;

/// Which of a queue's two contexts (82576 datasheet 7.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextIndex {
    /// IDX 0.
    First,
    /// IDX 1.
    Second,
}

impl ContextIndex {
    fn parse(word: u64) -> Result<Self, Rejection> {
        match field(word, IDX, 3) {
            0 => Ok(Self::First),
            1 => Ok(Self::Second),
            _ => Err(Rejection::ContextIndex),
        }
    }
}

/// Transport protocol of a checksum or segmentation (TUCMD.L4T).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4Type {
    /// UDP: checksum at byte 6.
    Udp,
    /// TCP: checksum at byte 16.
    Tcp,
    /// SCTP: CRC at byte 8.
    Sctp,
}

impl L4Type {
    /// Bytes from the start of the transport header to the end of its checksum.
    pub const fn checksum_end(self) -> u16 {
        match self {
            Self::Udp => 8,
            Self::Tcp => 18,
            Self::Sctp => 12,
        }
    }
}

/// A context: where the headers are and what to put into them. Holds only legal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxContext {
    mac_len: u8,
    ip_len: u16,
    /// Tag that VLE inserts: priority and VLAN.
    pub vlan_tag: u16,
    /// Whether the IP header is version 4.
    pub ipv4: bool,
    /// Transport protocol.
    pub l4: L4Type,
    /// Length of the transport header in bytes; used by TSO only.
    pub l4_len: u8,
    /// Largest payload of one segment in bytes; used by TSO only.
    pub mss: u16,
}

impl TxContext {
    /// A context with the given header lengths in bytes, all else zero and UDP.
    ///
    /// `mac_len` must be from 14 to 127, `ip_len` 0 (none) or from 20 to 511.
    pub fn new(mac_len: u8, ip_len: u16) -> Result<Self, Rejection> {
        if !(MIN_MAC_LEN..=127).contains(&mac_len) {
            return Err(Rejection::MacHeaderLength);
        }
        if ip_len != 0 && !(MIN_IP_LEN..=511).contains(&ip_len) {
            return Err(Rejection::IpHeaderLength);
        }
        Ok(Self {
            mac_len,
            ip_len,
            vlan_tag: 0,
            ipv4: false,
            l4: L4Type::Udp,
            l4_len: 0,
            mss: 0,
        })
    }

    /// Length of the link header in bytes, from 14 to 127.
    pub const fn mac_len(&self) -> u8 {
        self.mac_len
    }

    /// Length of the IP header in bytes: 0 (none) or from 20 to 511.
    pub const fn ip_len(&self) -> u16 {
        self.ip_len
    }

    fn parse([low, high]: [u64; 2]) -> Result<(ContextIndex, Self), Rejection> {
        // The upper half of the first word is the IPsec security association.
        if low >> 32 != 0 || high & CONTEXT_IPSEC != 0 {
            return Err(Rejection::Encryption);
        }
        if high & CONTEXT_RESERVED != 0 {
            return Err(Rejection::ContextReservedBits);
        }
        if flag(high, SNAP) {
            return Err(Rejection::Snap);
        }
        let l4 = match field(high, L4T, 2) {
            0 => L4Type::Udp,
            1 => L4Type::Tcp,
            2 => L4Type::Sctp,
            _ => return Err(Rejection::L4Type),
        };
        let context = Self::new(field(low, MACLEN, 7) as u8, field(low, IPLEN, 9) as u16)?;
        Ok((
            ContextIndex::parse(high)?,
            Self {
                vlan_tag: field(low, VLAN, 16) as u16,
                ipv4: flag(high, IPV4),
                l4,
                l4_len: field(high, L4LEN, 8) as u8,
                mss: field(high, MSS, 16) as u16,
                ..context
            },
        ))
    }

    /// This context with what `offload` does not use set to zero, so that the NIC is given
    /// nothing that was not checked.
    pub fn reduced_to(mut self, offload: Offload) -> Self {
        if !offload.vlan {
            self.vlan_tag = 0;
        }
        if !offload.tso {
            self.l4_len = 0;
            self.mss = 0;
            if !offload.l4_checksum {
                self.l4 = L4Type::Udp;
                if !offload.ip_checksum {
                    self.ip_len = 0;
                    self.ipv4 = false;
                }
            }
        }
        self
    }

    /// The words for the NIC, for the queue's first context.
    pub fn emit(&self) -> [u64; 2] {
        let l4 = match self.l4 {
            L4Type::Udp => 0,
            L4Type::Tcp => 1,
            L4Type::Sctp => 2,
        };
        [
            (u64::from(self.ip_len) << IPLEN)
                | (u64::from(self.mac_len) << MACLEN)
                | (u64::from(self.vlan_tag) << VLAN),
            set(self.ipv4, IPV4)
                | (l4 << L4T)
                | (DTYP_CONTEXT << DTYP)
                | set(true, DEXT)
                | (u64::from(self.l4_len) << L4LEN)
                | (u64::from(self.mss) << MSS),
        ]
    }
}

/// What a packet asks the NIC to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Insert the context's VLAN tag (VLE).
    pub vlan: bool,
    /// Cut the packet into TCP segments (TSE).
    pub tso: bool,
    /// Insert the IPv4 header checksum (IXSM).
    pub ip_checksum: bool,
    /// Insert the transport checksum (TXSM).
    pub l4_checksum: bool,
}

impl Offload {
    /// Whether the NIC needs a context for this.
    pub const fn needs_context(self) -> bool {
        self.vlan || self.tso || self.ip_checksum || self.l4_checksum
    }
}

/// What a packet's descriptors say about the packet; the first one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketInfo {
    /// Offloads.
    pub offload: Offload,
    /// Context that the offloads use.
    pub context: ContextIndex,
    /// Check Context: a context is to be looked at, whatever the offloads.
    pub check_context: bool,
    /// PAYLEN in bytes, below 2^18.
    pub payload_len: u32,
}

/// A data descriptor: one segment of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxData {
    /// First byte of the segment.
    pub addr: GuestAddr,
    /// Length in bytes.
    pub len: NonZeroU16,
    /// Last segment of its packet.
    pub end_of_packet: bool,
    /// The guest wants the descriptor marked done. Only with [`Self::end_of_packet`].
    pub report: bool,
    /// About the packet.
    pub info: PacketInfo,
    /// Whether the options half (STA to PAYLEN) is all zero: drivers leave it so in all but the
    /// first descriptor of a packet, or repeat it.
    pub options_empty: bool,
}

impl TxData {
    fn parse([addr, high]: [u64; 2]) -> Result<Self, Rejection> {
        if flag(high, TS1588) {
            return Err(Rejection::Timestamp);
        }
        if flag(high, LINKSEC) || flag(high, IPSEC) {
            return Err(Rejection::Encryption);
        }
        if high & DATA_RESERVED != 0 {
            return Err(Rejection::DataReservedBits);
        }
        let len = NonZeroU16::new(field(high, DTALEN, 16) as u16);
        let len = len.ok_or(Rejection::EmptySegment)?;
        if !flag(high, IFCS) {
            return Err(Rejection::FcsNotInserted);
        }
        let (end_of_packet, report) = (flag(high, EOP), flag(high, RS));
        if report && !end_of_packet {
            return Err(Rejection::ReportWithoutEop);
        }
        Ok(Self {
            addr: GuestAddr::new(addr),
            len,
            end_of_packet,
            report,
            info: PacketInfo {
                offload: Offload {
                    vlan: flag(high, VLE),
                    tso: flag(high, TSE),
                    ip_checksum: flag(high, IXSM),
                    l4_checksum: flag(high, TXSM),
                },
                context: ContextIndex::parse(high)?,
                check_context: flag(high, CC),
                payload_len: field(high, PAYLEN, 18) as u32,
            },
            options_empty: high >> 32 == 0,
        })
    }

    /// Whether this descriptor may follow one with `first` in the same packet: the commands are
    /// the same, and the options are repeated or left empty.
    pub fn agrees_with(&self, first: &PacketInfo) -> bool {
        self.info == *first
            || self.options_empty
                && self.info.offload.vlan == first.offload.vlan
                && self.info.offload.tso == first.offload.tso
    }
}

/// A guest's transmit descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxDesc {
    /// Sets one of the queue's contexts.
    Context(ContextIndex, TxContext),
    /// Names a segment.
    Data(TxData),
}

impl TxDesc {
    /// Reads a guest's descriptor, or says which rule it breaks.
    pub fn parse(raw: RawDesc) -> Result<Self, Rejection> {
        let RawDesc(words) = raw;
        if !flag(words[1], DEXT) {
            return Err(Rejection::LegacyDescriptor);
        }
        match field(words[1], DTYP, 4) {
            DTYP_CONTEXT => {
                let (index, context) = TxContext::parse(words)?;
                Ok(Self::Context(index, context))
            }
            DTYP_DATA => TxData::parse(words).map(Self::Data),
            _ => Err(Rejection::DescriptorType),
        }
    }
}

/// A data descriptor for the NIC. The check sequence is always inserted, the queue's first
/// context is always used, and CC stays clear: those are the host's decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HwTxData {
    /// First byte on the bus.
    pub addr: BusAddr,
    /// Length in bytes.
    pub len: u16,
    /// Last descriptor of the packet; the NIC reports its completion.
    pub last: bool,
    /// Offloads.
    pub offload: Offload,
    /// PAYLEN in bytes, below 2^18.
    pub payload_len: u32,
}

impl HwTxData {
    /// The words for the NIC.
    pub fn emit(&self) -> [u64; 2] {
        [
            self.addr.raw(),
            (u64::from(self.len) << DTALEN)
                | (DTYP_DATA << DTYP)
                | set(self.last, EOP)
                | set(true, IFCS)
                | set(self.last, RS)
                | set(true, DEXT)
                | set(self.offload.vlan, VLE)
                | set(self.offload.tso, TSE)
                | set(self.offload.ip_checksum, IXSM)
                | set(self.offload.l4_checksum, TXSM)
                | (u64::from(self.payload_len & MAX_PAYLEN) << PAYLEN),
        ]
    }
}

/// Whether a transmit descriptor has been written back (DD; 82576 datasheet 7.2.2.4).
pub const fn is_done(words: [u64; 2]) -> bool {
    flag(words[1], STA_DD)
}

/// Status half that tells the guest that its descriptor is done; stored at byte 12.
pub const DONE_STATUS: u32 = 1;
