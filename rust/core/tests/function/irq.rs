// SPDX-License-Identifier: GPL-2.0

//! Interrupts: routing, masks, auto-clear, auto-mask and moderation.

use proptest::prelude::*;

use sluice_core::net::MacAddr;
use sluice_core::vf::irq::{interval_ns, LONGEST_GAP_NS, TX_GAP_ROUNDS, TX_HELD_BYTES};
use sluice_core::vf::{
    Action,
    Cause,
    Function,
    Identity,
    Refusal,
    Stats,
    Width, //
};

const EICS: u32 = 0x1520;
const EIMS: u32 = 0x1524;
const EIMC: u32 = 0x1528;
const EIAC: u32 = 0x152C;
const EIAM: u32 = 0x1530;
const EICR: u32 = 0x1580;
const EITR: u32 = 0x1680;
const IVAR0: u32 = 0x1700;
const IVAR_MISC: u32 = 0x1740;

const CAUSES: [Cause; 5] = [Cause::Rx0, Cause::Tx0, Cause::Rx1, Cause::Tx1, Cause::Other];

/// A function that may send interrupts, with the causes routed as igbvf does.
fn function() -> Function {
    let mut f = Function::new(Identity {
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
    });
    assert_eq!(f.config_write(4, Width::Word, 6), Action::BusMaster(true));
    write(&mut f, IVAR0, 0x8081);
    write(&mut f, IVAR_MISC, 0x82);
    f
}

fn act(f: &mut Function, offset: u32, value: u32) -> Action {
    f.mmio_write(offset, Width::Dword, value)
}

fn write(f: &mut Function, offset: u32, value: u32) {
    let _ = act(f, offset, value);
}

fn read(f: &mut Function, offset: u32) -> u32 {
    f.mmio_read(offset, Width::Dword)
}

fn fired(f: &mut Function, now_ns: u64) -> u8 {
    f.take_signals(now_ns).vectors.bits()
}

#[test]
fn causes_go_where_they_are_routed() {
    for vector in 0..3 {
        for (i, cause) in CAUSES.into_iter().enumerate() {
            let mut f = function();
            write(&mut f, IVAR0, 0);
            write(&mut f, IVAR_MISC, 0);
            write(&mut f, EIMS, 7);
            f.raise(cause);
            assert_eq!(fired(&mut f, 0), 0);
            assert_eq!(f.counters().unrouted, 1);
            match i {
                4 => write(&mut f, IVAR_MISC, 0x80 | vector),
                _ => write(&mut f, IVAR0, (0x80 | vector) << (8 * i)),
            };
            f.raise(cause);
            assert_eq!(fired(&mut f, 0), 1 << vector);
            assert_eq!(f.counters().unrouted, 1);
        }
    }
}

#[test]
fn a_vector_that_does_not_exist_is_refused() {
    let mut f = function();
    write(&mut f, IVAR0, 0x83);
    write(&mut f, EIMS, 7);
    f.raise(Cause::Rx0);
    assert_eq!(fired(&mut f, 0), 0);
    assert_eq!(f.counters().refused(Refusal::NoSuchVector), 1);
}

#[test]
fn a_masked_cause_waits_for_its_mask() {
    let mut f = function();
    f.raise(Cause::Rx0);
    assert!(!f.signals_due());
    assert_eq!(fired(&mut f, 0), 0);
    assert_eq!(act(&mut f, EIMS, 2), Action::Signals);
    assert_eq!(fired(&mut f, 0), 2);
}

#[test]
fn without_auto_clear_a_cause_fires_once_until_it_falls() {
    let mut f = function();
    write(&mut f, EIMS, 7);
    f.raise(Cause::Rx0);
    assert_eq!(fired(&mut f, 0), 2);
    f.raise(Cause::Rx0);
    assert_eq!(fired(&mut f, 1), 0);
    write(&mut f, EICR, 2);
    f.raise(Cause::Rx0);
    assert_eq!(fired(&mut f, 2), 2);
    // Masking and unmasking what still stands fires it again.
    write(&mut f, EIMC, 2);
    write(&mut f, EIMS, 2);
    assert_eq!(fired(&mut f, 3), 2);
    assert_eq!(read(&mut f, EICR), 2);
    assert_eq!(read(&mut f, EICR), 0);
    assert_eq!(fired(&mut f, 4), 0);
}

