// SPDX-License-Identifier: GPL-2.0

//! Interrupts: vector n for pool n, the last one for the link.

use kernel::{
    io::{
        register::Array,
        Io, //
    },
    prelude::*, //
};
use sluice_core::{
    addr::PoolId,
    platform::HwError, //
};

use super::{
    port::Port,
    regs, //
};

/// Set in an IVAR byte that names a vector.
const VALID: u8 = 0x80;

/// What a vector stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nic) struct VectorUse {
    /// Pools, one bit each.
    pub(in crate::nic) pools: u8,
    /// Link changes and all else that is no queue's.
    pub(in crate::nic) link: bool,
}

impl VectorUse {
    /// Whether it stands for one pool and nothing else.
    pub(in crate::nic) fn is_exclusive(self) -> bool {
        self.pools.is_power_of_two() && !self.link
    }
}

/// Which vector serves whom.
#[derive(Clone, Copy)]
pub(in crate::nic) struct Routing {
    pools: u8,
    vectors: u8,
}

impl Routing {
    /// Spreads `pools` over `vectors`, of which there is at least one: the last is the link's, the
    /// others are the pools' in turn; a single one is everybody's.
    pub(in crate::nic) fn new(pools: u8, vectors: u8) -> Self {
        Self {
            pools,
            vectors: vectors.clamp(1, 25),
        }
    }

    /// The vector of a pool.
    pub(in crate::nic) fn pool_vector(self, pool: PoolId) -> u8 {
        let for_pools = self.vectors.saturating_sub(1).max(1);
        (pool.index() % usize::from(for_pools)) as u8
    }

    /// The vector of the link.
    pub(in crate::nic) fn link_vector(self) -> u8 {
        self.vectors - 1
    }

    /// What vector `vector` stands for.
    pub(in crate::nic) fn vector_use(self, vector: u8) -> VectorUse {
        let pools = (0..self.pools)
            .filter_map(PoolId::new)
            .filter(|&pool| self.pool_vector(pool) == vector)
            .fold(0, |mask, pool| mask | 1 << pool.index());
        VectorUse {
            pools,
            link: vector == self.link_vector(),
        }
    }

    /// All vectors, one bit each.
    fn all(self) -> u32 {
        u32::MAX >> (32 - u32::from(self.vectors))
    }
}

impl Port {
    /// No interrupt of any kind.
    pub(super) fn mask_all(&self) {
        self.bar.write_reg(regs::IMC::from(u32::MAX));
        self.bar.write_reg(regs::EIMC::from(u32::MAX));
    }

    /// As [`Self::mask_all`], and none is on its way when this returns.
    pub(in crate::nic) fn silence(&self) {
        if self.is_present() {
            self.mask_all();
            // Writes are posted; reading waits for them, and interrupts come before the answer.
            let _ = self.check(self.bar.read(regs::STATUS));
        }
    }

    /// Routes queues and link to vectors. The link's is enabled, the pools' are armed one by one.
    pub(in crate::nic) fn route_interrupts(&self, routing: Routing) -> Result<(), HwError> {
        self.present()?;
        self.bar.write_reg(
            regs::GPIE::zeroed()
                .with_pba_support(true)
                .with_eiame(true)
                .with_multiple_msix(true)
                .with_nsicr(true),
        );
        self.bar.write_reg(regs::IAM::zeroed());
        // A vector's cause clears and the vector masks itself when it fires.
        self.bar.write_reg(regs::EIAC::from(routing.all()));
        self.bar.write_reg(regs::EIAM::from(routing.all()));
        // Moderation is the worker's and the slice's; a reset does not clear these.
        for vector in 0..regs::EITRS {
            if let Some(at) = regs::EITR::try_at(vector) {
                self.bar.write(at, regs::EITR::zeroed());
            }
        }
        for pool in (0..routing.pools).filter_map(PoolId::new) {
            self.hal
                .route_queues(&self.bar, pool.index(), routing.pool_vector(pool));
        }
        self.bar
            .write_reg(regs::IVAR_MISC::zeroed().with_other(routing.link_vector() | VALID));
        self.bar.write_reg(regs::IMS::zeroed().with_lsc(true));
        self.unmask(routing.link_vector());
        self.check(self.bar.read(regs::STATUS)).map(|_| ())
    }

    /// Lets a vector fire. A cause that came while it was masked makes it fire at once.
    pub(in crate::nic) fn unmask(&self, vector: u8) {
        self.bar.write_reg(regs::EIMS::from(1 << (vector & 31)));
    }

    /// Keeps a vector from firing. Callable from interrupt context.
    ///
    /// The chip does so by itself (EIAM); QEMU's does not.
    pub(in crate::nic) fn mask(&self, vector: u8) {
        self.bar.write_reg(regs::EIMC::from(1 << (vector & 31)));
    }

    /// Forgets a vector's cause. Not for interrupt context.
    pub(in crate::nic) fn clear_cause(&self, vector: u8) {
        self.bar.write_reg(regs::EICR::from(1 << (vector & 31)));
        // The write is posted: until it has arrived, it could take a cause that comes after the
        // caller has looked at the queues. Reading waits for it, and for earlier write-backs.
        let _ = self.check(self.bar.read(regs::STATUS));
    }

    /// Takes note of link and other causes, so that the next one interrupts. Returns whether the
    /// link has changed; a port that is gone says so, too.
    pub(in crate::nic) fn acknowledge_link(&self) -> bool {
        self.bar.read(regs::ICR).lsc().into_bool()
    }
}
