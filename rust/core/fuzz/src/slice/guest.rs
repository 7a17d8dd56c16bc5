// SPDX-License-Identifier: GPL-2.0

//! What the guest does to its memory and its rings: near enough to what a driver does that it gets
//! far, with as many slips as the input asks for.

use sluice_core::vf::Width;

use super::{
    Bench,
    RX,
    TX, //
};
use crate::ops::Op;
use crate::sim::guest::{
    context_words,
    data_word,
    Csum,
    Send,
    Tso, //
};
use crate::sim::nic::Dir;

/// Where the guest believes a ring to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Driver {
    pub base: u64,
    pub count: u64,
    pub tail: u64,
}

impl Bench {
    /// As a driver does it, up to unmasked interrupts and an answered mailbox.
    pub(super) fn bring_up(&mut self) {
        let now_ns = self.now_ns;
        self.slice.config_write(4, Width::Word, 6, now_ns);
        self.write(0, 1 << 26);
        self.slice.mmio_read(0x0c40, Width::Dword);
        self.message(&[1]);
        self.write(0x1700, 0x8081);
        self.write(0x1740, 0x82);
        self.write(0x1524, 7);
    }

    /// A message through the mailbox, as long as the model takes it.
    fn message(&mut self, words: &[u32]) {
        self.write(0x0c40, 4);
        for (i, word) in words.iter().enumerate() {
            self.write(0x0800 + 4 * i as u32, *word);
        }
        self.write(0x0c40, 1);
        self.slice.mmio_read(0x0c40, Width::Dword);
        self.write(0x0c40, 2);
    }

    pub(super) fn mailbox(&mut self, op: Op) {
        self.message(&[
            u32::from(op.a % 8) | u32::from(op.b) << 16,
            op.v,
            op.v >> 16,
            op.v,
        ]);
    }

    /// Disables a queue and enables it with a ring and buffers of the input's choice.
    pub(super) fn set_up(&mut self, dir: Dir, op: Op) {
        let regs = if dir == Dir::Tx { TX } else { RX };
        let base = u64::from(op.v) % (self.pages << 5) * 128;
        let len = [128, 256, 1024, 2048, 4096, 65536, op.v >> 8, 512][usize::from(op.a >> 1) % 8];
        self.write(regs + 0x28, 0);
        self.write(regs + 0x10, 0);
        self.write(regs, base as u32);
        self.write(regs + 4, 0);
        self.write(regs + 8, len);
        if dir == Dir::Rx {
            let split = u32::from(op.b >> 8) & 0x3f;
            let kind = if split == 0 { 1 } else { 5 };
            let kib = [2, 2, 1, 3, 4, 8, 16, u32::from(op.b >> 4)][usize::from(op.b) % 8];
            self.write(regs + 12, kind << 25 | split << 8 | (kib & 0x7f));
        }
        self.write(regs + 0x18, 0);
        self.write(regs + 0x28, 1 << 25);
        let driver = Driver {
            base,
            count: u64::from(len / 16).max(1),
            tail: 0,
        };
        match dir {
            Dir::Tx => self.tx = driver,
            Dir::Rx => self.rx = driver,
        }
    }

    /// Stores a descriptor where there is memory.
    fn store(&mut self, addr: u64, words: [u64; 2]) {
        let mut world = self.world.borrow_mut();
        if world.is_mapped(addr >> 12) {
            world.guest_write_desc(addr, words);
        }
    }

    /// The next descriptor of a ring.
    pub(super) fn put(&mut self, dir: Dir, words: [u64; 2]) {
        let driver = match dir {
            Dir::Tx => &mut self.tx,
            Dir::Rx => &mut self.rx,
        };
        let addr = driver.base + driver.tail * 16;
        driver.tail = (driver.tail + 1) % driver.count.max(1);
        self.store(addr, words);
    }

    /// One bit of a descriptor.
    pub(super) fn flip(&mut self, dir: Dir, op: Op) {
        let driver = if dir == Dir::Tx { self.tx } else { self.rx };
        let addr = driver.base + u64::from(op.b) % driver.count.max(1) * 16;
        let mut world = self.world.borrow_mut();
        if world.is_mapped(addr >> 12) {
            let mut words = world.guest_read_desc(addr);
            words[op.v as usize / 64 % 2] ^= 1 << (op.v % 64);
            world.guest_write_desc(addr, words);
        }
    }

    /// A packet: what it is in `a`, pieces and their length in `b`, where in `v`.
    pub(super) fn send(&mut self, op: Op) {
        let mut send = Send::default();
        let kind = op.a >> 1 & 3;
        let tag = [5, 6, 0x2005, 7][usize::from(op.b >> 12) % 4];
        send.vlan = op.flag(0).then_some(tag);
        let ipv4 = !op.flag(3);
        if kind != 0 {
            send.csum = Some(Csum {
                mac_len: 14,
                ip_len: if ipv4 { 20 } else { 40 },
                ipv4,
                l4: if kind == 3 { 1 } else { kind - 1 },
                ip_checksum: ipv4 && kind != 1,
            });
        }
        if kind == 3 {
            send.tso = Some(Tso {
                mss: 8 + op.b % 1453,
                l4_len: 20,
            });
        }
        let pieces = match op.b & 15 {
            15 => 41,
            n => u64::from(n) + 1,
        };
        let len = u64::from(op.b >> 4) % 1500 + if pieces == 1 { 74 } else { 1 };
        let len = if op.flag(7) { len * 11 } else { len };
        for i in 0..pieces {
            // Nearly all of them memory, some across a page's end.
            let addr = (u64::from(op.v) + i * 0x1357) % (self.pages << 12);
            send.segments.push((addr, len as u16));
        }
        if !op.flag(6) && (send.csum.is_some() || send.vlan.is_some()) {
            self.put(Dir::Tx, context_words(&send));
        }
        let header = match kind {
            3 if ipv4 => 54,
            3 => 74,
            _ => 0,
        };
        let payload = send.len().saturating_sub(header) + u32::from(op.flag(5));
        for (i, (addr, len)) in send.segments.iter().enumerate() {
            let last = i + 1 == send.segments.len() && !op.flag(4);
            let words = [*addr, data_word(*len, last, &send, payload & 0x3_ffff)];
            self.put(Dir::Tx, words);
        }
    }

    /// Empty buffers: how many in `a`, how far apart in `b`, from where in `v`.
    pub(super) fn post(&mut self, op: Op) {
        for i in 0..u64::from(op.a % 64) + 1 {
            let addr = |v: u64| (v + i * u64::from(op.b)) % (self.pages << 12) & !1;
            let words = [addr(op.v.into()), addr(u64::from(op.v) + 0x800)];
            self.put(Dir::Rx, words);
        }
    }

    /// Bytes that make a frame's head good or bad, or others.
    pub(super) fn store_bytes(&mut self, op: Op) {
        let addr = u64::from(op.v) % (self.pages << 12);
        let mut bytes = [2; 24];
        match op.a % 6 {
            0 => bytes[11] = op.b as u8,
            1 => bytes[12..16].copy_from_slice(&[0x81, 0, (op.b >> 8) as u8, op.b as u8]),
            2 => bytes[12..14].copy_from_slice(&op.b.to_be_bytes()),
            3 => bytes[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, op.b as u8]),
            4 => bytes.fill(op.b as u8),
            _ => {}
        }
        let mut world = self.world.borrow_mut();
        if world.is_mapped(addr >> 12) && world.is_mapped((addr + 23) >> 12) {
            world.guest_write(addr, &bytes);
        }
    }
}
