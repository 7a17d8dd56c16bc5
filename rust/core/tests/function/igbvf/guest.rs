// SPDX-License-Identifier: GPL-2.0

//! The guest's driver: the accesses of `igbvf`, in its order.

use sluice_core::vf::mailbox::bits;

use super::host::Host;
use super::regs::*;

/// Where the driver puts its rings.
pub(crate) const TX_RING: u64 = 0x1_2345_6000;
pub(crate) const RX_RING: u64 = 0x7_0000_0000;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Timeout;

/// The guest's driver.
pub(crate) struct Igbvf {
    pub(crate) h: Host,
    /// Read-to-clear bits that the driver has seen and not used.
    pub(crate) seen: u32,
    pub(crate) mailbox_works: bool,
    pub(crate) mac: [u8; 6],
    pub(crate) perm_mac: [u8; 6],
    pub(crate) get_link_status: bool,
    pub(crate) down: bool,
    pub(crate) wants_reset: bool,
    pub(crate) rx_buffer_len: u32,
    pub(crate) max_frame: u32,
    pub(crate) vlans: Vec<u16>,
    pub(crate) multicast: Vec<u16>,
    pub(crate) carrier: bool,
    pub(crate) tx_tail: u32,
}

impl Igbvf {
    pub(crate) fn probe(mut h: Host) -> Self {
        // The core enables memory space, then bus mastering.
        let command = h.config(4);
        h.set_config(4, command | 0x2);
        h.set_config(4, command | 0x6);
        let mut driver = Self {
            h,
            seen: 0,
            mailbox_works: false,
            mac: [0; 6],
            perm_mac: [0; 6],
            get_link_status: false,
            down: true,
            wants_reset: false,
            rx_buffer_len: 1522,
            max_frame: 1518,
            vlans: Vec::new(),
            multicast: Vec::new(),
            carrier: false,
            tx_tail: 0,
        };
        driver.irq_disable();
        driver.reset_hw().expect("the host answers");
        driver.mac = driver.perm_mac;
        if driver.mac == [0; 6] {
            driver.mac = [0x02, 0, 0, 0, 0, 0x77];
        }
        driver.reset();
        driver.stats();
        driver
    }

    pub(crate) fn mailbox(&mut self) -> u32 {
        let value = self.h.read(V2PMAILBOX) | self.seen;
        self.seen |= value & (bits::PFSTS | bits::PFACK | bits::RSTD);
        value
    }

    pub(crate) fn check(&mut self, mask: u32) -> bool {
        let hit = self.mailbox() & mask != 0;
        self.seen &= !mask;
        hit
    }

    pub(crate) fn lock(&mut self) -> bool {
        for _ in 0..11 {
            self.h.write(V2PMAILBOX, bits::VFU);
            if self.mailbox() & bits::VFU != 0 {
                return true;
            }
            self.h.tick();
        }
        false
    }

    pub(crate) fn poll(&mut self, mask: u32) -> Result<(), Timeout> {
        for _ in 0..2000 {
            if self.check(mask) {
                return Ok(());
            }
            self.h.tick();
        }
        self.mailbox_works = false;
        Err(Timeout)
    }

    pub(crate) fn write_posted(&mut self, message: &[u32]) -> Result<(), Timeout> {
        if !self.mailbox_works || !self.lock() {
            return Err(Timeout);
        }
        self.check(bits::PFACK);
        self.check(bits::PFSTS);
        for (offset, word) in (VMBMEM..).step_by(4).zip(message) {
            self.h.write(offset, *word);
        }
        self.h.write(V2PMAILBOX, bits::REQ);
        self.poll(bits::PFACK)
    }

    pub(crate) fn read_mailbox(&mut self, len: usize) -> Option<Vec<u32>> {
        if !self.lock() {
            return None;
        }
        let offsets = (VMBMEM..).step_by(4).take(len);
        let words = offsets.map(|offset| self.h.read(offset)).collect();
        self.h.write(V2PMAILBOX, bits::ACK);
        Some(words)
    }

