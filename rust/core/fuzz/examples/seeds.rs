// SPDX-License-Identifier: GPL-2.0

//! Inputs to begin with: what honest guests do. Writes them into DIRECTORY/TARGET/.

use std::path::Path;

use sluice_core_fuzz::ops::Op;
use sluice_core_fuzz::sim::guest::{
    context_words,
    data_word,
    Csum,
    Send,
    Tso, //
};
use sluice_core_fuzz::{
    desc,
    frame,
    function,
    slice, //
};

fn main() -> std::io::Result<()> {
    let directory = std::env::args().nth(1).expect("usage: seeds DIRECTORY");
    for (target, seeds) in [
        ("desc", descriptors()),
        ("frame", frames()),
        ("function", functions()),
        ("slice", slices()),
        ("source", sources()),
    ] {
        let directory = Path::new(&directory).join(target);
        std::fs::create_dir_all(&directory)?;
        for (i, seed) in seeds.iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{i:02}")), seed)?;
        }
    }
    Ok(())
}

fn encode(ops: &[Op]) -> Vec<u8> {
    ops.iter().flat_map(|op| op.encode()).collect()
}

/// A record and its words.
fn with_words(op: Op, words: [u64; 2]) -> [Op; 3] {
    let [low, high] = words.map(Op::of_word);
    [op, low, high]
}

/// Packets of all kinds.
fn packets() -> Vec<Send> {
    let csum = |ipv4, l4, ip_checksum| {
        Some(Csum {
            mac_len: 14,
            ip_len: if ipv4 { 20 } else { 40 },
            ipv4,
            l4,
            ip_checksum,
        })
    };
    let mut packets = Vec::new();
    for vlan in [None, Some(5)] {
        for (csum, tso) in [
            (None, None),
            (csum(true, 0, true), None),
            (csum(false, 1, false), None),
            (csum(true, 2, false), None),
            (csum(true, 1, true), Some((1448, 32))),
            (csum(false, 1, false), Some((8, 60))),
        ] {
            let tso = tso.map(|(mss, l4_len)| Tso { mss, l4_len });
            let segments = if tso.is_some() {
                vec![(0x1000, 154), (0x2000, 4000), (0x8000, 4000)]
            } else {
                vec![(0x1ff0, 100), (0x3000, 1000)]
            };
            packets.push(Send {
                segments,
                vlan,
                csum,
                tso,
            });
        }
    }
    packets
}

/// A packet's descriptors.
fn stream(send: &Send) -> Vec<[u64; 2]> {
    let mut stream = Vec::new();
    if send.csum.is_some() || send.vlan.is_some() {
        stream.push(context_words(send));
    }
    let header = match (send.csum, send.tso) {
        (Some(c), Some(t)) => u32::from(c.mac_len) + u32::from(c.ip_len) + u32::from(t.l4_len),
        _ => 0,
    };
    for (i, (addr, len)) in send.segments.iter().enumerate() {
        let last = i + 1 == send.segments.len();
        let word = data_word(*len, last, send, send.len() - header);
        stream.push([*addr, word]);
    }
    stream
}

fn descriptors() -> Vec<Vec<u8>> {
    let words: Vec<_> = packets().iter().flat_map(stream).collect();
    let mut seeds = Vec::new();
    for kind in 0..desc::kind::COUNT {
        let op = Op::new(kind, 2, 2, 4);
        let ops: Vec<_> = words.iter().flat_map(|w| with_words(op, *w)).collect();
        seeds.push(encode(&ops));
    }
    seeds
}

fn frames() -> Vec<Vec<u8>> {
    let raw = Op::new(frame::kind::RAW, 0, 0, 0);
    let one = |send: &Send| stream(send).into_iter().flat_map(|w| with_words(raw, w));
    let mut seeds: Vec<_> = packets()
        .iter()
        .map(|send| encode(&one(send).collect::<Vec<_>>()))
        .collect();
    let piece = Op::new(frame::kind::DATA, 0, 30, (30 * 40) << 3);
    seeds.push(encode(&[
        Op::new(frame::kind::CONTEXT, 3, 20 | 14 << 9, 32 | 20 << 8),
        piece,
        Op::new(frame::kind::AGAIN, 38, 0, 0),
        Op { a: 3, ..piece },
    ]));
    seeds
}

