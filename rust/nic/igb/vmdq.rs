// SPDX-License-Identifier: GPL-2.0

//! Pools: who receives what, and who may send (82576 datasheet 7.10.3, 8.14).
//!
//! Pool n uses address filter n. The caller holds the NIC's control lock.

use kernel::{
    io::{
        register::Array,
        Io, //
    },
    prelude::*, //
};
use sluice_core::{
    addr::PoolId,
    pool::{
        AddressSlot,
        VlanSlot,
        TABLE_WORDS, //
    }, //
};

use super::{
    port::Port,
    queue,
    regs, //
};

/// What a pool accepts beside its addresses.
#[derive(Clone, Copy)]
pub(in crate::nic) struct Acceptance {
    /// Longest frame in bytes, with VLAN tag and FCS.
    pub(in crate::nic) frame_max_bytes: u16,
    /// Multicast that the shared hash table lets through.
    pub(in crate::nic) multicast: bool,
    /// All multicast.
    pub(in crate::nic) all_multicast: bool,
    /// Broadcast.
    pub(in crate::nic) broadcast: bool,
    /// Frames without a VLAN tag.
    pub(in crate::nic) untagged: bool,
}

/// Address filters in the first of the two tables.
const LOWER_FILTERS: usize = 16;

impl Port {
    /// No pool receives or sends anything, and every filter is empty.
    pub(super) fn deny_all(&self) {
        self.bar.write_reg(regs::VFRE::zeroed());
        self.bar.write_reg(regs::VFTE::zeroed());
        for i in 0..16 {
            self.bar.write(regs::RAH::at(i & 15), regs::RAH::zeroed());
            self.bar.write(regs::RAL::at(i & 15), regs::RAL::zeroed());
        }
        for i in 0..8 {
            self.bar
                .write(regs::RAH_UPPER::at(i & 7), regs::RAH_UPPER::zeroed());
            self.bar
                .write(regs::RAL_UPPER::at(i & 7), regs::RAL_UPPER::zeroed());
            self.bar
                .write(regs::VMOLR::at(i & 7), regs::VMOLR::zeroed());
            self.bar
                .write(regs::VMVIR::at(i & 7), regs::VMVIR::zeroed());
            self.bar.write(regs::ETQF::at(i & 7), regs::ETQF::zeroed());
        }
        for i in 0..32 {
            self.bar.write(regs::VLVF::at(i & 31), regs::VLVF::zeroed());
        }
        for i in 0..TABLE_WORDS {
            self.bar.write(regs::MTA::at(i & 127), regs::MTA::zeroed());
            self.bar.write(regs::UTA::at(i & 127), regs::UTA::zeroed());
            self.bar
                .write(regs::VFTA::at(i & 127), regs::VFTA::zeroed());
        }
    }

    /// Steers by pool, drops what is for nobody, and switches between pools.
    pub(super) fn enable_vmdq(&self) {
        self.bar.write_reg(
            regs::VT_CTL::zeroed()
                .with_replication(true)
                .with_disable_default_pool(true),
        );
        // Frames for several pools are treated as frames for one (see `accept`).
        self.bar
            .write_reg(regs::RPLOLR::zeroed().with_strcrc(true).with_strvlan(true));
        self.hal.enable_switch(&self.bar, u8::MAX);
        self.bar
            .write_reg(regs::MRQC::zeroed().with_const_mode::<3>());
    }

    /// Sets or removes address filter `index`.
    pub(in crate::nic) fn set_address(&self, index: usize, slot: Option<AddressSlot>) {
        let [a, b, c, d, e, f] = slot.map_or([0; 6], |slot| slot.mac.bytes());
        let low = u32::from_le_bytes([a, b, c, d]);
        let high = slot.map_or(regs::RAH::zeroed(), |slot| {
            regs::RAH::zeroed()
                .with_av(true)
                .with_pools(1u8 << queue(slot.pool))
                .with_addr(u16::from_le_bytes([e, f]))
        });
        // Never valid while it holds half an address.
        if index < LOWER_FILTERS {
            let at = index & 15;
            self.bar.write(regs::RAH::at(at), regs::RAH::zeroed());
            self.bar.write(regs::RAL::at(at), regs::RAL::from(low));
            self.bar.write(regs::RAH::at(at), high);
        } else {
            let (at, high) = (index & 7, regs::RAH_UPPER::from(high.into_raw()));
            self.bar
                .write(regs::RAH_UPPER::at(at), regs::RAH_UPPER::zeroed());
            self.bar
                .write(regs::RAL_UPPER::at(at), regs::RAL_UPPER::from(low));
            self.bar.write(regs::RAH_UPPER::at(at), high);
        }
    }

    /// Has the NIC put every frame of the pool into a VLAN, or leaves tags to the descriptors.
    pub(in crate::nic) fn set_port_vlan(&self, pool: PoolId, vid: Option<u16>) {
        let vmvir = match vid {
            None => regs::VMVIR::zeroed(),
            Some(vid) => regs::VMVIR::zeroed().with_const_action::<1>().with_tag(vid),
        };
        self.bar.write(regs::VMVIR::at(queue(pool)), vmvir);
    }

    /// Has the NIC itself check where frames of these pools come from.
    pub(in crate::nic) fn set_checked_pools(&self, pools: u8) {
        self.hal.enable_switch(&self.bar, pools);
    }

    /// Sets what the pool accepts, or nothing.
    ///
    /// VLAN membership only adds to untagged frames, where these are accepted. A frame with a tag
    /// reaches the members of its VLAN only, since RCTL.VFE is on.
    pub(in crate::nic) fn accept(&self, pool: PoolId, what: Option<Acceptance>) {
        let vmolr = match what {
            None => regs::VMOLR::zeroed(),
            Some(what) => regs::VMOLR::zeroed()
                .with_strcrc(true)
                .with_strvlan(true)
                .with_mpe(what.all_multicast)
                .with_bam(what.broadcast)
                .with_aupe(what.untagged)
                .with_rompe(what.multicast)
                .with_lpe(true)
                .try_with_rlpml(u32::from(what.frame_max_bytes))
                .unwrap_or(regs::VMOLR::zeroed()),
        };
        self.bar.write(regs::VMOLR::at(queue(pool)), vmolr);
    }

    /// Writes word `index` of the shared multicast hash table.
    pub(in crate::nic) fn set_hash_word(&self, index: usize, word: u32) {
        self.bar
            .write(regs::MTA::at(index & 127), regs::MTA::from(word));
    }

    /// Writes entry `index` of the VLAN table.
    pub(in crate::nic) fn set_vlan_slot(&self, index: usize, slot: Option<VlanSlot>) {
        let vlvf = match slot {
            None => regs::VLVF::zeroed(),
            Some(slot) => regs::VLVF::zeroed()
                .with_vi_en(true)
                .with_pools(slot.pools)
                .try_with_vid(u32::from(slot.vid))
                .unwrap_or(regs::VLVF::zeroed()),
        };
        self.bar.write(regs::VLVF::at(index & 31), vlvf);
    }

    /// Writes word `index` of the VLAN bitmap.
    pub(in crate::nic) fn set_vlan_word(&self, index: usize, word: u32) {
        self.bar
            .write(regs::VFTA::at(index & 127), regs::VFTA::from(word));
    }

    /// Sets which pools may receive and which may send.
    pub(in crate::nic) fn set_enabled_pools(&self, receive: u8, transmit: u8) {
        self.bar.write_reg(regs::VFRE::zeroed().with_pools(receive));
        self.bar
            .write_reg(regs::VFTE::zeroed().with_pools(transmit));
    }
}
