// SPDX-License-Identifier: GPL-2.0

//! Guest pages: pinned through VFIO, mapped for the NIC through the DMA API.
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
//!
//! `vfio_dma_do_unmap` calls the device's `dma_unmap` until nothing is pinned in the range, and
//! **brings the host down** (`BUG_ON`) after eleven calls in vain. A worker that pins the same pages
//! again between two calls must therefore lose the race: the fence in [`Pins`].

use core::{
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        compiler_fence,
        Ordering, //
    }, //
};

use kernel::{
    alloc::kvec::PushError,
    device::Device,
    error::{
        code,
        to_result, //
    },
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, Mutex,
    }, //
};

use sluice_core::{
    addr::{
        BusPage,
        GuestPage,
        PAGE_SIZE, //
    },
    memlock::Memlock,
    platform::{
        Access,
        PinError,
        PinnedPage,
        Pinner, //
    }, //
};

use super::{
    bindings,
    container::Container,
    fence::Fence,
    sysfs::device_ptr,
    time::now_ns, //
};

// VFIO pins whole pages of the host and takes no offset in them.
const _: () = assert!(kernel::page::PAGE_SIZE == PAGE_SIZE as usize);

const PAGE_MASK: usize = PAGE_SIZE as usize - 1;

/// A guest page that is pinned for its slice and, unless it is for the CPU alone, mapped for the NIC.
///
/// It goes back through [`VfioPinner::unpin`]. Dropping it instead gives it up: the NIC cannot be
/// trusted to have let go of it, so the frame and its mapping are kept for ever and no one else
/// gets it (invariant 3). VFIO is told that it is no longer pinned, for it has no notion of a page
/// that cannot be.
///
/// # Invariants
///
/// `memory` is the direct-map address of an ordinary RAM page, pinned once through `container` at
/// `guest`, to which this object owns one more reference; `bus`, if any, is a live DMA mapping of it.
pub(crate) struct Page {
    memory: NonNull<u8>,
    bus: Option<BusPage>,
    guest: GuestPage,
    access: Access,
    container: Arc<Container>,
}

// SAFETY: The direct map is the same in every thread. The guest writes the page at any time, so
// all accesses below are volatile or made in C and rely on nothing.
unsafe impl Send for Page {}
// SAFETY: As above.
unsafe impl Sync for Page {}

impl Drop for Page {
    fn drop(&mut self) {
        // Our own reference and the DMA mapping stay behind, on purpose.
        vfio_unpin(&self.container, self.guest);
    }
}

/// Gives one pin back to VFIO.
fn vfio_unpin(container: &Container, page: GuestPage) {
    // VFIO tells of unmapped memory with its list lock held, which it also takes within the lock that
    // unpinning takes. That order is VFIO's to mend (security.rst, known limits); lockdep, which
    // ends with its first report, is to go on watching ours.
    // SAFETY: The device is live (`Container`); VFIO warns and does nothing if it is not open.
    // One page never overflows: `GuestPage` ends where the address space ends. Both others are
    // callable in any context.
    unsafe {
        bindings::sluice_lockdep_off();
        bindings::vfio_unpin_pages(container.as_ptr(), page.start().raw(), 1);
        bindings::sluice_lockdep_on();
    }
}

impl Page {
    /// Address of the `u64` or `u32` at `offset`, which is cut to a multiple of `align` within
    /// the page; `align` is a power of two from 4 to 16.
    fn at<T>(&self, offset: u16, align: usize) -> *mut T {
        let offset = usize::from(offset) & PAGE_MASK & !(align - 1);
        // SAFETY: The offset lies within the page (by the type's invariant) for all `align`
        // bytes.
        unsafe { self.memory.as_ptr().add(offset).cast() }
    }

