// SPDX-License-Identifier: GPL-2.0

//! The queue pair: its states, and what its registers say when it is enabled.

use super::counters::Refusal;
use super::regs::{
    File,
    Reg, //
};
use crate::addr::GuestAddr;
use crate::platform::RxLayout;

/// Longest ring: 4096 descriptors of 16 bytes.
pub const MAX_RING_LEN_BYTES: u32 = 4096 * 16;

/// A queue of the slice's only pair (number 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Transmit.
    Tx,
    /// Receive.
    Rx,
}

/// Where a queue stands between guest and host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// At rest; ENABLE reads as 0.
    Disabled,
    /// The guest asked for it, the host has not confirmed; ENABLE still reads as 0.
    Enabling,
    /// Running; ENABLE reads as 1.
    Enabled,
    /// The guest asked for it to stop, the host has not confirmed; ENABLE still reads as 1.
    Disabling,
}

impl QueueState {
    /// Whether ENABLE reads as one.
    pub const fn shows_enabled(self) -> bool {
        matches!(self, Self::Enabled | Self::Disabling)
    }
}

/// A transmit ring, as the registers named it when the queue was enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxRing {
    /// First descriptor; a multiple of 128.
    pub base: GuestAddr,
    /// A multiple of 128, at most [`MAX_RING_LEN_BYTES`]. The ring does not wrap around the end of
    /// the address space.
    pub len_bytes: u32,
}

/// A receive ring, as the registers named it when the queue was enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxRing {
    /// First descriptor; a multiple of 128.
    pub base: GuestAddr,
    /// As in [`TxRing`].
    pub len_bytes: u32,
    /// Buffer sizes. A header size other than zero means that headers are always split off.
    pub layout: RxLayout,
    /// Drop frames that find no descriptor, rather than hold up other pools.
    pub drop_enable: bool,
}

/// The transmit ring that the registers name now.
pub fn tx_ring(regs: &File) -> Result<TxRing, Refusal> {
    let (base, len_bytes) = ring(regs, [Reg::Tdbal, Reg::Tdbah, Reg::Tdlen, Reg::Tdh])?;
    Ok(TxRing { base, len_bytes })
}

/// The receive ring that the registers name now.
pub fn rx_ring(regs: &File) -> Result<RxRing, Refusal> {
    let (base, len_bytes) = ring(regs, [Reg::Rdbal, Reg::Rdbah, Reg::Rdlen, Reg::Rdh])?;
    let srrctl = regs.get(Reg::Srrctl, 0);
    Ok(RxRing {
        base,
        len_bytes,
        layout: layout(srrctl)?,
        drop_enable: srrctl >> 31 != 0,
    })
}

fn ring(regs: &File, [low, high, len, head]: [Reg; 4]) -> Result<(GuestAddr, u32), Refusal> {
    if regs.get(head, 0) != 0 {
        return Err(Refusal::HeadNotReset);
    }
    let base = GuestAddr::new(u64::from(regs.get(low, 0)) | u64::from(regs.get(high, 0)) << 32);
    let len_bytes = regs.get(len, 0);
    if len_bytes == 0 || len_bytes > MAX_RING_LEN_BYTES {
        return Err(Refusal::RingLength);
    }
    // The last byte must have an address.
    base.checked_add(u64::from(len_bytes - 1))
        .ok_or(Refusal::RingWraps)?;
    Ok((base, len_bytes))
}

/// SRRCTL (datasheet 8.10.2): packet buffer in KiB (6:0), header buffer in units of 64 bytes
/// (13:8), descriptor type (27:25).
fn layout(srrctl: u32) -> Result<RxLayout, Refusal> {
    const ONE_BUFFER: u32 = 1;
    const SPLIT_ALWAYS: u32 = 5;

    let packet_kib = srrctl & 0x7F;
    let header_bytes = ((srrctl >> 8 & 0x3F) * 64) as u16;
    if !(1..=16).contains(&packet_kib) {
        return Err(Refusal::RxBufferSize);
    }
    let header_bytes = match srrctl >> 25 & 0x7 {
        ONE_BUFFER => 0,
        SPLIT_ALWAYS if header_bytes == 0 => return Err(Refusal::RxBufferSize),
        SPLIT_ALWAYS => header_bytes,
        _ => return Err(Refusal::RxDescType),
    };
    Ok(RxLayout {
        packet_bytes: (packet_kib * 1024) as u16,
        header_bytes,
    })
}
