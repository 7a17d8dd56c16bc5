// SPDX-License-Identifier: GPL-2.0

//! Who owns which pool, and what it receives.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    }, //
};
use sluice_core::{
    addr::PoolId,
    net::MacAddr,
    platform::{
        self,
        HwError, //
    },
    pool::{
        Claims,
        FilterError,
        Filters,
        PoolRules,
        ADDRESS_SLOTS,
        VLAN_SLOTS, //
    },
    source::MacList, //
};

use super::{
    igb::{
        Acceptance,
        Port,
        PortStats, //
    },
    queue::{
        RxQueue,
        TxQueue, //
    },
    Nic, //
};

/// Longest frame of a pool that has asked for no more: 1500 bytes, header, VLAN tag, FCS.
const FRAME_DEFAULT_BYTES: u16 = 1522;
/// Longest frame that a pool may ask for (82576 datasheet 8.10, RLPML).
const FRAME_MAX_BYTES: u16 = 9728;

/// What the control lock guards.
pub(super) struct Control {
    claims: Claims,
    /// Pools that may receive.
    receiving: u8,
    /// Pools that may send.
    sending: u8,
    filters: Filters,
    rules: [PoolRules; PoolId::MAX],
    /// Pools that asked for all multicast.
    all_multicast: u8,
    frame_max: [u16; PoolId::MAX],
    stats: PortStats,
}

impl Control {
    /// No pool is claimed. `card` is the NIC's own address, which none of them gets.
    pub(super) fn new(card: MacAddr) -> Self {
        Self {
            claims: Claims::new(),
            receiving: 0,
            sending: 0,
            filters: Filters::new(Some(card)),
            rules: [PoolRules::DEFAULT; PoolId::MAX],
            all_multicast: 0,
            frame_max: [FRAME_DEFAULT_BYTES; PoolId::MAX],
            stats: PortStats::default(),
        }
    }

    /// Takes over what the port has counted, which is gone from its registers then; the totals.
    pub(super) fn add_stats(&mut self, port: &Port) -> PortStats {
        port.add_stats(&mut self.stats);
        self.stats
    }

    fn rules_of(&self, pool: PoolId) -> PoolRules {
        let rules = self.rules.get(pool.index());
        rules.copied().unwrap_or(PoolRules::DEFAULT)
    }

    /// Writes what is `pool`'s own: what it accepts beside its addresses, and what becomes of what it
    /// sends.
    fn apply_pool(&self, port: &Port, pool: PoolId) {
        if !port.is_present() {
            return;
        }
        let rules = self.rules_of(pool);
        let claimed = self.claims.has(pool);
        let frame_max = self.frame_max.get(pool.index()).copied();
        let what = Acceptance {
            frame_max_bytes: frame_max.unwrap_or(FRAME_DEFAULT_BYTES),
            multicast: self.filters.has_hashes(pool),
            all_multicast: self.all_multicast & bit(pool) != 0,
            broadcast: rules.broadcast,
            untagged: rules.port_vlan.is_none(),
        };
        port.accept(pool, claimed.then_some(what));
        port.set_port_vlan(pool, rules.port_vlan);
    }

    /// Forgets what the pool's guest asked for, and has the administrator's rules hold.
    fn reset_pool(&mut self, port: &Port, pool: PoolId, rules: &PoolRules) {
        if let Some(own) = self.rules.get_mut(pool.index()) {
            *own = *rules;
        }
        self.change(port, |filters| {
            filters.clear_guest(pool);
            // The first VLAN of a pool has its place in the table. VLAN 0 takes one entry for all
            // pools: to VLANs, frames that are tagged with a priority only are untagged.
            let _ = filters.set_vlan(pool, rules.port_vlan.unwrap_or(0), true);
        });
        self.all_multicast = with(self.all_multicast, pool, false);
        if let Some(frame_max) = self.frame_max.get_mut(pool.index()) {
            *frame_max = FRAME_DEFAULT_BYTES;
        }
        self.apply_pool(port, pool);
        self.apply_checked(port);
    }

    /// Writes whose frames the NIC checks.
    fn apply_checked(&self, port: &Port) {
        let unchecked = (0..).zip(&self.rules).filter(|(_, r)| !r.check_source);
        let unchecked = unchecked.fold(0, |mask, (index, _)| mask | 1u8 << (index & 7));
        if port.is_present() {
            port.set_checked_pools(!unchecked);
        }
    }

