// SPDX-License-Identifier: GPL-2.0

//! One slice: the function that the guest sees, the data path behind it, and what stops them.
//!
//! The owner serialises all calls (in the module: the slice's mutex). Register accesses come from
//! the VMM's threads, [`Slice::poll`] from the worker, [`Slice::dma_unmap`] from the VMM's memory
//! map.

mod open;
mod policy;
mod poll;
mod stop;
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
pub use poll::Polled;
pub use strategy::NoMemory;

use crate::check::Rejection;
use crate::map::{
    MapStats,
    Strategy, //
};
use crate::net::MacAddr;
use crate::path::Fault;
use crate::platform::{
    HwError,
    Platform, //
};
use crate::stats::Stats;
use crate::vf::{
    Action,
    Counters,
    Function,
    Identity,
    Queue,
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
    /// A VMM has the slice open.
    held: bool,
    /// What it works with, as long as it has not been taken away.
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
            held: false,
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
        if self.held {
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
        if self.held {
            return Err(Busy);
        }
        self.policy = policy;
        Ok(())
    }

    /// What the slice is doing.
    pub fn state(&self) -> State {
        match (&self.open, self.stopped) {
            _ if !self.held => State::Closed,
            (_, Some(stopped)) => State::Faulted(stopped),
            (Some(open), None) if open.runs() => State::Running,
            (_, None) => State::Open,
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
        self.held = true;
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
        if self.held {
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

    /// The VMM closes the slice: stops the queues, unpins everything and returns the hardware, unless
    /// that was taken away before.
    pub fn close(&mut self, now_ns: u64) -> Option<Hardware<P>> {
        self.reset(now_ns);
        let hardware = self.dismantle();
        self.stopped = None;
        self.held = false;
        hardware
    }

    /// The VMM resets the function.
    pub fn reset(&mut self, now_ns: u64) {
        self.stop_queues(None, now_ns);
        self.function.reset();
        self.begin_anew();
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

    /// The NIC's link may have changed.
    pub fn link_changed(&mut self, now_ns: u64) {
        if let Some(open) = &self.open {
            let action = self.function.set_link(open.link());
            self.act(action, now_ns);
        }
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
        self.function.written(now_ns);
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
        self.begin_anew();
        self.function.reset_done();
    }

    /// After a reset: filters as at first, and what had stopped the queues is past. Without hardware
    /// it is not.
    fn begin_anew(&mut self) {
        if let Some(open) = &mut self.open {
            open.reset_filters(self.function.identity().mac, &self.policy);
            self.stopped = None;
        }
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
}
