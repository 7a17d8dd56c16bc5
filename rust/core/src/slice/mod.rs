// SPDX-License-Identifier: GPL-2.0

//! One slice: the function that the guest sees, the data path behind it, and what stops them.
//!
//! The owner serialises all calls (in the module: the slice's mutex). Register accesses come from
//! the VMM's threads, [`Slice::poll`] from the worker, [`Slice::dma_unmap`] from the VMM's memory
//! map.

mod open;
mod policy;
mod strategy;
mod withdraw;

pub use open::{
    Hardware,
    Limits, //
};
pub use policy::{
    MacPolicy,
    Policy, //
};
pub use strategy::NoMemory;

use crate::addr::GuestAddr;
use crate::check::Rejection;
use crate::map::{
    MapStats,
    PageRange,
    Strategy, //
};
use crate::net::MacAddr;
use crate::path::{
    Fault,
    Progress, //
};
use crate::platform::{
    HwError,
    Platform, //
};
use crate::stats::{
    PathStats,
    Stats, //
};
use crate::vf::{
    Action,
    Counters,
    Function,
    Identity,
    Queue,
    QueueState,
    Reply,
    Request,
    ResetKind,
    Width, //
};
use open::Open;

/// Why a queue stopped that the guest had not asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A descriptor or tail broke a rule.
    Fault(Fault),
    /// The ring or its settings broke a rule when the queue was enabled.
    Refused(Rejection),
    /// The VMM took memory away that was in flight, or that held the ring.
    MemoryRemoved,
    /// The NIC's queue did not start or stop as told.
    Hardware(HwError),
}

/// A queue that stopped, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Which queue.
    pub queue: Queue,
    /// Why.
    pub reason: StopReason,
}

/// What a slice is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No VMM has it open.
    Closed,
    /// A VMM has it open; no queue runs.
    Open,
    /// At least one queue runs.
    Running,
    /// A queue stopped without the guest's asking, until the guest resets or enables it again.
    Faulted(Stopped),
}

/// What a poll leaves to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// Poll again at once.
    pub more: bool,
    /// Poll again at this time at the latest: an interrupt is held back until then.
    pub deadline_ns: Option<u64>,
    /// A queue broke a rule and awaits [`Slice::poll`], which stops it.
    pub stop_wanted: bool,
}

/// Why a slice could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// It is open.
    Busy,
    /// Out of memory, or a limit out of range.
    NoMemory,
}

/// A slice is open, and the change asked for needs it closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// One slice of a NIC.
pub struct Slice<P: Platform> {
    function: Function,
    policy: Policy,
    strategy: Strategy,
    open: Option<Open<P>>,
    stats: Stats,
    /// Counters of maps that are gone.
    past_maps: MapStats,
    stopped: Option<Stopped>,
    /// A stop that nobody has been told of.
    unreported: Option<Stopped>,
    /// The worker has something to do.
    kicked: bool,
}

impl<P: Platform> Slice<P> {
    /// A closed slice.
    pub fn new(mac: MacAddr) -> Self {
        Self {
            function: Function::new(Identity { mac }),
            policy: Policy::default(),
            strategy: Strategy::default(),
            open: None,
            stats: Stats::new(),
            past_maps: MapStats::default(),
            stopped: None,
            unreported: None,
            kicked: false,
        }
    }

    /// The slice's address.
    pub const fn mac(&self) -> MacAddr {
        self.function.identity().mac
    }

    /// Changes the slice's address while it is closed.
    pub fn set_mac(&mut self, mac: MacAddr) -> Result<(), Busy> {
        if self.open.is_some() {
            return Err(Busy);
        }
        self.function.set_identity(Identity { mac });
        Ok(())
    }

    /// What the guest may ask for.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Changes what the guest may ask for, while the slice is closed.
    pub fn set_policy(&mut self, policy: Policy) -> Result<(), Busy> {
        if self.open.is_some() {
            return Err(Busy);
        }
        self.policy = policy;
        Ok(())
    }