    /// Writes which pools may receive and send.
    fn apply_enabled(&self, port: &Port) {
        if port.is_present() {
            port.set_enabled_pools(self.receiving, self.sending);
        }
    }

    /// Writes all of it to a port that has just been set up.
    fn apply_all(&self, port: &Port, pools: impl Iterator<Item = PoolId>) {
        for index in 0..ADDRESS_SLOTS {
            port.set_address(index, self.filters.address_slot(index));
        }
        for (index, &word) in self.filters.hash_table().iter().enumerate() {
            port.set_hash_word(index, word);
        }
        for index in 0..VLAN_SLOTS {
            if let Some(slot) = self.filters.vlan_slot(index) {
                let word = usize::from(slot.vid >> 5);
                port.set_vlan_slot(index, Some(slot));
                port.set_vlan_word(word, self.filters.vlan_word(word));
            }
        }
        for pool in pools {
            self.apply_pool(port, pool);
        }
        self.apply_checked(port);
        self.apply_enabled(port);
    }

    /// Changes the filters by `change` and writes what is different now to the shared tables.
    fn change<R>(&mut self, port: &Port, change: impl FnOnce(&mut Filters) -> R) -> R {
        let hashes = self.filters.hash_table();
        let addresses: [_; ADDRESS_SLOTS] = core::array::from_fn(|i| self.filters.address_slot(i));
        let vlans: [_; VLAN_SLOTS] = core::array::from_fn(|i| self.filters.vlan_slot(i));
        let result = change(&mut self.filters);
        if !port.is_present() {
            return result;
        }
        // What goes first: an address that moves is never there twice.
        for removed in [true, false] {
            for (index, &old) in addresses.iter().enumerate() {
                let new = self.filters.address_slot(index);
                if old != new && new.is_none() == removed {
                    port.set_address(index, new);
                }
            }
        }
        let now = self.filters.hash_table();
        for (index, (&old, &new)) in hashes.iter().zip(&now).enumerate() {
            if old != new {
                port.set_hash_word(index, new);
            }
        }
        for (index, &old) in vlans.iter().enumerate() {
            let new = self.filters.vlan_slot(index);
            if old == new {
                continue;
            }
            // Frames of a VLAN pass the bitmap only while the entry that steers them is there.
            for slot in [old, new].into_iter().flatten() {
                let word = usize::from(slot.vid >> 5);
                match new {
                    None => port.set_vlan_word(word, self.filters.vlan_word(word)),
                    Some(_) => port.set_vlan_slot(index, new),
                }
                match new {
                    None => port.set_vlan_slot(index, new),
                    Some(_) => port.set_vlan_word(word, self.filters.vlan_word(word)),
                }
            }
        }
        result
    }
}

/// The pool's bit in a mask.
fn bit(pool: PoolId) -> u8 {
    1 << pool.index()
}

/// Holds a pool. The last one to let go of it stops and empties the pool.
pub(super) struct Lease {
    pub(super) nic: Arc<Nic>,
    pub(super) pool: PoolId,
    /// Queues that have been handed out and not come back.
    queues_out: Atomic<u32>,
    /// The pool is wanted back: its queues start no more.
    revoked: Atomic<bool>,
}

impl Lease {
    /// One of the queues has come back.
    pub(super) fn return_queue(&self) {
        self.queues_out.fetch_sub(1, Full);
    }

    /// Whether queues may start.
    pub(super) fn may_start(&self) -> Result<(), HwError> {
        if self.revoked.load(Relaxed) {
            return Err(HwError::Gone);
        }
        Ok(())
    }

    /// Lets the pool receive or not.
    pub(super) fn set_receiving(&self, on: bool) {
        let mut control = self.nic.control.lock();
        control.receiving = with(control.receiving, self.pool, on);
        control.apply_enabled(&self.nic.port);
    }

    /// Lets the pool send or not.
    pub(super) fn set_sending(&self, on: bool) {
        let mut control = self.nic.control.lock();
        control.sending = with(control.sending, self.pool, on);
        control.apply_enabled(&self.nic.port);
    }
}

