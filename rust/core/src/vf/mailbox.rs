// SPDX-License-Identifier: GPL-2.0

//! The mailbox between the guest's driver and its host (datasheet 7.10.2.9).
//!
//! The host's side answers as `igb` does (`igb_rcv_msg_from_vf` and its helpers), so that `igbvf`
//! meets what it knows, with these differences:
//!
//! - a link change never overwrites a reply that the guest has not read yet;
//! - a guest without clearance (CTS) is refused at once rather than once in two seconds;
//! - a RESET is always answered with the administrator's address;
//! - the refusal of a VLAN carries no argument, or `igbvf` would take it for consent;
//! - to ask for what is there already is no offence: the slice's own address, a cleared list;
//! - a request that is refused changes nothing, not even in part;
//! - there may be limits to multicast, and to promiscuous reception of it.

use super::counters::{
    Counters,
    Refusal, //
};
use crate::net::MacAddr;

/// 32-bit words in the message buffer.
pub const WORDS: usize = 16;
/// Most multicast hashes in one message.
pub const MAX_HASHES: u8 = 30;

/// The bits of V2PMAILBOX.
pub mod bits {
    /// The guest submits a message.
    pub const REQ: u32 = 1 << 0;
    /// The guest has read the host's message.
    pub const ACK: u32 = 1 << 1;
    /// The guest owns the buffer.
    pub const VFU: u32 = 1 << 2;
    /// The host owns the buffer.
    pub const PFU: u32 = 1 << 3;
    /// The host has written a message; cleared by reading.
    pub const PFSTS: u32 = 1 << 4;
    /// The host has read the guest's message; cleared by reading.
    pub const PFACK: u32 = 1 << 5;
    /// A reset is in progress.
    pub const RSTI: u32 = 1 << 6;
    /// A reset is complete; cleared by reading.
    pub const RSTD: u32 = 1 << 7;
}

/// The first word of a message.
pub mod message {
    /// Accepted.
    pub const ACK: u32 = 1 << 31;
    /// Refused.
    pub const NACK: u32 = 1 << 30;
    /// The guest may send requests.
    pub const CTS: u32 = 1 << 29;
    /// Where a request's argument starts.
    pub const INFO_SHIFT: u32 = 16;
    /// Reset the filters, ask for the address.
    pub const RESET: u32 = 0x01;
    /// Set the address, or change the list of further addresses.
    pub const SET_MAC: u32 = 0x02;
    /// Replace the multicast hashes.
    pub const SET_MULTICAST: u32 = 0x03;
    /// Add or remove a VLAN.
    pub const SET_VLAN: u32 = 0x04;
    /// Set the longest frame.
    pub const SET_LPE: u32 = 0x05;
    /// Set or clear promiscuous modes.
    pub const SET_PROMISC: u32 = 0x06;
    /// The host speaks unasked: the link changed.
    pub const PF_CONTROL: u32 = 0x0100;
}

use bits::*;
use message::{
    CTS,
    INFO_SHIFT,
    NACK, //
};

/// Hashes of multicast addresses, 12 bits each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hashes {
    len: u8,
    list: [u16; MAX_HASHES as usize],
}

