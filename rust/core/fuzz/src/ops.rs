// SPDX-License-Identifier: GPL-2.0

//! Inputs as lists of records of eight bytes, and how many operations were done.

use std::cell::Cell;

use crate::sim::rng::Rng;

/// Bytes in a record.
pub const RECORD: usize = 8;

/// One step of an input. What the fields mean is the target's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Op {
    pub kind: u8,
    pub a: u8,
    pub b: u16,
    pub v: u32,
}

impl Op {
    pub const fn new(kind: u8, a: u8, b: u16, v: u32) -> Self {
        Self { kind, a, b, v }
    }

    fn decode(bytes: &[u8; RECORD]) -> Self {
        let [kind, a, b0, b1, v0, v1, v2, v3] = *bytes;
        Self {
            kind,
            a,
            b: u16::from_le_bytes([b0, b1]),
            v: u32::from_le_bytes([v0, v1, v2, v3]),
        }
    }

    pub fn encode(self) -> [u8; RECORD] {
        let ([b0, b1], [v0, v1, v2, v3]) = (self.b.to_le_bytes(), self.v.to_le_bytes());
        [self.kind, self.a, b0, b1, v0, v1, v2, v3]
    }

    /// All eight bytes, for records that carry a word.
    pub fn word(self) -> u64 {
        u64::from_le_bytes(self.encode())
    }

    /// The record that carries `word`.
    pub fn of_word(word: u64) -> Self {
        Self::decode(&word.to_le_bytes())
    }

    /// Bit `bit` of `a`.
    pub fn flag(self, bit: u32) -> bool {
        self.a >> bit & 1 != 0
    }
}

/// The records of an input. A rest at its end is left out.
pub fn decode(data: &[u8]) -> impl Iterator<Item = Op> + '_ {
    data.chunks_exact(RECORD)
        .map(|bytes| Op::decode(bytes.try_into().expect("eight bytes")))
}

/// Tells how many operations there were when the thread ends: libFuzzer's main thread does, by
/// `exit`, unless an input crashes it.
struct Total(Cell<u64>);

/// Operations between two reports.
const REPORT: u64 = 1 << 20;

impl Total {
    fn show(&self) {
        eprintln!("operations: {}", self.0.get());
    }
}

impl Drop for Total {
    fn drop(&mut self) {
        self.show();
    }
}

thread_local! {
    static TOTAL: Total = const { Total(Cell::new(0)) };
}

/// Counts `n` operations.
pub fn count(n: u64) {
    TOTAL.with(|total| {
        let (before, after) = (total.0.get(), total.0.get() + n);
        total.0.set(after);
        if before / REPORT != after / REPORT {
            total.show();
        }
    });
}

/// A mutation that keeps records whole, or one of libFuzzer's own (`other`, given data, its length
/// and the room there is). Returns the new length.
pub fn mutate(
    data: &mut [u8],
    len: usize,
    max_len: usize,
    seed: u32,
    other: fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut rng = Rng::new(seed.into());
    let (count, room) = (len / RECORD, max_len.min(data.len()) / RECORD);
    if count == 0 || rng.chance(25) {
        return other(data, len, max_len);
    }
    let len = count * RECORD;
    let pick = |rng: &mut Rng| rng.below(count as u64) as usize * RECORD;
    let (at, from) = (pick(&mut rng), pick(&mut rng));
    match rng.below(6) {
        // One record's bytes, by libFuzzer, which knows what was compared with what.
        0 | 1 => {
            let record = &mut data[at..at + RECORD];
            let now = other(record, RECORD, RECORD).min(RECORD);
            record[now..].fill(0);
        }
        // Some records go.
        2 => {
            let gone = (rng.within(1, 8) as usize * RECORD).min(len - at);
            data.copy_within(at + gone..len, at);
            return len - gone;
        }
        // Some records twice, the copies elsewhere.
        3 => {
            let size = (rng.within(1, 8) as usize).min(room - count) * RECORD;
            let size = size.min(len - from);
            let copy = data[from..from + size].to_vec();
            data.copy_within(at..len, at + size);
            data[at..at + size].copy_from_slice(&copy);
            return len + size;
        }
        // Two records change places.
        4 => {
            for i in 0..RECORD {
                data.swap(at + i, from + i);
            }
        }
        // A record of an input's kind, with other values.
        _ if room > count => {
            let kind = data[from];
            data.copy_within(at..len, at + RECORD);
            rng.fill(&mut data[at..at + RECORD]);
            if rng.chance(80) {
                data[at] = kind;
            }
            return len + RECORD;
        }
        _ => rng.fill(&mut data[at..at + RECORD]),
    }
    len
}
