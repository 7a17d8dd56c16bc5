// SPDX-License-Identifier: GPL-2.0

//! The port's own counters. Slices are counted by the data path.

use kernel::io::Io;

use super::{
    port::Port,
    regs, //
};

/// Totals since the port was taken over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PortStats {
    /// Good frames received from the wire and from pools.
    pub(crate) rx_frames: u64,
    /// Good bytes received, with FCS.
    pub(crate) rx_bytes: u64,
    /// Good frames sent.
    pub(crate) tx_frames: u64,
    /// Good bytes sent, with FCS.
    pub(crate) tx_bytes: u64,
    /// Frames with a bad FCS.
    pub(crate) rx_crc_errors: u64,
    /// Frames lost because the port's packet buffer was full.
    pub(crate) rx_missed: u64,
    /// Frames lost because a queue had no descriptors.
    pub(crate) rx_no_descriptor: u64,
    /// Frames too long for every pool that they were for.
    pub(crate) rx_too_long: u64,
    /// Times that the port caught a pool with an address or VLAN that is not its own.
    pub(crate) spoofs_caught: u64,
}

impl Port {
    /// Adds what has been counted since the last call. Does nothing once the port is gone.
    pub(in crate::nic) fn add_stats(&self, total: &mut PortStats) {
        if self.present().is_err() || self.check(self.bar.read(regs::STATUS)).is_err() {
            return;
        }
        let bar = &self.bar;
        let add = |sum: &mut u64, count: u32| *sum = sum.wrapping_add(count.into());
        add(&mut total.rx_frames, bar.read(regs::GPRC).into());
        add(&mut total.tx_frames, bar.read(regs::GPTC).into());
        add(&mut total.rx_crc_errors, bar.read(regs::CRCERRS).into());
        add(&mut total.rx_missed, bar.read(regs::MPC).into());
        add(&mut total.rx_no_descriptor, bar.read(regs::RNBC).into());
        add(&mut total.rx_too_long, bar.read(regs::ROC).into());
        let spoofs = u32::from(bar.read(regs::WVBR)).count_ones();
        add(&mut total.spoofs_caught, spoofs);

        // The low half first: reading the high one clears both.
        let wide = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let low = bar.read(regs::GORCL).into();
        let rx_bytes = wide(low, bar.read(regs::GORCH).into());
        total.rx_bytes = total.rx_bytes.wrapping_add(rx_bytes);
        let low = bar.read(regs::GOTCL).into();
        let tx_bytes = wide(low, bar.read(regs::GOTCH).into());
        total.tx_bytes = total.tx_bytes.wrapping_add(tx_bytes);
    }
}
