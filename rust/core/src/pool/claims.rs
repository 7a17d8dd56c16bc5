// SPDX-License-Identifier: GPL-2.0

//! Who has which pool.

use crate::addr::PoolId;

/// Who has a pool, and which pools nobody can have.
#[derive(Debug, Default)]
pub struct Claims {
    /// Claimed pools, one bit each.
    claimed: u8,
    /// Pools whose queues did not stop: the NIC may still use their memory, so nobody gets them.
    stuck: u8,
}

impl Claims {
    /// All pools are free.
    pub const fn new() -> Self {
        Self {
            claimed: 0,
            stuck: 0,
        }
    }

    /// The free ones of a NIC with `pools` pools.
    fn free_of(&self, pools: u8) -> impl Iterator<Item = PoolId> {
        let taken = self.claimed | self.stuck;
        (0..pools)
            .filter_map(PoolId::new)
            .filter(move |pool| taken >> pool.index() & 1 == 0)
    }

    /// Claims the first free pool.
    pub fn claim(&mut self, pools: u8) -> Option<PoolId> {
        let pool = self.free_of(pools).next()?;
        self.claimed |= 1 << pool.index();
        Some(pool)
    }

    /// Gives a pool back; for nobody unless its queues are known to have `stopped`.
    pub fn release(&mut self, pool: PoolId, stopped: bool) {
        let bit = 1 << pool.index();
        self.claimed &= !bit;
        if !stopped {
            self.stuck |= bit;
        }
    }

    /// Whether somebody has the pool.
    pub const fn has(&self, pool: PoolId) -> bool {
        self.claimed >> pool.index() & 1 != 0
    }

    /// Number of pools that can be claimed.
    pub fn free(&self, pools: u8) -> u32 {
        self.free_of(pools).map(|_| 1).sum()
    }

    /// Whether a reset of the port would bring pools back, and hurt nobody.
    pub const fn wants_recovery(&self) -> bool {
        self.stuck != 0 && self.claimed == 0
    }

    /// The port was reset: the NIC uses nobody's memory.
    pub fn recovered(&mut self) {
        self.stuck = 0;
    }
}
