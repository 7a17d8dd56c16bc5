// SPDX-License-Identifier: GPL-2.0

//! What a slice needs from the machine beneath it.
//!
//! The module implements these traits over VFIO, the DMA API and the NIC's registers; the tests
//! implement them over a simulated guest memory and a simulated NIC. All methods run in the
//! worker's or the VMM's thread, with the slice's lock held, and may sleep unless they say
//! otherwise.

use core::ops::DerefMut;

use crate::addr::{
    BusPage,
    GuestPage,
    PAGE_SIZE, //
};
use crate::net::MacAddr;
use crate::pool::PoolRules;

/// What may be done with a pinned page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// The NIC reads the page (transmit).
    Read,
    /// The NIC writes the page (receive); the CPU may read and write it.
    Write,
    /// The CPU alone reads the page: it is not mapped for the NIC.
    CpuRead,
    /// The CPU alone reads and writes the page (rings, copies): it is not mapped for the NIC.
    CpuWrite,
}

impl Access {
    /// Whether the page is written.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::CpuWrite)
    }

    /// Whether the page is mapped for the NIC.
    pub const fn is_by_nic(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }

    /// The same for the CPU alone.
    pub const fn by_cpu(self) -> Self {
        if self.writes() {
            Self::CpuWrite
        } else {
            Self::CpuRead
        }
    }
}

/// Why a page could not be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinError {
    /// The VMM has mapped no memory there, or it is not memory (MMIO, interrupt window).
    NotMapped,
    /// The VMM's mapping does not permit the access (read-only memory).
    Denied,
    /// The VMM's limit on locked memory is reached.
    MemlockLimit,
    /// The host is out of memory or the NIC cannot reach the page.
    NoMemory,
    /// Pinning might wait for the VMM, and whoever polls must not. The platform has the slice
    /// polled again by someone who may.
    Later,
}

/// Why a granule was not pinned whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoGranule {
    /// As [`PinError::Later`].
    Later,
    /// It is not one piece of memory, all of it for the access that is asked for, within the VMM's
    /// limit. Its pages one by one may do.
    Refused,
}

/// A guest page, or a granule of [`GRANULE_PAGES`](crate::addr::GRANULE_PAGES), that is pinned and,
/// unless it is for the CPU alone, mapped for the NIC. Not `Clone`: it goes back through
/// [`Pinner::unpin`] exactly once.
///
/// The guest can read and write the page at any time. Loads are therefore volatile copies; two
/// loads of one place may differ (invariant 4).
pub trait PinnedPage {
    /// Where the NIC finds the page, or a granule's first; `None` where it is pinned for the CPU alone.
    fn bus(&self) -> Option<BusPage>;
    /// Copies 16 bytes at `offset` (a multiple of 16; reduced modulo the page size), as two
    /// little-endian words. Each word is loaded once.
    fn load_desc(&self, offset: u16) -> [u64; 2];
    /// Stores 16 bytes at `offset` (a multiple of 16); the second word, which carries the "done"
    /// bit, becomes visible last.
    fn store_desc(&self, offset: u16, words: [u64; 2]);
    /// Stores a 32-bit little-endian word at `offset` (a multiple of 4) after all earlier stores.
    fn store_u32(&self, offset: u16, value: u32);
    /// Copies `bytes` into the page or granule at `offset`. Bytes past its end are dropped.
    fn copy_in(&self, offset: u32, bytes: &[u8]);
    /// Copies out of the page or granule at `offset` into `bytes`. Bytes past its end are left.
    fn copy_out(&self, offset: u32, bytes: &mut [u8]);
}

/// Pins guest pages for the slice.
pub trait Pinner {
    /// A pinned page.
    type Page: PinnedPage;
    /// Pins `page`, charges it to the VMM and maps it as `access` says. Sleeps.
    fn pin(&mut self, page: GuestPage, access: Access) -> Result<Self::Page, PinError>;
    /// Does the same for the granule that begins with page `first`, as one: on the bus, too, its pages
    /// follow each other. All of it or nothing. Sleeps.
    fn pin_granule(&mut self, first: GuestPage, access: Access) -> Result<Self::Page, NoGranule> {
        let _ = (first, access);
        Err(NoGranule::Refused)
    }
    /// Unmaps and unpins. The caller has seen to invariant 3.
    fn unpin(&mut self, page: Self::Page);
    /// Nanoseconds spent in pinning and unpinning so far, by whomever.
    fn spent_ns(&self) -> u64 {
        0
    }
}

/// Why the hardware did not do as told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HwError {
    /// A queue did not report the state asked for within its bound.
    Timeout,
    /// The device does not answer, or is no longer this slice's.
    Gone,
}

/// How the NIC fills receive buffers (82576 datasheet 8.10.2, SRRCTL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxLayout {
    /// Bytes in each packet buffer: a multiple of 1024, 1024 to 16384.
    pub packet_bytes: u16,
    /// Bytes in each header buffer: a multiple of 64, or 0 for one buffer per descriptor.
    pub header_bytes: u16,
}

