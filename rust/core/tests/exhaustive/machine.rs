// SPDX-License-Identifier: GPL-2.0

//! One queue of a very small machine: a guest's ring, a page for each of its descriptors, and a NIC
//! that takes one step at a time. Everything that crosses is compared with what a ring must do.
//!
//! Guest descriptors are counted from 0 and never wrap here: number `n` lies at index `n % size`
//! and names the page of that index. As fewer than `size` are open at a time, a page tells the number.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{
    Hash,
    Hasher, //
};
use std::rc::Rc;

use sluice_core::addr::PAGE_SIZE;
use sluice_core::platform::Access;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dir {
    Tx,
    Rx,
}

/// A machine that is broken on purpose: it shows that the checks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Descriptors look written back before they are.
    EarlyDone,
    /// The doorbell for slot 0 gets lost.
    LostDoorbell,
    /// The NIC acts on the descriptor before the one that is its turn.
    StaleFetch,
    /// The NIC says that it has stopped and goes on.
    StopLies,
}

#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub dir: Dir,
    /// Descriptors in the guest's ring and in the shadow ring.
    pub guest: u16,
    pub shadow: u16,
    /// Descriptors in each packet.
    pub frame: u16,
    /// Budgets of a poll: from 1 to this.
    pub budgets: u16,
    /// The guest tells each descriptor at once.
    pub prompt: bool,
    pub flaw: Flaw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// In the shadow ring; the NIC does not know.
    Written,
    /// The NIC may fetch it.
    Told,
    Fetched,
    WrittenBack,
}

/// A descriptor in the shadow ring.
#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u32,
    slot: u16,
    stage: Stage,
}

pub const RING_BASE: u64 = 0x1000;
const BUFFERS: u64 = 16;
pub const BUS: u64 = 0x100;
/// Bytes in each transmit descriptor's buffer.
const TX_BYTES: u64 = 64;
/// Bytes that the NIC puts in a buffer that is not a packet's last.
pub const RX_BYTES: u64 = 1024;

const RING_WORDS: usize = 8;
const TX_DONE: u64 = 1 << 32;
const RX_DONE: u64 = 1;
const RX_END: u64 = 2;
const RX_ERROR: u64 = 1 << 31;

/// All of guest memory that there is fits in the ring's page and the buffers'.
const _: () = assert!(RING_WORDS as u64 * 16 <= PAGE_SIZE);

pub struct World {
    pub config: Config,
    ring: [[u64; 2]; RING_WORDS],
    shadow: [[u64; 2]; RING_WORDS],
    enabled: bool,
    flight: VecDeque<Flight>,
    /// The guest has written those below.
    posted: u32,
    /// It has told the tail up to here.
    tail: u32,
    /// The worker has loaded those below, and put those into the shadow ring, or given them up.
    pub loaded: u32,
    pub emitted: u32,
    /// Those below are out of the shadow ring, and reported to the guest.
    retired: u32,
    pub done: u32,
    /// The guest has taken back those below.
    pub clean: u32,
    /// Pins for the NIC, by buffer; of these, acquired and not in the shadow ring.
    pins: [u8; RING_WORDS],
    ring_pins: u32,
    /// Buffers of the packet that is being received.
    part: u16,
    /// The rest of a packet was lost: the next buffer tells the guest.
    cut: bool,
    /// A transmit queue that stops sends what it holds first.
    pub drains: bool,
}

pub type Shared = Rc<RefCell<World>>;