    pub(crate) fn ask(&mut self, message: &[u32], len: usize) -> Result<Vec<u32>, Timeout> {
        self.write_posted(message)?;
        self.poll(bits::PFSTS)?;
        self.read_mailbox(len).ok_or(Timeout)
    }

    pub(crate) fn reset_hw(&mut self) -> Result<(), Timeout> {
        let ctrl = self.h.read(CTRL);
        self.h.write(CTRL, ctrl | (1 << 26));
        let mut timeout = 200;
        while self.check(bits::RSTI | bits::RSTD) && timeout > 0 {
            timeout -= 1;
            self.h.tick();
        }
        if timeout == 0 {
            return Err(Timeout);
        }
        self.mailbox_works = true;
        let words = self.ask(&[1], 3)?;
        self.perm_mac = match words[0] {
            0x8000_0001 => {
                let [a, b, c, d] = words[1].to_le_bytes();
                let [e, f, ..] = words[2].to_le_bytes();
                [a, b, c, d, e, f]
            }
            0x4000_0001 => [0; 6],
            _ => return Err(Timeout),
        };
        Ok(())
    }

    pub(crate) fn ask_mac(&mut self, kind: u32, [a, b, c, d, e, f]: [u8; 6]) -> u32 {
        let low = u32::from_le_bytes([a, b, c, d]);
        let high = u32::from_le_bytes([e, f, 0, 0]);
        self.ask(&[kind, low, high], 3).unwrap()[0]
    }

    pub(crate) fn rar_set(&mut self) {
        if self.ask_mac(2, self.mac) & !CTS == 2 | NACK {
            self.mac = self.perm_mac;
        }
    }

    pub(crate) fn reset(&mut self) {
        self.reset_hw().expect("the host answers");
        self.rar_set();
    }

    pub(crate) fn set_rx_mode(&mut self) {
        let mut message = [0; 16];
        message[0] = 3 | ((self.multicast.len() as u32) << 16);
        for (i, hash) in self.multicast.iter().enumerate() {
            message[1 + i / 2] |= u32::from(*hash) << (16 * (i % 2));
        }
        let words = self.ask(&message, 1).unwrap();
        assert_eq!(words[0], message[0] | ACK | CTS);
        let clear = 2 | (1 << 16);
        assert_eq!(self.ask_mac(clear, [0; 6]), clear | ACK | CTS);
    }

    pub(crate) fn set_vlan(&mut self, vid: u16, on: bool) -> Result<(), u16> {
        let message = [4 | (u32::from(on) << 16), u32::from(vid)];
        let words = self.ask(&message, 2).unwrap();
        if words[0] & !CTS == 4 | NACK {
            return Err(vid);
        }
        Ok(())
    }

    pub(crate) fn configure_tx(&mut self) {
        let dctl = self.h.read(TX + DCTL);
        self.h.write(TX + DCTL, dctl & !ENABLE);
        self.h.read(STATUS);
        self.h.tick();
        self.h.write(TX + LEN, 1024 * 16);
        self.h.write(TX + BAL, TX_RING as u32);
        self.h.write(TX + BAH, (TX_RING >> 32) as u32);
        self.h.write(TX + HEAD, 0);
        self.h.write(TX + TAIL, 0);
        let dca = self.h.read(TX + DCA);
        self.h.write(TX + DCA, dca & !(1 << 11));
        self.h.write(TX + DCTL, dctl | ENABLE);
        self.tx_tail = 0;
    }

    pub(crate) fn configure_rx(&mut self) {
        let size = (1 << 31) | self.rx_buffer_len.div_ceil(1024);
        let kind = if self.rx_buffer_len < 2048 {
            0x0200_0000
        } else {
            (128 << 2) | 0x0A00_0000
        };
        self.h.write(RX + SRRCTL, size | kind);

        let dctl = self.h.read(RX + DCTL);
        self.h.write(RX + DCTL, dctl & !ENABLE);
        self.h.read(STATUS);
        self.h.tick();
        self.h.write(RX + BAL, RX_RING as u32);
        self.h.write(RX + BAH, (RX_RING >> 32) as u32);
        self.h.write(RX + LEN, 1024 * 16);
        self.h.write(RX + HEAD, 0);
        self.h.write(RX + TAIL, 0);
        let words = self.ask(&[5, self.max_frame + 4], 1).unwrap();
        assert_eq!(words[0], 5 | ACK | CTS);
        let thresholds = 16 | (8 << 8) | (1 << 16);
        let dctl = (dctl | ENABLE) & 0xFFF0_0000 | thresholds;
        self.h.write(RX + DCTL, dctl);
        // Buffers are posted without waiting for the queue.
        self.h.write(RX + TAIL, 1022);
    }

