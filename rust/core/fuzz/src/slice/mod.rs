// SPDX-License-Identifier: GPL-2.0

//! A whole slice on a simulated machine: a guest, a VMM, an administrator and a NIC that do anything
//! in any order. The simulated world panics at the first breach of invariants 1 to 3; what else must
//! hold after each step is in [`check`].

pub mod check;
mod guest;

use sluice_core::addr::GuestAddr;
use sluice_core::map::{
    PinMap,
    Strategy, //
};
use sluice_core::net::MacAddr;
use sluice_core::slice::{
    Hardware,
    MacPolicy,
    Policy,
    Slice, //
};
use sluice_core::source::{
    MacList,
    VlanList,
    VlanPolicy, //
};
use sluice_core::vf::regs::{
    self,
    Slot, //
};
use sluice_core::vf::Width;

use crate::ops::{
    self,
    Op, //
};
use crate::sim::nic::Dir;
use crate::sim::{
    Shared,
    SimMachine,
    SimPinner,
    SimPlatform,
    StdAlloc, //
};
use guest::Driver;

/// So that memory full of twos can be sent.
pub const MAC: MacAddr = MacAddr::new([2; 6]);
const MAP_PAGES: u32 = PinMap::<SimPinner, StdAlloc>::MIN_PAGES;
const RX: u32 = 0x2800;
const TX: u32 = 0x3800;

/// Kinds of records, for who makes inputs.
pub mod kind {
    pub const WRITE: u8 = 0;
    pub const READ: u8 = 1;
    pub const WRITE_ANY: u8 = 2;
    pub const READ_ANY: u8 = 3;
    pub const CONFIG_WRITE: u8 = 4;
    pub const BRING_UP: u8 = 5;
    pub const SET_UP: u8 = 6;
    pub const TAIL: u8 = 7;
    pub const SEND: u8 = 8;
    pub const POST: u8 = 9;
    pub const DESC: u8 = 10;
    pub const FLIP: u8 = 11;
    pub const STORE: u8 = 12;
    pub const POLL: u8 = 13;
    pub const SENT: u8 = 14;
    pub const ARRIVE: u8 = 15;
    pub const FILL: u8 = 16;
    pub const UNMAP: u8 = 17;
    pub const MAP: u8 = 18;
    pub const STRATEGY: u8 = 19;
    pub const RESET: u8 = 20;
    pub const REOPEN: u8 = 21;
    pub const WORLD: u8 = 22;
    pub const MAILBOX: u8 = 23;
    pub const TIME: u8 = 24;
    pub const COUNT: u8 = 25;
}

/// The slice, and all around it.
pub struct Bench {
    slice: Slice<SimPlatform>,
    world: Shared,
    pages: u64,
    now_ns: u64,
    slots: Vec<Slot>,
    tx: Driver,
    rx: Driver,
    /// How many have had the slice before.
    tenant: u64,
    /// A queue was stuck: pages may stay pinned, and the hardware goes to nobody else.
    stuck: bool,
}

/// Carries out the operations that `data` names. The first record says what the machine is like.
pub fn run(data: &[u8]) {
    let mut input = ops::decode(data);
    let first = input.next().unwrap_or_default();
    let mut bench = Bench::new(first);
    let mut done = 0;
    while let Some(op) = input.next() {
        bench.step(op, &mut input);
        bench.check();
        done += 1;
    }
    ops::count(done);
    bench.finish();
}

fn policy(op: Op) -> Policy {
    let list = [5, 6, 4094];
    let some = list.into_iter().try_fold(VlanList::EMPTY, VlanList::with);
    let vlans = [
        VlanPolicy::Any,
        VlanPolicy::None,
        VlanPolicy::Only(some.expect("legal VLANs")),
        VlanPolicy::Port(5),
    ];
    let also = MacList::EMPTY.with(MacAddr::new([2, 0, 0, 0, 0, 9]));
    let macs = [
        MacPolicy::Own,
        MacPolicy::Any,
        MacPolicy::Also(also.expect("a legal address")),
    ];
    Policy {
        macs: macs[usize::from(op.b) % macs.len()],
        vlans: vlans[usize::from(op.a >> 1) % vlans.len()],
        multicast_max: (op.b % 31) as u8,
        all_multicast: op.flag(1),
        broadcast: op.flag(2),
        link_local: op.flag(3),
        check_source: !op.flag(0),
    }
}

impl Bench {
    fn new(op: Op) -> Self {
        let pages = if op.flag(7) { 320 } else { 48 };
        let sim = SimMachine::builder()
            .seed(1)
            .guest_pages(pages)
            .contiguous_percent(u64::from(op.b & 3) * 33)
            .shadow(if op.b & 4 == 0 { 128 } else { 256 })
            .bounce(op.b >> 3 & 7, 1)
            .build();
        let (world, hardware) = sim.into_hardware(MAP_PAGES);
        let mut slice = Slice::new(MAC);
        let strategy = Strategy::ALL[op.v as usize % Strategy::ALL.len()];
        assert!(slice.set_strategy(strategy, 0).is_ok());
        let mut bench = Self {
            slice,
            world,
            pages,
            now_ns: 1,
            slots: regs::all().collect(),
            tx: Driver::default(),
            rx: Driver::default(),
            tenant: 0,
            stuck: false,
        };
        bench.open(op, hardware);
        bench
    }

