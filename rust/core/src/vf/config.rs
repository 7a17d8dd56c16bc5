// SPDX-License-Identifier: GPL-2.0

//! PCI configuration space.
//!
//! The layout is the 82576VF's as QEMU's `igbvf` device shows it: MSI-X at 0x70, PCI Express at
//! 0xA0, and like there no power management. Unlike a real virtual function, which borrows them
//! from its physical function, it has vendor and device IDs, BARs and a memory-space bit of its
//! own, since the VMM presents it as an ordinary device. The extended space is empty.

use super::counters::Refusal;
use super::irq::VECTORS;
use super::msix::{
    BAR3_LEN_BYTES,
    PBA_OFFSET, //
};
use super::regs::BAR0_LEN_BYTES;
use super::Width;

/// Length of configuration space in bytes.
pub const LEN_BYTES: u16 = 4096;

/// 8086:10ca.
const ID: u32 = 0x10CA_8086;
const SUBSYSTEM: u32 = ID;
/// Ethernet controller, revision 1.
const CLASS: u32 = 0x0200_0001;

/// 64 bits, prefetchable, as QEMU's `igbvf` has them.
const BAR_TYPE: u32 = 0xC;

/// Index of the 32-bit word at an offset.
const fn at(offset: usize) -> usize {
    offset / 4
}

const MSIX: usize = at(0x70);
const EXPRESS: usize = at(0xA0);
const DEVICE_CONTROL: usize = at(0xA8);

const BUS_MASTER: u32 = 1 << 2;
/// Memory space, bus master, parity, SERR, INTx disable.
const COMMAND: u32 = (1 << 1) | BUS_MASTER | (1 << 6) | (1 << 8) | (1 << 10);
/// A capability list exists.
const STATUS: u32 = 0x0010 << 16;

/// Initiate function level reset, in the device control register.
const FLR: u32 = 1 << 15;
/// Of the device control register; error reporting, relaxed order, payload and request sizes.
const DEVCTL: u32 = 0x7FFF & !((1 << 8) | (1 << 9) | (1 << 10));

/// Value after reset and writable bits of each 32-bit word of the first 256 bytes.
const SPACE: [(u32, u32); 64] = {
    let mut space = [(0, 0); 64];
    space[at(0x00)] = (ID, 0);
    space[at(0x04)] = (STATUS, COMMAND);
    space[at(0x08)] = (CLASS, 0);
    // Cache line size.
    space[at(0x0C)] = (0, 0xFF);
    space[at(0x10)] = (BAR_TYPE, !(BAR0_LEN_BYTES - 1));
    space[at(0x14)] = (0, u32::MAX);
    space[at(0x1C)] = (BAR_TYPE, !(BAR3_LEN_BYTES - 1));
    space[at(0x20)] = (0, u32::MAX);
    space[at(0x2C)] = (SUBSYSTEM, 0);
    // The first capability.
    space[at(0x34)] = (0x70, 0);
    // Interrupt line; the pin is 0: there is no INTx.
    space[at(0x3C)] = (0, 0xFF);

    // MSI-X, next at 0xA0; enable and function mask are writable. Table and pending bits in BAR3.
    space[MSIX] = (
        0x11 | (0xA0 << 8) | ((VECTORS as u32 - 1) << 16),
        0xC000 << 16,
    );
    space[MSIX + 1] = (3, 0);
    space[MSIX + 2] = (PBA_OFFSET | 3, 0);

    // PCI Express version 2, endpoint; last. Payload up to 512 bytes, role-based errors, FLR.
    space[EXPRESS] = (0x10 | (0x2 << 16), 0);
    space[EXPRESS + 1] = (0x2 | (1 << 15) | (1 << 28), 0);
    // Requests up to 512 bytes, relaxed order.
    space[DEVICE_CONTROL] = (0x2010, DEVCTL);
    // 2.5 GT/s, four lanes; capability, and status in the upper half.
    space[EXPRESS + 3] = (0x41, 0);
    space[EXPRESS + 4] = (0x41 << 16, 0);
    // Completion timeout: none to choose from, may be disabled.
    space[EXPRESS + 9] = (0x10, 0);
    space[EXPRESS + 10] = (0, 0x10);
    space
};

/// What a write to configuration space brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing but the values.
    None,
    /// Bus mastering was switched.
    BusMaster(bool),
    /// The guest asks for a function level reset.
    FunctionReset,
}

/// Configuration space.
#[derive(Clone, Debug)]
pub struct Config {
    words: [u32; SPACE.len()],
}

impl Config {
    /// As after power-on.
    pub const fn new() -> Self {
        let mut words = [0; SPACE.len()];
        let mut index = 0;
        while index < SPACE.len() {
            words[index] = SPACE[index].0;
            index += 1;
        }
        Self { words }
    }

    /// Whether the function may access memory and send interrupts.
    pub const fn bus_master(&self) -> bool {
        self.words[at(0x04)] & BUS_MASTER != 0
    }

    /// Reads `width` at any offset. A read past the end is answered with ones, as one that no
    /// device claims.
    pub fn read(&self, offset: u16, width: Width) -> Result<u32, Refusal> {
        let lanes = Lanes::new(offset, width)?;
        let pair =
            u64::from(self.word(lanes.index)) | (u64::from(self.word(lanes.index + 1)) << 32);
        Ok((pair >> lanes.shift) as u32 & width.mask())
    }

