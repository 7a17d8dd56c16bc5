// SPDX-License-Identifier: GPL-2.0

//! Sluice: slices of a network card for virtual machines, without an IOMMU.

mod sys;

use kernel::prelude::*;
use sluice_core::addr::PAGE_SIZE;

module! {
    type: Sluice,
    name: "sluice",
    authors: ["Sluice developers"],
    description: "Slices of a network card for virtual machines",
    license: "GPL",
}

struct Sluice;

impl kernel::Module for Sluice {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        sys::log(c"loaded");
        pr_info!("page {PAGE_SIZE}, vfio_device {}\n", sys::VFIO_DEVICE_SIZE);
        Ok(Self)
    }
}

impl Drop for Sluice {
    fn drop(&mut self) {
        sys::log(c"unloaded");
    }
}
