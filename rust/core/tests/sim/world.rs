// SPDX-License-Identifier: GPL-2.0

//! Memory and its owners: guest frames, bounce buffers, and canaries between them.

use std::collections::HashMap;

use sluice_core::addr::{
    GuestPage,
    GRANULE_PAGES,
    PAGE_SHIFT, //
};
use sluice_core::net::MacAddr;
use sluice_core::platform::{
    Access,
    NoGranule,
    PinError, //
};

use super::faults::{
    self,
    Fault, //
};
use super::nic::{
    Dir,
    Queue, //
};
use super::rng::Rng;
use super::SimBuilder;

const PAGE: usize = 1 << PAGE_SHIFT;
const BUS_BASE: u64 = 0x1_0000_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The host's own: never touched.
    Canary,
    Guest,
    /// A host buffer: the NIC reads those for transmission and writes those for reception.
    Bounce(Dir),
}

struct Frame {
    bytes: Box<[u8; PAGE]>,
    owner: Owner,
    /// By [`Access`].
    pins: [u32; 4],
}

impl Frame {
    fn pins(&self, access: Access) -> u32 {
        self.pins[access as usize]
    }

    fn is_pinned(&self) -> bool {
        self.pins != [0; 4]
    }
}

/// Guest page as the VMM maps it.
#[derive(Clone, Copy)]
struct Mapping {
    frame: usize,
    writable: bool,
}

/// What the outside sees and does.
pub struct World {
    frames: Vec<Frame>,
    guest: HashMap<u64, Mapping>,
    spare: Vec<usize>,
    /// Where each page was at first, if some of the memory is huge pages.
    pub homes: HashMap<u64, usize>,
    /// First frame of each bounce buffer, by direction.
    bounce: [Vec<usize>; 2],
    bounce_pages: u16,
    pub(super) queues: [Queue; 2],
    pub(super) zombies: Vec<(Dir, [u64; 2], u32, u32)>,
    /// Packets that left by the wire.
    pub wire: Vec<super::nic::WirePacket>,
    pub rng: Rng,
    /// Pages that the VMM may have pinned.
    pub memlock_pages: u64,
    pinned: u64,
    /// Of these, for the NIC.
    nic_pinned: u64,
    /// The NIC has left the bus.
    pub gone: bool,
    /// Addresses that the guest was ever given beside its own.
    pub granted: Vec<MacAddr>,
    /// There is no memory for more bounce buffers.
    pub no_memory: bool,
    /// A transmit queue sends what it holds before it stops; else the link is down.
    pub drains: bool,
    /// Packets that were lost because the receive queue was started anew.
    pub missed: u64,
    /// Of a hundred pins, how many fail for want of memory.
    pub pin_failures_percent: u64,
    /// Descriptors that the CPU loaded from guest memory.
    pub loads: u64,
    /// The guest rewrites a descriptor right after it was loaded, and others before.
    pub hostile: bool,
    /// The guest inverts what the CPU copies out, right after it.
    pub fickle: bool,
    pub pins: u64,
    pub unpins: u64,
    /// Calls that were asked to pin a granule.
    pub granule_tries: u64,
    /// Nobody can pin now without waiting.
    pub later: bool,
    /// Each pin and unpin takes a nanosecond for each page.
    pub spent_ns: u64,
}

fn canary(frame: usize) -> u8 {
    (frame as u8).wrapping_mul(37) ^ 0xa5
}

