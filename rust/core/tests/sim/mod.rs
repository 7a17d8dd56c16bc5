// SPDX-License-Identifier: GPL-2.0

//! A machine in one process: guest memory scattered over the bus among canaries, a NIC that acts
//! when it is told to, and a VMM that can take memory away. It watches the invariants while it
//! runs and panics at the first breach.
//!
//!     let mut sim = SimMachine::builder().seed(1).guest_pages(512).build();
//!
//! `sim.pinner`, `sim.tx_queue`, `sim.rx_queue`, `sim.tx_bounce`, `sim.rx_bounce`,
//! `sim.port`, `sim.signals` are the
//! platform's halves ([`SimPlatform`]); `sim.world()` is the view from outside.

#![allow(dead_code)] // Each test uses its part.

pub mod bench;
pub mod faults;
pub mod frames;
pub mod guest;
pub mod nic;
pub mod rig;
pub mod rng;
pub mod world;

use std::cell::{
    RefCell,
    RefMut, //
};
use std::rc::Rc;

use sluice_core::addr::{
    BusPage,
    GuestPage,
    GRANULE_PAGES,
    PAGE_SIZE, //
};
use sluice_core::net::MacAddr;
use sluice_core::platform::*;
use sluice_core::pool::PoolRules;
use sluice_core::slice::{
    Hardware,
    Limits, //
};

use faults::Fault;
use nic::Dir;
use world::World;

pub type Shared = Rc<RefCell<World>>;

/// The platform over a [`World`].
pub struct SimPlatform;

impl Platform for SimPlatform {
    type Alloc = StdAlloc;
    type Pinner = SimPinner;
    type Queue = SimQueue;
    type Port = SimPort;
    type Signals = SimSignals;
    type Bounce = SimBounce;
}

pub struct StdAlloc;

impl Alloc for StdAlloc {
    type Buf<T> = Box<[T]>;
    type Box<T> = Box<T>;
    fn boxed<T>(value: T) -> Option<Box<T>> {
        (!faults::fails(Fault::Alloc)).then(|| Box::new(value))
    }
    fn filled<T>(len: usize, make: impl FnMut(usize) -> T) -> Option<Box<[T]>> {
        (!faults::fails(Fault::Alloc)).then(|| (0..len).map(make).collect())
    }
}

/// A pinned page, or granule. Dropped without `unpin`, it stays pinned, as in the kernel.
pub struct SimPage {
    world: Shared,
    /// The first one.
    frame: usize,
    frames: usize,
    access: Access,
}

impl SimPage {
    fn need_write(&self) {
        assert!(self.access.writes(), "CPU writes a page pinned for reading");
    }

    /// The frame and the place in it, and how many of `len` bytes from there lie in the frame.
    fn place(&self, offset: u32, len: usize) -> (usize, u16, usize) {
        let (index, offset) = (
            u64::from(offset) / PAGE_SIZE,
            (u64::from(offset) % PAGE_SIZE) as u16,
        );
        assert!((index as usize) < self.frames, "outside of what is pinned");
        let len = len.min((PAGE_SIZE as u16 - offset).into());
        (self.frame + index as usize, offset, len)
    }
}

