// SPDX-License-Identifier: GPL-2.0

//! What a slice may send as (invariant 9): its own address, its VLANs, nothing that is for bridges.

use crate::check::Rejection;
use crate::net::MacAddr;

/// First bytes of a frame that a check looks at: addresses, tags, type.
pub const HEAD_BYTES: usize = 32;
/// Most tags that are looked through.
const MAX_TAGS: usize = 4;
/// EtherType of MAC control, which is to say of PAUSE (IEEE 802.3, 31A).
const MAC_CONTROL: u16 = 0x8808;
/// Addresses that bridges keep for themselves end in 00 to 0f after these (IEEE 802.1Q, 8.6.3).
const BRIDGE_GROUP: [u8; 5] = [0x01, 0x80, 0xc2, 0x00, 0x00];

/// Up to 32 VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanList {
    vids: [u16; Self::MAX],
    count: usize,
}

impl VlanList {
    /// Most VLANs in a list.
    pub const MAX: usize = 32;

    /// A list without VLANs.
    pub const EMPTY: Self = Self {
        vids: [0; Self::MAX],
        count: 0,
    };

    /// Adds a VLAN, from 1 to 4094; `None` for others and where the list is full.
    pub fn with(mut self, vid: u16) -> Option<Self> {
        if !(1..=4094).contains(&vid) {
            return None;
        }
        if !self.as_slice().contains(&vid) {
            *self.vids.get_mut(self.count)? = vid;
            self.count += 1;
        }
        Some(self)
    }

    /// The VLANs, as they were added.
    pub fn as_slice(&self) -> &[u16] {
        self.vids.get(..self.count).unwrap_or(&[])
    }
}

/// VLANs that a guest may join and send into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanPolicy {
    /// None: untagged frames only.
    None,
    /// Any, also several tags in a frame.
    Any,
    /// These.
    Only(VlanList),
}

impl VlanPolicy {
    /// Whether a tag with this VLAN may be sent. VLAN 0 is a priority, not a VLAN.
    pub fn permits(&self, vid: u16) -> bool {
        match self {
            Self::Any => true,
            Self::None => vid == 0,
            Self::Only(list) => vid == 0 || list.as_slice().contains(&vid),
        }
    }
}

/// What the frames of a slice must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRules {
    /// Their source address.
    pub mac: MacAddr,
    /// Their VLANs.
    pub vlans: VlanPolicy,
}

impl SourceRules {
    /// Judges a frame by its first bytes, which nobody changes any more; zero where it is shorter, as
    /// the NIC pads it. `inserted` is the tag that the NIC puts in front of its type.
    pub fn check(&self, head: &[u8; HEAD_BYTES], inserted: Option<u16>) -> Result<(), Rejection> {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, rest @ ..] = head;
        if [*s0, *s1, *s2, *s3, *s4, *s5] != self.mac.bytes() {
            return Err(Rejection::SpoofedSource);
        }
        if [*d0, *d1, *d2, *d3, *d4] == BRIDGE_GROUP && *d5 < 0x10 {
            return Err(Rejection::MacControl);
        }
        if let Some(tag) = inserted {
            self.check_tag(tag)?;
        }
        let mut inside = inserted.is_some();
        // The type, or what a tag says and the type after it.
        for words in rest.chunks_exact(4).take(MAX_TAGS) {
            let [t0, t1, g0, g1] = words else {
                break;
            };
            let kind = u16::from_be_bytes([*t0, *t1]);
            if kind == MAC_CONTROL {
                return Err(Rejection::MacControl);
            }
            if !is_tag(kind) {
                break;
            }
            // A switch may go by a tag within a tag, and so past the one that was checked.
            if inside && self.vlans != VlanPolicy::Any {
                return Err(Rejection::VlanNotAllowed);
            }
            self.check_tag(u16::from_be_bytes([*g0, *g1]))?;
            inside = true;
        }
        Ok(())
    }

    fn check_tag(&self, tag: u16) -> Result<(), Rejection> {
        if self.vlans.permits(tag & 0xfff) {
            Ok(())
        } else {
            Err(Rejection::VlanNotAllowed)
        }
    }
}

