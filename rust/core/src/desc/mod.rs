// SPDX-License-Identifier: GPL-2.0

//! The 82576's advanced descriptors.
//!
//! Two levels per format: [`RawDesc`] is a private copy of what a guest wrote and says nothing; the
//! parsed types can hold only what the model names. `parse` leads from one to the other and says
//! which rule was broken; `emit` makes the words that the NIC reads, from host-made values only.

pub mod rx;
pub mod tx;

/// Bytes in a descriptor of any kind.
pub const DESC_BYTES: u16 = 16;

/// One descriptor, copied once out of guest memory (invariant 4).
///
/// Not `Clone`, and parsing consumes it: a decision made on this copy is made on no other.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct RawDesc([u64; 2]);

impl RawDesc {
    /// Takes a copy of 16 bytes, as two little-endian words.
    pub const fn copied(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// The second word, which tells the kind and the commands; for fault reports.
    pub const fn command_word(&self) -> u64 {
        self.0[1]
    }
}

/// Bits `low..low + width` of `word`.
const fn field(word: u64, low: u32, width: u32) -> u64 {
    (word >> low) & ((1 << width) - 1)
}

/// Whether bit `bit` of `word` is set.
const fn flag(word: u64, bit: u32) -> bool {
    (word >> bit) & 1 != 0
}

/// `bit` set where `on`.
const fn set(on: bool, bit: u32) -> u64 {
    (on as u64) << bit
}
