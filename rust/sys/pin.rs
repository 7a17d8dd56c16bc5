// SPDX-License-Identifier: GPL-2.0

//! Guest pages: pinned through VFIO, mapped for the NIC through the DMA API.
//!
//! What VFIO makes sure of is in [`super::pinned`].
//!
//! `vfio_dma_do_unmap` calls the device's `dma_unmap` until nothing is pinned in the range, and
//! **brings the host down** (`BUG_ON`) after eleven calls in vain. A worker that pins the same pages
//! again between two calls must therefore lose the race: the fence in [`Pins`].

use core::ptr::{
    self,
    NonNull, //
};

use kernel::{
    alloc::kvec::PushError,
    device::Device,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, Mutex,
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use sluice_core::{
    addr::{
        BusPage,
        GuestPage,
        GRANULE_PAGES,
        GRANULE_SHIFT,
        PAGE_SIZE, //
    },
    memlock::Memlock,
    platform::{
        Access,
        NoGranule,
        PinError,
        Pinner, //
    }, //
};

use super::{
    bindings,
    container::Container,
    fence::Fence,
    pinned::{
        vfio_pin,
        vfio_unpin,
        Page, //
    },
    sysfs::device_ptr,
    time::now_ns, //
};

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
    put_off: Mutex<KVVec<Page>>,
    /// What VFIO has said to earlier pinners of the slice.
    #[pin]
    limit: Mutex<Memlock>,
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
            put_off <- new_mutex!(KVVec::new()),
            limit <- new_mutex!(Memlock::new()),
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

    /// Waits, a second at most, until no refusal of VFIO's counts any more: what it has refused the
    /// slice's last owner is not to keep pages from the next one (invariant 8). May sleep.
    pub(crate) fn wait_for_limit(&self) {
        let now_ns = now_ns();
        let until_ns = self.limit.lock().counts_until_ns(now_ns);
        if let Some(until_ns) = until_ns {
            let left_ns = until_ns.saturating_sub(now_ns);
            fsleep(Delta::from_nanos(i64::try_from(left_ns).unwrap_or(0)));
        }
    }

    /// Unpins what was put off; whether there was anything. May wait for the VMM.
    pub(crate) fn settle(&self) -> bool {
        let pages = core::mem::replace(&mut *self.put_off.lock(), KVVec::new());
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

    /// Sees that `pages` can be put off. Sleeps. `ENOMEM`.
    pub(crate) fn make_room(&self, pages: usize) -> Result {
        Ok(self.put_off.lock().reserve(pages, GFP_KERNEL)?)
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
                    page.len_bytes(),
                    direction,
                    bindings::sluice_dma_attrs(),
                )
            };
        }
        // SAFETY: By the page's invariant the references are the page's.
        unsafe { bindings::sluice_pages_put(page.memory.as_ptr().cast(), page.count.into()) };
        // Gives VFIO's pins back, the last that kept the pages.
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
        let limit = *pins.limit.lock();
        Ok(Self {
            container: Arc::new(container, GFP_KERNEL)?,
            spent_before_ns: pins.spent_ns.load(Relaxed),
            pinned: 0,
            limit,
            pins,
            warned: false,
        })
    }

    /// The VMM's limit is reached: whoever polls may try again later.
    fn limited(&self) -> PinError {
        self.pins
            .retry_ns
            .store(self.limit.forgotten_ns().unwrap_or(0), Relaxed);
        PinError::MemlockLimit
    }

    /// Maps pages for the NIC.
    ///
    /// # Safety
    ///
    /// `page` is an ordinary RAM page that VFIO has pinned, the first of `len_bytes` such bytes that
    /// follow each other in physical memory.
    unsafe fn map(
        &mut self,
        page: *mut bindings::page,
        len_bytes: usize,
        direction: bindings::dma_data_direction,
    ) -> Result<BusPage, PinError> {
        let nic = device_ptr(&self.pins.nic);
        // A bounced mapping is a copy that somebody would have to keep in step with a page that
        // the guest and the NIC share: refused, by these or below.
        // SAFETY: Callable in any context.
        let attrs = unsafe { bindings::sluice_dma_attrs() };
        // SAFETY: The pages are pinned (the caller's word); the NIC is bound (see `Pins::new`).
        let bus =
            unsafe { bindings::dma_map_page_attrs(nic, page, 0, len_bytes, direction, attrs) };
        // SAFETY: `bus` is what the DMA API gave for this device.
        if unsafe { bindings::sluice_dma_mapping_error(nic, bus) } == 0 {
            // SAFETY: As above.
            let direct = unsafe { !bindings::sluice_dma_need_sync(nic, bus) };
            if let Some(bus) = BusPage::from_mapping(bus).filter(|_| direct) {
                return Ok(bus);
            }
            // SAFETY: Mapped above, with the same size, direction and attributes.
            unsafe { bindings::dma_unmap_page_attrs(nic, bus, len_bytes, direction, attrs) };
        }
        if !core::mem::replace(&mut self.warned, true) {
            dev_warn!(
                self.pins.nic,
                "cannot reach guest memory without bounce buffers (is swiotlb=force set?)\n"
            );
        }
        Err(PinError::NoMemory)
    }

    /// Makes a [`Page`] of what VFIO has just pinned from `guest` on, and gives it back to VFIO where that
    /// cannot be: the NIC does not reach it, or it is not ordinary RAM in one piece (invariant 2).
    fn take(
        &mut self,
        guest: GuestPage,
        access: Access,
        pinned: &[*mut bindings::page],
    ) -> Result<Page, PinError> {
        let result = self.try_take(guest, access, pinned);
        if result.is_err() {
            vfio_unpin(&self.container, guest, pinned.len() as u16);
        }
        result
    }

    fn try_take(
        &mut self,
        guest: GuestPage,
        access: Access,
        pinned: &[*mut bindings::page],
    ) -> Result<Page, PinError> {
        let &first = pinned.first().ok_or(PinError::NotMapped)?;
        let count = u16::try_from(pinned.len()).map_err(|_| PinError::NotMapped)?;
        let mut end = ptr::null_mut::<u8>();
        for page in pinned {
            // SAFETY: VFIO pinned a page and gave its pointer. Null where the page is not ordinary
            // RAM.
            let memory = unsafe { bindings::sluice_ram_address(*page) }.cast::<u8>();
            if memory.is_null() || !(end.is_null() || memory == end) {
                return Err(PinError::NotMapped);
            }
            end = memory.wrapping_add(PAGE_SIZE as usize);
        }
        let len_bytes = pinned.len() * PAGE_SIZE as usize;
        let memory = NonNull::new(end.wrapping_sub(len_bytes)).ok_or(PinError::NotMapped)?;
        // SAFETY: The pages are RAM, pinned, and follow each other.
        let map = |direction| unsafe { self.map(first, len_bytes, direction) };
        let bus = direction(access).map(map).transpose()?;
        // SAFETY: The pages are pinned, so they can be referred to once more.
        unsafe { bindings::sluice_pages_get(memory.as_ptr().cast(), count.into()) };
        self.pinned = self.pinned.saturating_add(count.into());
        // INVARIANT: Pinned and mapped above, with references of their own.
        Ok(Page {
            memory,
            bus,
            guest,
            access,
            count,
            container: self.container.clone(),
        })
    }

    /// Whether a granule looks as if it were one huge page: by its first page, so that a guest that
    /// has none costs one pin and not 512.
    fn is_huge(&self, first: GuestPage, access: Access) -> Result<bool, PinError> {
        let mut page = [ptr::null_mut()];
        vfio_pin(&self.container, first, access, &mut page)?;
        let [page] = page;
        // SAFETY: VFIO pinned a page and gave its pointer.
        let is_huge = unsafe { bindings::sluice_starts_huge(page, GRANULE_SHIFT) };
        vfio_unpin(&self.container, first, 1);
        Ok(is_huge)
    }

    /// Pins a granule, in a thread that may wait.
    fn pin_whole(&mut self, first: GuestPage, access: Access) -> Result<Page, PinError> {
        if !self.is_huge(first, access)? {
            return Err(PinError::NotMapped);
        }
        let pages = KVec::from_elem(ptr::null_mut(), GRANULE_PAGES as usize, GFP_KERNEL);
        let mut pages = pages.map_err(|_| PinError::NoMemory)?;
        vfio_pin(&self.container, first, access, &mut pages)?;
        self.take(first, access, &pages)
    }

    /// Pins a page, in a thread that may wait.
    fn pin_one(&mut self, page: GuestPage, access: Access) -> Result<Page, PinError> {
        let mut pages = [ptr::null_mut()];
        vfio_pin(&self.container, page, access, &mut pages)?;
        self.take(page, access, &pages)
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
        if self.limit.is_reached(self.pinned, 1, now_ns()) {
            return Err(self.limited());
        }
        let pins = self.pins.clone();
        let mut result = pins.timed(|| self.pin_one(page, access));
        if let Err(PinError::MemlockLimit) = result {
            self.limit.refused(self.pinned, 1, now_ns());
            // What was put off still counted.
            if !pins.settle() || self.limit.is_exhausted(now_ns()) {
                return Err(self.limited());
            }
            result = pins.timed(|| self.pin_one(page, access));
        }
        if let Err(PinError::MemlockLimit) = result {
            self.limit.refused(self.pinned, 1, now_ns());
            return Err(self.limited());
        }
        result
    }

    fn pin_granule(&mut self, first: GuestPage, access: Access) -> Result<Page, NoGranule> {
        if self.pins.fence.bars_of_granule(first) {
            return Err(NoGranule::Refused);
        }
        if self.pins.hasty.load(Relaxed) {
            self.pins.wanted.store(true, Relaxed);
            return Err(NoGranule::Later);
        }
        if self.limit.is_reached(self.pinned, GRANULE_PAGES, now_ns()) {
            return Err(NoGranule::Refused);
        }
        let pins = self.pins.clone();
        let result = pins.timed(|| self.pin_whole(first, access));
        if let Err(PinError::MemlockLimit) = result {
            self.limit.refused(self.pinned, GRANULE_PAGES, now_ns());
        }
        result.map_err(|_| NoGranule::Refused)
    }

    fn unpin(&mut self, page: Page) {
        self.pinned = self.pinned.saturating_sub(page.count.into());
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

impl Drop for VfioPinner {
    fn drop(&mut self) {
        // To open the slice again is no way to have VFIO say it more often.
        *self.pins.limit.lock() = self.limit.for_another();
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
