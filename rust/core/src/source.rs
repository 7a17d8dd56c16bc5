// SPDX-License-Identifier: GPL-2.0

//! What a slice may send as (invariant 9): its own addresses, its VLANs, nothing that is for bridges.

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
/// The last byte of the one of them that PAUSE goes to.
const PAUSE_LAST: u8 = 0x01;

/// Up to 8 addresses of stations.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacList {
    macs: [MacAddr; Self::MAX],
    count: usize,
}

impl MacList {
    /// Most addresses in a list.
    pub const MAX: usize = 8;

    /// A list without addresses.
    pub const EMPTY: Self = Self {
        macs: [MacAddr::new([0; 6]); Self::MAX],
        count: 0,
    };

    /// Adds an address; `None` where no station can have it, and where the list is full.
    pub fn with(mut self, mac: MacAddr) -> Option<Self> {
        if !mac.is_valid_station() {
            return None;
        }
        if !self.contains(mac) {
            *self.macs.get_mut(self.count)? = mac;
            self.count += 1;
        }
        Some(self)
    }

    /// Leaves an address out.
    pub fn without(self, mac: MacAddr) -> Self {
        let rest = self.as_slice().iter().filter(|other| **other != mac);
        rest.fold(Self::EMPTY, |list, other| list.with(*other).unwrap_or(list))
    }

    /// The addresses, as they were added.
    pub fn as_slice(&self) -> &[MacAddr] {
        self.macs.get(..self.count).unwrap_or(&[])
    }

    /// Whether the address is in the list.
    pub fn contains(&self, mac: MacAddr) -> bool {
        self.as_slice().contains(&mac)
    }
}

impl core::fmt::Debug for MacList {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.as_slice().fmt(f)
    }
}

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
    /// This one, without the guest's knowledge: the NIC tags what it sends, and takes the tag off
    /// what it receives. The guest's own frames have no tags, not even one of priority only.
    Port(u16),
}

impl VlanPolicy {
    /// [`Self::Port`] for a VLAN from 1 to 4094.
    pub fn port(vid: u16) -> Option<Self> {
        (1..=4094).contains(&vid).then_some(Self::Port(vid))
    }

    /// The VLAN that the NIC puts the guest's frames into.
    pub const fn inserted(&self) -> Option<u16> {
        match self {
            Self::Port(vid) => Some(*vid),
            _ => None,
        }
    }

    /// Whether a tag with this VLAN may be sent. VLAN 0 is a priority, not a VLAN.
    pub fn permits(&self, vid: u16) -> bool {
        match self {
            Self::Any => true,
            Self::None => vid == 0,
            Self::Only(list) => vid == 0 || list.as_slice().contains(&vid),
            Self::Port(_) => false,
        }
    }
}

/// What the frames of a slice must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRules {
    /// Their source address.
    pub mac: MacAddr,
    /// Others that they may have.
    pub more_macs: MacList,
    /// Their VLANs.
    pub vlans: VlanPolicy,
    /// They may go to everybody.
    pub broadcast: bool,
    /// They may go to the addresses that bridges keep for themselves, save that of PAUSE.
    pub link_local: bool,
}

