// SPDX-License-Identifier: GPL-2.0

//! The function model alone: any access of any width in any order, from guest and VMM, and a host
//! that does what it is asked at once, late, or wrongly.

use std::collections::VecDeque;

use sluice_core::net::MacAddr;
use sluice_core::vf::irq::interval_ns;
use sluice_core::vf::regs::{
    self,
    Access,
    Reg,
    Slot, //
};
use sluice_core::vf::{
    Action,
    Cause,
    Function,
    Identity,
    Queue,
    QueueState,
    Refusal,
    Reply,
    Request,
    Stats,
    Width, //
};

use crate::ops::{
    self,
    Op, //
};

const MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
const CAUSES: [Cause; 5] = [Cause::Rx0, Cause::Tx0, Cause::Rx1, Cause::Tx1, Cause::Other];

/// Reasons that leave nothing of an access. Others refuse a part: a queue's enable bit, a command in the
/// mailbox.
const REFUSED_WHOLE: [Refusal; 10] = [
    Refusal::UnknownRegister,
    Refusal::BadWidth,
    Refusal::Misaligned,
    Refusal::ReadOnly,
    Refusal::WriteOnly,
    Refusal::HeadNonZero,
    Refusal::HeadWriteBack,
    Refusal::ConfigOutOfRange,
    Refusal::ConfigReadOnly,
    Refusal::MsixOutOfRange,
];

/// Kinds of records, for who makes inputs.
pub mod kind {
    pub const READ: u8 = 0;
    pub const WRITE: u8 = 1;
    pub const READ_ANY: u8 = 2;
    pub const WRITE_ANY: u8 = 3;
    pub const CONFIG_READ: u8 = 4;
    pub const CONFIG_WRITE: u8 = 5;
    pub const MSIX_READ: u8 = 6;
    pub const MSIX_WRITE: u8 = 7;
    pub const WRITE_AT: u8 = 8;
    pub const HOST_STEP: u8 = 9;
    pub const HOST_MODE: u8 = 10;
    pub const CONFIRM: u8 = 11;
    pub const REPLY: u8 = 12;
    pub const RESET_DONE: u8 = 13;
    pub const RESET: u8 = 14;
    pub const LINK: u8 = 15;
    pub const RAISE: u8 = 16;
    pub const SIGNALS: u8 = 17;
    pub const HEAD: u8 = 18;
    pub const STATS: u8 = 19;
    pub const COUNT: u8 = 20;
}

const WIDTHS: [Width; 3] = [Width::Dword, Width::Word, Width::Byte];

fn width(op: Op) -> Width {
    WIDTHS[usize::from(op.a % 3)]
}

fn queue(op: Op) -> Queue {
    if op.flag(0) {
        Queue::Rx
    } else {
        Queue::Tx
    }
}

/// The function, and a host that has its actions to carry out.
struct Bench {
    f: Function,
    slots: Vec<Slot>,
    /// What the host has not done yet.
    pending: VecDeque<Action>,
    /// The host does what it is asked at once.
    prompt: bool,
    now_ns: u64,
    /// When each vector was signalled last.
    fired: [Option<u64>; 3],
}

/// Carries out the operations that `data` names.
pub fn run(data: &[u8]) {
    let mut bench = Bench {
        f: Function::new(Identity { mac: MAC }),
        slots: regs::all().collect(),
        pending: VecDeque::new(),
        prompt: true,
        now_ns: 0,
        fired: [None; 3],
    };
    let mut done = 0;
    for op in ops::decode(data) {
        bench.step(op);
        done += 1;
    }
    ops::count(done);
    bench.settle();
}

