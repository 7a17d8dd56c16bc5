// SPDX-License-Identifier: GPL-2.0

//! What a guest may ask for through the mailbox.

use super::open::Open;
use crate::net::MacAddr;
use crate::platform::Platform;
use crate::pool::PoolRules;
use crate::source::{
    MacList,
    SourceRules,
    VlanPolicy, //
};
use crate::vf::{
    mailbox::MAX_HASHES,
    Refusal,
    Request, //
};

/// Longest frame that the 82576 receives (datasheet 1.3: 9.5 KB jumbo frames), with FCS.
pub(super) const MAX_FRAME_BYTES: u16 = 9728;

/// Addresses that a guest may have beside the slice's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacPolicy {
    /// None.
    Own,
    /// What it asks for and no other slice has. An `igb` PF calls such a guest trusted.
    Any,
    /// These: it receives for them and sends from them, whether it asks or not.
    Also(MacList),
}

/// The administrator's rules for a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Addresses that the guest may have.
    pub macs: MacPolicy,
    /// VLANs that the guest may join. Untagged frames it sends and receives either way.
    pub vlans: VlanPolicy,
    /// Most multicast hashes that the guest may have, up to [`Self::MULTICAST_MAX`].
    pub multicast_max: u8,
    /// The guest may receive all multicast.
    pub all_multicast: bool,
    /// The guest receives and sends broadcast.
    pub broadcast: bool,
    /// The guest may send to the addresses that bridges keep for themselves, save PAUSE.
    pub link_local: bool,
    /// The guest's frames are checked: for their source, their VLANs, and what they are for
    /// (invariant 9). If not, it sends anything.
    pub check_source: bool,
}

impl Policy {
    /// As many hashes as one message carries.
    pub const MULTICAST_MAX: u8 = MAX_HASHES;

    /// The rules for the frames of a slice with the address `mac`, whose guest has been granted
    /// `granted` beside it.
    pub(super) fn source_rules(&self, mac: MacAddr, granted: MacList) -> Option<SourceRules> {
        self.check_source.then_some(SourceRules {
            mac,
            more_macs: match self.macs {
                MacPolicy::Own => MacList::EMPTY,
                MacPolicy::Any => granted,
                MacPolicy::Also(list) => list,
            },
            vlans: self.vlans,
            broadcast: self.broadcast,
            link_local: self.link_local,
        })
    }

    /// What the NIC is to do by itself.
    pub(super) fn pool_rules(&self) -> PoolRules {
        PoolRules {
            port_vlan: self.vlans.inserted(),
            broadcast: self.broadcast,
            check_source: self.check_source,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            macs: MacPolicy::Own,
            vlans: VlanPolicy::Any,
            multicast_max: Self::MULTICAST_MAX,
            all_multicast: false,
            broadcast: true,
            link_local: false,
            check_source: true,
        }
    }
}

/// Does what the request asks, if the policy allows it. `Err` says why not; an `igb` PF would refuse
/// it as well.
pub(super) fn answer<P: Platform>(
    policy: &Policy,
    mac: MacAddr,
    request: Request,
    open: &mut Open<P>,
) -> Result<(), Refusal> {
    match request {
        Request::Reset => {
            open.reset_filters(mac, policy);
            Ok(())
        }
        Request::SetMac(wanted) => grant_mac(policy, mac, wanted, open, Open::choose_mac),
        Request::AddMacFilter(wanted) => grant_mac(policy, mac, wanted, open, Open::add_mac),
        Request::ClearMacFilters => {
            open.clear_macs();
            open.set_source(policy.source_rules(mac, open.granted_macs()));
            Ok(())
        }
        Request::SetMulticast(hashes) => {
            let hashes = hashes.as_slice();
            let allowed = hashes.len() <= usize::from(policy.multicast_max);
            require(
                allowed && open.set_multicast(hashes),
                Refusal::MulticastLimit,
            )
        }
        // VLAN 0 is a priority tag, not a VLAN: nothing to join or to leave.
        Request::SetVlan { vid: 0, .. } => Ok(()),
        Request::SetVlan { vid, on: true } => {
            require(policy.vlans.permits(vid), Refusal::VlanJoinDenied)?;
            require(open.set_vlan(vid, true), Refusal::VlanUnavailable)
        }
        // The NIC's tag is not the guest's to take off.
        Request::SetVlan { vid, on: false } => {
            let own = policy.vlans.inserted().is_none();
            require(own && open.set_vlan(vid, false), Refusal::VlanJoinDenied)
        }
        Request::SetMaxFrame(len_bytes) => require(
            len_bytes <= MAX_FRAME_BYTES && open.set_max_frame(len_bytes),
            Refusal::FrameLimit,
        ),
        Request::SetPromisc { unicast, multicast } => {
            let allowed = !unicast && (policy.all_multicast || !multicast);
            require(allowed, Refusal::PromiscDenied)?;
            open.set_all_multicast(multicast);
            Ok(())
        }
        // The model answers these by itself.
        Request::Unknown(_) => Err(Refusal::MailboxUnknown),
    }
}

/// Gives the guest an address by `grant`, if the policy leaves it a choice.
fn grant_mac<P: Platform>(
    policy: &Policy,
    own: MacAddr,
    wanted: MacAddr,
    open: &mut Open<P>,
    grant: impl FnOnce(&mut Open<P>, MacAddr, MacAddr) -> bool,
) -> Result<(), Refusal> {
    match policy.macs {
        // It has them: nothing to do, and to ask is no offence.
        MacPolicy::Own => require(wanted == own, Refusal::MacNotAllowed),
        MacPolicy::Also(list) => require(
            wanted == own || list.contains(wanted),
            Refusal::MacNotAllowed,
        ),
        MacPolicy::Any => {
            require(grant(open, own, wanted), Refusal::MacUnavailable)?;
            open.set_source(policy.source_rules(own, open.granted_macs()));
            Ok(())
        }
    }
}

fn require(condition: bool, otherwise: Refusal) -> Result<(), Refusal> {
    if condition {
        Ok(())
    } else {
        Err(otherwise)
    }
}
