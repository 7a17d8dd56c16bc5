// SPDX-License-Identifier: GPL-2.0

//! One receive buffer: [`RxBuffer`] → [`Mapped`] → [`Slot`].

use crate::addr::{
    BusAddr,
    BusPage,
    GuestAddr,
    PAGE_SIZE, //
};
use crate::check::Rejection;
use crate::desc::rx::{
    BufferSizes,
    HwRxBuffer,
    RxBuffer,
    RxWriteBack, //
};
use crate::map::{
    InFlight,
    MapError,
    MapRef,
    Mapper, //
};
use crate::platform::{
    Access,
    Bounce,
    HwQueue,
    Pinner, //
};
use crate::ring::{
    RingIndex,
    ShadowRing, //
};

/// Bytes copied at a time.
pub(super) const SCRATCH_BYTES: usize = 1024;
/// Pages that a packet buffer of 16 KiB can touch.
const PACKET_PAGES: usize = 5;
/// Pages that a header buffer can touch.
const HEADER_PAGES: usize = 2;

/// Why a buffer could not be mapped.
pub(super) enum MapFault {
    Busy,
    Refused(Rejection, GuestAddr),
}

/// Pages that together hold a range of bytes.
#[derive(Debug)]
struct Span<Ref, const N: usize> {
    pages: [Option<Ref>; N],
    /// Offset of the first byte in the first page.
    offset: u16,
    /// Bytes from there that lie in the pages.
    len: u16,
}

impl<Ref, const N: usize> Default for Span<Ref, N> {
    fn default() -> Self {
        Self {
            pages: [const { None }; N],
            offset: 0,
            len: 0,
        }
    }
}

impl<const N: usize> Span<MapRef, N> {
    /// Acquires the pages of the `len` bytes at `addr`. The first `required` bytes must be
    /// memory; the span ends early where later ones are not. On an error, what was acquired is
    /// still in the span.
    fn fill<P: Pinner, M: Mapper<P>>(
        &mut self,
        addr: GuestAddr,
        len: u16,
        required: u32,
        pinner: &mut P,
        map: &mut M,
    ) -> Result<(), MapFault> {
        self.offset = addr.page_offset();
        for slot in &mut self.pages {
            if self.len == len {
                break;
            }
            let Some(at) = addr.checked_add(u64::from(self.len)) else {
                if u32::from(self.len) >= required {
                    break;
                }
                return Err(MapFault::Refused(Rejection::AddressWraps, addr));
            };
            match map.acquire(pinner, at.page(), Access::Write) {
                Ok(page) => *slot = Some(page),
                Err(MapError::Busy) => return Err(MapFault::Busy),
                Err(MapError::Refused(Rejection::NotMemory | Rejection::AccessDenied))
                    if u32::from(self.len) >= required =>
                {
                    break;
                }
                Err(MapError::Refused(rejection)) => return Err(MapFault::Refused(rejection, at)),
            }
            let room = PAGE_SIZE as u16 - at.page_offset();
            self.len += room.min(len - self.len);
        }
        Ok(())
    }

    fn cancel<P: Pinner, M: Mapper<P>>(&mut self, pinner: &mut P, map: &mut M) {
        for page in self.pages.iter_mut().filter_map(Option::take) {
            map.cancel(pinner, page);
        }
    }

    /// Where the NIC finds the bytes, if they are contiguous and mapped for it.
    fn bus(&self) -> Option<BusAddr> {
        let mut last: Option<BusPage> = None;
        for page in self.pages.iter().flatten() {
            let bus = page.bus()?;
            if last.is_some_and(|last| !last.is_followed_by(bus)) {
                return None;
            }
            last = Some(bus);
        }
        Some(self.pages.first()?.as_ref()?.bus()?.at(self.offset))
    }

    fn posted(self) -> Span<InFlight, N> {
        Span {
            pages: self.pages.map(|page| page.map(MapRef::posted)),
            offset: self.offset,
            len: self.len,
        }
    }
}

