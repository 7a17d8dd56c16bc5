// SPDX-License-Identifier: GPL-2.0

//! Streams of transmit descriptors: what the rules say of them, and what the code says.

use sluice_core::check::Rejection;
use sluice_core::desc::tx::TxDesc;
use sluice_core::desc::RawDesc;
use sluice_core::frame::{
    Gather,
    TxLimits, //
};
use sluice_core::ring::RingConfig;

/// Address and length of each piece.
pub type Packet = Vec<(u64, u16)>;

const MAX_FRAME: u64 = 1522;

/// What the rules say of a stream: the packets, and where it goes wrong.
pub fn model(stream: &[[u64; 2]]) -> (Vec<Packet>, Option<usize>) {
    let mut contexts: [Option<[u64; 2]>; 2] = [None; 2];
    let mut packets = vec![];
    let mut open: Vec<[u64; 2]> = vec![];
    for (at, &[low, high]) in stream.iter().enumerate() {
        let bits = |from: u32, count: u32| high >> from & ((1 << count) - 1);
        let bad = (packets.clone(), Some(at));
        if bits(29, 1) == 0 {
            return bad;
        }
        match bits(20, 4) {
            2 => {
                let (iplen, maclen) = (low & 0x1ff, low >> 9 & 0x7f);
                let legal = low < 1 << 32
                    && high & !(3 << 10 | 1 << 12 | 2 << 20 | 1 << 29 | 1 << 36 | 0xffffff << 40)
                        == 0
                    && bits(11, 2) != 3
                    && maclen >= 14
                    && (iplen == 0 || iplen >= 20);
                if !legal || !open.is_empty() {
                    return bad;
                }
                contexts[bits(36, 1) as usize] = Some([low, high]);
            }
            3 => {
                let known = 0xffff
                    | 3 << 20
                    | 3 << 24
                    | 1 << 27
                    | 7 << 29
                    | 1 << 36
                    | 7 << 39
                    | 0x3ffff << 46;
                let (len, eop, rs) = (bits(0, 16), bits(24, 1), bits(27, 1));
                if high & !known != 0 || len == 0 || bits(25, 1) == 0 || rs > eop {
                    return bad;
                }
                if let Some(first) = open.first() {
                    let same = high >> 32 == first[1] >> 32 || high >> 32 == 0;
                    if !same || high >> 30 & 3 != first[1] >> 30 & 3 || open.len() == 40 {
                        return bad;
                    }
                }
                open.push([low, high]);
                if eop == 1 {
                    if !whole_is_legal(&open, &contexts) {
                        return bad;
                    }
                    packets.push(open.drain(..).map(|[a, w]| (a, w as u16)).collect());
                }
            }
            _ => return bad,
        }
    }
    (packets, None)
}

fn whole_is_legal(open: &[[u64; 2]], contexts: &[Option<[u64; 2]>; 2]) -> bool {
    let first = open[0][1];
    let total: u64 = open.iter().map(|d| d[1] & 0xffff).sum();
    let paylen = first >> 46;
    let (vle, tse) = (first >> 30 & 1, first >> 31 & 1);
    let (cc, ixsm, txsm) = (first >> 39 & 1, first >> 40 & 1, first >> 41 & 1);
    let extra = 4 + 4 * vle;
    if total < 17 {
        return false;
    }
    if vle + tse + cc + ixsm + txsm == 0 {
        return total + extra <= MAX_FRAME && paylen == total;
    }
    let Some([low, high]) = contexts[(first >> 36 & 1) as usize] else {
        return false;
    };
    let (iplen, maclen) = (low & 0x1ff, low >> 9 & 0x7f);
    let (v4, l4t, l4len, mss) = (
        high >> 10 & 1,
        high >> 11 & 3,
        high >> 40 & 0xff,
        high >> 48,
    );
    if ixsm == 1 && v4 == 0 {
        return false;
    }
    if tse == 0 {
        let checksum_end = maclen + iplen + txsm * [8, 18, 12][l4t as usize];
        let checksum_fits = ixsm + txsm == 0 || iplen != 0 && checksum_end <= total;
        return total + extra <= MAX_FRAME && paylen == total && checksum_fits;
    }
    let header = maclen + iplen + l4len;
    let min_ip = if v4 == 1 { 20 } else { 40 };
    l4t == 1
        && txsm == 1
        && iplen >= min_ip
        && (20..=60).contains(&l4len)
        && l4len % 4 == 0
        && header <= 255
        && total > header
        && total - header <= 65536
        && paylen == total - header
        && mss >= 8
        && header + mss + extra <= MAX_FRAME
}

/// What the code says.
pub fn run(stream: &[[u64; 2]]) -> (Vec<Packet>, Option<(usize, Rejection)>) {
    let limits = TxLimits {
        max_frame_bytes: MAX_FRAME as u32,
        port_vlan: false,
        source: None,
    };
    let index = RingConfig::new(0, 128).unwrap().size().tail(0).unwrap();
    let mut gather = Gather::new();
    let mut packets = vec![];
    for (at, words) in stream.iter().enumerate() {
        let pushed = TxDesc::parse(RawDesc::copied(*words))
            .and_then(|desc| gather.push(desc, index, &limits));
        if let Err(rejection) = pushed {
            return (packets, Some((at, rejection)));
        }
        if let Some(checked) = gather.checked() {
            let segments = checked.segments().iter();
            packets.push(segments.map(|s| (s.addr.raw(), s.len)).collect());
            gather.clear();
        }
    }
    (packets, None)
}
