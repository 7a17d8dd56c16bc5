// SPDX-License-Identifier: GPL-2.0

//! Host pages that stand in for a guest's on the bus: where its buffer is not contiguous there, or
//! where everything is copied.

use core::ptr::NonNull;

use kernel::{
    device::Device,
    prelude::*,
    sync::aref::ARef, //
};

use sluice_core::{
    addr::{
        BusPage,
        PAGE_SIZE, //
    },
    platform::Bounce, //
};

use super::{
    bindings,
    sysfs::device_ptr, //
};

const PAGE_BYTES: usize = PAGE_SIZE as usize;

/// One page of coherent memory.
///
/// # Invariants
///
/// `memory` and `bus` are what `dma_alloc_attrs` gave for one page.
struct Slot {
    memory: NonNull<u8>,
    bus: BusPage,
}

/// Pages of coherent memory, one for each slot. No guest and no VMM has a mapping of them.
///
/// Dropping it frees them: the NIC must be done with them by then (invariant 3).
pub(crate) struct BouncePages {
    nic: ARef<Device>,
    slots: KVVec<Slot>,
}

// SAFETY: The memory belongs to this object alone, and only the NIC writes it.
unsafe impl Send for BouncePages {}
// SAFETY: As above.
unsafe impl Sync for BouncePages {}

impl BouncePages {
    /// `count` zeroed pages for `nic`, which must be bound to its driver until they are dropped.
    /// More by [`Bounce::reserve`]. Sleeps.
    pub(crate) fn new(nic: &Device, count: usize) -> Result<Self> {
        let mut this = Self {
            nic: nic.into(),
            slots: KVVec::new(),
        };
        this.grow(count)?;
        Ok(this)
    }

    /// Sees that there are `count` pages.
    fn grow(&mut self, count: usize) -> Result {
        let more = count.saturating_sub(self.slots.len());
        self.slots.reserve(more, GFP_KERNEL)?;
        for _ in 0..more {
            let mut handle = 0;
            // SAFETY: The device is live and bound. Coherent memory comes zeroed, so nothing
            // passes over from an earlier owner (invariant 8).
            let memory = unsafe {
                bindings::dma_alloc_attrs(
                    device_ptr(&self.nic),
                    PAGE_BYTES,
                    &mut handle,
                    bindings::GFP_KERNEL,
                    0,
                )
            };
            let memory = NonNull::new(memory.cast::<u8>()).ok_or(ENOMEM)?;
            let Some(bus) = BusPage::from_mapping(handle) else {
                self.free(memory, handle);
                return Err(EINVAL);
            };
            // INVARIANT: Both came from the call above. There is room: this does not fail.
            self.slots.push(Slot { memory, bus }, GFP_KERNEL)?;
        }
        Ok(())
    }

    fn free(&self, memory: NonNull<u8>, bus: u64) {
        // SAFETY: By the contract of the callers: what one `dma_alloc_attrs` for this device gave.
        unsafe {
            bindings::dma_free_attrs(
                device_ptr(&self.nic),
                PAGE_BYTES,
                memory.as_ptr().cast(),
                bus,
                0,
            )
        };
    }
}

impl Bounce for BouncePages {
    fn reserve(&mut self, slots: u16) -> bool {
        self.grow(slots.into()).is_ok()
    }

    fn bus(&self, slot: u16) -> Option<BusPage> {
        self.slots.get(usize::from(slot)).map(|slot| slot.bus)
    }

    fn copy_out(&self, slot: u16, offset: u16, bytes: &mut [u8]) {
        let offset = usize::from(offset);
        let Some(slot) = self.slots.get(usize::from(slot)) else {
            return;
        };
        let len = bytes.len().min(PAGE_BYTES.saturating_sub(offset));
        if len != 0 {
            // SAFETY: `offset + len` is within the page and `len` within `bytes`. In C, which
            // makes nothing of a NIC that still writes.
            unsafe {
                let from = slot.memory.as_ptr().add(offset);
                bindings::sluice_copy(bytes.as_mut_ptr().cast(), from.cast(), len);
            }
        }
    }

    fn copy_in(&mut self, slot: u16, offset: u16, bytes: &[u8]) {
        let offset = usize::from(offset);
        let Some(slot) = self.slots.get(usize::from(slot)) else {
            return;
        };
        let len = bytes.len().min(PAGE_BYTES.saturating_sub(offset));
        if len != 0 {
            // SAFETY: As above, the other way round.
            unsafe {
                let to = slot.memory.as_ptr().add(offset);
                bindings::sluice_copy(to.cast(), bytes.as_ptr().cast(), len);
            }
        }
    }
}

impl Drop for BouncePages {
    fn drop(&mut self) {
        for slot in self.slots.iter() {
            self.free(slot.memory, slot.bus.at(0).raw());
        }
    }
}