#[test]
fn firing_clears_and_masks_as_told() {
    let mut f = function();
    write(&mut f, EIMS, 7);
    write(&mut f, EIAC, 3);
    write(&mut f, EIAM, 6);
    assert_eq!(act(&mut f, EICS, 7), Action::Signals);
    assert_eq!(fired(&mut f, 0), 7);
    assert_eq!(read(&mut f, EIMS), 1);
    assert_eq!(read(&mut f, EICR), 4);
    // EICS unmasks what is masked automatically, and nothing else.
    write(&mut f, EIMC, 1);
    write(&mut f, EICS, 3);
    assert_eq!(read(&mut f, EIMS), 2);
}

#[test]
fn moderation_holds_back_and_names_the_time() {
    let mut f = function();
    write(&mut f, EIMS, 7);
    write(&mut f, EIAC, 7);
    // 488 >> 2 = 122 microseconds.
    write(&mut f, EITR + 4, 488);
    assert_eq!(interval_ns(488), 122_000);
    f.raise(Cause::Rx0);
    assert_eq!(fired(&mut f, 1_000), 2);
    f.raise(Cause::Rx0);
    f.raise(Cause::Tx0);
    let signals = f.take_signals(2_000);
    // The other vector has no moderation.
    assert_eq!(signals.vectors.bits(), 1);
    assert_eq!(signals.deadline_ns, Some(123_000));
    assert_eq!(f.take_signals(122_999).vectors.bits(), 0);
    assert_eq!(f.take_signals(123_000).vectors.bits(), 2);
    assert_eq!(f.take_signals(123_000).deadline_ns, None);
    // A new interval counts at once, from the last interrupt.
    f.raise(Cause::Rx0);
    assert_eq!(fired(&mut f, 124_000), 0);
    assert_eq!(act(&mut f, EITR + 4, 0), Action::Signals);
    assert_eq!(fired(&mut f, 124_000), 2);
}

/// Raises `cause`, which fires at `at_ns`, and unmasks its vector `took_ns` later.
fn round(f: &mut Function, cause: Cause, vector: u32, at_ns: u64, took_ns: u64) {
    f.raise(cause);
    assert_eq!(u32::from(fired(f, at_ns)), 1 << vector);
    write(f, EIMS, 1 << vector);
    f.written(at_ns + took_ns);
}

/// When the vector of a cause that is raised now would fire.
fn next_ns(f: &Function, cause: Cause, now_ns: u64) -> u64 {
    let mut f = f.clone();
    f.raise(cause);
    f.take_signals(now_ns).deadline_ns.unwrap_or(now_ns)
}

fn auto_masked(f: &mut Function) {
    for mask in [EIAC, EIAM, EIMS] {
        write(f, mask, 7);
    }
}

#[test]
fn a_transmit_vector_is_held_back_for_what_it_costs() {
    let mut f = function();
    auto_masked(&mut f);
    // Longer rounds count for an eighth, shorter ones for a half.
    round(&mut f, Cause::Tx0, 0, 0, 800_000);
    assert_eq!(next_ns(&f, Cause::Tx0, 1), TX_GAP_ROUNDS * 100_000);
    round(&mut f, Cause::Tx0, 0, 2_000_000, 40_000);
    assert_eq!(
        next_ns(&f, Cause::Tx0, 2_050_000),
        2_000_000 + TX_GAP_ROUNDS * 70_000
    );
    // The guest's own wish counts where it is longer.
    write(&mut f, EITR, 0x7FFC);
    assert_eq!(
        next_ns(&f, Cause::Tx0, 2_050_000),
        2_000_000 + interval_ns(0x7FFC)
    );
    write(&mut f, EITR, 0);
    // A reset forgets nothing.
    write(&mut f, 0, 1 << 26);
    f.reset_done();
    write(&mut f, IVAR0, 0x8081);
    auto_masked(&mut f);
    assert_eq!(
        next_ns(&f, Cause::Tx0, 2_050_000),
        2_000_000 + TX_GAP_ROUNDS * 70_000
    );
}