/// `mask` with the pool's bit on or off.
fn with(mask: u8, pool: PoolId, on: bool) -> u8 {
    if on {
        mask | bit(pool)
    } else {
        mask & !bit(pool)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let pool = self.pool;
        let port = &self.nic.port;
        self.set_receiving(false);
        let rx = port.stop_rx(pool);
        let tx = port.stop_tx(pool);
        self.set_sending(false);

        let mut control = self.nic.control.lock();
        let at_rest = rx.and(tx);
        control.claims.release(pool, at_rest.is_ok());
        control.reset_pool(port, pool, &PoolRules::DEFAULT);
        control.change(port, |filters| filters.clear(pool));
        match at_rest {
            Ok(()) => {
                if let Some(rings) = self.nic.rings.get(pool.index()) {
                    rings.tx.clear();
                    rings.rx.clear();
                }
            }
            // The port has said that it is lost.
            Err(HwError::Gone) => {}
            Err(HwError::Timeout) => pr_err!(
                "{}: pool {} does not stop; it is out of use until the port is reset\n",
                self.nic.name(),
                pool.index()
            ),
        }
        if control.claims.wants_recovery() && port.is_present() {
            self.nic.recover(&mut control);
        }
    }
}

/// A pool that belongs to whoever holds this, its queues or its port.
pub(crate) struct PoolClaim(Arc<Lease>);

impl Nic {
    /// Claims a free pool. It has no address yet, and receives nothing until its queues run.
    ///
    /// `ENOSPC` when no pool is free.
    pub(crate) fn claim_pool(self: &Arc<Self>) -> Result<PoolClaim> {
        if !self.port.is_present() {
            return Err(ENODEV);
        }
        let pool = {
            let mut control = self.control.lock();
            let pool = control.claims.claim(self.pools()).ok_or(ENOSPC)?;
            control.reset_pool(&self.port, pool, &PoolRules::DEFAULT);
            pool
        };
        // If this fails, the lease is dropped, which undoes the above.
        let lease = Arc::new(
            Lease {
                nic: self.clone(),
                pool,
                queues_out: Atomic::new(0),
                revoked: Atomic::new(false),
            },
            GFP_KERNEL,
        )?;
        Ok(PoolClaim(lease))
    }

    /// Resets the port to get stuck pools back, now that nobody is hurt by it.
    fn recover(&self, control: &mut Control) {
        // The reset forgets it.
        control.add_stats(&self.port);
        if let Err(err) = self.set_up_again(control) {
            pr_err!("{}: the port does not recover: {err:?}\n", self.name());
            // What it is like now nobody knows.
            self.port.lose("the port does not recover");
            return;
        }
        for rings in &self.rings {
            rings.tx.clear();
            rings.rx.clear();
        }
        control.claims.recovered();
        pr_notice!("{}: the port was reset\n", self.name());
    }

    /// Resets the port and sets it up for the pools as they are. Nothing runs before or afterwards.
    fn set_up_again(&self, control: &Control) -> Result<(), HwError> {
        self.port.reset()?;
        self.port.configure()?;
        let pools = (0..self.pools()).filter_map(PoolId::new);
        control.apply_all(&self.port, pools);
        self.port.route_interrupts(self.routing)?;
        // The reset has masked what the worker takes for armed.
        self.mailbox.interrupted(u8::MAX);
        self.port.start_link()
    }

    /// `EBUSY` while somebody uses a pool: what his VMM set up would be lost with the power.
    pub(super) fn may_sleep(&self) -> Result {
        if !self.mailbox.is_in_use() {
            return Ok(());
        }
        pr_warn!("{}: slices are in use: no sleep\n", self.name());
        Err(EBUSY)
    }

    /// Puts the port to rest before the host sleeps. `EBUSY` while somebody uses a pool.
    pub(super) fn sleep(&self) -> Result {
        self.may_sleep()?;
        let mut control = self.control.lock();
        // The reset forgets it.
        control.add_stats(&self.port);
        match self.port.sleep() {
            Err(HwError::Timeout) => {
                // Half reset, and nobody wakes what did not fall asleep.
                self.port.lose("the port does not come to rest");
                Err(EIO)
            }
            // One that is gone is at rest.
            Ok(()) | Err(HwError::Gone) => Ok(()),
        }
    }

    /// Ends [`Self::sleep`]. A port that does not come back is lost.
    pub(super) fn wake(&self) {
        let control = self.control.lock();
        self.port.wake();
        if self.port.is_present() && self.set_up_again(&control).is_err() {
            self.port.lose("the port does not wake up");
        }
    }

