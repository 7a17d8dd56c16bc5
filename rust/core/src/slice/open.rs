// SPDX-License-Identifier: GPL-2.0

//! What a slice has while a VMM has it open.

use super::{
    Policy,
    StopReason, //
};
use crate::check::Rejection;
use crate::desc::rx::BufferSizes;
use crate::frame::TxLimits;
use crate::map::{
    MapStats,
    Mapper,
    PageRange,
    PinMap,
    Strategy, //
};
use crate::net::MacAddr;
use crate::path::{
    EnableError,
    Io,
    Progress,
    State, //
};
use crate::platform::{
    Alloc,
    Bounce,
    HwError,
    HwQueue,
    Pinner as _,
    Platform,
    Port,
    Signals, //
};
use crate::ring::RingConfig;
use crate::rx::{
    RxConfig,
    RxPath, //
};
use crate::source::{
    MacList,
    SourceRules, //
};
use crate::stats::Stats;
use crate::tx::TxPath;
use crate::vf::{
    Queue,
    RxRing,
    TxRing, //
};

/// Longest frame until the guest asks for another, in bytes: Ethernet's, with VLAN tag and FCS.
const DEFAULT_FRAME_BYTES: u16 = 1522;

/// Host buffers of each queue under [`Strategy::Copy`], if its shadow ring has that many descriptors.
const COPY_SLOTS: u16 = 512;

type Boxed<P, T> = <<P as Platform>::Alloc as Alloc>::Box<T>;
type Map<P> = PinMap<<P as Platform>::Pinner, <P as Platform>::Alloc>;

/// What a path works with, out of an [`Open`].
macro_rules! io {
    ($open:ident, tx, $stats:ident) => {
        io!($open, tx, tx_bounce, $stats)
    };
    ($open:ident, rx, $stats:ident) => {
        io!($open, rx, rx_bounce, $stats)
    };
    ($open:ident, $queue:ident, $bounce:ident, $stats:ident) => {
        &mut Io {
            queue: &mut $open.hardware.$queue,
            pinner: &mut $open.hardware.pinner,
            map: &mut $open.map,
            bounce: &mut $open.hardware.$bounce,
            stats: $stats,
        }
    };
}

/// Bounds of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most guest pages that stay pinned for packets. Rings are not counted.
    pub pinned_pages: u32,
    /// Random, hidden from the guest: keys the map's hash.
    pub seed: u64,
}

/// What a slice drives while it is open.
pub struct Hardware<P: Platform> {
    /// Guest memory.
    pub pinner: P::Pinner,
    /// The pool's transmit queue.
    pub tx: P::Queue,
    /// The pool's receive queue.
    pub rx: P::Queue,
    /// The pool's filters.
    pub port: P::Port,
    /// The VMM's eventfds.
    pub signals: P::Signals,
    /// Host buffers for transmission; there may be none yet.
    pub tx_bounce: P::Bounce,
    /// Host buffers for reception.
    pub rx_bounce: P::Bounce,
    /// Bounds.
    pub limits: Limits,
}

impl<P: Platform> Hardware<P> {
    /// Sees that there are the host buffers that `strategy` needs; `false` when out of memory.
    /// Sleeps.
    fn reserve_for(&mut self, strategy: Strategy) -> bool {
        let (tx_len, rx_len) = (self.tx.len(), self.rx.len());
        let headers = TxPath::<P>::header_slots(tx_len);
        let (tx, rx) = if strategy.copies() {
            (headers + tx_len.min(COPY_SLOTS), rx_len.min(COPY_SLOTS))
        } else {
            (headers, 0)
        };
        self.tx_bounce.reserve(tx) && self.rx_bounce.reserve(rx)
    }
}

/// What `make` makes, on the heap. A function of its own, so that its stack is soon free again.
#[inline(never)]
fn boxed<P: Platform, T>(make: impl FnOnce() -> Option<T>) -> Option<Boxed<P, T>> {
    P::Alloc::boxed(make()?)
}

/// An open slice: its hardware, and the two paths over it.
pub(super) struct Open<P: Platform> {
    hardware: Hardware<P>,
    map: Map<P>,
    tx: Boxed<P, TxPath<P>>,
    rx: Boxed<P, RxPath<P>>,
    /// Longest frame that the pool receives, in bytes.
    max_frame_bytes: u16,
    /// The guest has an address in place of the slice's own.
    chosen_mac: Option<MacAddr>,
    /// And these beside it.
    added_macs: MacList,
}

impl<P: Platform> Open<P> {
    /// Allocates the tables. Gives the hardware back when out of memory. Sleeps.
    pub(super) fn new(strategy: Strategy, mut hardware: Hardware<P>) -> Result<Self, Hardware<P>> {
        let limits = hardware.limits;
        if !hardware.reserve_for(strategy) {
            return Err(hardware);
        }
        let map = PinMap::new(strategy, limits.pinned_pages, limits.seed);
        let tx = boxed::<P, _>(|| TxPath::new(hardware.tx.len(), &hardware.tx_bounce));
        let rx = boxed::<P, _>(|| RxPath::new(hardware.rx.len(), &hardware.rx_bounce));
        match (map, tx, rx) {
            (Some(map), Some(tx), Some(rx)) => Ok(Self {
                hardware,
                map,
                tx,
                rx,
                max_frame_bytes: DEFAULT_FRAME_BYTES,
                chosen_mac: None,
                added_macs: MacList::EMPTY,
            }),
            _ => Err(hardware),
        }
    }