impl Bench {
    fn step(&mut self, op: Op) {
        let before = self.f.clone();
        let refused = before.counters().refused_total();
        let action = match op.kind % kind::COUNT {
            kind::READ => {
                let slot = self.slots[usize::from(op.b) % self.slots.len()];
                self.read(slot);
                Action::None
            }
            kind::WRITE => {
                let slot = self.slots[usize::from(op.b) % self.slots.len()];
                self.f.mmio_write(slot.offset(), Width::Dword, op.v)
            }
            kind::READ_ANY => {
                let value = self.f.mmio_read(op.v, width(op));
                assert!(value == 0 || width(op) == Width::Dword);
                Action::None
            }
            // Far beyond the end as well.
            kind::WRITE_ANY => self.f.mmio_write(op.v, width(op), op.b.into()),
            kind::WRITE_AT => self.f.mmio_write(op.b.into(), width(op), op.v),
            kind::CONFIG_READ => {
                self.config_read(op.b, width(op));
                Action::None
            }
            kind::CONFIG_WRITE => self.f.config_write(op.b, width(op), op.v),
            kind::MSIX_READ => {
                self.f.msix_read(op.v, width(op));
                Action::None
            }
            kind::MSIX_WRITE => {
                self.f.msix_write(op.b.into(), width(op), op.v);
                Action::None
            }
            kind::HOST_STEP => match self.pending.pop_front() {
                Some(action) => self.carry_out(action, op.flag(0)),
                None => Action::None,
            },
            kind::HOST_MODE => {
                self.prompt = op.flag(0);
                Action::None
            }
            kind::CONFIRM => self.f.queue_enabled(queue(op), op.flag(1)),
            kind::REPLY => {
                self.f.mailbox_reply(reply(op.flag(0)));
                Action::None
            }
            kind::RESET_DONE => {
                self.f.reset_done();
                Action::None
            }
            kind::RESET => {
                self.pending.clear();
                self.f.reset();
                self.check_fresh();
                Action::None
            }
            kind::LINK => {
                let link = [None, Some(10), Some(100), Some(1000), Some(op.b)];
                self.f.set_link(link[usize::from(op.a) % link.len()])
            }
            kind::RAISE => {
                self.f.raise(CAUSES[usize::from(op.a) % CAUSES.len()]);
                Action::None
            }
            kind::SIGNALS => {
                self.now_ns = self.now_ns.saturating_add(u64::from(op.v) << (op.a % 33));
                self.signals();
                Action::None
            }
            kind::HEAD => {
                self.f.set_head(queue(op), op.b);
                Action::None
            }
            _ => {
                self.f.add_stats(&Stats {
                    rx_bytes: op.v,
                    tx_frames: op.b.into(),
                    ..Stats::default()
                });
                Action::None
            }
        };
        let now_refused = self.f.counters().refused_total();
        // Reading configuration space looks more than once.
        let reads = op.kind % kind::COUNT == kind::CONFIG_READ;
        assert!(
            reads || now_refused - refused <= 2,
            "an access and its cause"
        );
        let counted = |f: &Function, reason| f.counters().refused(reason);
        if REFUSED_WHOLE
            .iter()
            .any(|r| counted(&self.f, *r) != counted(&before, *r))
        {
            assert_eq!(action, Action::None, "refused, and acted upon");
            self.check_unchanged(&before);
        }
        check_action(&before, &self.f, action);
        self.check_rings(&before, op);
        self.take(action);
    }

    /// What a read of a register shows is what peeking showed; only two registers change by it.
    fn read(&mut self, slot: Slot) {
        let (shown, before) = (self.f.peek(slot), self.f.clone());
        let value = self.f.mmio_read(slot.offset(), Width::Dword);
        match (slot.spec().access, slot.reg) {
            (Access::WriteOnly { .. }, _) => assert_eq!(value, 0),
            (_, Reg::Eicr) => {
                assert_eq!(value, shown);
                assert_eq!(self.f.peek(slot), 0, "reading clears");
            }
            (_, Reg::V2pMailbox) => assert_eq!(value, shown),
            _ => {
                assert_eq!(value, shown);
                self.check_unchanged(&before);
            }
        }
    }

    fn config_read(&mut self, offset: u16, width: Width) {
        let value = self.f.config_read(offset, width);
        assert_eq!(value & !width.mask(), 0);
        let len = width.bytes() as u16;
        let Some(end) = offset.checked_add(len).filter(|end| *end <= 4096) else {
            assert_eq!(value, width.mask(), "nobody answers");
            return;
        };
        let bytes = (offset..end).enumerate();
        let whole = bytes.fold(0, |all, (i, at)| {
            all | self.f.config_read(at, Width::Byte) << (8 * i)
        });
        assert_eq!(value, whole);
        assert_eq!(self.f.config_read(0, Width::Dword), 0x10ca_8086);
    }

