// SPDX-License-Identifier: GPL-2.0

//! An honest guest: uses the rings the way igbvf does (drivers/net/ethernet/intel/igbvf/netdev.c).

use std::collections::VecDeque;

use super::nic::WirePacket;
use super::world::World;

/// What a guest's stack hands to its driver.
#[derive(Clone, Debug, Default)]
pub struct Send {
    /// Address and length of each piece.
    pub segments: Vec<(u64, u16)>,
    pub vlan: Option<u16>,
    pub csum: Option<Csum>,
    pub tso: Option<Tso>,
}

#[derive(Clone, Copy, Debug)]
pub struct Csum {
    pub mac_len: u8,
    pub ip_len: u16,
    pub ipv4: bool,
    /// 0 UDP, 1 TCP, 2 SCTP.
    pub l4: u8,
    pub ip_checksum: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Tso {
    pub mss: u16,
    pub l4_len: u8,
}

impl Send {
    pub fn len(&self) -> u32 {
        self.segments.iter().map(|s| u32::from(s.1)).sum()
    }

    /// The packet as the NIC should send it.
    pub fn expected(&self, world: &World) -> WirePacket {
        let mut bytes = Vec::new();
        for (addr, len) in &self.segments {
            bytes.extend(world.guest_read(*addr, (*len).into()));
        }
        WirePacket {
            bytes,
            vlan: self.vlan,
            tso_mss: self.tso.map(|t| t.mss),
            ip_checksum: self.csum.is_some_and(|c| c.ip_checksum),
            l4_checksum: self.csum.is_some(),
            headers: self.csum.map(|c| {
                let l4_len = self.tso.map_or(0, |t| t.l4_len);
                (c.mac_len, c.ip_len, l4_len, c.l4, c.ipv4)
            }),
        }
    }
}

const DEXT: u64 = 1 << 29;

/// A data descriptor's second word, by hand.
pub fn data_word(len: u16, eop: bool, send: &Send, payload: u32) -> u64 {
    let csum = send.csum;
    u64::from(len)
        | 3 << 20
        | if eop { 1 << 24 | 1 << 27 } else { 0 }
        | 1 << 25
        | DEXT
        | u64::from(send.vlan.is_some()) << 30
        | u64::from(send.tso.is_some()) << 31
        | u64::from(csum.is_some_and(|c| c.ip_checksum)) << 40
        | u64::from(csum.is_some()) << 41
        | u64::from(payload) << 46
}

/// A context descriptor, by hand.
pub fn context_words(send: &Send) -> [u64; 2] {
    let (mac, ip, l4, ipv4) = match send.csum {
        Some(c) => (c.mac_len, c.ip_len, c.l4, c.ipv4),
        None => (14, 0, 0, false),
    };
    let (mss, l4_len) = send.tso.map_or((0, 0), |t| (t.mss, t.l4_len));
    [
        u64::from(ip) | u64::from(mac) << 9 | u64::from(send.vlan.unwrap_or(0)) << 16,
        2 << 20
            | DEXT
            | u64::from(ipv4) << 10
            | u64::from(l4) << 11
            | u64::from(l4_len) << 40
            | u64::from(mss) << 48,
    ]
}

/// The transmit half of the driver.
pub struct GuestTx {
    pub base: u64,
    pub count: u16,
    next_use: u16,
    next_clean: u16,
    /// Last descriptor of each packet in flight.
    watch: VecDeque<u16>,
}

impl GuestTx {
    pub fn new(base: u64, count: u16) -> Self {
        Self {
            base,
            count,
            next_use: 0,
            next_clean: 0,
            watch: VecDeque::new(),
        }
    }

    pub fn tail(&self) -> u32 {
        self.next_use.into()
    }

    pub fn unused(&self) -> u16 {
        (self.next_clean + self.count - self.next_use - 1) % self.count
    }

    pub fn in_flight(&self) -> usize {
        self.watch.len()
    }

    fn put(&mut self, world: &mut World, words: [u64; 2]) {
        world.guest_write_desc(self.base + u64::from(self.next_use) * 16, words);
        self.next_use = (self.next_use + 1) % self.count;
    }