    /// How many of `len` bytes lie within the page from `offset` on, and where.
    fn span(&self, offset: u16, len: usize) -> (*mut u8, usize) {
        let offset = usize::from(offset) & PAGE_MASK;
        // SAFETY: The offset lies within the page.
        let start = unsafe { self.memory.as_ptr().add(offset) };
        (start, len.min(PAGE_SIZE as usize - offset))
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

    fn copy_in(&self, offset: u16, bytes: &[u8]) {
        let (to, len) = self.span(offset, bytes.len());
        // SAFETY: `len` bytes lie within both. Done in C, which makes nothing of the guest's
        // writing at the same time.
        unsafe { bindings::sluice_copy(to.cast(), bytes.as_ptr().cast(), len) };
    }

    fn copy_out(&self, offset: u16, bytes: &mut [u8]) {
        let (from, len) = self.span(offset, bytes.len());
        // SAFETY: As for `copy_in`.
        unsafe { bindings::sluice_copy(bytes.as_mut_ptr().cast(), from.cast(), len) };
        // What was copied is private from here on (invariant 4).
        compiler_fence(Ordering::SeqCst);
    }
}

/// What a slice's pinner and its device share: when pinning may wait, what waits to be unpinned,
/// and the fence.
///
/// Pinning and unpinning take the VMM's `mmap_lock` and fault its pages in: a VMM can make that take
/// for ever (memory of a file system that it serves itself). The worker, which has other slices
/// to serve, must not wait for that (invariants 7, 10): while it polls, pins fail with
/// [`PinError::Later`] and unpins are put off, and [`Self::take_wanted`] tells that somebody who
/// may wait should poll. The device holds the slice's lock around all of this.
#[pin_data]
pub(crate) struct Pins {
    nic: ARef<Device>,
    /// What the VMM is unmapping.
    pub(crate) fence: Arc<Fence>,
    hasty: Atomic<bool>,
    wanted: Atomic<bool>,
    /// When a page refused for the VMM's limit is worth another try; 0: none was.
    retry_ns: Atomic<u64>,
    /// Nanoseconds spent in pinning and unpinning since the slice was made.
    spent_ns: Atomic<u64>,
    #[pin]
    put_off: Mutex<KVec<Page>>,
}

impl Pins {
    /// For pages that are mapped for `nic`.
    ///
    /// A slice cannot stay open when its NIC is unbound, so `nic` is bound to its driver as long
    /// as anything is pinned.
    pub(crate) fn new(nic: &Device, fence: Arc<Fence>) -> impl PinInit<Self> + use<'_> {
        pin_init!(Self {
            nic: nic.into(),
            fence,
            hasty: Atomic::new(false),
            wanted: Atomic::new(false),
            retry_ns: Atomic::new(0),
            spent_ns: Atomic::new(0),
            put_off <- new_mutex!(KVec::new()),
        })
    }

    /// Does `poll` without waiting for the VMM.
    pub(crate) fn hastily<R>(&self, poll: impl FnOnce() -> R) -> R {
        self.hasty.store(true, Relaxed);
        let result = poll();
        self.hasty.store(false, Relaxed);
        result
    }