    pub(crate) fn configure(&mut self) {
        self.set_rx_mode();
        for vid in self.vlans.clone() {
            self.set_vlan(vid, true).unwrap();
        }
        self.configure_tx();
        self.configure_rx();
    }

    pub(crate) fn configure_msix(&mut self) {
        let ivar = self.h.read(IVAR0);
        self.h.write(IVAR0, ivar & 0xFFFF_00FF | (0x80 << 8));
        self.h.write(EITR, 488);
        let ivar = self.h.read(IVAR0);
        self.h.write(IVAR0, ivar & 0xFFFF_FF00 | 0x81);
        self.h.write(EITR + 4, 488);
        self.h.write(IVAR_MISC, 0x82);
        self.h.read(STATUS);
    }

    pub(crate) fn irq_enable(&mut self) {
        self.h.read(EICR);
        self.h.write(EIAC, 7);
        self.h.write(EIAM, 7);
        self.h.write(EIMS, 7);
    }

    pub(crate) fn irq_disable(&mut self) {
        self.h.write(EIMC, u32::MAX);
        self.h.write(EIAC, 0);
    }

    pub(crate) fn up(&mut self) {
        self.configure();
        self.down = false;
        self.configure_msix();
        self.irq_enable();
        self.get_link_status = true;
        self.h.tick();
    }

    pub(crate) fn down(&mut self) {
        self.down = true;
        for queue in [RX, TX] {
            let dctl = self.h.read(queue + DCTL);
            self.h.write(queue + DCTL, dctl & !ENABLE);
        }
        self.h.read(STATUS);
        self.h.tick();
        self.irq_disable();
        self.stats();
        self.carrier = false;
        self.reset();
        for queue in [TX, RX] {
            self.h.write(queue + HEAD, 0);
            self.h.write(queue + TAIL, 0);
        }
    }

    pub(crate) fn check_for_link(&mut self) {
        if self.check(bits::RSTI | bits::RSTD) || !self.mailbox_works {
            self.get_link_status = true;
        }
        if !self.get_link_status || self.h.read(STATUS) & 2 == 0 {
            return;
        }
        let Some(words) = self.read_mailbox(1) else {
            return;
        };
        if words[0] & CTS == 0 {
            self.wants_reset |= words[0] & NACK != 0;
        } else if self.mailbox_works {
            self.get_link_status = false;
        } else {
            self.wants_reset = true;
        }
    }

    pub(crate) fn watchdog(&mut self) {
        if !self.down {
            self.check_for_link();
        }
        self.carrier = !self.down && !self.get_link_status;
        self.h.write(EICS, 1 << VEC_RX);
        self.h.wait();
    }

    /// Handles what was signalled, and returns it.
    pub(crate) fn interrupts(&mut self) -> Vec<u8> {
        let fired = std::mem::take(&mut self.h.fired);
        for vector in &fired {
            self.get_link_status |= *vector == VEC_OTHER;
            self.h.write(EIMS, 1 << vector);
        }
        fired
    }

    pub(crate) fn xmit(&mut self) {
        self.tx_tail = (self.tx_tail + 1) % 1024;
        self.h.write(TX + TAIL, self.tx_tail);
    }

    pub(crate) fn stats(&mut self) -> Vec<u32> {
        [0x10, 0x18, 0x14, 0x34, 0x3C, 0x50, 0x44, 0x48, 0x40]
            .map(|offset| self.h.read(0xF00 + offset))
            .to_vec()
    }

    pub(crate) fn remove(mut self) -> Host {
        if !self.down {
            self.down();
        }
        let command = self.h.config(4);
        self.h.set_config(4, command & !0x4);
        self.h.tick();
        self.h
    }
}