    /// Vectors fire only where they may, and not before their time.
    fn signals(&mut self) {
        let get = |f: &Function, offset| regs::find(offset).map_or(0, |slot| f.peek(slot));
        let (cause, mask) = (get(&self.f, 0x1580), get(&self.f, 0x1524));
        let due = self.f.signals_due();
        let signals = self.f.take_signals(self.now_ns);
        assert!(due || signals == Default::default());
        for vector in signals.vectors.iter() {
            assert!(self.f.bus_master() && vector < 3);
            assert!(cause >> vector & mask >> vector & 1 != 0, "not asked for");
            let eitr = get(&self.f, 0x1680 + 4 * u32::from(vector)) as u16;
            let last = &mut self.fired[usize::from(vector)];
            if let Some(last) = *last {
                assert!(self.now_ns - last >= interval_ns(eitr), "too soon");
            }
            *last = Some(self.now_ns);
        }
        assert!(signals.deadline_ns.is_none_or(|at| at > self.now_ns));
        let again = self.f.take_signals(self.now_ns);
        assert!(again.vectors.is_empty(), "signalled twice");
        assert_eq!(again.deadline_ns, signals.deadline_ns);
    }

    /// The host does what it was asked, or says that it could not.
    fn carry_out(&mut self, action: Action, well: bool) -> Action {
        match action {
            Action::TxEnable(_) => self.f.queue_enabled(Queue::Tx, well),
            Action::RxEnable(_) => self.f.queue_enabled(Queue::Rx, well),
            Action::Disable(queue) => self.f.queue_enabled(queue, false),
            Action::Mailbox(_) => {
                self.f.mailbox_reply(reply(well));
                assert_eq!(self.f.mailbox_request(), None);
                Action::None
            }
            Action::Reset(_) => {
                self.f.reset_done();
                assert!(!self.f.reset_pending());
                Action::None
            }
            _ => Action::None,
        }
    }

    /// Keeps an action for later, or has it carried out and what follows from it.
    fn take(&mut self, mut action: Action) {
        if action == Action::None {
            return;
        }
        if !self.prompt || !self.pending.is_empty() {
            self.pending.push_back(action);
            return;
        }
        for _ in 0..4 {
            if action == Action::None {
                return;
            }
            let before = self.f.clone();
            action = self.carry_out(action, true);
            check_action(&before, &self.f, action);
        }
        panic!("actions without end");
    }

    /// However it stands: the guest resets it, the host answers, and the queues run.
    fn settle(&mut self) {
        self.f.reset_done();
        self.prompt = true;
        self.pending.clear();
        let write = |f: &mut Function, at, value| f.mmio_write(at, Width::Dword, value);
        assert_ne!(write(&mut self.f, 0, regs::CTRL_RST), Action::None);
        self.f.reset_done();
        for (base, queue) in [(0x3800, Queue::Tx), (0x2800, Queue::Rx)] {
            let _ = write(&mut self.f, base, 0x1000);
            let _ = write(&mut self.f, base + 8, 128);
            if queue == Queue::Rx {
                let _ = write(&mut self.f, base + 12, 0x0200_0002);
            }
            let action = write(&mut self.f, base + 0x28, regs::DCTL_ENABLE);
            let asked = matches!(action, Action::TxEnable(_) | Action::RxEnable(_));
            assert!(asked, "{queue:?}: {action:?}");
            let _ = self.carry_out(action, true);
            assert_eq!(self.f.queue_state(queue), QueueState::Enabled);
        }
    }

    fn check_unchanged(&self, before: &Function) {
        for slot in &self.slots {
            assert_eq!(self.f.peek(*slot), before.peek(*slot), "{slot:?} changed");
        }
        assert_eq!(self.f.bus_master(), before.bus_master());
    }