    fn open(&mut self, op: Op, mut hardware: Hardware<SimPlatform>) {
        assert_eq!(self.slice.set_policy(policy(op)), Ok(()));
        hardware.port.own_mac = MAC;
        hardware.port.refuse = op.flag(5);
        hardware.port.link = (!op.flag(6)).then_some(1000);
        if let Err((_, hardware)) = self.slice.open(hardware) {
            // No memory for what the strategy needs.
            self.world.borrow_mut().no_memory = false;
            assert!(self.slice.open(hardware).is_ok());
        }
        (self.tx, self.rx) = Default::default();
        self.furnish();
        self.check_fresh();
    }

    fn write(&mut self, reg: u32, value: u32) {
        let now_ns = self.now_ns;
        self.slice.mmio_write(reg, Width::Dword, value, now_ns);
    }

    fn step(&mut self, op: Op, more: &mut impl Iterator<Item = Op>) {
        let now_ns = self.now_ns;
        let width = [Width::Dword, Width::Word, Width::Byte][usize::from(op.a % 3)];
        let slot = self.slots[usize::from(op.b) % self.slots.len()];
        let dir = if op.flag(0) { Dir::Rx } else { Dir::Tx };
        match op.kind % kind::COUNT {
            kind::WRITE => self.write(slot.offset(), op.v),
            kind::READ => {
                self.slice.mmio_read(slot.offset(), Width::Dword);
            }
            kind::WRITE_ANY => self.slice.mmio_write(op.b.into(), width, op.v, now_ns),
            kind::READ_ANY => {
                self.slice.mmio_read(op.v, width);
                self.slice.config_read(op.b, width);
                self.slice.msix_read(op.b.into(), width);
            }
            kind::CONFIG_WRITE => {
                self.slice.config_write(op.b, width, op.v, now_ns);
                self.slice.msix_write(op.b.into(), width, op.v);
            }
            kind::BRING_UP => self.bring_up(),
            kind::SET_UP => self.set_up(dir, op),
            kind::TAIL => {
                let (base, tail) = match dir {
                    Dir::Tx => (TX, self.tx.tail),
                    Dir::Rx => (RX, self.rx.tail),
                };
                let tail = if op.flag(1) { op.v } else { tail as u32 };
                self.write(base + 0x18, tail);
            }
            kind::SEND => self.send(op),
            kind::POST => self.post(op),
            kind::DESC => {
                let mut word = || more.next().map_or(0, Op::word);
                let words = [word(), word()];
                self.put(dir, words);
            }
            kind::FLIP => self.flip(dir, op),
            kind::STORE => self.store_bytes(op),
            kind::POLL => self.poll(op),
            kind::SENT => {
                let mut world = self.world.borrow_mut();
                world.nic_tx_fetch(op.b % 160);
                world.nic_tx_write_back((op.a % 160).into());
                drop(world);
                self.check_wire();
            }
            kind::ARRIVE => self.arrive(op),
            kind::FILL => {
                self.world.borrow_mut().nic_rx_fill(op.b % 160);
            }
            kind::UNMAP => self.unmap(op),
            kind::MAP => self.map(op),
            kind::STRATEGY => {
                let strategy = Strategy::ALL[usize::from(op.a) % Strategy::ALL.len()];
                let done = self.slice.set_strategy(strategy, now_ns).is_ok();
                assert!(done || self.world.borrow().no_memory);
            }
            kind::RESET => match op.a % 3 {
                0 => self.write(0, regs::CTRL_RST),
                1 => self.slice.config_write(0xa8, Width::Word, 0x8000, now_ns),
                _ => self.slice.reset(now_ns),
            },
            kind::REOPEN => self.reopen(op),
            kind::WORLD => self.change_world(op),
            kind::MAILBOX => self.mailbox(op),
            _ => {
                self.now_ns = self.now_ns.saturating_add(op.v.into());
                self.slice.link_changed(self.now_ns);
            }
        }
    }

    /// Moves descriptors, never more than allowed.
    fn poll(&mut self, op: Op) {
        self.now_ns = self.now_ns.saturating_add(u64::from(op.v & 0xffff) << 6);
        let budget = op.b % 70;
        let taken = |slice: &Slice<_>| (slice.stats().tx.taken, slice.stats().rx.taken);
        let before = taken(&self.slice);
        let polled = if op.flag(0) {
            self.slice.poll_hastily(self.now_ns, budget)
        } else {
            self.slice.poll(self.now_ns, budget)
        };
        let after = taken(&self.slice);
        let most = u64::from(budget);
        assert!(after.0 - before.0 <= most && after.1 - before.1 <= most);
        assert!(op.flag(0) || !polled.stop_wanted, "poll stops what faulted");
        self.slice.take_kick();
        self.slice.take_report();
    }

