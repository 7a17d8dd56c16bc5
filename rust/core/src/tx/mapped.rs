// SPDX-License-Identifier: GPL-2.0

//! From a checked packet to hardware descriptors: [`Checked`] → [`Mapped`] → shadow ring.

use super::host::{
    self,
    Host, //
};
use crate::addr::{
    BusAddr,
    BusPage,
    GuestAddr,
    PAGE_SIZE, //
};
use crate::check::Rejection;
use crate::desc::tx::{
    HwTxData,
    TxContext, //
};
use crate::frame::{
    Checked,
    Plan,
    Segment, //
};
use crate::map::{
    InFlight,
    MapError,
    MapRef,
    Mapper, //
};
use crate::path::Io;
use crate::platform::{
    Access,
    Alloc,
    Bounce,
    HwQueue,
    Pinner,
    Platform, //
};
use crate::ring::{
    RingIndex,
    ShadowRing, //
};
use crate::source::SourceRules;

/// Most bus-contiguous pieces, and so hardware data descriptors, in a packet. Linux's worst case
/// is 18 segments of 64 KiB in all that start and end anywhere: 16 + 2 * 18.
pub const MAX_PIECES: usize = 64;
/// Most pages behind one hardware descriptor.
const PIECE_PAGES: usize = 4;
/// Longest piece in bytes: below the 16 KiB that igb gives a descriptor at most, with room.
pub(super) const MAX_PIECE_BYTES: u32 = 15 * 1024 + 512;

/// Bytes that are contiguous on the bus: in pages acquired for them, or copied to a host buffer.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pages: [Option<MapRef>; PIECE_PAGES],
    /// The host buffer.
    host: Option<u16>,
    /// The header buffer.
    header: Option<u16>,
    /// Where the NIC finds the first byte; `None` in an unused piece.
    start: Option<BusAddr>,
    len: u16,
}

impl Piece {
    /// Makes an unused piece `len` bytes at `offset` of `page`, which is at `bus`.
    fn set_direct(&mut self, page: MapRef, bus: BusPage, offset: u16, len: u16) {
        self.pages[0] = Some(page);
        self.start = Some(bus.at(offset));
        self.len = len;
    }

    /// Makes an unused piece `len` bytes in header buffer `number`, which is at `at`.
    pub(super) fn set_header(&mut self, number: u16, at: BusAddr, len: u16) {
        self.header = Some(number);
        self.start = Some(at);
        self.len = len;
    }

    /// Makes an unused piece host buffer `number`, which is at `bus`, with nothing in it.
    pub(super) fn set_copied(&mut self, number: u16, bus: BusPage) {
        self.host = Some(number);
        self.start = Some(bus.at(0));
        self.len = 0;
    }

    pub(super) const fn len(&self) -> u16 {
        self.len
    }

    /// Adds `bytes` to those in the host buffer; the caller has seen that they fit.
    pub(super) fn append<B: Bounce>(&mut self, bytes: &[u8], bounce: &mut B) {
        if let Some(number) = self.host {
            bounce.copy_in(number, self.len, bytes);
            self.len += bytes.len() as u16;
        }
    }

    /// Adds the `len` bytes at `at`, in `page`, if they follow on the bus and fit. Gives the page
    /// back if not.
    fn extend(&mut self, page: MapRef, at: BusAddr, len: u16) -> Result<(), MapRef> {
        let end = self
            .start
            .filter(|_| self.header.is_none())
            .and_then(|start| start.raw().checked_add(u64::from(self.len)));
        let fits = u32::from(self.len) + u32::from(len) <= MAX_PIECE_BYTES;
        if !fits || end != Some(at.raw()) {
            return Err(page);
        }
        match self.pages.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(page),
            None => return Err(page),
        }
        self.len += len;
        Ok(())
    }
}

/// A packet in flight, noted at its first slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    /// Hardware descriptors, with the context.
    pub(super) descs: u16,
    pub(super) plan: Plan,
    /// Guest's last descriptor of the frames right after this one that were not sent.
    pub(super) dropped: Option<RingIndex>,
}

