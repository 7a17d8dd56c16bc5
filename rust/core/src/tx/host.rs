// SPDX-License-Identifier: GPL-2.0

//! A packet's first bytes, or all of them, as a copy in host memory, which the guest can no longer
//! change.

use super::mapped::{
    MapFault,
    Piece,
    Walk,
    MAX_PIECE_BYTES, //
};
use crate::addr::{
    BusAddr,
    GuestAddr,
    PAGE_SIZE, //
};
use crate::bounce::Slots;
use crate::check::Rejection;
use crate::frame::Checked;
use crate::map::{
    MapError,
    Mapper, //
};
use crate::path::Io;
use crate::platform::{
    Access,
    Alloc,
    Bounce,
    Platform, //
};
use crate::source::{
    SourceRules,
    HEAD_BYTES, //
};

/// Bytes for one packet's beginning: a TSO header, or a whole short packet.
const HEADER_BYTES: u16 = 256;
const HEADERS_PER_PAGE: u16 = PAGE_SIZE as u16 / HEADER_BYTES;
/// Bytes that are copied of a packet that is neither. What is left is longer still.
const LONG_PACKET_BYTES: u16 = 64;

/// Host buffers of a transmit queue: first pages of headers, then one for each piece of a copy.
pub(super) struct Host<A: Alloc> {
    pub(super) headers: Slots<A>,
    pub(super) slots: Slots<A>,
    /// Bytes between the guest's page and the host's buffer.
    scratch: A::Buf<u8>,
}

/// Host pages that hold a header for each of `count` packets.
pub(super) const fn header_pages(count: u16) -> u16 {
    count.div_ceil(HEADERS_PER_PAGE)
}

impl<A: Alloc> Host<A> {
    /// For a queue of `count` descriptors. `None` when out of memory. Sleeps.
    pub(super) fn new<B: Bounce>(count: u16, bounce: &B) -> Option<Self> {
        Some(Self {
            headers: Slots::all(count)?,
            slots: Slots::new(header_pages(count), count, bounce)?,
            scratch: A::filled(PAGE_SIZE as usize, |_| 0)?,
        })
    }
}

/// Where header `number` is.
fn header_at<B: Bounce>(number: u16, bounce: &B) -> Option<(u16, u16, BusAddr)> {
    let (page, offset) = (
        number / HEADERS_PER_PAGE,
        number % HEADERS_PER_PAGE * HEADER_BYTES,
    );
    Some((page, offset, bounce.bus(page)?.at(offset)))
}

/// Whether the rules allow the packet, of which `bytes` are the first, or all.
fn judge(checked: &Checked<'_>, rules: &SourceRules, bytes: &[u8]) -> Result<(), MapFault> {
    let mut head = [0; HEAD_BYTES];
    for (to, from) in head.iter_mut().zip(bytes) {
        *to = *from;
    }
    let plan = checked.plan();
    let context = plan.context.filter(|_| plan.offload.vlan);
    let inserted = context.map(|context| context.vlan_tag);
    rules.check(&head, inserted).map_err(MapFault::Filtered)
}

/// Copies `len` bytes at `addr`, within a page, to `bytes`: the one read of them (invariant 4).
fn fetch<P: Platform, M: Mapper<P::Pinner>>(
    addr: GuestAddr,
    bytes: &mut [u8],
    io: &mut Io<'_, P, M>,
) -> Result<(), MapFault> {
    let page = match io.map.acquire(io.pinner, addr.page(), Access::Read) {
        Ok(page) => page,
        Err(MapError::Busy) => return Err(MapFault::Busy),
        Err(MapError::Refused(rejection)) => return Err(MapFault::Refused(rejection, addr)),
    };
    if let Some(page) = io.map.acquired(&page) {
        page.copy_out(addr.page_offset(), bytes);
    }
    io.map.cancel(io.pinner, page);
    Ok(())
}

