// SPDX-License-Identifier: GPL-2.0

//! Invariant 9: what a guest sends has its own source address and VLAN, whatever it does to its
//! memory meanwhile; what has not is dropped and counted, and the queue goes on.

use crate::sim::bench::*;
use crate::sim::guest::{
    Csum,
    GuestTx,
    Send,
    Tso, //
};
use crate::sim::rng::Rng;
use proptest::prelude::{
    prop_assert,
    prop_assert_eq,
    proptest,
    ProptestConfig, //
};
use sluice_core::check::Rejection;
use sluice_core::map::Strategy;
use sluice_core::net::MacAddr;
use sluice_core::slice::{
    MacPolicy,
    Policy,
    State, //
};
use sluice_core::source::{
    MacList,
    VlanList,
    VlanPolicy, //
};

/// Distance of the guest's buffers.
const STEP: u64 = 0x2800;

fn policy(vlans: VlanPolicy) -> Policy {
    Policy {
        vlans,
        ..Policy::default()
    }
}

fn only_five() -> VlanPolicy {
    VlanPolicy::Only(VlanList::EMPTY.with(5).unwrap())
}

/// An address that the slice may have beside its own.
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// An address that bridges keep for themselves, below 16.
const fn group(last: u8) -> [u8; 6] {
    [1, 0x80, 0xc2, 0, 0, last]
}

/// A frame from the slice's own address.
fn frame(len: usize, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x33; len];
    bytes[..6].fill(2);
    bytes[6..12].copy_from_slice(&MAC.bytes());
    bytes[12..12 + rest.len()].copy_from_slice(rest);
    bytes
}

/// The rule as a user would put it, from the bytes on the wire.
fn allowed(bytes: &[u8], inserted: Option<u16>, policy: &Policy) -> Result<(), Rejection> {
    let mut wire = bytes.to_vec();
    wire.resize(bytes.len().max(60), 0);
    if let Some(tag) = inserted {
        wire.splice(12..12, [0x81, 0, (tag >> 8) as u8, tag as u8]);
    }
    let also = match policy.macs {
        MacPolicy::Also(list) => list.as_slice().to_vec(),
        _ => Vec::new(),
    };
    if wire[6..12] != MAC.bytes() && !also.iter().any(|mac| wire[6..12] == mac.bytes()) {
        return Err(Rejection::SpoofedSource);
    }
    match wire[..6] {
        [1, 0x80, 0xc2, 0, 0, 1] => return Err(Rejection::MacControl),
        [1, 0x80, 0xc2, 0, 0, 0..=15] if !policy.link_local => return Err(Rejection::LinkLocal),
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] if !policy.broadcast => {
            return Err(Rejection::BroadcastNotAllowed)
        }
        _ => {}
    }
    let mut at = 12;
    let mut tags = Vec::new();
    while [[0x81, 0], [0x88, 0xa8], [0x91, 0]].contains(&[wire[at], wire[at + 1]]) {
        tags.push(u16::from_be_bytes([wire[at + 2], wire[at + 3]]) & 0xfff);
        let bad = match policy.vlans {
            VlanPolicy::Any => false,
            VlanPolicy::Port(_) => true,
            VlanPolicy::None => tags.len() > 1 || tags[0] != 0,
            VlanPolicy::Only(_) => tags.len() > 1 || ![0, 5].contains(&tags[0]),
        };
        if bad {
            return Err(Rejection::VlanNotAllowed);
        }
        at += 4;
    }
    if wire[at..at + 2] == [0x88, 8] {
        return Err(Rejection::MacControl);
    }
    Ok(())
}