#[test]
fn large_packets_are_not_held_back() {
    let mut f = function();
    auto_masked(&mut f);
    round(&mut f, Cause::Tx0, 0, 0, 800_000);
    let gap_ns = TX_GAP_ROUNDS * 100_000;
    let send = |f: &mut Function, tx_bytes| {
        f.add_stats(&Stats {
            tx_bytes,
            ..Stats::default()
        })
    };
    send(&mut f, TX_HELD_BYTES - 1);
    assert_eq!(next_ns(&f, Cause::Tx0, 1_000_000), gap_ns);
    // Receiving takes nothing away.
    f.raise(Cause::Rx0);
    assert_eq!(fired(&mut f, 1_000_000), 2);
    send(&mut f, 1);
    assert_eq!(next_ns(&f, Cause::Tx0, 1_000_000), 1_000_000);
    // The guest's own wish counts all the same.
    write(&mut f, EITR, 0x7FFC);
    assert_eq!(next_ns(&f, Cause::Tx0, 1_000_000), interval_ns(0x7FFC));
    write(&mut f, EITR, 0);
    // It is told of once.
    round(&mut f, Cause::Tx0, 0, 1_000_000, 100_000);
    assert_eq!(next_ns(&f, Cause::Tx0, 1_200_000), 1_000_000 + gap_ns);
}

#[test]
fn a_guest_that_sleeps_on_a_transmit_interrupt_gets_the_next_one_in_time() {
    let mut f = function();
    auto_masked(&mut f);
    let mut now_ns = 0;
    for _ in 0..100 {
        round(&mut f, Cause::Tx0, 0, now_ns, 1 << 40);
        assert!(next_ns(&f, Cause::Tx0, now_ns) <= now_ns + LONGEST_GAP_NS);
        now_ns += LONGEST_GAP_NS;
    }
    assert_eq!(next_ns(&f, Cause::Tx0, now_ns), now_ns);
}

#[test]
fn what_receives_or_is_not_answered_is_not_held_back() {
    let mut f = function();
    auto_masked(&mut f);
    round(&mut f, Cause::Rx0, 1, 0, 800_000);
    assert_eq!(next_ns(&f, Cause::Rx0, 1), 1);
    // One vector for both.
    write(&mut f, IVAR0, 0x8080);
    round(&mut f, Cause::Tx0, 0, 0, 800_000);
    assert_eq!(next_ns(&f, Cause::Tx0, 1), 1);
    // Nothing masks it: there is no answer to wait for.
    let mut f = function();
    write(&mut f, EIAC, 7);
    write(&mut f, EIMS, 7);
    round(&mut f, Cause::Tx0, 0, 0, 800_000);
    assert_eq!(next_ns(&f, Cause::Tx0, 1), 1);
}

#[test]
fn a_clock_that_runs_backwards_costs_one_interval() {
    let mut f = function();
    write(&mut f, EIMS, 7);
    write(&mut f, EIAC, 7);
    write(&mut f, EITR, 4000);
    f.raise(Cause::Tx0);
    assert_eq!(fired(&mut f, 1_000_000_000), 1);
    f.raise(Cause::Tx0);
    let signals = f.take_signals(5_000);
    assert_eq!(signals.vectors.bits(), 0);
    assert_eq!(signals.deadline_ns, Some(5_000 + interval_ns(4000)));
    assert_eq!(fired(&mut f, 5_000 + interval_ns(4000)), 1);
}

#[test]
fn a_reset_does_not_escape_moderation() {
    let mut f = function();
    let arm = |f: &mut Function| {
        write(f, IVAR0, 0x8081);
        write(f, EITR, 0x7FFC);
        write(f, EIAC, 7);
        write(f, EIMS, 7);
        f.raise(Cause::Tx0);
    };
    arm(&mut f);
    assert_eq!(fired(&mut f, 0), 1);
    write(&mut f, 0, 1 << 26);
    f.reset_done();
    arm(&mut f);
    let signals = f.take_signals(1);
    assert_eq!(signals.vectors.bits(), 0);
    assert_eq!(signals.deadline_ns, Some(interval_ns(0x7FFC)));
}