/// What we know of a shadow slot.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) pages: [Option<InFlight>; PIECE_PAGES],
    /// The host buffer.
    pub(super) host: Option<u16>,
    /// The header buffer.
    pub(super) header: Option<u16>,
    pub(super) packet: Option<Packet>,
}

/// Why a packet could not be mapped.
pub(super) enum MapFault {
    Busy,
    Refused(Rejection, GuestAddr),
    /// It is not to be sent; the queue goes on.
    Filtered(Rejection),
}

/// A packet's bytes in order, in pieces that each lie in one page.
pub(super) struct Walk<'a> {
    segments: core::slice::Iter<'a, Segment>,
    addr: GuestAddr,
    left: u16,
}

impl<'a> Walk<'a> {
    pub(super) fn new(segments: &'a [Segment]) -> Self {
        Self {
            segments: segments.iter(),
            addr: GuestAddr::new(0),
            left: 0,
        }
    }

    /// The next bytes, `most` at most, which is not zero; `None` at the end.
    pub(super) fn next(&mut self, most: u16) -> Result<Option<(GuestAddr, u16)>, MapFault> {
        if self.left == 0 {
            let Some(segment) = self.segments.next() else {
                return Ok(None);
            };
            let reach = u64::from(segment.len.saturating_sub(1));
            if segment.addr.checked_add(reach).is_none() {
                return Err(MapFault::Refused(Rejection::AddressWraps, segment.addr));
            }
            self.addr = segment.addr;
            self.left = segment.len;
        }
        let addr = self.addr;
        let len = self
            .left
            .min(most)
            .min(PAGE_SIZE as u16 - addr.page_offset());
        self.left -= len;
        // At the very top of the address space the last step leaves it, with nothing left.
        self.addr = GuestAddr::new(addr.raw().wrapping_add(u64::from(len)));
        Ok(Some((addr, len)))
    }
}

/// A packet whose every byte lies in pages acquired for it: the only thing that is written to
/// the shadow ring (invariant 2).
#[must_use]
pub(super) struct Mapped<'a> {
    pieces: &'a mut [Piece],
    plan: Plan,
}

impl<'a> Mapped<'a> {
    /// Maps a packet: cuts each segment at page borders and joins what is contiguous on the bus; or
    /// copies it to host buffers, where the strategy says so. With `rules`, its first bytes are checked,
    /// and sent, as a copy (invariant 9). `room`: free slots of the shadow ring. On an error nothing
    /// stays acquired.
    pub(super) fn new<P: Platform, M: Mapper<P::Pinner>>(
        checked: Checked<'_>,
        rules: Option<&SourceRules>,
        pieces: &'a mut [Piece],
        room: u16,
        host: &mut Host<P::Alloc>,
        io: &mut Io<'_, P, M>,
    ) -> Result<Self, MapFault> {
        let mut used = 0;
        let copies = io.map.copies();
        let result = if copies {
            host::packet(&checked, rules, pieces, &mut used, room, host, io)
        } else {
            fill(&checked, rules, pieces, &mut used, host, io)
        };
        let mapped = Self {
            pieces: pieces.get_mut(..used).unwrap_or_default(),
            plan: checked.plan(),
        };
        match result {
            Ok(()) => {
                if copies {
                    io.stats.tx.bounced += 1;
                    io.stats.tx.copied_bytes += u64::from(checked.len());
                }
                Ok(mapped)
            }
            Err(fault) => {
                mapped.cancel(host, io.pinner, io.map);
                Err(fault)
            }
        }
    }

    /// Gives all pages and host buffers back.
    pub(super) fn cancel<P: Pinner, M: Mapper<P>, A: Alloc>(
        self,
        host: &mut Host<A>,
        pinner: &mut P,
        map: &mut M,
    ) {
        for piece in self.pieces {
            for page in piece.pages.iter_mut().filter_map(Option::take) {
                map.cancel(pinner, page);
            }
            if let Some(number) = piece.host.take() {
                host.slots.give(number);
            }
            if let Some(number) = piece.header.take() {
                host.headers.give(number);
            }
        }
    }

