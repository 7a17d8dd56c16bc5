// SPDX-License-Identifier: GPL-2.0

//! Pages that VFIO has pinned, and the CPU's access to them.
//!
//! What `drivers/vfio/vfio_iommu_type1.c` does beneath, and what invariant 2 takes from it:
//!
//! - A page is looked up in what the VMM mapped into the container; an IOVA outside is `EINVAL`.
//!   The request's `prot` must be a subset of the mapping's, else `EPERM`.
//! - The page is got with `FOLL_LONGTERM` and with the *mapping's* permission: `FOLL_WRITE` (any
//!   copy-on-write is broken first) unless the VMM mapped the range read-only. Then it is got for
//!   reading and unshared first, so that it stays the page that the VMM sees; the subset rule above
//!   keeps us from letting the NIC write to it.
//! - Ranges without `struct page` references (`VM_PFNMAP`: another device's BAR, say) pass as long
//!   as the frame is invalid or reserved. `vfio_pin_pages` itself refuses invalid frames; reserved
//!   ones come back *without a reference*, and are refused here.
//! - Each page is charged to the VMM's `RLIMIT_MEMLOCK` once (`ENOMEM`), and counted: the same IOVA
//!   pinned twice is to be unpinned twice.
//! - Pages of one call are got one by one, and all given back where one cannot be had. So 512 pages
//!   take as long in one call as in many, with the VMM's `mmap_lock` taken and let go for each.

use core::{
    ptr::NonNull,
    sync::atomic::{
        compiler_fence,
        Ordering, //
    }, //
};

use kernel::{
    error::{
        code,
        to_result, //
    },
    prelude::*,
    sync::Arc, //
};

use sluice_core::{
    addr::{
        BusPage,
        GuestPage,
        PAGE_SIZE, //
    },
    platform::{
        Access,
        PinError,
        PinnedPage, //
    }, //
};

use super::{
    bindings,
    container::Container, //
};

// VFIO pins whole pages of the host and takes no offset in them.
const _: () = assert!(kernel::page::PAGE_SIZE == PAGE_SIZE as usize);

const PAGE_MASK: usize = PAGE_SIZE as usize - 1;

/// A guest page, or a granule of them, that is pinned for its slice and, unless it is for the CPU alone,
/// mapped for the NIC.
///
/// It goes back through [`VfioPinner::unpin`](super::pin::VfioPinner). Dropping it instead gives it up: the NIC cannot be
/// trusted to have let go of it, so the frame and its mapping are kept for ever and no one else
/// gets it (invariant 3). VFIO is told that it is no longer pinned, for it has no notion of a page
/// that cannot be.
///
/// # Invariants
///
/// `memory` is the direct-map address of `count` ordinary RAM pages that follow each other there, pinned
/// once through `container` from `guest` on, to each of which this object owns one more reference;
/// `bus`, if any, is a live DMA mapping of them all. `count` is 1 or [`GRANULE_PAGES`].
pub(crate) struct Page {
    pub(super) memory: NonNull<u8>,
    pub(super) bus: Option<BusPage>,
    pub(super) guest: GuestPage,
    pub(super) access: Access,
    pub(super) count: u16,
    pub(super) container: Arc<Container>,
}

// SAFETY: The direct map is the same in every thread. The guest writes the page at any time, so
// all accesses below are volatile or made in C and rely on nothing.
unsafe impl Send for Page {}
// SAFETY: As above.
unsafe impl Sync for Page {}

impl Drop for Page {
    fn drop(&mut self) {
        // Our own references and the DMA mapping stay behind, on purpose.
        vfio_unpin(&self.container, self.guest, self.count);
    }
}

/// Pins as many pages from `first` on as `to` has room for, through VFIO: all of them or none.
pub(super) fn vfio_pin(
    container: &Container,
    first: GuestPage,
    access: Access,
    to: &mut [*mut bindings::page],
) -> Result<(), PinError> {
    let prot = if access.writes() {
        bindings::IOMMU_READ | bindings::IOMMU_WRITE
    } else {
        bindings::IOMMU_READ
    };
    let wanted = to.len() as kernel::ffi::c_int;
    // As for unpinning, below: the slice's own lock is within one of VFIO's, and around the other.
    // SAFETY: The device is live and open, and there is room for `wanted` pages' pointers. VFIO
    // refuses more than it can do at a time, and what reaches past the end of the address space. Both
    // others are callable in any context.
    let count = unsafe {
        bindings::sluice_lockdep_off();
        let count = bindings::vfio_pin_pages(
            container.as_ptr(),
            first.start().raw(),
            wanted,
            prot as kernel::ffi::c_int,
            to.as_mut_ptr(),
        );
        bindings::sluice_lockdep_on();
        count
    };
    if count == wanted {
        return Ok(());
    }
    if let Ok(count @ 1..) = u16::try_from(count) {
        // Not met: VFIO does all or nothing.
        vfio_unpin(container, first, count);
    }
    let error = to_result(count).err();
    Err(error.map_or(PinError::NotMapped, pin_error))
}

