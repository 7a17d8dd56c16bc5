// SPDX-License-Identifier: GPL-2.0

//! A scripted `igbvf`: the register accesses that the in-tree driver makes, in its order, against
//! the function model. The host side carries out actions at once, or later as a worker would.

mod guest;
mod host;
mod regs;

use sluice_core::addr::GuestAddr;
use sluice_core::net::MacAddr;
use sluice_core::platform::RxLayout;
use sluice_core::vf::mailbox::bits;
use sluice_core::vf::{
    Action,
    Cause,
    Queue,
    QueueState,
    Refusal,
    Reply,
    Request,
    ResetKind,
    RxRing,
    Stats,
    TxRing,
    Width, //
};

use guest::{
    Igbvf,
    RX_RING,
    TX_RING, //
};
use host::Host;
use regs::*;

const MAC: MacAddr = MacAddr::new([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);

fn opened(lazy: bool) -> Igbvf {
    let mut driver = Igbvf::probe(Host::new(lazy, MAC));
    driver.h.set_link(Some(1000));
    driver.h.clear();
    driver.up();
    driver
}

/// Each of these runs with a host that acts at once and with one that acts later.
fn both(test: fn(bool)) {
    test(false);
    test(true);
}

#[test]
fn probe_finds_the_address() {
    both(|lazy| {
        let driver = Igbvf::probe(Host::new(lazy, MAC));
        assert_eq!(driver.perm_mac, MAC.bytes());
        assert_eq!(driver.mac, MAC.bytes());
        let expected = [Request::Reset, Request::Reset, Request::SetMac(MAC)];
        assert_eq!(driver.h.requests(), expected);
        assert_eq!(driver.h.count(Action::Reset(ResetKind::Ctrl)), 2);
        assert_eq!(driver.h.log[0], Action::BusMaster(true));
        assert_eq!(driver.h.refused(), 0);
        assert_eq!(driver.h.fired, []);
    });
}

#[test]
fn without_an_address_the_guest_makes_one_up() {
    both(|lazy| {
        let driver = Igbvf::probe(Host::new(lazy, MacAddr::new([0; 6])));
        assert_eq!(driver.perm_mac, [0; 6]);
        let own = MacAddr::new(driver.mac);
        assert_eq!(driver.h.requests().last(), Some(&Request::SetMac(own)));
    });
}

#[test]
fn open_starts_both_queues_as_configured() {
    both(|lazy| {
        let mut driver = opened(lazy);
        driver.h.tick();
        let tx = TxRing {
            base: GuestAddr::new(TX_RING),
            len_bytes: 1024 * 16,
        };
        assert_eq!(driver.h.tx_ring(), Some(tx));
        let rx = RxRing {
            base: GuestAddr::new(RX_RING),
            len_bytes: 1024 * 16,
            layout: RxLayout {
                packet_bytes: 2048,
                header_bytes: 0,
            },
            drop_enable: true,
        };
        assert_eq!(driver.h.rx_ring(), Some(rx));
        // The first buffers are announced, however late the queue came up, and once only.
        let doorbell = Action::Doorbell {
            queue: Queue::Rx,
            tail: 1022,
        };
        assert_eq!(driver.h.count(doorbell), 1);
        for (queue, regs) in [(Queue::Tx, TX), (Queue::Rx, RX)] {
            assert_eq!(driver.h.f.queue_state(queue), QueueState::Enabled);
            assert_ne!(driver.h.read(regs + DCTL) & ENABLE, 0);
        }
        assert!(driver.h.requests().contains(&Request::SetMaxFrame(1522)));
        assert_eq!(driver.h.refused(), 0);
    });
}

#[test]
fn the_link_is_watched() {
    both(|lazy| {
        let mut driver = opened(lazy);
        driver.watchdog();
        assert!(driver.carrier);
        assert!(!driver.wants_reset);
        driver.interrupts();

        driver.h.set_link(None);
        assert_eq!(driver.interrupts(), [VEC_OTHER]);
        driver.watchdog();
        assert!(!driver.carrier);

        driver.h.wait();
        driver.h.set_link(Some(100));
        assert!(driver.interrupts().contains(&VEC_OTHER));
        driver.watchdog();
        assert!(driver.carrier);
        assert_eq!(driver.h.read(STATUS) & 0xC3, 0x43);
        // The same state again is no change.
        driver.interrupts();
        driver.h.set_link(Some(100));
        assert_eq!(driver.h.fired, []);
        assert_eq!(driver.h.f.counters().mailbox_pings, 3);
        assert_eq!(driver.h.refused(), 0);
    });
}

#[test]
fn a_link_change_does_not_spoil_a_reply() {
    let mut driver = opened(true);
    driver.write_posted(&[4 | (1 << 16), 100]).unwrap();
    // The reply is there and not read yet.
    driver.h.set_link(None);
    driver.poll(bits::PFSTS).unwrap();
    let words = driver.read_mailbox(2).unwrap();
    assert_eq!(words[0], 4 | (1 << 16) | ACK | CTS);
    // Now the buffer is free, and the message comes.
    assert_eq!(driver.h.read(VMBMEM), 0x100 | CTS);
    assert!(driver.check(bits::PFSTS));
}

#[test]
fn packets_ring_and_interrupt() {
    both(|lazy| {
        let mut driver = opened(lazy);
        driver.h.wait();
        driver.interrupts();
        driver.h.clear();
        for tail in 1..=3 {
            driver.xmit();
            driver.h.tick();
            let queue = Queue::Tx;
            assert_eq!(driver.h.log.last(), Some(&Action::Doorbell { queue, tail }));
        }
        driver.h.f.set_head(Queue::Tx, 3);
        assert_eq!(driver.h.read(TX + HEAD), 3);
        driver.h.raise(Cause::Tx0);
        assert_eq!(driver.h.fired, [VEC_TX]);
        // Masked until the driver has cleaned its ring.
        driver.h.wait();
        driver.h.raise(Cause::Tx0);
        assert_eq!(driver.interrupts(), [VEC_TX]);
        driver.h.tick();
        assert_eq!(driver.interrupts(), [VEC_TX]);
        // A ring that was not cleaned whole: EICS fires the vector again, and unmasks it.
        driver.h.wait();
        driver.h.raise(Cause::Tx0);
        assert_eq!(driver.h.fired, [VEC_TX]);
        driver.h.wait();
        driver.h.write(EICS, 1 << VEC_TX);
        driver.h.tick();
        assert_eq!(driver.interrupts(), [VEC_TX, VEC_TX]);
        driver.h.raise(Cause::Rx0);
        assert_eq!(driver.interrupts(), [VEC_RX]);
        assert_eq!(driver.h.refused(), 0);
    });
}

#[test]
fn filters_are_passed_on() {
    both(|lazy| {
        let mut driver = opened(lazy);
        driver.h.clear();
        driver.multicast = vec![0x001, 0xFFF, 0x123];
        driver.set_rx_mode();
        driver.set_vlan(100, true).unwrap();
        driver.set_vlan(100, false).unwrap();
        driver.set_vlan(0, false).unwrap();
        let promisc = 6 | (2 << 16);
        // What was done is gone from the argument.
        assert_eq!(driver.ask(&[promisc], 1).unwrap(), [6 | ACK | CTS]);
        driver.mac = [2, 0, 0, 0, 0, 9];
        driver.rar_set();
        let requests = driver.h.requests();
        match requests[0] {
            Request::SetMulticast(hashes) => assert_eq!(hashes.as_slice(), [0x001, 0xFFF, 0x123]),
            other => panic!("{other:?}"),
        }
        let rest = [
            Request::ClearMacFilters,
            Request::SetVlan { vid: 100, on: true },
            Request::SetVlan {
                vid: 100,
                on: false,
            },
            Request::SetPromisc {
                unicast: false,
                multicast: true,
            },
            Request::SetMac(MacAddr::new([2, 0, 0, 0, 0, 9])),
        ];
        assert_eq!(requests[1..], rest);
        assert_eq!(driver.h.refused(), 0);

        driver.h.reply = |_| Reply::Nack;
        assert_eq!(driver.set_vlan(7, true), Err(7));
        assert_eq!(driver.set_vlan(7, false), Err(7));
        driver.rar_set();
        assert_eq!(driver.mac, MAC.bytes());
        assert_eq!(driver.h.refused(), 0);
    });
}

#[test]
fn thirty_multicast_addresses_fill_the_message() {
    let mut driver = opened(true);
    driver.h.clear();
    driver.multicast = (0..30).map(|n| n * 0x11).collect();
    driver.set_rx_mode();
    match driver.h.requests()[0] {
        Request::SetMulticast(hashes) => assert_eq!(hashes.as_slice(), driver.multicast),
        other => panic!("{other:?}"),
    }
}

#[test]
fn jumbo_frames_are_split() {
    both(|lazy| {
        let mut driver = opened(lazy);
        driver.max_frame = 9018;
        driver.down();
        for queue in [Queue::Tx, Queue::Rx] {
            assert_eq!(driver.h.f.queue_state(queue), QueueState::Disabled);
        }
        driver.rx_buffer_len = 2048;
        driver.vlans = vec![0, 5];
        driver.h.clear();
        driver.up();
        driver.h.tick();
        let layout = RxLayout {
            packet_bytes: 2048,
            header_bytes: 128,
        };
        assert_eq!(driver.h.rx_ring().map(|ring| ring.layout), Some(layout));
        let requests = driver.h.requests();
        assert!(requests.contains(&Request::SetMaxFrame(9022)));
        assert!(requests.contains(&Request::SetVlan { vid: 0, on: true }));
        assert!(requests.contains(&Request::SetVlan { vid: 5, on: true }));
        driver.watchdog();
        assert!(driver.carrier);
        assert_eq!(driver.h.refused(), 0);
    });
}

#[test]
fn down_up_and_reload() {
    both(|lazy| {
        let mut driver = opened(lazy);
        for _ in 0..20 {
            driver.watchdog();
            assert!(driver.carrier && !driver.wants_reset);
            driver.down();
            assert!(!driver.carrier);
            driver.up();
        }
        let mut host = driver.remove();
        assert_eq!(host.log.last(), Some(&Action::BusMaster(false)));
        assert_eq!(host.refused(), 0);

        host.clear();
        let mut driver = Igbvf::probe(host);
        assert_eq!(driver.mac, MAC.bytes());
        driver.up();
        driver.watchdog();
        assert!(driver.carrier);
        assert_eq!(driver.h.refused(), 0);
    });
}

#[test]
fn ethtool_reads_registers_and_statistics() {
    let mut driver = opened(false);
    for offset in [CTRL, STATUS, RX + LEN, RX + HEAD, RX + TAIL] {
        driver.h.read(offset);
    }
    assert_eq!(driver.h.read(TX + LEN), 1024 * 16);
    let before = driver.stats();
    driver.h.f.add_stats(&Stats {
        rx_frames: 1,
        rx_bytes: 64,
        tx_frames: 2,
        tx_bytes: u32::MAX,
        rx_multicast: 3,
        tx_local_bytes: 4,
        tx_local_frames: 5,
        rx_local_bytes: 6,
        rx_local_frames: 7,
        ..Stats::default()
    });
    let after = driver.stats();
    let delta = after.iter().zip(&before).map(|(a, b)| a.wrapping_sub(*b));
    let expected = [1, 64, 2, u32::MAX, 3, 4, 5, 6, 7];
    assert_eq!(delta.collect::<Vec<_>>(), expected);
    driver.down();
    assert_eq!(driver.stats(), after, "statistics survive the reset");
    // The link test, and a change of the coalescing time.
    driver.check_for_link();
    driver.h.write(EITR + 4, 4);
    assert_eq!(driver.h.read(EITR + 4), 4);
    assert_eq!(driver.h.refused(), 0);
}

#[test]
fn the_vmm_resets_a_running_function() {
    let mut driver = opened(false);
    driver.watchdog();
    driver.h.f.reset();
    assert_eq!(driver.h.f.queue_state(Queue::Tx), QueueState::Disabled);
    assert!(!driver.h.f.bus_master());
    assert_eq!(driver.h.read(TX + BAL), 0);
    assert_eq!(driver.h.read(EIMS), 0);

    // A driver that slept through it learns from the mailbox that it has to reset.
    driver.watchdog();
    assert!(!driver.carrier);
    driver.watchdog();
    assert!(driver.wants_reset);
    let mut driver = Igbvf::probe(driver.h);
    driver.up();
    driver.watchdog();
    assert!(driver.carrier);
}

#[test]
fn a_function_level_reset_goes_through_configuration_space() {
    both(|lazy| {
        let mut driver = opened(lazy);
        driver.h.tick();
        driver.h.clear();
        let capability = driver.h.f.config_read(0xA4, Width::Dword);
        assert_ne!(capability & (1 << 28), 0);
        let control = driver.h.config(0xA8);
        let action = driver
            .h
            .f
            .config_write(0xA8, Width::Word, control | (1 << 15));
        assert_eq!(action, Action::Reset(ResetKind::Flr));
        assert!(driver.h.f.reset_pending());
        assert!(!driver.h.f.bus_master());
        driver.h.take(action);
        driver.h.tick();
        assert!(!driver.h.f.reset_pending());
        assert_eq!(driver.h.config(0xA8), control);
        let mut driver = Igbvf::probe(driver.h);
        driver.up();
        assert_eq!(driver.h.refused(), 0);
        assert_eq!(driver.h.f.counters().function_resets, 1);
    });
}

#[test]
fn a_queue_that_cannot_start_stays_down() {
    let mut driver = opened(true);
    driver.down();
    driver.h.tick();
    driver.configure_tx();
    let action = driver.h.todo.pop_front();
    assert!(matches!(action, Some(Action::TxEnable(_))), "{action:?}");
    driver.xmit();
    assert_eq!(driver.h.f.queue_enabled(Queue::Tx, false), Action::None);
    assert_eq!(driver.h.read(TX + DCTL) & ENABLE, 0);
    driver.xmit();
    assert!(driver.h.todo.is_empty());
    assert_eq!(driver.h.f.counters().enable_failures, 1);
}

#[test]
fn requests_before_a_reset_are_refused() {
    let mut driver = opened(false);
    driver.h.f.reset();
    driver.h.clear();
    let words = driver.ask(&[4 | (1 << 16), 1], 2).unwrap();
    assert_eq!(words[0], 4 | (1 << 16) | NACK);
    assert_eq!(driver.h.f.counters().refused(Refusal::MailboxNotClear), 1);
    assert_eq!(driver.h.requests(), []);
}