/// What one vector tells of is no reason any more not to hold the other one back.
#[test]
fn a_deadline_is_of_what_is_left_to_tell() {
    let mut f = function();
    write(&mut f, IVAR0, 0x8200_8100);
    write(&mut f, EIAC, 7);
    write(&mut f, EIAM, 7);
    write(&mut f, EIMS, 7);
    let raise = |f: &mut Function| {
        f.raise(Cause::Tx0);
        f.raise(Cause::Tx1);
    };
    raise(&mut f);
    assert_eq!(fired(&mut f, 0), 6);
    // An eighth of the time that it took is a round.
    write(&mut f, EIMS, 7);
    f.written(10_000);
    write(&mut f, EITR + 4, 15 << 2);
    f.add_stats(&Stats {
        tx_bytes: TX_HELD_BYTES,
        ..Stats::default()
    });
    raise(&mut f);
    let signals = f.take_signals(10_001);
    assert_eq!(signals.vectors.bits(), 4);
    let cost_ns = TX_GAP_ROUNDS * 10_000 / 8;
    assert_eq!(signals.deadline_ns, Some(cost_ns));
    assert_eq!(fired(&mut f, cost_ns - 1), 0);
    assert_eq!(fired(&mut f, cost_ns), 2);
}

#[test]
fn without_bus_mastering_nothing_is_sent_or_lost() {
    let mut f = function();
    write(&mut f, EIMS, 7);
    let _ = f.config_write(4, Width::Word, 2);
    assert_eq!(act(&mut f, EICS, 4), Action::None);
    assert_eq!(fired(&mut f, 0), 0);
    let _ = f.config_write(4, Width::Word, 6);
    assert_eq!(fired(&mut f, 0), 4);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u32, u32),
    ReadCause,
    Raise(Cause),
    Transmit(u32),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let offsets = vec![EICS, EIMS, EIMC, EIAC, EIAM, EICR];
    prop_oneof![
        6 => (prop::sample::select(offsets), 0..8u32).prop_map(|(o, v)| Step::Write(o, v)),
        2 => (0..3u32, 0..2000u32).prop_map(|(n, v)| Step::Write(EITR + 4 * n, v)),
        1 => any::<u32>().prop_map(|v| Step::Write(IVAR0, v)),
        1 => any::<u32>().prop_map(|v| Step::Write(IVAR_MISC, v)),
        1 => Just(Step::ReadCause),
        8 => prop::sample::select(CAUSES.to_vec()).prop_map(Step::Raise),
        2 => (0..TX_HELD_BYTES).prop_map(Step::Transmit),
        8 => (0..300_000u64).prop_map(Step::Wait),
    ]
}

/// The rules once more, as plainly as can be: sets of vectors and a clock.
#[derive(Default)]
struct Plain {
    cause: [bool; 3],
    open: [bool; 3],
    clear: [bool; 3],
    mask: [bool; 3],
    /// The standing cause was signalled already.
    told: [bool; 3],
    eitr: [u32; 3],
    last: [Option<u64>; 3],
    ivar: [u8; 5],
    /// It masked itself when it fired, and is not unmasked yet.
    asked: [bool; 3],
    round: [u64; 3],
    gone: u32,
}

impl Plain {
    fn assigned(&self, i: usize, v: usize) -> bool {
        self.ivar[i] & 0x83 == 0x80 | v as u8
    }

    fn transmits(&self, v: usize) -> bool {
        self.assigned(1, v) || self.assigned(3, v)
    }

    /// At least so long after the last one.
    fn gap(&self, v: usize) -> u64 {
        let other = [0, 2, 4].iter().any(|&i| self.assigned(i, v));
        let cost = if self.transmits(v) && !other && self.gone < TX_HELD_BYTES {
            TX_GAP_ROUNDS * self.round[v]
        } else {
            0
        };
        let asked = u64::from((self.eitr[v] >> 2) & 0x1FFF) * 1000;
        asked.max(cost.min(LONGEST_GAP_NS))
    }

    fn answer(&mut self, v: usize, now_ns: u64) {
        let took = (now_ns - self.last[v].unwrap()).min(LONGEST_GAP_NS);
        self.asked[v] = false;
        if took >= self.round[v] {
            self.round[v] += (took - self.round[v]) / 8;
        } else {
            self.round[v] = (took + self.round[v]) / 2;
        }
    }