#[test]
fn a_guest_that_changes_its_mind_changes_nothing() {
    for strategy in Strategy::ALL {
        let mut b = Bench::with_policy(1, policy(VlanPolicy::None));
        b.slice.set_strategy(strategy, 1).unwrap();
        b.bring_up();
        let mut tx = GuestTx::new(TX_RING, 64);
        for len in [17usize, 60, 255, 256, 257, 320, 1514] {
            for cut in [0usize, 1, 6, 13, 14, 16] {
                let at = BUFFERS + 4096 - 10;
                let bytes = frame(len, &[8, 0]);
                let mut send = Send::default();
                if cut != 0 {
                    send.segments.push((at, cut as u16));
                }
                send.segments.push((at + cut as u64, (len - cut) as u16));
                b.world.borrow_mut().guest_write(at, &bytes);
                assert!(tx.send(&mut b.world.borrow_mut(), &send));
                b.write(TX + TAIL, tx.tail());
                b.poll();
                // Checked and posted; now another address and a tag.
                b.world
                    .borrow_mut()
                    .guest_write(at, &[0x81; 40][..len.min(40)]);
                b.nic_runs();
                b.poll();
                assert_eq!(tx.clean(&mut b.world.borrow_mut()), 1);
                let wire = b.world.borrow_mut().wire.pop();
                let why = b.slice.stats().rejections().find(|(_, count)| *count != 0);
                let wire =
                    wire.unwrap_or_else(|| panic!("{len} {cut} {why:?} {}", strategy.name()));
                assert_eq!(wire.bytes.len(), len);
                let kept = len.min(32);
                assert_eq!(
                    wire.bytes[..kept],
                    bytes[..kept],
                    "{} {len}",
                    strategy.name()
                );
                if len <= 256 || strategy.copies() {
                    assert_eq!(wire.bytes, bytes, "the whole packet is a copy");
                }
            }
        }
        assert_eq!(b.slice.stats().tx.filtered, 0);
        b.close();
    }
}