impl<const N: usize> Span<InFlight, N> {
    /// Writes `bytes` at `at` bytes from the start. What lies outside the span is dropped.
    fn copy_in<P: Pinner, M: Mapper<P>>(&self, map: &M, at: u16, mut bytes: &[u8]) {
        let left = usize::from(self.len.saturating_sub(at));
        bytes = bytes.get(..left).unwrap_or(bytes);
        let mut place = usize::from(self.offset) + usize::from(at);
        while !bytes.is_empty() {
            let (index, offset) = (place / PAGE_SIZE as usize, place % PAGE_SIZE as usize);
            let len = bytes.len().min(PAGE_SIZE as usize - offset);
            let Some((now, later)) = bytes.split_at_checked(len) else {
                return;
            };
            let page = self.pages.get(index).and_then(Option::as_ref);
            if let Some(page) = page.and_then(|page| map.page(page)) {
                page.copy_in(offset as u16, now);
            }
            place += len;
            bytes = later;
        }
    }

    /// Reads the first bytes. Those outside the span are left.
    fn copy_out<P: Pinner, M: Mapper<P>>(&self, map: &M, mut bytes: &mut [u8]) {
        let mut offset = self.offset;
        for page in self.pages.iter().flatten() {
            let len = bytes.len().min(usize::from(PAGE_SIZE as u16 - offset));
            let Some((now, later)) = bytes.split_at_mut_checked(len) else {
                return;
            };
            if let Some(page) = map.page(page) {
                page.copy_out(offset, now);
            }
            offset = 0;
            bytes = later;
        }
    }
}

/// A buffer whose every byte lies in pages acquired for it, or goes through a bounce buffer: the
/// only thing that is written to the shadow ring (invariant 2).
#[must_use]
pub(super) struct Mapped {
    packet: Span<MapRef, PACKET_PAGES>,
    header: Span<MapRef, HEADER_PAGES>,
    bounce: Option<u16>,
    /// `None` while a bounce buffer is wanting.
    hw: Option<HwRxBuffer>,
}

impl Mapped {
    /// Maps a buffer for writing. On an error nothing stays acquired.
    pub(super) fn new<P: Pinner, M: Mapper<P>>(
        wanted: RxBuffer,
        sizes: BufferSizes,
        max_frame_bytes: u32,
        pinner: &mut P,
        map: &mut M,
    ) -> Result<Self, MapFault> {
        let mut mapped = Self {
            packet: Span::default(),
            header: Span::default(),
            bounce: None,
            hw: None,
        };
        let (packet_len, header_len) = (sizes.packet_bytes(), sizes.header_bytes());
        let mut result =
            mapped
                .packet
                .fill(wanted.packet, packet_len, max_frame_bytes, pinner, map);
        if let (Ok(()), Some(addr)) = (&result, wanted.header) {
            result = mapped
                .header
                .fill(addr, header_len, u32::from(header_len), pinner, map);
        }
        if let Err(fault) = result {
            mapped.cancel(pinner, map);
            return Err(fault);
        }
        if mapped.packet.len == packet_len {
            mapped.hw = match (mapped.packet.bus(), wanted.header, mapped.header.bus()) {
                (Some(packet), None, _) => Some(HwRxBuffer {
                    packet,
                    header: None,
                }),
                (Some(packet), Some(_), Some(header)) => Some(HwRxBuffer {
                    packet,
                    header: Some(header),
                }),
                _ => None,
            };
        }
        Ok(mapped)
    }

    /// Whether the NIC can write into the guest's pages.
    pub(super) const fn is_direct(&self) -> bool {
        self.hw.is_some()
    }

    /// Lets the NIC write into bounce buffer `slot`: header first, if any, then the packet.
    /// `false` if there is no such buffer. The caller has seen that it is large enough.
    pub(super) fn bounce_through<B: Bounce>(&mut self, slot: u16, bounce: &B) -> bool {
        let Some(bus) = bounce.bus(slot) else {
            return false;
        };
        // A header buffer is shorter than a page, so the packet starts in the first one.
        let split = self.header.len != 0;
        self.hw = Some(HwRxBuffer {
            packet: bus.at(self.header.len),
            header: split.then(|| bus.at(0)),
        });
        self.bounce = Some(slot);
        true
    }