    fn arrive(&mut self, op: Op) {
        let mut world = self.world.borrow_mut();
        if world.rx_backlog() < 40 {
            let len = usize::from(op.b % 1509) + 14;
            let mut bytes = vec![op.v as u8; len];
            bytes[..6].fill(if op.flag(1) { 0xff } else { 2 });
            check::mark_all(self.tenant, &mut bytes);
            let vlan = op.flag(0).then_some((op.v >> 8) as u16);
            world.nic_rx_arrives(&bytes, vlan);
        }
        world.nic_rx_fill((op.a >> 2).into());
    }

    /// The VMM takes memory away: afterwards none of it is pinned.
    fn unmap(&mut self, op: Op) {
        let first = u64::from(op.b) % self.pages;
        let count = match op.a {
            255 => self.pages,
            a => u64::from(a % 16) + 1,
        };
        let first = if op.a == 255 { 0 } else { first };
        // In bytes, and not always whole pages.
        let (at, len) = (first << 12 | u64::from(op.v & 0xfff), count << 12);
        let len = len - u64::from(op.v & 0xfff);
        self.slice.dma_unmap(GuestAddr::new(at), len, self.now_ns);
        let leaked = self.slice.map_stats().leaked != 0;
        assert!(!leaked || self.stuck);
        let mut world = self.world.borrow_mut();
        for pfn in first..(first + count).min(self.pages) {
            world.unmap(pfn, leaked);
        }
    }

    fn map(&mut self, op: Op) {
        let first = u64::from(op.b) % self.pages;
        let mut world = self.world.borrow_mut();
        for pfn in first..(first + u64::from(op.a >> 2) + 1).min(self.pages) {
            if !world.is_mapped(pfn) {
                world.map(pfn, !op.flag(0));
                if world.is_mapped(pfn) && !op.flag(1) {
                    world.guest_write(pfn << 12, &[2; 4096]);
                }
            }
        }
    }

    fn change_world(&mut self, op: Op) {
        let mut world = self.world.borrow_mut();
        match op.a % 6 {
            0 => world.hostile = op.b & 1 != 0,
            1 => world.pin_failures_percent = u64::from(op.b % 30),
            2 => {
                world.memlock_pages = match op.b {
                    0..400 => op.b.into(),
                    _ => u64::MAX,
                }
            }
            3 => world.no_memory = op.b & 1 != 0,
            4 => world.drains = op.b & 1 != 0,
            _ => {
                let dir = if op.b & 1 == 0 { Dir::Tx } else { Dir::Rx };
                let stuck = op.b & 2 != 0;
                world.set_stuck(dir, stuck);
                self.stuck |= stuck;
            }
        }
    }

    /// Another VMM opens the slice, with other memory and other rules.
    fn reopen(&mut self, op: Op) {
        if self.stuck {
            return;
        }
        let hardware = self.close();
        self.tenant += 1;
        let mut world = self.world.borrow_mut();
        for pfn in 0..self.pages {
            world.unmap(pfn, false);
        }
        world.hostile = false;
        for pfn in 0..self.pages {
            world.map(pfn, true);
        }
        drop(world);
        self.open(op, hardware);
    }

    /// Gives the slice back; nothing of its owner is left in it.
    fn close(&mut self) -> Hardware<SimPlatform> {
        self.check_residue();
        let hardware = self.slice.close(self.now_ns).expect("it was open");
        self.check_wire();
        self.check_closed(&hardware);
        hardware
    }

    /// However it stands: a reset makes it whole, as long as the hardware obeys.
    fn finish(mut self) {
        self.world.borrow().check_canaries();
        if self.stuck {
            self.slice.close(self.now_ns);
            self.world.borrow().check_live();
            return;
        }
        {
            let mut world = self.world.borrow_mut();
            world.hostile = false;
            world.pin_failures_percent = 0;
            world.memlock_pages = u64::MAX;
            world.no_memory = false;
            for pfn in 0..self.pages {
                // Perhaps read-only, or with less in it than is needed.
                world.map(pfn, true);
            }
        }
        self.slice.reset(self.now_ns);
        self.slice
            .dma_unmap(GuestAddr::new(0), u64::MAX, self.now_ns);
        for pfn in 0..self.pages {
            self.world.borrow_mut().unmap(pfn, false);
        }
        for pfn in 0..self.pages {
            self.world.borrow_mut().map(pfn, true);
        }
        self.furnish();
        self.check_whole();
        self.close();
        self.world.borrow().check_canaries();
    }
}
