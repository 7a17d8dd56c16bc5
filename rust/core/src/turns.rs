// SPDX-License-Identifier: GPL-2.0

//! Whose turn it is: how a worker divides its time among the pools of a NIC (invariant 10).
//!
//! The worker goes in rounds. A round gives one turn to each pool that has something to do, and a
//! turn ends after [`BUDGET`] guest descriptors of each direction, whatever is left. So a pool that
//! has something to do waits for two turns of each other pool at most: one in the round that is under
//! way, and one in the next. Rounds begin with another pool each time, so that none is always last.

use crate::addr::PoolId;
use crate::slice::Polled;

/// Most guest descriptors of each direction in one turn.
pub const BUDGET: u16 = 128;

/// Pools, one bit each.
pub type PoolMask = u8;

/// What turns are made of.
pub trait Pools {
    /// Whoever has a pool.
    type Owner;
    /// Who has `pool`, if anybody.
    fn owner(&mut self, pool: PoolId) -> Option<Self::Owner>;
    /// Has the owner take at most `budget` new descriptors of each direction.
    fn poll(&mut self, owner: &Self::Owner, budget: u16) -> Polled;
    /// Forgets what `pool` has signalled so far.
    fn acknowledge(&mut self, pool: PoolId);
    /// Lets `pool` interrupt again, at once if something came since [`Self::acknowledge`].
    fn arm(&mut self, pool: PoolId);
}

/// What the worker remembers between rounds.
pub struct Turns {
    /// Pools that said there is more to do.
    busy: PoolMask,
    /// Pools whose interrupt can fire.
    armed: PoolMask,
    /// When each pool wants to be looked at again.
    deadlines_ns: [Option<u64>; PoolId::MAX],
    /// The pool that is first in the next round.
    first: usize,
}

impl Turns {
    /// Nobody has anything to do; all interrupts are masked.
    pub const fn new() -> Self {
        Self {
            busy: 0,
            armed: 0,
            deadlines_ns: [None; PoolId::MAX],
            first: 0,
        }
    }

    /// The interrupts of `pools` have fired, and are masked now.
    pub fn fired(&mut self, pools: PoolMask) {
        self.armed &= !pools;
    }

    /// The pools that have something to do at `now_ns`; `events`: those to which something happened.
    pub fn due(&self, events: PoolMask, now_ns: u64) -> PoolMask {
        let mut due = self.busy | events;
        for (index, deadline_ns) in self.deadlines_ns.iter().enumerate() {
            if deadline_ns.is_some_and(|at| at <= now_ns) {
                due |= 1 << index;
            }
        }
        due
    }

    /// When a pool wants to be looked at although nothing happens to it.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.deadlines_ns.iter().flatten().min().copied()
    }

    /// Gives each pool in `due` one turn.
    pub fn round<P: Pools>(&mut self, due: PoolMask, pools: &mut P) {
        for turn in 0..PoolId::MAX {
            let index = (self.first + turn) % PoolId::MAX;
            let Some(pool) = u8::try_from(index).ok().and_then(PoolId::new) else {
                continue;
            };
            if due >> index & 1 != 0 {
                self.turn(pool, pools);
            }
        }
        self.first = (self.first + 1) % PoolId::MAX;
    }

    fn turn<P: Pools>(&mut self, pool: PoolId, pools: &mut P) {
        let bit: PoolMask = 1 << pool.index();
        let Some(owner) = pools.owner(pool) else {
            // Nobody's interrupt stays masked until there is an owner, who has the worker told.
            self.settle(pool, Polled::default());
            return;
        };
        let mut polled = pools.poll(&owner, BUDGET);
        if !polled.more && self.armed & bit == 0 {
            // What the poll above has seen need not interrupt again; what comes after the
            // acknowledgement is seen by the poll below or interrupts once armed. The turn's budget
            // may be used up, so that the second poll only looks.
            pools.acknowledge(pool);
            polled = pools.poll(&owner, 0);
            if !polled.more {
                pools.arm(pool);
                self.armed |= bit;
            }
        }
        self.settle(pool, polled);
    }

    fn settle(&mut self, pool: PoolId, polled: Polled) {
        let bit: PoolMask = 1 << pool.index();
        if polled.more {
            self.busy |= bit;
        } else {
            self.busy &= !bit;
        }
        if let Some(deadline_ns) = self.deadlines_ns.get_mut(pool.index()) {
            *deadline_ns = polled.deadline_ns;
        }
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self::new()
    }
}