impl PinnedPage for SimPage {
    fn bus(&self) -> Option<BusPage> {
        BusPage::from_mapping(World::bus_of(self.frame)).filter(|_| self.access.is_by_nic())
    }
    fn load_desc(&self, offset: u16) -> [u64; 2] {
        assert_eq!(offset % 16, 0);
        self.world.borrow_mut().cpu_load(self.frame, offset)
    }
    fn store_desc(&self, offset: u16, words: [u64; 2]) {
        assert_eq!(offset % 16, 0);
        self.need_write();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&words[0].to_le_bytes());
        bytes[8..].copy_from_slice(&words[1].to_le_bytes());
        self.world
            .borrow_mut()
            .cpu_store(self.frame, offset, &bytes);
    }
    fn store_u32(&self, offset: u16, value: u32) {
        assert_eq!(offset % 4, 0);
        self.need_write();
        let mut world = self.world.borrow_mut();
        world.cpu_store(self.frame, offset, &value.to_le_bytes());
    }
    fn copy_in(&self, offset: u32, bytes: &[u8]) {
        self.need_write();
        let (frame, offset, len) = self.place(offset, bytes.len());
        assert_eq!(len, bytes.len(), "nobody asks for two pages at a time");
        let mut world = self.world.borrow_mut();
        world.cpu_store(frame, offset, bytes);
    }
    fn copy_out(&self, offset: u32, bytes: &mut [u8]) {
        let (frame, offset, len) = self.place(offset, bytes.len());
        assert_eq!(len, bytes.len(), "nobody asks for two pages at a time");
        let mut world = self.world.borrow_mut();
        world.cpu_copies_out(frame, offset, bytes);
    }
}

pub struct SimPinner(Shared);

impl Pinner for SimPinner {
    type Page = SimPage;
    fn pin(&mut self, page: GuestPage, access: Access) -> Result<SimPage, PinError> {
        if let Some(error) = faults::pin_fails() {
            return Err(error);
        }
        let frame = self.0.borrow_mut().pin(page, access)?;
        Ok(SimPage {
            world: self.0.clone(),
            frame,
            frames: 1,
            access,
        })
    }
    fn pin_granule(&mut self, first: GuestPage, access: Access) -> Result<SimPage, NoGranule> {
        if let Some(why) = faults::granule_fails() {
            return Err(why);
        }
        let frame = self.0.borrow_mut().pin_granule(first, access)?;
        Ok(SimPage {
            world: self.0.clone(),
            frame,
            frames: GRANULE_PAGES as usize,
            access,
        })
    }
    fn unpin(&mut self, page: SimPage) {
        let mut world = self.0.borrow_mut();
        world.unpin(page.frame, page.frames, page.access);
    }
    fn spent_ns(&self) -> u64 {
        self.0.borrow().spent_ns
    }
}

/// The host's end of a queue of the NIC.
pub struct SimQueue {
    world: Shared,
    dir: Dir,
}

impl HwQueue for SimQueue {
    fn len(&self) -> u16 {
        self.world.borrow().queue(self.dir).len()
    }
    fn write(&mut self, index: u16, words: [u64; 2]) {
        self.world.borrow_mut().host_writes(self.dir, index, words);
    }
    fn read(&self, index: u16) -> [u64; 2] {
        self.world.borrow().queue(self.dir).read(index)
    }
    fn doorbell(&mut self, tail: u16) {
        self.world.borrow_mut().doorbell(self.dir, tail);
    }
    fn start(&mut self, layout: RxLayout) -> Result<(), HwError> {
        self.world.borrow_mut().start(self.dir, layout)
    }
    fn stop(&mut self) -> Result<(), HwError> {
        self.world.borrow_mut().stop(self.dir)
    }
}

/// A queue's host buffers.
pub struct SimBounce {
    world: Shared,
    dir: Dir,
}

impl Bounce for SimBounce {
    fn reserve(&mut self, slots: u16) -> bool {
        self.world.borrow_mut().reserve_bounce(self.dir, slots)
    }
    fn bus(&self, slot: u16) -> Option<BusPage> {
        let frame = self.world.borrow().bounce_frame(self.dir, slot)?;
        BusPage::from_mapping(World::bus_of(frame))
    }
    fn slot_bytes(&self) -> u32 {
        self.world.borrow().bounce_bytes()
    }
    fn copy_out(&self, slot: u16, offset: u16, bytes: &mut [u8]) {
        let world = self.world.borrow();
        let frame = world.bounce_frame(self.dir, slot).expect("a buffer");
        let from = World::bus_of(frame) + u64::from(offset);
        assert!(u64::from(offset) + bytes.len() as u64 <= world.bounce_bytes().into());
        world.bus_read(from, bytes);
    }
    fn copy_in(&mut self, slot: u16, offset: u16, bytes: &[u8]) {
        let mut world = self.world.borrow_mut();
        let frame = world.bounce_frame(self.dir, slot).expect("a buffer");
        let to = World::bus_of(frame) + u64::from(offset);
        assert!(u64::from(offset) + bytes.len() as u64 <= world.bounce_bytes().into());
        world.check_idle(to, bytes.len() as u32);
        world.bus_write(to, bytes);
    }
}

