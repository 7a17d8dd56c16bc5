// SPDX-License-Identifier: GPL-2.0

//! A machine with the data path on it, without registers: what a slice does, by hand.

use sluice_core::desc::rx::BufferSizes;
use sluice_core::frame::TxLimits;
use sluice_core::map::{
    Mapper,
    PinMap,
    Strategy, //
};
use sluice_core::path::*;
use sluice_core::platform::{
    HwError,
    RxLayout, //
};
use sluice_core::ring::RingConfig;
use sluice_core::rx::{
    RxConfig,
    RxPath, //
};
use sluice_core::source::SourceRules;
use sluice_core::stats::{
    PathStats,
    Stats, //
};
use sluice_core::tx::TxPath;

use super::*;

pub type Map = PinMap<SimPinner, StdAlloc>;

pub struct Rig {
    pub sim: SimMachine,
    pub map: Map,
    pub tx: TxPath<SimPlatform>,
    pub rx: RxPath<SimPlatform>,
    pub stats: Stats,
    /// Rules for frames, from the next time on that the queue is enabled.
    pub source: Option<SourceRules>,
}

macro_rules! io {
    ($rig:ident, $queue:ident, $bounce:ident) => {
        &mut Io {
            queue: &mut $rig.sim.$queue,
            pinner: &mut $rig.sim.pinner,
            map: &mut $rig.map,
            bounce: &mut $rig.sim.$bounce,
            stats: &mut $rig.stats,
        }
    };
}

impl Rig {
    pub fn new(strategy: Strategy, builder: SimBuilder, map_pages: u32) -> Self {
        let mut sim = builder.build();
        let headers = TxPath::<SimPlatform>::header_slots(sim.tx_queue.len());
        assert!(sim.tx_bounce.reserve(headers));
        if strategy.copies() {
            assert!(sim.tx_bounce.reserve(headers + sim.tx_queue.len()));
            assert!(sim.rx_bounce.reserve(sim.rx_queue.len()));
        }
        let len = sim.tx_queue.len();
        let seed = sim.world().rng.next();
        Self {
            map: PinMap::new(strategy, map_pages, seed).expect("a legal size"),
            tx: TxPath::new(len, &sim.tx_bounce).expect("a legal length"),
            rx: RxPath::new(len, &sim.rx_bounce).expect("a legal length"),
            stats: Stats::new(),
            source: None,
            sim,
        }
    }

    pub fn tx_enable(&mut self, base: u64, len_bytes: u32, max: u32) -> Result<(), EnableError> {
        let ring = RingConfig::new(base, len_bytes)?;
        let limits = TxLimits {
            max_frame_bytes: max,
            port_vlan: false,
            source: self.source,
        };
        self.tx.enable(io!(self, tx_queue, tx_bounce), ring, limits)
    }

    pub fn rx_enable(
        &mut self,
        base: u64,
        len_bytes: u32,
        layout: RxLayout,
        max_frame_bytes: u32,
    ) -> Result<(), EnableError> {
        let config = RxConfig {
            ring: RingConfig::new(base, len_bytes)?,
            sizes: BufferSizes::new(layout)?,
            max_frame_bytes,
            hide_vlan: false,
        };
        self.rx.enable(io!(self, rx_queue, rx_bounce), config)
    }

    pub fn tx_poll(&mut self, tail: u32, budget: u16) -> Progress {
        self.tx.poll(io!(self, tx_queue, tx_bounce), tail, budget)
    }

    pub fn rx_poll(&mut self, tail: u32, budget: u16) -> Progress {
        let io = io!(self, rx_queue, rx_bounce);
        self.rx.poll(io, tail, budget)
    }

    pub fn tx_stop(&mut self) -> Result<Progress, HwError> {
        self.tx.stop(io!(self, tx_queue, tx_bounce))
    }

    pub fn rx_stop(&mut self) -> Result<Progress, HwError> {
        let io = io!(self, rx_queue, rx_bounce);
        self.rx.stop(io)
    }

    /// What must hold after every step.
    pub fn check(&self) {
        let world = self.sim.world();
        world.check_live();
        if self.map.strategy().copies() {
            assert_eq!(world.nic_pinned(), 0, "the NIC has guest memory");
        }
        let Stats { tx, rx, .. } = &self.stats;
        assert_eq!(
            tx.taken + rx.taken,
            world.loads,
            "each descriptor is loaded once"
        );
        for (s, held, in_flight) in [
            (tx, self.tx.held(), self.tx.in_flight()),
            (rx, self.rx.held(), self.rx.in_flight()),
        ] {
            let PathStats {
                taken,
                contexts,
                posted,
                dropped,
                filtered,
                faulted,
                completed,
                abandoned,
                ..
            } = *s;
            let sum = contexts + posted + dropped + filtered + faulted + u64::from(held);
            assert_eq!(taken, sum, "descriptors went missing: {s:?} held {held}");
            assert!(completed + abandoned <= posted);
            assert!(in_flight || completed + abandoned == posted);
        }
        let map = self.map.stats();
        assert_eq!(map.pins - map.unpins, map.pinned.into());
        let more = u64::from(GRANULE_PAGES - 1) * world.granule_tries;
        assert!(map.misses + more >= map.pins);
        let rings = |config: Option<&RingConfig>| {
            config.map_or(0, |c| c.pages().1.pfn() - c.pages().0.pfn() + 1)
        };
        let expected = u64::from(map.pinned) + rings(self.tx.ring()) + rings(self.rx.ring());
        assert_eq!(world.pinned(), expected, "pins went missing");
    }

    /// Stops both queues and lets go of all memory.
    pub fn shut_down(&mut self) {
        self.tx_stop().expect("the NIC stops");
        self.rx_stop().expect("the NIC stops");
        let left = self.map.unpin_all(&mut self.sim.pinner);
        assert_eq!(u64::from(left), self.map.stats().leaked);
        self.check();
        self.sim.world().check_canaries();
    }
}