/// What follows the addresses; which byte is changed to what; the tag to be inserted; the rule.
type Case = (&'static [u8], usize, u8, Option<u16>, Rejection);

#[test]
fn a_bad_frame_costs_itself_and_no_other() {
    let cases: [Case; 5] = [
        (&[8, 0], 11, 9, None, Rejection::SpoofedSource),
        (
            &[0x81, 0, 0, 6, 8, 0],
            0,
            2,
            None,
            Rejection::VlanNotAllowed,
        ),
        (&[8, 0], 0, 2, Some(6), Rejection::VlanNotAllowed),
        (&[0x88, 8], 0, 2, None, Rejection::MacControl),
        (
            &[0x81, 0, 0, 5, 0x88, 8],
            0,
            2,
            Some(0),
            Rejection::VlanNotAllowed,
        ),
    ];
    for strategy in Strategy::ALL {
        let mut b = Bench::with_policy(1, policy(only_five()));
        b.slice.set_strategy(strategy, 1).unwrap();
        b.bring_up();
        let mut tx = GuestTx::new(TX_RING, 64);
        for (rest, at, value, vlan, rule) in cases {
            let before = b.slice.stats().rejected(rule);
            for bad in [true, false, true, true, false, true] {
                let mut bytes = frame(100, if bad { rest } else { &[8, 0] });
                if bad {
                    bytes[at] = value;
                }
                let place = BUFFERS + u64::from(tx.tail()) * 256;
                b.world.borrow_mut().guest_write(place, &bytes);
                let send = Send {
                    segments: vec![(place, 100)],
                    vlan: if bad { vlan } else { None },
                    ..Send::default()
                };
                assert!(tx.send(&mut b.world.borrow_mut(), &send));
            }
            b.write(TX + TAIL, tx.tail());
            b.poll();
            b.nic_runs();
            b.poll();
            assert_eq!(tx.clean(&mut b.world.borrow_mut()), 6, "all are done with");
            assert_eq!(b.read(TX + 0x10), tx.tail(), "the head is past them all");
            let wire: Vec<_> = b.world.borrow_mut().wire.drain(..).collect();
            assert_eq!(wire.len(), 2);
            assert!(wire.iter().all(|p| p.bytes == frame(100, &[8, 0])));
            assert_eq!(b.slice.stats().rejected(rule) - before, 4, "{rule}");
            assert_eq!(b.slice.state(), State::Running);
        }
        assert_eq!(
            (b.slice.stats().faults(), b.slice.stats().tx.filtered),
            (0, 20)
        );
        b.close();
    }
}

#[test]
fn a_segmented_packet_keeps_its_headers() {
    for strategy in [Strategy::Persistent, Strategy::Copy] {
        let mut b = Bench::with_policy(1, policy(VlanPolicy::None));
        b.slice.set_strategy(strategy, 1).unwrap();
        b.bring_up();
        let mut tx = GuestTx::new(TX_RING, 64);
        let bytes = frame(9000, &[8, 0]);
        let send = Send {
            segments: vec![(BUFFERS, 20), (BUFFERS + 20, 8980)],
            csum: Some(Csum {
                mac_len: 14,
                ip_len: 20,
                ipv4: true,
                l4: 1,
                ip_checksum: true,
            }),
            tso: Some(Tso {
                mss: 1400,
                l4_len: 32,
            }),
            ..Send::default()
        };
        b.world.borrow_mut().guest_write(BUFFERS, &bytes);
        let expected = send.expected(&b.world.borrow());
        assert!(tx.send(&mut b.world.borrow_mut(), &send));
        b.write(TX + TAIL, tx.tail());
        b.poll();
        b.world.borrow_mut().guest_write(BUFFERS, &[9; 66]);
        b.nic_runs();
        b.poll();
        assert_eq!(b.world.borrow_mut().wire.pop(), Some(expected));
        assert_eq!(tx.clean(&mut b.world.borrow_mut()), 1);
        b.close();
    }
}

/// What is judged is what is sent, though each byte that is read changes at once (invariant 4).
#[test]
fn bytes_are_read_once() {
    for strategy in Strategy::ALL {
        let mut b = Bench::with_policy(1, policy(VlanPolicy::None));
        b.slice.set_strategy(strategy, 1).unwrap();
        b.bring_up();
        let mut tx = GuestTx::new(TX_RING, 64);
        b.world.borrow_mut().fickle = true;
        for len in [60usize, 256, 1514] {
            let good = frame(len, &[8, 0]);
            let bad: Vec<u8> = good.iter().map(|byte| !byte).collect();
            for (memory, sent) in [(&good, true), (&bad, false)] {
                b.world.borrow_mut().guest_write(BUFFERS, memory);
                let send = Send {
                    segments: vec![(BUFFERS, len as u16)],
                    ..Send::default()
                };
                assert!(tx.send(&mut b.world.borrow_mut(), &send));
                b.write(TX + TAIL, tx.tail());
                b.poll();
                b.nic_runs();
                b.poll();
                assert_eq!(tx.clean(&mut b.world.borrow_mut()), 1);
                let wire = b.world.borrow_mut().wire.pop();
                assert_eq!(wire.is_some(), sent, "{} {len}", strategy.name());
                if let Some(wire) = wire {
                    assert_eq!(wire.bytes[..32], good[..32]);
                }
            }
        }
        assert_eq!(b.slice.stats().rejected(Rejection::SpoofedSource), 3);
        b.world.borrow_mut().fickle = false;
        b.close();
    }
}

#[test]
fn frames_are_checked_unless_told_otherwise() {
    let mut b = Bench::with_policy(1, Policy::default());
    b.bring_up();
    let mut tx = GuestTx::new(TX_RING, 64);
    let send = Send {
        segments: vec![(BUFFERS, 60)],
        ..Send::default()
    };
    assert!(tx.send(&mut b.world.borrow_mut(), &send));
    b.write(TX + TAIL, tx.tail());
    b.poll();
    b.nic_runs();
    assert!(b.world.borrow().wire.is_empty());
    assert_eq!(b.slice.stats().rejected(Rejection::SpoofedSource), 1);
    b.close();
}

#[test]
fn membership_follows_the_policy() {
    const ACK: u32 = 1 << 31;
    for (vlans, allowed) in [
        (VlanPolicy::None, [false, false]),
        (only_five(), [true, false]),
        (VlanPolicy::Any, [true, true]),
    ] {
        let mut b = Bench::with_policy(1, policy(vlans));
        b.bring_up();
        for (vid, allowed) in [5, 6].into_iter().zip(allowed) {
            assert_eq!(b.request(&[4 | 1 << 16, vid]) & ACK != 0, allowed);
            // To leave is always allowed.
            assert_ne!(b.request(&[4, vid]) & ACK, 0);
        }
        b.close();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Frames of all kinds, cut anywhere, in memory that changes all the time.
    #[test]
    fn nothing_else_gets_out(seed: u64) {
        let mut rng = Rng::new(seed);
        let other = MacList::EMPTY.with(MacAddr::new(OTHER)).unwrap();
        let policy = Policy {
            macs: rng.pick(&[MacPolicy::Own, MacPolicy::Any, MacPolicy::Also(other)]),
            vlans: rng.pick(&[VlanPolicy::None, VlanPolicy::Any, only_five(), VlanPolicy::Port(5)]),
            broadcast: rng.chance(50),
            link_local: rng.chance(50),
            ..Policy::default()
        };
        let mut b = Bench::with_policy(seed, policy);
        b.slice.set_strategy(rng.pick(&Strategy::ALL), 1).unwrap();
        b.bring_up();
        let mut tx = GuestTx::new(TX_RING, 64);
        let (mut good, mut bad, mut descs, mut sent) = (0, 0, 0, 0);
        for round in 0..200u64 {
            for i in 0..rng.below(8) {
                let len = rng.pick(&[17, 18, 30, 64, 256, 300, 1500]);
                let mut bytes = frame(len, &[8, 0]);
                for _ in 0..rng.below(3) {
                    let at = rng.pick(&[0, 5, 6, 11, 12, 13, 14, 15, 16]);
                    bytes[at] = rng.pick(&[0, 1, 2, 5, 0x81, 0x88, 0x91, 8, 0xa8]);
                }
                if rng.chance(15) {
                    bytes[6..12].copy_from_slice(&rng.pick(&[OTHER, [2; 6], [0; 6]]));
                }
                if rng.chance(15) {
                    let to = [[0xff; 6], group(0), group(1), group(2), group(0xe), group(0x10)];
                    bytes[..6].copy_from_slice(&rng.pick(&to));
                }
                if rng.chance(20) {
                    let tag = [0x81, 0, 0, rng.pick(&[0, 5, 6])];
                    bytes.splice(12..12, tag);
                    bytes.truncate(len);
                }
                let at = BUFFERS + (round % 8 * 8 + i) * STEP + rng.below(4096);
                let vlan = rng.chance(20).then_some(rng.pick(&[0, 5, 0x2006]));
                let cut = rng.within(1, len as u64 - 1);
                let send = Send {
                    segments: vec![(at, cut as u16), (at + cut, (len as u64 - cut) as u16)],
                    vlan,
                    ..Send::default()
                };
                b.world.borrow_mut().guest_write(at, &bytes);
                if !tx.send(&mut b.world.borrow_mut(), &send) {
                    break;
                }
                sent += 1;
                match allowed(&bytes, vlan, &policy) {
                    Ok(()) => good += 1,
                    Err(_) => {
                        bad += 1;
                        descs += 2;
                    }
                }
            }
            b.write(TX + TAIL, tx.tail());
            b.poll();
            // Everything was taken: the guest may do with its memory what it likes.
            for slot in 0..64 {
                let at = BUFFERS + slot * STEP;
                b.world.borrow_mut().guest_write(at, &vec![rng.next() as u8; 6000]);
            }
            b.nic_runs();
            b.poll();
            tx.clean(&mut b.world.borrow_mut());
            let wire: Vec<_> = b.world.borrow_mut().wire.drain(..).collect();
            good -= wire.len() as i64;
            for packet in wire {
                prop_assert_eq!(allowed(&packet.bytes, packet.vlan, &policy), Ok(()));
            }
            prop_assert_eq!(good, 0, "all that may go goes");
        }
        prop_assert_eq!(tx.in_flight(), 0);
        let stats = b.slice.stats();
        let counted: u64 = stats.rejections().map(|(_, count)| count).sum();
        prop_assert_eq!((counted, stats.tx.filtered, stats.faults()), (bad, descs, 0));
        prop_assert!(sent > 100 && bad > 10 && bad < sent);
        b.close();
    }
}
