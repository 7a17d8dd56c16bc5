// SPDX-License-Identifier: GPL-2.0

//! What a guest may ask for through the mailbox.

use super::open::Open;
use crate::net::MacAddr;
use crate::platform::Platform;
use crate::source::{
    SourceRules,
    VlanPolicy, //
};
use crate::vf::{
    Reply,
    Request, //
};

/// Longest frame that the 82576 receives (datasheet 1.3: 9.5 KB jumbo frames), with FCS.
pub(super) const MAX_FRAME_BYTES: u16 = 9728;

/// The administrator's rules for a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// VLANs that the guest may join. Untagged frames it sends and receives either way.
    pub vlans: VlanPolicy,
    /// The guest's frames are checked for their source, their VLANs and what is for bridges alone
    /// (invariant 9). If not, it sends anything.
    pub check_source: bool,
}

impl Policy {
    /// The rules for the frames of a slice with the address `mac`.
    pub(super) fn source_rules(&self, mac: MacAddr) -> Option<SourceRules> {
        self.check_source.then_some(SourceRules {
            mac,
            vlans: self.vlans,
        })
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            vlans: VlanPolicy::Any,
            check_source: true,
        }
    }
}

/// Does what the request asks, if the policy allows it, and answers as an `igb` PF would.
pub(super) fn answer<P: Platform>(
    policy: &Policy,
    mac: MacAddr,
    request: Request,
    open: &mut Open<P>,
) -> Reply {
    let granted = match request {
        Request::Reset => {
            open.reset_filters(mac);
            true
        }
        // The address is the administrator's (invariant 9); to ask for it is no offence.
        Request::SetMac(wanted) => wanted == mac,
        Request::ClearMacFilters => true,
        Request::AddMacFilter(_) => false,
        Request::SetMulticast(hashes) => open.set_multicast(hashes.as_slice()),
        // VLAN 0 is a priority tag, not a VLAN: nothing to join or to leave.
        Request::SetVlan { vid: 0, .. } => true,
        Request::SetVlan { vid, on } => {
            (policy.vlans.permits(vid) || !on) && open.set_vlan(vid, on)
        }
        Request::SetMaxFrame(len_bytes) => {
            len_bytes <= MAX_FRAME_BYTES && open.set_max_frame(len_bytes)
        }
        Request::SetPromisc { multicast } => !multicast,
        Request::Unknown(_) => false,
    };
    if granted {
        Reply::Ack
    } else {
        Reply::Nack
    }
}