/// EtherTypes that announce a VLAN tag: 802.1Q, 802.1ad, and those used before it.
const fn is_tag(kind: u16) -> bool {
    matches!(kind, 0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);

    fn head(dst: [u8; 6], src: [u8; 6], rest: &[u16]) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..6].copy_from_slice(&dst);
        head[6..12].copy_from_slice(&src);
        for (i, word) in rest.iter().enumerate() {
            head[12 + 2 * i..][..2].copy_from_slice(&word.to_be_bytes());
        }
        head
    }

    #[test]
    fn rules() {
        use Rejection::*;
        let list = VlanList::EMPTY.with(5).and_then(|l| l.with(4094)).unwrap();
        let policies = [VlanPolicy::None, VlanPolicy::Any, VlanPolicy::Only(list)];
        let own = MAC.bytes();
        let all = [Ok(()), Ok(()), Ok(())];
        let vlan = Err(VlanNotAllowed);
        for (dst, src, rest, inserted, expected) in [
            ([0xff; 6], own, &[0x0800][..], None, all),
            ([2; 6], own, &[0x0800], Some(0xe000), all),
            (
                [2; 6],
                [2, 0, 0, 0, 0, 2],
                &[0x0800],
                None,
                [Err(SpoofedSource); 3],
            ),
            (
                [2; 6],
                [3, 0, 0, 0, 0, 1],
                &[0x0800],
                None,
                [Err(SpoofedSource); 3],
            ),
            ([2; 6], own, &[0x8808], None, [Err(MacControl); 3]),
            (
                [1, 0x80, 0xc2, 0, 0, 0xe],
                own,
                &[0x88cc],
                None,
                [Err(MacControl); 3],
            ),
            ([1, 0x80, 0xc2, 0, 0, 0x10], own, &[0x0800], None, all),
            ([2; 6], own, &[0x8100, 0xe000, 0x0800], None, all),
            (
                [2; 6],
                own,
                &[0x8100, 5, 0x0800],
                None,
                [vlan, Ok(()), Ok(())],
            ),
            (
                [2; 6],
                own,
                &[0x88a8, 6, 0x0800],
                None,
                [vlan, Ok(()), vlan],
            ),
            ([2; 6], own, &[0x0800], Some(5), [vlan, Ok(()), Ok(())]),
            ([2; 6], own, &[0x0800], Some(6), [vlan, Ok(()), vlan]),
            // A tag within a tag, whichever way.
            (
                [2; 6],
                own,
                &[0x8100, 5, 0x8100, 5],
                None,
                [vlan, Ok(()), vlan],
            ),
            (
                [2; 6],
                own,
                &[0x8100, 0, 0x9100, 0],
                None,
                [vlan, Ok(()), vlan],
            ),
            ([2; 6], own, &[0x8100, 5], Some(5), [vlan, Ok(()), vlan]),
            (
                [2; 6],
                own,
                &[0x8100, 0, 0x8808],
                None,
                [Err(MacControl); 3],
            ),
        ] {
            for (vlans, expected) in policies.into_iter().zip(expected) {
                let rules = SourceRules { mac: MAC, vlans };
                let head = head(dst, src, rest);
                assert_eq!(rules.check(&head, inserted), expected, "{vlans:?} {head:?}");
            }
        }
    }

    #[test]
    fn lists_are_short() {
        assert_eq!(VlanList::EMPTY.with(0), None);
        assert_eq!(VlanList::EMPTY.with(4095), None);
        let mut list = VlanList::EMPTY;
        for vid in (1..=32).chain(1..=32) {
            list = list.with(vid).unwrap();
        }
        assert_eq!(list.as_slice().len(), 32);
        assert_eq!(list.with(33), None);
        assert!(VlanPolicy::Only(list).permits(32) && !VlanPolicy::Only(list).permits(33));
    }
}
