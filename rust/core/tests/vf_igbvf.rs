// SPDX-License-Identifier: GPL-2.0

//! A scripted `igbvf`: the register accesses that the in-tree driver makes, in its order, against
//! the function model. The host side carries out actions at once, or later as a worker would.

use std::collections::VecDeque;

use sluice_core::addr::GuestAddr;
use sluice_core::net::MacAddr;
use sluice_core::platform::RxLayout;
use sluice_core::vf::mailbox::bits;
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
    ResetKind,
    RxRing,
    Stats,
    TxRing,
    Width, //
};

const CTRL: u32 = 0x0000;
const STATUS: u32 = 0x0008;
const VMBMEM: u32 = 0x0800;
const V2PMAILBOX: u32 = 0x0C40;
const EICS: u32 = 0x1520;
const EIMS: u32 = 0x1524;
const EIMC: u32 = 0x1528;
const EIAC: u32 = 0x152C;
const EIAM: u32 = 0x1530;
const EICR: u32 = 0x1580;
const EITR: u32 = 0x1680;
const IVAR0: u32 = 0x1700;
const IVAR_MISC: u32 = 0x1740;
const RX: u32 = 0x2800;
const TX: u32 = 0x3800;
// Offsets from RX and TX.
const BAL: u32 = 0x00;
const BAH: u32 = 0x04;
const LEN: u32 = 0x08;
const SRRCTL: u32 = 0x0C;
const HEAD: u32 = 0x10;
const DCA: u32 = 0x14;
const TAIL: u32 = 0x18;
const DCTL: u32 = 0x28;

const ENABLE: u32 = 1 << 25;
const ACK: u32 = 1 << 31;
const NACK: u32 = 1 << 30;
const CTS: u32 = 1 << 29;

const VEC_TX: u8 = 0;
const VEC_RX: u8 = 1;
const VEC_OTHER: u8 = 2;