/// Copies the first bytes of a packet to a header buffer, and checks them there. Makes `piece`, an
/// unused one, of it, and moves `walk` behind it.
pub(super) fn header<P: Platform, M: Mapper<P::Pinner>>(
    checked: &Checked<'_>,
    rules: &SourceRules,
    walk: &mut Walk<'_>,
    piece: &mut Piece,
    host: &mut Host<P::Alloc>,
    io: &mut Io<'_, P, M>,
) -> Result<(), MapFault> {
    let (len, plan) = (checked.len(), checked.plan());
    let wanted = if len <= u32::from(HEADER_BYTES) {
        len as u16
    } else if plan.offload.tso {
        // The headers of all segments in one piece, as drivers have them.
        (len.saturating_sub(plan.payload_len) as u16).clamp(HEAD_BYTES as u16, HEADER_BYTES)
    } else {
        LONG_PACKET_BYTES
    };
    let mut done = 0;
    while done < wanted {
        let Some((addr, len)) = walk.next(wanted - done)? else {
            break;
        };
        let range = usize::from(done)..usize::from(done + len);
        if let Some(bytes) = host.scratch.get_mut(range) {
            fetch(addr, bytes, io)?;
        }
        done += len;
    }
    let bytes = host.scratch.get(..usize::from(done)).unwrap_or(&[]);
    judge(checked, rules, bytes)?;
    let first = checked.segments().first().map(|segment| segment.addr);
    let none = MapFault::Refused(Rejection::PinFailed, first.unwrap_or(GuestAddr::new(0)));
    let Some(number) = host.headers.take() else {
        // Later, unless the NIC may use them all for ever.
        let lost = host.headers.usable() == 0;
        return Err(if lost { none } else { MapFault::Busy });
    };
    let Some((page, offset, at)) = header_at(number, io.bounce) else {
        host.headers.give(number);
        return Err(none);
    };
    io.bounce.copy_in(page, offset, bytes);
    piece.set_header(number, at, done);
    Ok(())
}

/// Copies a packet into `pieces`, one host buffer each, and checks the copy; `used` tells how many
/// hold one, also on an error. `room`: free slots of the shadow ring. No guest page stays acquired.
pub(super) fn packet<P: Platform, M: Mapper<P::Pinner>>(
    checked: &Checked<'_>,
    rules: Option<&SourceRules>,
    pieces: &mut [Piece],
    used: &mut usize,
    room: u16,
    host: &mut Host<P::Alloc>,
    io: &mut Io<'_, P, M>,
) -> Result<(), MapFault> {
    let slot_bytes = io.bounce.slot_bytes().min(MAX_PIECE_BYTES) as u16;
    let first = checked.segments().first();
    let first = first.map_or(GuestAddr::new(0), |segment| segment.addr);
    let too_large = MapFault::Refused(Rejection::CopyTooLarge, first);
    // A look before the work: with room for all pieces and a context nothing below runs out.
    match checked.len().checked_div(u32::from(slot_bytes)) {
        Some(needed) if needed < u32::from(host.slots.usable()) => {
            let needed = needed + 1;
            if needed > u32::from(host.slots.free()) || needed + 1 > u32::from(room) {
                return Err(MapFault::Busy);
            }
        }
        _ => return Err(too_large),
    }
    let mut walk = Walk::new(checked.segments());
    let mut head = [0; HEAD_BYTES];
    let mut head_free = head.iter_mut();
    loop {
        let last = used.checked_sub(1).and_then(|i| pieces.get(i));
        let space = last.map_or(0, |piece| slot_bytes.saturating_sub(piece.len()));
        let most = if space == 0 { slot_bytes } else { space };
        let Some((addr, len)) = walk.next(most)? else {
            break;
        };
        if space == 0 {
            let number = host.slots.take().ok_or(MapFault::Busy)?;
            match (pieces.get_mut(*used), io.bounce.bus(number)) {
                (Some(piece), Some(bus)) => piece.set_copied(number, bus),
                _ => {
                    host.slots.give(number);
                    return Err(too_large);
                }
            }
            *used += 1;
        }
        let piece = used.checked_sub(1).and_then(|i| pieces.get_mut(i));
        let bytes = host.scratch.get_mut(..usize::from(len));
        if let (Some(piece), Some(bytes)) = (piece, bytes) {
            fetch(addr, bytes, io)?;
            // In this order, for the one that ends first is asked first.
            for (from, to) in bytes.iter().zip(head_free.by_ref()) {
                *to = *from;
            }
            piece.append(bytes, io.bounce);
        }
    }
    match rules {
        Some(rules) => judge(checked, rules, &head),
        None => Ok(()),
    }
}
