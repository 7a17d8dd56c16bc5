// SPDX-License-Identifier: GPL-2.0

//! The mailbox: who owns the buffer, what becomes of a message, and that a guest cannot get the
//! two sides out of step.

use proptest::prelude::*;

use sluice_core::net::MacAddr;
use sluice_core::vf::mailbox::{
    bits,
    message,
    WORDS, //
};
use sluice_core::vf::{
    Action,
    Function,
    Identity,
    Refusal,
    Reply,
    Request,
    Width, //
};

const VMBMEM: u32 = 0x0800;
const V2PMAILBOX: u32 = 0x0C40;
const MAC: MacAddr = MacAddr::new([0x02, 1, 2, 3, 4, 5]);

fn function() -> Function {
    Function::new(Identity { mac: MAC })
}

fn write(f: &mut Function, offset: u32, value: u32) -> Action {
    f.mmio_write(offset, Width::Dword, value)
}

fn read(f: &mut Function, offset: u32) -> u32 {
    f.mmio_read(offset, Width::Dword)
}

fn send(f: &mut Function, words: &[u32]) -> Action {
    assert_eq!(write(f, V2PMAILBOX, bits::VFU), Action::None);
    for (offset, word) in (VMBMEM..).step_by(4).zip(words) {
        assert_eq!(write(f, offset, *word), Action::None);
    }
    write(f, V2PMAILBOX, bits::REQ)
}

/// Clears the guest to send.
fn cleared() -> Function {
    let mut f = function();
    assert_eq!(send(&mut f, &[1]), Action::Mailbox(Request::Reset));
    f.mailbox_reply(Reply::Ack);
    f
}

fn refused(f: &Function, reason: Refusal) -> u64 {
    f.counters().refused(reason)
}

#[test]
fn the_reply_to_a_reset_carries_the_address() {
    let mut f = cleared();
    let state = read(&mut f, V2PMAILBOX);
    assert_eq!(state, bits::PFSTS | bits::PFACK | bits::RSTD);
    // Those bits are gone by reading.
    assert_eq!(read(&mut f, V2PMAILBOX), 0);
    assert_eq!(read(&mut f, VMBMEM), message::RESET | message::ACK);
    assert_eq!(read(&mut f, VMBMEM + 4), 0x0302_0102);
    assert_eq!(read(&mut f, VMBMEM + 8), 0x0504);
}

#[test]
fn while_the_host_thinks_it_owns_the_buffer() {
    let mut f = cleared();
    let request = Request::SetVlan { vid: 9, on: true };
    let action = send(&mut f, &[4 | (1 << 16), 9]);
    assert_eq!(action, Action::Mailbox(request));
    let state = read(&mut f, V2PMAILBOX);
    assert_eq!(state & bits::PFU, bits::PFU);
    assert_eq!(state & bits::PFACK, bits::PFACK);

    let _ = write(&mut f, V2PMAILBOX, bits::VFU);
    assert_eq!(read(&mut f, V2PMAILBOX) & bits::VFU, 0);
    assert_eq!(refused(&f, Refusal::MailboxBusy), 1);
    let _ = write(&mut f, VMBMEM + 4, 77);
    assert_eq!(refused(&f, Refusal::MailboxNotOwned), 1);
    assert_eq!(write(&mut f, V2PMAILBOX, bits::REQ), Action::None);
    assert_eq!(refused(&f, Refusal::MailboxNotOwned), 2);
    assert_eq!(f.mailbox_request(), Some(request));

    f.mailbox_reply(Reply::Ack);
    assert_eq!(f.mailbox_request(), None);
    assert_eq!(read(&mut f, V2PMAILBOX), bits::PFSTS);
    let first = 4 | (1 << 16) | message::ACK | message::CTS;
    assert_eq!(read(&mut f, VMBMEM), first);
    assert_eq!(read(&mut f, VMBMEM + 4), 9);
    // A second answer to the same request does nothing.
    f.mailbox_reply(Reply::Nack);
    assert_eq!(read(&mut f, VMBMEM), first);
    assert_eq!(f.counters().mailbox_nacks, 0);
}

#[test]
fn a_reset_without_an_address_is_refused() {
    let mut f = Function::new(Identity {
        mac: MacAddr::new([0; 6]),
    });
    assert_eq!(send(&mut f, &[1]), Action::Mailbox(Request::Reset));
    f.mailbox_reply(Reply::Ack);
    assert_eq!(read(&mut f, VMBMEM), message::RESET | message::NACK);
    // It may send requests all the same, to set one that it made up.
    let own = MacAddr::new([2, 0, 0, 0, 0, 7]);
    let action = send(&mut f, &[2, 2, 0x0700]);
    assert_eq!(action, Action::Mailbox(Request::SetMac(own)));
}

#[test]
fn receipt_and_reply_are_notified_each() {
    let mut f = cleared();
    let _ = f.config_write(4, Width::Word, 6);
    for (offset, value) in [(0x1740, 0x82), (0x152C, 7), (0x1524, 7)] {
        let _ = write(&mut f, offset, value);
    }
    let _ = send(&mut f, &[6]);
    assert_eq!(f.take_signals(0).vectors.bits(), 4);
    f.mailbox_reply(Reply::Ack);
    assert_eq!(f.take_signals(1).vectors.bits(), 4);
    // There is no request to answer.
    f.mailbox_reply(Reply::Ack);
    assert_eq!(f.take_signals(2).vectors.bits(), 0);
}

