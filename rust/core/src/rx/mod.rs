// SPDX-License-Identifier: GPL-2.0

//! The receive path: empty guest buffers → shadow ring, and filled ones back.

mod buffer;

use crate::addr::GuestPage;
use crate::bounce::Slots;
use crate::check::Rejection;
use crate::desc::rx::{
    is_done,
    BufferSizes,
    RxBuffer,
    RxWriteBack, //
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
    Bounce,
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
use buffer::{
    MapFault,
    Mapped,
    Slot, //
};

type Page<P> = <<P as Platform>::Pinner as Pinner>::Page;
type Buf<P, T> = <<P as Platform>::Alloc as Alloc>::Buf<T>;

/// Frame check sequence that the NIC has stripped, and VLAN tag, in bytes: on the wire all the same.
const FCS_BYTES: u32 = 4;
const VLAN_BYTES: u32 = 4;

/// How a receive queue is set up.
#[derive(Clone, Copy, Debug)]
pub struct RxConfig {
    /// The guest's ring.
    pub ring: RingConfig,
    /// Its buffers.
    pub sizes: BufferSizes,
    /// Longest frame that the pool accepts, in bytes: the NIC writes no more than this into a
    /// buffer, so that what lies further need not be memory.
    pub max_frame_bytes: u32,
    /// The guest does not see the tags that the NIC has stripped.
    pub hide_vlan: bool,
}

/// A slice's receive queue.
///
/// Buffers are posted one to one and in order. Those that the NIC cannot write in one piece go
/// through host memory ([`Bounce`]) and are copied.
pub struct RxPath<P: Platform> {
    state: State,
    ring: Option<GuestRing<Page<P>>>,
    shadow: ShadowRing,
    /// One per shadow slot. The truth about what is in flight.
    slots: Buf<P, Slot>,
    bounce: Slots<P::Alloc>,
    scratch: Buf<P, u8>,
    sizes: BufferSizes,
    max_frame_bytes: u32,
    hide_vlan: bool,
    /// A buffer copied from the guest ring that found no room yet.
    pending: Option<(RxBuffer, RingIndex)>,
    /// Bytes of the packet so far, when its last buffer is still to come.
    partial: Option<u32>,
    /// The guest has the beginning of a packet whose rest was lost: it is to be told.
    cut: bool,
    /// Next guest descriptor to copy.
    next: RingIndex,
    /// Guest descriptor after the last one written back.
    head: RingIndex,
}

impl<P: Platform> RxPath<P> {
    /// A path for a queue of `shadow_len` descriptors ([`crate::platform::HwQueue::len`]), with the
    /// bounce buffers that `bounce` has, at most one per descriptor. `None` when out of memory.
    /// Sleeps.
    pub fn new(shadow_len: u16, bounce: &P::Bounce) -> Option<Self> {
        Some(Self {
            state: State::Off,
            ring: None,
            shadow: ShadowRing::new(shadow_len)?,
            slots: P::Alloc::filled(usize::from(shadow_len), |_| Slot::default())?,
            bounce: Slots::new(0, shadow_len, bounce)?,
            scratch: P::Alloc::filled(buffer::SCRATCH_BYTES, |_| 0)?,
            sizes: BufferSizes::new(RxLayout {
                packet_bytes: 1024,
                header_bytes: 0,
            })
            .ok()?,
            max_frame_bytes: 0,
            hide_vlan: false,
            pending: None,
            partial: None,
            cut: false,
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

    /// Head as the guest may read it: all descriptors before it are written back.
    pub const fn head(&self) -> RingIndex {
        self.head
    }

    /// Whether the NIC holds buffers of this queue.
    pub const fn in_flight(&self) -> bool {
        !self.shadow.is_empty()
    }

    /// Whether the NIC has so many buffers that a new `tail` can wait for the next poll: three quarters
    /// of what the smaller of the two rings holds. A packet that uses one up brings that poll about. A
    /// tail that breaks a rule does not wait.
    pub fn is_well_supplied(&self, tail: u32) -> bool {
        self.ring.as_ref().is_some_and(|ring| {
            let size = ring.size();
            size.tail(tail).is_ok()
                && self.shadow.used() >= size.get().min(self.shadow.len()) / 4 * 3
        })
    }

    /// Guest descriptors copied that are neither posted nor given up.
    pub const fn held(&self) -> u16 {
        self.pending.is_some() as u16
    }

    /// Whether the guest ring has a byte in the pages from `first` to `last`, both included.
    pub fn touches(&self, first: GuestPage, last: GuestPage) -> bool {
        self.ring.as_ref().is_some_and(|r| r.touches(first, last))
    }

    /// Takes in host buffers that `bounce` has got since.
    pub fn grow(&mut self, bounce: &P::Bounce) {
        self.bounce.grow(bounce);
    }

    /// Pins the guest ring and starts the queue, both empty.
    ///
    /// Rings of one slice must not share bytes: the caller asks [`RingConfig::overlaps`].
    pub fn enable<M: Mapper<P::Pinner>>(
        &mut self,
        io: &mut Io<'_, P, M>,
        config: RxConfig,
    ) -> Result<(), EnableError> {
        if self.state != State::Off {
            return Err(EnableError::Running);
        }
        let ring = GuestRing::open(config.ring, io.pinner).inspect_err(|r| io.stats.reject(*r))?;
        if let Err(error) = self.shadow.start(io.queue, config.sizes.layout()) {
            ring.close(io.pinner);
            return Err(EnableError::Hw(error));
        }
        self.ring = Some(ring);
        self.sizes = config.sizes;
        self.max_frame_bytes = config.max_frame_bytes;
        self.hide_vlan = config.hide_vlan;
        self.pending = None;
        self.partial = None;
        self.cut = false;
        self.next = RingIndex::ZERO;
        self.head = RingIndex::ZERO;
        self.state = State::Running;
        Ok(())
    }

    /// Hands received packets to the guest; then takes empty buffers up to `tail`, at most `budget`
    /// of them. `tail` is what the guest wrote, unchecked.
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
                self.pending = None;
                self.state = State::Faulted(fault);
                progress.fault = Some(fault);
            }
            io.stats.rx.doorbells += u64::from(self.shadow.flush(io.queue));
        }
        progress
    }

    /// Takes empty buffers and posts them.
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
        let tail = size.tail(tail).map_err(|rejection| {
            io.stats.rx.faulted += u64::from(self.pending.is_some());
            fault(rejection, self.next, u64::from(tail))
        })?;
        loop {
            if let Some((wanted, index)) = self.pending {
                if self.shadow.free() == 0 {
                    progress.busy = true;
                    break;
                }
                let mapped =
                    Mapped::new(wanted, self.sizes, self.max_frame_bytes, io.pinner, io.map);
                let mut mapped = match mapped {
                    Ok(mapped) => mapped,
                    Err(MapFault::Busy) => {
                        progress.busy = true;
                        break;
                    }
                    Err(MapFault::Refused(rejection, addr)) => {
                        io.stats.rx.faulted += 1;
                        return Err(fault(rejection, index, addr.raw()));
                    }
                };
                if !mapped.is_direct() {
                    let needed =
                        u32::from(self.sizes.packet_bytes()) + u32::from(self.sizes.header_bytes());
                    if self.bounce.usable() == 0 || needed > io.bounce.slot_bytes() {
                        mapped.cancel(io.pinner, io.map);
                        io.stats.rx.faulted += 1;
                        let rejection = if io.map.copies() {
                            Rejection::CopyTooLarge
                        } else {
                            Rejection::RxScattered
                        };
                        return Err(fault(rejection, index, wanted.packet.raw()));
                    }
                    let slot = self.bounce.take();
                    if !slot.is_some_and(|slot| mapped.bounce_through(slot, io.bounce)) {
                        mapped.cancel(io.pinner, io.map);
                        progress.busy = true;
                        break;
                    }
                }
                mapped.post(io.queue, &mut self.shadow, &mut self.slots, index);
                io.stats.rx.posted += 1;
                progress.posted += 1;
                self.pending = None;
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
            io.stats.rx.taken += 1;
            self.next = size.next(index);
            if core::mem::take(&mut self.cut) {
                ring.store(index, RxWriteBack::LOST.emit());
                self.head = self.next;
                io.stats.rx.errors += 1;
                io.stats.rx.dropped += 1;
                progress.notify = true;
                continue;
            }
            let word = raw.command_word();
            let parsed = RxBuffer::parse(raw, self.sizes).map_err(|rejection| {
                io.stats.rx.faulted += 1;
                fault(rejection, index, word)
            })?;
            self.pending = Some((parsed, index));
        }
        io.stats.rx.busy += u64::from(progress.busy);
        Ok(())
    }

    /// Hands what was written back to the guest, in order.
    fn reap<M: Mapper<P::Pinner>>(&mut self, io: &mut Io<'_, P, M>, progress: &mut Progress) {
        while let Some((words, proof)) = self.shadow.written_back(io.queue, 0, is_done) {
            let mut back = RxWriteBack::parse(words, self.sizes);
            let tag = if back.is_tagged() { VLAN_BYTES } else { 0 };
            if self.hide_vlan {
                back.hide_tag();
            }
            if self.partial.is_some() {
                // Only a packet's first buffer has a header (82576 datasheet 7.1.10).
                back.header_len = 0;
                back.split = false;
            }
            if let Some(slot) = self.slots.get_mut(usize::from(self.shadow.head())) {
                if slot.bounced() {
                    let scratch = &mut self.scratch;
                    let bytes = slot.copy_out(&mut back, self.sizes, io.bounce, io.map, scratch);
                    io.stats.rx.bounced += 1;
                    io.stats.rx.copied_bytes += bytes;
                }
                let first = self.partial.is_none();
                if first && slot.starts_with_multicast(&back, self.sizes, io.bounce, io.map) {
                    io.stats.rx.multicast += 1;
                }
                if let Some(ring) = &self.ring {
                    ring.store(slot.index(), back.emit());
                    self.head = ring.size().next(slot.index());
                }
            }
            self.retire(io, proof.at_rest());
            let bytes = self.partial.unwrap_or(0).saturating_add(back.bytes());
            self.partial = (!back.is_end()).then_some(bytes);
            if back.is_end() {
                if back.is_damaged() {
                    io.stats.rx.errors += 1;
                } else {
                    io.stats.rx.packets += 1;
                    io.stats.rx.bytes += u64::from(bytes) + u64::from(FCS_BYTES + tag);
                }
            }
            io.stats.rx.completed += 1;
            progress.completed += 1;
            progress.notify = true;
        }
    }

    /// Gives back the pages and the bounce buffer of the oldest slot.
    fn retire<M: Mapper<P::Pinner>>(&mut self, io: &mut Io<'_, P, M>, proof: AtRest<'_>) {
        if let Some(slot) = self.slots.get_mut(usize::from(self.shadow.head())) {
            if let Some(number) = slot.take_bounce() {
                self.bounce.give(number);
            }
            for page in slot.take_pages() {
                io.map.release(io.pinner, page, proof);
            }
        }
        self.shadow.retire(1);
    }

    /// Stops the queue: hands over what is complete, gives up the rest, and lets go of the guest
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
        let stopped = self.halt(io, &mut progress);
        self.close(io);
        stopped.map(|_| progress)
    }

    /// Stops the queue and starts it again where it was. Afterwards no page is in use by this
    /// queue, and none of its buffers is known to the NIC; the next poll posts them anew, from what
    /// the guest ring then says.
    ///
    /// Packets that arrive meanwhile are lost, as if the link had failed. Of one that was lost in
    /// part the guest gets an end that is marked as damaged. On an error the queue is off, as
    /// after [`Self::stop`].
    pub fn restart<M: Mapper<P::Pinner>>(
        &mut self,
        io: &mut Io<'_, P, M>,
    ) -> Result<Progress, HwError> {
        let mut progress = Progress::default();
        if self.state == State::Off {
            return Ok(progress);
        }
        let halted = self.halt(io, &mut progress).and_then(|oldest| {
            self.shadow.start(io.queue, self.sizes.layout())?;
            Ok(oldest)
        });
        match halted {
            Ok(oldest) => {
                self.next = oldest.unwrap_or(self.next);
                Ok(progress)
            }
            Err(error) => {
                self.close(io);
                Err(error)
            }
        }
    }

    /// Stops the NIC's queue; hands over what is complete and gives up the rest. Returns the guest
    /// descriptor of the oldest buffer that was given up.
    fn halt<M: Mapper<P::Pinner>>(
        &mut self,
        io: &mut Io<'_, P, M>,
        progress: &mut Progress,
    ) -> Result<Option<RingIndex>, HwError> {
        let stopped = self.shadow.stop(io.queue);
        self.reap(io, progress);
        let mut oldest = None;
        while !self.shadow.is_empty() {
            io.stats.rx.abandoned += 1;
            let slot = self.slots.get(usize::from(self.shadow.head()));
            oldest = oldest.or(slot.map(Slot::index));
            match &stopped {
                Ok(quiesced) => self.retire(io, quiesced.at_rest()),
                Err(_) => self.leak(io),
            }
        }
        if let Some((_, index)) = self.pending.take() {
            io.stats.rx.dropped += 1;
            oldest = oldest.or(Some(index));
        }
        self.cut |= self.partial.take().is_some();
        stopped.map(|_| oldest)
    }

    /// Lets go of the guest ring.
    fn close<M: Mapper<P::Pinner>>(&mut self, io: &mut Io<'_, P, M>) {
        if let Some(ring) = self.ring.take() {
            ring.close(io.pinner);
        }
        self.state = State::Off;
    }

    /// Gives up the pages and the bounce buffer of the oldest slot without proof.
    fn leak<M: Mapper<P::Pinner>>(&mut self, io: &mut Io<'_, P, M>) {
        if let Some(slot) = self.slots.get_mut(usize::from(self.shadow.head())) {
            if slot.take_bounce().is_some() {
                self.bounce.lose();
            }
            for page in slot.take_pages() {
                io.map.leak(io.pinner, page);
            }
        }
        self.shadow.retire(1);
    }
}
