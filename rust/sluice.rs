// SPDX-License-Identifier: GPL-2.0

//! Sluice: slices of a network card for virtual machines, without an IOMMU and without SR-IOV.
//!
//! `Documentation/architecture.rst` is the map.

mod ctl;
mod nic;
mod sys;
mod vfio;
mod worker;

use kernel::{
    driver,
    prelude::*,
    InPlaceModule, //
};

use sys::pci_driver::Adapter;

module! {
    type: Sluice,
    name: "sluice",
    authors: ["Sluice developers"],
    description: "Slices of a network card for virtual machines",
    license: "GPL",
}

/// The PCI driver whose cards are offered as mediated devices.
type Driver = nic::Driver<vfio::NicSlices>;

#[pin_data]
struct Sluice {
    #[pin]
    _driver: driver::Registration<Adapter<Driver>>,
    // Dropped last.
    _returns: sys::fence::Returns,
}

impl InPlaceModule for Sluice {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _driver <- driver::Registration::new(c"sluice", module),
            _returns: sys::fence::Returns,
        })
    }
}
