// SPDX-License-Identifier: GPL-2.0

//! The NIC: decodes descriptors on its own (82576 datasheet 7.1, 7.2), moves bytes over the bus,
//! and checks before each move that it may.

use std::collections::VecDeque;

use sluice_core::platform::{
    Access,
    HwError,
    RxLayout, //
};

use super::faults::{
    self,
    Fault, //
};
use super::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dir {
    Tx = 0,
    Rx = 1,
}

/// A packet as it left: bytes as fetched, and what was asked of the NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WirePacket {
    pub bytes: Vec<u8>,
    pub vlan: Option<u16>,
    pub tso_mss: Option<u16>,
    pub ip_checksum: bool,
    pub l4_checksum: bool,
    /// MACLEN, IPLEN, L4LEN, L4T and IPV4, where a context was used for more than a tag.
    pub headers: Option<(u8, u16, u8, u8, bool)>,
}

/// What arrives for one receive descriptor.
#[derive(Clone, Debug)]
struct Chunk {
    bytes: Vec<u8>,
    first: bool,
    last: bool,
    vlan: Option<u16>,
}

/// A queue as the NIC has it.
pub struct Queue {
    ring: Vec<[u64; 2]>,
    tail: u16,
    /// Next descriptor to act on.
    fetch: u16,
    /// Oldest descriptor not written back.
    back: u16,
    pub enabled: bool,
    layout: RxLayout,
    context: Option<[u64; 2]>,
    gather: Vec<u8>,
    first: Option<u64>,
    backlog: VecDeque<Chunk>,
    /// `stop` fails, and the queue goes on.
    pub stuck: Option<HwError>,
    /// `start` fails.
    pub dead: Option<HwError>,
    pub doorbells: u64,
}

impl Queue {
    pub(super) fn new(len: u16) -> Self {
        Self {
            ring: vec![[0; 2]; len.into()],
            tail: 0,
            fetch: 0,
            back: 0,
            enabled: false,
            layout: RxLayout {
                packet_bytes: 0,
                header_bytes: 0,
            },
            context: None,
            gather: Vec::new(),
            first: None,
            backlog: VecDeque::new(),
            stuck: None,
            dead: None,
            doorbells: 0,
        }
    }

    pub(super) fn len(&self) -> u16 {
        self.ring.len() as u16
    }

    fn at(&self, index: u16) -> usize {
        usize::from(index) % self.ring.len()
    }

    pub(super) fn read(&self, index: u16) -> [u64; 2] {
        self.ring[self.at(index)]
    }

    fn steps(&self, from: u16, to: u16) -> u16 {
        to.wrapping_sub(from) & (self.len() - 1)
    }

    /// Descriptors that the NIC may still act on.
    pub fn live(&self) -> u16 {
        if self.enabled {
            self.steps(self.back, self.tail)
        } else {
            0
        }
    }

    /// Descriptors that wait for the NIC.
    pub fn waiting(&self) -> u16 {
        self.steps(self.fetch, self.tail)
    }

    pub fn backlog(&self) -> usize {
        self.backlog.len()
    }
}

const DEXT: u64 = 1 << 29;
const EOP: u64 = 1 << 24;
const IFCS: u64 = 1 << 25;
const RS: u64 = 1 << 27;
const VLE: u64 = 1 << 30;
const TSE: u64 = 1 << 31;
const TX_DD: u64 = 1 << 32;

fn is_context(words: [u64; 2]) -> bool {
    words[1] >> 20 & 0xf == 2
}

/// Places that a descriptor names: address, length, direction.
fn places(dir: Dir, words: [u64; 2], packet: u32, header: u32) -> Vec<(u64, u32, Access)> {
    match dir {
        Dir::Tx if is_context(words) => vec![],
        Dir::Tx => vec![(words[0], words[1] as u32 & 0xffff, Access::Read)],
        Dir::Rx if header == 0 => vec![(words[0], packet, Access::Write)],
        Dir::Rx => vec![
            (words[0], packet, Access::Write),
            (words[1], header, Access::Write),
        ],
    }
}

