// SPDX-License-Identifier: GPL-2.0

//! What differs between the chips of the family.

mod i82576;

use kernel::pci::Vendor;

use super::port::Bar0;

/// When the NIC fetches and writes back descriptors (TXDCTL, RXDCTL).
#[derive(Clone, Copy)]
pub(super) struct Thresholds {
    /// Prefetch when fewer than this many are on the chip.
    pub(super) prefetch: u8,
    /// ... and at least this many are in memory.
    pub(super) host: u8,
    /// Write back when this many are done.
    pub(super) write_back: u8,
}

/// A chip.
pub(super) trait Hal: Sync {
    /// The chip's name, for messages.
    fn name(&self) -> &'static str;
    /// Pools that the port has.
    fn pools(&self) -> u8;
    /// MSI-X vectors that can be used: one per pool and one for the link.
    fn vectors(&self) -> u8;
    /// Thresholds of receive queues.
    fn rx_thresholds(&self) -> Thresholds;
    /// Thresholds of transmit queues.
    fn tx_thresholds(&self) -> Thresholds;
    /// Lets the pools reach each other; those in `checked` with addresses and VLANs only that are
    /// their own.
    fn enable_switch(&self, bar: &Bar0, checked: u8);
    /// Lets the queues of pool `pool`, both directions, interrupt by vector `vector`.
    fn route_queues(&self, bar: &Bar0, pool: usize, vector: u8);
}

/// The chip behind a pair of ids, or `None` where it is not supported.
pub(super) fn find(vendor: Vendor, device: u16) -> Option<&'static dyn Hal> {
    if vendor != Vendor::INTEL {
        return None;
    }
    match device {
        i82576::COPPER => Some(&i82576::I82576),
        _ => None,
    }
}