    /// Pools that can be claimed.
    pub(crate) fn free_pools(&self) -> u32 {
        if !self.port.is_present() {
            return 0;
        }
        self.control.lock().claims.free(self.pools())
    }
}

impl PoolClaim {
    /// Which pool it is.
    pub(crate) fn pool(&self) -> PoolId {
        self.0.pool
    }

    /// The NIC that the pool is of.
    pub(crate) fn nic(&self) -> &Arc<Nic> {
        &self.0.nic
    }

    /// From now on the pool's queues do not start. Those that run are to be stopped by their owner.
    pub(crate) fn revoke(&self) {
        self.0.revoked.store(true, Relaxed);
    }

    /// The pool's queues, stopped. `EBUSY` while an earlier pair has not been dropped, `ENODEV` when
    /// the NIC is lost.
    pub(crate) fn queues(&self) -> Result<(TxQueue, RxQueue)> {
        if !self.0.nic.port.is_present() {
            return Err(ENODEV);
        }
        if self.0.queues_out.cmpxchg(0, 2, Full).is_err() {
            return Err(EBUSY);
        }
        let rings = self.0.nic.rings.get(self.0.pool.index()).ok_or(ENODEV)?;
        Ok((
            TxQueue::new(self.0.clone(), rings.tx.clone()),
            RxQueue::new(self.0.clone(), rings.rx.clone()),
        ))
    }

    /// The pool's filters and the port's state.
    pub(crate) fn port(&self) -> PoolPort {
        PoolPort(self.0.clone())
    }
}

/// A pool's filters and the port's state.
pub(crate) struct PoolPort(Arc<Lease>);

impl PoolPort {
    /// Replaces the addresses that the administrator gives the pool beside its own.
    pub(crate) fn set_more_macs(&mut self, list: &MacList) -> Result<(), FilterError> {
        let (nic, pool) = (&self.0.nic, self.0.pool);
        let mut control = nic.control.lock();
        control.change(&nic.port, |filters| filters.set_more_macs(pool, list))
    }
}

impl platform::Port for PoolPort {
    fn link(&self) -> Option<u16> {
        self.0.may_start().ok()?;
        self.0.nic.link()
    }

    fn set_mac(&mut self, mac: MacAddr) -> bool {
        let (nic, pool) = (&self.0.nic, self.0.pool);
        let mut control = nic.control.lock();
        let done = control.change(&nic.port, |filters| filters.set_mac(pool, mac));
        done.is_ok()
    }

    fn set_multicast(&mut self, hashes: &[u16]) -> bool {
        let (nic, pool) = (&self.0.nic, self.0.pool);
        let mut control = nic.control.lock();
        let done = control.change(&nic.port, |filters| filters.set_hashes(pool, hashes));
        control.apply_pool(&nic.port, pool);
        done.is_ok()
    }

    fn set_vlan(&mut self, vid: u16, on: bool) -> bool {
        let (nic, pool) = (&self.0.nic, self.0.pool);
        let mut control = nic.control.lock();
        control
            .change(&nic.port, |filters| filters.set_vlan(pool, vid, on))
            .is_ok()
    }

    fn set_max_frame(&mut self, len_bytes: u16) -> bool {
        if len_bytes > FRAME_MAX_BYTES {
            return false;
        }
        let (nic, pool) = (&self.0.nic, self.0.pool);
        let mut control = nic.control.lock();
        if let Some(frame_max) = control.frame_max.get_mut(pool.index()) {
            *frame_max = len_bytes.max(FRAME_DEFAULT_BYTES);
        }
        control.apply_pool(&nic.port, pool);
        true
    }

    fn replace_mac(&mut self, old: Option<MacAddr>, new: Option<MacAddr>) -> bool {
        let (nic, pool) = (&self.0.nic, self.0.pool);
        let mut control = nic.control.lock();
        let done = control.change(&nic.port, |filters| filters.replace_mac(pool, old, new));
        done.is_ok()
    }

    fn set_all_multicast(&mut self, on: bool) {
        let (nic, pool) = (&self.0.nic, self.0.pool);
        let mut control = nic.control.lock();
        control.all_multicast = with(control.all_multicast, pool, on);
        control.apply_pool(&nic.port, pool);
    }

    fn reset_filters(&mut self, rules: &PoolRules) {
        let (nic, pool) = (&self.0.nic, self.0.pool);
        let mut control = nic.control.lock();
        control.reset_pool(&nic.port, pool, rules);
    }
}
