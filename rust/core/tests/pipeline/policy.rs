// SPDX-License-Identifier: GPL-2.0

//! What a guest may ask for through the mailbox, slice and all: each answer as an `igb` PF gives it,
//! each refusal under its own name, and the rules for frames never behind what was granted.

use crate::sim::bench::*;
use crate::sim::faults::{
    arm,
    disarm,
    Fault,
    HowMany, //
};
use crate::sim::guest::{
    GuestRx,
    GuestTx,
    Send, //
};
use crate::sim::rng::Rng;
use crate::sim::SimPort;
use proptest::prelude::{
    prop_assert,
    prop_assert_eq,
    proptest,
    ProptestConfig, //
};
use sluice_core::check::Rejection;
use sluice_core::net::MacAddr;
use sluice_core::pool::PoolRules;
use sluice_core::slice::{
    MacPolicy,
    Policy, //
};
use sluice_core::source::{
    MacList,
    VlanList,
    VlanPolicy, //
};
use sluice_core::vf::Refusal;

const ACK: u32 = 1 << 31;
const NACK: u32 = 1 << 30;
const CTS: u32 = 1 << 29;

const RESET: u32 = 1;
const SET_MAC: u32 = 2;
const CLEAR_MACS: u32 = 2 | 1 << 16;
const ADD_MAC: u32 = 2 | 2 << 16;
const SET_MULTICAST: u32 = 3;
const LEAVE_VLAN: u32 = 4;
const JOIN_VLAN: u32 = 4 | 1 << 16;
const SET_LPE: u32 = 5;
const NO_PROMISC: u32 = 6;
const UNICAST: u32 = 6 | 1 << 16;
const MULTICAST: u32 = 6 | 2 << 16;
const BOTH: u32 = 6 | 3 << 16;

fn mac(last: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, last])
}

/// An address that the simulated port gives to nobody.
const TAKEN: MacAddr = SimPort::TAKEN;

fn mac_message(first: u32, mac: MacAddr) -> [u32; 3] {
    let [a, b, c, d, e, f] = mac.bytes();
    let low = u32::from_le_bytes([a, b, c, d]);
    [first, low, u32::from(u16::from_le_bytes([e, f]))]
}

/// A request, the bits of the first word of the reply that are not the request's, and the counter of
/// what was refused.
type Case = (Vec<u32>, Result<(), Refusal>);

/// Sends the requests; the port as it is then.
fn ask(policy: Policy, cases: &[Case]) -> SimPort {
    let mut b = Bench::with_policy(6, policy);
    b.bring_up();
    for (words, expected) in cases {
        let count = |b: &Bench, reason| b.slice.function_counters().refused(reason);
        let before = b.slice.function_counters().refused_total();
        let reply = b.request(words);
        let total = b.slice.function_counters().refused_total() - before;
        match expected {
            Ok(()) => {
                // A promiscuous mode is cleared from what it was asked by.
                let first = if words[0] & 0xffff == 6 { 6 } else { words[0] };
                let cts = if words[0] == RESET { 0 } else { CTS };
                assert_eq!((reply, total), (first | ACK | cts, 0), "{words:x?}");
            }
            Err(reason) => {
                // igbvf would take another refusal of a VLAN for consent.
                let first = match words[0] & 0xffff {
                    4 => 4,
                    _ => words[0],
                };
                assert_eq!((reply, total), (first | NACK | CTS, 1), "{words:x?}");
                assert!(count(&b, *reason) > 0, "{words:x?} {reason:?}");
            }
        }
    }
    *b.slice.close(1).unwrap().port.before.unwrap()
}

fn own_macs() -> MacList {
    MacList::EMPTY
        .with(mac(7))
        .and_then(|l| l.with(mac(8)))
        .unwrap()
}

#[test]
fn a_guest_with_no_choice() {
    use Refusal::*;
    let cases: Vec<Case> = vec![
        (mac_message(SET_MAC, MAC).to_vec(), Ok(())),
        (mac_message(SET_MAC, mac(2)).to_vec(), Err(MacNotAllowed)),
        (mac_message(ADD_MAC, mac(2)).to_vec(), Err(MacNotAllowed)),
        (vec![CLEAR_MACS, 0, 0], Ok(())),
        (vec![SET_LPE, 9000], Ok(())),
        (vec![SET_LPE, 9728], Ok(())),
        (vec![SET_LPE, 9729], Err(FrameLimit)),
        (vec![JOIN_VLAN, 100], Ok(())),
        (vec![LEAVE_VLAN, 99], Ok(())),
        (vec![SET_MULTICAST | 2 << 16, 5 | 6 << 16], Ok(())),
        (vec![NO_PROMISC], Ok(())),
        (vec![UNICAST], Err(PromiscDenied)),
        (vec![MULTICAST], Err(PromiscDenied)),
        (vec![BOTH], Err(PromiscDenied)),
    ];
    let port = ask(Policy::default(), &cases);
    assert_eq!((port.mac, port.more_macs.len()), (MAC, 0));
    assert_eq!((port.vlans, port.max_frame), (vec![100], 9728));
    assert_eq!((port.multicast, port.all_multicast), (vec![5, 6], false));
    assert_eq!(port.rules, PoolRules::DEFAULT);
}

