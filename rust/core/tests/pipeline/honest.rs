// SPDX-License-Identifier: GPL-2.0

//! An honest guest loses nothing: packets arrive intact both ways, with what was asked of the NIC.

use std::collections::VecDeque;

use crate::sim::guest::*;
use crate::sim::nic::{
    Dir,
    WirePacket, //
};
use crate::sim::rig::Rig;
use crate::sim::rng::Rng;
use crate::sim::world::World;
use crate::sim::SimMachine;
use sluice_core::map::{
    Mapper,
    Strategy, //
};
use sluice_core::platform::RxLayout;

const TX_RING: u64 = 0x1080;
const RX_RING: u64 = 0x8000;
const TX_AREA: u64 = 0x20_000;
const TX_AREA_BYTES: u64 = 0x200_000;
const RX_AREA: u64 = TX_AREA + TX_AREA_BYTES;
const MAX_FRAME: u32 = 9234;

/// Hands out memory that was not used lately.
struct Bump(u64);

impl Bump {
    fn take(&mut self, rng: &mut Rng, len: u64) -> u64 {
        let mut at = self.0 + rng.below(512);
        if at + len > TX_AREA_BYTES {
            at = rng.below(512);
        }
        self.0 = at + len;
        TX_AREA + at
    }
}

fn random_packet(world: &mut World, rng: &mut Rng, bump: &mut Bump) -> Send {
    let mut send = Send::default();
    let header = [14 + 20 + 20, 14 + 40 + 32, 14 + 20 + 60][rng.below(3) as usize];
    let ipv4 = header != 14 + 40 + 32;
    let ip_len = if ipv4 { 20 } else { 40 };
    if rng.chance(20) {
        send.vlan = Some(rng.next() as u16);
    }
    let offloads = rng.below(100);
    let len = if offloads < 10 {
        send.tso = Some(Tso {
            mss: rng.within(200, 8000) as u16,
            l4_len: (header - 14 - u64::from(ip_len)) as u8,
        });
        let most = if rng.chance(10) { 65536 } else { 20000 };
        header + rng.within(1, most)
    } else {
        rng.within(header, 1514)
    };
    if offloads < 60 {
        send.csum = Some(Csum {
            mac_len: 14,
            ip_len,
            ipv4,
            l4: 1,
            ip_checksum: ipv4 && offloads < 30,
        });
    }
    // The head with all headers first, then up to 17 fragments.
    let mut left = len;
    let frags = rng.below(18);
    let least = header.max(left.saturating_sub(frags * 30_000));
    let mut now = rng.within(least, left).min(65_000);
    loop {
        let addr = bump.take(rng, now);
        let mut bytes = vec![0; now as usize];
        rng.fill(&mut bytes);
        world.guest_write(addr, &bytes);
        send.segments.push((addr, now as u16));
        left -= now;
        if left == 0 {
            return send;
        }
        let rest = 17 - (send.segments.len() as u64 - 1);
        now = if rest <= 1 {
            left
        } else {
            rng.within(left.div_ceil(rest), left)
        };
        now = now.min(65_000);
    }
}

