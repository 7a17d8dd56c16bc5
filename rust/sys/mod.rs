// SPDX-License-Identifier: GPL-2.0

//! The only place for `unsafe`: bindings, the C shim, and safe wrappers.

/// What bindgen made of `bindings.h`, laid over the kernel's own bindings.
#[allow(
    clippy::all,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]
pub(crate) mod bindings {
    pub(crate) use kernel::bindings::*;
    use kernel::ffi;
    use pin_init::MaybeZeroable;

    include!(concat!(env!("SLUICE_GENERATED"), "/bindings.rs"));
}

use kernel::str::CStrExt as _;

/// Prints one line to the kernel log.
pub(crate) fn log(text: &kernel::str::CStr) {
    // SAFETY: `text` is a valid C string for the whole call.
    unsafe { bindings::sluice_log(text.as_char_ptr()) }
}

/// Size of a VFIO device, as bindgen sees it.
pub(crate) const VFIO_DEVICE_SIZE: usize = core::mem::size_of::<bindings::vfio_device>();
