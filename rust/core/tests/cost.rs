// SPDX-License-Identifier: GPL-2.0

//! What the data path costs the CPU, with a machine beneath it that costs next to nothing.
//! Figures, not verdicts: `cargo test --release --test cost -- --ignored --nocapture`.

#[allow(dead_code)]
#[path = "sim/rng.rs"]
mod rng;

use std::cell::Cell;
use std::rc::Rc;

use sluice_core::addr::{
    BusPage,
    GuestPage, //
};
use sluice_core::desc::rx::BufferSizes;
use sluice_core::frame::TxLimits;
use sluice_core::map::{
    Mapper,
    PinMap,
    Strategy, //
};
use sluice_core::net::MacAddr;
use sluice_core::path::Io;
use sluice_core::platform::*;
use sluice_core::pool::PoolRules;
use sluice_core::ring::RingConfig;
use sluice_core::rx::{
    RxConfig,
    RxPath, //
};
use sluice_core::stats::Stats;
use sluice_core::tx::TxPath;

const RING: u16 = 1024;
const TX_RING: u64 = 0x10_0000;
const RX_RING: u64 = 0x20_0000;

/// Nanoseconds that this thread has had a CPU: other work on the machine does not count.
fn cpu_ns() -> u128 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Pages that are rings have words; the others are never looked at.
struct Page(u64, Option<Rc<Vec<Cell<u64>>>>);

impl PinnedPage for Page {
    fn bus(&self) -> Option<BusPage> {
        BusPage::from_mapping(self.0 << 12)
    }
    fn load_desc(&self, offset: u16) -> [u64; 2] {
        let words = self.1.as_ref().unwrap();
        let at = usize::from(offset) / 8;
        [words[at].get(), words[at + 1].get()]
    }
    fn store_desc(&self, offset: u16, [low, high]: [u64; 2]) {
        let words = self.1.as_ref().unwrap();
        let at = usize::from(offset) / 8;
        words[at].set(low);
        words[at + 1].set(high);
    }
    fn store_u32(&self, offset: u16, value: u32) {
        let word = &self.1.as_ref().unwrap()[usize::from(offset) / 8];
        word.set(word.get() & 0xffff_ffff | u64::from(value) << 32);
    }
    fn copy_in(&self, _: u32, _: &[u8]) {}
    fn copy_out(&self, _: u32, bytes: &mut [u8]) {
        bytes.fill(2);
    }
}

#[derive(Default)]
struct Memory {
    rings: Vec<(u64, Rc<Vec<Cell<u64>>>)>,
    /// All of it is in huge pages.
    huge: bool,
}

impl Memory {
    fn words(&mut self, page: u64) -> Rc<Vec<Cell<u64>>> {
        if let Some((_, words)) = self.rings.iter().find(|(p, _)| *p == page) {
            return words.clone();
        }
        let words = Rc::new(vec![Cell::new(0); 512]);
        self.rings.push((page, words.clone()));
        words
    }
}

impl Pinner for Memory {
    type Page = Page;
    fn pin(&mut self, page: GuestPage, _: Access) -> Result<Page, PinError> {
        let is_ring = (TX_RING >> 12..(RX_RING >> 12) + 16).contains(&page.pfn());
        Ok(Page(page.pfn(), is_ring.then(|| self.words(page.pfn()))))
    }
    fn pin_granule(&mut self, first: GuestPage, _: Access) -> Result<Page, NoGranule> {
        if self.huge {
            Ok(Page(first.pfn(), None))
        } else {
            Err(NoGranule::Refused)
        }
    }
    fn unpin(&mut self, _: Page) {}
}

struct Vecs;

impl Alloc for Vecs {
    type Buf<T> = Box<[T]>;
    type Box<T> = Box<T>;
    fn boxed<T>(value: T) -> Option<Box<T>> {
        Some(Box::new(value))
    }
    fn filled<T>(len: usize, make: impl FnMut(usize) -> T) -> Option<Box<[T]>> {
        Some((0..len).map(make).collect())
    }
}

/// Writes everything back at the doorbell.
struct Instantly {
    ring: Vec<[u64; 2]>,
    done: [u64; 2],
    at: u16,
}

impl HwQueue for Instantly {
    fn len(&self) -> u16 {
        RING
    }
    fn write(&mut self, index: u16, words: [u64; 2]) {
        self.ring[usize::from(index)] = words;
    }
    fn read(&self, index: u16) -> [u64; 2] {
        self.ring[usize::from(index)]
    }
    fn doorbell(&mut self, tail: u16) {
        while self.at != tail {
            self.ring[usize::from(self.at)] = self.done;
            self.at = (self.at + 1) % RING;
        }
    }
    fn start(&mut self, _: RxLayout) -> Result<(), HwError> {
        self.at = 0;
        Ok(())
    }
    fn stop(&mut self) -> Result<(), HwError> {
        Ok(())
    }
}

struct Nothing;

impl Port for Nothing {
    fn link(&self) -> Option<u16> {
        None
    }
    fn set_mac(&mut self, _: MacAddr) -> bool {
        false
    }
    fn set_multicast(&mut self, _: &[u16]) -> bool {
        false
    }
    fn set_vlan(&mut self, _: u16, _: bool) -> bool {
        false
    }
    fn set_max_frame(&mut self, _: u16) -> bool {
        false
    }
    fn replace_mac(&mut self, _: Option<MacAddr>, _: Option<MacAddr>) -> bool {
        false
    }
    fn set_all_multicast(&mut self, _: bool) {}
    fn reset_filters(&mut self, _: &PoolRules) {}
}

