// SPDX-License-Identifier: GPL-2.0

//! Intel 82576.

use kernel::{
    io::{
        register::Array,
        Io, //
    },
    prelude::*, //
};

use super::{
    Hal,
    Thresholds, //
};
use crate::nic::igb::{
    port::Bar0,
    regs, //
};

/// Device id of the dual-port copper card.
pub(super) const COPPER: u16 = 0x10c9;

/// Set in an IVAR byte that names a vector.
const VALID: u8 = 0x80;

pub(super) struct I82576;

impl Hal for I82576 {
    fn name(&self) -> &'static str {
        "82576"
    }

    fn pools(&self) -> u8 {
        8
    }

    fn vectors(&self) -> u8 {
        9
    }

    // The values of the kernel's igb driver for this chip with MSI-X (igb.h).

    fn rx_thresholds(&self) -> Thresholds {
        Thresholds {
            prefetch: 8,
            host: 8,
            write_back: 1,
        }
    }

    fn tx_thresholds(&self) -> Thresholds {
        Thresholds {
            prefetch: 8,
            host: 1,
            write_back: 1,
        }
    }

    fn enable_switch(&self, bar: &Bar0, checked: u8) {
        // Local loopback stays off: a pool does not receive its own broadcast.
        bar.write_reg(
            regs::DTXSWC::zeroed()
                .with_loopback_en(true)
                .with_vlan_antispoof(checked)
                .with_mac_antispoof(checked),
        );
        bar.update(regs::DTXCTL, |r| {
            r.with_vlan_added(true).with_spoof_int(false)
        });
    }

    fn route_queues(&self, bar: &Bar0, pool: usize, vector: u8) {
        // Pool n owns the queues n and n + 8; only the first is used.
        bar.update(regs::IVAR::at(pool & 7), |r| {
            r.with_rx_low(vector | VALID).with_tx_low(vector | VALID)
        });
    }
}