    fn apply(&mut self, step: Step, now_ns: u64) {
        match step {
            Step::Write(EITR..=0x1688, _) | Step::Wait(_) => {}
            Step::Transmit(len_bytes) => self.gone += len_bytes,
            Step::Write(IVAR0, value) => self.ivar[..4].copy_from_slice(&value.to_le_bytes()),
            Step::Write(IVAR_MISC, value) => self.ivar[4] = value as u8,
            Step::Raise(cause) => {
                let i = CAUSES.iter().position(|c| *c == cause).unwrap();
                let vector = usize::from(self.ivar[i] & 3);
                if self.ivar[i] & 0x80 != 0 && vector < 3 {
                    self.cause[vector] = true;
                }
            }
            _ => {}
        }
        for v in 0..3 {
            let bit = |value: u32| (value >> v) & 1 != 0;
            match step {
                Step::Write(EICS, value) if bit(value) && self.mask[v] && self.asked[v] => {
                    self.answer(v, now_ns);
                }
                Step::Write(EIMS, value) if bit(value) && self.asked[v] => self.answer(v, now_ns),
                _ => {}
            }
            match step {
                Step::Write(EICS, value) if bit(value) => {
                    self.cause[v] = true;
                    self.open[v] |= self.mask[v];
                }
                Step::Write(EIMS, value) if bit(value) => self.open[v] = true,
                Step::Write(EIMC, value) if bit(value) => self.open[v] = false,
                Step::Write(EICR, value) if bit(value) => self.cause[v] = false,
                Step::Write(EIAC, value) => self.clear[v] = bit(value),
                Step::Write(EIAM, value) => self.mask[v] = bit(value),
                Step::Write(offset, value) if offset == EITR + 4 * v as u32 => {
                    self.eitr[v] = value;
                }
                Step::ReadCause => self.cause[v] = false,
                _ => {}
            }
            self.told[v] &= self.cause[v] && self.open[v];
        }
    }

    fn fire(&mut self, now_ns: u64) -> u8 {
        let (mut fired, mut told) = (0, false);
        for v in 0..3 {
            let ready = self.last[v].is_none_or(|last| now_ns >= last + self.gap(v));
            if self.cause[v] && self.open[v] && !self.told[v] && ready {
                fired |= 1 << v;
                told |= self.transmits(v);
                self.last[v] = Some(now_ns);
                self.cause[v] &= !self.clear[v];
                self.open[v] &= !self.mask[v];
                self.asked[v] = self.mask[v];
                self.told[v] = self.cause[v] && self.open[v];
            }
        }
        if told {
            self.gone = 0;
        }
        fired
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The model fires exactly what the plain rules fire, at the same times; two interrupts of a
    /// vector are never closer than its interval; and a deadline is the time at which it fires.
    #[test]
    fn the_model_fires_as_the_rules_say(steps in prop::collection::vec(step(), 1..300)) {
        let mut f = function();
        let mut plain = Plain { ivar: [0x81, 0x80, 0, 0, 0x82], ..Plain::default() };
        let mut now_ns = 0;
        let mut last: [Option<u64>; 3] = [None; 3];
        for step in steps {
            match step {
                Step::Write(offset, value) => write(&mut f, offset, value),
                Step::ReadCause => {
                    read(&mut f, EICR);
                }
                Step::Raise(cause) => f.raise(cause),
                Step::Transmit(tx_bytes) => f.add_stats(&Stats {
                    tx_bytes,
                    ..Stats::default()
                }),
                Step::Wait(ns) => now_ns += ns,
            }
            f.written(now_ns);
            plain.apply(step, now_ns);

            let signals = f.take_signals(now_ns);
            prop_assert_eq!(signals.vectors.bits(), plain.fire(now_ns));
            for vector in signals.vectors.iter() {
                let eitr = read(&mut f, EITR + 4 * u32::from(vector));
                let seen = &mut last[usize::from(vector)];
                if let Some(seen) = *seen {
                    prop_assert!(now_ns - seen >= interval_ns(eitr as u16));
                }
                *seen = Some(now_ns);
            }
            if let Some(deadline_ns) = signals.deadline_ns {
                prop_assert!(deadline_ns > now_ns);
                let mut early = f.clone();
                prop_assert_eq!(fired(&mut early, deadline_ns - 1), 0);
                let mut there = f.clone();
                prop_assert_ne!(fired(&mut there, deadline_ns), 0);
            } else {
                prop_assert!(!f.signals_due());
            }
        }
    }
}