    /// The context to emit before the packet, if the NIC, which holds `emitted`, needs one.
    fn context(&self, emitted: Option<&TxContext>) -> Option<TxContext> {
        self.plan.context.filter(|c| emitted != Some(c))
    }

    /// Shadow slots that the packet needs.
    pub(super) fn descs(&self, emitted: Option<&TxContext>) -> u16 {
        self.pieces.len() as u16 + u16::from(self.context(emitted).is_some())
    }

    /// Writes the packet to the shadow ring, where the caller has seen [`Self::descs`] free slots.
    pub(super) fn post<Q: HwQueue>(
        self,
        queue: &mut Q,
        shadow: &mut ShadowRing,
        slots: &mut [Slot],
        emitted: &mut Option<TxContext>,
    ) {
        let packet = Packet {
            descs: self.descs(emitted.as_ref()),
            plan: self.plan,
            dropped: None,
        };
        if let Some(slot) = slots.get_mut(usize::from(shadow.tail())) {
            slot.packet = Some(packet);
        }
        if let Some(context) = self.context(emitted.as_ref()) {
            shadow.push(queue, context.emit());
            *emitted = Some(context);
        }
        let last = self.pieces.len().saturating_sub(1);
        for (i, piece) in self.pieces.iter_mut().enumerate() {
            let Some(addr) = piece.start.take() else {
                continue;
            };
            let data = HwTxData {
                addr,
                len: piece.len,
                last: i == last,
                offload: self.plan.offload,
                payload_len: self.plan.payload_len,
            };
            if let Some(slot) = slots.get_mut(usize::from(shadow.tail())) {
                for (to, from) in slot.pages.iter_mut().zip(&mut piece.pages) {
                    *to = from.take().map(MapRef::posted);
                }
                slot.host = piece.host.take();
                slot.header = piece.header.take();
            }
            shadow.push(queue, data.emit());
        }
    }
}

/// Fills `pieces`; `used` tells how many hold pages or buffers, also on an error.
fn fill<P: Platform, M: Mapper<P::Pinner>>(
    checked: &Checked<'_>,
    rules: Option<&SourceRules>,
    pieces: &mut [Piece],
    used: &mut usize,
    host: &mut Host<P::Alloc>,
    io: &mut Io<'_, P, M>,
) -> Result<(), MapFault> {
    let mut walk = Walk::new(checked.segments());
    if let (Some(rules), Some(first)) = (rules, pieces.first_mut()) {
        host::header(checked, rules, &mut walk, first, host, io)?;
        *used = 1;
    }
    while let Some((addr, len)) = walk.next(u16::MAX)? {
        let offset = addr.page_offset();
        let page = match io.map.acquire(io.pinner, addr.page(), Access::Read) {
            Ok(page) => page,
            Err(MapError::Busy) => return Err(MapFault::Busy),
            Err(MapError::Refused(rejection)) => return Err(MapFault::Refused(rejection, addr)),
        };
        let Some(bus) = page.bus() else {
            // Not met: the caller asked whether pages are for the NIC.
            io.map.cancel(io.pinner, page);
            return Err(MapFault::Refused(Rejection::PinFailed, addr));
        };
        let joined = match used.checked_sub(1).and_then(|i| pieces.get_mut(i)) {
            Some(piece) => piece.extend(page, bus.at(offset), len),
            None => Err(page),
        };
        if let Err(page) = joined {
            let Some(piece) = pieces.get_mut(*used) else {
                io.map.cancel(io.pinner, page);
                return Err(MapFault::Refused(Rejection::TooManyPieces, addr));
            };
            piece.set_direct(page, bus, offset, len);
            *used += 1;
        }
    }
    Ok(())
}
