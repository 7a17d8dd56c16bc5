// SPDX-License-Identifier: GPL-2.0

//! A hostile guest with a hostile VMM against the whole data path. The simulated machine checks
//! invariants 1 to 4 at every pin, doorbell and transfer; [`Rig::check`] the books after every step.

use std::collections::BTreeMap;

use crate::sim::guest::*;
use crate::sim::nic::Dir;
use crate::sim::rig::{
    Map,
    Rig, //
};
use crate::sim::rng::Rng;
use crate::sim::{
    SimBuilder,
    SimMachine, //
};
use sluice_core::addr::GRANULE_PAGES;
use sluice_core::check::Rejection;
use sluice_core::map::{
    Mapper,
    PageRange,
    Strategy, //
};
use sluice_core::net::MacAddr;
use sluice_core::path::State;
use sluice_core::platform::RxLayout;
use sluice_core::source::{
    MacList,
    SourceRules,
    VlanPolicy, //
};

const GUEST_PAGES: u64 = 360;
/// For those who have granules: three of them.
const HUGE_PAGES: u64 = 3 * 512 + 100;
const MAX_FRAME: u32 = 1522;

/// What came of many runs.
#[derive(Debug, Default)]
struct Tally {
    taken: u64,
    posted: u64,
    frames: u64,
    received: u64,
    bounced: u64,
    unmaps: u64,
    quiesced: u64,
    evictions: u64,
    busy: u64,
    leaked: u64,
    /// Most granules at a time, of each run; and how often one was in flight and taken away.
    granules: u64,
    granules_quiesced: u64,
    rejected: BTreeMap<&'static str, u64>,
}

struct Attack {
    rig: Rig,
    rng: Rng,
    guest_pages: u64,
    /// Where the guest believes the rings to be.
    tx_base: u64,
    rx_base: u64,
    tx_count: u64,
    rx_count: u64,
    tx_tail: u64,
    rx_tail: u64,
    flaws: u64,
    may_stick: bool,
    unmaps: u64,
    quiesced: u64,
    granules: u64,
    granules_quiesced: u64,
}

impl Attack {
    fn new(
        strategy: Strategy,
        seed: u64,
        builder: SimBuilder,
        flaws: u64,
        may_stick: bool,
    ) -> Self {
        let builder = builder.seed(seed);
        let (guest_pages, map_pages) = if builder.has_huge_pages() {
            (HUGE_PAGES, 2048)
        } else {
            (GUEST_PAGES, Map::MIN_PAGES)
        };
        let mut rig = Rig::new(strategy, builder.guest_pages(guest_pages), map_pages);
        rig.sim.world().hostile = true;
        if seed / 4 % 2 == 0 {
            // Frames are checked, and made of twos to begin with.
            rig.source = Some(SourceRules {
                mac: MacAddr::new([2; 6]),
                more_macs: MacList::EMPTY,
                vlans: VlanPolicy::Any,
                broadcast: true,
                link_local: false,
            });
            let memory = vec![2; (guest_pages << 12) as usize];
            rig.sim.world().guest_write(0, &memory);
        }
        Self {
            rig,
            rng: Rng::new(!seed),
            guest_pages,
            tx_base: 0,
            rx_base: 0,
            tx_count: 8,
            rx_count: 8,
            tx_tail: 0,
            rx_tail: 0,
            flaws,
            may_stick,
            unmaps: 0,
            quiesced: 0,
            granules: 0,
            granules_quiesced: 0,
        }
    }

    /// An address that is mostly guest memory.
    fn addr(&mut self) -> u64 {
        if self.rng.chance(self.flaws) {
            let wild = [
                u64::MAX,
                u64::MAX - 1000,
                0xfee0_0000,
                (self.guest_pages << 12) - 20,
                self.rng.next(),
                self.rng.next() >> 20,
            ];
            return self.rng.pick(&wild);
        }
        self.rng.below(self.guest_pages << 12)
    }

    fn flaw(&mut self, words: &mut [u64; 2]) {
        if self.rng.chance(self.flaws) {
            let bit = self.rng.below(128) as usize;
            words[bit / 64] ^= 1 << (bit % 64);
        }
    }

    /// Stores bytes where the guest can: somewhere in what the VMM has mapped.
    fn store(&mut self, addr: u64, words: [u64; 2]) {
        let mut world = self.rig.sim.world();
        if world.is_mapped(addr >> 12) {
            world.guest_write_desc(addr, words);
        }
    }