#[test]
fn addresses_that_the_administrator_lists() {
    let policy = Policy {
        macs: MacPolicy::Also(own_macs()),
        ..Policy::default()
    };
    let denied = Err(Refusal::MacNotAllowed);
    let cases: Vec<Case> = vec![
        (mac_message(SET_MAC, mac(7)).to_vec(), Ok(())),
        (mac_message(ADD_MAC, mac(8)).to_vec(), Ok(())),
        (mac_message(ADD_MAC, MAC).to_vec(), Ok(())),
        (mac_message(SET_MAC, mac(9)).to_vec(), denied),
        (mac_message(ADD_MAC, mac(9)).to_vec(), denied),
        (vec![CLEAR_MACS, 0, 0], Ok(())),
    ];
    // They are the pool's all the time: nothing is asked of it.
    assert_eq!(ask(policy, &cases).more_macs, []);
}

#[test]
fn a_guest_that_is_trusted_with_addresses() {
    let policy = Policy {
        macs: MacPolicy::Any,
        ..Policy::default()
    };
    let unavailable = Err(Refusal::MacUnavailable);
    let mut cases: Vec<Case> = vec![
        (mac_message(SET_MAC, mac(9)).to_vec(), Ok(())),
        // The port has the last word.
        (mac_message(SET_MAC, TAKEN).to_vec(), unavailable),
        (mac_message(ADD_MAC, TAKEN).to_vec(), unavailable),
    ];
    for last in 10..17 {
        cases.push((mac_message(ADD_MAC, mac(last)).to_vec(), Ok(())));
    }
    cases.push((mac_message(ADD_MAC, mac(12)).to_vec(), Ok(())));
    cases.push((mac_message(ADD_MAC, mac(17)).to_vec(), unavailable));
    // One in the place of another, one that is there as a further one, and back.
    cases.push((mac_message(SET_MAC, mac(30)).to_vec(), Ok(())));
    cases.push((mac_message(SET_MAC, mac(10)).to_vec(), Ok(())));
    let port = ask(policy, &cases);
    assert_eq!(port.more_macs, (10..17).map(mac).collect::<Vec<_>>());
    // What was made its address does not go with the others.
    cases.push((vec![CLEAR_MACS, 0, 0], Ok(())));
    assert_eq!(ask(policy, &cases).more_macs, [mac(10)]);
    cases.push((mac_message(SET_MAC, MAC).to_vec(), Ok(())));
    assert_eq!(ask(policy, &cases).more_macs, []);
    cases.push((mac_message(SET_MAC, mac(30)).to_vec(), Ok(())));
    cases.push((vec![RESET], Ok(())));
    let port = ask(policy, &cases);
    assert_eq!((port.more_macs, port.mac), (vec![], MAC));
}

#[test]
fn vlans_that_may_be_joined() {
    let list = VlanList::EMPTY.with(5).and_then(|l| l.with(6)).unwrap();
    let denied = Err(Refusal::VlanJoinDenied);
    let all = [
        (
            VlanPolicy::Any,
            [Ok(()), Ok(()), Ok(()), Ok(())],
            vec![5, 7],
            None,
        ),
        (
            VlanPolicy::None,
            [denied, denied, Ok(()), Ok(())],
            vec![],
            None,
        ),
        (
            VlanPolicy::Only(list),
            [Ok(()), denied, Ok(()), Ok(())],
            vec![5],
            None,
        ),
        (
            VlanPolicy::Port(5),
            [denied, denied, Ok(()), denied],
            vec![],
            Some(5),
        ),
    ];
    for (vlans, expected, joined, port_vlan) in all {
        let policy = Policy {
            vlans,
            ..Policy::default()
        };
        let [five, seven, zero, leave] = expected;
        let cases: Vec<Case> = vec![
            (vec![JOIN_VLAN, 5], five),
            (vec![JOIN_VLAN, 7], seven),
            (vec![JOIN_VLAN, 0], zero),
            (vec![LEAVE_VLAN, 9], leave),
        ];
        let port = ask(policy, &cases);
        assert_eq!((port.vlans, port.rules.port_vlan), (joined, port_vlan));
    }
}

