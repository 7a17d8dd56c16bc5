// SPDX-License-Identifier: GPL-2.0

//! Any access, of any width, at any place, in any order: the model neither panics nor asks its
//! host for anything that its rules exclude.

use std::collections::HashMap;

use proptest::prelude::*;

use sluice_core::net::MacAddr;
use sluice_core::vf::regs::{
    self,
    Access,
    Reg, //
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
    VectorMask,
    Width, //
};

const MAC: MacAddr = MacAddr::new([0x02, 0, 0, 0, 0, 1]);

fn function() -> Function {
    Function::new(Identity { mac: MAC })
}

/// What guest, VMM and host may do.
#[derive(Clone, Copy, Debug)]
enum Step {
    MmioRead(u32, Width),
    MmioWrite(u32, Width, u32),
    ConfigRead(u16, Width),
    ConfigWrite(u16, Width, u32),
    MsixRead(u32, Width),
    MsixWrite(u32, Width, u32),
    /// A legal ring, its length in units of 128 bytes, and the queue's enable bit.
    Open(Queue, u32),
    Confirm(Queue, bool),
    Reply(Reply),
    ResetDone,
    Reset,
    Link(Option<u16>),
    Raise(Cause),
    Signals(u64),
    Head(Queue, u16),
    Stats(u32),
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![
        8 => Just(Width::Dword),
        1 => Just(Width::Word),
        1 => Just(Width::Byte),
    ]
}

fn queue() -> impl Strategy<Value = Queue> {
    prop_oneof![Just(Queue::Tx), Just(Queue::Rx)]
}

/// Mostly registers that exist, and values that mean something to some of them.
fn offset() -> impl Strategy<Value = u32> {
    let named: Vec<u32> = regs::all().map(|slot| slot.offset()).collect();
    prop_oneof![
        9 => prop::sample::select(named),
        1 => 0..0x5000u32,
        1 => any::<u32>(),
    ]
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => any::<u32>(),
        4 => (0..32u32).prop_map(|bit| 1 << bit),
        4 => Just(regs::DCTL_ENABLE),
        4 => 0..17u32,
        2 => Just(0x8200_0002u32),
        2 => (1..=512u32).prop_map(|n| n * 128),
        2 => (1..=6u32, 0..4u32).prop_map(|(kind, info)| kind | (info << 16)),
        1 => Just(0),
    ]
}

fn cause() -> impl Strategy<Value = Cause> {
    prop::sample::select(vec![
        Cause::Rx0,
        Cause::Tx0,
        Cause::Rx1,
        Cause::Tx1,
        Cause::Other,
    ])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (offset(), width()).prop_map(|(o, w)| Step::MmioRead(o, w)),
        60 => (offset(), width(), value()).prop_map(|(o, w, v)| Step::MmioWrite(o, w, v)),
        2 => (any::<u16>(), width()).prop_map(|(o, w)| Step::ConfigRead(o, w)),
        2 => (0..256u16, width(), any::<u32>()).prop_map(|(o, w, v)| Step::ConfigWrite(o, w, v)),
        1 => (any::<u16>(), width(), any::<u32>()).prop_map(|(o, w, v)| Step::ConfigWrite(o, w, v)),
        1 => Just(Step::ConfigWrite(4, Width::Word, 6)),
        2 => (0..0x5000u32, width()).prop_map(|(o, w)| Step::MsixRead(o, w)),
        2 => (0..64u32, width(), any::<u32>()).prop_map(|(o, w, v)| Step::MsixWrite(o, w, v)),
        5 => (queue(), 1..=512u32).prop_map(|(q, n)| Step::Open(q, n)),
        10 => (queue(), any::<bool>()).prop_map(|(q, on)| Step::Confirm(q, on)),
        5 => prop_oneof![Just(Reply::Ack), Just(Reply::Nack)].prop_map(Step::Reply),
        10 => Just(Step::ResetDone),
        1 => Just(Step::Reset),
        2 => prop::option::of(prop_oneof![Just(10), Just(100), Just(1000)]).prop_map(Step::Link),
        5 => cause().prop_map(Step::Raise),
        5 => any::<u64>().prop_map(Step::Signals),
        2 => (queue(), any::<u16>()).prop_map(|(q, h)| Step::Head(q, h)),
        1 => any::<u32>().prop_map(Step::Stats),
    ]
}