impl World {
    pub(super) fn host_writes(&mut self, dir: Dir, index: u16, words: [u64; 2]) {
        let queue = self.queue_mut(dir);
        let at = queue.at(index);
        if queue.enabled {
            let offset = queue.steps(queue.back, at as u16);
            assert!(
                offset >= queue.live(),
                "{dir:?} descriptor {at} overwritten in flight"
            );
        }
        queue.ring[at] = words;
    }

    pub(super) fn doorbell(&mut self, dir: Dir, tail: u16) {
        let queue = self.queue_mut(dir);
        assert!(queue.enabled, "doorbell on a disabled queue");
        assert!(tail < queue.len());
        queue.doorbells += 1;
        let (from, to) = (queue.tail, tail);
        queue.tail = tail;
        let steps = queue.steps(from, to);
        for step in 0..steps {
            let words = self.queue(dir).read(from.wrapping_add(step));
            if dir == Dir::Tx {
                assert_ne!(words[1] & DEXT, 0, "legacy descriptor posted");
                assert!(matches!(words[1] >> 20 & 0xf, 2 | 3), "unknown type posted");
                assert_eq!(words[1] & TX_DD, 0, "done bit posted");
            } else {
                assert_eq!(words[1] & 1, 0, "done bit posted");
            }
        }
        self.check_live();
    }

    pub(super) fn start(&mut self, dir: Dir, layout: RxLayout) -> Result<(), HwError> {
        let len = self.queue(dir).len();
        if self.gone {
            return Err(HwError::Gone);
        }
        if let Some(error) = self.queue(dir).dead {
            return Err(error);
        }
        if faults::fails(Fault::Start) {
            return Err(HwError::Timeout);
        }
        let old = self.queue(dir);
        let (stuck, doorbells) = (old.stuck, old.doorbells);
        self.missed += old.backlog.iter().filter(|chunk| chunk.last).count() as u64;
        *self.queue_mut(dir) = Queue {
            enabled: true,
            layout,
            stuck,
            doorbells,
            ..Queue::new(len)
        };
        Ok(())
    }

    pub(super) fn stop(&mut self, dir: Dir) -> Result<(), HwError> {
        if self.gone {
            self.queue_mut(dir).enabled = false;
            return Ok(());
        }
        let late = faults::fails(Fault::Stop).then_some(HwError::Timeout);
        if let Some(error) = self.queue(dir).stuck.or(late) {
            // Whatever it holds it may use for ever.
            let queue = self.queue(dir);
            let RxLayout {
                packet_bytes,
                header_bytes,
            } = queue.layout;
            let held: Vec<_> = (0..queue.live())
                .map(|step| queue.read(queue.back.wrapping_add(step)))
                .map(|words| (dir, words, packet_bytes.into(), header_bytes.into()))
                .collect();
            self.zombies.extend(held);
            return Err(error);
        }
        if dir == Dir::Tx {
            // What was fetched is done when the queue reports that it is off.
            if self.drains {
                self.nic_tx_fetch(u16::MAX);
            }
            self.nic_tx_write_back(u16::MAX);
        }
        self.queue_mut(dir).enabled = false;
        Ok(())
    }

    /// Invariants 2 and 3: whatever a live descriptor names is pinned, in the right direction.
    pub fn check_live(&self) {
        for dir in [Dir::Tx, Dir::Rx] {
            let queue = self.queue(dir);
            let RxLayout {
                packet_bytes,
                header_bytes,
            } = queue.layout;
            for step in 0..queue.live() {
                let words = queue.read(queue.back.wrapping_add(step));
                self.check_words(dir, words, packet_bytes.into(), header_bytes.into());
            }
        }
        for (dir, words, packet, header) in &self.zombies {
            self.check_words(*dir, *words, *packet, *header);
        }
    }