/// Gives pins back to VFIO.
pub(super) fn vfio_unpin(container: &Container, first: GuestPage, count: u16) {
    // VFIO tells of unmapped memory with its list lock held, which it also takes within the lock that
    // unpinning takes. That order is VFIO's to mend (security.rst, known limits); lockdep, which
    // ends with its first report, is to go on watching ours.
    // SAFETY: The device is live (`Container`); VFIO warns and does nothing if it is not open.
    // What was pinned together ends where the address space ends or before. Both others are
    // callable in any context.
    unsafe {
        bindings::sluice_lockdep_off();
        bindings::vfio_unpin_pages(container.as_ptr(), first.start().raw(), i32::from(count));
        bindings::sluice_lockdep_on();
    }
}

impl Page {
    pub(super) fn len_bytes(&self) -> usize {
        usize::from(self.count) * PAGE_SIZE as usize
    }

    /// Address of the `u64` or `u32` at `offset`, which is cut to a multiple of `align` within
    /// the first page; `align` is a power of two from 4 to 16.
    fn at<T>(&self, offset: u16, align: usize) -> *mut T {
        let offset = usize::from(offset) & PAGE_MASK & !(align - 1);
        // SAFETY: The offset lies within the page (by the type's invariant) for all `align`
        // bytes.
        unsafe { self.memory.as_ptr().add(offset).cast() }
    }

    /// How many of `len` bytes lie within the pages from `offset` on, and where.
    fn span(&self, offset: u32, len: usize) -> (*mut u8, usize) {
        // A power of two, by the type's invariant.
        let offset = offset as usize & (self.len_bytes() - 1);
        // SAFETY: The offset lies within the pages.
        let start = unsafe { self.memory.as_ptr().add(offset) };
        (start, len.min(self.len_bytes() - offset))
    }
}

impl PinnedPage for Page {
    fn bus(&self) -> Option<BusPage> {
        self.bus
    }

    fn load_desc(&self, offset: u16) -> [u64; 2] {
        let words = self.at::<u64>(offset, 16);
        // SAFETY: Both words lie within the page, aligned. Volatile: one load each (invariant 4).
        unsafe {
            [
                u64::from_le(words.read_volatile()),
                u64::from_le(words.add(1).read_volatile()),
            ]
        }
    }

    fn store_desc(&self, offset: u16, [first, second]: [u64; 2]) {
        let words = self.at::<u64>(offset, 16);
        // SAFETY: Both words lie within the page, aligned. The barrier orders the stores for the
        // guest's CPUs.
        unsafe {
            words.write_volatile(first.to_le());
            bindings::smp_wmb();
            words.add(1).write_volatile(second.to_le());
        }
    }

    fn store_u32(&self, offset: u16, value: u32) {
        // SAFETY: The word lies within the page, aligned; as above.
        unsafe {
            bindings::smp_wmb();
            self.at::<u32>(offset, 4).write_volatile(value.to_le());
        }
    }

    fn copy_in(&self, offset: u32, bytes: &[u8]) {
        let (to, len) = self.span(offset, bytes.len());
        // SAFETY: `len` bytes lie within both. Done in C, which makes nothing of the guest's
        // writing at the same time.
        unsafe { bindings::sluice_copy(to.cast(), bytes.as_ptr().cast(), len) };
    }

    fn copy_out(&self, offset: u32, bytes: &mut [u8]) {
        let (from, len) = self.span(offset, bytes.len());
        // SAFETY: As for `copy_in`.
        unsafe { bindings::sluice_copy(bytes.as_mut_ptr().cast(), from.cast(), len) };
        // What was copied is private from here on (invariant 4).
        compiler_fence(Ordering::SeqCst);
    }
}

/// What an error of `vfio_pin_pages` means.
fn pin_error(error: Error) -> PinError {
    match error {
        code::EPERM => PinError::Denied,
        code::ENOMEM => PinError::MemlockLimit,
        // No mapping, a mapping of something that is no memory, a VMM that is gone, or one that
        // is being replaced.
        _ => PinError::NotMapped,
    }
}