#[test]
fn a_guest_without_clearance_is_told_so_once() {
    let mut f = function();
    read(&mut f, V2PMAILBOX);
    let _ = write(&mut f, V2PMAILBOX, bits::ACK);
    assert_eq!(read(&mut f, VMBMEM), message::NACK);
    assert_eq!(read(&mut f, V2PMAILBOX), bits::PFSTS);
    // Reading that is acknowledged in turn: no message follows, or it would go on for ever.
    let _ = write(&mut f, V2PMAILBOX, bits::ACK);
    assert_eq!(read(&mut f, V2PMAILBOX), 0);
}

#[test]
fn what_is_no_request_is_refused_at_once() {
    let bad: &[&[u32]] = &[
        &[0],
        &[7],
        &[0xFFFF],
        &[0x0100_0004, 1],
        &[1 | (1 << 16)],
        // Addresses: zero, group, broadcast, unknown list command.
        &[2, 0, 0],
        &[2, 0x0000_0001, 0],
        &[2, u32::MAX, 0xFFFF],
        &[2 | (2 << 16), 0x0000_0101, 0],
        &[2 | (3 << 16), 0x0000_0002, 0],
        // Too many hashes, VLAN and promiscuous arguments, frame sizes.
        &[3 | (31 << 16)],
        &[3 | (255 << 16)],
        &[4 | (2 << 16), 1],
        &[6 | (4 << 16)],
        &[5, 0],
        &[5, 63],
        &[5, 0x4000],
        &[5, 0x0001_0600],
        &[5 | (1 << 16), 1522],
    ];
    for words in bad {
        let mut f = cleared();
        assert_eq!(send(&mut f, words), Action::None, "{words:x?}");
        assert_eq!(refused(&f, Refusal::MailboxUnknown), 1, "{words:x?}");
        let first = words[0] | message::NACK | message::CTS;
        assert_eq!(read(&mut f, VMBMEM), first, "{words:x?}");
        assert_eq!(f.mailbox_request(), None);
    }
}

#[test]
fn the_hosts_own_words_are_dropped_without_an_answer() {
    for first in [message::ACK | 4, message::NACK | 4] {
        let mut f = cleared();
        read(&mut f, V2PMAILBOX);
        assert_eq!(send(&mut f, &[first]), Action::None);
        assert_eq!(read(&mut f, V2PMAILBOX), bits::PFACK);
        assert_eq!(read(&mut f, VMBMEM), first);
    }
}

#[test]
fn a_reset_in_progress_takes_no_message() {
    let mut f = cleared();
    let _ = write(&mut f, 0, 1 << 26);
    assert_eq!(read(&mut f, V2PMAILBOX), bits::RSTI);
    assert_eq!(read(&mut f, V2PMAILBOX), bits::RSTI);
    let _ = write(&mut f, V2PMAILBOX, bits::VFU);
    assert_eq!(read(&mut f, V2PMAILBOX), bits::RSTI);
    assert_eq!(write(&mut f, V2PMAILBOX, bits::REQ), Action::None);
    assert_eq!(refused(&f, Refusal::ResetPending), 2);
    f.reset_done();
    assert_eq!(read(&mut f, V2PMAILBOX), bits::RSTD);
    assert_eq!(read(&mut f, V2PMAILBOX), 0);
    // Clearance is gone.
    assert_eq!(send(&mut f, &[4 | (1 << 16), 9]), Action::None);
    assert_eq!(refused(&f, Refusal::MailboxNotClear), 1);
}

#[test]
fn a_guest_that_never_reads_blocks_only_itself() {
    let mut f = cleared();
    for n in 0..100 {
        let _ = f.set_link(if n % 2 == 0 { Some(1000) } else { None });
    }
    assert_eq!(f.counters().mailbox_pings, 0);
    assert_eq!(read(&mut f, VMBMEM), message::RESET | message::ACK);
    // Its acknowledgement brings one message for all of them.
    let _ = write(&mut f, V2PMAILBOX, bits::ACK);
    assert_eq!(f.counters().mailbox_pings, 1);
    let ping = message::PF_CONTROL | message::CTS;
    assert_eq!(read(&mut f, VMBMEM), ping);
}

/// A guest's or the host's move.
#[derive(Clone, Copy, Debug)]
enum Step {
    Control(u32),
    Word(u8, u32),
    Read,
    Reply(Reply),
    Link(bool),
    Reset,
    ResetDone,
}