    /// Writes `width` at any offset.
    pub fn write(&mut self, offset: u16, width: Width, value: u32) -> Result<Effect, Refusal> {
        let lanes = Lanes::new(offset, width)?;
        let written = u64::from(width.mask()) << lanes.shift;
        let value = u64::from(value) << lanes.shift;
        let mut any = false;
        let was_master = self.bus_master();
        let mut flr = false;
        for (half, index) in (lanes.index..).take(2).enumerate() {
            let written = (written >> (32 * half)) as u32;
            let value = (value >> (32 * half)) as u32;
            flr |= index == DEVICE_CONTROL && value & written & FLR != 0;
            if let (Some(word), Some((_, writable))) = (self.words.get_mut(index), SPACE.get(index))
            {
                let mask = writable & written;
                *word = *word & !mask | value & mask;
                any |= written != 0 && *writable != 0;
            }
        }
        if flr {
            Ok(Effect::FunctionReset)
        } else if self.bus_master() != was_master {
            Ok(Effect::BusMaster(!was_master))
        } else if any {
            Ok(Effect::None)
        } else {
            Err(Refusal::ConfigReadOnly)
        }
    }

    fn word(&self, index: usize) -> u32 {
        self.words.get(index).copied().unwrap_or(0)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

/// Where an access lies: the first of at most two words, and how far into it.
struct Lanes {
    index: usize,
    shift: u32,
}

impl Lanes {
    fn new(offset: u16, width: Width) -> Result<Self, Refusal> {
        let end = u32::from(offset) + width.bytes();
        if end > u32::from(LEN_BYTES) {
            return Err(Refusal::ConfigOutOfRange);
        }
        Ok(Self {
            index: usize::from(offset / 4),
            shift: u32::from(offset % 4) * 8,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &Config, offset: u16, width: Width) -> u32 {
        config.read(offset, width).unwrap()
    }

    #[test]
    fn bars_tell_their_size() {
        let mut config = Config::new();
        for bar in [0x10, 0x1C] {
            config.write(bar, Width::Dword, u32::MAX).unwrap();
            config.write(bar + 4, Width::Dword, u32::MAX).unwrap();
            assert_eq!(read(&config, bar, Width::Dword), 0xFFFF_C00C);
            assert_eq!(read(&config, bar + 4, Width::Dword), u32::MAX);
            config.write(bar, Width::Dword, 0x1234_5678).unwrap();
            assert_eq!(read(&config, bar, Width::Dword), 0x1234_400C);
        }
        // The others do not exist.
        for bar in [0x18, 0x24, 0x30] {
            let refused = config.write(bar, Width::Dword, u32::MAX);
            assert_eq!(refused, Err(Refusal::ConfigReadOnly));
            assert_eq!(read(&config, bar, Width::Dword), 0);
        }
    }

    #[test]
    fn capabilities_form_a_list() {
        let config = Config::new();
        assert_ne!(read(&config, 6, Width::Word) & 0x10, 0);
        let mut found = [0; 2];
        let mut offset = read(&config, 0x34, Width::Byte) as u16;
        for id in &mut found {
            assert_eq!(offset % 4, 0);
            *id = read(&config, offset, Width::Byte);
            offset = read(&config, offset + 1, Width::Byte) as u16;
        }
        assert_eq!(found, [0x11, 0x10]);
        assert_eq!(offset, 0);
        // Three vectors; table and pending bits in BAR3.
        assert_eq!(read(&config, 0x72, Width::Word) & 0x7FF, 2);
        assert_eq!(read(&config, 0x74, Width::Dword), 3);
        assert_eq!(read(&config, 0x78, Width::Dword), 0x2003);
        // No extended capabilities.
        assert_eq!(read(&config, 0x100, Width::Dword), 0);
    }

    #[test]
    fn bus_mastering_is_told_once() {
        let mut config = Config::new();
        let on = Ok(Effect::BusMaster(true));
        assert_eq!(config.write(4, Width::Byte, 6), on);
        assert_eq!(config.write(4, Width::Word, 0x0406), Ok(Effect::None));
        // The upper half is status: zeros there change nothing.
        assert_eq!(config.write(6, Width::Word, 0xFFFF), Ok(Effect::None));
        assert!(config.bus_master());
        assert_eq!(read(&config, 4, Width::Dword), 0x0010_0406);
        let off = Ok(Effect::BusMaster(false));
        assert_eq!(config.write(3, Width::Dword, 0), off);
    }

    #[test]
    fn a_function_reset_is_asked_for_by_its_bit_alone() {
        let reset = Ok(Effect::FunctionReset);
        let mut config = Config::new();
        assert_eq!(config.write(0xA8, Width::Word, 0x8000), reset);
        assert_eq!(config.write(0xA9, Width::Byte, 0x80), reset);
        assert_eq!(config.write(0xA6, Width::Dword, 0x8000_0000), reset);
        let none = Ok(Effect::None);
        assert_eq!(config.write(0xA8, Width::Byte, 0x80), none);
        // Bits beyond the width are not written.
        assert_eq!(config.write(0xA8, Width::Byte, 0x8000), none);
        assert_eq!(config.write(0xAA, Width::Word, 0x8000), none);
        assert_eq!(read(&config, 0xA8, Width::Word) & 0x8000, 0);
    }

    #[test]
    fn the_end_is_the_end() {
        let config = Config::new();
        for (offset, width) in [
            (4094, Width::Dword),
            (4095, Width::Word),
            (4096, Width::Byte),
        ] {
            let past = config.read(offset, width);
            assert_eq!(past, Err(Refusal::ConfigOutOfRange));
        }
        assert_eq!(config.read(4092, Width::Dword), Ok(0));
        assert_eq!(config.read(4095, Width::Byte), Ok(0));
    }
}