impl World {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            ring: [[0; 2]; RING_WORDS],
            shadow: [[0; 2]; RING_WORDS],
            enabled: false,
            flight: VecDeque::with_capacity(RING_WORDS),
            posted: 0,
            tail: 0,
            loaded: 0,
            emitted: 0,
            retired: 0,
            done: 0,
            clean: 0,
            pins: [0; RING_WORDS],
            ring_pins: 0,
            part: 0,
            cut: false,
            drains: false,
        }
    }

    fn index(&self, number: u32) -> usize {
        (number % u32::from(self.config.guest)) as usize
    }

    fn buffer_of(&self, pfn: u64) -> usize {
        let index = pfn.checked_sub(BUFFERS).expect("a buffer") as usize;
        assert!(index < self.config.guest.into(), "no buffer of the guest's");
        index
    }

    /// Whether `number` is the last of its packet.
    fn ends(&self, number: u32) -> bool {
        (number + 1) % u32::from(self.config.frame) == 0
    }

    /// What makes this world differ from others, apart from names: absolute numbers do not, and
    /// what is in memory follows from the stages.
    pub fn hash<H: Hasher>(&self, to: &mut H) {
        let base = self.clean;
        (self.index(base), base % u32::from(self.config.frame)).hash(to);
        for number in [
            self.posted,
            self.tail,
            self.loaded,
            self.emitted,
            self.retired,
            self.done,
        ] {
            number.wrapping_sub(base).hash(to);
        }
        (self.enabled, self.part, self.cut).hash(to);
        for entry in &self.flight {
            (entry.number - base, entry.slot, entry.stage).hash(to);
        }
    }

    /// The books, between two steps.
    pub fn check(&self) {
        let in_flight = self.flight.iter().map(|entry| self.index(entry.number));
        let mut expected = [0; RING_WORDS];
        in_flight.for_each(|index| expected[index] += 1);
        assert_eq!(self.pins, expected, "pins are not what is in flight");
        assert!(self.flight.len() < self.config.shadow.into());
        assert!(self.tail >= self.loaded && self.loaded >= self.emitted);
        assert_eq!(self.emitted - self.retired, self.flight.len() as u32);
    }

    // ---- The guest.

    pub fn can_post(&self) -> bool {
        self.posted - self.clean < u32::from(self.config.guest) - 1
    }

    pub fn post(&mut self) {
        let index = self.index(self.posted);
        let addr = (BUFFERS + index as u64) << 12;
        let word = match self.config.dir {
            Dir::Rx => 0,
            Dir::Tx => {
                let end = if self.ends(self.posted) { 9 << 24 } else { 0 };
                let payload = TX_BYTES * u64::from(self.config.frame);
                TX_BYTES | 3 << 20 | end | 1 << 25 | 1 << 29 | payload << 46
            }
        };
        self.ring[index] = [addr, word];
        self.posted += 1;
        if self.config.prompt {
            self.ring();
        }
    }

    pub fn can_ring(&self) -> bool {
        self.tail != self.posted
    }

    pub fn ring(&mut self) {
        self.tail = self.posted;
    }

    /// The tail as the register has it.
    pub fn tail(&self) -> u32 {
        self.index(self.tail) as u32
    }

    /// Whether the oldest packet, or buffer, is marked as done in memory.
    pub fn can_clean(&self) -> bool {
        if self.clean == self.posted {
            return false;
        }
        let (step, done) = match self.config.dir {
            Dir::Tx => (u32::from(self.config.frame), TX_DONE),
            Dir::Rx => (1, RX_DONE),
        };
        if self.clean + step > self.posted {
            return false;
        }
        let marked = self.ring[self.index(self.clean + step - 1)][1] & done != 0;
        assert_eq!(marked, self.clean + step <= self.done, "the mark of done");
        marked
    }

    pub fn clean(&mut self) {
        self.clean += match self.config.dir {
            Dir::Tx => u32::from(self.config.frame),
            Dir::Rx => 1,
        };
    }

    /// Whether all that was told has come back; a packet without its end never does.
    pub fn is_served(&self) -> bool {
        let open = self.tail - self.clean;
        open < u32::from(self.config.frame) && (self.config.dir == Dir::Tx || open == 0)
    }

    /// Descriptors that the NIC may use.
    pub fn in_flight(&self) -> usize {
        self.flight.len()
    }

    // ---- The NIC.

    fn oldest(&self, stage: Stage) -> Option<usize> {
        self.flight.iter().position(|entry| entry.stage == stage)
    }

    pub fn can_fetch(&self) -> bool {
        self.enabled && self.oldest(Stage::Told).is_some()
    }

    pub fn fetch(&mut self) {
        let at = self.oldest(Stage::Told).expect("a descriptor");
        let entry = self.flight[at];
        let slot = match self.config.flaw {
            Flaw::StaleFetch => (entry.slot + self.config.shadow - 1) % self.config.shadow,
            _ => entry.slot,
        };
        let page = self.shadow[usize::from(slot)][0] >> 12;
        let buffer = self.buffer_of(page.wrapping_sub(BUS));
        assert_eq!(buffer, self.index(entry.number), "out of order");
        assert_ne!(self.pins[buffer], 0, "fetched, and not pinned");
        self.flight[at].stage = Stage::Fetched;
    }

    pub fn can_write_back(&self) -> bool {
        self.enabled && self.oldest(Stage::Fetched).is_some()
    }

    pub fn write_back(&mut self) {
        let at = self.oldest(Stage::Fetched).expect("a descriptor");
        let entry = self.flight[at];
        let index = self.index(entry.number);
        assert_ne!(self.pins[index], 0, "used, and not pinned");
        let words = match self.config.dir {
            Dir::Tx => [0, TX_DONE],
            Dir::Rx => {
                self.part = (self.part + 1) % self.config.frame;
                let (len, end) = match self.part {
                    0 => (100 + index as u64, RX_END),
                    _ => (RX_BYTES, 0),
                };
                [0, RX_DONE | end | len << 32]
            }
        };
        self.shadow[usize::from(entry.slot)] = words;
        self.flight[at].stage = Stage::WrittenBack;
    }

    /// The queue starts, empty.
    pub fn start(&mut self) {
        self.enabled = true;
        self.shadow = [[0; 2]; RING_WORDS];
    }

    pub fn stop(&mut self) {
        while self.drains && (self.can_fetch() || self.can_write_back()) {
            if self.can_write_back() {
                self.write_back();
            } else {
                self.fetch();
            }
        }
        self.enabled = self.config.flaw == Flaw::StopLies && !self.flight.is_empty();
        // Of a packet that is there in part the rest is lost.
        self.cut |= self.part != 0;
        self.part = 0;
    }

    // ---- The worker, through the platform.

    pub fn load(&mut self, offset: u16) -> [u64; 2] {
        let index = usize::from(offset) / 16;
        assert_eq!(index, self.index(self.loaded), "loaded out of order");
        assert!(
            self.loaded < self.tail,
            "loaded what the guest has not told"
        );
        self.loaded += 1;
        self.ring[index]
    }

    /// A guest descriptor is written.
    pub fn report(&mut self, index: usize, words: [Option<u64>; 2]) {
        // Only the last of a packet is reported to a sender.
        let number = match self.config.dir {
            Dir::Tx => self.done + u32::from(self.config.frame) - 1,
            Dir::Rx => self.done,
        };
        assert_eq!(index, self.index(number), "reported out of order");
        let word = words[1].expect("a second word");
        if self.config.dir == Dir::Tx {
            assert!(number < self.retired, "reported, and not retired");
            self.ring[index][1] |= word;
        } else {
            if self.flight.is_empty() && std::mem::take(&mut self.cut) {
                assert_eq!(word & 0xffff_ffff, RX_DONE | RX_END | RX_ERROR);
                assert_eq!(self.emitted + 1, self.loaded);
                self.emitted += 1;
                self.retired += 1;
            } else {
                let entry = self.flight[0];
                assert_eq!((entry.number, entry.stage), (number, Stage::WrittenBack));
                assert_eq!(word, self.shadow[usize::from(entry.slot)][1]);
            }
            self.ring[index] = [words[0].expect("a first word"), word];
        }
        self.done = number + 1;
    }

    pub fn pin(&mut self, pfn: u64, access: Access) {
        if !access.is_by_nic() {
            assert_eq!(pfn, RING_BASE >> 12);
            self.ring_pins += 1;
            return;
        }
        assert_eq!(access.writes(), self.config.dir == Dir::Rx);
        let buffer = self.buffer_of(pfn);
        self.pins[buffer] += 1;
    }

    pub fn unpin(&mut self, pfn: u64, access: Access) {
        if !access.is_by_nic() {
            self.ring_pins -= 1;
            return;
        }
        let buffer = self.buffer_of(pfn);
        let found = self
            .flight
            .iter()
            .position(|entry| self.index(entry.number) == buffer);
        if let Some(at) = found {
            assert_eq!(at, 0, "retired out of order");
            let entry = self.flight[0];
            let at_rest = entry.stage == Stage::WrittenBack || !self.enabled;
            assert!(at_rest, "unpinned in flight");
            self.flight.pop_front();
            self.retired = entry.number + 1;
        }
        let pins = &mut self.pins[buffer];
        *pins = pins.checked_sub(1).expect("a pinned page");
    }

    pub fn shadow_write(&mut self, slot: u16, words: [u64; 2]) {
        assert!(self.enabled, "written while stopped");
        let slot = slot % self.config.shadow;
        let taken = self.flight.iter().any(|entry| entry.slot == slot);
        assert!(!taken, "slot {slot} is used before it is retired");
        let buffer = self.buffer_of((words[0] >> 12).wrapping_sub(BUS));
        assert_eq!(buffer, self.index(self.emitted), "posted out of order");
        assert!(self.emitted < self.loaded, "posted before it was loaded");
        assert_ne!(self.pins[buffer], 0, "posted, and not pinned");
        self.shadow[usize::from(slot)] = words;
        self.flight.push_back(Flight {
            number: self.emitted,
            slot,
            stage: Stage::Written,
        });
        self.emitted += 1;
    }

    pub fn shadow_read(&self, slot: u16) -> [u64; 2] {
        let slot = slot % self.config.shadow;
        let entry = self.flight.iter().find(|entry| entry.slot == slot);
        let entry = entry.expect("a slot in flight is read");
        let mut words = self.shadow[usize::from(slot)];
        if self.config.dir == Dir::Rx && entry.stage != Stage::WrittenBack {
            assert_eq!(words[1] & RX_DONE, 0);
        }
        if self.config.flaw == Flaw::EarlyDone {
            words[1] |= match self.config.dir {
                Dir::Tx => TX_DONE,
                Dir::Rx => RX_DONE | RX_END,
            };
        }
        words
    }

    pub fn doorbell(&mut self, tail: u16) {
        if self.config.flaw == Flaw::LostDoorbell && tail == 1 {
            return;
        }
        let next = self.flight.back().map(|entry| entry.slot + 1);
        assert_eq!(
            next,
            Some((tail + self.config.shadow - 1) % self.config.shadow + 1)
        );
        for entry in &mut self.flight {
            if entry.stage == Stage::Written {
                entry.stage = Stage::Told;
            }
        }
    }

    /// A queue was stopped and started again where it was.
    pub fn restarted(&mut self) {
        assert!(self.flight.is_empty(), "in flight over a restart");
        match self.config.dir {
            // What was not sent is lost, and comes back as done.
            Dir::Tx => assert_eq!(self.done, self.emitted),
            // What was not filled is taken from the guest's ring once more.
            Dir::Rx => {
                self.loaded = self.done;
                self.emitted = self.done;
                self.retired = self.done;
            }
        }
    }

    /// The queue is off: nothing of it is left.
    pub fn check_off(&mut self) {
        assert!(self.flight.is_empty() && !self.enabled);
        assert_eq!(
            (self.pins, self.ring_pins),
            ([0; RING_WORDS], 0),
            "pins are left"
        );
        *self = Self::new(self.config);
    }
}
