// SPDX-License-Identifier: GPL-2.0

//! The internal copper PHY and the link.

use kernel::{
    io::Io,
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use sluice_core::platform::HwError;

use super::{
    port::Port,
    regs, //
};

/// Address of the internal PHY.
const PHY_ADDRESS: u8 = 1;

/// Basic mode control (IEEE 802.3 clause 22).
const BMCR: u8 = 0;
const BMCR_AUTONEG: u16 = 1 << 12;
const BMCR_POWER_DOWN: u16 = 1 << 11;
const BMCR_ISOLATE: u16 = 1 << 10;
const BMCR_RESTART: u16 = 1 << 9;

/// Auto-negotiation advertisement.
const ANAR: u8 = 4;
const ANAR_PAUSE: u16 = 1 << 10;
const ANAR_PAUSE_ASYMMETRIC: u16 = 1 << 11;

impl Port {
    /// Whether the port's link is the internal copper PHY, the only kind supported.
    pub(in crate::nic) fn is_copper(&self) -> bool {
        self.bar.read(regs::CTRL_EXT).link_mode() == 0
    }

    /// Wakes the PHY and starts negotiation. The link comes up some seconds later, with an interrupt.
    ///
    /// Flow control is not advertised: a slice that is slow to take its frames must not make the
    /// wire stop for the others (invariant 7).
    pub(in crate::nic) fn start_link(&self) -> Result<(), HwError> {
        self.present()?;
        self.bar.update(regs::CTRL, |r| {
            r.with_slu(true)
                .with_frcspd(false)
                .with_frcdpx(false)
                .with_rfce(false)
                .with_tfce(false)
        });

        self.with_phy(|port| {
            let anar = port.phy_read(ANAR)?;
            port.phy_write(ANAR, anar & !(ANAR_PAUSE | ANAR_PAUSE_ASYMMETRIC))?;
            let bmcr = port.phy_read(BMCR)? & !(BMCR_POWER_DOWN | BMCR_ISOLATE);
            port.phy_write(BMCR, bmcr | BMCR_AUTONEG | BMCR_RESTART)
        })
    }

    /// The link's speed in Mb/s, or `None` while it is down.
    pub(in crate::nic) fn link(&self) -> Result<Option<u16>, HwError> {
        self.present()?;
        let status = self.check(self.bar.read(regs::STATUS))?;
        if !status.lu().into_bool() {
            return Ok(None);
        }
        Ok(Some(match status.speed().get() {
            0 => 10,
            1 => 100,
            _ => 1000,
        }))
    }

    fn phy_read(&self, reg: u8) -> Result<u16, HwError> {
        let done = self.phy_access(regs::MDIC::zeroed().with_const_op::<2>(), reg)?;
        Ok(done.data().into())
    }

    fn phy_write(&self, reg: u8, value: u16) -> Result<(), HwError> {
        let command = regs::MDIC::zeroed().with_const_op::<1>().with_data(value);
        self.phy_access(command, reg).map(|_| ())
    }

    /// One access to the PHY (82576 datasheet 8.2, MDIC), 64 us at most on the wire.
    fn phy_access(&self, command: regs::MDIC, reg: u8) -> Result<regs::MDIC, HwError> {
        let command = command
            .try_with_phy(u32::from(PHY_ADDRESS))
            .and_then(|r| r.try_with_reg(u32::from(reg)))
            .map_err(|_| HwError::Timeout)?;
        self.bar.write_reg(command);
        self.wait(
            |bar| bar.read(regs::MDIC),
            |r| r.ready().into_bool(),
            50,
            10_000,
        )?;
        let done = self.bar.read(regs::MDIC);
        if done.error().into_bool() {
            return Err(HwError::Timeout);
        }
        Ok(done)
    }

    /// Runs `work` while no firmware and no other driver uses the PHY.
    fn with_phy<R>(&self, work: impl FnOnce(&Self) -> Result<R, HwError>) -> Result<R, HwError> {
        // PHY0_SM and PHY1_SM: one bit per port.
        let bit = match self.bar.read(regs::STATUS).lan_id().get() {
            0 => 1 << 1,
            _ => 1 << 2,
        };
        self.take_resource(bit)?;
        let result = work(self);
        self.with_semaphore(|port| {
            port.bar.update(regs::SW_FW_SYNC, |r| {
                regs::SW_FW_SYNC::from(r.into_raw() & !bit)
            });
            Ok(())
        })?;
        result
    }

    fn take_resource(&self, bit: u32) -> Result<(), HwError> {
        for _ in 0..200 {
            let taken = self.with_semaphore(|port| {
                let sync = port.check(port.bar.read(regs::SW_FW_SYNC))?.into_raw();
                let free = sync & (bit | bit << 16) == 0;
                if free {
                    port.bar.write_reg(regs::SW_FW_SYNC::from(sync | bit));
                }
                Ok(free)
            })?;
            if taken {
                return Ok(());
            }
            fsleep(Delta::from_millis(5));
        }
        Err(HwError::Timeout)
    }

    /// Runs `work` while holding the semaphore that guards [`regs::SW_FW_SYNC`].
    fn with_semaphore<R>(
        &self,
        work: impl FnOnce(&Self) -> Result<R, HwError>,
    ) -> Result<R, HwError> {
        self.wait(
            |bar| bar.read(regs::SWSM),
            |r| !r.smbi().into_bool(),
            50,
            200_000,
        )?;
        let latched = self.wait(
            |bar| {
                bar.update(regs::SWSM, |r| r.with_swesmbi(true));
                bar.read(regs::SWSM)
            },
            |r| r.swesmbi().into_bool(),
            50,
            200_000,
        );
        let result = latched.and_then(|()| work(self));
        self.bar
            .update(regs::SWSM, |r| r.with_swesmbi(false).with_smbi(false));
        result
    }
}
