// SPDX-License-Identifier: GPL-2.0

//! A whole slice, driven by its registers, on a simulated machine.

use sluice_core::addr::GuestAddr;
use sluice_core::net::MacAddr;
use sluice_core::slice::*;
use sluice_core::vf::Width;

use super::{
    Shared,
    SimBuilder,
    SimMachine,
    SimPlatform, //
};

pub const MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
pub const PAGES: u64 = 512;
pub const MAP_PAGES: u32 = 512;

pub const CTRL: u32 = 0x0000;
pub const STATUS: u32 = 0x0008;
pub const V2PMAILBOX: u32 = 0x0C40;
pub const VMBMEM: u32 = 0x0800;
pub const EIMS: u32 = 0x1524;
pub const IVAR0: u32 = 0x1700;
pub const RX: u32 = 0x2800;
pub const TX: u32 = 0x3800;
pub const BAL: u32 = 0x00;
pub const BAH: u32 = 0x04;
pub const LEN: u32 = 0x08;
pub const SRRCTL: u32 = 0x0C;
pub const TAIL: u32 = 0x18;
pub const DCTL: u32 = 0x28;
pub const ENABLE: u32 = 1 << 25;
pub const ONE_BUFFER_2K: u32 = 1 << 25 | 2;

pub const TX_RING: u64 = 0x1000;
pub const RX_RING: u64 = 0x3000;
pub const RING_LEN: u32 = 64 * 16;
pub const BUFFERS: u64 = 0x10_000;

/// A slice with its world.
pub struct Bench {
    pub world: Shared,
    pub slice: Slice<SimPlatform>,
    pub now_ns: u64,
}

impl Bench {
    /// A slice whose guest may send anything.
    pub fn new(seed: u64) -> Self {
        let policy = Policy {
            check_source: false,
            ..Policy::default()
        };
        Self::with_policy(seed, policy)
    }

    pub fn with_policy(seed: u64, policy: Policy) -> Self {
        Self::with_memory(seed, policy, SimMachine::builder(), (PAGES, MAP_PAGES))
    }

    /// Guest pages, and most that are pinned.
    pub fn with_memory(
        seed: u64,
        policy: Policy,
        builder: SimBuilder,
        (pages, map_pages): (u64, u32),
    ) -> Self {
        let sim = builder.seed(seed).guest_pages(pages).build();
        let (world, hardware) = sim.into_hardware(map_pages);
        let mut slice = Slice::new(MAC);
        assert_eq!(slice.set_policy(policy), Ok(()));
        assert!(slice.open(hardware).is_ok());
        Self {
            world,
            slice,
            now_ns: 1,
        }
    }

    pub fn write(&mut self, reg: u32, value: u32) {
        self.slice.mmio_write(reg, Width::Dword, value, self.now_ns);
    }

    pub fn read(&mut self, reg: u32) -> u32 {
        self.slice.mmio_read(reg, Width::Dword)
    }

    pub fn poll(&mut self) -> Polled {
        self.now_ns += 1_000_000;
        let polled = self.slice.poll(self.now_ns, 64);
        self.world.borrow().check_live();
        polled
    }

    pub fn master(&mut self, on: bool) {
        let command = if on { 6 } else { 2 };
        self.slice
            .config_write(4, Width::Word, command, self.now_ns);
    }

    pub fn ring(&mut self, block: u32, base: u64, len: u32) {
        self.write(block + BAL, base as u32);
        self.write(block + BAH, (base >> 32) as u32);
        self.write(block + LEN, len);
    }

    pub fn enable_tx(&mut self) {
        self.ring(TX, TX_RING, RING_LEN);
        self.write(TX + DCTL, ENABLE);
    }

    pub fn enable_rx(&mut self) {
        self.ring(RX, RX_RING, RING_LEN);
        self.write(RX + SRRCTL, ONE_BUFFER_2K);
        self.write(RX + DCTL, ENABLE);
    }

    /// As a driver does it that waits until the queue is at rest.
    pub fn disable(&mut self, block: u32) {
        self.write(block + DCTL, 0);
        self.poll();
    }

    /// As a driver does it, up to running queues with unmasked interrupts.
    pub fn bring_up(&mut self) {
        self.master(true);
        self.write(CTRL, 1 << 26);
        assert_eq!(self.read(V2PMAILBOX) & 0x80, 0x80, "reset done");
        self.request(&[1]);
        self.write(IVAR0, 0x8081);
        self.write(EIMS, 7);
        self.enable_tx();
        self.enable_rx();
        assert_eq!(self.read(TX + DCTL) & ENABLE, ENABLE);
        assert_eq!(self.read(RX + DCTL) & ENABLE, ENABLE);
        assert_eq!(self.slice.state(), State::Running);
    }

    /// A message through the mailbox; the first word of the reply.
    pub fn request(&mut self, words: &[u32]) -> u32 {
        self.write(V2PMAILBOX, 4);
        for (reg, word) in (VMBMEM..).step_by(4).zip(words) {
            self.write(reg, *word);
        }
        self.write(V2PMAILBOX, 1);
        assert_ne!(self.read(V2PMAILBOX) & 0x10, 0, "a reply is there");
        let reply = self.read(VMBMEM);
        self.write(V2PMAILBOX, 2);
        reply
    }

    pub fn nic_runs(&mut self) {
        let mut world = self.world.borrow_mut();
        world.nic_tx_fetch(u16::MAX);
        world.nic_tx_write_back(u16::MAX);
        world.nic_rx_fill(u16::MAX);
    }

    pub fn unmap(&mut self, pfn: u64, pages: u64) {
        self.slice
            .dma_unmap(GuestAddr::new(pfn << 12), pages << 12, self.now_ns);
        for pfn in pfn..pfn + pages {
            // Panics if the page is still pinned.
            self.world.borrow_mut().unmap(pfn, false);
        }
        self.world.borrow().check_live();
    }

    pub fn close(mut self) {
        assert!(self.slice.close(self.now_ns).is_some());
        assert_eq!(self.world.borrow().pinned(), 0, "pins are left");
        assert_eq!(self.slice.state(), State::Closed);
        let maps = self.slice.map_stats();
        assert_eq!((maps.pins, maps.pinned), (maps.unpins, 0));
        self.world.borrow().check_canaries();
    }
}