impl SourceRules {
    /// Judges a frame by its first bytes, which nobody changes any more; zero where it is shorter, as
    /// the NIC pads it. `inserted` is the tag that the NIC puts in front of its type.
    pub fn check(&self, head: &[u8; HEAD_BYTES], inserted: Option<u16>) -> Result<(), Rejection> {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, rest @ ..] = head;
        let source = MacAddr::new([*s0, *s1, *s2, *s3, *s4, *s5]);
        if source != self.mac && !self.more_macs.contains(source) {
            return Err(Rejection::SpoofedSource);
        }
        if [*d0, *d1, *d2, *d3, *d4] == BRIDGE_GROUP && *d5 < 0x10 {
            if *d5 == PAUSE_LAST {
                return Err(Rejection::MacControl);
            }
            if !self.link_local {
                return Err(Rejection::LinkLocal);
            }
        }
        if !self.broadcast && [*d0, *d1, *d2, *d3, *d4, *d5] == [0xff; 6] {
            return Err(Rejection::BroadcastNotAllowed);
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
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const TO: [u8; 6] = [2; 6];

    fn head(dst: [u8; 6], src: [u8; 6], rest: &[u16]) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..6].copy_from_slice(&dst);
        head[6..12].copy_from_slice(&src);
        for (i, word) in rest.iter().enumerate() {
            head[12 + 2 * i..][..2].copy_from_slice(&word.to_be_bytes());
        }
        head
    }

    fn rules(vlans: VlanPolicy) -> SourceRules {
        SourceRules {
            mac: MAC,
            more_macs: MacList::EMPTY,
            vlans,
            broadcast: true,
            link_local: false,
        }
    }

    #[test]
    fn vlans() {
        use Rejection::*;
        let list = VlanList::EMPTY.with(5).and_then(|l| l.with(4094)).unwrap();
        let policies = [
            VlanPolicy::None,
            VlanPolicy::Any,
            VlanPolicy::Only(list),
            VlanPolicy::Port(5),
        ];
        let ok = Ok(());
        let all = [ok; 4];
        let vlan = Err(VlanNotAllowed);
        for (rest, inserted, expected) in [
            (&[0x0800][..], None, all),
            (&[0x0800], Some(0xe000), [ok, ok, ok, vlan]),
            (&[0x8100, 0xe000, 0x0800], None, [ok, ok, ok, vlan]),
            (&[0x8100, 5, 0x0800], None, [vlan, ok, ok, vlan]),
            (&[0x88a8, 6, 0x0800], None, [vlan, ok, vlan, vlan]),
            (&[0x0800], Some(5), [vlan, ok, ok, vlan]),
            (&[0x0800], Some(6), [vlan, ok, vlan, vlan]),
            // A tag within a tag, whichever way.
            (&[0x8100, 5, 0x8100, 5], None, [vlan, ok, vlan, vlan]),
            (&[0x8100, 0, 0x9100, 0], None, [vlan, ok, vlan, vlan]),
            (&[0x8100, 5], Some(5), [vlan, ok, vlan, vlan]),
            (&[0x8808], None, [Err(MacControl); 4]),
            (
                &[0x8100, 0, 0x8808],
                None,
                [Err(MacControl), Err(MacControl), Err(MacControl), vlan],
            ),
        ] {
            for (vlans, expected) in policies.into_iter().zip(expected) {
                let head = head(TO, MAC.bytes(), rest);
                let verdict = rules(vlans).check(&head, inserted);
                assert_eq!(verdict, expected, "{vlans:?} {inserted:?} {head:x?}");
            }
        }
    }

    #[test]
    fn addresses() {
        use Rejection::*;
        let strict = rules(VlanPolicy::None);
        let more = SourceRules {
            more_macs: MacList::EMPTY.with(MacAddr::new(OTHER)).unwrap(),
            broadcast: false,
            link_local: true,
            ..strict
        };
        let own = MAC.bytes();
        let group = |last| [1, 0x80, 0xc2, 0, 0, last];
        for (dst, src, by_strict, by_more) in [
            (TO, own, Ok(()), Ok(())),
            (TO, OTHER, Err(SpoofedSource), Ok(())),
            (
                TO,
                [2, 0, 0, 0, 0, 3],
                Err(SpoofedSource),
                Err(SpoofedSource),
            ),
            (
                TO,
                [3, 0, 0, 0, 0, 1],
                Err(SpoofedSource),
                Err(SpoofedSource),
            ),
            (TO, [0; 6], Err(SpoofedSource), Err(SpoofedSource)),
            ([0xff; 6], own, Ok(()), Err(BroadcastNotAllowed)),
            (group(0), own, Err(LinkLocal), Ok(())),
            (group(1), own, Err(MacControl), Err(MacControl)),
            (group(0xe), own, Err(LinkLocal), Ok(())),
            (group(0x10), own, Ok(()), Ok(())),
        ] {
            let head = head(dst, src, &[0x0800]);
            assert_eq!(strict.check(&head, None), by_strict, "{head:x?}");
            assert_eq!(more.check(&head, None), by_more, "{head:x?}");
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
        assert_eq!(VlanPolicy::port(0), None);
        assert_eq!(VlanPolicy::port(4095), None);

        let mac = |last| MacAddr::new([2, 0, 0, 0, 1, last]);
        let mut list = MacList::EMPTY;
        assert_eq!(list.with(MacAddr::new([1, 0, 0, 0, 0, 1])), None);
        for last in (1..=8).chain(1..=8) {
            list = list.with(mac(last)).unwrap();
        }
        assert_eq!((list.as_slice().len(), list.with(mac(9))), (8, None));
        let list = list.without(mac(3)).without(mac(9));
        assert_eq!(list.as_slice().len(), 7);
        assert!(list.contains(mac(8)) && !list.contains(mac(3)));
    }
}
