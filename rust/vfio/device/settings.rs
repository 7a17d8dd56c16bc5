// SPDX-License-Identifier: GPL-2.0

//! What an administrator sees of a slice, and sets: nothing here waits for its VMM without bound.

use kernel::{
    current,
    prelude::*,
    sync::atomic::Relaxed,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use sluice_core::{
    addr::{
        PoolId,
        PAGE_SIZE, //
    },
    handover::{
        Door as _,
        Held, //
    },
    map::Strategy,
    net::MacAddr,
    platform::Port as _,
    pool::FilterError,
    slice::{
        self,
        MacPolicy,
        Policy,
        Slice, //
    },
    source::MacList, //
};

use super::{
    KernelPlatform,
    SliceDev,
    State, //
};
use crate::sys::time::now_ns;

/// The administrator's choice: room for full shadow rings at least, 24 bits of pages at most.
const PINNED_BYTES_MIN: u64 = 8 << 20;
const PINNED_BYTES_MAX: u64 = 64 << 30;

/// How often, and how far apart, the lock is tried for an administrator: for a second or more.
const LOCK_TRIES: u32 = 2000;
const LOCK_STEP: Delta = Delta::from_micros(500);

impl SliceDev {
    /// Takes the slice's lock for an administrator, who must not wait for a VMM that never answers:
    /// `EBUSY` if somebody has it for long, `EINTR` on a signal.
    fn lock_briefly(&self) -> Result<Held<'_, Self>> {
        for _ in 0..LOCK_TRIES {
            if let Some(state) = self.enter_if_free() {
                return Ok(state);
            }
            // Whoever came before has waited, and the same holder is still there.
            if self.held_long.load(Relaxed) {
                return Err(EBUSY);
            }
            if current!().signal_pending() {
                return Err(EINTR);
            }
            fsleep(LOCK_STEP);
        }
        self.held_long.store(true, Relaxed);
        // If the holder went before it could see that, this takes it back.
        self.enter_if_free().ok_or(EBUSY)
    }

    /// Looks at the slice, without changing it. Fails as [`Self::lock_briefly`] does.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&Slice<KernelPlatform>) -> R) -> Result<R> {
        Ok(look(&self.lock_briefly()?.slice))
    }

    /// Interrupts that were left to the slice's helper since the slice was made.
    pub(crate) fn interrupts_deferred(&self) -> u64 {
        self.irqs.deferred()
    }

    /// The pool that the slice has.
    pub(crate) fn pool(&self) -> PoolId {
        self.pool
    }

    /// Gives the slice another address. `EBUSY` while it is open, `EINVAL` where no station can
    /// have it, `EADDRNOTAVAIL` where another slice of the NIC has it.
    pub(crate) fn set_mac(&self, mac: MacAddr) -> Result {
        if !mac.is_valid_station() {
            return Err(EINVAL);
        }
        let mut state = self.lock_briefly()?;
        let State { slice, claim, .. } = &mut **state;
        let claim = claim.as_ref().ok_or(ENODEV)?;
        if slice.state() != slice::State::Closed {
            return Err(EBUSY);
        }
        let listed = matches!(slice.policy().macs, MacPolicy::Also(list) if list.contains(mac));
        if listed || !claim.port().set_mac(mac) {
            return Err(EADDRNOTAVAIL);
        }
        slice.set_mac(mac).map_err(|slice::Busy| EBUSY)
    }

    /// Changes which addresses the slice may have beside its own. `EBUSY` while it is open,
    /// `EADDRNOTAVAIL` where another slice of the NIC has one, `ENOSPC` where the NIC has no
    /// filters left for them.
    pub(crate) fn set_macs(&self, macs: MacPolicy) -> Result {
        let mut state = self.lock_briefly()?;
        let State { slice, claim, .. } = &mut **state;
        let claim = claim.as_ref().ok_or(ENODEV)?;
        if slice.state() != slice::State::Closed {
            return Err(EBUSY);
        }
        let list = match macs {
            // It would not be there any more when the slice got another address.
            MacPolicy::Also(list) if list.contains(slice.mac()) => return Err(EADDRNOTAVAIL),
            MacPolicy::Also(list) => list,
            MacPolicy::Own | MacPolicy::Any => MacList::EMPTY,
        };
        let done = claim.port().set_more_macs(&list);
        done.map_err(|error| match error {
            FilterError::AddressTableFull => ENOSPC,
            FilterError::AddressTaken => EADDRNOTAVAIL,
            _ => EINVAL,
        })?;
        let policy = Policy {
            macs,
            ..*slice.policy()
        };
        slice.set_policy(policy).map_err(|slice::Busy| EBUSY)
    }

    /// Changes what the guest may ask for and send. `EBUSY` while the slice is open.
    pub(crate) fn change_policy(&self, change: impl FnOnce(&mut Policy)) -> Result {
        let mut state = self.lock_briefly()?;
        let mut policy = *state.slice.policy();
        change(&mut policy);
        state.slice.set_policy(policy).map_err(|slice::Busy| EBUSY)
    }

    /// Changes how long the guest's pages stay pinned, at any time.
    pub(crate) fn set_strategy(&self, strategy: Strategy) -> Result {
        let state = self.lock_briefly()?;
        // The VMM can keep VFIO from unpinning: the helper waits for it, and before the worker has its turn.
        self.pins.make_room(state.slice.map_stats().entries())?;
        self.want_help(&state);
        let changed = self.change_held(state, |slice| {
            self.pins.hastily(|| slice.set_strategy(strategy, now_ns()))
        });
        self.kick();
        changed.map_err(|slice::NoMemory| ENOMEM)?;
        for _ in 0..LOCK_TRIES {
            if self.pins.is_settled() || current!().signal_pending() {
                break;
            }
            fsleep(LOCK_STEP);
        }
        // Whoever unpins has the lock.
        let _ = self.lock_briefly();
        Ok(())
    }

    /// Most bytes that the slice keeps pinned for packets.
    pub(crate) fn pinned_bytes_max(&self) -> Result<u64> {
        Ok(self.lock_briefly()?.pinned_bytes_max)
    }

    /// Changes [`Self::pinned_bytes_max`], which is rounded down to pages. `EBUSY` while the slice
    /// is open, `ERANGE` below what the shadow rings can hold or above 64 GiB.
    pub(crate) fn set_pinned_bytes_max(&self, bytes: u64) -> Result {
        if !(PINNED_BYTES_MIN..=PINNED_BYTES_MAX).contains(&bytes) {
            return Err(ERANGE);
        }
        let mut state = self.lock_briefly()?;
        if state.slice.state() != slice::State::Closed {
            return Err(EBUSY);
        }
        state.pinned_bytes_max = bytes & !(PAGE_SIZE - 1);
        Ok(())
    }
}
