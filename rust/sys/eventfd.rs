// SPDX-License-Identifier: GPL-2.0

//! Event file descriptors, by which the VMM asks for interrupts.
//!
//! C header: [`include/linux/eventfd.h`](srctree/include/linux/eventfd.h)

use core::ptr::NonNull;

use kernel::{
    error::from_err_ptr,
    prelude::*, //
};

use super::bindings;

/// A reference to an eventfd that the VMM handed over (invariant 6: a slice can signal these and
/// nothing else).
///
/// # Invariants
///
/// The pointer is a live `eventfd_ctx`, and this object owns one reference to it.
pub(crate) struct EventFd(NonNull<bindings::eventfd_ctx>);

// SAFETY: An `eventfd_ctx` is counted atomically and may be put from any thread.
unsafe impl Send for EventFd {}
// SAFETY: `eventfd_signal_mask` takes the context's own lock.
unsafe impl Sync for EventFd {}

impl EventFd {
    /// Takes a reference to the eventfd that the calling process knows as `fd`.
    ///
    /// Fails with `EBADF` where there is no such file and `EINVAL` where it is not an eventfd.
    pub(crate) fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: `eventfd_ctx_fdget` accepts any number.
        let ctx = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(fd) })?;
        // INVARIANT: `eventfd_ctx_fdget` gave us a reference of our own.
        Ok(Self(NonNull::new(ctx).ok_or(EBADF)?))
    }

    /// Adds one to the counter and wakes whoever waits (KVM's irqfd injects the interrupt). Does
    /// not sleep.
    pub(crate) fn signal(&self) {
        // SAFETY: By the type's invariant the context is live. The worker and the VMM's threads
        // that come here are never within an eventfd's own wake-up.
        unsafe { bindings::eventfd_signal_mask(self.0.as_ptr(), 0) };
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant we own one reference, which goes here.
        unsafe { bindings::eventfd_ctx_put(self.0.as_ptr()) };
    }
}