impl World {
    pub(super) fn new(builder: &SimBuilder) -> Self {
        let mut world = Self {
            frames: Vec::new(),
            guest: HashMap::new(),
            spare: Vec::new(),
            homes: HashMap::new(),
            bounce: [Vec::new(), Vec::new()],
            bounce_pages: builder.bounce_pages,
            queues: [Queue::new(builder.shadow), Queue::new(builder.shadow)],
            zombies: Vec::new(),
            wire: Vec::new(),
            rng: Rng::new(builder.seed),
            memlock_pages: builder.memlock_pages,
            pinned: 0,
            nic_pinned: 0,
            gone: false,
            granted: Vec::new(),
            no_memory: false,
            drains: false,
            missed: 0,
            pin_failures_percent: 0,
            loads: 0,
            hostile: false,
            fickle: false,
            pins: 0,
            unpins: 0,
            granule_tries: 0,
            later: false,
            spent_ns: 0,
        };
        world.reserve_bounce(Dir::Rx, builder.bounce_slots);
        let granule = u64::from(GRANULE_PAGES);
        let mut huge_end = 0;
        for pfn in 0..builder.guest_pages {
            let whole = pfn % granule == 0 && pfn + granule <= builder.guest_pages;
            if whole && builder.huge_percent != 0 && world.rng.chance(builder.huge_percent) {
                huge_end = pfn + granule;
            }
            let inside = pfn < huge_end && pfn % granule != 0;
            if !inside && !world.rng.chance(builder.contiguous_percent) {
                for _ in 0..world.rng.within(1, 3) {
                    let frame = world.add_frame(Owner::Canary);
                    world.spare.push(frame);
                }
            }
            let frame = world.add_frame(Owner::Guest);
            world.guest.insert(
                pfn,
                Mapping {
                    frame,
                    writable: true,
                },
            );
        }
        world.add_frame(Owner::Canary);
        if builder.huge_percent != 0 {
            world.homes = world.guest.iter().map(|(p, m)| (*p, m.frame)).collect();
        }
        world
    }

    fn add_frame(&mut self, owner: Owner) -> usize {
        let frame = self.frames.len();
        let fill = if owner == Owner::Canary {
            canary(frame)
        } else {
            0
        };
        self.frames.push(Frame {
            bytes: Box::new([fill; PAGE]),
            owner,
            pins: [0; 4],
        });
        frame
    }

    pub(super) fn bus_of(frame: usize) -> u64 {
        BUS_BASE + (frame as u64) * PAGE as u64
    }

    fn frame_of(bus: u64) -> Option<usize> {
        Some((bus.checked_sub(BUS_BASE)? >> PAGE_SHIFT) as usize)
    }

    pub(super) fn frame(&self, frame: usize) -> &[u8; PAGE] {
        &self.frames[frame].bytes
    }

    pub(super) fn bounce_bytes(&self) -> u32 {
        u32::from(self.bounce_pages) * PAGE as u32
    }

    pub(super) fn bounce_frame(&self, dir: Dir, slot: u16) -> Option<usize> {
        self.bounce[dir as usize].get(usize::from(slot)).copied()
    }

    pub(super) fn reserve_bounce(&mut self, dir: Dir, slots: u16) -> bool {
        while self.bounce[dir as usize].len() < slots.into() {
            if self.no_memory || faults::fails(Fault::Buffer) {
                return false;
            }
            let first = self.frames.len();
            self.bounce[dir as usize].push(first);
            for _ in 0..self.bounce_pages {
                self.add_frame(Owner::Bounce(dir));
            }
            self.add_frame(Owner::Canary);
        }
        true
    }

    pub(super) fn queue(&self, dir: Dir) -> &Queue {
        &self.queues[dir as usize]
    }

    pub(super) fn queue_mut(&mut self, dir: Dir) -> &mut Queue {
        &mut self.queues[dir as usize]
    }

    // ---- The CPU, through pinned pages.