/// Filters as they were last set.
#[derive(Clone)]
pub struct SimPort {
    world: Shared,
    /// As it was before the last reset.
    pub before: Option<Box<SimPort>>,
    pub link: Option<u16>,
    pub mac: MacAddr,
    pub own_mac: MacAddr,
    pub multicast: Vec<u16>,
    pub vlans: Vec<u16>,
    /// Addresses that the guest asked for.
    pub more_macs: Vec<MacAddr>,
    pub all_multicast: bool,
    pub rules: PoolRules,
    pub max_frame: u16,
    pub resets: u32,
    /// Answer `false` to all that can be refused.
    pub refuse: bool,
}

impl SimPort {
    fn refuses(&self) -> bool {
        self.refuse || faults::fails(Fault::Port)
    }

    /// An address that no slice gets.
    pub const TAKEN: MacAddr = MacAddr::new([0xba; 6]);
}

impl Port for SimPort {
    fn link(&self) -> Option<u16> {
        self.link.filter(|_| !self.world.borrow().gone)
    }
    fn set_mac(&mut self, mac: MacAddr) -> bool {
        let refused = self.refuses();
        if !refused {
            self.mac = mac;
        }
        !refused
    }
    fn set_multicast(&mut self, hashes: &[u16]) -> bool {
        let refused = self.refuses();
        if !refused {
            self.multicast = hashes.to_vec();
        }
        !refused
    }
    fn set_vlan(&mut self, vid: u16, on: bool) -> bool {
        if self.refuses() {
            return false;
        }
        self.vlans.retain(|v| *v != vid);
        if on {
            self.vlans.push(vid);
        }
        true
    }
    fn set_max_frame(&mut self, len_bytes: u16) -> bool {
        let refused = self.refuses();
        if !refused {
            self.max_frame = len_bytes;
        }
        !refused
    }
    fn replace_mac(&mut self, old: Option<MacAddr>, new: Option<MacAddr>) -> bool {
        let kept = self.more_macs.iter().filter(|mac| Some(**mac) != old);
        let next: Vec<_> = kept.copied().chain(new).collect();
        // To give an address back is never refused.
        let unlucky = |mac| mac == Self::TAKEN || self.refuses();
        let refused = new.is_some_and(unlucky) || next.len() > 8;
        if !refused {
            self.more_macs = next;
            self.world.borrow_mut().granted.extend(new);
        }
        !refused
    }
    fn set_all_multicast(&mut self, on: bool) {
        self.all_multicast = on;
    }
    fn reset_filters(&mut self, rules: &PoolRules) {
        self.before = None;
        self.before = Some(Box::new(self.clone()));
        self.mac = self.own_mac;
        self.more_macs.clear();
        self.all_multicast = false;
        self.rules = *rules;
        self.multicast.clear();
        self.vlans.clear();
        self.resets += 1;
    }
}

/// How often each vector was signalled.
#[derive(Debug, Default)]
pub struct SimSignals {
    pub count: [u64; 3],
}

impl Signals for SimSignals {
    fn signal(&mut self, vector: u8) {
        self.count[usize::from(vector)] += 1;
    }
}

/// See the module.
pub struct SimMachine {
    world: Shared,
    pub pinner: SimPinner,
    pub tx_queue: SimQueue,
    pub rx_queue: SimQueue,
    pub tx_bounce: SimBounce,
    pub rx_bounce: SimBounce,
    pub port: SimPort,
    pub signals: SimSignals,
}

