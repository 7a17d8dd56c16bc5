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
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLock, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use sluice_core::{
    addr::GuestPage,
    handover::{
        admits,
        Bar,
        Bars, //
    }, //
};

use super::bindings;

/// How often, a millisecond apart, [`Fence::wait`] looks.
const LOOKS: u32 = 1000;

/// Fences that bar something, of all slices. Counted under their locks; VFIO's list of devices, which a slice
/// is in before it is opened and which is locked while `dma_unmap` is called, orders it.
static BARRED: Atomic<i32> = Atomic::new(0);

/// What nobody may pin just now.
#[pin_data]
pub(crate) struct Fence {
    #[pin]
    bars: SpinLock<Bars>,
}

/// The calling thread, by the address of its task, which is never looked into.
fn this_thread() -> usize {
    // SAFETY: Always callable; the pointer is used as a number.
    unsafe { bindings::sluice_current() as usize }
}

impl Fence {
    /// Bars nothing.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                bars <- new_spinlock!(Bars::new()),
            }),
            GFP_KERNEL,
        )
    }

    /// The calling thread unmaps `len_bytes` from `iova` on: to be called first in `dma_unmap`, so
    /// that nobody pins there once the pins are gone. Lasts until the thread returns to user space,
    /// or ends.
    pub(crate) fn raise(self: &Arc<Self>, iova: u64, len_bytes: u64) {
        let bar = Bar::new(iova, len_bytes, this_thread());
        let first = {
            let mut bars = self.bars.lock();
            if bars.is_empty() {
                BARRED.add(1, Relaxed);
            }
            bars.put(bar)
        };
        if !first {
            return;
        }
        let data = Arc::into_raw(self.clone());
        // SAFETY: `lift` takes what `Arc::into_raw` gave, once.
        let armed = unsafe { bindings::sluice_on_return(Some(lift), data.cast_mut().cast()) };
        if to_result(armed).is_err() {
            // Not a thread of a VMM. The bar stays: better a slice that nobody can open again than
            // one that brings the host down.
            // SAFETY: `lift` will not be called, so the reference is still ours.
            drop(unsafe { Arc::from_raw(data) });
        }
    }

    /// Waits until nothing is barred, and not too much is in other slices. `EBUSY` if that takes long: a
    /// VMM can hold its thread up.
    ///
    /// Whoever opens the slice has to: to the last VMM's thread it makes no difference that the slice
    /// was closed meanwhile, its unmap goes on; and the new VMM, which may share the last one's
    /// container, could pin in its way again. Nor should it meet bars that are not its own. And a VMM could
    /// open one slice after the other while a thread of it unmaps: see [`admits`].
    pub(crate) fn wait(&self) -> Result {
        for _ in 0..LOOKS {
            let barred = u32::try_from(BARRED.load(Relaxed)).unwrap_or(0);
            if admits(barred) && self.bars.lock().is_empty() {
                return Ok(());
            }
            fsleep(Delta::from_millis(1));
        }
        Err(EBUSY)
    }

    /// Whether `page` may not be pinned now.
    pub(super) fn bars(&self, page: GuestPage) -> bool {
        self.bars.lock().has(page)
    }

    /// Whether a page of the granule that begins with `first` may not be pinned now.
    pub(super) fn bars_of_granule(&self, first: GuestPage) -> bool {
        self.bars.lock().has_of_granule(first)
    }
}

/// # Safety
///
/// `data` came from `Arc::<Fence>::into_raw`, whose reference passes to this call.
unsafe extern "C" fn lift(data: *mut c_void) {
    // SAFETY: By the contract.
    let fence = unsafe { Arc::from_raw(data.cast::<Fence>()) };
    let mut bars = fence.bars.lock();
    bars.lift(this_thread());
    if bars.is_empty() {
        BARRED.add(-1, Relaxed);
    }
}

