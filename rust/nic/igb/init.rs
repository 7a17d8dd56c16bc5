// SPDX-License-Identifier: GPL-2.0

//! From whatever state the port was left in to one where every pool is denied everything.

use kernel::{
    io::{
        register::Array,
        Io, //
    },
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use sluice_core::{
    net::MacAddr,
    platform::HwError, //
};

use super::{
    port::Port,
    regs, //
};

/// Longest frame that any pool may ask for, with FCS (82576 datasheet 8.10, RLPML).
const FRAME_MAX_BYTES: u16 = 9728;

impl Port {
    /// Resets the port: no DMA, no interrupts, no queue, registers as after power-on.
    pub(in crate::nic) fn reset(&self) -> Result<(), HwError> {
        self.present()?;
        self.check(self.bar.read(regs::STATUS))?;
        // First: nobody may be there to handle them, and what follows takes its time.
        self.mask_all();

        // Let transactions end before the reset cuts them off (82576 datasheet 5.2, and
        // `igb_disable_pcie_master`). If they do not, the reset ends them.
        self.bar
            .update(regs::CTRL, |r| r.with_gio_master_disable(true));
        let idle = self.wait(
            |bar| bar.read(regs::STATUS),
            |r| !r.gio_master_enable().into_bool(),
            100,
            80_000,
        );
        if idle == Err(HwError::Gone) {
            return idle;
        }

        self.bar.write_reg(regs::RCTL::zeroed());
        self.bar.write_reg(regs::TCTL::zeroed().with_psp(true));
        self.check(self.bar.read(regs::STATUS))?;
        fsleep(Delta::from_millis(10));

        self.bar.update(regs::CTRL, |r| r.with_rst(true));
        // No access for a while: the reset takes the registers with it.
        fsleep(Delta::from_millis(5));
        self.wait(
            |bar| bar.read(regs::CTRL),
            |r| !r.rst().into_bool(),
            1_000,
            100_000,
        )?;
        // Without an EEPROM (and on QEMU) the bit never comes; the address is checked by itself.
        let _ = self.wait(
            |bar| bar.read(regs::EEC),
            |r| r.auto_rd().into_bool(),
            1_000,
            15_000,
        );

        self.mask_all();
        // Reading clears what the reset left pending.
        self.check(self.bar.read(regs::ICR))?;
        Ok(())
    }

    /// The port's own address, as the reset loads it from the EEPROM into the first filter.
    pub(in crate::nic) fn permanent_mac(&self) -> MacAddr {
        let [a, b, c, d] = self.bar.read(regs::RAL::at(0)).into_raw().to_le_bytes();
        let [e, f, ..] = self.bar.read(regs::RAH::at(0)).into_raw().to_le_bytes();
        MacAddr::new([a, b, c, d, e, f])
    }

    /// Sets up a port that has just been reset: the engines run, no queue does, and nobody receives.
    pub(in crate::nic) fn configure(&self) -> Result<(), HwError> {
        self.present()?;
        // The reset leaves queue 0 enabled.
        for queue in 0..regs::QUEUES {
            let queue = queue & (regs::QUEUES - 1);
            self.bar
                .write(regs::RXDCTL::at(queue), regs::RXDCTL::zeroed());
            self.bar
                .write(regs::TXDCTL::at(queue), regs::TXDCTL::zeroed());
        }
        self.deny_all();

        self.bar.write_reg(regs::FCTTV::zeroed());
        self.bar.write_reg(regs::FCRTL::zeroed());
        self.bar.write_reg(regs::FCRTH::zeroed());

        // One stuck slice must not hold up the others (invariant 7).
        self.bar
            .write_reg(regs::QDE::zeroed().with_const_queues::<0xffff>());
        self.bar.update(regs::RXCSUM, |r| {
            r.with_pcsd(true)
                .with_crcofl(true)
                .with_tuofld(true)
                .with_ipofld(true)
        });
        self.bar.update(regs::RFCTL, |r| r.with_ipv6_ex_dis(true));
        self.bar.write_reg(
            regs::RLPML::zeroed()
                .try_with_bytes(u32::from(FRAME_MAX_BYTES))
                .unwrap_or(regs::RLPML::zeroed()),
        );
        self.enable_vmdq();

        self.bar.write_reg(
            regs::RCTL::zeroed()
                .with_secrc(true)
                .with_vfe(true)
                .with_bam(true)
                .with_lpe(true)
                .with_en(true),
        );
        self.bar.write_reg(
            regs::TCTL::zeroed()
                .with_rtlc(true)
                .with_const_cold::<0x3f>()
                .with_const_ct::<0xf>()
                .with_psp(true)
                .with_en(true),
        );
        self.bar.update(regs::CTRL_EXT, |r| r.with_drv_load(true));
        self.check(self.bar.read(regs::STATUS))?;
        Ok(())
    }

    /// Gives the port back: reset, and not to be touched again. Whatever was in flight is not any
    /// more, unless the device is gone; then nothing can be.
    pub(in crate::nic) fn release(&self) {
        if self.present().is_err() {
            return;
        }
        match self.reset() {
            Ok(()) => {
                self.bar.update(regs::CTRL_EXT, |r| r.with_drv_load(false));
                self.mark_released();
            }
            Err(HwError::Timeout) => self.lose("the port did not come out of its reset"),
            Err(HwError::Gone) => {}
        }
    }

    /// Puts the port to rest before the host sleeps.
    pub(in crate::nic) fn sleep(&self) -> Result<(), HwError> {
        self.reset()?;
        self.mark_asleep();
        Ok(())
    }

    /// Ends [`Self::sleep`]: the registers can be used, and the port needs to be reset and set up.
    pub(in crate::nic) fn wake(&self) {
        self.mark_awake();
    }
}
