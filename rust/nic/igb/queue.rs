// SPDX-License-Identifier: GPL-2.0

//! Queues: pool n owns queue n of each direction.

use kernel::{
    io::{
        register::Array,
        Io, //
    },
    prelude::*,
    sync::atomic::Relaxed,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use sluice_core::{
    addr::PoolId,
    platform::{
        HwError,
        RxLayout, //
    }, //
};

use super::{
    port::Port,
    queue,
    regs, //
};
use crate::sys::dma::DescRing;

/// Bytes in a descriptor.
const DESC_BYTES: u32 = 16;
/// A queue reports its state within this time, if it ever does.
const STATE_TIMEOUT_US: i64 = 20_000;
/// The same of a transmit queue that is switched off: it ends the packet that it is at, of which
/// [`sluice_core::frame`] allows 8192 frames of some 290 bytes, 1.9 s at 10 Mb/s, and other pools have their turns.
const TX_OFF_TIMEOUT_US: i64 = 5_000_000;
/// Frames that were handed to the NIC have left by then, if the wire takes them.
const DRAIN_TIMEOUT_US: i64 = 10_000;
/// After a queue has reported that it is off, write-backs may still be on their way.
const SETTLE_US: i64 = 100;

/// SRRCTL.DESCTYPE: advanced descriptors, one buffer.
const ONE_BUFFER: u32 = 1;
/// SRRCTL.DESCTYPE: advanced descriptors, header always in its own buffer.
const SPLIT_ALWAYS: u32 = 5;

/// The ring's address, as two registers.
fn halves(address: u64) -> (u32, u32) {
    (address as u32, (address >> 32) as u32)
}

/// SRRCTL for a layout, or `None` when the chip has no such layout.
fn srrctl(layout: RxLayout) -> Option<regs::SRRCTL> {
    if layout.packet_bytes == 0 || layout.packet_bytes % 1024 != 0 || layout.header_bytes % 64 != 0
    {
        return None;
    }
    let kind = if layout.header_bytes == 0 {
        ONE_BUFFER
    } else {
        SPLIT_ALWAYS
    };
    regs::SRRCTL::zeroed()
        .with_drop_en(true)
        .try_with_desctype(kind)
        .and_then(|r| r.try_with_bsizeheader(u32::from(layout.header_bytes / 64)))
        .and_then(|r| r.try_with_bsizepacket(u32::from(layout.packet_bytes / 1024)))
        .ok()
}

impl Port {
    /// Points the pool's receive queue at `ring`, empty, and enables it.
    pub(in crate::nic) fn start_rx(
        &self,
        pool: PoolId,
        ring: &DescRing,
        layout: RxLayout,
    ) -> Result<(), HwError> {
        // An impossible layout is no state that the queue can ever report.
        let srrctl = srrctl(layout).ok_or(HwError::Timeout)?;
        self.stop_rx(pool)?;
        self.present()?;
        let q = queue(pool);
        let (low, high) = halves(ring.bus());
        let bar = &self.bar;
        bar.write(regs::RDBAL::at(q), regs::RDBAL::from(low));
        bar.write(regs::RDBAH::at(q), regs::RDBAH::from(high));
        let bytes = u32::from(ring.len()) * DESC_BYTES;
        bar.write(regs::RDLEN::at(q), regs::RDLEN::from(bytes));
        bar.write(regs::SRRCTL::at(q), srrctl);
        bar.write(regs::RDH::at(q), regs::RDH::zeroed());
        bar.write(regs::RDT::at(q), regs::RDT::zeroed());
        // What the previous owner lost is not this one's (invariant 8).
        let _ = bar.read(regs::RQDPC::at(q));
        let t = self.hal.rx_thresholds();
        let rxdctl = regs::RXDCTL::from(0)
            .try_with_pthresh(u32::from(t.prefetch))
            .and_then(|r| r.try_with_hthresh(u32::from(t.host)))
            .and_then(|r| r.try_with_wthresh(u32::from(t.write_back)))
            .unwrap_or(regs::RXDCTL::zeroed())
            .with_enable(true);
        bar.write(regs::RXDCTL::at(q), rxdctl);
        self.wait_rx(q, true)
    }

    /// Disables the pool's receive queue; on success the NIC touches neither ring nor buffers.
    pub(in crate::nic) fn stop_rx(&self, pool: PoolId) -> Result<(), HwError> {
        self.at_rest(self.disable_rx(pool))
    }

    fn disable_rx(&self, pool: PoolId) -> Result<(), HwError> {
        self.present()?;
        let q = queue(pool);
        if !self
            .check(self.bar.read(regs::RXDCTL::at(q)))?
            .enable()
            .into_bool()
        {
            // Perhaps just now, after a stop that did not wait for it.
            return self.settle();
        }
        self.bar
            .update(regs::RXDCTL::at(q), |r| r.with_enable(false));
        self.wait_rx(q, false)?;
        self.settle()
    }

    /// Points the pool's transmit queue at `ring`, empty, and enables it.
    pub(in crate::nic) fn start_tx(&self, pool: PoolId, ring: &DescRing) -> Result<(), HwError> {
        self.stop_tx(pool)?;
        self.present()?;
        let q = queue(pool);
        let (low, high) = halves(ring.bus());
        let bar = &self.bar;
        bar.write(regs::TDBAL::at(q), regs::TDBAL::from(low));
        bar.write(regs::TDBAH::at(q), regs::TDBAH::from(high));
        let bytes = u32::from(ring.len()) * DESC_BYTES;
        bar.write(regs::TDLEN::at(q), regs::TDLEN::from(bytes));
        // In order, so that the last one to arrive is the last one there is.
        bar.update(regs::TXCTL::at(q), |r| r.with_wb_relaxed(false));
        // Write-back into the descriptor, not of the head.
        bar.write(regs::TDWBAL::at(q), regs::TDWBAL::zeroed());
        bar.write(regs::TDWBAH::at(q), regs::TDWBAH::zeroed());
        bar.write(regs::TDH::at(q), regs::TDH::zeroed());
        bar.write(regs::TDT::at(q), regs::TDT::zeroed());
        let t = self.hal.tx_thresholds();
        let txdctl = regs::TXDCTL::from(0)
            .try_with_pthresh(u32::from(t.prefetch))
            .and_then(|r| r.try_with_hthresh(u32::from(t.host)))
            .and_then(|r| r.try_with_wthresh(u32::from(t.write_back)))
            .unwrap_or(regs::TXDCTL::zeroed())
            .with_enable(true);
        bar.write(regs::TXDCTL::at(q), txdctl);
        self.wait_tx(q, true, STATE_TIMEOUT_US)
    }

    /// Disables the pool's transmit queue; on success the NIC touches neither ring nor buffers.
    pub(in crate::nic) fn stop_tx(&self, pool: PoolId) -> Result<(), HwError> {
        self.at_rest(self.disable_tx(pool))
    }

    fn disable_tx(&self, pool: PoolId) -> Result<(), HwError> {
        self.present()?;
        let q = queue(pool);
        if !self
            .check(self.bar.read(regs::TXDCTL::at(q)))?
            .enable()
            .into_bool()
        {
            self.set_stuck(pool, false);
            return self.settle();
        }
        // Give frames that were handed over the time to leave. A link that is down never takes
        // them; the queue is then switched off with them in it.
        let tail = self.bar.read(regs::TDT::at(q)).into_raw();
        let drained = self.wait(
            |bar| bar.read(regs::TDH::at(q)),
            |head| head.into_raw() == tail,
            20,
            DRAIN_TIMEOUT_US,
        );
        if drained == Err(HwError::Gone) {
            return drained;
        }
        self.bar
            .update(regs::TXDCTL::at(q), |r| r.with_enable(false));
        // All is given up already that one uses which had its time: later looks are short.
        let timeout_us = if self.is_stuck(pool) {
            STATE_TIMEOUT_US
        } else {
            TX_OFF_TIMEOUT_US
        };
        let off = self.wait_tx(q, false, timeout_us);
        self.set_stuck(pool, off == Err(HwError::Timeout));
        off?;
        self.settle()
    }

    fn is_stuck(&self, pool: PoolId) -> bool {
        self.stuck
            .get(pool.index())
            .is_some_and(|stuck| stuck.load(Relaxed))
    }

    fn set_stuck(&self, pool: PoolId, on: bool) {
        if let Some(stuck) = self.stuck.get(pool.index()) {
            stuck.store(on, Relaxed);
        }
    }

    /// Receive descriptors up to, not including, `tail` are valid.
    #[inline]
    pub(in crate::nic) fn ring_rx(&self, pool: PoolId, tail: u16) {
        self.bar
            .write(regs::RDT::at(queue(pool)), regs::RDT::from(u32::from(tail)));
    }

    /// Transmit descriptors up to, not including, `tail` are valid.
    #[inline]
    pub(in crate::nic) fn ring_tx(&self, pool: PoolId, tail: u16) {
        self.bar
            .write(regs::TDT::at(queue(pool)), regs::TDT::from(u32::from(tail)));
    }

    /// RXDCTL.ENABLE reads as written only once the queue has got there: on, or off with all
    /// activity ended (82576 datasheet 8.10).
    fn wait_rx(&self, q: usize, on: bool) -> Result<(), HwError> {
        self.wait(
            |bar| bar.read(regs::RXDCTL::at(q & 15)),
            |r| r.enable().into_bool() == on,
            20,
            STATE_TIMEOUT_US,
        )
    }

    /// As [`Self::wait_rx`] (82576 datasheet 8.12).
    fn wait_tx(&self, q: usize, on: bool, timeout_us: i64) -> Result<(), HwError> {
        self.wait(
            |bar| bar.read(regs::TXDCTL::at(q & 15)),
            |r| r.enable().into_bool() == on,
            if on { 20 } else { 100 },
            timeout_us,
        )
    }

    /// Lets the last write-backs arrive: they precede the answer to a read on the bus.
    fn settle(&self) -> Result<(), HwError> {
        fsleep(Delta::from_micros(SETTLE_US));
        self.check(self.bar.read(regs::STATUS)).map(|_| ())
    }
}
