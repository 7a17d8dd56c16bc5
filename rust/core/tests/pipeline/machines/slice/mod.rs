// SPDX-License-Identifier: GPL-2.0

//! A slice's life: opened, driven by its guest, disturbed by its VMM, closed, and opened again.

mod model;

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest_state_machine::{
    prop_state_machine,
    StateMachineTest, //
};
use sluice_core::addr::GuestAddr;
use sluice_core::map::Strategy as Pinning;
use sluice_core::slice::{
    Hardware,
    State,
    StopReason, //
};
use sluice_core::vf::{
    Queue,
    Width, //
};

use model::{
    Model,
    Region,
    Reset,
    Step,
    DESCS,
    RX_BUFFERS,
    TX_BUFFER, //
};

use crate::sim::bench::*;
use crate::sim::guest::{
    GuestRx,
    GuestTx,
    Send, //
};
use crate::sim::nic::Dir;
use crate::sim::SimPlatform;

const HEAD: u32 = 0x10;
/// The real one.
struct Machine {
    bench: Bench,
    /// While the slice is closed.
    hardware: Option<Hardware<SimPlatform>>,
    tx: GuestTx,
    rx: GuestRx,
    sends: u16,
    /// Lengths of the packets that the NIC should have.
    expected: VecDeque<u16>,
    lost: u16,
    arrivals: u8,
}

impl Machine {
    fn new() -> Self {
        let mut bench = Bench::new(7);
        let hardware = bench.slice.close(1);
        assert!(hardware.is_some());
        Self {
            bench,
            hardware,
            tx: GuestTx::new(TX_RING, DESCS),
            rx: GuestRx::new(RX_RING, DESCS, 2048, 0),
            sends: 0,
            expected: VecDeque::new(),
            lost: 0,
            arrivals: 0,
        }
    }

    fn enable(&mut self, queue: Queue, has_ring: bool) {
        let block = match queue {
            Queue::Tx => TX,
            Queue::Rx => RX,
        };
        self.bench.write(block + HEAD, 0);
        self.bench.write(block + TAIL, 0);
        match queue {
            Queue::Tx => {
                self.tx = GuestTx::new(TX_RING, DESCS);
                self.bench.enable_tx();
            }
            Queue::Rx => {
                self.rx = GuestRx::new(RX_RING, DESCS, 2048, 0);
                self.bench.enable_rx();
                if has_ring {
                    self.fill();
                }
            }
        }
    }

    fn fill(&mut self) {
        let place = |index: u16| (RX_BUFFERS + u64::from(index) * 0x1000, 0);
        self.rx.fill(&mut self.bench.world.borrow_mut(), place);
        self.bench.write(RX + TAIL, self.rx.tail());
    }

    fn send(&mut self, addr: u64) {
        let send = Send {
            segments: vec![(addr, Model::len_of(self.sends))],
            ..Send::default()
        };
        assert!(self.tx.send(&mut self.bench.world.borrow_mut(), &send));
    }

    /// What the NIC has, it sends: all of it, in order, and the guest learns of it.
    fn complete(&mut self, has_ring: bool) {
        self.bench.world.borrow_mut().wire.clear();
        self.bench.nic_runs();
        self.bench.poll();
        let world = &self.bench.world;
        let sent: Vec<_> = world.borrow().wire.iter().map(|p| p.bytes.len()).collect();
        let expected: Vec<_> = self.expected.iter().map(|len| usize::from(*len)).collect();
        assert_eq!(sent, expected, "sent");
        if has_ring {
            let cleaned = self.tx.clean(&mut world.borrow_mut());
            assert_eq!(cleaned, expected.len() + usize::from(self.lost), "reported");
        }
    }

    fn receive(&mut self, count: u16) {
        for number in 0..count {
            self.arrivals = self.arrivals.wrapping_add(1);
            let bytes = vec![self.arrivals; 60 + usize::from(number)];
            let mut world = self.bench.world.borrow_mut();
            world.nic_rx_arrives(&bytes, None);
            assert_eq!(world.nic_rx_fill(1), 1);
        }
        self.bench.poll();
        let received = self.rx.poll(&self.bench.world.borrow());
        assert_eq!(received.len(), usize::from(count));
        for (packet, before) in received.iter().zip((0..count).rev()) {
            let value = self.arrivals.wrapping_sub(before as u8);
            let len = 60 + usize::from(count - 1 - before);
            assert_eq!(packet.bytes, vec![value; len]);
        }
        self.fill();
    }

