// SPDX-License-Identifier: GPL-2.0

//! The transmit path: guest ring → [`crate::frame`] → pages → shadow ring, and completions back.

mod host;
mod mapped;

pub use mapped::MAX_PIECES;

use crate::addr::GuestPage;
use crate::check::Rejection;
use crate::desc::tx::{
    is_done,
    TxContext,
    TxDesc,
    DONE_STATUS, //
};
use crate::frame::{
    Gather,
    TxLimits, //
};
use crate::map::Mapper;
use crate::path::{
    EnableError,
    Fault,
    Io,
    Progress,
    State, //
};
use crate::platform::{
    Alloc,
    HwError,
    Pinner,
    Platform,
    RxLayout, //
};
use crate::ring::{
    AtRest,
    GuestRing,
    RingConfig,
    RingIndex,
    ShadowRing, //
};
use crate::source::SourceRules;
use host::Host;
use mapped::{
    MapFault,
    Mapped,
    Piece,
    Slot, //
};

type Page<P> = <<P as Platform>::Pinner as Pinner>::Page;
type Buf<P, T> = <<P as Platform>::Alloc as Alloc>::Buf<T>;

/// The layout concerns receive queues only.
const NO_LAYOUT: RxLayout = RxLayout {
    packet_bytes: 0,
    header_bytes: 0,
};

/// A slice's transmit queue.
///
/// Each guest descriptor is copied once and consumed once. A packet is posted as a whole or not
/// at all: a partial one waits in [`Gather`], and one that finds no room stays there.
pub struct TxPath<P: Platform> {
    state: State,
    ring: Option<GuestRing<Page<P>>>,
    shadow: ShadowRing,
    /// One per shadow slot. The truth about what is in flight; the ring itself is never asked.
    slots: Buf<P, Slot>,
    pieces: Buf<P, Piece>,
    host: Host<P::Alloc>,
    gather: Gather,
    /// Context that the NIC holds.
    emitted: Option<TxContext>,
    limits: TxLimits,
    /// First slot of the packet that was posted last; for use while something is in flight.
    youngest: u16,
    /// Next guest descriptor to copy.
    next: RingIndex,
    /// Guest descriptor after the last completed packet.
    head: RingIndex,
}

impl<P: Platform> TxPath<P> {
    /// Fewest descriptors in the shadow ring: the largest packet and its context fit.
    pub const MIN_SHADOW: u16 = 128;

    /// A path for a queue of `shadow_len` descriptors ([`crate::platform::HwQueue::len`], at
    /// least [`Self::MIN_SHADOW`]), with the host buffers that `bounce` has, at most one per
    /// descriptor. `None` when out of memory. Sleeps.
    pub fn new(shadow_len: u16, bounce: &P::Bounce) -> Option<Self> {
        if shadow_len < Self::MIN_SHADOW {
            return None;
        }
        Self::of_any_length(shadow_len, bounce)
    }

    /// As [`Self::new`], for tests that go through all that can happen in a small queue. Larger
    /// packets would wait in it for ever: the module is built without.
    #[cfg(not(kernel))]
    pub fn small(shadow_len: u16, bounce: &P::Bounce) -> Option<Self> {
        Self::of_any_length(shadow_len, bounce)
    }

    fn of_any_length(shadow_len: u16, bounce: &P::Bounce) -> Option<Self> {
        Some(Self {
            state: State::Off,
            ring: None,
            shadow: ShadowRing::new(shadow_len)?,
            slots: P::Alloc::filled(usize::from(shadow_len), |_| Slot::default())?,
            pieces: P::Alloc::filled(MAX_PIECES, |_| Piece::default())?,
            host: Host::new(shadow_len, bounce)?,
            gather: Gather::new(),
            emitted: None,
            limits: TxLimits {
                max_frame_bytes: 0,
                port_vlan: false,
                source: None,
            },
            youngest: 0,
            next: RingIndex::ZERO,
            head: RingIndex::ZERO,
        })
    }

    /// Where the queue is in its life.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The guest ring, while the queue is enabled.
    pub fn ring(&self) -> Option<&RingConfig> {
        self.ring.as_ref().map(GuestRing::config)
    }

