// SPDX-License-Identifier: GPL-2.0

//! Files of a NIC, in the folder `sluice` of its PCI device.

use kernel::{
    device::Device,
    fmt::Write as _,
    prelude::*,
    static_lock_class,
    sync::Arc, //
};

use crate::{
    nic::{
        Nic,
        PortStats, //
    },
    sys::sysfs::{
        Attribute,
        Files, //
    }, //
};

static TABLE: [Attribute<Nic>; 5] = [
    Attribute::ro("chip", |nic, out| Ok(write!(out, "{}", nic.chip())?)),
    // Speed in Mb/s, 0 while the link is down.
    Attribute::ro("link", |nic, out| {
        Ok(write!(out, "{}", nic.link().unwrap_or(0))?)
    }),
    Attribute::ro("mac", |nic, out| Ok(write!(out, "{}", nic.mac())?)),
    Attribute::ro("pools_free", |nic, out| {
        Ok(write!(out, "{}", nic.free_pools())?)
    }),
    Attribute::ro("pools_total", |nic, out| {
        Ok(write!(out, "{}", nic.pools())?)
    }),
];

/// One counter of the port.
type PortCounter = (&'static str, fn(&PortStats) -> u64);

static COUNTERS: [PortCounter; 9] = [
    ("rx_packets", |s| s.rx_frames),
    ("rx_bytes", |s| s.rx_bytes),
    ("rx_crc_errors", |s| s.rx_crc_errors),
    ("rx_missed", |s| s.rx_missed),
    ("rx_no_descriptor", |s| s.rx_no_descriptor),
    ("rx_too_long", |s| s.rx_too_long),
    ("spoofs_caught", |s| s.spoofs_caught),
    ("tx_packets", |s| s.tx_frames),
    ("tx_bytes", |s| s.tx_bytes),
];

/// The files of a NIC, as long as this lives.
pub(crate) struct NicFiles {
    _main: Files<Nic>,
    _stats: Files<Nic>,
}

impl NicFiles {
    /// Makes the files under the PCI device.
    pub(crate) fn new(dev: &Device, nic: Arc<Nic>) -> Result<Self> {
        Ok(Self {
            _main: Files::new(
                dev,
                Some(c"sluice"),
                &TABLE,
                nic.clone(),
                static_lock_class!(),
            )?,
            _stats: Files::counters(
                dev,
                c"sluice_stats",
                COUNTERS.iter().map(|(name, _)| *name),
                |nic, index| {
                    let counter = COUNTERS.get(index);
                    Ok(counter.map_or(0, |(_, count)| count(&nic.stats())))
                },
                nic,
                static_lock_class!(),
            )?,
        })
    }
}