    fn put_tx(&mut self, mut words: [u64; 2]) {
        self.flaw(&mut words);
        self.store(self.tx_base + self.tx_tail * 16, words);
        self.tx_tail = (self.tx_tail + 1) % self.tx_count;
    }

    fn write_tx(&mut self) {
        let mut send = Send::default();
        let kind = self.rng.below(4);
        if self.rng.chance(30) {
            send.vlan = Some(self.rng.next() as u16);
        }
        if kind >= 2 {
            send.csum = Some(Csum {
                mac_len: 14,
                ip_len: 40,
                ipv4: true,
                l4: 1,
                ip_checksum: self.rng.chance(50),
            });
        }
        if kind == 3 {
            send.tso = Some(Tso {
                mss: self.rng.within(8, 1400) as u16,
                l4_len: 20,
            });
        }
        let most = if kind == 3 { 9000 } else { 350 };
        for _ in 0..self.rng.within(1, 4) {
            let addr = self.addr();
            send.segments.push((addr, self.rng.within(74, most) as u16));
        }
        if kind >= 2 || send.vlan.is_some() {
            self.put_tx(context_words(&send));
        }
        let payload = send.len() - if kind == 3 { 74 } else { 0 };
        for (i, (addr, len)) in send.segments.iter().enumerate() {
            let last = i + 1 == send.segments.len();
            // Sometimes a packet stays without an end, for a later poll or for ever.
            let word = data_word(*len, last && !self.rng.chance(self.flaws), &send, payload);
            self.put_tx([*addr, word]);
        }
    }

    fn write_rx(&mut self) {
        let mut words = [self.addr() & !1, self.addr() & !1];
        self.flaw(&mut words);
        self.store(self.rx_base + self.rx_tail * 16, words);
        self.rx_tail = (self.rx_tail + 1) % self.rx_count;
    }

    fn tail(&mut self, honest: u64) -> u32 {
        if self.rng.chance(self.flaws) {
            return self.rng.pick(&[0, 1, 7, 8, 4095, 4096, u32::MAX]);
        }
        honest as u32
    }

    fn ring(&mut self) -> (u64, u32) {
        if self.rng.chance(10) {
            return (
                self.rng.next() >> self.rng.below(64),
                self.rng.next() as u32,
            );
        }
        let len = self.rng.pick(&[128, 256, 1024, 4096, 16384]);
        (self.rng.below(self.guest_pages << 5) * 128, len)
    }

    /// The guest enables whatever is off, and resets what has faulted.
    fn enable(&mut self) {
        if self.rig.tx.state() != State::Running {
            let _ = self.rig.tx_stop();
            self.rig.sim.world().set_stuck(Dir::Tx, false);
            let (base, len) = self.ring();
            if self.rig.tx_enable(base, len, MAX_FRAME).is_ok() {
                (self.tx_base, self.tx_count) = (base, u64::from(len) / 16);
                self.tx_tail = 0;
            }
        }
        if self.rig.rx.state() != State::Running {
            let _ = self.rig.rx_stop();
            self.rig.sim.world().set_stuck(Dir::Rx, false);
            let (base, len) = self.ring();
            let layout = RxLayout {
                packet_bytes: self.rng.pick(&[1024, 2048, 2048, 3072, 4096, 100]),
                header_bytes: self.rng.pick(&[0, 0, 128, 960, 1]),
            };
            let frame = self.rng.pick(&[MAX_FRAME, 9234]);
            if self.rig.rx_enable(base, len, layout, frame).is_ok() {
                (self.rx_base, self.rx_count) = (base, u64::from(len) / 16);
                self.rx_tail = 0;
            }
        }
    }

    fn poll(&mut self) {
        let (a, b) = (self.tail(self.tx_tail), self.tail(self.rx_tail));
        let (m, n) = (self.rng.below(40) as u16, self.rng.below(40) as u16);
        let before = self.rig.stats.faults();
        let p = self.rig.tx_poll(a, m);
        let q = self.rig.rx_poll(b, n);
        assert!(p.taken <= m && q.taken <= n, "the budget holds");
        let faults = u64::from(p.fault.is_some()) + u64::from(q.fault.is_some());
        assert_eq!(self.rig.stats.faults() - before, faults);
    }