    /// Head as the guest may read it: all descriptors before it are done with.
    pub const fn head(&self) -> RingIndex {
        self.head
    }

    /// Whether the NIC holds descriptors of this queue.
    pub const fn in_flight(&self) -> bool {
        !self.shadow.is_empty()
    }

    /// Guest descriptors copied that are neither posted nor given up.
    pub const fn held(&self) -> u16 {
        self.gather.held()
    }

    /// Whether the guest ring has a byte in the pages from `first` to `last`, both included.
    pub fn touches(&self, first: GuestPage, last: GuestPage) -> bool {
        self.ring.as_ref().is_some_and(|r| r.touches(first, last))
    }

    /// Host buffers ([`crate::platform::Bounce`]) for the headers of a queue of `shadow_len` descriptors;
    /// those for copies come on top.
    pub const fn header_slots(shadow_len: u16) -> u16 {
        host::header_pages(shadow_len)
    }

    /// Takes in host buffers that `bounce` has got since.
    pub fn grow(&mut self, bounce: &P::Bounce) {
        self.host.slots.grow(bounce);
    }

    /// Pins the guest ring and starts the queue, both empty.
    ///
    /// Rings of one slice must not share bytes: the caller asks [`RingConfig::overlaps`].
    pub fn enable<M: Mapper<P::Pinner>>(
        &mut self,
        io: &mut Io<'_, P, M>,
        config: RingConfig,
        limits: TxLimits,
    ) -> Result<(), EnableError> {
        if self.state != State::Off {
            return Err(EnableError::Running);
        }
        let ring = GuestRing::open(config, io.pinner).inspect_err(|r| io.stats.reject(*r))?;
        if let Err(error) = self.shadow.start(io.queue, NO_LAYOUT) {
            ring.close(io.pinner);
            return Err(EnableError::Hw(error));
        }
        self.ring = Some(ring);
        self.gather.reset();
        self.emitted = None;
        self.limits = limits;
        self.next = RingIndex::ZERO;
        self.head = RingIndex::ZERO;
        self.state = State::Running;
        Ok(())
    }

    /// Changes the rules for what is in a frame, for packets that are mapped from now on.
    pub fn set_source(&mut self, source: Option<SourceRules>) {
        self.limits.source = source;
    }

    /// Retires what the NIC has sent; then takes guest descriptors up to `tail`, at most `budget`
    /// of them. `tail` is what the guest wrote, unchecked. A tail that moves backwards is, as on
    /// the NIC, a jump around the ring: each descriptor on the way is judged on its own.
    pub fn poll<M: Mapper<P::Pinner>>(
        &mut self,
        io: &mut Io<'_, P, M>,
        tail: u32,
        budget: u16,
    ) -> Progress {
        let mut progress = Progress::default();
        if self.state == State::Off {
            return progress;
        }
        self.reap(io, &mut progress);
        if self.state == State::Running {
            if let Err(fault) = self.take(io, tail, budget, &mut progress) {
                io.stats.reject(fault.rejection);
                io.stats.tx.faulted += u64::from(self.gather.held());
                self.gather.clear();
                self.state = State::Faulted(fault);
                progress.fault = Some(fault);
            }
            io.stats.tx.doorbells += u64::from(self.shadow.flush(io.queue));
        }
        progress
    }