fn run(
    strategy: Strategy,
    seed: u64,
    contiguous: u64,
    packets: usize,
    layout: RxLayout,
    map_pages: u32,
) {
    let builder = SimMachine::builder()
        .seed(seed)
        .guest_pages(1200)
        .contiguous_percent(contiguous);
    let mut rig = Rig::new(strategy, builder, map_pages);
    let mut rng = Rng::new(seed ^ 77);
    let mut tx = GuestTx::new(TX_RING, 512);
    let mut rx = GuestRx::new(RX_RING, 256, layout.packet_bytes, layout.header_bytes);
    rig.tx_enable(TX_RING, 512 * 16, MAX_FRAME).unwrap();
    rig.rx_enable(RX_RING, 256 * 16, layout, 1522).unwrap();

    let mut bump = Bump(0);
    let mut expected: VecDeque<WirePacket> = VecDeque::new();
    let mut arriving: VecDeque<Received> = VecDeque::new();
    let (mut sent, mut done, mut received, mut arrived) = (0, 0, 0, 0);
    let mut in_flight_bytes: VecDeque<u64> = VecDeque::new();
    let mut wire_bytes = 0;
    let mut rounds = 0u64;
    while done < packets || received < packets {
        rounds += 1;
        let mut world = rig.sim.world();
        for _ in 0..rng.below(24) {
            let total: u64 = in_flight_bytes.iter().sum();
            if sent == packets || total > TX_AREA_BYTES / 2 {
                break;
            }
            let send = random_packet(&mut world, &mut rng, &mut bump);
            if !tx.send(&mut world, &send) {
                break;
            }
            let around = 4 + if send.vlan.is_some() { 4 } else { 0 };
            wire_bytes += u64::from(match (send.tso, send.csum) {
                (Some(t), Some(c)) => {
                    let header = u32::from(c.mac_len) + u32::from(c.ip_len) + u32::from(t.l4_len);
                    let payload = send.len() - header;
                    payload + payload.div_ceil(t.mss.into()) * (header + around)
                }
                _ => send.len() + around,
            });
            expected.push_back(send.expected(&world));
            in_flight_bytes.push_back(u64::from(send.len()) + 512 * send.segments.len() as u64);
            sent += 1;
        }
        rx.fill(&mut world, |index| {
            // 2048-byte steps at an odd place, so that most buffers cross a page.
            let slot = RX_AREA + u64::from(index) * 4096;
            (
                slot + 1904 + rng.below(2) * 256,
                slot + 4096 * 256 + 3900 + rng.below(3) * 100,
            )
        });
        for _ in 0..rng.below(24) {
            if arrived == packets || world.rx_backlog() > 200 {
                break;
            }
            let mut bytes = vec![0; rng.within(60, 1518) as usize];
            rng.fill(&mut bytes);
            bytes[0] = rng.pick(&[2, 3]);
            let vlan = rng.chance(10).then_some(rng.next() as u16 & 0xfff);
            world.nic_rx_arrives(&bytes, vlan);
            arriving.push_back(Received { bytes, vlan });
            arrived += 1;
        }
        let (fetch, back, fill) = (rng.below(300), rng.below(300), rng.below(40));
        world.nic_tx_fetch(fetch as u16);
        world.nic_tx_write_back(back as u16);
        world.nic_rx_fill(fill as u16);
        drop(world);
        let (a, b) = (rng.within(1, 64) as u16, rng.within(1, 64) as u16);
        let p = rig.tx_poll(tx.tail(), a);
        let q = rig.rx_poll(rx.tail(), b);
        assert_eq!((p.fault, q.fault), (None, None));
        if rounds % 16 == 0 {
            rig.check();
        }
        let mut world = rig.sim.world();
        for packet in std::mem::take(&mut world.wire) {
            assert_eq!(Some(packet), expected.pop_front());
        }
        for _ in 0..tx.clean(&mut world) {
            in_flight_bytes.pop_front();
            done += 1;
        }
        for packet in rx.poll(&world) {
            assert_eq!(Some(packet), arriving.pop_front());
            received += 1;
        }
        assert!(rounds < 40 * packets as u64 + 1000, "no progress");
    }
    assert!(expected.is_empty() && arriving.is_empty());
    assert_eq!(rig.stats.tx.bytes, wire_bytes);
    assert_eq!(rig.stats.rx.packets, packets as u64);
    assert_eq!(rig.stats.faults(), 0);
    rig.shut_down();
    let stats = rig.map.stats();
    assert_eq!((stats.pinned, stats.leaked), (0, 0));
    if strategy.copies() {
        assert_eq!(rig.stats.tx.bounced, packets as u64);
        assert_eq!(rig.stats.rx.bounced, rig.stats.rx.completed);
    } else {
        assert_eq!(rig.stats.tx.bounced, 0);
    }
    println!(
        "{}: {packets} packets each way in {rounds} rounds, {} doorbells; frames sent {}; bounced {} of {}; \
         multicast {}; map {stats:?}",
        strategy.name(),
        rig.sim.world().doorbells(Dir::Tx),
        rig.stats.tx.packets,
        rig.stats.rx.bounced,
        rig.stats.rx.completed,
        rig.stats.rx.multicast,
    );
}