/// What the port cannot do is refused, and asked for again it is granted: whatever it was.
#[test]
fn what_the_port_refuses() {
    let policy = Policy {
        macs: MacPolicy::Any,
        ..Policy::default()
    };
    let cases: Vec<Case> = vec![
        (
            mac_message(SET_MAC, mac(9)).to_vec(),
            Err(Refusal::MacUnavailable),
        ),
        (
            mac_message(ADD_MAC, mac(10)).to_vec(),
            Err(Refusal::MacUnavailable),
        ),
        (
            vec![SET_MULTICAST | 1 << 16, 5],
            Err(Refusal::MulticastLimit),
        ),
        (vec![JOIN_VLAN, 7], Err(Refusal::VlanUnavailable)),
        (vec![LEAVE_VLAN, 7], Err(Refusal::VlanJoinDenied)),
        (vec![SET_LPE, 9000], Err(Refusal::FrameLimit)),
    ];
    for (words, refused) in cases {
        let reason = refused.expect_err("each is refused");
        let mut b = Bench::with_policy(6, policy);
        b.bring_up();
        arm(Fault::Port, 0, HowMany::All);
        assert_eq!(b.request(&words) & (ACK | NACK), NACK, "{words:x?}");
        assert_eq!(disarm(), 1, "{words:x?}");
        let counters = b.slice.function_counters();
        assert_eq!(counters.refused(reason), 1, "{words:x?}");
        assert_eq!(b.request(&words) & (ACK | NACK), ACK, "{words:x?}");
        b.close();
    }
}

#[test]
fn multicast_and_broadcast() {
    let policy = Policy {
        multicast_max: 2,
        all_multicast: true,
        broadcast: false,
        check_source: false,
        ..Policy::default()
    };
    let mut cases: Vec<Case> = vec![
        (vec![SET_MULTICAST | 2 << 16, 5 | 6 << 16], Ok(())),
        (
            vec![SET_MULTICAST | 3 << 16, 7 | 8 << 16, 9],
            Err(Refusal::MulticastLimit),
        ),
        (vec![MULTICAST], Ok(())),
        // Refused as a whole: the other half stays as it was.
        (vec![UNICAST], Err(Refusal::PromiscDenied)),
        (vec![BOTH], Err(Refusal::PromiscDenied)),
    ];
    let port = ask(policy, &cases);
    assert_eq!((port.multicast, port.all_multicast), (vec![5, 6], true));
    let rules = PoolRules {
        port_vlan: None,
        broadcast: false,
        check_source: false,
    };
    assert_eq!(port.rules, rules);
    cases.push((vec![NO_PROMISC], Ok(())));
    assert!(!ask(policy, &cases).all_multicast);
}

/// The tag that the NIC takes off is not the guest's to see, and counts as a part of the frame.
#[test]
fn a_port_vlan_is_hidden() {
    for (vlans, seen) in [(VlanPolicy::Port(5), None), (VlanPolicy::Any, Some(5))] {
        let policy = Policy {
            vlans,
            ..Policy::default()
        };
        let mut b = Bench::with_policy(3, policy);
        b.bring_up();
        let mut rx = GuestRx::new(RX_RING, 64, 2048, 0);
        let place = |i: u16| (BUFFERS + u64::from(i) * 0x1000, 0);
        rx.fill(&mut b.world.borrow_mut(), place);
        b.write(RX + TAIL, rx.tail());
        b.poll();
        b.world.borrow_mut().nic_rx_arrives(&[7; 100], Some(5));
        b.nic_runs();
        b.poll();
        let received = rx.poll(&b.world.borrow());
        assert_eq!(received.len(), 1);
        assert_eq!((received[0].vlan, received[0].bytes.len()), (seen, 100));
        assert_eq!(b.slice.stats().rx.bytes, 100 + 4 + 4);

        let mut tx = GuestTx::new(TX_RING, 64);
        let mut bytes = vec![3; 100];
        bytes[6..12].copy_from_slice(&MAC.bytes());
        b.world.borrow_mut().guest_write(BUFFERS, &bytes);
        let send = Send {
            segments: vec![(BUFFERS, 100)],
            ..Send::default()
        };
        assert!(tx.send(&mut b.world.borrow_mut(), &send));
        b.write(TX + TAIL, tx.tail());
        b.poll();
        b.nic_runs();
        b.poll();
        let tag = if seen.is_none() { 4 } else { 0 };
        assert_eq!(b.slice.stats().tx.bytes, 100 + 4 + tag);
        b.close();
    }
}

