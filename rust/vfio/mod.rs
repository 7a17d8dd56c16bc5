// SPDX-License-Identifier: GPL-2.0

//! What a VMM sees: mediated devices, each a PCI function behind a VFIO device file.
//!
//! A slice is made by the administrator ([`driver`]), takes a pool of its NIC at once and keeps it
//! until it is removed. The hardware is lent to the model only while a VMM has the slice open
//! ([`device`]).

mod device;
mod driver;
mod irqs;
mod platform;
mod posted;
mod regions;

pub(crate) use self::{
    device::SliceDev,
    driver::NicSlices, //
};
