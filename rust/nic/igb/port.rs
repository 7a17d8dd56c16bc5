// SPDX-License-Identifier: GPL-2.0

//! A port: its registers, and whether they still answer.

use kernel::{
    device::Core,
    io::poll::read_poll_timeout,
    io::Io,
    pci,
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Relaxed,
        Release, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use sluice_core::{
    addr::PoolId,
    platform::HwError, //
};

use super::{
    hal::{
        self,
        Hal, //
    },
    regs, //
};
use crate::sys::{
    mmio::OwnedBar,
    pci::Function, //
};

/// How long cutting a device off takes at most, in ms: its pending transactions are waited for.
const FALL_MS: u32 = 5000;

/// BAR 0 of the chip.
pub(super) type Bar0 = OwnedBar<{ regs::REGION_BYTES }>;

/// Whether the registers are ours to touch: [`Port::state`].
mod state {
    /// They are.
    pub(super) const HERE: u32 = 0;
    /// Not now: the host sleeps. The port was reset before.
    pub(super) const ASLEEP: u32 = 1;
    /// No more: the port was reset and given back.
    pub(super) const RELEASED: u32 = 2;
    /// They do not answer any more, and the device cannot reach memory.
    pub(super) const LOST: u32 = 3;
    /// They do not answer any more, and that is all that is known.
    pub(super) const ADRIFT: u32 = 4;
    /// No more: the device is being cut off, and becomes one of the last two.
    pub(super) const FALLING: u32 = 5;
}

/// One port of a supported chip.
pub(in crate::nic) struct Port {
    pub(super) bar: Bar0,
    pub(super) hal: &'static dyn Hal,
    function: Function,
    state: Atomic<u32>,
    /// Whose transmit queue did not stop in time, and has not been seen at rest since.
    pub(super) stuck: [Atomic<bool>; PoolId::MAX],
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
            function: Function::new(pdev),
            state: Atomic::new(state::HERE),
            stuck: [const { Atomic::new(false) }; PoolId::MAX],
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
        if self.state.load(Relaxed) == state::HERE {
            Ok(())
        } else {
            Err(HwError::Gone)
        }
    }

    /// Whether the registers are ours to touch. Those that cannot fail ask this first.
    pub(in crate::nic) fn is_present(&self) -> bool {
        self.present().is_ok()
    }

    /// After a reset on purpose: every operation fails with [`HwError::Gone`], and all is at rest.
    pub(super) fn mark_released(&self) {
        let _ = self.state.cmpxchg(state::HERE, state::RELEASED, Full);
    }

    /// After a reset before the host sleeps: as [`Self::mark_released`], until it wakes.
    pub(super) fn mark_asleep(&self) {
        let _ = self.state.cmpxchg(state::HERE, state::ASLEEP, Full);
    }

    /// The host is awake; the port needs another reset.
    pub(super) fn mark_awake(&self) {
        let _ = self.state.cmpxchg(state::ASLEEP, state::HERE, Full);
    }

    /// Whether the port was lost, and will not come back.
    pub(in crate::nic) fn is_lost(&self) -> bool {
        matches!(self.state.load(Relaxed), state::LOST | state::ADRIFT)
    }

    /// Whether it was lost, and may still use memory.
    pub(in crate::nic) fn is_adrift(&self) -> bool {
        self.state.load(Relaxed) == state::ADRIFT
    }

    /// The port does not answer any more, or must not be trusted with memory any more, for `reason`:
    /// cuts it off, and from now on every operation fails with [`HwError::Gone`]. Sleeps.
    ///
    /// A device that is alive after all stops here as well. It comes back by being taken anew.
    pub(in crate::nic) fn lose(&self, reason: &str) {
        if self
            .state
            .cmpxchg(state::HERE, state::FALLING, Full)
            .is_err()
        {
            return;
        }
        let pdev = self.function.device();
        dev_err!(pdev, "{reason}: the card is out of use\n");
        if self.function.cut_off() {
            self.state.store(state::LOST, Release);
        } else {
            self.state.store(state::ADRIFT, Release);
            dev_err!(
                pdev,
                "it may still use memory, which is therefore given up\n"
            );
        }
    }

    /// Loses the port if its slot is empty or its function does not answer.
    pub(in crate::nic) fn look(&self) {
        if !self.is_present() {
            return;
        }
        if !self.function.is_there() {
            self.lose("the card has left the bus");
        } else {
            let _ = self.check(self.bar.read(regs::STATUS));
        }
    }

    /// What stopping a queue comes to: nothing runs on a port that cannot reach memory. Sleeps.
    pub(super) fn at_rest(&self, stopped: Result<(), HwError>) -> Result<(), HwError> {
        if stopped != Err(HwError::Gone) {
            return stopped;
        }
        for _ in 0..FALL_MS {
            match self.state.load(Acquire) {
                state::FALLING => fsleep(Delta::from_millis(1)),
                state::ADRIFT => return stopped,
                _ => return Ok(()),
            }
        }
        stopped
    }

    /// Passes on a register's value, unless it reads as it would from a device that has left the
    /// bus: then the port is lost.
    pub(super) fn check<R: Copy + Into<u32>>(&self, value: R) -> Result<R, HwError> {
        // No register reads as all ones on its own for long; STATUS never does.
        if value.into() == u32::MAX && self.bar.read(regs::STATUS).into_raw() == u32::MAX {
            self.lose("registers read as ones");
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
            // Cut off meanwhile, it need never get there.
            Err(_) => self.present().and(Err(HwError::Timeout)),
        }
    }
}