    /// What the slice is doing.
    pub fn state(&self) -> State {
        match (&self.open, self.stopped) {
            (None, _) => State::Closed,
            (Some(_), Some(stopped)) => State::Faulted(stopped),
            (Some(open), None) if open.runs() => State::Running,
            (Some(_), None) => State::Open,
        }
    }

    /// Packets, bytes, descriptors and rejections since the slice was made.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Accesses that the function model refused, and its events.
    pub const fn function_counters(&self) -> &Counters {
        self.function.counters()
    }

    /// Pins and look-ups since the slice was made.
    pub fn map_stats(&self) -> MapStats {
        match &self.open {
            Some(open) => open.map_stats().after(&self.past_maps),
            None => self.past_maps,
        }
    }

    /// A stop that has not been reported yet, for the log.
    pub fn take_report(&mut self) -> Option<Stopped> {
        self.unreported.take()
    }

    /// Whether the worker should call [`Self::poll`]; asking clears it.
    pub fn take_kick(&mut self) -> bool {
        core::mem::take(&mut self.kicked)
    }

    /// Gives the slice its hardware and a fresh function: nothing of an earlier owner is left
    /// (invariant 8). On an error the hardware comes back.
    pub fn open(&mut self, hardware: Hardware<P>) -> Result<(), (OpenError, Hardware<P>)> {
        self.install(hardware)?;
        self.stopped = None;
        self.unreported = None;
        self.kicked = false;
        self.function.pass_on();
        if let Some(open) = &mut self.open {
            open.reset_filters(self.function.identity().mac, &self.policy);
            // The model's VFIO reset leaves the link as it was told last.
            let _ = self.function.set_link(open.link());
        }
        Ok(())
    }

    /// Puts the hardware in place. What is moved here is large for a kernel's stack: this is a frame
    /// of its own, and gone before anything else is called.
    #[inline(never)]
    fn install(&mut self, hardware: Hardware<P>) -> Result<(), (OpenError, Hardware<P>)> {
        if self.open.is_some() {
            return Err((OpenError::Busy, hardware));
        }
        match Open::new(self.strategy, hardware) {
            Ok(open) => {
                self.open = Some(open);
                Ok(())
            }
            Err(hardware) => Err((OpenError::NoMemory, hardware)),
        }
    }

    /// Stops the queues, unpins everything and returns the hardware.
    pub fn close(&mut self, now_ns: u64) -> Option<Hardware<P>> {
        self.reset(now_ns);
        let open = self.open.take()?;
        let (hardware, maps) = open.dismantle();
        self.past_maps = maps.after(&self.past_maps).at_rest();
        self.function.reset();
        self.stopped = None;
        Some(hardware)
    }

    /// The VMM resets the function.
    pub fn reset(&mut self, now_ns: u64) {
        self.stop_queues(None, now_ns);
        self.function.reset();
        if let Some(open) = &mut self.open {
            open.reset_filters(self.function.identity().mac, &self.policy);
        }
        self.stopped = None;
    }

