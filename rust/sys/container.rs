// SPDX-License-Identifier: GPL-2.0

//! What an open VFIO device can reach.

use core::ptr::NonNull;

use super::bindings;

/// The way from an open device to the memory that its VMM has mapped for it.
///
/// # Invariants
///
/// The pointer is a VFIO device made by `vfio_register_emulated_iommu_dev`, and this object owns a
/// reference to it.
pub(crate) struct Container(NonNull<bindings::vfio_device>);

// SAFETY: A device reference may be put from any thread, and VFIO has its own locks.
unsafe impl Send for Container {}
// SAFETY: As above.
unsafe impl Sync for Container {}

impl Container {
    /// # Safety
    ///
    /// `vdev` is a registered device with a reference count that is not zero.
    pub(super) unsafe fn new(vdev: *mut bindings::vfio_device) -> Self {
        // SAFETY: By the contract; a device's address is never null.
        unsafe {
            bindings::get_device(&raw mut (*vdev).device);
            Self(NonNull::new_unchecked(vdev))
        }
    }

    /// The device, live as long as `self`.
    pub(super) fn as_ptr(&self) -> *mut bindings::vfio_device {
        self.0.as_ptr()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the reference is ours.
        unsafe { bindings::put_device(&raw mut (*self.0.as_ptr()).device) };
    }
}