    /// Whether something was put off that somebody who may wait should do, by [`Self::settle`] and
    /// a poll; asking clears it.
    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.xchg(false, Relaxed)
    }

    /// When to poll again for a page that the VMM's limit did not allow; asking clears it. Nothing
    /// else may happen that leads to a poll: the limit is shared with all that the VMM locks.
    pub(crate) fn take_retry_ns(&self) -> Option<u64> {
        Some(self.retry_ns.xchg(0, Relaxed)).filter(|at| *at != 0)
    }

    /// Unpins what was put off; whether there was anything. May wait for the VMM.
    pub(crate) fn settle(&self) -> bool {
        let pages = core::mem::replace(&mut *self.put_off.lock(), KVec::new());
        let any = !pages.is_empty();
        for page in pages {
            self.unpin(page);
        }
        any
    }

    /// Whether nothing is put off.
    pub(crate) fn is_settled(&self) -> bool {
        self.put_off.lock().is_empty()
    }

    /// Puts `page` off, or gives it back where there is no room.
    fn put_off(&self, page: Page) -> Option<Page> {
        let mut pages = self.put_off.lock();
        match pages.reserve(1, GFP_NOWAIT) {
            Ok(()) => pages
                .push_within_capacity(page)
                .err()
                .map(|PushError(page)| page),
            Err(_) => Some(page),
        }
    }

    /// Does what pins or unpins, and counts the time.
    fn timed<R>(&self, work: impl FnOnce() -> R) -> R {
        let start_ns = now_ns();
        let result = work();
        let spent_ns = now_ns().saturating_sub(start_ns);
        self.spent_ns.add(spent_ns, Relaxed);
        result
    }

    fn unpin(&self, page: Page) {
        self.timed(|| self.unpin_now(page));
    }

    fn unpin_now(&self, page: Page) {
        if let (Some(bus), Some(direction)) = (page.bus, direction(page.access)) {
            // SAFETY: By the page's invariant this mapping is live. Whoever called
            // `VfioPinner::unpin` vouched that the NIC no longer uses it (invariant 3).
            unsafe {
                bindings::dma_unmap_page_attrs(
                    device_ptr(&self.nic),
                    bus.at(0).raw(),
                    PAGE_SIZE as usize,
                    direction,
                    0,
                )
            };
        }
        // SAFETY: By the page's invariant the reference is the page's.
        unsafe { bindings::sluice_page_put(page.memory.as_ptr().cast()) };
        // Gives VFIO's pin back, the last that kept the page.
        drop(page);
    }
}

/// Pins the pages of one open slice.
pub(crate) struct VfioPinner {
    container: Arc<Container>,
    pins: Arc<Pins>,
    /// Pages pinned now.
    pinned: u32,
    /// The VMM's limit.
    limit: Memlock,
    /// [`Pins::spent_ns`] when the slice was opened.
    spent_before_ns: u64,
    /// The log was told once that pages are out of reach.
    warned: bool,
}

impl VfioPinner {
    /// A pinner for the memory of `container`. To be dropped, with all its pages unpinned, before
    /// the slice is closed.
    pub(crate) fn new(container: Container, pins: Arc<Pins>) -> Result<Self> {
        Ok(Self {
            container: Arc::new(container, GFP_KERNEL)?,
            spent_before_ns: pins.spent_ns.load(Relaxed),
            pins,
            pinned: 0,
            limit: Memlock::new(),
            warned: false,
        })
    }

    /// Has VFIO pin a page, for the caller to look at.
    fn vfio_pin(&self, page: GuestPage, access: Access) -> Result<*mut bindings::page, PinError> {
        let prot = if access.writes() {
            bindings::IOMMU_READ | bindings::IOMMU_WRITE
        } else {
            bindings::IOMMU_READ
        };
        let mut pinned: *mut bindings::page = ptr::null_mut();
        // SAFETY: The device is live and open, and there is room for one page's pointer.
        let count = unsafe {
            bindings::vfio_pin_pages(
                self.container.as_ptr(),
                page.start().raw(),
                1,
                prot as kernel::ffi::c_int,
                &mut pinned,
            )
        };
        if count == 1 {
            return Ok(pinned);
        }
        let error = to_result(count).err();
        Err(error.map_or(PinError::NotMapped, pin_error))
    }

    /// The VMM's limit is reached: whoever polls may try again later.
    fn limited(&self) -> PinError {
        self.pins
            .retry_ns
            .store(self.limit.forgotten_ns().unwrap_or(0), Relaxed);
        PinError::MemlockLimit
    }