    /// Unpins what is left and returns the hardware. Both queues have been stopped.
    pub(super) fn dismantle(mut self) -> (Hardware<P>, MapStats) {
        self.map.unpin_all(&mut self.hardware.pinner);
        let stats = self.map_stats();
        (self.hardware, stats)
    }

    pub(super) fn map_stats(&self) -> MapStats {
        MapStats {
            pin_time_ns: self.hardware.pinner.spent_ns(),
            ..self.map.stats()
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.queue_runs(Queue::Tx) || self.queue_runs(Queue::Rx)
    }

    pub(super) fn queue_runs(&self, queue: Queue) -> bool {
        let state = match queue {
            Queue::Tx => self.tx.state(),
            Queue::Rx => self.rx.state(),
        };
        state != State::Off
    }

    /// Whether descriptors that the guest adds to a queue can wait until something else asks for a
    /// poll: receive buffers, while the NIC has enough of them.
    pub(super) fn can_wait(&self, queue: Queue, tail: u32) -> bool {
        queue == Queue::Rx && self.rx.is_well_supplied(tail)
    }

    /// Whether the queue broke a rule and has not been stopped since.
    pub(super) fn has_faulted(&self, queue: Queue) -> bool {
        let state = match queue {
            Queue::Tx => self.tx.state(),
            Queue::Rx => self.rx.state(),
        };
        matches!(state, State::Faulted(_))
    }

    pub(super) fn ring_touches(&self, queue: Queue, range: PageRange) -> bool {
        match queue {
            Queue::Tx => self.tx.touches(range.first(), range.last()),
            Queue::Rx => self.rx.touches(range.first(), range.last()),
        }
    }

    /// Unpins what is idle in the range, and sees that the rest is not used again. Returns how
    /// many of its pages are still pinned.
    pub(super) fn invalidate(&mut self, range: PageRange) -> u32 {
        self.map.invalidate(&mut self.hardware.pinner, range)
    }

    /// Whether the queue uses pages of the range for packets.
    pub(super) fn uses(&self, queue: Queue, range: PageRange) -> bool {
        self.map.uses(range, queue == Queue::Rx)
    }

    pub(super) fn start_tx(
        &mut self,
        ring: TxRing,
        source: Option<SourceRules>,
        port_vlan: bool,
        stats: &mut Stats,
    ) -> Result<(), StopReason> {
        let config = Self::ring_config(ring.base.raw(), ring.len_bytes, self.rx.ring(), stats)?;
        let limits = TxLimits {
            max_frame_bytes: u32::from(super::policy::MAX_FRAME_BYTES),
            port_vlan,
            source,
        };
        let result = self.tx.enable(io!(self, tx, stats), config, limits);
        result.map_err(StopReason::from)
    }

    pub(super) fn start_rx(
        &mut self,
        ring: RxRing,
        hide_vlan: bool,
        stats: &mut Stats,
    ) -> Result<(), StopReason> {
        let sizes = BufferSizes::new(ring.layout).map_err(|rejection| {
            stats.reject(rejection);
            StopReason::Refused(rejection)
        })?;
        let config = RxConfig {
            ring: Self::ring_config(ring.base.raw(), ring.len_bytes, self.tx.ring(), stats)?,
            sizes,
            max_frame_bytes: u32::from(self.max_frame_bytes),
            hide_vlan,
        };
        let result = self.rx.enable(io!(self, rx, stats), config);
        result.map_err(StopReason::from)
    }

    /// Checks where a ring lies, also against the slice's other ring.
    fn ring_config(
        base: u64,
        len_bytes: u32,
        other: Option<&RingConfig>,
        stats: &mut Stats,
    ) -> Result<RingConfig, StopReason> {
        let config = RingConfig::new(base, len_bytes).and_then(|config| {
            if other.is_some_and(|other| other.overlaps(&config)) {
                Err(Rejection::RingsOverlap)
            } else {
                Ok(config)
            }
        });
        config.map_err(|rejection| {
            stats.reject(rejection);
            StopReason::Refused(rejection)
        })
    }

    /// Moves descriptors of one queue. Returns what happened, and the head to show the guest.
    pub(super) fn poll(
        &mut self,
        queue: Queue,
        tail: u32,
        budget: u16,
        stats: &mut Stats,
    ) -> (Progress, u16) {
        match queue {
            Queue::Tx => {
                let progress = self.tx.poll(io!(self, tx, stats), tail, budget);
                (progress, self.tx.head().get())
            }
            Queue::Rx => {
                let progress = self.rx.poll(io!(self, rx, stats), tail, budget);
                (progress, self.rx.head().get())
            }
        }
    }

    /// Stops a queue. Nothing of it is in flight afterwards, save on an error.
    pub(super) fn stop(&mut self, queue: Queue, stats: &mut Stats) -> Result<(), HwError> {
        match queue {
            Queue::Tx => self.tx.stop(io!(self, tx, stats))?,
            Queue::Rx => self.rx.stop(io!(self, rx, stats))?,
        };
        Ok(())
    }

    /// Changes the strategy, and allocates what it needs; `false`, with nothing changed, when out of
    /// memory. Pages in flight stay as they are until [`Self::restart`] or their return. Sleeps.
    pub(super) fn set_strategy(&mut self, strategy: Strategy) -> bool {
        if !self.hardware.reserve_for(strategy) {
            return false;
        }
        self.tx.grow(&self.hardware.tx_bounce);
        self.rx.grow(&self.hardware.rx_bounce);
        self.map.set_strategy(&mut self.hardware.pinner, strategy);
        true
    }

    /// Stops a queue that runs and starts it where it was, with nothing in flight. Returns what
    /// happened, and the head to show the guest. On an error the queue is off.
    pub(super) fn restart(
        &mut self,
        queue: Queue,
        stats: &mut Stats,
    ) -> Result<(Progress, u16), HwError> {
        Ok(match queue {
            Queue::Tx => {
                let progress = self.tx.restart(io!(self, tx, stats))?;
                (progress, self.tx.head().get())
            }
            Queue::Rx => {
                let progress = self.rx.restart(io!(self, rx, stats))?;
                (progress, self.rx.head().get())
            }
        })
    }

    pub(super) fn link(&self) -> Option<u16> {
        self.hardware.port.link()
    }

    /// The pool's filters as for a new owner: its own address, standard frames, and what the
    /// administrator has set.
    pub(super) fn reset_filters(&mut self, mac: MacAddr, policy: &Policy) {
        self.hardware.port.reset_filters(&policy.pool_rules());
        self.hardware.port.set_mac(mac);
        self.set_max_frame(DEFAULT_FRAME_BYTES);
        self.chosen_mac = None;
        self.added_macs = MacList::EMPTY;
        self.tx.set_source(policy.source_rules(mac, MacList::EMPTY));
    }

    /// The addresses that the guest has been granted beside the slice's own.
    pub(super) fn granted_macs(&self) -> MacList {
        let list = self.added_macs;
        self.chosen_mac
            .and_then(|mac| list.with(mac))
            .unwrap_or(list)
    }

    /// Puts `mac` in the place of the slice's own address.
    pub(super) fn choose_mac(&mut self, own: MacAddr, mac: MacAddr) -> bool {
        let port = &mut self.hardware.port;
        let chosen = if mac == own { None } else { Some(mac) };
        if self.chosen_mac == chosen {
            return true;
        }
        // What is there as a further address already needs no other filter.
        let wanted = chosen.filter(|mac| !self.added_macs.contains(*mac));
        if !port.replace_mac(self.chosen_mac, wanted) {
            return false;
        }
        self.added_macs = self.added_macs.without(mac);
        self.chosen_mac = chosen;
        true
    }

    /// Adds an address to the guest's.
    pub(super) fn add_mac(&mut self, own: MacAddr, mac: MacAddr) -> bool {
        if mac == own || self.chosen_mac == Some(mac) || self.added_macs.contains(mac) {
            return true;
        }
        match self.added_macs.with(mac) {
            Some(list) if self.hardware.port.replace_mac(None, Some(mac)) => {
                self.added_macs = list;
                true
            }
            _ => false,
        }
    }

    /// Takes the guest's further addresses away.
    pub(super) fn clear_macs(&mut self) {
        for &mac in self.added_macs.as_slice() {
            self.hardware.port.replace_mac(Some(mac), None);
        }
        self.added_macs = MacList::EMPTY;
    }

    /// Changes the rules for the guest's frames.
    pub(super) fn set_source(&mut self, source: Option<SourceRules>) {
        self.tx.set_source(source);
    }

    pub(super) fn set_max_frame(&mut self, len_bytes: u16) -> bool {
        let done = self.hardware.port.set_max_frame(len_bytes);
        if done {
            self.max_frame_bytes = len_bytes;
        }
        done
    }

    pub(super) fn set_multicast(&mut self, hashes: &[u16]) -> bool {
        self.hardware.port.set_multicast(hashes)
    }

    pub(super) fn set_all_multicast(&mut self, on: bool) {
        self.hardware.port.set_all_multicast(on);
    }

    pub(super) fn set_vlan(&mut self, vid: u16, on: bool) -> bool {
        self.hardware.port.set_vlan(vid, on)
    }

    pub(super) fn signal(&mut self, vector: u8) {
        self.hardware.signals.signal(vector);
    }
}

impl From<EnableError> for StopReason {
    fn from(error: EnableError) -> Self {
        match error {
            EnableError::Refused(rejection) => Self::Refused(rejection),
            EnableError::Hw(error) => Self::Hardware(error),
            // The model enables a queue only after it has stopped.
            EnableError::Running => Self::Hardware(HwError::Timeout),
        }
    }
}