const MAC: MacAddr = MacAddr::new([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
const TX_RING: u64 = 0x1_2345_6000;
const RX_RING: u64 = 0x7_0000_0000;

/// The host's side: carries out what the function asks.
struct Host {
    f: Function,
    /// Actions wait for `tick`.
    lazy: bool,
    todo: VecDeque<Action>,
    log: Vec<Action>,
    fired: Vec<u8>,
    now_ns: u64,
    reply: fn(Request) -> Reply,
}

impl Host {
    fn new(lazy: bool, mac: MacAddr) -> Self {
        Self {
            f: Function::new(Identity { mac }),
            lazy,
            todo: VecDeque::new(),
            log: Vec::new(),
            fired: Vec::new(),
            now_ns: 0,
            reply: |_| Reply::Ack,
        }
    }

    fn read(&mut self, offset: u32) -> u32 {
        self.f.mmio_read(offset, Width::Dword)
    }

    fn write(&mut self, offset: u32, value: u32) {
        let action = self.f.mmio_write(offset, Width::Dword, value);
        self.take(action);
    }

    fn config(&mut self, offset: u16) -> u32 {
        self.f.config_read(offset, Width::Word)
    }

    fn set_config(&mut self, offset: u16, value: u32) {
        let action = self.f.config_write(offset, Width::Word, value);
        self.take(action);
    }

    fn take(&mut self, action: Action) {
        if action != Action::None {
            self.todo.push_back(action);
        }
        if !self.lazy {
            self.tick();
        }
    }

    /// One round of the worker.
    fn tick(&mut self) {
        while let Some(action) = self.todo.pop_front() {
            self.log.push(action);
            let next = match action {
                Action::TxEnable(_) => self.f.queue_enabled(Queue::Tx, true),
                Action::RxEnable(_) => self.f.queue_enabled(Queue::Rx, true),
                Action::Disable(queue) => self.f.queue_enabled(queue, false),
                Action::Mailbox(request) => {
                    self.f.mailbox_reply((self.reply)(request));
                    Action::None
                }
                Action::Reset(_) => {
                    self.f.reset_done();
                    Action::None
                }
                _ => Action::None,
            };
            if next != Action::None {
                self.todo.push_front(next);
            }
        }
        let signals = self.f.take_signals(self.now_ns);
        self.fired.extend(signals.vectors.iter());
    }

    fn raise(&mut self, cause: Cause) {
        self.f.raise(cause);
        self.tick();
    }

    fn set_link(&mut self, speed: Option<u16>) {
        let action = self.f.set_link(speed);
        self.take(action);
        self.tick();
    }

    /// Time passes: moderation lets everything through.
    fn wait(&mut self) {
        self.now_ns += 10_000_000;
        self.tick();
    }

    fn requests(&self) -> Vec<Request> {
        let request = |action: &Action| match action {
            Action::Mailbox(request) => Some(*request),
            _ => None,
        };
        self.log.iter().filter_map(request).collect()
    }

    fn tx_ring(&self) -> Option<TxRing> {
        self.log.iter().find_map(|action| match action {
            Action::TxEnable(ring) => Some(*ring),
            _ => None,
        })
    }

    fn rx_ring(&self) -> Option<RxRing> {
        self.log.iter().find_map(|action| match action {
            Action::RxEnable(ring) => Some(*ring),
            _ => None,
        })
    }

    fn count(&self, action: Action) -> usize {
        self.log.iter().filter(|&&logged| logged == action).count()
    }

    fn refused(&self) -> u64 {
        self.f.counters().refused_total()
    }

    fn clear(&mut self) {
        self.log.clear();
        self.fired.clear();
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Timeout;

/// The guest's driver.
struct Igbvf {
    h: Host,
    /// Read-to-clear bits that the driver has seen and not used.
    seen: u32,
    mailbox_works: bool,
    mac: [u8; 6],
    perm_mac: [u8; 6],
    get_link_status: bool,
    down: bool,
    wants_reset: bool,
    rx_buffer_len: u32,
    max_frame: u32,
    vlans: Vec<u16>,
    multicast: Vec<u16>,
    carrier: bool,
    tx_tail: u32,
}

impl Igbvf {
    fn probe(mut h: Host) -> Self {
        // The core enables memory space, then bus mastering.
        let command = h.config(4);
        h.set_config(4, command | 0x2);
        h.set_config(4, command | 0x6);
        let mut driver = Self {
            h,
            seen: 0,
            mailbox_works: false,
            mac: [0; 6],
            perm_mac: [0; 6],
            get_link_status: false,
            down: true,
            wants_reset: false,
            rx_buffer_len: 1522,
            max_frame: 1518,
            vlans: Vec::new(),
            multicast: Vec::new(),
            carrier: false,
            tx_tail: 0,
        };
        driver.irq_disable();
        driver.reset_hw().expect("the host answers");
        driver.mac = driver.perm_mac;
        if driver.mac == [0; 6] {
            driver.mac = [0x02, 0, 0, 0, 0, 0x77];
        }
        driver.reset();
        driver.stats();
        driver
    }

    fn mailbox(&mut self) -> u32 {
        let value = self.h.read(V2PMAILBOX) | self.seen;
        self.seen |= value & (bits::PFSTS | bits::PFACK | bits::RSTD);
        value
    }

    fn check(&mut self, mask: u32) -> bool {
        let hit = self.mailbox() & mask != 0;
        self.seen &= !mask;
        hit
    }

    fn lock(&mut self) -> bool {
        for _ in 0..11 {
            self.h.write(V2PMAILBOX, bits::VFU);
            if self.mailbox() & bits::VFU != 0 {
                return true;
            }
            self.h.tick();
        }
        false
    }

    fn poll(&mut self, mask: u32) -> Result<(), Timeout> {
        for _ in 0..2000 {
            if self.check(mask) {
                return Ok(());
            }
            self.h.tick();
        }
        self.mailbox_works = false;
        Err(Timeout)
    }

    fn write_posted(&mut self, message: &[u32]) -> Result<(), Timeout> {
        if !self.mailbox_works || !self.lock() {
            return Err(Timeout);
        }
        self.check(bits::PFACK);
        self.check(bits::PFSTS);
        for (offset, word) in (VMBMEM..).step_by(4).zip(message) {
            self.h.write(offset, *word);
        }
        self.h.write(V2PMAILBOX, bits::REQ);
        self.poll(bits::PFACK)
    }

    fn read_mailbox(&mut self, len: usize) -> Option<Vec<u32>> {
        if !self.lock() {
            return None;
        }
        let offsets = (VMBMEM..).step_by(4).take(len);
        let words = offsets.map(|offset| self.h.read(offset)).collect();
        self.h.write(V2PMAILBOX, bits::ACK);
        Some(words)
    }

    fn ask(&mut self, message: &[u32], len: usize) -> Result<Vec<u32>, Timeout> {
        self.write_posted(message)?;
        self.poll(bits::PFSTS)?;
        self.read_mailbox(len).ok_or(Timeout)
    }

    fn reset_hw(&mut self) -> Result<(), Timeout> {
        let ctrl = self.h.read(CTRL);
        self.h.write(CTRL, ctrl | 1 << 26);
        let mut timeout = 200;
        while self.check(bits::RSTI | bits::RSTD) && timeout > 0 {
            timeout -= 1;
            self.h.tick();
        }
        if timeout == 0 {
            return Err(Timeout);
        }
        self.mailbox_works = true;
        let words = self.ask(&[1], 3)?;
        self.perm_mac = match words[0] {
            0x8000_0001 => {
                let [a, b, c, d] = words[1].to_le_bytes();
                let [e, f, ..] = words[2].to_le_bytes();
                [a, b, c, d, e, f]
            }
            0x4000_0001 => [0; 6],
            _ => return Err(Timeout),
        };
        Ok(())
    }

    fn ask_mac(&mut self, kind: u32, [a, b, c, d, e, f]: [u8; 6]) -> u32 {
        let low = u32::from_le_bytes([a, b, c, d]);
        let high = u32::from_le_bytes([e, f, 0, 0]);
        self.ask(&[kind, low, high], 3).unwrap()[0]
    }

    fn rar_set(&mut self) {
        if self.ask_mac(2, self.mac) & !CTS == 2 | NACK {
            self.mac = self.perm_mac;
        }
    }

    fn reset(&mut self) {
        self.reset_hw().expect("the host answers");
        self.rar_set();
    }

    fn set_rx_mode(&mut self) {
        let mut message = [0; 16];
        message[0] = 3 | (self.multicast.len() as u32) << 16;
        for (i, hash) in self.multicast.iter().enumerate() {
            message[1 + i / 2] |= u32::from(*hash) << (16 * (i % 2));
        }
        let words = self.ask(&message, 1).unwrap();
        assert_eq!(words[0], message[0] | ACK | CTS);
        let clear = 2 | 1 << 16;
        assert_eq!(self.ask_mac(clear, [0; 6]), clear | ACK | CTS);
    }

    fn set_vlan(&mut self, vid: u16, on: bool) -> Result<(), u16> {
        let message = [4 | u32::from(on) << 16, u32::from(vid)];
        let words = self.ask(&message, 2).unwrap();
        if words[0] & !CTS == 4 | NACK {
            return Err(vid);
        }
        Ok(())
    }

    fn configure_tx(&mut self) {
        let dctl = self.h.read(TX + DCTL);
        self.h.write(TX + DCTL, dctl & !ENABLE);
        self.h.read(STATUS);
        self.h.tick();
        self.h.write(TX + LEN, 1024 * 16);
        self.h.write(TX + BAL, TX_RING as u32);
        self.h.write(TX + BAH, (TX_RING >> 32) as u32);
        self.h.write(TX + HEAD, 0);
        self.h.write(TX + TAIL, 0);
        let dca = self.h.read(TX + DCA);
        self.h.write(TX + DCA, dca & !(1 << 11));
        self.h.write(TX + DCTL, dctl | ENABLE);
        self.tx_tail = 0;
    }

    fn configure_rx(&mut self) {
        let size = 1 << 31 | self.rx_buffer_len.div_ceil(1024);
        let kind = if self.rx_buffer_len < 2048 {
            0x0200_0000
        } else {
            128 << 2 | 0x0A00_0000
        };
        self.h.write(RX + SRRCTL, size | kind);

        let dctl = self.h.read(RX + DCTL);
        self.h.write(RX + DCTL, dctl & !ENABLE);
        self.h.read(STATUS);
        self.h.tick();
        self.h.write(RX + BAL, RX_RING as u32);
        self.h.write(RX + BAH, (RX_RING >> 32) as u32);
        self.h.write(RX + LEN, 1024 * 16);
        self.h.write(RX + HEAD, 0);
        self.h.write(RX + TAIL, 0);
        let words = self.ask(&[5, self.max_frame + 4], 1).unwrap();
        assert_eq!(words[0], 5 | ACK | CTS);
        let thresholds = 16 | 8 << 8 | 1 << 16;
        let dctl = (dctl | ENABLE) & 0xFFF0_0000 | thresholds;
        self.h.write(RX + DCTL, dctl);
        // Buffers are posted without waiting for the queue.
        self.h.write(RX + TAIL, 1022);
    }

    fn configure(&mut self) {
        self.set_rx_mode();
        for vid in self.vlans.clone() {
            self.set_vlan(vid, true).unwrap();
        }
        self.configure_tx();
        self.configure_rx();
    }

    fn configure_msix(&mut self) {
        let ivar = self.h.read(IVAR0);
        self.h.write(IVAR0, ivar & 0xFFFF_00FF | 0x80 << 8);
        self.h.write(EITR, 488);
        let ivar = self.h.read(IVAR0);
        self.h.write(IVAR0, ivar & 0xFFFF_FF00 | 0x81);
        self.h.write(EITR + 4, 488);
        self.h.write(IVAR_MISC, 0x82);
        self.h.read(STATUS);
    }

    fn irq_enable(&mut self) {
        self.h.read(EICR);
        self.h.write(EIAC, 7);
        self.h.write(EIAM, 7);
        self.h.write(EIMS, 7);
    }

    fn irq_disable(&mut self) {
        self.h.write(EIMC, u32::MAX);
        self.h.write(EIAC, 0);
    }

    fn up(&mut self) {
        self.configure();
        self.down = false;
        self.configure_msix();
        self.irq_enable();
        self.get_link_status = true;
        self.h.tick();
    }

    fn down(&mut self) {
        self.down = true;
        for queue in [RX, TX] {
            let dctl = self.h.read(queue + DCTL);
            self.h.write(queue + DCTL, dctl & !ENABLE);
        }
        self.h.read(STATUS);
        self.h.tick();
        self.irq_disable();
        self.stats();
        self.carrier = false;
        self.reset();
        for queue in [TX, RX] {
            self.h.write(queue + HEAD, 0);
            self.h.write(queue + TAIL, 0);
        }
    }

    fn check_for_link(&mut self) {
        if self.check(bits::RSTI | bits::RSTD) || !self.mailbox_works {
            self.get_link_status = true;
        }
        if !self.get_link_status || self.h.read(STATUS) & 2 == 0 {
            return;
        }
        let Some(words) = self.read_mailbox(1) else {
            return;
        };
        if words[0] & CTS == 0 {
            self.wants_reset |= words[0] & NACK != 0;
        } else if self.mailbox_works {
            self.get_link_status = false;
        } else {
            self.wants_reset = true;
        }
    }

    fn watchdog(&mut self) {
        if !self.down {
            self.check_for_link();
        }
        self.carrier = !self.down && !self.get_link_status;
        self.h.write(EICS, 1 << VEC_RX);
        self.h.wait();
    }

    /// Handles what was signalled, and returns it.
    fn interrupts(&mut self) -> Vec<u8> {
        let fired = std::mem::take(&mut self.h.fired);
        for vector in &fired {
            self.get_link_status |= *vector == VEC_OTHER;
            self.h.write(EIMS, 1 << vector);
        }
        fired
    }

    fn xmit(&mut self) {
        self.tx_tail = (self.tx_tail + 1) % 1024;
        self.h.write(TX + TAIL, self.tx_tail);
    }

    fn stats(&mut self) -> Vec<u32> {
        [0x10, 0x18, 0x14, 0x34, 0x3C, 0x50, 0x44, 0x48, 0x40]
            .map(|offset| self.h.read(0xF00 + offset))
            .to_vec()
    }

    fn remove(mut self) -> Host {
        if !self.down {
            self.down();
        }
        let command = self.h.config(4);
        self.h.set_config(4, command & !0x4);
        self.h.tick();
        self.h
    }
}

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
    driver.write_posted(&[4 | 1 << 16, 100]).unwrap();
    // The reply is there and not read yet.
    driver.h.set_link(None);
    driver.poll(bits::PFSTS).unwrap();
    let words = driver.read_mailbox(2).unwrap();
    assert_eq!(words[0], 4 | 1 << 16 | ACK | CTS);
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
        let promisc = 6 | 2 << 16;
        assert_eq!(driver.ask(&[promisc], 1).unwrap(), [promisc | ACK | CTS]);
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
            Request::SetPromisc { multicast: true },
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
        assert_ne!(capability & 1 << 28, 0);
        let control = driver.h.config(0xA8);
        let action = driver
            .h
            .f
            .config_write(0xA8, Width::Word, control | 1 << 15);
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
    let words = driver.ask(&[4 | 1 << 16, 1], 2).unwrap();
    assert_eq!(words[0], 4 | 1 << 16 | NACK);
    assert_eq!(driver.h.f.counters().refused(Refusal::MailboxNotClear), 1);
    assert_eq!(driver.h.requests(), []);
}