    pub(super) fn cpu_load(&mut self, frame: usize, offset: u16) -> [u64; 2] {
        self.loads += 1;
        let at = usize::from(offset);
        let bytes = &mut self.frames[frame].bytes;
        let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap());
        let words = [word(&bytes[at..at + 8]), word(&bytes[at + 8..at + 16])];
        if self.hostile {
            // Whoever looks a second time sees something else.
            self.rng.fill(&mut bytes[at..at + 16]);
        }
        words
    }

    pub(super) fn cpu_copies_out(&mut self, frame: usize, offset: u16, bytes: &mut [u8]) {
        let at = usize::from(offset);
        let memory = &mut self.frames[frame].bytes[at..at + bytes.len()];
        bytes.copy_from_slice(memory);
        if self.fickle {
            memory.iter_mut().for_each(|byte| *byte = !*byte);
        }
    }

    pub(super) fn cpu_store(&mut self, frame: usize, offset: u16, bytes: &[u8]) {
        let at = usize::from(offset);
        let frame = &mut self.frames[frame];
        assert_eq!(frame.owner, Owner::Guest, "the CPU wrote outside the guest");
        let pins = frame.pins(Access::Write) + frame.pins(Access::CpuWrite);
        assert_ne!(pins, 0, "the CPU wrote an unpinned page");
        frame.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    // ---- Pins.

    pub(super) fn pin(&mut self, page: GuestPage, access: Access) -> Result<usize, PinError> {
        if self.later {
            return Err(PinError::Later);
        }
        let Some(mapping) = self.guest.get(&page.pfn()).copied() else {
            return Err(PinError::NotMapped);
        };
        if access.writes() && !mapping.writable {
            return Err(PinError::Denied);
        }
        if self.pinned >= self.memlock_pages {
            return Err(PinError::MemlockLimit);
        }
        if self.pin_failures_percent != 0 && self.rng.chance(self.pin_failures_percent) {
            return Err(PinError::NoMemory);
        }
        self.add_pin(mapping.frame, access);
        Ok(mapping.frame)
    }

    /// The first frame of a granule that can be pinned as one.
    pub fn granule(&self, first: u64, writes: bool) -> Option<usize> {
        let start = self.guest.get(&first)?.frame;
        (0..GRANULE_PAGES as usize)
            .all(|i| {
                let mapping = self.guest.get(&(first + i as u64));
                mapping.is_some_and(|m| m.frame == start + i && (m.writable || !writes))
            })
            .then_some(start)
    }

    pub(super) fn pin_granule(
        &mut self,
        first: GuestPage,
        access: Access,
    ) -> Result<usize, NoGranule> {
        assert_eq!(first, first.granule());
        if self.later {
            return Err(NoGranule::Later);
        }
        self.granule_tries += 1;
        let start = self.granule(first.pfn(), access.writes());
        let room = self.pinned + u64::from(GRANULE_PAGES) <= self.memlock_pages;
        let fails = self.pin_failures_percent != 0 && self.rng.chance(self.pin_failures_percent);
        let start = start.filter(|_| room && !fails).ok_or(NoGranule::Refused)?;
        for frame in start..start + GRANULE_PAGES as usize {
            self.add_pin(frame, access);
        }
        Ok(start)
    }

    fn add_pin(&mut self, frame: usize, access: Access) {
        self.pinned += 1;
        self.nic_pinned += u64::from(access.is_by_nic());
        self.pins += 1;
        self.spent_ns += 1;
        self.frames[frame].pins[access as usize] += 1;
    }

    pub(super) fn unpin(&mut self, first: usize, frames: usize, access: Access) {
        let mut gone = false;
        for frame in &mut self.frames[first..first + frames] {
            let pins = &mut frame.pins[access as usize];
            *pins = pins.checked_sub(1).expect("a page that is pinned");
            gone |= *pins == 0;
        }
        self.pinned -= frames as u64;
        self.nic_pinned -= frames as u64 * u64::from(access.is_by_nic());
        self.unpins += frames as u64;
        self.spent_ns += frames as u64;
        if gone {
            // Invariant 3. Only these frames' pins have changed.
            self.check_live();
        }
    }

    /// Pages pinned now.
    pub fn pinned(&self) -> u64 {
        self.pinned
    }

    /// Of these, mapped for the NIC.
    pub fn nic_pinned(&self) -> u64 {
        self.nic_pinned
    }

    // ---- The bus.

    /// Whether every byte is in pages pinned for `access`, or in one bounce buffer.
    pub(super) fn allows(&self, bus: u64, len: u32, access: Access) -> bool {
        let Some(first) = Self::frame_of(bus) else {
            return false;
        };
        let Some(last) = Self::frame_of(bus + u64::from(len) - 1) else {
            return false;
        };
        let frames = self.frames.get(first..=last);
        frames.is_some_and(|frames| {
            frames.iter().all(|frame| match (frame.owner, access) {
                (Owner::Canary, _) => false,
                (Owner::Bounce(dir), access) => (dir == Dir::Rx) == access.writes(),
                (Owner::Guest, access) => frame.pins(access) != 0,
            })
        })
    }

    pub(super) fn bus_read(&self, bus: u64, bytes: &mut [u8]) {
        let mut at = (bus - BUS_BASE) as usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            let offset = at % PAGE;
            let (now, later) = rest.split_at_mut(rest.len().min(PAGE - offset));
            now.copy_from_slice(&self.frames[at / PAGE].bytes[offset..offset + now.len()]);
            at += now.len();
            rest = later;
        }
    }

    pub(super) fn bus_write(&mut self, bus: u64, bytes: &[u8]) {
        let mut at = (bus - BUS_BASE) as usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            let offset = at % PAGE;
            let (now, later) = rest.split_at(rest.len().min(PAGE - offset));
            self.frames[at / PAGE].bytes[offset..offset + now.len()].copy_from_slice(now);
            at += now.len();
            rest = later;
        }
    }

    // ---- The guest.

    /// Writes guest memory. Panics where there is none.
    pub fn guest_write(&mut self, addr: u64, bytes: &[u8]) {
        let mut at = addr;
        let mut rest = bytes;
        while !rest.is_empty() {
            let offset = at as usize % PAGE;
            let len = rest.len().min(PAGE - offset);
            let frame = self.guest[&(at >> PAGE_SHIFT)].frame;
            self.frames[frame].bytes[offset..offset + len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
            at += len as u64;
        }
    }

    /// Reads guest memory. Panics where there is none.
    pub fn guest_read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = addr + bytes.len() as u64;
            let offset = at as usize % PAGE;
            let frame = self.guest[&(at >> PAGE_SHIFT)].frame;
            let end = PAGE.min(offset + len - bytes.len());
            bytes.extend_from_slice(&self.frames[frame].bytes[offset..end]);
        }
        bytes
    }

    pub fn guest_write_desc(&mut self, addr: u64, words: [u64; 2]) {
        self.guest_write(addr, &words[0].to_le_bytes());
        self.guest_write(addr + 8, &words[1].to_le_bytes());
    }

    pub fn guest_read_desc(&self, addr: u64) -> [u64; 2] {
        let bytes = self.guest_read(addr, 16);
        let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap());
        [word(&bytes[..8]), word(&bytes[8..])]
    }

    pub fn is_mapped(&self, pfn: u64) -> bool {
        self.guest.contains_key(&pfn)
    }

    /// Whether a page may be written; `None` where there is none.
    pub fn is_writable(&self, pfn: u64) -> Option<bool> {
        self.guest.get(&pfn).map(|mapping| mapping.writable)
    }

    pub fn bus_of_page(&self, pfn: u64) -> Option<u64> {
        self.guest.get(&pfn).map(|m| Self::bus_of(m.frame))
    }

    // ---- The VMM.

    /// Takes a page away. The module was told before and must have let go of it: `leaked` says
    /// that the NIC could not be stopped, so that it may still be pinned.
    pub fn unmap(&mut self, pfn: u64, leaked: bool) {
        let Some(mapping) = self.guest.remove(&pfn) else {
            return;
        };
        let frame = &mut self.frames[mapping.frame];
        let pinned = frame.is_pinned();
        assert!(leaked || !pinned, "guest page {pfn:#x} is still pinned");
        // The host gives the frame to someone else.
        if !pinned {
            frame.owner = Owner::Canary;
            frame.bytes.fill(canary(mapping.frame));
            self.spare.push(mapping.frame);
        }
    }

    /// Gives the guest a page, in whatever frame is to be had; where there were huge pages, mostly the
    /// one that it had before.
    pub fn map(&mut self, pfn: u64, writable: bool) {
        if self.guest.contains_key(&pfn) || self.spare.is_empty() {
            return;
        }
        let at = self.rng.below(self.spare.len() as u64) as usize;
        let home = self.homes.get(&pfn).copied();
        let home = self.spare.iter().position(|frame| Some(*frame) == home);
        let at = home.filter(|_| self.rng.chance(95)).unwrap_or(at);
        let frame = self.spare.swap_remove(at);
        self.frames[frame].owner = Owner::Guest;
        self.frames[frame].bytes.fill(0);
        self.guest.insert(pfn, Mapping { frame, writable });
    }

    // ---- The checker.

    /// Every byte of memory that is nobody's is as it was.
    pub fn check_canaries(&self) {
        for (i, frame) in self.frames.iter().enumerate() {
            if frame.owner == Owner::Canary {
                assert!(
                    *frame.bytes == [canary(i); PAGE],
                    "canary frame {i} was written"
                );
            }
        }
    }
}