    /// No transmit descriptor that the NIC may still act on names the bytes: a copy that was checked
    /// is not changed.
    pub(super) fn check_idle(&self, bus: u64, len: u32) {
        let queue = self.queue(Dir::Tx);
        let held = (0..queue.live()).map(|step| queue.read(queue.back.wrapping_add(step)));
        let zombies = self.zombies.iter().filter(|(dir, ..)| *dir == Dir::Tx);
        for words in held.chain(zombies.map(|(_, words, ..)| *words)) {
            for (at, count, _) in places(Dir::Tx, words, 0, 0) {
                let apart = at + u64::from(count) <= bus || bus + u64::from(len) <= at;
                assert!(apart, "host buffer at {bus:#x} changed in flight");
            }
        }
    }

    fn check_words(&self, dir: Dir, words: [u64; 2], packet: u32, header: u32) {
        for (addr, len, access) in places(dir, words, packet, header) {
            assert_ne!(len, 0, "empty piece posted");
            assert!(
                self.allows(addr, len, access),
                "{dir:?} descriptor names {addr:#x}+{len:#x}, which is not pinned for {access:?}"
            );
        }
    }

    /// The NIC fetches up to `max` transmit descriptors and sends what is whole.
    pub fn nic_tx_fetch(&mut self, max: u16) {
        for _ in 0..max {
            let queue = self.queue(Dir::Tx);
            if !queue.enabled || queue.waiting() == 0 {
                return;
            }
            let words = queue.read(queue.fetch);
            self.queue_mut(Dir::Tx).fetch = queue.fetch.wrapping_add(1) & (queue.len() - 1);
            if is_context(words) {
                assert_eq!(words[1] >> 36 & 7, 0, "host uses the first context only");
                let queue = self.queue_mut(Dir::Tx);
                assert!(queue.first.is_none(), "context inside a packet");
                queue.context = Some(words);
                continue;
            }
            let len = words[1] as usize & 0xffff;
            assert!(len <= 16384, "piece of {len} bytes");
            assert!(self.allows(words[0], len as u32, Access::Read));
            let mut bytes = vec![0; len];
            self.bus_read(words[0], &mut bytes);
            let queue = self.queue_mut(Dir::Tx);
            let first = *queue.first.get_or_insert(words[1]);
            assert_ne!(words[1] & IFCS, 0);
            assert_eq!(
                words[1] >> 32,
                first >> 32,
                "options differ inside a packet"
            );
            queue.gather.extend(bytes);
            if words[1] & EOP != 0 {
                assert_ne!(words[1] & RS, 0, "host wants every packet reported");
                queue.first = None;
                let bytes = std::mem::take(&mut queue.gather);
                let packet = assemble(bytes, first, queue.context);
                self.wire.push(packet);
            }
        }
    }

    /// The NIC writes back up to `max` of the transmit descriptors it has fetched, whole packets
    /// only.
    pub fn nic_tx_write_back(&mut self, max: u16) {
        let queue = self.queue_mut(Dir::Tx);
        if !queue.enabled {
            return;
        }
        let fetched = queue.steps(queue.back, queue.fetch).min(max);
        let (mut at, mut end) = (queue.back, queue.back);
        for _ in 0..fetched {
            let index = queue.at(at);
            at = at.wrapping_add(1) & (queue.len() - 1);
            if !is_context(queue.ring[index]) && queue.ring[index][1] & RS != 0 {
                // All but the status half of the second word is reserved in a write-back.
                queue.ring[index] = [0x5a5a_5a5a_5a5a_5a5a, TX_DD | 0x1234_5678];
                end = at;
            }
        }
        queue.back = end;
    }

    /// Receive buffers' worth of packets that wait for the guest to post buffers.
    pub fn rx_backlog(&self) -> usize {
        self.queue(Dir::Rx).backlog.len()
    }

    /// Descriptors in flight.
    pub fn live(&self, dir: Dir) -> u16 {
        self.queue(dir).live()
    }

    /// Doorbells so far.
    pub fn doorbells(&self, dir: Dir) -> u64 {
        self.queue(dir).doorbells
    }

    /// Makes `stop` time out.
    pub fn set_stuck(&mut self, dir: Dir, stuck: bool) {
        self.set_stop_error(dir, stuck.then_some(HwError::Timeout));
    }

    /// Makes `stop` fail.
    pub fn set_stop_error(&mut self, dir: Dir, error: Option<HwError>) {
        self.queue_mut(dir).stuck = error;
    }