    /// Reads configuration space.
    pub fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        self.function.config_read(offset, width)
    }

    /// Writes configuration space.
    pub fn config_write(&mut self, offset: u16, width: Width, value: u32, now_ns: u64) {
        let action = self.function.config_write(offset, width, value);
        self.act(action, now_ns);
    }

    /// Reads a register of BAR0.
    pub fn mmio_read(&mut self, offset: u32, width: Width) -> u32 {
        self.function.mmio_read(offset, width)
    }

    /// Writes a register of BAR0.
    pub fn mmio_write(&mut self, offset: u32, width: Width, value: u32, now_ns: u64) {
        if self.is_disabling(Queue::Rx) || self.is_disabling(Queue::Tx) {
            // Not all drivers wait for ENABLE to clear.
            if let Some(queue) = self.function.queue_to_rest(offset) {
                self.stop_queue(queue, None, now_ns);
            }
        }
        let action = self.function.mmio_write(offset, width, value);
        self.act(action, now_ns);
    }

    /// Reads the model of the MSI-X table.
    pub fn msix_read(&mut self, offset: u32, width: Width) -> u32 {
        self.function.msix_read(offset, width)
    }

    /// Writes the model of the MSI-X table; without effect on interrupts.
    pub fn msix_write(&mut self, offset: u32, width: Width, value: u32) {
        self.function.msix_write(offset, width, value);
    }

    /// As [`Self::poll_hastily`], and stops queues that broke a rule, which waits for the NIC.
    pub fn poll(&mut self, now_ns: u64, budget: u16) -> Polled {
        let mut polled = self.poll_hastily(now_ns, budget);
        if core::mem::take(&mut polled.stop_wanted) {
            for queue in [Queue::Rx, Queue::Tx] {
                if self.wants_stop(queue) {
                    self.stop_queue(queue, None, now_ns);
                }
            }
            polled.deadline_ns = self.signal(now_ns);
        }
        polled
    }

    /// Moves descriptors both ways, at most `budget` new ones of each queue, and signals what is
    /// due. Does not wait: a queue that breaks a rule takes no more descriptors, and stays so until
    /// [`Self::poll`] stops it.
    pub fn poll_hastily(&mut self, now_ns: u64, budget: u16) -> Polled {
        let mut polled = Polled::default();
        if self.function.bus_master() {
            for queue in [Queue::Rx, Queue::Tx] {
                polled.more |= self.poll_queue(queue, budget);
            }
        }
        polled.stop_wanted = self.wants_stop(Queue::Rx) || self.wants_stop(Queue::Tx);
        polled.deadline_ns = self.signal(now_ns);
        polled
    }

    /// Whether the guest has disabled a queue, which has not been stopped yet.
    fn is_disabling(&self, queue: Queue) -> bool {
        self.function.queue_state(queue) == QueueState::Disabling
    }

    /// Whether a queue is to be stopped by somebody who may wait for the NIC.
    fn wants_stop(&self, queue: Queue) -> bool {
        let faulted = |open: &Open<P>| open.has_faulted(queue);
        self.is_disabling(queue) || self.open.as_ref().is_some_and(faulted)
    }

    /// The NIC's link may have changed.
    pub fn link_changed(&mut self, now_ns: u64) {
        if let Some(open) = &self.open {
            let action = self.function.set_link(open.link());
            self.act(action, now_ns);
        }
    }

    /// The VMM takes memory away. When this returns no page of the range is pinned for the slice,
    /// save those that the NIC would not let go of, which stay pinned and are counted as leaked.
    pub fn dma_unmap(&mut self, iova: GuestAddr, len_bytes: u64, now_ns: u64) {
        let Some(range) = PageRange::from_bytes(iova.raw(), len_bytes) else {
            return;
        };
        for queue in [Queue::Rx, Queue::Tx] {
            if self
                .open
                .as_ref()
                .is_some_and(|o| o.ring_touches(queue, range))
            {
                self.stop_queue(queue, Some(StopReason::MemoryRemoved), now_ns);
            }
        }
        // What is idle goes at once; what is in flight goes when its queue has stopped. The other
        // queue goes on.
        for queue in [Queue::Rx, Queue::Tx] {
            let Some(open) = &mut self.open else {
                return;
            };
            if open.invalidate(range) == 0 {
                break;
            }
            if open.uses(queue, range) {
                self.stop_queue(queue, Some(StopReason::MemoryRemoved), now_ns);
            }
        }
        if let Some(open) = &mut self.open {
            open.invalidate(range);
        }
        self.signal(now_ns);
    }

    /// Carries out what an access means.
    fn act(&mut self, first: Action, now_ns: u64) {
        let mut action = first;
        // A confirmation can bring one more action; the bound makes termination plain.
        for _ in 0..4 {
            action = match action {
                Action::None => break,
                Action::Signals => Action::None,
                Action::Doorbell { queue, tail } => {
                    // A guest hands back a few receive buffers at a time: waking the worker for each
                    // handful costs more than moving them.
                    self.kicked |= !self
                        .open
                        .as_ref()
                        .is_some_and(|open| open.can_wait(queue, tail));
                    Action::None
                }
                Action::TxEnable(ring) => {
                    let (policy, mac) = (self.policy, self.function.identity().mac);
                    let started = self.with_open(|open, stats| {
                        let source = policy.source_rules(mac, open.granted_macs());
                        open.start_tx(ring, source, policy.vlans.inserted().is_some(), stats)
                    });
                    self.started(Queue::Tx, started)
                }
                Action::RxEnable(ring) => {
                    let hide_vlan = self.policy.vlans.inserted().is_some();
                    let started =
                        self.with_open(|open, stats| open.start_rx(ring, hide_vlan, stats));
                    self.started(Queue::Rx, started)
                }
                Action::Disable(_) => {
                    // The NIC is waited for elsewhere, as if it took its time to disable a queue:
                    // the guest's CPU stands still in the meantime, and drivers do not expect that
                    // here. `igbvf`, whose watchdog then runs in an unlucky place, loses its
                    // transmit queue until it times out.
                    self.kicked = true;
                    Action::None
                }
                Action::Mailbox(request) => {
                    let mac = self.function.identity().mac;
                    if self.gives_addresses_up(request) {
                        // Frames that were judged before must not leave when another slice has the
                        // address.
                        self.restart_queue(Queue::Tx);
                    }
                    if let Some(open) = &mut self.open {
                        match policy::answer(&self.policy, mac, request, open) {
                            Ok(()) => self.function.mailbox_reply(Reply::Ack),
                            Err(reason) => self.function.mailbox_refuse(reason),
                        }
                    }
                    Action::None
                }
                Action::Reset(kind) => {
                    self.guest_reset(kind, now_ns);
                    Action::None
                }
                Action::BusMaster(true) => {
                    self.kicked = true;
                    Action::None
                }
                Action::BusMaster(false) => {
                    // No DMA without bus mastering, also not into buffers posted before.
                    self.stop_queues(None, now_ns);
                    Action::None
                }
            };
        }
        if self.function.signals_due() && self.signal(now_ns).is_some() {
            // The worker keeps the time of an interrupt that is held back.
            self.kicked = true;
        }
    }

    /// Whether the guest may lose an address by this that the NIC may be sending from.
    fn gives_addresses_up(&self, request: Request) -> bool {
        let some = |open: &Open<P>| !open.granted_macs().as_slice().is_empty();
        let fewer = matches!(
            request,
            Request::Reset | Request::SetMac(_) | Request::ClearMacFilters
        );
        fewer && self.policy.macs == MacPolicy::Any && self.open.as_ref().is_some_and(some)
    }

    /// Tells the model, and the administrator, how starting a queue went.
    fn started(&mut self, queue: Queue, result: Result<(), StopReason>) -> Action {
        match result {
            Ok(()) => {
                if self.stopped.is_some_and(|stopped| stopped.queue == queue) {
                    self.stopped = None;
                }
                // Receive buffers and packets may be waiting already.
                self.kicked = true;
            }
            Err(reason) => self.record(Stopped { queue, reason }),
        }
        self.function.queue_enabled(queue, result.is_ok())
    }

    fn guest_reset(&mut self, _kind: ResetKind, now_ns: u64) {
        self.stop_queues(None, now_ns);
        if let Some(open) = &mut self.open {
            open.reset_filters(self.function.identity().mac, &self.policy);
        }
        self.stopped = None;
        self.function.reset_done();
    }

    fn with_open<R>(
        &mut self,
        f: impl FnOnce(&mut Open<P>, &mut Stats) -> Result<R, StopReason>,
    ) -> Result<R, StopReason> {
        match &mut self.open {
            Some(open) => f(open, &mut self.stats),
            None => Err(StopReason::Hardware(HwError::Gone)),
        }
    }

    fn record(&mut self, stopped: Stopped) {
        for place in [&mut self.stopped, &mut self.unreported] {
            // What the NIC failed to do is not hidden by what came of it.
            if place.is_none_or(|before| before.reason.gravity() <= stopped.reason.gravity()) {
                *place = Some(stopped);
            }
        }
    }

    fn stop_queues(&mut self, reason: Option<StopReason>, now_ns: u64) {
        self.stop_queue(Queue::Rx, reason, now_ns);
        self.stop_queue(Queue::Tx, reason, now_ns);
    }

    /// Stops a queue and tells the model. `reason` if the guest did not ask for it.
    fn stop_queue(&mut self, queue: Queue, reason: Option<StopReason>, _now_ns: u64) {
        let Some(open) = &mut self.open else {
            return;
        };
        let before = (self.stats.tx, self.stats.rx);
        let was_running = open.queue_runs(queue);
        let result = open.stop(queue, &mut self.stats);
        self.account(&before);
        if let Err(error) = result {
            self.record(Stopped {
                queue,
                reason: StopReason::Hardware(error),
            });
        } else if let (Some(reason), true) = (reason, was_running) {
            self.record(Stopped { queue, reason });
        }
        let _ = self.function.queue_enabled(queue, false);
    }

    /// Polls one queue; `true` if there is more to do at once.
    fn poll_queue(&mut self, queue: Queue, budget: u16) -> bool {
        if self.is_disabling(queue) {
            return false;
        }
        let tail = self.function.tail(queue);
        let Some(open) = &mut self.open else {
            return false;
        };
        if !open.queue_runs(queue) {
            return false;
        }
        let before = (self.stats.tx, self.stats.rx);
        let (progress, head) = open.poll(queue, tail, budget, &mut self.stats);
        self.account(&before);
        self.progressed(queue, &progress, head);
        if let Some(fault) = progress.fault {
            self.record(Stopped {
                queue,
                reason: StopReason::Fault(fault),
            });
            return false;
        }
        progress.more
    }

    /// Tells the model where a queue is.
    fn progressed(&mut self, queue: Queue, progress: &Progress, head: u16) {
        self.function.set_head(queue, head);
        if progress.notify {
            self.function.raise(match queue {
                Queue::Tx => crate::vf::Cause::Tx0,
                Queue::Rx => crate::vf::Cause::Rx0,
            });
        }
    }

    /// Adds what the data path did since `before` to the function's statistics registers, which
    /// are 32 bits wide and wrap.
    fn account(&mut self, (tx_before, rx_before): &(PathStats, PathStats)) {
        let since = |now: u64, before: u64| now.wrapping_sub(before) as u32;
        let (tx, rx) = (&self.stats.tx, &self.stats.rx);
        let delta = crate::vf::Stats {
            rx_frames: since(rx.packets, rx_before.packets),
            rx_bytes: since(rx.bytes, rx_before.bytes),
            rx_multicast: since(rx.multicast, rx_before.multicast),
            tx_frames: since(tx.packets, tx_before.packets),
            tx_bytes: since(tx.bytes, tx_before.bytes),
            ..Default::default()
        };
        self.function.add_stats(&delta);
    }

    /// Signals what is due; the time of what is held back.
    fn signal(&mut self, now_ns: u64) -> Option<u64> {
        let signals = self.function.take_signals(now_ns);
        if let Some(open) = &mut self.open {
            for vector in signals.vectors.iter() {
                open.signal(vector);
            }
        }
        signals.deadline_ns
    }
}