    fn take(&mut self, step: Step, after: &Model) {
        let now = self.bench.now_ns;
        match step {
            Step::Open => {
                let hardware = self.hardware.take().expect("a closed slice");
                assert!(self.bench.slice.open(hardware).is_ok());
            }
            Step::Close => {
                self.hardware = self.bench.slice.close(now);
                assert!(self.hardware.is_some());
            }
            Step::Reset(Reset::Vfio) => self.bench.slice.reset(now),
            Step::Reset(Reset::Ctrl) => self.bench.write(CTRL, 1 << 26),
            Step::Reset(Reset::Flr) => {
                let slice = &mut self.bench.slice;
                slice.config_write(0xA8, Width::Word, 1 << 15, now);
            }
            Step::Master(on) => self.bench.master(on),
            Step::Enable(queue) => self.enable(queue, after.has(Region::ring_of(queue))),
            Step::Disable(queue) => {
                let block = if queue == Queue::Tx { TX } else { RX };
                self.bench.write(block + DCTL, 0);
            }
            Step::Send(count) => {
                for _ in 0..count {
                    self.send(TX_BUFFER);
                    self.sends += 1;
                }
                self.bench.write(TX + TAIL, self.tx.tail());
            }
            Step::SendBad => {
                self.send(0xFEE0_0000);
                self.bench.write(TX + TAIL, self.tx.tail());
            }
            Step::Complete => self.complete(after.tx),
            Step::Receive(count) => self.receive(count),
            Step::Unmap(region) => {
                let (first, count) = region.pages();
                let slice = &mut self.bench.slice;
                slice.dma_unmap(GuestAddr::new(first << 12), count << 12, now);
                for page in first..first + count {
                    // Panics if the page is still pinned.
                    self.bench.world.borrow_mut().unmap(page, false);
                }
            }
            Step::Map => {
                for (first, count) in Region::ALL.map(Region::pages) {
                    for page in first..first + count {
                        self.bench.world.borrow_mut().map(page, true);
                    }
                }
            }
            Step::Strategy(strategy) => {
                assert!(self.bench.slice.set_strategy(strategy, now).is_ok());
            }
        }
        self.bench.poll();
        self.expected = after.in_flight.clone();
        self.lost = after.lost;
    }

    fn check(&mut self, model: &Model) {
        let state = self.bench.slice.state();
        match (model.open, model.stopped) {
            (false, _) => assert_eq!(state, State::Closed),
            (true, Some((queue, reason))) => {
                let State::Faulted(stopped) = state else {
                    panic!("{state:?}, and not stopped for {reason:?}");
                };
                assert_eq!(stopped.queue, queue);
                match (stopped.reason, reason) {
                    (StopReason::Fault(is), StopReason::Fault(should)) => {
                        assert_eq!(is.rejection, should.rejection);
                    }
                    (is, should) => assert_eq!(is, should),
                }
            }
            (true, None) if model.tx || model.rx => assert_eq!(state, State::Running),
            (true, None) => assert_eq!(state, State::Open),
        }
        if model.open {
            assert_eq!(self.bench.read(TX + DCTL) & ENABLE != 0, model.tx);
            assert_eq!(self.bench.read(RX + DCTL) & ENABLE != 0, model.rx);
        }
        self.check_pins(model);
    }

    fn check_pins(&self, model: &Model) {
        let world = self.bench.world.borrow();
        world.check_live();
        let sending = model.in_flight.len() as u64;
        let buffers = if model.posted {
            u64::from(DESCS) - 1
        } else {
            0
        };
        assert_eq!(u64::from(world.live(Dir::Tx)), sending);
        assert_eq!(u64::from(world.live(Dir::Rx)), buffers);
        let rings = u64::from(model.tx) + u64::from(model.rx);
        let maps = self.bench.slice.map_stats();
        assert_eq!(u64::from(maps.pinned) + rings, world.pinned());
        assert_eq!(
            (maps.pins - maps.unpins, maps.leaked),
            (maps.pinned.into(), 0)
        );
        if !model.open {
            assert_eq!(world.pinned(), 0, "pinned while closed");
        }
        match model.strategy {
            Pinning::SingleUse | Pinning::Shared => {
                assert_eq!(world.nic_pinned(), model.tx_pins + buffers);
            }
            Pinning::Persistent | Pinning::DirectMap => {
                assert!(world.nic_pinned() >= model.tx_pins + buffers);
            }
            Pinning::Copy => assert_eq!(world.nic_pinned(), 0),
        }
    }
}

struct SliceTest;

impl StateMachineTest for SliceTest {
    type SystemUnderTest = Machine;
    type Reference = Model;

    fn init_test(_: &Model) -> Machine {
        Machine::new()
    }

    fn apply(mut machine: Machine, after: &Model, step: Step) -> Machine {
        machine.take(step, after);
        machine.check(after);
        machine
    }

    fn teardown(mut machine: Machine, model: Model) {
        if model.open {
            machine.bench.slice.close(machine.bench.now_ns);
        }
        let world = machine.bench.world.borrow();
        assert_eq!(world.pinned(), 0);
        world.check_canaries();
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_slice_lives_as_its_model(sequential 20..150 => SliceTest);
}