const ONE: RxLayout = RxLayout {
    packet_bytes: 2048,
    header_bytes: 0,
};

#[test]
fn hundred_thousand_packets() {
    run(Strategy::Persistent, 1, 50, 100_000, ONE, 4096);
}

#[test]
fn under_every_strategy() {
    for strategy in Strategy::ALL {
        run(strategy, 6, 50, 10_000, ONE, 4096);
    }
}

#[test]
fn scattered_memory_and_a_small_map() {
    for strategy in Strategy::ALL {
        if strategy != Strategy::DirectMap {
            run(strategy, 2, 0, 3_000, ONE, 256);
        }
    }
}

#[test]
fn contiguous_memory() {
    run(Strategy::Persistent, 3, 100, 10_000, ONE, 700);
}

#[test]
fn split_headers_and_small_buffers() {
    let layout = RxLayout {
        packet_bytes: 1024,
        header_bytes: 128,
    };
    for strategy in Strategy::ALL {
        run(strategy, 4, 30, 3_000, layout, 4096);
    }
}

#[test]
fn split_headers_and_large_buffers() {
    let layout = RxLayout {
        packet_bytes: 2048,
        header_bytes: 128,
    };
    for strategy in Strategy::ALL {
        run(strategy, 5, 30, 3_000, layout, 4096);
    }
}

/// The NIC stands still until the shadow ring is full to the last slot that a packet may take,
/// then takes everything: nothing is overwritten and nothing is lost.
#[test]
fn a_nic_that_pauses() {
    for strategy in Strategy::ALL {
        pauses(strategy);
    }
}

fn pauses(strategy: Strategy) {
    let builder = SimMachine::builder().guest_pages(1200).shadow(128);
    let mut rig = Rig::new(strategy, builder.contiguous_percent(20), 4096);
    let mut rng = Rng::new(8);
    let mut tx = GuestTx::new(TX_RING, 512);
    rig.tx_enable(TX_RING, 512 * 16, MAX_FRAME).unwrap();
    let mut bump = Bump(0);
    let (mut most, mut sent, mut arrived) = (0, 0, 0);
    for round in 0..200 {
        let mut expected = VecDeque::new();
        loop {
            let mut world = rig.sim.world();
            let send = random_packet(&mut world, &mut rng, &mut bump);
            if expected.len() == 60 || !tx.send(&mut world, &send) {
                break;
            }
            expected.push_back(send.expected(&world));
            sent += 1;
            drop(world);
            let progress = rig.tx_poll(tx.tail(), 512);
            assert_eq!(progress.fault, None);
            if progress.busy {
                break;
            }
        }
        most = most.max(rig.sim.world().live(Dir::Tx));
        while tx.in_flight() != 0 {
            let mut world = rig.sim.world();
            world.nic_tx_fetch(rng.within(1, 200) as u16);
            world.nic_tx_write_back(200);
            drop(world);
            rig.tx_poll(tx.tail(), 512);
            tx.clean(&mut rig.sim.world());
        }
        for packet in std::mem::take(&mut rig.sim.world().wire) {
            assert_eq!(Some(packet), expected.pop_front(), "round {round}");
            arrived += 1;
        }
    }
    assert_eq!(sent, arrived);
    assert!(most > 100, "the ring was never full: {most}");
    rig.shut_down();
}