impl SimMachine {
    pub fn builder() -> SimBuilder {
        SimBuilder::default()
    }

    /// The world, from outside: guest memory, the NIC, the VMM. Must not be held across calls
    /// into the code under test.
    pub fn world(&self) -> RefMut<'_, World> {
        self.world.borrow_mut()
    }

    /// The world, and the rest as a slice takes it.
    pub fn into_hardware(self, pinned_pages: u32) -> (Shared, Hardware<SimPlatform>) {
        let seed = self.world().rng.next();
        let hardware = Hardware {
            pinner: self.pinner,
            tx: self.tx_queue,
            rx: self.rx_queue,
            port: self.port,
            signals: self.signals,
            tx_bounce: self.tx_bounce,
            rx_bounce: self.rx_bounce,
            limits: Limits { pinned_pages, seed },
        };
        (self.world, hardware)
    }
}

/// How a [`SimMachine`] is made.
#[derive(Clone, Copy, Debug)]
pub struct SimBuilder {
    pub(self) seed: u64,
    pub(self) guest_pages: u64,
    pub(self) contiguous_percent: u64,
    pub(self) huge_percent: u64,
    pub(self) shadow: u16,
    pub(self) bounce_slots: u16,
    pub(self) bounce_pages: u16,
    pub(self) memlock_pages: u64,
}

impl Default for SimBuilder {
    fn default() -> Self {
        Self {
            seed: 1,
            guest_pages: 1024,
            contiguous_percent: 50,
            huge_percent: 0,
            shadow: 256,
            bounce_slots: 64,
            bounce_pages: 1,
            memlock_pages: u64::MAX,
        }
    }
}

impl SimBuilder {
    /// Seed of every random choice.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
    /// Guest memory, from guest page 0.
    pub fn guest_pages(mut self, pages: u64) -> Self {
        self.guest_pages = pages;
        self
    }
    /// How many of a hundred guest pages follow their predecessor on the bus.
    pub fn contiguous_percent(mut self, percent: u64) -> Self {
        self.contiguous_percent = percent;
        self
    }
    /// How many of a hundred granules that are all memory lie in one piece.
    pub fn huge_percent(mut self, percent: u64) -> Self {
        self.huge_percent = percent;
        self
    }
    pub fn has_huge_pages(&self) -> bool {
        self.huge_percent != 0
    }
    /// Descriptors in each shadow ring.
    pub fn shadow(mut self, len: u16) -> Self {
        self.shadow = len;
        self
    }
    /// Bounce buffers, and pages in each.
    pub fn bounce(mut self, slots: u16, pages: u16) -> Self {
        self.bounce_slots = slots;
        self.bounce_pages = pages;
        self
    }
    /// The VMM's limit on pinned pages.
    pub fn memlock_pages(mut self, pages: u64) -> Self {
        self.memlock_pages = pages;
        self
    }
    pub fn build(self) -> SimMachine {
        let world = Rc::new(RefCell::new(World::new(&self)));
        let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
        SimMachine {
            pinner: SimPinner(world.clone()),
            tx_queue: SimQueue {
                world: world.clone(),
                dir: Dir::Tx,
            },
            rx_queue: SimQueue {
                world: world.clone(),
                dir: Dir::Rx,
            },
            tx_bounce: SimBounce {
                world: world.clone(),
                dir: Dir::Tx,
            },
            rx_bounce: SimBounce {
                world: world.clone(),
                dir: Dir::Rx,
            },
            port: SimPort {
                world: world.clone(),
                before: None,
                link: Some(1000),
                mac,
                own_mac: mac,
                multicast: Vec::new(),
                vlans: Vec::new(),
                more_macs: Vec::new(),
                all_multicast: false,
                rules: PoolRules::DEFAULT,
                max_frame: 1522,
                resets: 0,
                refuse: false,
            },
            signals: SimSignals::default(),
            world,
        }
    }
}