    fn nic(&mut self) {
        let mut world = self.rig.sim.world();
        if self.rng.chance(60) && world.rx_backlog() < 100 {
            let mut bytes = vec![0; self.rng.within(60, 1518) as usize];
            self.rng.fill(&mut bytes);
            world.nic_rx_arrives(&bytes, None);
        }
        world.nic_tx_fetch(self.rng.below(30) as u16);
        world.nic_tx_write_back(self.rng.below(30) as u16);
        world.nic_rx_fill(self.rng.below(10) as u16);
        for packet in std::mem::take(&mut world.wire) {
            let tag = if packet.vlan.is_some() { 4 } else { 0 };
            let len = match packet.tso_mss {
                Some(mss) => 74 + usize::from(mss),
                None => packet.bytes.len(),
            };
            assert!(len >= 17 && len + 4 + tag <= MAX_FRAME as usize);
            if self.rig.source.is_some() {
                assert_eq!(packet.bytes[6..12], [2; 6], "spoofed");
            }
        }
    }

    /// The VMM takes memory away and gives other memory instead.
    fn unmap(&mut self) {
        let first = self.rng.below(self.guest_pages);
        let all = self.rng.chance(5);
        let guest_pages = self.guest_pages;
        let pages = if all {
            guest_pages
        } else {
            self.rng.within(1, 20)
        };
        let range = if all {
            PageRange::ALL
        } else {
            PageRange::from_bytes(first << 12, pages << 12).unwrap()
        };
        let Rig {
            sim, map, tx, rx, ..
        } = &mut self.rig;
        let busy = map.invalidate(&mut sim.pinner, range);
        let (from, to) = (range.first(), range.last());
        let rings = (tx.touches(from, to), rx.touches(from, to));
        if busy != 0 || rings.0 {
            let _ = self.rig.tx_stop();
        }
        if busy != 0 || rings.1 {
            let _ = self.rig.rx_stop();
        }
        self.quiesced += u64::from(busy != 0);
        self.granules_quiesced += u64::from(!all && busy >= GRANULE_PAGES);
        let left = self.rig.map.invalidate(&mut self.rig.sim.pinner, range);
        let leaked = self.rig.map.stats().leaked;
        assert!(u64::from(left) <= leaked, "busy after both queues stopped");
        let mut world = self.rig.sim.world();
        let first = if all { 0 } else { first };
        for pfn in first..(first + pages).min(guest_pages) {
            world.unmap(pfn, leaked != 0);
        }
        for pfn in 0..guest_pages {
            if !world.is_mapped(pfn) && (all || self.rng.chance(50)) {
                world.map(pfn, self.rng.chance(95));
            }
        }
        self.unmaps += 1;
    }

    fn scribble(&mut self) {
        for _ in 0..self.rng.below(40) {
            let words = [self.rng.next(), self.rng.next()];
            let near = self.rng.pick(&[self.tx_base, self.rx_base]);
            let addr = near.wrapping_add(self.rng.below(256) * 16);
            self.store(addr, words);
        }
    }

    fn run(mut self, steps: u32) -> Self {
        for step in 0..steps {
            match self.rng.below(100) {
                0..30 => {
                    for _ in 0..self.rng.below(6) {
                        self.write_tx();
                    }
                }
                30..50 => {
                    for _ in 0..self.rng.below(16) {
                        self.write_rx();
                    }
                }
                50..70 => self.poll(),
                70..90 => self.nic(),
                90..95 => self.enable(),
                95..97 => self.unmap(),
                97 => self.scribble(),
                98 if self.may_stick && self.rng.chance(20) => {
                    let dir = self.rng.pick(&[Dir::Tx, Dir::Rx]);
                    self.rig.sim.world().set_stuck(dir, true);
                }
                _ => {
                    let (failures, limit) = (self.rng.pick(&[0, 0, 0, 10]), self.rng.below(400));
                    let limit = if self.rng.chance(80) { u64::MAX } else { limit };
                    let mut world = self.rig.sim.world();
                    world.pin_failures_percent = failures;
                    world.memlock_pages = limit;
                }
            }
            self.rig.check();
            self.granules = self.granules.max(self.rig.map.stats().granules.into());
            if step % 256 == 0 {
                self.rig.sim.world().check_canaries();
            }
        }
        for dir in [Dir::Tx, Dir::Rx] {
            self.rig.sim.world().set_stuck(dir, false);
        }
        self.rig.shut_down();
        self
    }
}

fn many(strategy: Strategy, runs: u64, steps: u32, flaws: &[u64], may_stick: bool) -> Tally {
    many_in(
        SimMachine::builder(),
        strategy,
        runs,
        steps,
        flaws,
        may_stick,
    )
}

