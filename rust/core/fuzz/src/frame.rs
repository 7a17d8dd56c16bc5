// SPDX-License-Identifier: GPL-2.0

//! Transmit packets gathered from any stream of descriptors, against the model that works on whole
//! streams (`rust/core/tests/sim/frames.rs`).

use crate::ops::{
    self,
    Op, //
};
use crate::sim::frames::{
    model,
    run as gathered, //
};

/// Two records, or a shorthand and one: see [`words`].
pub mod kind {
    /// The next two records are the words.
    pub const RAW: u8 = 0;
    /// A context with the header lengths in `a` and `b` and the rest in `v`.
    pub const CONTEXT: u8 = 1;
    /// A segment of `b` bytes, PAYLEN and options in `v`.
    pub const DATA: u8 = 2;
    /// As the last one, `a` times.
    pub const AGAIN: u8 = 3;
    pub const COUNT: u8 = 4;
}

const DEXT: u64 = 1 << 29;

/// The descriptors that the records stand for, at most so many.
fn words(data: &[u8]) -> Vec<[u64; 2]> {
    let mut input = ops::decode(data);
    let mut stream: Vec<[u64; 2]> = Vec::new();
    while let Some(op) = input.next() {
        let Op { a, b, v, .. } = op;
        let v = u64::from(v);
        match op.kind % kind::COUNT {
            kind::RAW => {
                let mut word = || input.next().map_or(0, Op::word);
                stream.push([word(), word()]);
            }
            // IPLEN and MACLEN; IPV4 and L4T, IDX, L4LEN, MSS.
            kind::CONTEXT => stream.push([
                u64::from(b) | v >> 16 << 16,
                2 << 20
                    | DEXT
                    | u64::from(a & 7) << 10
                    | u64::from(a >> 3 & 1) << 36
                    | (v & 0xff) << 40
                    | (u64::from(a) << 3 & 0x780 | v >> 8 & 0x7f) << 48,
            ]),
            // EOP, RS, VLE, TSE and IDX in `a`; CC, IXSM, TXSM and PAYLEN in `v`.
            kind::DATA => stream.push([
                v << 32 | u64::from(b),
                u64::from(b)
                    | 3 << 20
                    | u64::from(a & 1) << 24
                    | 1 << 25
                    | u64::from(a >> 1 & 1) << 27
                    | DEXT
                    | u64::from(a >> 2 & 3) << 30
                    | u64::from(a >> 4 & 1) << 36
                    | (v & 7) << 39
                    | (v >> 3 & 0x3_ffff) << 46,
            ]),
            _ => {
                if let Some(last) = stream.last().copied() {
                    stream.extend(std::iter::repeat_n(last, (a % 64).into()));
                }
            }
        }
        if stream.len() > 512 {
            break;
        }
    }
    stream
}

/// One stream: the same packets, and the same place where it goes wrong.
pub fn run(data: &[u8]) {
    let stream = words(data);
    // What comes after a fault is judged as a stream of its own.
    let mut rest = &stream[..];
    while !rest.is_empty() {
        let (packets, fault) = gathered(rest);
        let (expected, expected_fault) = model(rest);
        assert_eq!(fault.map(|(at, _)| at), expected_fault, "{fault:?}");
        assert_eq!(packets, expected);
        rest = fault.map_or(&[], |(at, _)| &rest[at + 1..]);
    }
    ops::count(stream.len() as u64);
}
