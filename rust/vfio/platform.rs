// SPDX-License-Identifier: GPL-2.0

//! The machine beneath a slice, as the pure crate wants it.

use kernel::prelude::*;

use sluice_core::platform::{
    Alloc,
    HwError,
    HwQueue,
    Platform,
    RxLayout, //
};

use super::irqs::Signals;
use crate::{
    nic::{
        PoolPort,
        RxQueue,
        TxQueue, //
    },
    sys::{
        bounce::BouncePages,
        pin::VfioPinner, //
    }, //
};

/// Tables in memory that need not be contiguous; single values in memory that is.
pub(crate) struct KernelAlloc;

impl Alloc for KernelAlloc {
    type Box<T> = KBox<T>;
    type Buf<T> = KVVec<T>;

    fn boxed<T>(value: T) -> Option<KBox<T>> {
        KBox::new(value, GFP_KERNEL).ok()
    }

    fn filled<T>(len: usize, make: impl FnMut(usize) -> T) -> Option<KVVec<T>> {
        let mut table = KVVec::with_capacity(len, GFP_KERNEL).ok()?;
        for element in (0..len).map(make) {
            // There is room: this neither allocates nor fails.
            table.push(element, GFP_KERNEL).ok()?;
        }
        Some(table)
    }
}

/// A queue of either direction.
pub(crate) enum Queue {
    /// Transmit.
    Tx(TxQueue),
    /// Receive.
    Rx(RxQueue),
}

/// Calls the same method of whichever queue it is.
macro_rules! either {
    ($queue:expr, $inner:ident => $call:expr) => {
        match $queue {
            Queue::Tx($inner) => $call,
            Queue::Rx($inner) => $call,
        }
    };
}

impl HwQueue for Queue {
    #[inline]
    fn len(&self) -> u16 {
        either!(self, queue => queue.len())
    }

    #[inline]
    fn write(&mut self, index: u16, words: [u64; 2]) {
        either!(self, queue => queue.write(index, words));
    }

    #[inline]
    fn read(&self, index: u16) -> [u64; 2] {
        either!(self, queue => queue.read(index))
    }

    #[inline]
    fn doorbell(&mut self, tail: u16) {
        either!(self, queue => queue.doorbell(tail));
    }

    fn start(&mut self, layout: RxLayout) -> Result<(), HwError> {
        either!(self, queue => queue.start(layout))
    }

    fn stop(&mut self) -> Result<(), HwError> {
        either!(self, queue => queue.stop())
    }
}

/// The stock kernel with a real NIC.
pub(crate) struct KernelPlatform;

impl Platform for KernelPlatform {
    type Alloc = KernelAlloc;
    type Pinner = VfioPinner;
    type Queue = Queue;
    type Port = PoolPort;
    type Signals = Signals;
    type Bounce = BouncePages;
}
