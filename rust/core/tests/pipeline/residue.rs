// SPDX-License-Identifier: GPL-2.0

//! Invariant 8: what passes to another owner carries nothing over.

use crate::sim::bench::*;
use crate::sim::guest::{
    context_words,
    data_word,
    Csum,
    GuestRx,
    GuestTx,
    Send, //
};
use sluice_core::check::Rejection;
use sluice_core::slice::{
    State,
    StopReason, //
};
use sluice_core::vf::Width;

/// All that an owner can read of the function: registers, vector table, configuration space.
fn all_there_is(b: &mut Bench) -> Vec<(&'static str, u32, u32)> {
    let mut seen = Vec::new();
    for offset in (0..0x4000).step_by(4) {
        seen.push(("register", offset, b.read(offset)));
        let word = b.slice.msix_read(offset, Width::Dword);
        seen.push(("vector table", offset, word));
    }
    for offset in (0..4096).step_by(4) {
        let word = b.slice.config_read(offset, Width::Dword);
        seen.push(("configuration", offset.into(), word));
    }
    seen
}

/// Leaves something wherever an owner can.
fn leave_traces(b: &mut Bench) {
    b.bring_up();
    b.request(&[5, 9000]);
    b.request(&[4 | 1 << 16, 100]);
    b.request(&[3 | 2 << 16, 0x0123_0456]);
    let (mut tx, mut rx) = (
        GuestTx::new(TX_RING, 64),
        GuestRx::new(RX_RING, 64, 2048, 0),
    );
    let place = |i: u16| (BUFFERS + 0x1000 + u64::from(i) * 0x1080, 0);
    rx.fill(&mut b.world.borrow_mut(), place);
    b.write(RX + TAIL, rx.tail());
    let send = Send {
        segments: vec![(BUFFERS, 60)],
        ..Send::default()
    };
    tx.send(&mut b.world.borrow_mut(), &send);
    b.write(TX + TAIL, tx.tail());
    b.poll();
    b.world.borrow_mut().nic_rx_arrives(&[1; 100], None);
    b.nic_runs();
    b.poll();
    // Every register and every word of the rest; what must not be written is refused.
    for offset in (0x0C..0x4000).step_by(4) {
        b.write(offset, 0xA5A5_A5A5);
        b.slice.msix_write(offset - 0x0C, Width::Dword, 0xA5A5_A5A5);
    }
    b.write(V2PMAILBOX, 4);
    for word in 0..16 {
        b.write(VMBMEM + word * 4, 0x5A5A_5A5A);
    }
    for offset in (8..256).step_by(4) {
        b.slice
            .config_write(offset, Width::Dword, 0x5A5A_5A5A & !(1 << 15), b.now_ns);
    }
}

/// Another owner.
fn reopen(b: &mut Bench) {
    let hardware = b.slice.close(b.now_ns).expect("it is open");
    assert_eq!(b.world.borrow().pinned(), 0, "pins are left");
    assert_eq!(b.slice.map_stats().pinned, 0);
    assert!(b.slice.open(hardware).is_ok());
}

#[test]
fn nothing_passes_to_the_next_owner() {
    let mut b = Bench::new(1);
    // The first owner of all is told of the link.
    reopen(&mut b);
    let fresh = all_there_is(&mut b);
    leave_traces(&mut b);
    let left = all_there_is(&mut b);
    let changed = fresh.iter().zip(&left).filter(|(a, b)| a != b).count();
    assert!(changed > 40, "traces were left: {changed}");

    reopen(&mut b);
    assert_eq!(b.slice.state(), State::Open);
    assert_eq!(b.slice.take_report(), None);
    for (now, then) in all_there_is(&mut b).into_iter().zip(fresh) {
        assert_eq!(now, then);
    }

    let hardware = b.slice.close(b.now_ns).expect("it is open");
    let port = &hardware.port;
    assert_eq!((port.mac, port.max_frame), (port.own_mac, 1522));
    assert!(port.vlans.is_empty() && port.multicast.is_empty());
}

/// The filters are those of a new owner when the slice is opened, not only after it was closed.
#[test]
fn an_owner_begins_with_filters_of_its_own() {
    let mut b = Bench::new(1);
    let mut hardware = b.slice.close(b.now_ns).expect("it is open");
    hardware.port.vlans.push(100);
    hardware.port.multicast.push(7);
    hardware.port.max_frame = 9000;
    assert!(b.slice.open(hardware).is_ok());
    let hardware = b.slice.close(b.now_ns).expect("it is open");
    assert_eq!(hardware.port.max_frame, 1522);
    assert!(hardware.port.vlans.is_empty() && hardware.port.multicast.is_empty());
}

#[test]
fn a_context_ends_with_its_queue() {
    let mut b = Bench::new(2);
    b.bring_up();
    let send = Send {
        segments: vec![(BUFFERS, 100)],
        csum: Some(Csum {
            mac_len: 14,
            ip_len: 20,
            ipv4: true,
            l4: 1,
            ip_checksum: true,
        }),
        ..Send::default()
    };
    for _ in 0..3 {
        // The NIC has lost its own: a context is sent to it again.
        let mut tx = GuestTx::new(TX_RING, 64);
        assert!(tx.send(&mut b.world.borrow_mut(), &send));
        b.write(TX + TAIL, tx.tail());
        b.poll();
        b.nic_runs();
        b.poll();
        assert!(b.world.borrow_mut().wire.pop().is_some());
        b.disable(TX);
        b.write(TX + 0x10, 0);
        b.write(TX + TAIL, 0);
        b.enable_tx();
    }
    assert_ne!(context_words(&send), [0; 2]);
    // And so is the guest's: it has to give one again.
    let words = [BUFFERS, data_word(100, true, &send, 100)];
    b.world.borrow_mut().guest_write_desc(TX_RING, words);
    b.write(TX + TAIL, 1);
    b.poll();
    let State::Faulted(stopped) = b.slice.state() else {
        panic!("{:?}", b.slice.state());
    };
    assert!(
        matches!(stopped.reason, StopReason::Fault(f) if f.rejection == Rejection::ContextMissing)
    );
    b.close();
}