    /// Writes a packet's descriptors. `false` when there is no room.
    pub fn send(&mut self, world: &mut World, send: &Send) -> bool {
        if usize::from(self.unused()) < send.segments.len() + 2 {
            return false;
        }
        if send.csum.is_some() || send.vlan.is_some() {
            self.put(world, context_words(send));
        }
        let header = match (send.csum, send.tso) {
            (Some(c), Some(t)) => u32::from(c.mac_len) + u32::from(c.ip_len) + u32::from(t.l4_len),
            _ => 0,
        };
        let payload = send.len() - header;
        let last = send.segments.len() - 1;
        for (i, (addr, len)) in send.segments.iter().enumerate() {
            if i == last {
                self.watch.push_back(self.next_use);
            }
            self.put(world, [*addr, data_word(*len, i == last, send, payload)]);
        }
        true
    }

    /// Takes back what is marked done. Returns packets.
    pub fn clean(&mut self, world: &mut World) -> usize {
        let mut packets = 0;
        while let Some(eop) = self.watch.front().copied() {
            let addr = self.base + u64::from(eop) * 16;
            let [low, high] = world.guest_read_desc(addr);
            if high >> 32 & 1 == 0 {
                break;
            }
            world.guest_write_desc(addr, [low, high & 0xffff_ffff]);
            self.watch.pop_front();
            self.next_clean = (eop + 1) % self.count;
            packets += 1;
        }
        packets
    }
}

/// A packet as the guest's stack gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub bytes: Vec<u8>,
    pub vlan: Option<u16>,
}

/// The receive half of the driver.
pub struct GuestRx {
    pub base: u64,
    pub count: u16,
    pub packet_bytes: u16,
    pub header_bytes: u16,
    buffers: Vec<(u64, u64)>,
    next_use: u16,
    next_clean: u16,
    partial: Vec<u8>,
    /// Damaged packets are thrown away and counted; if not, they are not expected.
    pub damaged: Option<u64>,
}

impl GuestRx {
    pub fn new(base: u64, count: u16, packet_bytes: u16, header_bytes: u16) -> Self {
        Self {
            base,
            count,
            packet_bytes,
            header_bytes,
            buffers: vec![(0, 0); count.into()],
            next_use: 0,
            next_clean: 0,
            partial: Vec::new(),
            damaged: None,
        }
    }

    pub fn tail(&self) -> u32 {
        self.next_use.into()
    }

    /// Posts buffers until the ring is full; `place` gives packet and header address for each
    /// ring index.
    pub fn fill(&mut self, world: &mut World, mut place: impl FnMut(u16) -> (u64, u64)) {
        loop {
            let next = (self.next_use + 1) % self.count;
            if next == self.next_clean {
                return;
            }
            let (packet, header) = place(self.next_use);
            self.buffers[usize::from(self.next_use)] = (packet, header);
            let header = if self.header_bytes == 0 { 0 } else { header };
            let addr = self.base + u64::from(self.next_use) * 16;
            world.guest_write_desc(addr, [packet, header]);
            self.next_use = next;
        }
    }

    /// Takes received packets.
    pub fn poll(&mut self, world: &World) -> Vec<Received> {
        let mut packets = Vec::new();
        while self.next_clean != self.next_use {
            let addr = self.base + u64::from(self.next_clean) * 16;
            let [low, high] = world.guest_read_desc(addr);
            if high & 1 == 0 {
                break;
            }
            assert_eq!(low >> 32, 0, "hash shown to the guest");
            assert_eq!(low & 0xf, 0, "hash type shown to the guest");
            assert_eq!(
                high & (1 << 9 | 1 << 16 | 1 << 18),
                0,
                "unnamed status bits"
            );
            if let (Some(count), 1) = (&mut self.damaged, high >> 31 & 1) {
                assert_ne!(high & 2, 0, "the end of a packet");
                *count += 1;
                self.partial.clear();
                self.next_clean = (self.next_clean + 1) % self.count;
                continue;
            }
            assert_eq!(high & (1 << 5 | 1 << 6), 1 << 5 | 1 << 6, "checksum status");
            assert_eq!(high >> 31 & 1, 0, "receive error");
            let (packet, header) = self.buffers[usize::from(self.next_clean)];
            if self.partial.is_empty() {
                let len = (low >> 21 & 0x3ff).min(self.header_bytes.into());
                self.partial.extend(world.guest_read(header, len as usize));
            }
            let len = (high >> 32 & 0xffff) as usize;
            self.partial.extend(world.guest_read(packet, len));
            if high & 2 != 0 {
                packets.push(Received {
                    bytes: std::mem::take(&mut self.partial),
                    vlan: (high & 8 != 0).then_some((high >> 48) as u16),
                });
            }
            self.next_clean = (self.next_clean + 1) % self.count;
        }
        packets
    }
}
