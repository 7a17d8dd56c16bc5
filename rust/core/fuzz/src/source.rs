// SPDX-License-Identifier: GPL-2.0

//! What a slice may send (invariant 9), against a plain reading of the rule.

use sluice_core::check::Rejection;
use sluice_core::net::MacAddr;
use sluice_core::source::{
    MacList,
    SourceRules,
    VlanList,
    VlanPolicy,
    HEAD_BYTES, //
};

use crate::ops;

/// Tags in a row that are looked at, the one that the NIC inserts left out.
const TAGS: usize = 4;

/// The rule, from the bytes as they will be on the wire.
pub fn reference(
    bytes: &[u8],
    inserted: Option<u16>,
    rules: &SourceRules,
) -> Result<(), Rejection> {
    let mut wire = bytes.to_vec();
    wire.resize(bytes.len().max(60), 0);
    let mut most = TAGS;
    if let Some(tag) = inserted {
        let [high, low] = tag.to_be_bytes();
        wire.splice(12..12, [0x81, 0x00, high, low]);
        most += 1;
    }
    let own = [rules.mac];
    let mut macs = own.iter().chain(rules.more_macs.as_slice());
    if !macs.any(|mac| wire[6..12] == mac.bytes()) {
        return Err(Rejection::SpoofedSource);
    }
    if wire.starts_with(&[0x01, 0x80, 0xc2, 0, 0, 1]) {
        return Err(Rejection::MacControl);
    }
    if wire.starts_with(&[0x01, 0x80, 0xc2, 0, 0]) && wire[5] >> 4 == 0 && !rules.link_local {
        return Err(Rejection::LinkLocal);
    }
    if wire.starts_with(&[0xff; 6]) && !rules.broadcast {
        return Err(Rejection::BroadcastNotAllowed);
    }
    let word = |at: usize| u16::from_be_bytes([wire[at], wire[at + 1]]);
    for nth in 0..most {
        let at = 12 + 4 * nth;
        match word(at) {
            0x8808 => return Err(Rejection::MacControl),
            0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => {}
            _ => return Ok(()),
        }
        let vid = word(at + 2) % 4096;
        let member = match &rules.vlans {
            VlanPolicy::Any => true,
            VlanPolicy::Port(_) => false,
            VlanPolicy::None => nth == 0 && vid == 0,
            VlanPolicy::Only(list) => nth == 0 && (vid == 0 || list.as_slice().contains(&vid)),
        };
        if !member {
            return Err(Rejection::VlanNotAllowed);
        }
    }
    Ok(())
}

/// Bytes before the frame: policy, VLANs of the list, tag to insert.
pub const PREFIX: usize = 8;

/// One rule and one frame: the code's verdict is the reference's.
pub fn run(data: &[u8]) {
    let Some((prefix, frame)) = data.split_first_chunk::<PREFIX>() else {
        return;
    };
    let [which, insert, t0, t1, v0, v1, v2, v3] = *prefix;
    let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
    let inserted = (insert & 1 != 0).then_some(u16::from_be_bytes([t0, t1]));
    let mut list = VlanList::EMPTY;
    for vid in [[v0, v1], [v2, v3]].map(u16::from_le_bytes) {
        let legal = (1..=4094).contains(&vid);
        match list.with(vid) {
            Some(longer) => {
                assert!(legal && longer.as_slice().contains(&vid));
                list = longer;
            }
            None => assert!(!legal),
        }
    }
    let vlans = match which % 4 {
        0 => VlanPolicy::Any,
        1 => VlanPolicy::None,
        2 => VlanPolicy::Port(5),
        _ => VlanPolicy::Only(list),
    };
    let mut head = [0; HEAD_BYTES];
    let len = frame.len().min(HEAD_BYTES);
    head[..len].copy_from_slice(&frame[..len]);
    if which & 0x80 == 0 {
        // Past the first rule.
        head[6..12].copy_from_slice(&mac.bytes());
    }
    let rules = SourceRules {
        mac,
        more_macs: match insert & 2 {
            0 => MacList::EMPTY,
            _ => MacList::EMPTY.with(MacAddr::new([2; 6])).expect("legal"),
        },
        vlans,
        broadcast: insert & 4 == 0,
        link_local: insert & 8 != 0,
    };
    let verdict = rules.check(&head, inserted);
    assert_eq!(verdict, reference(&head, inserted, &rules));
    ops::count(1);
}