    /// Makes `start` fail.
    pub fn set_start_error(&mut self, dir: Dir, error: Option<HwError>) {
        self.queue_mut(dir).dead = error;
    }

    /// A packet arrives, to be put into as many buffers as it takes.
    pub fn nic_rx_arrives(&mut self, bytes: &[u8], vlan: Option<u16>) {
        let queue = self.queue_mut(Dir::Rx);
        let packet = usize::from(queue.layout.packet_bytes).max(1);
        let header = usize::from(queue.layout.header_bytes);
        let mut rest = bytes;
        let mut first = true;
        while !rest.is_empty() {
            let room = packet + if first { header } else { 0 };
            let (now, later) = rest.split_at(room.min(rest.len()));
            queue.backlog.push_back(Chunk {
                bytes: now.to_vec(),
                first,
                last: later.is_empty(),
                vlan,
            });
            rest = later;
            first = false;
        }
    }

    /// The NIC fills up to `max` receive buffers and writes them back. Returns how many.
    pub fn nic_rx_fill(&mut self, max: u16) -> u16 {
        let mut done = 0;
        while done < max {
            let queue = self.queue_mut(Dir::Rx);
            if !queue.enabled || queue.waiting() == 0 {
                break;
            }
            let Some(chunk) = queue.backlog.pop_front() else {
                break;
            };
            let index = queue.at(queue.fetch);
            let words = queue.ring[index];
            let RxLayout {
                packet_bytes,
                header_bytes,
            } = queue.layout;
            self.check_words(Dir::Rx, words, packet_bytes.into(), header_bytes.into());
            let split = if chunk.first {
                chunk.bytes.len().min(header_bytes.into())
            } else {
                0
            };
            let (head, body) = chunk.bytes.split_at(split);
            if !head.is_empty() {
                self.bus_write(words[1], head);
            }
            self.bus_write(words[0], body);
            // Bits that the guest is not to see are set as well.
            let mut status = 1 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 16 | 1 << 18;
            if chunk.last {
                status |= 2;
            }
            let mut tag = 0xdead;
            if let Some(vlan) = chunk.vlan {
                status |= 8;
                tag = u64::from(vlan);
            }
            let junk = self.rng.next() << 32;
            // As QEMU's igb does, the header length is told for each buffer of a packet.
            let low = 7 | 0x11 << 4 | (split as u64) << 21 | u64::from(split != 0) << 31;
            let back = [junk | low, status | (body.len() as u64) << 32 | tag << 48];
            let queue = self.queue_mut(Dir::Rx);
            queue.ring[index] = back;
            queue.fetch = queue.fetch.wrapping_add(1) & (queue.len() - 1);
            queue.back = queue.fetch;
            done += 1;
        }
        done
    }
}

fn assemble(bytes: Vec<u8>, first: u64, context: Option<[u64; 2]>) -> WirePacket {
    let (vle, tse) = (first & VLE != 0, first & TSE != 0);
    let (ixsm, txsm) = (first >> 40 & 1 != 0, first >> 41 & 1 != 0);
    let payload_len = (first >> 46) as usize;
    let headers = (ixsm || txsm || tse).then(|| {
        let [low, high] = context.expect("a context was given");
        (
            (low >> 9 & 0x7f) as u8,
            (low & 0x1ff) as u16,
            (high >> 40 & 0xff) as u8,
            (high >> 11 & 3) as u8,
            high >> 10 & 1 != 0,
        )
    });
    let header_len = match headers {
        Some((mac, ip, l4, ..)) if tse => usize::from(mac) + usize::from(ip) + usize::from(l4),
        _ => 0,
    };
    assert_eq!(payload_len + header_len, bytes.len(), "PAYLEN");
    WirePacket {
        vlan: vle.then(|| (context.expect("a context was given")[0] >> 16) as u16),
        tso_mss: tse.then(|| (context.unwrap()[1] >> 48) as u16),
        ip_checksum: ixsm,
        l4_checksum: txsm,
        headers,
        bytes,
    }
}
