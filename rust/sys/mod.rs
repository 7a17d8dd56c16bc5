// SPDX-License-Identifier: GPL-2.0

//! The only place for `unsafe`: bindings, the C shim, and safe wrappers.

pub(crate) mod bounce;
pub(crate) mod container;
pub(crate) mod dma;
pub(crate) mod eventfd;
pub(crate) mod fence;
pub(crate) mod irq;
pub(crate) mod mdev;
pub(crate) mod mmio;
pub(crate) mod pci;
pub(crate) mod pci_driver;
pub(crate) mod pin;
mod pinned;
pub(crate) mod random;
pub(crate) mod sysfs;
pub(crate) mod thread;
pub(crate) mod time;
pub(crate) mod vfio;
pub(crate) mod word;

/// What bindgen made of `bindings.h`, laid over the kernel's own bindings.
#[allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
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
