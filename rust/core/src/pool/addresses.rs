// SPDX-License-Identifier: GPL-2.0

//! Which pool receives for which address.

use super::shares::has_share;
use super::FilterError;
use crate::addr::PoolId;
use crate::net::MacAddr;
use crate::source::MacList;

/// Address filters that all pools share (RAL and RAH, 82576 datasheet 8.10).
pub const ADDRESS_SLOTS: usize = 24;
/// Filters beside its own address that each pool has for certain. The others are for who comes first.
pub const MORE_MACS_EACH: usize = 1;

/// Filters that are nobody's own address.
const MORE_SLOTS: usize = ADDRESS_SLOTS - PoolId::MAX;

/// One address filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSlot {
    /// The address.
    pub mac: MacAddr,
    /// The pool that has it.
    pub pool: PoolId,
}

/// Who asked for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Administrator,
    Guest,
}

/// All address filters. The first ones are the pools' own addresses, in the pools' order.
#[derive(Clone)]
pub(super) struct Addresses {
    slots: [Option<(AddressSlot, By)>; ADDRESS_SLOTS],
    /// The card's own address, which no pool gets.
    card: Option<MacAddr>,
}

impl Addresses {
    pub(super) const fn new(card: Option<MacAddr>) -> Self {
        Self {
            slots: [None; ADDRESS_SLOTS],
            card,
        }
    }

    pub(super) fn slot(&self, index: usize) -> Option<AddressSlot> {
        self.slots
            .get(index)
            .copied()
            .flatten()
            .map(|(slot, _)| slot)
    }

    /// The pool's own address.
    pub(super) fn own(&self, pool: PoolId) -> Option<MacAddr> {
        self.slot(pool.index()).map(|slot| slot.mac)
    }

    fn has(&self, pool: PoolId, mac: MacAddr) -> bool {
        let slot = AddressSlot { mac, pool };
        self.slots.iter().flatten().any(|(other, _)| *other == slot)
    }

    /// Whether the pool might have the address.
    fn check(&self, pool: PoolId, mac: MacAddr) -> Result<(), FilterError> {
        if !mac.is_valid_station() {
            return Err(FilterError::BadAddress);
        }
        let mut others = self.slots.iter().flatten();
        let taken = others.any(|(slot, _)| slot.mac == mac && slot.pool != pool);
        if taken || self.card == Some(mac) {
            return Err(FilterError::AddressTaken);
        }
        Ok(())
    }

    /// Replaces the pool's own address.
    pub(super) fn set_own(&mut self, pool: PoolId, mac: MacAddr) -> Result<(), FilterError> {
        self.check(pool, mac)?;
        // It need not be there twice.
        self.retain(|slot, _| slot != AddressSlot { mac, pool });
        if let Some(slot) = self.slots.get_mut(pool.index()) {
            *slot = Some((AddressSlot { mac, pool }, By::Administrator));
        }
        Ok(())
    }

    /// Replaces the further addresses that the administrator gives the pool. Nothing changes on
    /// an error.
    pub(super) fn set_listed(&mut self, pool: PoolId, list: &MacList) -> Result<(), FilterError> {
        let mut next = self.clone();
        next.retain(|slot, by| slot.pool != pool || by != By::Administrator);
        for &mac in list.as_slice() {
            next.add(pool, mac, By::Administrator)?;
        }
        *self = next;
        Ok(())
    }

    /// Takes `old` from the pool, if its guest had asked for it, and gives it `new`, as its guest
    /// asks. Nothing changes on an error.
    pub(super) fn replace(
        &mut self,
        pool: PoolId,
        old: Option<MacAddr>,
        new: Option<MacAddr>,
    ) -> Result<(), FilterError> {
        let mut next = self.clone();
        if let Some(mac) = old {
            next.retain(|slot, by| by != By::Guest || slot != AddressSlot { mac, pool });
        }
        if let Some(mac) = new {
            next.add(pool, mac, By::Guest)?;
        }
        *self = next;
        Ok(())
    }

    fn add(&mut self, pool: PoolId, mac: MacAddr, by: By) -> Result<(), FilterError> {
        self.check(pool, mac)?;
        if self.has(pool, mac) {
            return Ok(());
        }
        let mut held = [0; PoolId::MAX];
        for (slot, _) in self.slots.iter().skip(PoolId::MAX).flatten() {
            if let Some(count) = held.get_mut(slot.pool.index()) {
                *count += 1;
            }
        }
        let shared = MORE_SLOTS - MORE_MACS_EACH * PoolId::MAX;
        let most = held.get(pool.index()).is_some_and(|n| *n >= MacList::MAX);
        let mut more = self.slots.iter_mut().skip(PoolId::MAX);
        match more.find(|slot| slot.is_none()) {
            Some(slot) if !most && has_share(&held, pool, MORE_MACS_EACH, shared) => {
                *slot = Some((AddressSlot { mac, pool }, by));
                Ok(())
            }
            _ => Err(FilterError::AddressTableFull),
        }
    }

    /// Keeps those further addresses that `keep` says.
    fn retain(&mut self, keep: impl Fn(AddressSlot, By) -> bool) {
        for slot in self.slots.iter_mut().skip(PoolId::MAX) {
            *slot = slot.filter(|(address, by)| keep(*address, *by));
        }
    }

    /// Forgets what the pool's guest asked for.
    pub(super) fn clear_guest(&mut self, pool: PoolId) {
        self.retain(|slot, by| slot.pool != pool || by != By::Guest);
    }

    /// Removes every trace of the pool.
    pub(super) fn clear(&mut self, pool: PoolId) {
        self.retain(|slot, _| slot.pool != pool);
        if let Some(slot) = self.slots.get_mut(pool.index()) {
            *slot = None;
        }
    }
}
