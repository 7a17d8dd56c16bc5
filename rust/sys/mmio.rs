// SPDX-License-Identifier: GPL-2.0

//! Device registers with an owner of their own.

use kernel::{
    bindings,
    io::{
        IoBase,
        Mmio,
        MmioBackend,
        MmioRaw,
        Region, //
    },
    pci,
    prelude::*,
    sync::aref::ARef, //
};

use super::pci::raw;

/// A mapped register BAR of at least `SIZE` bytes.
///
/// The kernel's own `pci::Bar` borrows the bound device; objects that outlive a borrow (a slice
/// that a VMM still holds) need one that keeps the device alive by itself. The mapping stays valid
/// until the last user is gone, even past unbind; that nobody *uses* it by then is the NIC's
/// business.
///
/// # Invariants
///
/// `io` is a mapping by `pci_iomap` of BAR `num` of `pdev`, whose region this object has requested.
pub(crate) struct OwnedBar<const SIZE: usize> {
    pdev: ARef<pci::Device>,
    io: MmioRaw<Region<SIZE>>,
    num: i32,
}

impl<const SIZE: usize> OwnedBar<SIZE> {
    /// Requests and maps BAR `num`.
    ///
    /// Fails with `EBUSY` when another driver holds it, `ENODEV` when it is shorter than `SIZE`.
    pub(crate) fn new(
        pdev: &pci::Device<kernel::device::Bound>,
        num: u8,
        name: &'static CStr,
    ) -> Result<Self> {
        let len = usize::try_from(pdev.resource_len(num.into())?)?;
        if len < SIZE {
            return Err(ENODEV);
        }
        let num = i32::from(num);

        // SAFETY: `pdev` is a valid device, `num` was checked by `resource_len`, `name` is static.
        if unsafe { bindings::pci_request_region(raw(pdev), num, name.as_char_ptr()) } != 0 {
            return Err(EBUSY);
        }
        // SAFETY: As above.
        let addr = unsafe { bindings::pci_iomap(raw(pdev), num, 0) } as usize;
        let io = if addr == 0 {
            Err(ENOMEM)
        } else {
            MmioRaw::new_region(addr, len)
        };
        match io {
            // INVARIANT: The region was requested and mapped above.
            Ok(io) => Ok(Self {
                pdev: pdev.into(),
                io,
                num,
            }),
            Err(err) => {
                // SAFETY: Undoes exactly what was done above; `pci_iounmap` takes NULL.
                unsafe {
                    bindings::pci_iounmap(raw(pdev), addr as *mut c_void);
                    bindings::pci_release_region(raw(pdev), num);
                }
                Err(err)
            }
        }
    }
}

impl<const SIZE: usize> Drop for OwnedBar<SIZE> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, and no reference to the mapping outlives `self`: each is
        // an `Mmio` that borrows it.
        unsafe {
            bindings::pci_iounmap(raw(&self.pdev), self.io.addr() as *mut c_void);
            bindings::pci_release_region(raw(&self.pdev), self.num);
        }
    }
}

impl<'a, const SIZE: usize> IoBase<'a> for &'a OwnedBar<SIZE> {
    type Backend = MmioBackend;
    type Target = Region<SIZE>;

    #[inline]
    fn as_view(self) -> Mmio<'a, Self::Target> {
        // SAFETY: By the type invariant the range is mapped, for as long as `self` is borrowed.
        unsafe { Mmio::from_raw(self.io) }
    }
}
