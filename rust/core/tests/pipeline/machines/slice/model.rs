// SPDX-License-Identifier: GPL-2.0

//! What should come of each step.

use std::collections::{
    BTreeSet,
    VecDeque, //
};

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;
use sluice_core::check::Rejection;
use sluice_core::map::Strategy as Pinning;
use sluice_core::slice::StopReason;
use sluice_core::vf::Queue;

use crate::sim::bench::{
    BUFFERS,
    RX_RING,
    TX_RING, //
};

/// Descriptors in each of the guest's rings.
pub const DESCS: u16 = 64;
/// A page for all that is sent, and one for each receive buffer.
pub const TX_BUFFER: u64 = BUFFERS;
pub const RX_BUFFERS: u64 = BUFFERS + 0x10_000;

/// What the VMM takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Region {
    TxRing,
    RxRing,
    TxBuffer,
    RxBuffers,
}

impl Region {
    pub const ALL: [Self; 4] = [Self::TxRing, Self::RxRing, Self::TxBuffer, Self::RxBuffers];

    /// First page, and number of pages.
    pub fn pages(self) -> (u64, u64) {
        match self {
            Self::TxRing => (TX_RING >> 12, 1),
            Self::RxRing => (RX_RING >> 12, 1),
            Self::TxBuffer => (TX_BUFFER >> 12, 1),
            Self::RxBuffers => (RX_BUFFERS >> 12, DESCS.into()),
        }
    }