    /// Maps a page for the NIC.
    ///
    /// # Safety
    ///
    /// `page` is an ordinary RAM page that VFIO has pinned.
    unsafe fn map(
        &mut self,
        page: *mut bindings::page,
        direction: bindings::dma_data_direction,
    ) -> Result<BusPage, PinError> {
        let nic = device_ptr(&self.pins.nic);
        // SAFETY: The page is pinned (the caller's word); the NIC is bound (see `Pins::new`).
        let bus =
            unsafe { bindings::dma_map_page_attrs(nic, page, 0, PAGE_SIZE as usize, direction, 0) };
        // SAFETY: `bus` is what the DMA API gave for this device.
        if unsafe { bindings::sluice_dma_mapping_error(nic, bus) } != 0 {
            return Err(PinError::NoMemory);
        }
        // A bounced mapping is a copy that somebody would have to keep in step with a page that
        // the guest and the NIC share: refused.
        // SAFETY: As above.
        let direct = unsafe { !bindings::sluice_dma_need_sync(nic, bus) };
        if let Some(bus) = BusPage::from_mapping(bus).filter(|_| direct) {
            return Ok(bus);
        }
        if !core::mem::replace(&mut self.warned, true) {
            dev_warn!(
                self.pins.nic,
                "cannot reach guest memory without bounce buffers (is swiotlb=force set?)\n"
            );
        }
        // SAFETY: Mapped above, with the same size and direction.
        unsafe { bindings::dma_unmap_page_attrs(nic, bus, PAGE_SIZE as usize, direction, 0) };
        Err(PinError::NoMemory)
    }

    /// Pins a page, in a thread that may wait.
    fn pin_one(&mut self, page: GuestPage, access: Access) -> Result<Page, PinError> {
        let pinned = self.vfio_pin(page, access)?;

        // SAFETY: VFIO pinned a page and gave its pointer. Null where the page is not ordinary
        // RAM (invariant 2).
        let memory = unsafe { bindings::sluice_ram_address(pinned) };
        let Some(memory) = NonNull::new(memory.cast::<u8>()) else {
            vfio_unpin(&self.container, page);
            return Err(PinError::NotMapped);
        };

        // SAFETY: The page is RAM, and pinned.
        let map = |direction| unsafe { self.map(pinned, direction) };
        let bus = match direction(access).map(map).transpose() {
            Ok(bus) => bus,
            Err(error) => {
                vfio_unpin(&self.container, page);
                return Err(error);
            }
        };
        // SAFETY: The page is pinned, so it can be referred to once more.
        unsafe { bindings::sluice_page_get(memory.as_ptr().cast()) };
        self.pinned = self.pinned.saturating_add(1);
        // INVARIANT: Pinned and mapped above, with a reference of its own.
        Ok(Page {
            memory,
            bus,
            guest: page,
            access,
            container: self.container.clone(),
        })
    }
}

impl Pinner for VfioPinner {
    type Page = Page;

    fn pin(&mut self, page: GuestPage, access: Access) -> Result<Page, PinError> {
        if self.pins.fence.bars(page) {
            return Err(PinError::NotMapped);
        }
        if self.pins.hasty.load(Relaxed) {
            self.pins.wanted.store(true, Relaxed);
            return Err(PinError::Later);
        }
        if self.limit.is_reached(self.pinned, now_ns()) {
            return Err(self.limited());
        }
        let pins = self.pins.clone();
        let mut result = pins.timed(|| self.pin_one(page, access));
        // What was put off still counts.
        if matches!(result, Err(PinError::MemlockLimit)) && pins.settle() {
            result = pins.timed(|| self.pin_one(page, access));
        }
        if let Err(PinError::MemlockLimit) = result {
            self.limit.refused(self.pinned, now_ns());
            return Err(self.limited());
        }
        result
    }

    fn unpin(&mut self, page: Page) {
        self.pinned = self.pinned.saturating_sub(1);
        let page = if self.pins.hasty.load(Relaxed) {
            self.pins.wanted.store(true, Relaxed);
            self.pins.put_off(page)
        } else {
            Some(page)
        };
        if let Some(page) = page {
            self.pins.unpin(page);
        }
    }

    fn spent_ns(&self) -> u64 {
        let spent_ns = self.pins.spent_ns.load(Relaxed);
        spent_ns.saturating_sub(self.spent_before_ns)
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

/// What the DMA API is told about a page; `None`: nothing, it is not for the NIC.
const fn direction(access: Access) -> Option<bindings::dma_data_direction> {
    match access {
        Access::Read => Some(bindings::dma_data_direction::DMA_TO_DEVICE),
        // Receive buffers share pages with what the guest sends.
        Access::Write => Some(bindings::dma_data_direction::DMA_BIDIRECTIONAL),
        Access::CpuRead | Access::CpuWrite => None,
    }
}
