// SPDX-License-Identifier: GPL-2.0

//! The function itself: joins the blocks and turns accesses into actions.

use super::config::{
    Config,
    Effect, //
};
use super::counters::{
    Counters,
    Refusal, //
};
use super::irq::{
    Cause,
    Irq,
    Signals, //
};
use super::mailbox::{
    Mailbox,
    Reply,
    Request, //
};
use super::msix::Msix;
use super::queue::{
    self,
    Pair,
    Queue,
    QueueState,
    RxRing,
    TxRing, //
};
use super::regs::{
    self,
    Access,
    File,
    Reg,
    Slot, //
};
use super::{
    Action,
    Identity,
    ResetKind,
    Stats,
    Width, //
};

/// STATUS: full duplex, link up, and the speed in bits 7:6 (datasheet 8.2.2).
const STATUS_FD: u32 = 1 << 0;
const STATUS_LU: u32 = 1 << 1;
const STATUS_SPEED_100: u32 = 1 << 6;
const STATUS_SPEED_1000: u32 = 1 << 7;

/// Head write-back enable, in TDWBAL.
const HEAD_WRITE_BACK: u32 = 1 << 0;

/// A virtual function as its guest sees it. See the [module](super).
#[derive(Clone, Debug)]
pub struct Function {
    identity: Identity,
    config: Config,
    regs: File,
    irq: Irq,
    mailbox: Mailbox,
    msix: Msix,
    queues: Pair,
    /// Mb/s.
    link: Option<u16>,
    counters: Counters,
}

