// SPDX-License-Identifier: GPL-2.0

//! The transmit path.

/// Most bus-contiguous pieces, and so hardware data descriptors, in a packet. Linux's worst case
/// is 18 segments of 64 KiB in all that start and end anywhere: 16 + 2 * 18.
pub const MAX_PIECES: usize = 64;