    pub fn ring_of(queue: Queue) -> Self {
        match queue {
            Queue::Tx => Self::TxRing,
            Queue::Rx => Self::RxRing,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// By the VMM, by the guest's CTRL, and by its configuration space.
    Vfio,
    Ctrl,
    Flr,
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    Open,
    Close,
    Reset(Reset),
    Master(bool),
    Enable(Queue),
    Disable(Queue),
    /// So many packets go to the NIC.
    Send(u16),
    /// One from where there is no memory.
    SendBad,
    /// The NIC sends what it has.
    Complete,
    /// So many packets arrive.
    Receive(u16),
    Unmap(Region),
    /// All memory is there again.
    Map,
    Strategy(Pinning),
}

/// What should be.
#[derive(Clone, Debug)]
pub struct Model {
    pub open: bool,
    pub master: bool,
    pub tx: bool,
    pub rx: bool,
    /// The NIC has receive buffers.
    pub posted: bool,
    pub strategy: Pinning,
    pub unmapped: BTreeSet<Region>,
    pub stopped: Option<(Queue, StopReason)>,
    /// Lengths of the packets that the NIC has, and how many were lost and reported as sent.
    pub in_flight: VecDeque<u16>,
    pub lost: u16,
    /// How often the page that is sent from is pinned for them.
    pub tx_pins: u64,
    /// Packets so far, sent or not: tells lengths.
    pub sends: u16,
}

impl Model {
    pub fn has(&self, region: Region) -> bool {
        !self.unmapped.contains(&region)
    }

    fn runs(&self, queue: Queue) -> bool {
        match queue {
            Queue::Tx => self.tx,
            Queue::Rx => self.rx,
        }
    }

    fn stop(&mut self, queue: Queue, reason: Option<StopReason>) {
        if self.runs(queue) {
            self.stopped = reason.map(|reason| (queue, reason)).or(self.stopped);
        }
        match queue {
            Queue::Tx => {
                self.tx = false;
                self.in_flight.clear();
                self.lost = 0;
            }
            Queue::Rx => {
                self.rx = false;
                self.posted = false;
            }
        }
    }

    fn stop_all(&mut self) {
        self.stop(Queue::Rx, None);
        self.stop(Queue::Tx, None);
    }

    pub fn len_of(number: u16) -> u16 {
        60 + number % 1000
    }

    fn enable(&mut self, queue: Queue) {
        if !self.has(Region::ring_of(queue)) {
            let reason = StopReason::Refused(Rejection::RingNotMemory);
            self.stopped = Some((queue, reason));
            return;
        }
        match queue {
            Queue::Tx => self.tx = true,
            Queue::Rx => self.rx = true,
        }
        self.stopped = self.stopped.filter(|(stopped, _)| *stopped != queue);
    }

    fn unmap(&mut self, region: Region) {
        self.unmapped.insert(region);
        let removed = Some(StopReason::MemoryRemoved);
        match region {
            Region::TxRing => self.stop(Queue::Tx, removed),
            Region::RxRing => self.stop(Queue::Rx, removed),
            Region::RxBuffers if self.posted => self.stop(Queue::Rx, removed),
            // What was copied is not in the guest's memory any more.
            Region::TxBuffer if !self.in_flight.is_empty() && !self.strategy.copies() => {
                self.stop(Queue::Tx, removed);
            }
            _ => {}
        }
    }

    /// The worker comes after each step.
    fn poll(&mut self) {
        if self.in_flight.is_empty() {
            self.tx_pins = 0;
        }
        if self.rx && self.master {
            self.posted = self.has(Region::RxBuffers);
            if !self.posted {
                self.stop(Queue::Rx, Some(fault()));
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Open => self.open = true,
            Step::Close => {
                self.stop_all();
                self.open = false;
                self.master = false;
                self.stopped = None;
            }
            Step::Reset(kind) => {
                self.stop_all();
                self.stopped = None;
                self.master &= kind == Reset::Ctrl;
            }
            Step::Master(on) => {
                self.master = on;
                if !on {
                    self.stop_all();
                }
            }
            Step::Enable(queue) => self.enable(queue),
            Step::Disable(queue) => self.stop(queue, None),
            Step::Send(count) => {
                self.tx_pins = match self.strategy {
                    Pinning::SingleUse => self.tx_pins + u64::from(count),
                    _ => self.tx_pins.max(1),
                };
                for _ in 0..count {
                    self.in_flight.push_back(Self::len_of(self.sends));
                    self.sends += 1;
                }
                if !self.has(Region::TxBuffer) {
                    self.stop(Queue::Tx, Some(fault()));
                }
            }
            Step::SendBad => self.stop(Queue::Tx, Some(fault())),
            Step::Complete => {
                self.in_flight.clear();
                self.lost = 0;
            }
            Step::Receive(_) => {}
            Step::Unmap(region) => self.unmap(region),
            Step::Map => self.unmapped.clear(),
            Step::Strategy(strategy) => {
                if self.strategy.copies() != strategy.copies() {
                    self.lost += self.in_flight.len() as u16;
                    self.in_flight.clear();
                    self.posted = false;
                }
                self.strategy = strategy;
            }
        }
        self.poll();
    }

    fn allows(&self, step: Step) -> bool {
        match step {
            Step::Open => !self.open,
            Step::Unmap(region) => self.has(region),
            Step::Map => !self.unmapped.is_empty(),
            Step::Strategy(_) => true,
            _ if !self.open => false,
            Step::Close | Step::Reset(_) | Step::Complete => true,
            Step::Master(on) => self.master != on,
            Step::Enable(queue) => !self.runs(queue),
            Step::Disable(queue) => self.runs(queue),
            Step::Send(count) => {
                let used = self.in_flight.len() as u16 + self.lost;
                self.tx && self.master && used + count + 3 < DESCS
            }
            Step::SendBad => self.allows(Step::Send(1)),
            Step::Receive(_) => self.posted,
        }
    }
}

/// What comes of a page that is not there.
fn fault() -> StopReason {
    StopReason::Fault(sluice_core::path::Fault {
        rejection: Rejection::NotMemory,
        index: sluice_core::ring::RingIndex::ZERO,
        value: 0,
    })
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self {
            open: false,
            master: false,
            tx: false,
            rx: false,
            posted: false,
            strategy: Pinning::default(),
            unmapped: BTreeSet::new(),
            stopped: None,
            in_flight: VecDeque::new(),
            lost: 0,
            tx_pins: 0,
            sends: 0,
        })
        .boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let queue = || prop::sample::select(vec![Queue::Tx, Queue::Rx]);
        let resets = vec![Reset::Vfio, Reset::Ctrl, Reset::Flr];
        // What gets on comes up more often than what gets in the way.
        let on = if state.open { 1 } else { 20 };
        prop_oneof![
            on => Just(Step::Open),
            1 => Just(Step::Close),
            2 => prop::sample::select(resets).prop_map(Step::Reset),
            8 => prop::bool::weighted(0.9).prop_map(Step::Master),
            12 => queue().prop_map(Step::Enable),
            1 => queue().prop_map(Step::Disable),
            10 => (1..20u16).prop_map(Step::Send),
            1 => Just(Step::SendBad),
            6 => Just(Step::Complete),
            6 => (1..20u16).prop_map(Step::Receive),
            3 => prop::sample::select(Region::ALL.to_vec()).prop_map(Step::Unmap),
            5 => Just(Step::Map),
            4 => prop::sample::select(Pinning::ALL.to_vec()).prop_map(Step::Strategy),
        ]
        .boxed()
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        state.take(*step);
        state
    }

    fn preconditions(state: &Self, step: &Step) -> bool {
        state.allows(*step)
    }
}
