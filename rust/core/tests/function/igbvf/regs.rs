// SPDX-License-Identifier: GPL-2.0

//! The driver's names for what it touches.

pub(crate) const CTRL: u32 = 0x0000;
pub(crate) const STATUS: u32 = 0x0008;
pub(crate) const VMBMEM: u32 = 0x0800;
pub(crate) const V2PMAILBOX: u32 = 0x0C40;
pub(crate) const EICS: u32 = 0x1520;
pub(crate) const EIMS: u32 = 0x1524;
pub(crate) const EIMC: u32 = 0x1528;
pub(crate) const EIAC: u32 = 0x152C;
pub(crate) const EIAM: u32 = 0x1530;
pub(crate) const EICR: u32 = 0x1580;
pub(crate) const EITR: u32 = 0x1680;
pub(crate) const IVAR0: u32 = 0x1700;
pub(crate) const IVAR_MISC: u32 = 0x1740;
pub(crate) const RX: u32 = 0x2800;
pub(crate) const TX: u32 = 0x3800;
// Offsets from RX and TX.
pub(crate) const BAL: u32 = 0x00;
pub(crate) const BAH: u32 = 0x04;
pub(crate) const LEN: u32 = 0x08;
pub(crate) const SRRCTL: u32 = 0x0C;
pub(crate) const HEAD: u32 = 0x10;
pub(crate) const DCA: u32 = 0x14;
pub(crate) const TAIL: u32 = 0x18;
pub(crate) const DCTL: u32 = 0x28;

pub(crate) const ENABLE: u32 = 1 << 25;
pub(crate) const ACK: u32 = 1 << 31;
pub(crate) const NACK: u32 = 1 << 30;
pub(crate) const CTS: u32 = 1 << 29;

pub(crate) const VEC_TX: u8 = 0;
pub(crate) const VEC_RX: u8 = 1;
pub(crate) const VEC_OTHER: u8 = 2;