/// Writes to registers by their offset, as igbvf does them.
fn functions() -> Vec<Vec<u8>> {
    use function::kind::*;
    let write = |at: u16, value: u32| Op::new(WRITE_AT, 0, at, value);
    let mut bring_up = vec![
        Op::new(CONFIG_WRITE, 1, 4, 6),
        write(0, 1 << 26),
        Op::new(READ_ANY, 0, 0, 0x0c40),
    ];
    for message in [
        [1, 0],
        [2, 2],
        [3 | 1 << 16, 0x123],
        [4 | 1 << 16, 5],
        [5, 9000],
        [6, 0],
    ] {
        bring_up.extend([
            write(0x0c40, 4),
            write(0x0800, message[0]),
            write(0x0804, message[1]),
            write(0x0c40, 1),
            Op::new(READ_ANY, 0, 0, 0x0c40),
            write(0x0c40, 2),
        ]);
    }
    for (at, value) in [
        (0x1700, 0x8081),
        (0x1740, 0x82),
        (0x152c, 7),
        (0x1530, 7),
        (0x1680, 488),
        (0x1684, 0x7ffc),
        (0x1524, 7),
    ] {
        bring_up.push(write(at, value));
    }
    for base in [0x3800, 0x2800] {
        for (at, value) in [
            (0, 0x1000),
            (4, 0),
            (8, 1024),
            (16, 0),
            (12, 2 << 24 | 2),
            (0x18, 0),
            (0x28, 1 << 25),
        ] {
            bring_up.push(write(base + at, value));
        }
    }
    let mut traffic = Vec::new();
    for i in 0..8u16 {
        traffic.extend([
            write(0x3818, i.into()),
            Op::new(HEAD, 0, i, 0),
            Op::new(RAISE, 1, 0, 0),
            Op::new(STATS, 0, 1, 60),
            write(0x2818, i.into()),
            Op::new(HEAD, 1, i, 0),
            Op::new(RAISE, 0, 0, 0),
            Op::new(SIGNALS, 0, 0, 100_000),
            Op::new(READ_ANY, 0, 0, 0x1580),
            write(0x1524, 7),
        ]);
    }
    let mut end = Vec::new();
    for op in [
        write(0x3828, 0),
        write(0x2828, 0),
        Op::new(LINK, 3, 0, 0),
        Op::new(LINK, 0, 0, 0),
        Op::new(CONFIG_WRITE, 1, 0xa8, 0x8000),
        Op::new(RESET, 0, 0, 0),
    ] {
        end.push(op);
    }
    let late = [Op::new(HOST_MODE, 0, 0, 0)];
    let steps = [Op::new(HOST_STEP, 1, 0, 0); 16];
    let table: Vec<_> = (0..48)
        .step_by(4)
        .flat_map(|at| {
            [
                Op::new(MSIX_WRITE, 0, at, 0xfee0_0000),
                Op::new(MSIX_READ, 0, 0, at.into()),
                Op::new(CONFIG_READ, 0, at, 0),
            ]
        })
        .collect();
    vec![
        encode(&bring_up),
        encode(&[&bring_up[..], &traffic].concat()),
        encode(&[&bring_up[..], &traffic, &end].concat()),
        encode(&[&late[..], &bring_up, &steps, &traffic, &steps, &end].concat()),
        encode(&table),
    ]
}

fn slices() -> Vec<Vec<u8>> {
    use slice::kind::*;
    let mut seeds = Vec::new();
    for strategy in 0..5 {
        for rules in [0, 1, 2, 4] {
            let machine = Op::new(0, rules, 2 | 4 << 3, strategy);
            let up = [
                Op::new(BRING_UP, 0, 0, 0),
                Op::new(SET_UP, 3 << 1, 0, 0x1000 / 128),
                Op::new(SET_UP, 3 << 1 | 1, 0, 0x2000 / 128),
            ];
            let mut traffic = Vec::new();
            for i in 0..6 {
                traffic.extend([
                    Op::new(POST, 7, 0x830, 0x8000 + 0x1000 * i),
                    Op::new(TAIL, 1, 0, 0),
                    Op::new(
                        SEND,
                        (i as u8) << 1,
                        0x31 + 0x100 * i as u16,
                        0x10ff8 + 0x3000 * i,
                    ),
                    Op::new(SEND, (i as u8) << 1 | 9, 0x20, 0x12000),
                    Op::new(TAIL, 0, 0, 0),
                    Op::new(POLL, 0, 64, 1000),
                    Op::new(ARRIVE, 0, 100, i),
                    Op::new(ARRIVE, 1 | 63 << 2, 1400, 5 << 8),
                    Op::new(SENT, 100, 100, 0),
                    Op::new(POLL, 0, 64, 1000),
                ]);
            }
            let memory = [
                Op::new(UNMAP, 3, 9, 0),
                Op::new(MAP, 15 << 2, 9, 0),
                Op::new(STORE, 1, 6, 0x10ff8),
            ];
            let other = [Op::new(STRATEGY, strategy as u8 + 1, 0, 0)];
            let next = [Op::new(REOPEN, rules, 0, 0)];
            let requests = [2, 3, 4, 5, 6].map(|kind| Op::new(MAILBOX, kind, 1, 5));
            let parts: &[&[Op]] = match rules {
                0 => &[&up, &traffic, &memory, &up, &traffic],
                1 => &[&up, &traffic, &next, &up, &requests, &traffic],
                2 => &[&up, &traffic, &other, &traffic],
                _ => &[
                    &up, &requests, &traffic, &memory, &other, &up, &traffic, &next, &up,
                ],
            };
            seeds.push(encode(&[&[machine][..], &parts.concat()].concat()));
        }
    }
    seeds
}

fn sources() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for which in 0..3 {
        for rest in [
            &[8, 0][..],
            &[0x81, 0, 0, 5, 8, 0],
            &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x88, 8],
            &[
                0x91, 0, 0, 5, 0x92, 0, 0, 6, 0x93, 0, 0, 7, 0x81, 0, 0, 0, 0x88, 8,
            ],
        ] {
            for insert in 0..2 {
                let mut seed = vec![which, insert, 0x20, 5, 5, 0, 6, 0];
                seed.extend([1, 0x80, 0xc2, 0, 0, 0x1e, 2, 0, 0, 0, 0, 1]);
                seed.extend(rest);
                seeds.push(seed);
            }
        }
    }
    seeds
}