const RX: u32 = 0x2800;
const TX: u32 = 0x3800;
// Offsets from RX and TX.
const BAL: u32 = 0x00;
const BAH: u32 = 0x04;
const LEN: u32 = 0x08;
const SRRCTL: u32 = 0x0C;
const HEAD: u32 = 0x10;
const DCTL: u32 = 0x28;

fn base(queue: Queue) -> u32 {
    match queue {
        Queue::Tx => TX,
        Queue::Rx => RX,
    }
}

/// Sets up a ring and asks for the queue. Returns the action of the last write.
fn open(f: &mut Function, queue: Queue, n: u32) -> Action {
    let regs = [
        (BAL, 0x1000),
        (BAH, 1),
        (LEN, n * 128),
        (SRRCTL, 0x8200_0002),
        (HEAD, 0),
    ];
    for (offset, value) in regs {
        if offset != SRRCTL || queue == Queue::Rx {
            let _ = f.mmio_write(base(queue) + offset, Width::Dword, value);
        }
    }
    f.mmio_write(base(queue) + DCTL, Width::Dword, regs::DCTL_ENABLE)
}

/// What an action promises, given the function before and after the step.
fn check_action(before: &Function, after: &Function, action: Action) -> Result<(), TestCaseError> {
    match action {
        Action::None => {}
        Action::TxEnable(ring) => {
            prop_assert_eq!(before.queue_state(Queue::Tx), QueueState::Disabled);
            prop_assert_eq!(after.queue_state(Queue::Tx), QueueState::Enabling);
            prop_assert!(!before.reset_pending());
            check_ring(ring.base.raw(), ring.len_bytes)?;
        }
        Action::RxEnable(ring) => {
            prop_assert_eq!(before.queue_state(Queue::Rx), QueueState::Disabled);
            prop_assert_eq!(after.queue_state(Queue::Rx), QueueState::Enabling);
            prop_assert!(!before.reset_pending());
            check_ring(ring.base.raw(), ring.len_bytes)?;
            prop_assert!((1024..=16384).contains(&ring.layout.packet_bytes));
            prop_assert_eq!(ring.layout.packet_bytes % 1024, 0);
            prop_assert_eq!(ring.layout.header_bytes % 64, 0);
        }
        Action::Disable(queue) => {
            let state = before.queue_state(queue);
            prop_assert!(matches!(state, QueueState::Enabling | QueueState::Enabled));
            prop_assert_eq!(after.queue_state(queue), QueueState::Disabling);
        }
        Action::Doorbell { queue, tail } => {
            prop_assert_eq!(after.queue_state(queue), QueueState::Enabled);
            prop_assert_eq!(after.tail(queue), tail);
        }
        Action::Mailbox(request) => {
            prop_assert!(!matches!(request, Request::Unknown(_)));
            prop_assert_eq!(before.mailbox_request(), None);
            prop_assert_eq!(after.mailbox_request(), Some(request));
            prop_assert!(!before.reset_pending());
        }
        Action::Reset(_) => {
            prop_assert!(!before.reset_pending());
            prop_assert!(after.reset_pending());
            for queue in [Queue::Tx, Queue::Rx] {
                prop_assert_eq!(after.queue_state(queue), QueueState::Disabled);
            }
            prop_assert_eq!(after.mailbox_request(), None);
        }
        Action::BusMaster(on) => {
            prop_assert_eq!(before.bus_master(), !on);
            prop_assert_eq!(after.bus_master(), on);
        }
        Action::Signals => prop_assert!(after.signals_due()),
    }
    Ok(())
}