    /// Takes descriptors and posts packets.
    fn take<M: Mapper<P::Pinner>>(
        &mut self,
        io: &mut Io<'_, P, M>,
        tail: u32,
        mut budget: u16,
        progress: &mut Progress,
    ) -> Result<(), Fault> {
        let fault = |rejection, index, value| Fault {
            rejection,
            index,
            value,
        };
        let Some(ring) = &self.ring else {
            return Ok(());
        };
        let size = ring.size();
        let tail = size
            .tail(tail)
            .map_err(|rejection| fault(rejection, self.next, u64::from(tail)))?;
        loop {
            if let Some(checked) = self.gather.checked() {
                // Every packet needs a slot for each piece at least; a cheap look before mapping.
                if usize::from(self.shadow.free()) <= checked.segments().len() {
                    progress.busy = true;
                    break;
                }
                let plan = checked.plan();
                let room = self.shadow.free();
                let (rules, pieces) = (self.limits.source.as_ref(), &mut self.pieces);
                let mapped = Mapped::new(checked, rules, pieces, room, &mut self.host, io);
                let mapped = match mapped {
                    Ok(mapped) => mapped,
                    Err(MapFault::Busy) => {
                        progress.busy = true;
                        break;
                    }
                    Err(MapFault::Refused(rejection, addr)) => {
                        return Err(fault(rejection, plan.last, addr.raw()));
                    }
                    Err(MapFault::Filtered(rejection)) => {
                        io.stats.reject(rejection);
                        io.stats.tx.filtered += u64::from(self.gather.held());
                        self.gather.clear();
                        if plan.report {
                            ring.store_status(plan.last, DONE_STATUS);
                            progress.notify = true;
                        }
                        // The head passes the frame when it passes those before it.
                        let youngest = self.slots.get_mut(usize::from(self.youngest));
                        let youngest = youngest.and_then(|slot| slot.packet.as_mut());
                        match youngest.filter(|_| !self.shadow.is_empty()) {
                            Some(packet) => packet.dropped = Some(plan.last),
                            None => self.head = size.next(plan.last),
                        }
                        continue;
                    }
                };
                if mapped.descs(self.emitted.as_ref()) > room {
                    mapped.cancel(&mut self.host, io.pinner, io.map);
                    progress.busy = true;
                    break;
                }
                io.stats.tx.posted += u64::from(self.gather.held());
                self.youngest = self.shadow.tail();
                mapped.post(
                    io.queue,
                    &mut self.shadow,
                    &mut self.slots,
                    &mut self.emitted,
                );
                progress.posted += 1;
                self.gather.clear();
            }
            if self.next == tail {
                break;
            }
            if budget == 0 {
                progress.more = true;
                break;
            }
            budget -= 1;
            let index = self.next;
            let raw = ring.load(index);
            let raw = raw.ok_or_else(|| fault(Rejection::RingNotMemory, index, 0))?;
            progress.taken += 1;
            io.stats.tx.taken += 1;
            self.next = size.next(index);
            let word = raw.command_word();
            let held = self.gather.held();
            let pushed = TxDesc::parse(raw)
                .and_then(|desc| self.gather.push(desc, index, &self.limits))
                .map_err(|rejection| fault(rejection, index, word));
            match pushed {
                Ok(context) => io.stats.tx.contexts += u64::from(context),
                Err(fault) => {
                    // Either it did not get into the packet, or it completed a bad one.
                    io.stats.tx.faulted += u64::from(self.gather.held() == held);
                    return Err(fault);
                }
            }
        }
        io.stats.tx.busy += u64::from(progress.busy);
        Ok(())
    }

    /// Retires what was written back, in order.
    fn reap<M: Mapper<P::Pinner>>(&mut self, io: &mut Io<'_, P, M>, progress: &mut Progress) {
        while let Some(packet) = self.oldest() {
            let last = packet.descs.saturating_sub(1);
            let Some((_, proof)) = self.shadow.written_back(io.queue, last, is_done) else {
                break;
            };
            self.retire(io, packet.descs, proof.at_rest());
            self.report(&packet, progress);
            progress.completed += 1;
            io.stats.tx.completed += u64::from(packet.plan.taken);
            io.stats.tx.packets += u64::from(packet.plan.wire_frames);
            io.stats.tx.bytes += u64::from(packet.plan.wire_bytes);
        }
    }

    /// Tells the guest that a packet is done with.
    fn report(&mut self, packet: &mapped::Packet, progress: &mut Progress) {
        let Some(ring) = &self.ring else {
            return;
        };
        if packet.plan.report {
            ring.store_status(packet.plan.last, DONE_STATUS);
            progress.notify = true;
        }
        self.head = ring.size().next(packet.dropped.unwrap_or(packet.plan.last));
    }

    fn oldest(&self) -> Option<mapped::Packet> {
        if self.shadow.is_empty() {
            return None;
        }
        self.slots.get(usize::from(self.shadow.head()))?.packet
    }

