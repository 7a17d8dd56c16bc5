// SPDX-License-Identifier: GPL-2.0

//! Packets gathered and checked, against a plain model that works on whole streams.

use crate::sim::frames::{
    model,
    run, //
};
use crate::sim::guest::{
    context_words,
    data_word,
    Csum,
    Send,
    Tso, //
};
use crate::sim::rng::Rng;
use proptest::prelude::*;
use sluice_core::check::Rejection;

/// A stream that is nearly legal: whole packets with `flaws` of a hundred values changed.
fn stream(rng: &mut Rng, flaws: u64) -> Vec<[u64; 2]> {
    let mut stream = vec![];
    for _ in 0..rng.within(1, 4) {
        let mut send = Send::default();
        if rng.chance(30) {
            send.vlan = Some(rng.next() as u16);
        }
        let kind = rng.below(4);
        if kind != 0 {
            let ipv4 = rng.chance(50);
            send.csum = Some(Csum {
                mac_len: rng.within(14, 18) as u8,
                ip_len: if ipv4 { 20 } else { 40 },
                ipv4,
                l4: if kind == 3 { 1 } else { rng.below(3) as u8 },
                ip_checksum: ipv4 && rng.chance(50),
            });
        }
        if kind == 3 {
            send.tso = Some(Tso {
                mss: rng.within(8, 1400) as u16,
                l4_len: rng.pick(&[20, 24, 32, 60]),
            });
        }
        let count = rng.pick(&[1, 1, 1, 2, 3, 18, 39, 40]);
        for _ in 0..count {
            let most = if kind == 3 { 1700 } else { 1400 / count };
            let least = if count == 1 { 90 } else { 1 };
            let len = if most > least {
                rng.within(least, most)
            } else {
                most
            };
            send.segments.push((rng.next(), len as u16));
        }
        if rng.chance(95) && (send.csum.is_some() || send.vlan.is_some()) {
            stream.push(context_words(&send));
        }
        let header = match (send.csum, send.tso) {
            (Some(c), Some(t)) => u32::from(c.mac_len) + u32::from(c.ip_len) + u32::from(t.l4_len),
            _ => 0,
        };
        let payload = send.len().saturating_sub(header);
        for (i, (addr, len)) in send.segments.iter().enumerate() {
            let eop = i + 1 == send.segments.len();
            stream.push([*addr, data_word(*len, eop, &send, payload)]);
        }
    }
    for words in &mut stream {
        if rng.chance(flaws) {
            let bit = rng.below(128);
            words[bit as usize / 64] ^= 1 << (bit % 64);
        }
    }
    stream
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_model(seed: u64) {
        let mut rng = Rng::new(seed);
        let flaws = rng.pick(&[0, 0, 2, 10]);
        let stream = stream(&mut rng, flaws);
        let (packets, fault) = run(&stream);
        let (expected, expected_fault) = model(&stream);
        prop_assert_eq!(fault.map(|f| f.0), expected_fault, "{:?}", fault);
        prop_assert_eq!(packets, expected);
    }
}

#[test]
fn most_streams_without_flaws_are_legal() {
    let mut rng = Rng::new(5);
    let (mut legal, mut reasons) = (0, std::collections::BTreeMap::new());
    for _ in 0..2000 {
        match run(&stream(&mut rng, 0)).1 {
            None => legal += 1,
            Some((_, rejection)) => *reasons.entry(rejection.name()).or_insert(0) += 1,
        }
    }
    println!("{legal} of 2000 legal, others {reasons:?}");
    assert!(legal > 1000);
}

#[test]
fn rules_of_whole_packets() {
    let csum = Csum {
        mac_len: 14,
        ip_len: 20,
        ipv4: true,
        l4: 1,
        ip_checksum: true,
    };
    let tso = Tso {
        mss: 1448,
        l4_len: 20,
    };
    let good = Send {
        segments: vec![(0, 3000)],
        vlan: None,
        csum: Some(csum),
        tso: Some(tso),
    };
    let words = |send: &Send, payload| {
        let (_, len) = send.segments[0];
        vec![
            context_words(send),
            [0, data_word(len, true, send, payload)],
        ]
    };
    let verdict = |stream: &[[u64; 2]]| run(stream).1.map(|f| f.1);
    assert_eq!(verdict(&words(&good, 3000 - 54)), None);
    assert_eq!(verdict(&words(&good, 3000)), Some(Rejection::PayloadLength));
    assert_eq!(
        verdict(&words(&good, 3000 - 54)[1..]),
        Some(Rejection::ContextMissing)
    );
    let with = |change: &dyn Fn(&mut Csum, &mut Tso)| {
        let (mut csum, mut tso) = (csum, tso);
        change(&mut csum, &mut tso);
        let mut send = good.clone();
        let header = u32::from(csum.mac_len) + u32::from(csum.ip_len) + u32::from(tso.l4_len);
        (send.csum, send.tso) = (Some(csum), Some(tso));
        verdict(&words(&send, 3000 - header))
    };
    assert_eq!(with(&|_, t| t.mss = 0), Some(Rejection::MssTooSmall));
    assert_eq!(with(&|_, t| t.mss = 1465), Some(Rejection::MssTooLarge));
    assert_eq!(with(&|_, t| t.mss = 1464), None);
    assert_eq!(with(&|_, t| t.l4_len = 16), Some(Rejection::L4HeaderLength));
    assert_eq!(with(&|_, t| t.l4_len = 22), Some(Rejection::L4HeaderLength));
    assert_eq!(with(&|c, _| c.l4 = 0), Some(Rejection::L4Type));
    assert_eq!(with(&|c, _| c.ip_len = 0), Some(Rejection::IpHeaderLength));
    assert_eq!(
        with(&|c, _| c.ipv4 = false),
        Some(Rejection::ChecksumNotIpv4)
    );
    assert_eq!(
        with(&|c, _| c.ip_len = 240),
        Some(Rejection::TsoHeaderTooLong)
    );
    let mut small = good.clone();
    small.segments[0].1 = 54;
    assert_eq!(verdict(&words(&small, 0)), Some(Rejection::TsoNoPayload));
    small.segments[0].1 = 40;
    assert_eq!(
        verdict(&words(&small, 0)),
        Some(Rejection::HeaderBeyondPacket)
    );
    let plain = |len, payload| {
        let send = Send {
            segments: vec![(0, len)],
            ..Send::default()
        };
        verdict(&[[0, data_word(len, true, &send, payload)]])
    };
    assert_eq!(plain(16, 16), Some(Rejection::FrameTooShort));
    assert_eq!(plain(17, 17), None);
    assert_eq!(plain(60, 61), Some(Rejection::PayloadLength));
    assert_eq!(plain(1518, 1518), None);
    assert_eq!(plain(1519, 1519), Some(Rejection::FrameTooLong));
    let part = [0, data_word(10, false, &Send::default(), 500)];
    assert_eq!(verdict(&[part; 41]), Some(Rejection::TooManySegments));
    let other = [0, data_word(10, false, &Send::default(), 501)];
    assert_eq!(verdict(&[part, other]), Some(Rejection::SegmentsDisagree));
    let context = context_words(&good);
    assert_eq!(
        verdict(&[part, context]),
        Some(Rejection::ContextInsidePacket)
    );
}