fn check_ring(base: u64, len_bytes: u32) -> Result<(), TestCaseError> {
    prop_assert_eq!(base % 128, 0);
    prop_assert!(len_bytes % 128 == 0 && (128..=65536).contains(&len_bytes));
    prop_assert!(base.checked_add(u64::from(len_bytes) - 1).is_some());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_step_breaks_the_rules(steps in prop::collection::vec(step(), 1..400)) {
        let mut f = function();
        for step in steps {
            let before = f.clone();
            let mut action = Action::None;
            match step {
                Step::MmioRead(o, w) => {
                    let value = f.mmio_read(o, w);
                    prop_assert!(w == Width::Dword || value == 0);
                }
                Step::MmioWrite(o, w, v) => action = f.mmio_write(o, w, v),
                Step::ConfigRead(o, w) => {
                    prop_assert_eq!(f.config_read(o, w) & !w.mask(), 0);
                }
                Step::ConfigWrite(o, w, v) => action = f.config_write(o, w, v),
                Step::MsixRead(o, w) => {
                    f.msix_read(o, w);
                }
                Step::MsixWrite(o, w, v) => f.msix_write(o, w, v),
                Step::Open(queue, n) => action = open(&mut f, queue, n),
                Step::Confirm(queue, on) => action = f.queue_enabled(queue, on),
                Step::Reply(reply) => f.mailbox_reply(reply),
                Step::ResetDone => f.reset_done(),
                Step::Reset => f.reset(),
                Step::Link(link) => action = f.set_link(link),
                Step::Raise(cause) => f.raise(cause),
                Step::Signals(now_ns) => {
                    let signals = f.take_signals(now_ns);
                    prop_assert!(before.bus_master() || signals.vectors.is_empty());
                    prop_assert!(signals.vectors.iter().all(|vector| vector < 3));
                    // What was signalled is not signalled again by itself.
                    let again = f.take_signals(now_ns);
                    prop_assert_eq!(again.vectors, VectorMask::EMPTY);
                    prop_assert_eq!(again.deadline_ns, signals.deadline_ns);
                }
                Step::Head(queue, head) => f.set_head(queue, head),
                Step::Stats(n) => f.add_stats(&Stats { rx_bytes: n, ..Stats::default() }),
            }
            check_action(&before, &f, action)?;
            prop_assert_eq!(f.identity(), before.identity());
            for (queue, base) in [(Queue::Tx, TX), (Queue::Rx, RX)] {
                let state = f.queue_state(queue);
                let get = |f: &Function, offset| regs::find(base + offset).map(|slot| f.peek(slot));
                let control = get(&f, DCTL).unwrap();
                let shown = control & regs::DCTL_ENABLE != 0;
                prop_assert_eq!(shown, state.shows_enabled());
                // A ring that the host knows of does not change under it.
                let opened = matches!(step, Step::Open(q, _) if q == queue);
                if state == QueueState::Disabled || opened {
                    continue;
                }
                prop_assert!(before.queue_state(queue) != QueueState::Disabled
                    || action != Action::None);
                for offset in [BAL, BAH, LEN, SRRCTL] {
                    prop_assert_eq!(get(&f, offset), get(&before, offset));
                }
                let moved = matches!(step, Step::Head(q, _) if q == queue);
                prop_assert!(moved || get(&f, HEAD) == get(&before, HEAD));
            }
        }
    }

    /// Registers that only store, against a plain map.
    #[test]
    fn plain_registers_read_back(
        writes in prop::collection::vec((offset(), any::<u32>(), any::<bool>()), 1..300),
    ) {
        let mut f = function();
        let mut map = HashMap::new();
        for (offset, value, check) in writes {
            let Some(slot) = regs::find(offset) else { continue };
            let mask = match slot.spec().access {
                Access::ReadWrite { mask } | Access::Configure { mask } => mask,
                _ => continue,
            };
            let value = match slot.reg {
                Reg::Ctrl | Reg::VmbMem | Reg::V2pMailbox => continue,
                Reg::Rdh | Reg::Tdh => 0,
                Reg::Rxdctl | Reg::Txdctl => value & !regs::DCTL_ENABLE,
                Reg::Tdwbal => value & !1,
                _ => value,
            };
            prop_assert_eq!(f.mmio_write(offset, Width::Dword, value), Action::None);
            map.insert(offset, value & mask);
            if check {
                for (offset, value) in &map {
                    prop_assert_eq!(f.mmio_read(*offset, Width::Dword), *value);
                }
            }
        }
        prop_assert_eq!(f.counters().refused_total(), 0);
        for slot in regs::all() {
            let expected = map.get(&slot.offset()).copied();
            if slot.spec().access != Access::ReadOnly && slot.reg != Reg::V2pMailbox {
                prop_assert_eq!(f.peek(slot), expected.unwrap_or(slot.spec().reset));
            }
        }
    }

    /// Refused accesses are counted under their reason, and leave no trace.
    #[test]
    fn refusals_have_one_reason_and_no_effect(
        offset in 0..0x5000u32,
        width in width(),
        value in any::<u32>(),
    ) {
        let mut f = function();
        let slot = regs::find(offset);
        let unknown = slot.is_none();
        let reason = if width != Width::Dword {
            Refusal::BadWidth
        } else if offset % 4 != 0 {
            Refusal::Misaligned
        } else if unknown {
            Refusal::UnknownRegister
        } else {
            match slot.unwrap().spec().access {
                Access::ReadOnly | Access::Counter => Refusal::ReadOnly,
                _ => return Ok(()),
            }
        };
        let dump = |f: &Function| regs::all().map(|slot| f.peek(slot)).collect::<Vec<_>>();
        let before = dump(&f);
        prop_assert_eq!(f.mmio_write(offset, width, value), Action::None);
        prop_assert_eq!(f.counters().refused(reason), 1);
        prop_assert_eq!(f.counters().refused_total(), 1);
        prop_assert_eq!(dump(&f), before);
        if reason != Refusal::ReadOnly {
            prop_assert_eq!(f.mmio_read(offset, width), 0);
            prop_assert_eq!(f.counters().refused(reason), 2);
        }
    }

    /// Configuration space reads the same in bytes, words and double words.
    #[test]
    fn configuration_space_is_bytes(
        writes in prop::collection::vec((0..256u16, width(), any::<u32>()), 0..50),
        offset in 0..4096u16,
    ) {
        let mut f = function();
        for (offset, width, value) in writes {
            let _ = f.config_write(offset, width, value);
        }
        // Read-only fields hold.
        prop_assert_eq!(f.config_read(0, Width::Dword), 0x10CA_8086);
        prop_assert_eq!(f.config_read(8, Width::Dword), 0x0200_0001);
        prop_assert_eq!(f.config_read(0x34, Width::Byte), 0x70);
        prop_assert_eq!(f.config_read(0x3D, Width::Byte), 0);
        prop_assert_eq!(f.config_read(0x10, Width::Dword) & 0x3FFF, 0xC);
        prop_assert_eq!(f.config_read(0x1C, Width::Dword) & 0x3FFF, 0xC);
        prop_assert_eq!(f.config_read(0x70, Width::Byte), 0x11);
        prop_assert_eq!(f.config_read(0xA8, Width::Word) & (1 << 15), 0);
        for width in [Width::Byte, Width::Word, Width::Dword] {
            let len = width.bytes() as u16;
            let value = f.config_read(offset, width);
            if offset + len > 4096 {
                prop_assert_eq!(value, width.mask());
                continue;
            }
            let bytes = (0..len)
                .map(|i| f.config_read(offset + i, Width::Byte) << (8 * i))
                .fold(0, |all, byte| all | byte);
            prop_assert_eq!(value, bytes);
        }
    }

    /// The table's storage against a plain map, masked as the MSI-X capability says.
    #[test]
    fn the_vector_table_reads_back(
        writes in prop::collection::vec((0..0x5000u32, any::<u32>()), 0..100),
    ) {
        let mut f = function();
        let mut table = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
        for (offset, value) in writes {
            // Half of them inside.
            let offset = if value & 1 == 0 { offset % 48 } else { offset };
            f.msix_write(offset, Width::Dword, value);
            let index = offset as usize / 4;
            if offset % 4 == 0 && index < table.len() {
                table[index] = value & [!3, u32::MAX, u32::MAX, 1][index % 4];
            }
        }
        for (i, value) in table.iter().enumerate() {
            prop_assert_eq!(f.msix_read(i as u32 * 4, Width::Dword), *value);
        }
        prop_assert_eq!(f.msix_read(0x2000, Width::Dword), 0);
    }
}

#[test]
fn every_offset_and_width_is_safe() {
    let mut f = function();
    for value in [0, 1, 7, 0x0400_0000, 0x0200_0000, u32::MAX] {
        for width in [Width::Byte, Width::Word, Width::Dword] {
            for offset in 0..0x4100 {
                f.mmio_read(offset, width);
                let _ = f.mmio_write(offset, width, value);
                f.msix_read(offset, width);
                f.msix_write(offset, width, value);
                f.reset_done();
            }
            for offset in 0..=u16::MAX {
                f.config_read(offset, width);
                let _ = f.config_write(offset, width, value);
                f.reset_done();
            }
        }
    }
    for offset in [u32::MAX, u32::MAX - 3, 0x8000_0000, 0x0001_3818] {
        assert_eq!(f.mmio_read(offset, Width::Dword), 0);
        assert_eq!(f.mmio_write(offset, Width::Dword, 1), Action::None);
    }
}

#[test]
fn the_function_is_small() {
    let len = size_of::<Function>();
    assert!(len < 2048, "{len} bytes");
}
