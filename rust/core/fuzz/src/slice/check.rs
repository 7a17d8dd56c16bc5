// SPDX-License-Identifier: GPL-2.0

//! What must hold.

use sluice_core::net::MacAddr;
use sluice_core::slice::{
    Hardware,
    MacPolicy,
    State, //
};
use sluice_core::source::{
    MacList,
    SourceRules, //
};
use sluice_core::vf::regs::Reg;
use sluice_core::vf::Width;

use super::guest::Driver;
use super::{
    Bench,
    MAC,
    RX,
    TX, //
};
use crate::ops::Op;
use crate::sim::nic::Dir;
use crate::sim::SimPlatform;
use crate::source;

/// Pages of the two largest rings, one more each where they begin inside a page.
const RING_PAGES: u64 = 2 * 17;
/// Longest frame that the card sends, in bytes, FCS included.
const MAX_FRAME: usize = 9728;
/// Distance of the marks in a tenant's memory and packets, in bytes.
const MARK_STEP: usize = 512;

/// What a tenant's memory is full of. Compared only multiplied, so that the fuzzer never sees it.
fn mark(tenant: u64) -> u64 {
    (tenant + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03
}

/// Puts a tenant's mark all over its bytes.
pub fn mark_all(tenant: u64, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(MARK_STEP) {
        if let Some(place) = chunk.get_mut(64..72) {
            place.copy_from_slice(&mark(tenant).to_le_bytes());
        }
    }
}

fn disguised(word: u64) -> u64 {
    word.wrapping_mul(0xff51_afd7_ed55_8ccd)
}

impl Bench {
    /// After every step.
    pub(super) fn check(&self) {
        let world = self.world.borrow();
        // Invariants 1 to 3: what the NIC may touch is pinned, in the right direction.
        world.check_live();
        let (stats, map) = (self.slice.stats(), self.slice.map_stats());
        // Invariant 4.
        assert_eq!(
            stats.tx.taken + stats.rx.taken,
            world.loads,
            "each descriptor is loaded once"
        );
        for s in [&stats.tx, &stats.rx] {
            let sum = s.contexts + s.posted + s.dropped + s.filtered + s.faulted;
            assert!(sum <= s.taken && s.taken - sum <= 40, "lost: {s:?}");
            assert!(s.completed + s.abandoned <= s.posted);
        }
        assert_eq!(map.pins - map.unpins, map.pinned.into());
        let rings = world.pinned() - u64::from(map.pinned);
        assert!(rings <= RING_PAGES, "{rings} pages pinned beside the map");
        if self.slice.strategy().copies() {
            assert_eq!(world.nic_pinned(), map.leaked, "the NIC has guest memory");
        }
        if matches!(self.slice.state(), State::Closed) {
            assert_eq!(world.pinned(), 0);
        }
    }

    /// Invariant 9, and that nothing of another tenant is in what was sent.
    pub(super) fn check_wire(&self) {
        let policy = self.slice.policy();
        let wire = std::mem::take(&mut self.world.borrow_mut().wire);
        let granted = self.world.borrow().granted.clone();
        for packet in wire {
            let tag = if packet.vlan.is_some() { 4 } else { 0 };
            let len = match (packet.tso_mss, packet.headers) {
                (Some(mss), Some((mac, ip, l4, ..))) => {
                    usize::from(mac) + usize::from(ip) + usize::from(l4) + usize::from(mss)
                }
                _ => packet.bytes.len(),
            };
            assert!(len >= 17 && len + 4 + tag <= MAX_FRAME);
            if policy.check_source {
                let source = packet.bytes[6..12].try_into().expect("six bytes");
                let source = MacAddr::new(source);
                let rules = SourceRules {
                    mac: match policy.macs {
                        MacPolicy::Any if granted.contains(&source) => source,
                        _ => MAC,
                    },
                    more_macs: match policy.macs {
                        MacPolicy::Also(list) => list,
                        _ => MacList::EMPTY,
                    },
                    vlans: policy.vlans,
                    broadcast: policy.broadcast,
                    link_local: policy.link_local,
                };
                let verdict = source::reference(&packet.bytes, packet.vlan, &rules);
                assert_eq!(verdict, Ok(()), "{:x?}", &packet.bytes[..17]);
            }
            self.check_unmarked(&packet.bytes);
        }
    }

    fn check_unmarked(&self, bytes: &[u8]) {
        for tenant in 0..self.tenant {
            let mark = disguised(mark(tenant));
            let words = bytes.windows(8).map(|w| w.try_into().expect("eight bytes"));
            let mut words = words.map(u64::from_le_bytes);
            assert!(!words.any(|w| disguised(w) == mark), "of tenant {tenant}");
        }
    }

    fn marked_page(&self) -> [u8; 4096] {
        let mut page = [2; 4096];
        mark_all(self.tenant, &mut page);
        page
    }

    /// A tenant's memory: may be sent, and can be told from others'.
    pub(super) fn furnish(&self) {
        let page = self.marked_page();
        for pfn in 0..self.pages {
            self.world.borrow_mut().guest_write(pfn << 12, &page);
        }
    }

    /// Invariant 8: nothing of earlier tenants is in this one's memory.
    pub(super) fn check_residue(&self) {
        if self.tenant == 0 {
            return;
        }
        let (world, untouched) = (self.world.borrow(), self.marked_page());
        for pfn in (0..self.pages).filter(|pfn| world.is_mapped(*pfn)) {
            let page = world.guest_read(pfn << 12, 4096);
            if page != untouched {
                self.check_unmarked(&page);
            }
        }
    }

    /// Invariant 8: a slice that was just opened is as new.
    pub(super) fn check_fresh(&mut self) {
        for slot in &self.slots {
            // The link is the hardware's; the mailbox tells of it.
            let told = slot.reg == Reg::VmbMem && slot.instance == 0;
            if told || matches!(slot.reg, Reg::Status | Reg::V2pMailbox) {
                continue;
            }
            let value = self.slice.mmio_read(slot.offset(), Width::Dword);
            if !matches!(
                slot.spec().access,
                sluice_core::vf::regs::Access::WriteOnly { .. }
            ) {
                assert_eq!(value, slot.spec().reset, "{slot:?} is left");
            }
        }
        assert_eq!(self.slice.state(), State::Open);
        assert_eq!(self.slice.take_report(), None);
    }

    /// Invariant 8: what comes back from a slice is as it was given.
    pub(super) fn check_closed(&self, hardware: &Hardware<SimPlatform>) {
        let world = self.world.borrow();
        assert_eq!(self.slice.state(), State::Closed);
        assert_eq!(world.pinned(), 0, "pins are left");
        assert_eq!((world.live(Dir::Tx), world.live(Dir::Rx)), (0, 0));
        let map = self.slice.map_stats();
        assert_eq!((map.pins, map.pinned), (map.unpins, 0));
        let port = &hardware.port;
        assert_eq!((port.vlans.len(), port.multicast.len()), (0, 0));
        assert_eq!(port.mac, MAC);
        assert!(port.refuse || port.max_frame == 1522);
    }

    /// A packet each way, as if nothing had been.
    pub(super) fn check_whole(&mut self) {
        self.bring_up();
        let ring = |v| Op::new(0, 4, 0, v);
        self.set_up(Dir::Tx, ring(0x1000 / 128));
        self.set_up(Dir::Rx, ring(0x2000 / 128));
        assert_eq!(self.slice.state(), State::Running);
        self.world.borrow_mut().wire.clear();
        self.send(Op::new(0, 0, 0, 0x4000));
        self.post(Op::new(0, 3, 0x1000, 0x6000));
        let Driver { tail, .. } = self.tx;
        self.write(TX + 0x18, tail as u32);
        let Driver { tail, .. } = self.rx;
        self.write(RX + 0x18, tail as u32);
        self.poll_all();
        {
            let mut world = self.world.borrow_mut();
            world.nic_tx_fetch(u16::MAX);
            world.nic_tx_write_back(u16::MAX);
            assert_eq!(world.wire.len(), 1, "sent");
            world.nic_rx_arrives(&[9; 100], None);
            assert_eq!(world.nic_rx_fill(1), 1, "received");
        }
        self.check_wire();
        self.poll_all();
        self.check();
        let world = self.world.borrow();
        let done = |at: u64, bit: u64| world.guest_read_desc(at)[1] >> bit & 1 != 0;
        assert!(done(0x1000, 32) && done(0x2000, 0), "both are told");
        assert_eq!(world.guest_read(0x6000, 100), [9; 100]);
    }

    fn poll_all(&mut self) {
        for _ in 0..16 {
            self.now_ns = self.now_ns.saturating_add(1_000_000);
            if !self.slice.poll(self.now_ns, 64).more {
                return;
            }
        }
        panic!("polls without end");
    }
}