/// What was posted under an address does not leave once the address is free for others.
#[test]
fn frames_of_an_address_that_is_given_up_stay() {
    let give_up: [&[u32]; 3] = [&[CLEAR_MACS, 0, 0], &[RESET], &mac_message(SET_MAC, mac(3))];
    for words in give_up {
        let policy = Policy {
            macs: MacPolicy::Any,
            ..Policy::default()
        };
        let mut b = Bench::with_policy(4, policy);
        b.bring_up();
        let first = if words[0] == SET_MAC {
            SET_MAC
        } else {
            ADD_MAC
        };
        assert_ne!(b.request(&mac_message(first, mac(2))) & ACK, 0);
        let mut tx = GuestTx::new(TX_RING, 64);
        let mut bytes = vec![3; 60];
        bytes[6..12].copy_from_slice(&mac(2).bytes());
        b.world.borrow_mut().guest_write(BUFFERS, &bytes);
        let send = Send {
            segments: vec![(BUFFERS, 60)],
            ..Send::default()
        };
        assert!(tx.send(&mut b.world.borrow_mut(), &send));
        b.write(TX + TAIL, tx.tail());
        b.poll();
        assert_eq!(b.slice.stats().tx.posted, 1);
        assert_ne!(b.request(words) & ACK, 0);
        b.nic_runs();
        b.poll();
        assert_eq!(b.world.borrow().wire.len(), 0, "{words:x?}");
        b.close();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// A trusted guest changes its addresses and sends: from those that it has been granted at the time,
    /// and from no other.
    #[test]
    fn frames_follow_what_was_granted(seed: u64) {
        let mut rng = Rng::new(seed);
        let policy = Policy { macs: MacPolicy::Any, ..Policy::default() };
        let mut b = Bench::with_policy(seed, policy);
        b.bring_up();
        let mut tx = GuestTx::new(TX_RING, 64);
        let (mut chosen, mut added) = (MAC, Vec::<MacAddr>::new());
        let mut spoofs = 0;
        for _ in 0..300 {
            let wanted = mac(rng.within(1, 14) as u8);
            // The port does not always do what it is asked for.
            if rng.chance(20) {
                arm(Fault::Port, 0, HowMany::One);
            }
            match rng.below(20) {
                0..=2 => {
                    let granted = b.request(&mac_message(SET_MAC, wanted)) & ACK != 0;
                    let more = added.iter().filter(|m| **m != wanted).count();
                    prop_assert!(granted || more >= 8 || disarm() != 0);
                    if granted {
                        chosen = wanted;
                        added.retain(|mac| *mac != wanted);
                    }
                }
                3..=5 => {
                    let granted = b.request(&mac_message(ADD_MAC, wanted)) & ACK != 0;
                    if granted && wanted != MAC && wanted != chosen && !added.contains(&wanted) {
                        added.push(wanted);
                    }
                    let all = added.len() + usize::from(chosen != MAC);
                    prop_assert!(all <= 8 && (granted || all == 8 || disarm() != 0));
                }
                6 => {
                    prop_assert_eq!(b.request(&[CLEAR_MACS, 0, 0]), CLEAR_MACS | ACK | CTS);
                    added.clear();
                }
                _ => {
                    let mut bytes = vec![3; 60];
                    bytes[6..12].copy_from_slice(&wanted.bytes());
                    b.world.borrow_mut().guest_write(BUFFERS, &bytes);
                    let send = Send { segments: vec![(BUFFERS, 60)], ..Send::default() };
                    prop_assert!(tx.send(&mut b.world.borrow_mut(), &send));
                    b.write(TX + TAIL, tx.tail());
                    b.poll();
                    b.nic_runs();
                    b.poll();
                    tx.clean(&mut b.world.borrow_mut());
                    let sent = b.world.borrow_mut().wire.drain(..).count();
                    let may = wanted == MAC || wanted == chosen || added.contains(&wanted);
                    prop_assert_eq!(sent, usize::from(may), "{:?}", wanted);
                    spoofs += u64::from(!may);
                }
            }
            disarm();
        }
        prop_assert_eq!(b.slice.stats().rejected(Rejection::SpoofedSource), spoofs);
        b.close();
    }
}
