// SPDX-License-Identifier: GPL-2.0

//! A pool's queues, as the data path uses them.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use sluice_core::platform::{
    HwError,
    HwQueue,
    RxLayout, //
};

use super::pools::Lease;
use crate::sys::dma::DescRing;

/// A pool's transmit queue with its shadow ring.
pub(crate) struct TxQueue {
    ring: Arc<DescRing>,
    lease: Arc<Lease>,
}

/// A pool's receive queue with its shadow ring.
pub(crate) struct RxQueue {
    ring: Arc<DescRing>,
    lease: Arc<Lease>,
}

impl TxQueue {
    /// The one object that uses this queue: `lease` counts it.
    pub(super) fn new(lease: Arc<Lease>, ring: Arc<DescRing>) -> Self {
        Self { ring, lease }
    }
}

impl RxQueue {
    /// The one object that uses this queue: `lease` counts it.
    pub(super) fn new(lease: Arc<Lease>, ring: Arc<DescRing>) -> Self {
        Self { ring, lease }
    }
}

impl HwQueue for TxQueue {
    fn len(&self) -> u16 {
        self.ring.len()
    }

    #[inline]
    fn write(&mut self, index: u16, words: [u64; 2]) {
        self.ring.write(index, words);
    }

    #[inline]
    fn read(&self, index: u16) -> [u64; 2] {
        self.ring.read(index)
    }

    #[inline]
    fn doorbell(&mut self, tail: u16) {
        self.ring.publish();
        self.lease
            .nic
            .port
            .ring_tx(self.lease.pool, tail & (self.ring.len() - 1));
    }

    fn start(&mut self, _layout: RxLayout) -> Result<(), HwError> {
        self.lease.may_start()?;
        self.lease.nic.port.stop_tx(self.lease.pool)?;
        self.ring.clear();
        self.lease.set_sending(true);
        self.lease.nic.port.start_tx(self.lease.pool, &self.ring)
    }

    fn stop(&mut self) -> Result<(), HwError> {
        // The pool may still send meanwhile, so that what is queued can leave.
        let result = self.lease.nic.port.stop_tx(self.lease.pool);
        self.lease.set_sending(false);
        result
    }
}

impl HwQueue for RxQueue {
    fn len(&self) -> u16 {
        self.ring.len()
    }

    #[inline]
    fn write(&mut self, index: u16, words: [u64; 2]) {
        self.ring.write(index, words);
    }

    #[inline]
    fn read(&self, index: u16) -> [u64; 2] {
        self.ring.read(index)
    }

    #[inline]
    fn doorbell(&mut self, tail: u16) {
        self.ring.publish();
        self.lease
            .nic
            .port
            .ring_rx(self.lease.pool, tail & (self.ring.len() - 1));
    }

    fn start(&mut self, layout: RxLayout) -> Result<(), HwError> {
        self.lease.may_start()?;
        self.lease.nic.port.stop_rx(self.lease.pool)?;
        self.ring.clear();
        self.lease
            .nic
            .port
            .start_rx(self.lease.pool, &self.ring, layout)?;
        self.lease.set_receiving(true);
        Ok(())
    }

    fn stop(&mut self) -> Result<(), HwError> {
        self.lease.set_receiving(false);
        self.lease.nic.port.stop_rx(self.lease.pool)
    }
}

impl Drop for TxQueue {
    fn drop(&mut self) {
        // A queue that does not stop is found again when the pool is given up.
        let _ = self.stop();
        self.lease.return_queue();
    }
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        let _ = self.stop();
        self.lease.return_queue();
    }
}
