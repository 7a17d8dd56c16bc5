// SPDX-License-Identifier: GPL-2.0

//! A packet as a copy in host memory, which the guest can no longer change.

use super::mapped::{
    MapFault,
    Piece,
    MAX_PIECE_BYTES, //
};
use crate::addr::{
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
    PinnedPage,
    Platform, //
};

/// Host buffers for packets.
pub(super) struct Host<A: Alloc> {
    pub(super) slots: Slots<A>,
    /// Bytes between the guest's page and the host's buffer.
    scratch: A::Buf<u8>,
}

impl<A: Alloc> Host<A> {
    /// Room for `max` buffers; there are none yet. `None` when out of memory. Sleeps.
    pub(super) fn new<B: Bounce>(max: u16, bounce: &B) -> Option<Self> {
        Some(Self {
            slots: Slots::new(max, bounce)?,
            scratch: A::filled(PAGE_SIZE as usize, |_| 0)?,
        })
    }
}

/// Copies a packet into `pieces`, one host buffer each; `used` tells how many hold one, also on an
/// error. `room`: free slots of the shadow ring. No guest page stays acquired.
pub(super) fn fill<P: Platform, M: Mapper<P::Pinner>>(
    checked: Checked<'_>,
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
    for segment in checked.segments() {
        let mut addr = segment.addr;
        let mut left = segment.len;
        if addr
            .checked_add(u64::from(left.saturating_sub(1)))
            .is_none()
        {
            return Err(MapFault::Refused(Rejection::AddressWraps, addr));
        }
        while left != 0 {
            let last = used.checked_sub(1).and_then(|i| pieces.get(i));
            if last.is_none_or(|piece| piece.len() >= slot_bytes) {
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
            let Some(piece) = piece else {
                return Err(too_large);
            };
            let offset = addr.page_offset();
            let len = left
                .min(PAGE_SIZE as u16 - offset)
                .min(slot_bytes - piece.len());
            let page = match io.map.acquire(io.pinner, addr.page(), Access::Read) {
                Ok(page) => page,
                Err(MapError::Busy) => return Err(MapFault::Busy),
                Err(MapError::Refused(rejection)) => {
                    return Err(MapFault::Refused(rejection, addr));
                }
            };
            // The one read of the packet's bytes (invariant 4).
            if let Some(bytes) = host.scratch.get_mut(..usize::from(len)) {
                if let Some(page) = io.map.acquired(&page) {
                    page.copy_out(offset, bytes);
                }
                piece.append(bytes, io.bounce);
            }
            io.map.cancel(io.pinner, page);
            left -= len;
            // At the very top of the address space the last step leaves it, with nothing left.
            addr = GuestAddr::new(addr.raw().wrapping_add(u64::from(len)));
        }
    }
    Ok(())
}
