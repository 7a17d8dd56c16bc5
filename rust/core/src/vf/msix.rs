// SPDX-License-Identifier: GPL-2.0

//! BAR3: the MSI-X table and its pending bits.
//!
//! The VMM keeps the table that counts and programs the host through VFIO. What is stored here is
//! only what the guest would read back; nothing is ever sent to these addresses (invariant 6).

use super::counters::Refusal;
use super::irq::VECTORS;

/// Length of BAR3 in bytes.
pub const BAR3_LEN_BYTES: u32 = 0x4000;
/// Offset of the pending bits.
pub const PBA_OFFSET: u32 = 0x2000;

const ENTRY_WORDS: usize = 4;
const WORDS: usize = VECTORS as usize * ENTRY_WORDS;

/// Writable bits of an entry's words: address low and high, data, and the mask bit.
const MASKS: [u32; ENTRY_WORDS] = [!0x3, u32::MAX, u32::MAX, 1];

/// The table.
#[derive(Clone, Debug)]
pub struct Msix {
    words: [u32; WORDS],
}

impl Msix {
    /// All vectors masked.
    pub const fn new() -> Self {
        Self {
            words: [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1],
        }
    }

    /// Reads 32 bits at `offset`, a multiple of 4. The pending bits read as zero.
    pub fn read(&self, offset: u32) -> Result<u32, Refusal> {
        match self.words.get((offset / 4) as usize) {
            Some(word) => Ok(*word),
            None if offset & !0x4 == PBA_OFFSET => Ok(0),
            None => Err(Refusal::MsixOutOfRange),
        }
    }

    /// Writes 32 bits at `offset`, a multiple of 4.
    pub fn write(&mut self, offset: u32, value: u32) -> Result<(), Refusal> {
        let index = (offset / 4) as usize;
        let mask = MASKS.get(index % ENTRY_WORDS);
        match (self.words.get_mut(index), mask) {
            (Some(word), Some(mask)) => {
                *word = value & mask;
                Ok(())
            }
            _ if offset & !0x4 == PBA_OFFSET => Err(Refusal::ReadOnly),
            _ => Err(Refusal::MsixOutOfRange),
        }
    }
}

impl Default for Msix {
    fn default() -> Self {
        Self::new()
    }
}