impl Hashes {
    /// The hashes.
    pub fn as_slice(&self) -> &[u16] {
        self.list.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl core::fmt::Debug for Hashes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// What the guest asks of its host. Values out of range are [`Request::Unknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Forget all filters and give me my address.
    Reset,
    /// Receive frames for this address (valid for a station).
    SetMac(MacAddr),
    /// Forget all further unicast addresses.
    ClearMacFilters,
    /// Receive frames for this address too (valid for a station).
    AddMacFilter(MacAddr),
    /// Receive multicast frames with these hashes, and no others.
    SetMulticast(Hashes),
    /// Begin or end to receive frames of a VLAN.
    SetVlan {
        /// VLAN identifier, 12 bits.
        vid: u16,
        /// Begin, or else end.
        on: bool,
    },
    /// Longest frame to receive, with Ethernet header, VLAN tag and FCS, in bytes.
    SetMaxFrame(u16),
    /// Receive all frames of a kind, or else only those that the filters select.
    SetPromisc {
        /// All frames to single stations.
        unicast: bool,
        /// All multicast frames.
        multicast: bool,
    },
    /// None of the above; the first word of the message.
    Unknown(u32),
}

/// Shortest and longest frame that [`Request::SetMaxFrame`] carries: Ethernet's minimum, and the
/// 14 bits of VMOLR.RLPML.
const MAX_FRAME: core::ops::RangeInclusive<u32> = 64..=0x3FFF;

impl Request {
    /// Reads a message.
    pub fn parse(words: &[u32; WORDS]) -> Self {
        let [first, second, third, ..] = *words;
        let info = (first >> INFO_SHIFT) & 0xFF;
        let unknown = Self::Unknown(first);
        // Bits that are neither number nor argument.
        if first >> 24 != 0 {
            return unknown;
        }
        let mac = || {
            let [a, b, c, d] = second.to_le_bytes();
            let [e, f, ..] = third.to_le_bytes();
            Some(MacAddr::new([a, b, c, d, e, f])).filter(|mac| mac.is_valid_station())
        };
        match (first & 0xFFFF, info) {
            (message::RESET, 0) => Self::Reset,
            (message::SET_MAC, 0) => mac().map_or(unknown, Self::SetMac),
            (message::SET_MAC, 1) => Self::ClearMacFilters,
            (message::SET_MAC, 2) => mac().map_or(unknown, Self::AddMacFilter),
            (message::SET_MULTICAST, n) => match u8::try_from(n) {
                Ok(len) if len <= MAX_HASHES => Self::SetMulticast(hashes(words, len)),
                _ => unknown,
            },
            (message::SET_VLAN, on @ (0 | 1)) => Self::SetVlan {
                vid: (second & 0xFFF) as u16,
                on: on == 1,
            },
            (message::SET_LPE, 0) if MAX_FRAME.contains(&second) => {
                Self::SetMaxFrame(second as u16)
            }
            (message::SET_PROMISC, kinds @ 0..=3) => Self::SetPromisc {
                unicast: kinds & 1 != 0,
                multicast: kinds & 2 != 0,
            },
            _ => unknown,
        }
    }
}

/// Two hashes to a word from the second word on, the first in the low half.
fn hashes(words: &[u32; WORDS], len: u8) -> Hashes {
    let mut list = [0; MAX_HASHES as usize];
    let halves = words
        .iter()
        .skip(1)
        .flat_map(|word| [(word & 0xFFF) as u16, ((word >> 16) & 0xFFF) as u16]);
    for (hash, half) in list.iter_mut().zip(halves).take(usize::from(len)) {
        *hash = half;
    }
    Hashes { len, list }
}

/// The host's answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Ack,
    /// Refused.
    Nack,
}

/// What a write to V2PMAILBOX brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A request that the host is to answer.
    pub request: Option<Request>,
    /// Whether the "other" cause is to be raised.
    pub notify: bool,
}

/// The mailbox.
#[derive(Clone, Debug)]
pub struct Mailbox {
    words: [u32; WORDS],
    /// VFU, PFU and the bits that reading clears.
    state: u32,
    /// The guest has sent RESET since the last reset.
    clear_to_send: bool,
    /// The host's last message has not been acknowledged.
    unread: bool,
    /// A link change waits until the buffer is free.
    ping: bool,
}

impl Mailbox {
    /// As after power-on, with the host ready.
    pub const fn new() -> Self {
        Self {
            words: [0; WORDS],
            state: RSTD,
            clear_to_send: false,
            unread: false,
            ping: false,
        }
    }

    /// Forgets everything. `pending` shows RSTI until [`Self::reset_done`].
    pub fn reset(&mut self, pending: bool) {
        *self = Self::new();
        if pending {
            self.state = RSTI;
        }
    }

    /// Shows RSTD in place of RSTI.
    pub fn reset_done(&mut self) {
        if self.resetting() {
            self.state = self.state & !RSTI | RSTD;
        }
    }

    /// Whether a reset is in progress.
    pub const fn resetting(&self) -> bool {
        self.state & RSTI != 0
    }

    /// V2PMAILBOX without the effects of reading it.
    pub const fn peek(&self) -> u32 {
        self.state
    }

    /// Reads V2PMAILBOX: PFSTS, PFACK and RSTD are cleared by it.
    pub fn read(&mut self) -> u32 {
        let value = self.state;
        self.state &= !(PFSTS | PFACK | RSTD);
        value
    }

    /// A word of the buffer.
    pub fn word(&self, index: u8) -> u32 {
        self.words.get(usize::from(index)).copied().unwrap_or(0)
    }

    /// Writes a word of the buffer. Only its owner may.
    pub fn set_word(&mut self, index: u8, value: u32) -> Result<(), Refusal> {
        if self.state & VFU == 0 {
            return Err(Refusal::MailboxNotOwned);
        }
        if let Some(word) = self.words.get_mut(usize::from(index)) {
            *word = value;
        }
        Ok(())
    }

    /// Writes V2PMAILBOX.
    pub fn write(&mut self, value: u32, counters: &mut Counters) -> Outcome {
        let mut outcome = Outcome {
            request: None,
            notify: false,
        };
        let owned = self.state & VFU != 0;
        self.state &= !VFU;
        if self.resetting() {
            if value & (REQ | ACK | VFU) != 0 {
                counters.refuse(Refusal::ResetPending);
            }
            return outcome;
        }
        if value & VFU != 0 {
            if self.state & PFU == 0 {
                self.state |= VFU;
            } else {
                counters.refuse(Refusal::MailboxBusy);
            }
        }
        if value & ACK != 0 {
            self.unread = false;
            self.refuse_uncleared(&mut outcome);
        }
        if value & REQ != 0 {
            if owned {
                self.submit(&mut outcome, counters);
            } else {
                counters.refuse(Refusal::MailboxNotOwned);
            }
        }
        outcome.notify |= self.deliver_ping(counters);
        outcome
    }