fn many_in(
    builder: SimBuilder,
    strategy: Strategy,
    runs: u64,
    steps: u32,
    flaws: &[u64],
    may_stick: bool,
) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..runs {
        let flaws = flaws[seed as usize % flaws.len()];
        let builder = builder
            .contiguous_percent(seed % 3 * 50)
            .shadow(if seed % 2 == 0 { 128 } else { 256 })
            .bounce([0, 4, 64][seed as usize % 3], 1);
        // A failure names its seed: the panic comes from within this call.
        println!("seed {seed} flaws {flaws}");
        let attack = Attack::new(strategy, seed, builder, flaws, may_stick).run(steps);
        let (stats, map) = (&attack.rig.stats, attack.rig.map.stats());
        tally.taken += stats.tx.taken + stats.rx.taken;
        tally.posted += stats.tx.posted + stats.rx.posted;
        tally.frames += stats.tx.packets;
        tally.received += stats.rx.packets;
        tally.bounced += stats.rx.bounced;
        tally.unmaps += attack.unmaps;
        tally.quiesced += attack.quiesced;
        tally.granules += attack.granules;
        tally.granules_quiesced += attack.granules_quiesced;
        tally.evictions += map.evictions;
        tally.busy += map.busy + stats.tx.busy + stats.rx.busy;
        tally.leaked += map.leaked;
        for (rejection, count) in stats.rejections().filter(|(_, count)| *count != 0) {
            *tally.rejected.entry(rejection.name()).or_insert(0) += count;
        }
    }
    tally
}

/// What every strategy meets.
fn hostile(strategy: Strategy) {
    let runs = if strategy == Strategy::Persistent {
        60
    } else {
        24
    };
    let tally = many(strategy, runs, 3000, &[0, 1, 4, 15], false);
    println!(
        "{}: {tally:#?}\n{} kinds of rejection",
        strategy.name(),
        tally.rejected.len()
    );
    assert_eq!(tally.leaked, 0);
    assert!(tally.frames > 1000 && tally.received > 1000 && tally.bounced > 100);
    assert!(tally.quiesced > 10 && tally.busy > 10);
    let evicts = matches!(strategy, Strategy::Persistent | Strategy::Copy);
    assert_eq!(evicts, tally.evictions > 100);
    let scattered = if strategy.copies() {
        Rejection::CopyTooLarge
    } else {
        Rejection::RxScattered
    };
    for rule in [
        Rejection::NotMemory,
        Rejection::AddressWraps,
        Rejection::TailOutsideRing,
        Rejection::PayloadLength,
        Rejection::AccessDenied,
        Rejection::PinFailed,
        Rejection::SpoofedSource,
        scattered,
    ] {
        assert!(
            tally.rejected.contains_key(rule.name()),
            "{rule} was not met"
        );
    }
}

#[test]
fn hostile_guest_and_vmm_single_use() {
    hostile(Strategy::SingleUse);
}

#[test]
fn hostile_guest_and_vmm_shared() {
    hostile(Strategy::Shared);
}

#[test]
fn hostile_guest_and_vmm_persistent() {
    hostile(Strategy::Persistent);
}

#[test]
fn hostile_guest_and_vmm_direct_map() {
    hostile(Strategy::DirectMap);
}

#[test]
fn hostile_guest_and_vmm_copy() {
    hostile(Strategy::Copy);
}

#[test]
fn hostile_guest_and_vmm_granules() {
    let builder = SimMachine::builder().huge_percent(80);
    for may_stick in [false, true] {
        let tally = many_in(
            builder,
            Strategy::Persistent,
            24,
            3000,
            &[0, 1, 4],
            may_stick,
        );
        println!("{tally:#?}");
        assert!(tally.granules > 24 && tally.granules_quiesced > 10);
        assert!(tally.frames > 1000 && tally.received > 1000);
        assert_eq!(may_stick, tally.leaked > 512);
    }
}

#[test]
fn a_nic_that_does_not_stop() {
    for strategy in Strategy::ALL {
        let tally = many(strategy, 8, 3000, &[0, 2], true);
        println!("{}: {tally:#?}", strategy.name());
        if strategy.copies() {
            assert_eq!(tally.leaked, 0, "the NIC never had a page of the guest");
        } else {
            assert!(tally.leaked > 10);
        }
    }
}