fn step() -> impl Strategy<Value = Step> {
    let first = prop_oneof![
        4 => Just(1u32),
        4 => (1..8u32, 0..4u32).prop_map(|(kind, info)| kind | (info << 16)),
        1 => any::<u32>(),
    ];
    prop_oneof![
        8 => (0..8u32).prop_map(Step::Control),
        4 => Just(Step::Control(bits::VFU)),
        4 => Just(Step::Control(bits::REQ)),
        1 => any::<u32>().prop_map(Step::Control),
        6 => first.prop_map(|word| Step::Word(0, word)),
        2 => (0..16u8, any::<u32>()).prop_map(|(i, word)| Step::Word(i, word)),
        4 => Just(Step::Read),
        6 => prop_oneof![Just(Reply::Ack), Just(Reply::Nack)].prop_map(Step::Reply),
        2 => any::<bool>().prop_map(Step::Link),
        1 => Just(Step::Reset),
        2 => Just(Step::ResetDone),
    ]
}

fn buffer(f: &mut Function) -> [u32; WORDS] {
    let mut words = [0; WORDS];
    for (offset, word) in (VMBMEM..).step_by(4).zip(&mut words) {
        *word = read(f, offset);
    }
    words
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_buffer_has_at_most_one_owner(steps in prop::collection::vec(step(), 1..300)) {
        let mut f = function();
        let slot = sluice_core::vf::regs::find(V2PMAILBOX).unwrap();
        let mut asked = 0u64;
        let mut answered = 0u64;
        for step in steps {
            let before = f.peek(slot);
            let old = buffer(&mut f);
            let waiting = f.mailbox_request();
            let mut by_guest = false;
            match step {
                Step::Control(value) => {
                    let action = write(&mut f, V2PMAILBOX, value);
                    if let Action::Mailbox(request) = action {
                        asked += 1;
                        prop_assert_ne!(before & bits::VFU, 0);
                        prop_assert_eq!(before & (bits::PFU | bits::RSTI), 0);
                        prop_assert_eq!(request, Request::parse(&old));
                        prop_assert_eq!(buffer(&mut f), old);
                    }
                }
                Step::Word(index, value) => {
                    by_guest = true;
                    let _ = write(&mut f, VMBMEM + 4 * u32::from(index), value);
                    let owned = before & bits::VFU != 0;
                    let expected = if owned { value } else { old[usize::from(index)] };
                    prop_assert_eq!(buffer(&mut f)[usize::from(index)], expected);
                }
                Step::Read => {
                    let value = read(&mut f, V2PMAILBOX);
                    prop_assert_eq!(value, before);
                    let cleared = bits::PFSTS | bits::PFACK | bits::RSTD;
                    prop_assert_eq!(f.peek(slot), before & !cleared);
                }
                Step::Reply(reply) => {
                    f.mailbox_reply(reply);
                    answered += u64::from(waiting.is_some());
                    prop_assert_eq!(f.mailbox_request(), None);
                    prop_assert_eq!(waiting.is_some(), buffer(&mut f) != old);
                }
                Step::Link(up) => {
                    let _ = f.set_link(up.then_some(1000));
                }
                Step::Reset => {
                    let _ = write(&mut f, 0, 1 << 26);
                    prop_assert_eq!(f.peek(slot), bits::RSTI);
                    prop_assert_eq!(buffer(&mut f), [0; WORDS]);
                }
                Step::ResetDone => f.reset_done(),
            }
            let state = f.peek(slot);
            prop_assert!(state & bits::VFU == 0 || state & bits::PFU == 0);
            prop_assert!(state & bits::RSTI == 0 || state == bits::RSTI);
            prop_assert_eq!(state & !0xFF, 0);
            prop_assert_eq!(state & (bits::REQ | bits::ACK), 0);
            prop_assert_eq!(f.mailbox_request().is_some(), state & bits::PFU != 0);
            // What waits for the host does not change under it; and while the guest owns the
            // buffer, only the guest writes.
            if waiting.is_some() && state & bits::PFU != 0 {
                prop_assert_eq!(f.mailbox_request(), waiting);
            }
            if before & state & bits::VFU != 0 && !by_guest {
                prop_assert_eq!(buffer(&mut f), old);
            }
        }
        let counters = f.counters();
        prop_assert_eq!(counters.mailbox_requests, asked);
        prop_assert!(counters.mailbox_acks + counters.mailbox_nacks >= answered);
    }

    /// Whatever words a guest sends, what comes out of them is in range.
    #[test]
    fn requests_are_in_range(mut words in any::<[u32; WORDS]>(), kind in 0..8u32, info in 0..34u32) {
        if words[15] & 1 == 0 {
            words[0] = kind | (info << 16);
        }
        match Request::parse(&words) {
            Request::SetMac(mac) | Request::AddMacFilter(mac) => {
                prop_assert!(mac.is_valid_station());
            }
            Request::SetMulticast(hashes) => {
                prop_assert_eq!(hashes.as_slice().len() as u32, words[0] >> 16);
                prop_assert!(hashes.as_slice().iter().all(|hash| *hash < 4096));
            }
            Request::SetVlan { vid, .. } => prop_assert!(vid < 4096),
            Request::SetMaxFrame(len) => prop_assert!((64..=0x3FFF).contains(&len)),
            Request::Unknown(first) => prop_assert_eq!(first, words[0]),
            Request::Reset | Request::ClearMacFilters | Request::SetPromisc { .. } => {}
        }
    }
}
