// SPDX-License-Identifier: GPL-2.0

//! A port: its registers, and whether they still answer.

use kernel::{
    device::Core,
    io::poll::read_poll_timeout,
    io::Io,
    pci,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::Delta, //
};
use sluice_core::platform::HwError;

use super::{
    hal::{
        self,
        Hal, //
    },
    regs, //
};
use crate::sys::mmio::OwnedBar;

/// BAR 0 of the chip.
pub(super) type Bar0 = OwnedBar<{ regs::REGION_BYTES }>;

/// One port of a supported chip.
pub(in crate::nic) struct Port {
    pub(super) bar: Bar0,
    pub(super) hal: &'static dyn Hal,
    /// Given back to the system: nobody may touch the registers any more.
    released: Atomic<bool>,
}

impl Port {
    /// Takes hold of the registers. `ENODEV` when the chip is not supported, with a message.
    pub(in crate::nic) fn new(pdev: &pci::Device<Core<'_>>) -> Result<Self> {
        let Some(hal) = hal::find(pdev.vendor_id(), pdev.device_id()) else {
            dev_err!(
                pdev,
                "{}:{:04x} is not a network card that Sluice can drive\n",
                pdev.vendor_id(),
                pdev.device_id()
            );
            return Err(ENODEV);
        };
        Ok(Self {
            bar: Bar0::new(pdev, 0, c"sluice")?,
            hal,
            released: Atomic::new(false),
        })
    }

    /// The chip's name.
    pub(in crate::nic) fn chip(&self) -> &'static str {
        self.hal.name()
    }

    /// Pools of the port.
    pub(in crate::nic) fn pools(&self) -> u8 {
        self.hal.pools()
    }

    /// Vectors that the port can make use of.
    pub(in crate::nic) fn vectors(&self) -> u8 {
        self.hal.vectors()
    }

    /// Whether the registers are ours to touch.
    pub(super) fn present(&self) -> Result<(), HwError> {
        if self.released.load(Relaxed) {
            Err(HwError::Gone)
        } else {
            Ok(())
        }
    }

    /// Whether the registers are ours to touch. Those that cannot fail ask this first.
    pub(in crate::nic) fn is_present(&self) -> bool {
        self.present().is_ok()
    }

    /// From now on every operation fails with [`HwError::Gone`].
    pub(super) fn mark_released(&self) {
        self.released.store(true, Relaxed);
    }

    /// Passes on a register's value, unless it reads as it would from a device that has left the
    /// bus.
    pub(super) fn check<R: Copy + Into<u32>>(&self, value: R) -> Result<R, HwError> {
        // No register reads as all ones on its own for long; STATUS never does.
        if value.into() == u32::MAX && self.bar.read(regs::STATUS).into_raw() == u32::MAX {
            return Err(HwError::Gone);
        }
        Ok(value)
    }

    /// Reads a register by `read` until `done`, every `step_us`, for at most `timeout_us`. Sleeps.
    pub(super) fn wait<R: Copy + Into<u32>>(
        &self,
        mut read: impl FnMut(&Bar0) -> R,
        done: impl Fn(R) -> bool,
        step_us: i64,
        timeout_us: i64,
    ) -> Result<(), HwError> {
        self.present()?;
        let result = read_poll_timeout(
            || self.check(read(&self.bar)).map_err(|_| ENODEV),
            |value| done(*value),
            Delta::from_micros(step_us),
            Delta::from_micros(timeout_us),
        );
        match result {
            Ok(_) => Ok(()),
            Err(err) if err == ENODEV => Err(HwError::Gone),
            Err(_) => Err(HwError::Timeout),
        }
    }
}
