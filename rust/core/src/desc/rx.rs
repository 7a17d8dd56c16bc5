// SPDX-License-Identifier: GPL-2.0

//! Receive descriptors: read format (82576 datasheet 7.1.5.1) and write-back (7.1.5.2).

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
use crate::platform::RxLayout;

const DD: u32 = 0;

/// Sizes of a slice's receive buffers, known to be ones that the NIC can be told
/// (82576 datasheet 8.10.2: BSIZEPACKET in KiB, BSIZEHEADER in 64 bytes, 4 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferSizes(RxLayout);

impl BufferSizes {
    /// Largest packet buffer in bytes.
    pub const MAX_PACKET: u16 = 16384;
    /// Largest header buffer in bytes.
    pub const MAX_HEADER: u16 = 960;

    /// Checks what the guest wrote into SRRCTL.
    pub fn new(layout: RxLayout) -> Result<Self, Rejection> {
        let RxLayout {
            packet_bytes,
            header_bytes,
        } = layout;
        if packet_bytes == 0 || packet_bytes % 1024 != 0 || packet_bytes > Self::MAX_PACKET {
            return Err(Rejection::RxPacketSize);
        }
        if header_bytes % 64 != 0 || header_bytes > Self::MAX_HEADER {
            return Err(Rejection::RxHeaderSize);
        }
        Ok(Self(layout))
    }

    /// Bytes in each packet buffer.
    pub const fn packet_bytes(self) -> u16 {
        self.0.packet_bytes
    }

    /// Bytes in each header buffer; 0 where packets are not split.
    pub const fn header_bytes(self) -> u16 {
        self.0.header_bytes
    }

    /// The sizes as the queue takes them.
    pub const fn layout(self) -> RxLayout {
        self.0
    }
}

/// An empty receive buffer as the guest posted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxBuffer {
    /// First byte for the packet.
    pub packet: GuestAddr,
    /// First byte for the header, where packets are split.
    pub header: Option<GuestAddr>,
}

impl RxBuffer {
    /// Reads a guest's descriptor, or says which rule it breaks. The header address is ignored
    /// where packets are not split, as by the NIC; drivers leave old write-backs there.
    pub fn parse(raw: RawDesc, sizes: BufferSizes) -> Result<Self, Rejection> {
        let RawDesc([packet, header]) = raw;
        // Bit 0 of the packet address selects no-snoop, bit 0 of the header address is DD.
        if flag(packet, 0) {
            return Err(Rejection::RxPacketOdd);
        }
        let header = if sizes.header_bytes() == 0 {
            None
        } else if flag(header, 0) {
            return Err(Rejection::RxHeaderOdd);
        } else {
            Some(GuestAddr::new(header))
        };
        Ok(Self {
            packet: GuestAddr::new(packet),
            header,
        })
    }
}

/// An empty receive buffer for the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HwRxBuffer {
    /// First byte for the packet; even.
    pub packet: BusAddr,
    /// First byte for the header, even, where packets are split.
    pub header: Option<BusAddr>,
}

impl HwRxBuffer {
    /// The words for the NIC, with the done bit clear.
    pub fn emit(&self) -> [u64; 2] {
        let header = match self.header {
            Some(addr) => addr.raw(),
            None => 0,
        };
        [self.packet.raw() & !1, header & !1]
    }
}

/// Whether a receive descriptor has been written back (DD).
pub const fn is_done(words: [u64; 2]) -> bool {
    flag(words[1], DD)
}

/// What the NIC reports of a received buffer, reduced to what the model names.
///
/// Left out: RSS hash and type, IP identification and fragment checksum (the function has no
/// RSS, and the hash would tell of the host's key), time stamp, loopback and low-latency flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxWriteBack {
    /// Bytes written to the packet buffer.
    pub len: u16,
    /// Bytes that the NIC took for the header.
    pub header_len: u16,
    /// Header was split off (SPH).
    pub split: bool,
    /// Packet type, 13 bits.
    pub packet_type: u16,
    /// Stripped VLAN tag; zero without [`Self::VLAN_STRIPPED`].
    pub vlan_tag: u16,
    /// Status and error bits, each one of [`Self::KNOWN`]; DD included.
    pub status: u32,
}

impl RxWriteBack {
    /// Descriptor done.
    pub const DONE: u32 = 1 << DD;
    /// Last buffer of a packet.
    pub const END_OF_PACKET: u32 = 1 << 1;
    /// A VLAN tag was stripped (VP).
    pub const VLAN_STRIPPED: u32 = 1 << 3;
    /// Receive error (RXE).
    pub const ERROR: u32 = 1 << 31;
    /// Bits that reach the guest: DD, EOP, IXSM, VP, UDPCS, L4CS, IPCS, PIF; HBO, CE, SE, SEQ, CXE,
    /// L4E, IPE, RXE.
    pub const KNOWN: u32 = 0xff | (1 << 23) | (7 << 24) | (1 << 28) | (7 << 29);

    /// The end of a packet of which no more came: to be thrown away.
    pub const LOST: Self = Self {
        len: 0,
        header_len: 0,
        split: false,
        packet_type: 0,
        vlan_tag: 0,
        status: Self::DONE | Self::END_OF_PACKET | Self::ERROR,
    };

    /// Reads a write-back. Lengths are cut to the buffers' sizes.
    pub fn parse([low, high]: [u64; 2], sizes: BufferSizes) -> Self {
        let status = high as u32 & Self::KNOWN;
        let vlan_tag = if status & Self::VLAN_STRIPPED != 0 {
            field(high, 48, 16) as u16
        } else {
            0
        };
        let header = sizes.header_bytes();
        Self {
            len: (field(high, 32, 16) as u16).min(sizes.packet_bytes()),
            header_len: (field(low, 21, 10) as u16).min(header),
            split: flag(low, 31) && header != 0,
            packet_type: field(low, 4, 13) as u16,
            vlan_tag,
            status,
        }
    }

    /// Whether this buffer ends a packet.
    pub const fn is_end(&self) -> bool {
        self.status & Self::END_OF_PACKET != 0
    }

    /// Whether the frame is not a good one: CE, SE, SEQ, CXE or RXE is set.
    pub const fn is_damaged(&self) -> bool {
        self.status & ((7 << 24) | (1 << 28) | Self::ERROR) != 0
    }

    /// Whether a VLAN tag was stripped.
    pub const fn is_tagged(&self) -> bool {
        self.status & Self::VLAN_STRIPPED != 0
    }

    /// Forgets the VLAN tag that was stripped.
    pub const fn hide_tag(&mut self) {
        self.status &= !Self::VLAN_STRIPPED;
        self.vlan_tag = 0;
    }

    /// Bytes in the packet buffer and, where packets are split, in the header buffer.
    pub const fn bytes(&self) -> u32 {
        self.len as u32 + self.header_len as u32
    }

    /// The words for the guest.
    pub fn emit(&self) -> [u64; 2] {
        [
            ((u64::from(self.packet_type) & 0x1fff) << 4)
                | ((u64::from(self.header_len) & 0x3ff) << 21)
                | set(self.split, 31),
            u64::from(self.status & Self::KNOWN)
                | (u64::from(self.len) << 32)
                | (u64::from(self.vlan_tag) << 48),
        ]
    }
}