    /// Gives all pages back.
    pub(super) fn cancel<P: Pinner, M: Mapper<P>>(mut self, pinner: &mut P, map: &mut M) {
        self.packet.cancel(pinner, map);
        self.header.cancel(pinner, map);
    }

    /// Writes the buffer to the shadow ring, where the caller has seen a free slot.
    pub(super) fn post<Q: HwQueue>(
        self,
        queue: &mut Q,
        shadow: &mut ShadowRing,
        slots: &mut [Slot],
        index: RingIndex,
    ) {
        let Some(hw) = self.hw else {
            return;
        };
        if let Some(slot) = slots.get_mut(usize::from(shadow.tail())) {
            *slot = Slot {
                packet: self.packet.posted(),
                header: self.header.posted(),
                bounce: self.bounce,
                index,
            };
        }
        shadow.push(queue, hw.emit());
    }
}

/// What we know of a shadow slot.
#[derive(Debug, Default)]
pub(super) struct Slot {
    packet: Span<InFlight, PACKET_PAGES>,
    header: Span<InFlight, HEADER_PAGES>,
    bounce: Option<u16>,
    index: RingIndex,
}

impl Slot {
    /// The guest descriptor that posted the buffer.
    pub(super) const fn index(&self) -> RingIndex {
        self.index
    }

    /// Whether the packet is to be copied.
    pub(super) const fn bounced(&self) -> bool {
        self.bounce.is_some()
    }

    /// The slot's bounce buffer.
    pub(super) fn take_bounce(&mut self) -> Option<u16> {
        self.bounce.take()
    }

    /// The slot's pages.
    pub(super) fn take_pages(&mut self) -> impl Iterator<Item = InFlight> + '_ {
        let packet = self.packet.pages.iter_mut();
        packet
            .chain(&mut self.header.pages)
            .filter_map(Option::take)
    }

    /// Copies what the NIC wrote from the bounce buffer to the guest's pages. A packet that is
    /// longer than the memory behind the buffer is cut and marked as damaged. Returns how many
    /// bytes were copied.
    pub(super) fn copy_out<P: Pinner, M: Mapper<P>, B: Bounce>(
        &self,
        back: &mut RxWriteBack,
        sizes: BufferSizes,
        bounce: &B,
        map: &M,
        scratch: &mut [u8],
    ) -> u64 {
        let Some(slot) = self.bounce else {
            return 0;
        };
        if back.len > self.packet.len {
            back.len = self.packet.len;
            back.status |= RxWriteBack::ERROR;
        }
        let step = scratch.len().min(SCRATCH_BYTES) as u16;
        let (header_len, from) = (back.header_len.min(self.header.len), sizes.header_bytes());
        for (len, from, header) in [(header_len, 0, true), (back.len, from, false)] {
            let mut done = 0;
            while done < len && step != 0 {
                let now = step.min(len - done);
                let Some(bytes) = scratch.get_mut(..usize::from(now)) else {
                    break;
                };
                bounce.copy_out(slot, from + done, bytes);
                if header {
                    self.header.copy_in(map, done, bytes);
                } else {
                    self.packet.copy_in(map, done, bytes);
                }
                done += now;
            }
        }
        u64::from(header_len) + u64::from(back.len)
    }

    /// Whether the packet that starts here went to a multicast address other than broadcast. For
    /// statistics: the guest may have changed the bytes by now.
    pub(super) fn starts_with_multicast<P: Pinner, M: Mapper<P>, B: Bounce>(
        &self,
        back: &RxWriteBack,
        sizes: BufferSizes,
        bounce: &B,
        map: &M,
    ) -> bool {
        let mut mac = [0; 6];
        let in_header = back.header_len != 0;
        match self.bounce {
            Some(slot) => {
                let from = if in_header { 0 } else { sizes.header_bytes() };
                bounce.copy_out(slot, from, &mut mac);
            }
            None if in_header => self.header.copy_out(map, &mut mac),
            None => self.packet.copy_out(map, &mut mac),
        }
        mac[0] & 1 != 0 && mac != [0xff; 6]
    }
}