impl Function {
    /// A function as after power-on, with its host ready and the link down.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            config: Config::new(),
            regs: File::new(),
            irq: Irq::new(),
            mailbox: Mailbox::new(),
            msix: Msix::new(),
            queues: Pair::new(),
            link: None,
            counters: Counters::new(),
        }
    }

    /// Who the function is.
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// Gives the function another address. The guest learns of it at its next reset.
    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// What was refused, and other events.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    // Configuration space.

    /// Reads configuration space. Past its end: ones, and counted.
    pub fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        match self.config.read(offset, width) {
            Ok(value) => value,
            Err(reason) => {
                self.counters.refuse(reason);
                width.mask()
            }
        }
    }

    /// Writes configuration space.
    pub fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Action {
        match self.config.write(offset, width, value) {
            Ok(Effect::None) => Action::None,
            Ok(Effect::BusMaster(on)) => Action::BusMaster(on),
            Ok(Effect::FunctionReset) => self.function_reset(),
            Err(reason) => self.refuse(reason),
        }
    }

    /// Whether the guest allows the function to access memory and to send interrupts.
    pub const fn bus_master(&self) -> bool {
        self.config.bus_master()
    }

    // BAR3.

    /// Reads the MSI-X table or its pending bits.
    pub fn msix_read(&mut self, offset: u32, width: Width) -> u32 {
        match aligned_dword(offset, width).and_then(|()| self.msix.read(offset)) {
            Ok(value) => value,
            Err(reason) => {
                self.counters.refuse(reason);
                0
            }
        }
    }

    /// Writes the MSI-X table. The VMM acts on it, not the function.
    pub fn msix_write(&mut self, offset: u32, width: Width, value: u32) {
        if let Err(reason) =
            aligned_dword(offset, width).and_then(|()| self.msix.write(offset, value))
        {
            self.counters.refuse(reason);
        }
    }

    // BAR0.

    /// Reads a register. What is refused reads as zero.
    pub fn mmio_read(&mut self, offset: u32, width: Width) -> u32 {
        match decode(offset, width).and_then(|slot| self.read(slot)) {
            Ok(value) => value,
            Err(reason) => {
                self.counters.refuse(reason);
                0
            }
        }
    }

    /// Writes a register.
    pub fn mmio_write(&mut self, offset: u32, width: Width, value: u32) -> Action {
        match decode(offset, width).and_then(|slot| self.write(slot, value)) {
            Ok(action) => action,
            Err(reason) => self.refuse(reason),
        }
    }

    /// The queue that a write at `offset` needs to be at rest, where the guest has disabled it and the
    /// host has not stopped it yet.
    pub fn queue_to_rest(&self, offset: u32) -> Option<Queue> {
        let slot = decode(offset, Width::Dword).ok()?;
        let configures = matches!(slot.spec().access, Access::Configure { .. })
            || matches!(slot.reg, Reg::Txdctl | Reg::Rxdctl);
        queue::queue_of(slot)
            .filter(|queue| configures && self.queue_state(*queue) == QueueState::Disabling)
    }

    /// What a read of the register would return, without the effects of reading. Zero for
    /// registers that cannot be read.
    pub fn peek(&self, slot: Slot) -> u32 {
        match slot.reg {
            Reg::Status => self.status(),
            Reg::VmbMem => self.mailbox.word(slot.instance),
            Reg::V2pMailbox => self.mailbox.peek(),
            Reg::Eims
            | Reg::Eiac
            | Reg::Eiam
            | Reg::Eicr
            | Reg::Eitr
            | Reg::VtIvar
            | Reg::VtIvarMisc => self.irq.peek(slot.reg, slot.instance),
            Reg::Txdctl | Reg::Rxdctl => {
                let enable = if self.queues.state_of(slot).shows_enabled() {
                    regs::DCTL_ENABLE
                } else {
                    0
                };
                self.regs.at(slot) | enable
            }
            _ => self.regs.at(slot),
        }
    }

    fn read(&mut self, slot: Slot) -> Result<u32, Refusal> {
        if let Access::WriteOnly { .. } = slot.spec().access {
            return Err(Refusal::WriteOnly);
        }
        Ok(match slot.reg {
            Reg::V2pMailbox => self.mailbox.read(),
            Reg::Eicr => self.irq.read(slot.reg, slot.instance),
            _ => self.peek(slot),
        })
    }

    fn write(&mut self, slot: Slot, raw: u32) -> Result<Action, Refusal> {
        let value = match slot.spec().access {
            Access::ReadOnly | Access::Counter => return Err(Refusal::ReadOnly),
            Access::Configure { mask } => {
                if self.queues.state_of(slot) != QueueState::Disabled {
                    return Err(Refusal::QueueBusy);
                }
                raw & mask
            }
            Access::ReadWrite { mask }
            | Access::WriteOnly { mask }
            | Access::WriteOneSets { mask }
            | Access::ReadClears { mask } => raw & mask,
        };
        match slot.reg {
            Reg::Ctrl if value != 0 => return Ok(self.control_reset()),
            Reg::Ctrl | Reg::PbaCl => return Ok(Action::None),
            Reg::VmbMem => {
                self.mailbox.set_word(slot.instance, value)?;
                return Ok(Action::None);
            }
            Reg::V2pMailbox => return Ok(self.write_mailbox(value)),
            Reg::Eics
            | Reg::Eims
            | Reg::Eimc
            | Reg::Eiac
            | Reg::Eiam
            | Reg::Eicr
            | Reg::Eitr
            | Reg::VtIvar
            | Reg::VtIvarMisc => {
                self.irq.write(slot.reg, slot.instance, value);
                return Ok(self.signals_action());
            }
            Reg::Txdctl | Reg::Rxdctl => {
                let resetting = self.mailbox.resetting();
                return self.queues.control(&mut self.regs, slot, value, resetting);
            }
            Reg::Tdh | Reg::Rdh if value != 0 => return Err(Refusal::HeadNonZero),
            Reg::Tdwbal if raw & HEAD_WRITE_BACK != 0 => return Err(Refusal::HeadWriteBack),
            _ => {}
        }
        self.regs.put(slot, value);
        Ok(match slot.reg {
            Reg::Tdt | Reg::Rdt => self.queues.doorbell(&self.regs, slot),
            _ => Action::None,
        })
    }

    // Queues.

    /// Where a queue stands.
    pub const fn queue_state(&self, queue: Queue) -> QueueState {
        self.queues.state(queue)
    }

    /// The transmit ring that the registers name.
    pub fn tx_ring(&self) -> Result<TxRing, Refusal> {
        queue::tx_ring(&self.regs)
    }

    /// The receive ring that the registers name.
    pub fn rx_ring(&self) -> Result<RxRing, Refusal> {
        queue::rx_ring(&self.regs)
    }

    /// The tail as the guest last wrote it.
    pub fn tail(&self, queue: Queue) -> u32 {
        queue::tail(&self.regs, queue)
    }

    /// Shows the guest how far the data path has come. Without effect on a queue that is not
    /// running.
    pub fn set_head(&mut self, queue: Queue, head: u16) {
        self.queues.set_head(&mut self.regs, queue, head);
    }

    /// The host confirms that a queue runs (`on`), or that it does not: it was stopped as asked,
    /// or it could not be started, or it had to be stopped unasked.
    ///
    /// A confirmation that the guest's next step has overtaken is dropped. Returns a doorbell if
    /// the guest moved the tail before the queue ran.
    pub fn queue_enabled(&mut self, queue: Queue, on: bool) -> Action {
        if !on && self.queue_state(queue) == QueueState::Enabling {
            self.counters.enable_failures = self.counters.enable_failures.wrapping_add(1);
        }
        self.queues.confirm(&self.regs, queue, on)
    }

    // Mailbox and link.

    /// The request that waits for [`Self::mailbox_reply`].
    pub fn mailbox_request(&self) -> Option<Request> {
        self.mailbox.request()
    }

    /// Answers the waiting request; without one nothing happens.
    pub fn mailbox_reply(&mut self, reply: Reply) {
        let mac = self.identity.mac;
        if self.mailbox.reply(reply, mac, &mut self.counters) {
            self.irq.raise(Cause::Other, &mut self.counters);
        }
    }

    /// Refuses the waiting request, and counts why; without one nothing happens.
    pub fn mailbox_refuse(&mut self, reason: Refusal) {
        if self.mailbox_request().is_some() {
            self.counters.refuse(reason);
            self.mailbox_reply(Reply::Nack);
        }
    }

    fn write_mailbox(&mut self, value: u32) -> Action {
        let outcome = self.mailbox.write(value, &mut self.counters);
        if outcome.notify {
            self.irq.raise(Cause::Other, &mut self.counters);
        }
        match outcome.request {
            Some(request) => Action::Mailbox(request),
            None => self.signals_action(),
        }
    }

    /// Sets the link's state: its speed in Mb/s, or down. A change is told to the guest.
    pub fn set_link(&mut self, speed_mbps: Option<u16>) -> Action {
        if self.link == speed_mbps {
            return Action::None;
        }
        self.link = speed_mbps;
        self.mailbox.ping(&mut self.counters);
        // igbvf looks at the link upon this cause, whether or not it can read the message yet.
        self.irq.raise(Cause::Other, &mut self.counters);
        self.signals_action()
    }

    fn status(&self) -> u32 {
        let speed = match self.link {
            None => return STATUS_FD,
            Some(1000..) => STATUS_SPEED_1000,
            Some(100..) => STATUS_SPEED_100,
            Some(_) => 0,
        };
        STATUS_FD | STATUS_LU | speed
    }

    // Interrupts.

    /// Records an event of the data path.
    pub fn raise(&mut self, cause: Cause) {
        self.irq.raise(cause, &mut self.counters);
    }

    /// To be called after a register was written: `now_ns` is the caller's monotonic clock.
    pub fn written(&mut self, now_ns: u64) {
        self.irq.written(now_ns);
    }

    /// Whether a call to [`Self::take_signals`] may have something to do.
    pub const fn signals_due(&self) -> bool {
        self.bus_master() && self.irq.due() != 0
    }

    /// Decides which vectors to signal now. `now_ns` is the caller's monotonic clock. None are
    /// sent while bus mastering is off; they stay due.
    pub fn take_signals(&mut self, now_ns: u64) -> Signals {
        if !self.signals_due() {
            return Signals::default();
        }
        let signals = self.irq.take(now_ns);
        let n = u64::from(signals.vectors.bits().count_ones());
        self.counters.signals = self.counters.signals.wrapping_add(n);
        signals
    }

    fn signals_action(&self) -> Action {
        if self.signals_due() {
            Action::Signals
        } else {
            Action::None
        }
    }

    // Statistics.

    /// Adds to the statistics registers, which wrap around at 2^32 and survive resets, as `igbvf`
    /// expects of them. What was transmitted counts for moderation, too.
    pub fn add_stats(&mut self, stats: &Stats) {
        let regs = [
            (Reg::VfGprc, stats.rx_frames),
            (Reg::VfGorc, stats.rx_bytes),
            (Reg::VfMprc, stats.rx_multicast),
            (Reg::Rqdpc, stats.rx_dropped),
            (Reg::VfGptc, stats.tx_frames),
            (Reg::VfGotc, stats.tx_bytes),
            (Reg::VfGprlbc, stats.rx_local_frames),
            (Reg::VfGorlbc, stats.rx_local_bytes),
            (Reg::VfGptlbc, stats.tx_local_frames),
            (Reg::VfGotlbc, stats.tx_local_bytes),
        ];
        for (reg, n) in regs {
            self.regs.count(reg, 0, n);
        }
        self.irq.transmitted(stats.tx_bytes);
    }

    // Resets.

    /// A reset by the VMM: as after power-on, save identity, link, statistics and counters. The
    /// caller has stopped both queues; nothing is left to confirm.
    pub fn reset(&mut self) {
        self.counters.vmm_resets = self.counters.vmm_resets.wrapping_add(1);
        self.reset_registers(false);
        self.config = Config::new();
        self.msix = Msix::new();
    }

    /// As [`Self::reset`], and the statistics registers are zero: for another owner (invariant 8).
    pub fn pass_on(&mut self) {
        self.regs = File::new();
        self.irq = Irq::new();
        self.reset();
    }

    /// The host has done what [`Action::Reset`] asks.
    pub fn reset_done(&mut self) {
        self.mailbox.reset_done();
    }

    /// Whether [`Self::reset_done`] is awaited.
    pub const fn reset_pending(&self) -> bool {
        self.mailbox.resetting()
    }

    fn control_reset(&mut self) -> Action {
        self.counters.control_resets = self.counters.control_resets.wrapping_add(1);
        self.guest_reset(ResetKind::Ctrl)
    }

    fn function_reset(&mut self) -> Action {
        self.counters.function_resets = self.counters.function_resets.wrapping_add(1);
        let was_master = self.bus_master();
        self.config = Config::new();
        self.msix = Msix::new();
        match self.guest_reset(ResetKind::Flr) {
            Action::None if was_master => Action::BusMaster(false),
            action => action,
        }
    }

    /// Resets what both kinds reset. While the host has not finished the last reset there is
    /// nothing more for it to do: no queue can have started since.
    fn guest_reset(&mut self, kind: ResetKind) -> Action {
        let pending = self.reset_pending();
        self.reset_registers(true);
        if pending {
            Action::None
        } else {
            Action::Reset(kind)
        }
    }

    fn reset_registers(&mut self, pending: bool) {
        self.regs.reset();
        self.irq.reset();
        self.mailbox.reset(pending);
        self.queues = Pair::new();
    }

    fn refuse(&mut self, reason: Refusal) -> Action {
        self.counters.refuse(reason);
        Action::None
    }
}

fn aligned_dword(offset: u32, width: Width) -> Result<(), Refusal> {
    if width != Width::Dword {
        Err(Refusal::BadWidth)
    } else if offset % 4 != 0 {
        Err(Refusal::Misaligned)
    } else {
        Ok(())
    }
}

fn decode(offset: u32, width: Width) -> Result<Slot, Refusal> {
    aligned_dword(offset, width)?;
    regs::find(offset).ok_or(Refusal::UnknownRegister)
}