/// While it lives, threads may be on their way out of the module's text. Dropping it waits for them;
/// nothing of the module may run after that.
pub(crate) struct Returns;

impl Drop for Returns {
    fn drop(&mut self) {
        // SAFETY: May sleep, as the end of a module may.
        unsafe { bindings::sluice_wait_for_returns() };
    }
}

#[kunit_tests(sluice_fence)]
mod tests {
    use kernel::{
        prelude::*,
        sync::{
            atomic::Relaxed,
            Arc, //
        }, //
    };
    use sluice_core::{
        addr::{
            GuestPage,
            PAGE_SIZE, //
        },
        handover::Bar, //
    };

    use super::{
        lift,
        Fence,
        BARRED, //
    };

    fn bars(fence: &Fence, number: u64) -> bool {
        fence.bars(GuestPage::new(number))
    }

    fn lifted(fence: &Arc<Fence>) {
        let data = Arc::into_raw(fence.clone());
        // SAFETY: The reference was made for this call.
        unsafe { lift(data.cast_mut().cast()) };
    }

    // What is barred here is lifted before anything is asserted: what fails never returns, and
    // no slice could be opened any more.

    /// These tests run in a kernel thread, which never returns to user space.
    #[test]
    fn a_bar_that_nobody_lifts_stays() -> Result {
        let before = BARRED.load(Relaxed);
        let fence = Fence::new()?;
        let free = fence.wait();
        fence.raise(PAGE_SIZE + 1, PAGE_SIZE);
        let barred = [0, 1, 2, 3].map(|number| bars(&fence, number));
        let count = BARRED.load(Relaxed);
        let waited = fence.wait();
        lifted(&fence);
        assert_eq!(free, Ok(()));
        assert_eq!(barred, [false, true, true, false]);
        assert_eq!(count, before + 1);
        assert_eq!(waited, Err(EBUSY));
        assert!(!bars(&fence, 1) && !bars(&fence, 2));
        assert_eq!(BARRED.load(Relaxed), before);
        assert_eq!(fence.wait(), Ok(()));
        Ok(())
    }

    /// The bars of one thread are lifted together, those of another stay; a fence counts once.
    #[test]
    fn a_thread_lifts_its_own_bars() -> Result {
        let before = BARRED.load(Relaxed);
        let fence = Fence::new()?;
        fence.raise(0, PAGE_SIZE);
        fence.raise(3 * PAGE_SIZE, PAGE_SIZE);
        let other = 1;
        fence.bars.lock().put(Bar::new(u64::MAX, 1, other));
        fence.raise(5 * PAGE_SIZE, PAGE_SIZE);
        let last = u64::MAX / PAGE_SIZE;
        let barred = [0, 3, 5, 6, last].map(|number| bars(&fence, number));
        let counts = BARRED.load(Relaxed) - before;
        lifted(&fence);
        let left = [0, 3, 5, last].map(|number| bars(&fence, number));
        let counts_left = BARRED.load(Relaxed) - before;
        fence.bars.lock().lift(other);
        if counts_left > 0 {
            BARRED.add(-1, Relaxed);
        }
        assert_eq!(barred, [true, true, true, false, true]);
        assert_eq!(left, [false, false, false, true]);
        assert_eq!((counts, counts_left), (1, 1));
        Ok(())
    }

    /// Where too much is barred in other slices, none is opened, and all are when that is over.
    #[test]
    fn slices_wait_for_one_another() -> Result {
        let fence = Fence::new()?;
        let mut others = KVec::new();
        for _ in 0..8 {
            others.push(Fence::new()?, GFP_KERNEL)?;
        }
        for other in others.iter() {
            other.raise(0, PAGE_SIZE);
        }
        let waited = fence.wait();
        for other in others.iter() {
            lifted(other);
        }
        assert_eq!(waited, Err(EBUSY));
        assert_eq!(fence.wait(), Ok(()));
        Ok(())
    }
}