    /// Gives back the pages of the `count` oldest slots.
    fn retire<M: Mapper<P::Pinner>>(
        &mut self,
        io: &mut Io<'_, P, M>,
        count: u16,
        proof: AtRest<'_>,
    ) {
        for steps in 0..count {
            let index = usize::from(self.shadow.after_head(steps));
            if let Some(slot) = self.slots.get_mut(index) {
                slot.packet = None;
                for page in slot.pages.iter_mut().filter_map(Option::take) {
                    io.map.release(io.pinner, page, proof);
                }
                if let Some(number) = slot.host.take() {
                    self.host.slots.give(number);
                }
                if let Some(number) = slot.header.take() {
                    self.host.headers.give(number);
                }
            }
        }
        self.shadow.retire(count);
    }

    /// Stops the queue: retires what is complete, gives up the rest, and lets go of the guest
    /// ring. Afterwards no page of guest memory is in use by this queue.
    ///
    /// If the NIC does not stop, its pages stay pinned for ever (invariant 3), which the map's
    /// counters show, and the error is returned; the queue is off all the same.
    pub fn stop<M: Mapper<P::Pinner>>(
        &mut self,
        io: &mut Io<'_, P, M>,
    ) -> Result<Progress, HwError> {
        let mut progress = Progress::default();
        if self.state == State::Off {
            return Ok(progress);
        }
        let stopped = self.halt(io, false, &mut progress);
        self.close(io);
        stopped.map(|()| progress)
    }

    /// Stops the queue and starts it again where it was. Afterwards no page is in use by this
    /// queue, and none of its buffers is known to the NIC.
    ///
    /// A packet that the NIC has not sent by then is lost, as if the link had failed: it is counted
    /// as abandoned, and its descriptors come back to the guest as done. A packet that was copied
    /// from the guest ring and not posted is sent later. On an error the queue is off, as after
    /// [`Self::stop`].
    pub fn restart<M: Mapper<P::Pinner>>(
        &mut self,
        io: &mut Io<'_, P, M>,
    ) -> Result<Progress, HwError> {
        let mut progress = Progress::default();
        if self.state == State::Off {
            return Ok(progress);
        }
        let halted = self.halt(io, true, &mut progress);
        if let Err(error) = halted.and_then(|()| self.shadow.start(io.queue, NO_LAYOUT)) {
            self.close(io);
            return Err(error);
        }
        self.emitted = None;
        Ok(progress)
    }

    /// Stops the NIC's queue; retires what is complete and gives up the rest, of which the guest
    /// learns if `report` says so.
    fn halt<M: Mapper<P::Pinner>>(
        &mut self,
        io: &mut Io<'_, P, M>,
        report: bool,
        progress: &mut Progress,
    ) -> Result<(), HwError> {
        let stopped = self.shadow.stop(io.queue);
        self.reap(io, progress);
        while let Some(packet) = self.oldest() {
            io.stats.tx.abandoned += u64::from(packet.plan.taken);
            match &stopped {
                Ok(quiesced) => {
                    self.retire(io, packet.descs, quiesced.at_rest());
                    if report {
                        self.report(&packet, progress);
                    }
                }
                Err(_) => self.leak(io, packet.descs),
            }
        }
        stopped.map(|_| ())
    }

    /// Lets go of the guest ring.
    fn close<M: Mapper<P::Pinner>>(&mut self, io: &mut Io<'_, P, M>) {
        io.stats.tx.dropped += u64::from(self.gather.held());
        self.gather.reset();
        if let Some(ring) = self.ring.take() {
            ring.close(io.pinner);
        }
        self.state = State::Off;
    }

    /// Gives up the pages of the `count` oldest slots without proof that they are at rest.
    fn leak<M: Mapper<P::Pinner>>(&mut self, io: &mut Io<'_, P, M>, count: u16) {
        for steps in 0..count {
            let index = usize::from(self.shadow.after_head(steps));
            if let Some(slot) = self.slots.get_mut(index) {
                slot.packet = None;
                for page in slot.pages.iter_mut().filter_map(Option::take) {
                    io.map.leak(io.pinner, page);
                }
                if slot.host.take().is_some() {
                    self.host.slots.lose();
                }
                if slot.header.take().is_some() {
                    self.host.headers.lose();
                }
            }
        }
        self.shadow.retire(count);
    }
}
