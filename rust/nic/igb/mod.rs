// SPDX-License-Identifier: GPL-2.0

//! Intel's gigabit family with VMDq: 82576.
//!
//! All of it acts on one port (one PCI function). The caller serializes what touches registers
//! that pools share (filters, enables); what belongs to one queue or one vector needs no lock.

mod hal;
mod init;
mod irq;
mod phy;
mod port;
mod queue;
mod regs;
mod stats;
mod vmdq;

pub(crate) use self::stats::PortStats;
pub(super) use self::{
    irq::Routing,
    port::Port,
    vmdq::Acceptance, //
};

use sluice_core::addr::PoolId;

/// Index of a hardware queue that belongs to a pool: pool n uses queue n of each direction.
#[inline(always)]
fn queue(pool: PoolId) -> usize {
    // The mask lets the compiler see that it is in bounds.
    pool.index() & (regs::POOLS - 1)
}