    /// The request that waits for a reply, if any.
    pub fn request(&self) -> Option<Request> {
        (self.state & PFU != 0).then(|| Request::parse(&self.words))
    }

    /// Answers the waiting request. Without one nothing happens. Returns whether the guest is to
    /// be notified.
    pub fn reply(&mut self, reply: Reply, mac: MacAddr, counters: &mut Counters) -> bool {
        let Some(request) = self.request() else {
            return false;
        };
        self.answer(request, reply, mac, counters);
        true
    }

    /// The link changed: tells the guest as soon as the buffer is free. The guest is to be
    /// notified in any case.
    pub fn ping(&mut self, counters: &mut Counters) {
        self.ping = true;
        self.deliver_ping(counters);
    }

    /// Takes the guest's message.
    fn submit(&mut self, outcome: &mut Outcome, counters: &mut Counters) {
        let first = self.word(0);
        self.unread = false;
        self.state = self.state & !VFU | PFACK;
        outcome.notify = true;
        if first & (message::ACK | NACK) != 0 {
            // The host's own words come back: igb drops these without an answer.
            counters.refuse(Refusal::MailboxUnknown);
            return;
        }
        let request = Request::parse(&self.words);
        if request == Request::Reset {
            self.clear_to_send = true;
        } else if !self.clear_to_send {
            counters.refuse(Refusal::MailboxNotClear);
            self.refuse(counters);
            return;
        }
        match request {
            Request::Unknown(_) => {
                counters.refuse(Refusal::MailboxUnknown);
                self.refuse(counters);
            }
            // VLAN 0 is not removed, but nobody need know.
            Request::SetVlan { vid: 0, on: false } => {
                self.answer(request, Reply::Ack, MacAddr::new([0; 6]), counters);
            }
            _ => {
                counters.mailbox_requests = counters.mailbox_requests.wrapping_add(1);
                self.state |= PFU;
                outcome.request = Some(request);
            }
        }
    }

    /// Answers "refused".
    fn refuse(&mut self, counters: &mut Counters) {
        let request = Request::Unknown(0);
        self.answer(request, Reply::Nack, MacAddr::new([0; 6]), counters);
    }

    fn answer(&mut self, request: Request, reply: Reply, mac: MacAddr, counters: &mut Counters) {
        // A reset without an address to give is a refusal to igb, and igbvf makes one up.
        let reply = match request {
            Request::Reset if !mac.is_valid_station() => Reply::Nack,
            _ => reply,
        };
        let (verdict, counter) = match reply {
            Reply::Ack => (message::ACK, &mut counters.mailbox_acks),
            Reply::Nack => (NACK, &mut counters.mailbox_nacks),
        };
        *counter = counter.wrapping_add(1);
        let cts = match request {
            // igbvf compares the whole word here, and expects no CTS.
            Request::Reset => 0,
            _ if self.clear_to_send => CTS,
            _ => 0,
        };
        let [first, second, third, ..] = &mut self.words;
        match (request, reply) {
            // igb clears what it has done from the argument.
            (Request::SetVlan { .. }, Reply::Nack) | (Request::SetPromisc { .. }, Reply::Ack) => {
                *first &= 0xFFFF;
            }
            _ => {}
        }
        *first |= verdict | cts;
        if request == Request::Reset {
            let [a, b, c, d, e, f] = mac.bytes();
            *second = u32::from_le_bytes([a, b, c, d]);
            *third = u32::from_le_bytes([e, f, 0, 0]);
        }
        self.post();
    }

    /// Hands the buffer to the guest with a message in it.
    fn post(&mut self) {
        self.state = self.state & !PFU | PFSTS;
        self.unread = true;
    }

    /// The guest read a message without having clearance: it must learn that it has to reset, or
    /// it would wait for a link for ever. Not repeated while that message stands.
    fn refuse_uncleared(&mut self, outcome: &mut Outcome) {
        let free = self.state & (PFU | VFU) == 0;
        if !self.clear_to_send && free && self.word(0) & NACK == 0 {
            let [first, ..] = &mut self.words;
            *first = NACK;
            self.state |= PFSTS;
            outcome.notify = true;
        }
    }

    fn deliver_ping(&mut self, counters: &mut Counters) -> bool {
        let free = self.state & (PFU | VFU | RSTI) == 0 && !self.unread;
        if !self.ping || !free {
            return false;
        }
        self.ping = false;
        counters.mailbox_pings = counters.mailbox_pings.wrapping_add(1);
        let [first, ..] = &mut self.words;
        *first = message::PF_CONTROL | if self.clear_to_send { CTS } else { 0 };
        // Not marked as unread: igbvf does not wait for it, and reads it only when it looks for
        // the link.
        self.state |= PFSTS;
        true
    }
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}
