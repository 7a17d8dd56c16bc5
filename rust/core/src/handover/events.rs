// SPDX-License-Identifier: GPL-2.0

//! What can happen to a worker.

use crate::addr::PoolId;
use crate::turns::PoolMask;

/// What has happened since the worker last looked, as [`super::Pending`] holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events(u64);

impl Events {
    /// The link's interrupt has fired.
    pub const LINK: Self = Self(1 << 16);

    /// Events as [`super::Pending::take`] gave them.
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// There is work for `pool`.
    pub const fn kicked(pool: PoolId) -> Self {
        Self(1 << pool.index())
    }

    /// The interrupt of `pools` has fired, and is masked.
    pub const fn interrupted(pools: PoolMask) -> Self {
        Self((pools as u64) << 8)
    }

    /// Pools with an event of either kind.
    pub const fn pools(self) -> PoolMask {
        (self.0 | self.0 >> 8) as PoolMask
    }

    /// Pools whose interrupt has fired, and is therefore masked.
    pub const fn fired(self) -> PoolMask {
        (self.0 >> 8) as PoolMask
    }

    /// Whether [`Self::LINK`] is among them.
    pub const fn has_link(self) -> bool {
        self.0 & Self::LINK.0 != 0
    }
}
