// SPDX-License-Identifier: GPL-2.0

//! What the `kernel` crate does not yet wrap of a PCI device's life.

use kernel::{
    bindings,
    device::{
        Core,
        DeviceContext, //
    },
    dma::{
        Device as _,
        DmaMask, //
    },
    error::to_result,
    pci,
    prelude::*,
    sync::aref::ARef, //
};

/// The C object of a device.
pub(super) fn raw<Ctx: DeviceContext>(pdev: &pci::Device<Ctx>) -> *mut bindings::pci_dev {
    // `pci::Device` is `repr(transparent)` over `Opaque<struct pci_dev>`.
    core::ptr::from_ref(pdev).cast_mut().cast()
}

/// A device's configuration space, for those who must know whether the device is still there.
pub(crate) struct Function(ARef<pci::Device>);

impl Function {
    /// Refers to `pdev` for as long as this lives.
    pub(crate) fn new<Ctx: DeviceContext>(pdev: &pci::Device<Ctx>) -> Self
    where
        for<'a> &'a pci::Device<Ctx>: Into<ARef<pci::Device>>,
    {
        Self(pdev.into())
    }

    /// The device, for messages.
    pub(crate) fn device(&self) -> &pci::Device {
        &self.0
    }

    /// Whether the device answers. `false` as well when the slot has reported that it is empty.
    pub(crate) fn is_there(&self) -> bool {
        // SAFETY: The reference keeps the device valid; the function takes any.
        unsafe { bindings::pci_device_is_present(raw(&self.0)) }
    }

    /// Keeps the device from memory; whether it is certain that it reaches none any more. Sleeps
    /// until what it has begun is through.
    pub(crate) fn cut_off(&self) -> bool {
        if !self.is_there() {
            return true;
        }
        // SAFETY: The reference keeps the device valid. Both functions only use its
        // configuration space, which has locks of its own.
        unsafe {
            bindings::pci_clear_master(raw(&self.0));
            bindings::pci_wait_for_pending_transaction(raw(&self.0)) != 0
        }
    }
}

/// A device that decodes memory accesses and may act as bus master, until this is dropped.
///
/// Dropping it switches bus mastering off, so that the device can no longer touch memory
/// (invariants 1 and 3, whatever state it is in), and gives up the enable count, so that the next
/// driver finds the device as this one did.
pub(crate) struct Enabled(ARef<pci::Device>);

impl Enabled {
    /// Enables the device and lets it address 64 bits of memory.
    pub(crate) fn new(pdev: &pci::Device<Core<'_>>) -> Result<Self> {
        pdev.enable_device_mem()?;
        let this = Self(pdev.into());
        // SAFETY: Called from probe, before anything of this device is mapped for DMA.
        unsafe { pdev.dma_set_mask_and_coherent(DmaMask::new::<64>()) }?;
        pdev.set_master();
        Ok(this)
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        // SAFETY: The device was enabled by `new`, once.
        unsafe {
            bindings::pci_clear_master(raw(&self.0));
            bindings::pci_disable_device(raw(&self.0));
        }
    }
}

/// The MSI-X vectors of a device, freed when this is dropped.
///
/// # Invariants
///
/// `count` vectors are allocated for `pdev`.
pub(crate) struct Vectors {
    pdev: ARef<pci::Device>,
    count: usize,
}

impl Vectors {
    /// Allocates between `min` and `max` MSI-X vectors.
    pub(crate) fn new(pdev: &pci::Device<Core<'_>>, min: u32, max: u32) -> Result<Self> {
        // SAFETY: `pdev` is valid; the function checks the counts.
        let count =
            unsafe { bindings::pci_alloc_irq_vectors(raw(pdev), min, max, bindings::PCI_IRQ_MSIX) };
        to_result(count)?;
        // INVARIANT: `count` vectors were allocated.
        Ok(Self {
            pdev: pdev.into(),
            count: usize::try_from(count)?,
        })
    }

    /// How many vectors there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The Linux interrupt number of vector `index`.
    pub(super) fn irq(&self, index: usize) -> Result<u32> {
        // SAFETY: `self.pdev` is valid; the function checks the index.
        let irq = unsafe { bindings::pci_irq_vector(raw(&self.pdev), u32::try_from(index)?) };
        to_result(irq)?;
        Ok(u32::try_from(irq)?)
    }
}

impl Drop for Vectors {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; all handlers are gone, since `irq::Line` borrows `self`
        // through an `Arc`.
        unsafe { bindings::pci_free_irq_vectors(raw(&self.pdev)) }
    }
}