    /// After the VMM's reset all is as in a new function, save counters and what the link shows.
    fn check_fresh(&mut self) {
        let mut new = Function::new(Identity { mac: MAC });
        for slot in &self.slots {
            if slot.spec().access != Access::Counter && slot.reg != Reg::Status {
                assert_eq!(self.f.peek(*slot), new.peek(*slot), "{slot:?} is left");
            }
        }
        for at in (0..256).step_by(4) {
            let (old, new) = (
                self.f.config_read(at, Width::Dword),
                new.config_read(at, Width::Dword),
            );
            assert_eq!(old, new, "configuration {at:#x} is left");
        }
        for at in (0..48).step_by(4) {
            let (old, new) = (
                self.f.msix_read(at, Width::Dword),
                new.msix_read(at, Width::Dword),
            );
            assert_eq!(old, new, "vector table {at:#x} is left");
        }
    }

    /// A ring that the host knows of does not change under it.
    fn check_rings(&self, before: &Function, op: Op) {
        for (queue, base) in [(Queue::Tx, 0x3800), (Queue::Rx, 0x2800)] {
            let state = self.f.queue_state(queue);
            let get = |f: &Function, at: u32| regs::find(base + at).map(|slot| f.peek(slot));
            let shown = get(&self.f, 0x28).is_some_and(|v| v & regs::DCTL_ENABLE != 0);
            assert_eq!(shown, state.shows_enabled());
            if state == QueueState::Disabled || before.queue_state(queue) == QueueState::Disabled {
                continue;
            }
            for offset in [0, 4, 8, 12] {
                assert_eq!(get(&self.f, offset), get(before, offset), "ring changed");
            }
            let moved = op.kind % kind::COUNT == kind::HEAD;
            assert!(moved || get(&self.f, 16) == get(before, 16), "head changed");
        }
        assert_eq!(self.f.identity(), before.identity());
    }
}

fn reply(ack: bool) -> Reply {
    if ack {
        Reply::Ack
    } else {
        Reply::Nack
    }
}

fn check_ring(base: u64, len_bytes: u32) {
    assert_eq!(base % 128, 0);
    assert!(len_bytes % 128 == 0 && (128..=65536).contains(&len_bytes));
    assert!(base.checked_add(u64::from(len_bytes) - 1).is_some());
}

/// What an action promises, given the function before and after.
fn check_action(before: &Function, after: &Function, action: Action) {
    let starts = |queue| {
        assert_eq!(before.queue_state(queue), QueueState::Disabled);
        assert_eq!(after.queue_state(queue), QueueState::Enabling);
        assert!(!before.reset_pending());
    };
    match action {
        Action::None => {}
        Action::TxEnable(ring) => {
            starts(Queue::Tx);
            check_ring(ring.base.raw(), ring.len_bytes);
        }
        Action::RxEnable(ring) => {
            starts(Queue::Rx);
            check_ring(ring.base.raw(), ring.len_bytes);
            assert!((1024..=16384).contains(&ring.layout.packet_bytes));
            assert_eq!(ring.layout.packet_bytes % 1024, 0);
            assert_eq!(ring.layout.header_bytes % 64, 0);
        }
        Action::Disable(queue) => {
            let state = before.queue_state(queue);
            assert!(matches!(state, QueueState::Enabling | QueueState::Enabled));
            assert_eq!(after.queue_state(queue), QueueState::Disabling);
        }
        Action::Doorbell { queue, tail } => {
            assert_eq!(after.queue_state(queue), QueueState::Enabled);
            assert_eq!(after.tail(queue), tail);
        }
        Action::Mailbox(request) => {
            assert!(!matches!(request, Request::Unknown(_)));
            assert_eq!(before.mailbox_request(), None);
            assert_eq!(after.mailbox_request(), Some(request));
            assert!(!before.reset_pending());
        }
        Action::Reset(_) => {
            assert!(!before.reset_pending() && after.reset_pending());
            for queue in [Queue::Tx, Queue::Rx] {
                assert_eq!(after.queue_state(queue), QueueState::Disabled);
            }
            assert_eq!(after.mailbox_request(), None);
        }
        Action::BusMaster(on) => {
            assert_eq!((before.bus_master(), after.bus_master()), (!on, on));
        }
        Action::Signals => assert!(after.signals_due()),
    }
}