/// A queue of the NIC with its host-owned (shadow) ring: coherent memory that only the host
/// writes (invariant 1).
#[allow(clippy::len_without_is_empty)] // A ring's size, not its filling.
pub trait HwQueue {
    /// Descriptors in the shadow ring: a power of two, fixed for the queue's life.
    fn len(&self) -> u16;
    /// Writes descriptor `index` (reduced modulo [`Self::len`]).
    fn write(&mut self, index: u16, words: [u64; 2]);
    /// Reads descriptor `index` (reduced modulo [`Self::len`]) as the NIC left it. Loads the second
    /// word, which carries the "done" bit, before the first.
    fn read(&self, index: u16) -> [u64; 2];
    /// Tells the NIC that descriptors up to, not including, `tail` are valid. Orders earlier
    /// [`Self::write`]s before it.
    fn doorbell(&mut self, tail: u16);
    /// Clears the ring, head and tail, and enables the queue. Bounded.
    fn start(&mut self, layout: RxLayout) -> Result<(), HwError>;
    /// Disables the queue and waits until the NIC touches neither ring nor buffers; a transmit queue
    /// is first given the time to send what it holds. What was done is written back. Bounded. On
    /// an error nothing may be assumed to be at rest. A device that is known to reach no memory any
    /// more has stopped: that is no error.
    fn stop(&mut self) -> Result<(), HwError>;
}

/// The pool's filters and the port's state.
pub trait Port {
    /// Whether the link is up, and its speed in Mb/s.
    fn link(&self) -> Option<u16>;
    /// Replaces the pool's own address. `EEXIST`-like refusals come back as `false`.
    fn set_mac(&mut self, mac: MacAddr) -> bool;
    /// Replaces the pool's multicast filter by hashes (12 bits each) over the address, as
    /// the 82576's MTA takes them; an empty list accepts none.
    fn set_multicast(&mut self, hashes: &[u16]) -> bool;
    /// Adds or removes a VLAN; `false` when the pool's share of the NIC's table is used up.
    fn set_vlan(&mut self, vid: u16, on: bool) -> bool;
    /// Longest frame the pool accepts, with Ethernet header, VLAN tag and FCS, in bytes.
    fn set_max_frame(&mut self, len_bytes: u16) -> bool;
    /// Takes `old` from the addresses that the guest asked for, and adds `new`; `false`, with nothing
    /// changed, where another pool has it or the NIC's table is full.
    fn replace_mac(&mut self, old: Option<MacAddr>, new: Option<MacAddr>) -> bool;
    /// Has the pool receive all multicast, or what [`Self::set_multicast`] selects.
    fn set_all_multicast(&mut self, on: bool);
    /// Removes every filter that the guest asked for, as after creation (default deny). What the
    /// administrator has set stays, with `rules` from now on.
    fn reset_filters(&mut self, rules: &PoolRules);
}

/// Where the slice's interrupts go.
pub trait Signals {
    /// Signals MSI-X vector `vector` if the VMM asked for it. Does not sleep.
    fn signal(&mut self, vector: u8);
}

/// Fallible allocation.
pub trait Alloc {
    /// An owned value.
    type Box<T>: DerefMut<Target = T>;
    /// Moves a value out of the way, for stacks are small. `None` when out of memory. Sleeps.
    fn boxed<T>(value: T) -> Option<Self::Box<T>>;
    /// An owned slice.
    type Buf<T>: DerefMut<Target = [T]>;
    /// `len` elements, each made by `make`. `None` when out of memory. Sleeps.
    fn filled<T>(len: usize, make: impl FnMut(usize) -> T) -> Option<Self::Buf<T>>;
}

/// Host memory that stands in for the guest's on the bus: for receive buffers whose pages do not lie
/// next to each other, and for everything under [`crate::map::Strategy::Copy`]. Each queue has its own.
pub trait Bounce {
    /// Sees that there are `slots` buffers, numbered from 0; those that are there stay. `false` when
    /// out of memory. Sleeps.
    fn reserve(&mut self, slots: u16) -> bool;
    /// Where the NIC finds the buffer; its bytes are contiguous.
    fn bus(&self, slot: u16) -> Option<BusPage>;
    /// Bytes in each buffer. A receive buffer that needs more cannot be bounced.
    fn slot_bytes(&self) -> u32 {
        PAGE_SIZE as u32
    }
    /// Copies out of buffer `slot`, from `offset`.
    fn copy_out(&self, slot: u16, offset: u16, bytes: &mut [u8]);
    /// Copies into buffer `slot`, to `offset`. Bytes past the buffer's end are dropped.
    fn copy_in(&mut self, slot: u16, offset: u16, bytes: &[u8]);
}

/// A machine: the traits above, together.
pub trait Platform {
    /// Tables.
    type Alloc: Alloc;
    /// Guest memory.
    type Pinner: Pinner;
    /// A queue with its shadow ring.
    type Queue: HwQueue;
    /// Filters and link.
    type Port: Port;
    /// Interrupts.
    type Signals: Signals;
    /// Bounce buffers.
    type Bounce: Bounce;
}
