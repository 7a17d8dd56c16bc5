// SPDX-License-Identifier: GPL-2.0

//! Host pages that the NIC fills when a guest's buffer is not contiguous on the bus.

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
    /// Allocates `count` zeroed pages for `nic`, which must be bound to its driver until they are
    /// dropped. Sleeps.
    pub(crate) fn new(nic: &Device, count: usize) -> Result<Self> {
        let mut this = Self {
            nic: nic.into(),
            slots: KVVec::with_capacity(count, GFP_KERNEL)?,
        };
        for _ in 0..count {
            let mut handle = 0;
            // SAFETY: The device is live and bound. Coherent memory comes zeroed, so nothing
            // passes over from an earlier owner (invariant 8).
            let memory = unsafe {
                bindings::dma_alloc_attrs(
                    device_ptr(nic),
                    PAGE_BYTES,
                    &mut handle,
                    bindings::GFP_KERNEL,
                    0,
                )
            };
            let memory = NonNull::new(memory.cast::<u8>()).ok_or(ENOMEM)?;
            let Some(bus) = BusPage::from_mapping(handle) else {
                this.free(memory, handle);
                return Err(EINVAL);
            };
            // INVARIANT: Both came from the call above. There is room: this does not fail.
            this.slots.push(Slot { memory, bus }, GFP_KERNEL)?;
        }
        Ok(this)
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
}

impl Drop for BouncePages {
    fn drop(&mut self) {
        for slot in self.slots.iter() {
            self.free(slot.memory, slot.bus.at(0).raw());
        }
    }
}