impl Signals for Nothing {
    fn signal(&mut self, _: u8) {}
}

impl Bounce for Nothing {
    fn bus(&self, _: u16) -> Option<BusPage> {
        None
    }
    fn reserve(&mut self, _: u16) -> bool {
        false
    }
    fn copy_out(&self, _: u16, _: u16, _: &mut [u8]) {}
    fn copy_in(&mut self, _: u16, _: u16, _: &[u8]) {}
}

struct Flat;

impl Platform for Flat {
    type Alloc = Vecs;
    type Pinner = Memory;
    type Queue = Instantly;
    type Port = Nothing;
    type Signals = Nothing;
    type Bounce = Nothing;
}

fn queue(done: [u64; 2]) -> Instantly {
    Instantly {
        ring: vec![[0; 2]; RING.into()],
        done,
        at: 0,
    }
}

#[test]
#[ignore = "a measurement"]
fn map_hit() {
    let sizes = [64u64, 1024, 16384].into_iter();
    for (pages, huge) in sizes.flat_map(|pages| [(pages, false), (pages, true)]) {
        let mut memory = Memory {
            huge,
            ..Memory::default()
        };
        let mut map =
            PinMap::<Memory, Vecs>::new(Strategy::Persistent, 32768, 0x1234_5678_9abc_def1)
                .unwrap();
        let mut rng = rng::Rng::new(1);
        let order: Vec<_> = (0..4096).map(|_| rng.below(pages)).collect();
        let rounds = 500;
        let start = cpu_ns();
        for _ in 0..rounds {
            for page in &order {
                let page = map.acquire(&mut memory, GuestPage::new(*page), Access::Read);
                map.cancel(&mut memory, page.unwrap());
            }
        }
        let each = (cpu_ns() - start) / (rounds * order.len() as u128);
        let granules = map.stats().granules;
        println!("map hit and release, {pages} pages, {granules} granules: {each} ns");
    }
}

#[test]
#[ignore = "a measurement"]
fn packets() {
    let mut memory = Memory::default();
    let mut map =
        PinMap::<Memory, Vecs>::new(Strategy::Persistent, 16384, 0x1234_5678_9abc_def1).unwrap();
    let mut stats = Stats::new();
    let config = |base| RingConfig::new(base, u32::from(RING) * 16).unwrap();
    for batch in [1u32, 32] {
        let (mut tx, mut hw) = (
            TxPath::<Flat>::new(RING, &Nothing).unwrap(),
            queue([0, 1 << 32]),
        );
        let mut io = Io {
            queue: &mut hw,
            pinner: &mut memory,
            map: &mut map,
            bounce: &mut Nothing,
            stats: &mut stats,
        };
        let limits = TxLimits {
            max_frame_bytes: 1522,
            port_vlan: false,
            source: None,
        };
        tx.enable(&mut io, config(TX_RING), limits).unwrap();
        let pages: Vec<_> = (0..4)
            .map(|i| io.pinner.words((TX_RING >> 12) + i))
            .collect();
        let (total, mut tail) = (4_000_000u32, 0);
        let start = cpu_ns();
        for _ in 0..total / batch {
            for i in tail..tail + batch {
                let i = i as usize % usize::from(RING);
                let words = &pages[i / 256];
                words[i % 256 * 2].set((i as u64) << 11 | 64);
                words[i % 256 * 2 + 1].set(0x2b30_003c | 60 << 46);
            }
            tail = (tail + batch) % u32::from(RING);
            assert_eq!(u32::from(tx.poll(&mut io, tail, 64).posted), batch);
            assert_eq!(u32::from(tx.poll(&mut io, tail, 0).completed), batch);
        }
        let each = (cpu_ns() - start) / u128::from(total);
        println!("transmit, {batch} per poll: {each} ns a packet, two polls");
        tx.stop(&mut io).unwrap();
    }
    let done = [0x11 << 4, 3 | 60 << 32];
    let (mut rx, mut hw) = (RxPath::<Flat>::new(RING, &Nothing).unwrap(), queue(done));
    let mut io = Io {
        queue: &mut hw,
        pinner: &mut memory,
        map: &mut map,
        bounce: &mut Nothing,
        stats: &mut stats,
    };
    let layout = RxLayout {
        packet_bytes: 2048,
        header_bytes: 0,
    };
    let rx_config = RxConfig {
        ring: config(RX_RING),
        sizes: BufferSizes::new(layout).unwrap(),
        max_frame_bytes: 1522,
        hide_vlan: false,
    };
    rx.enable(&mut io, rx_config).unwrap();
    let pages: Vec<_> = (0..4)
        .map(|i| io.pinner.words((RX_RING >> 12) + i))
        .collect();
    let (total, mut tail) = (4_000_000u32, 0);
    let start = cpu_ns();
    for _ in 0..total / 32 {
        for i in tail..tail + 32 {
            let i = i as usize % usize::from(RING);
            let words = &pages[i / 256];
            words[i % 256 * 2].set((i as u64) << 11);
            words[i % 256 * 2 + 1].set(0);
        }
        tail = (tail + 32) % u32::from(RING);
        assert_eq!(rx.poll(&mut io, tail, 64).posted, 32);
        assert_eq!(rx.poll(&mut io, tail, 0).completed, 32);
    }
    let each = (cpu_ns() - start) / u128::from(total);
    println!("receive, 32 per poll: {each} ns a packet, two polls");
}
