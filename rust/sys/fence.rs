// SPDX-License-Identifier: GPL-2.0

//! Keeps pages that the VMM is unmapping from being pinned again before the unmap is through.
//!
//! `vfio_dma_do_unmap` calls the device's `dma_unmap` until nothing is pinned in the range, and
//! **brings the host down** (`BUG_ON`) after eleven calls in vain. Between two calls the VMM's thread
//! may wait for as long as the VMM likes: for a lock that another of its threads holds while it
//! pins a page of a file system that the VMM serves itself. So no time is long enough for a bar: it
//! is lifted when the thread returns to user space, which is when the unmap is through, and not
//! before. A guest that has its NIC reach for memory that goes away that moment gets what a real
//! device behind an IOMMU gets: a fault.

use core::ffi::c_void;

use kernel::{
    error::to_result,
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};
use sluice_core::addr::{
    GuestPage,
    PAGE_SHIFT,
    PAGE_SIZE, //
};

use super::bindings;

/// Threads that unmap at a time without barring more than they unmap.
const PLACES: usize = 8;

/// What nobody may pin just now.
#[pin_data]
pub(crate) struct Fence {
    #[pin]
    bars: SpinLock<Bars>,
}

struct Bars {
    bars: [Option<Bar>; PLACES],
    /// Threads beyond those: everything is barred until they are through.
    others: u32,
}

/// Pages from `first` up to, not including, `end`.
#[derive(Clone, Copy)]
struct Bar {
    first: u64,
    end: u64,
    /// The thread, by the address of its task: never looked into.
    task: usize,
}

impl Bars {
    /// Bars a range for a thread. Whether this is the thread's first since it left user space.
    fn put(&mut self, new: Bar) -> bool {
        if let Some(bar) = self.bars.iter_mut().flatten().find(|b| b.task == new.task) {
            bar.first = bar.first.min(new.first);
            bar.end = bar.end.max(new.end);
            return false;
        }
        match self.bars.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(new),
            None => self.others = self.others.saturating_add(1),
        }
        true
    }

    fn lift(&mut self, task: usize) {
        let own = |place: &&mut Option<Bar>| place.is_some_and(|bar| bar.task == task);
        match self.bars.iter_mut().find(own) {
            Some(place) => *place = None,
            None => self.others = self.others.saturating_sub(1),
        }
    }
}

/// The calling thread.
fn this_thread() -> usize {
    // SAFETY: Always callable; the pointer is used as a number.
    unsafe { bindings::sluice_current() as usize }
}

impl Fence {
    /// Bars nothing.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                bars <- new_spinlock!(Bars {
                    bars: [None; PLACES],
                    others: 0,
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// The calling thread unmaps `len_bytes` from `iova` on: to be called first in `dma_unmap`, so
    /// that nobody pins there once the pins are gone. Lasts until the thread returns to user space;
    /// for one that never will (it is ending), until [`Self::clear`].
    pub(crate) fn raise(self: &Arc<Self>, iova: u64, len_bytes: u64) {
        let first = self.bars.lock().put(Bar {
            first: iova >> PAGE_SHIFT,
            end: iova.saturating_add(len_bytes).div_ceil(PAGE_SIZE),
            task: this_thread(),
        });
        if !first {
            return;
        }
        let data = Arc::into_raw(self.clone());
        // SAFETY: `lift` takes what `Arc::into_raw` gave, once.
        let armed = unsafe { bindings::sluice_on_return(Some(lift), data.cast_mut().cast()) };
        if to_result(armed).is_err() {
            // SAFETY: `lift` will not be called, so the reference is still ours.
            drop(unsafe { Arc::from_raw(data) });
        }
    }

    /// A new VMM has the slice: what was barred for the last one is not for it.
    ///
    /// A thread of the last one that is still on its way out lifts a bar that is gone, or, where
    /// the new one has barred everything, that: its own unmap is through all the same, because
    /// a device is closed only after its memory was unmapped.
    pub(crate) fn clear(&self) {
        let mut bars = self.bars.lock();
        bars.bars = [None; PLACES];
        bars.others = 0;
    }

    /// Whether `page` may not be pinned now.
    pub(super) fn bars(&self, page: GuestPage) -> bool {
        let bars = self.bars.lock();
        let within = |bar: &Bar| (bar.first..bar.end).contains(&page.pfn());
        bars.others != 0 || bars.bars.iter().flatten().any(within)
    }
}

/// # Safety
///
/// `data` came from `Arc::<Fence>::into_raw`, whose reference passes to this call.
unsafe extern "C" fn lift(data: *mut c_void) {
    // SAFETY: By the contract.
    let fence = unsafe { Arc::from_raw(data.cast::<Fence>()) };
    fence.bars.lock().lift(this_thread());
}
