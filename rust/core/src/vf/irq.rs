// SPDX-License-Identifier: GPL-2.0

//! Interrupts: causes, vectors, masks and moderation (datasheet 7.3, 8.26).
//!
//! The function behaves as in MSI-X mode with GPIE.EIAME set, which is how `igb` runs the card:
//! sending a vector's message clears its cause where EIAC says so, and masks it where EIAM says
//! so. Writing EICS unmasks what EIAM covers; `igbvf` relies on it to fire its transmit vector
//! again.
//!
//! Beside EITR, which the guest sets, a vector that has transmit causes only is held back in
//! proportion to what it costs: its messages come no closer together than
//! [`TX_GAP_ROUNDS`] times as long as the guest takes from a message until it unmasks the vector
//! again. Nobody waits for such a message but those who want their buffers back, and a guest whose
//! every register write leaves the virtual machine is better off with fewer of them. That holds for
//! small packets only: a sender of large ones may be stopped by the bytes that it has on the way,
//! as TCP is in Linux (TCP small queues), so [`TX_HELD_BYTES`] are never held back.

use super::counters::{
    Counters,
    Refusal, //
};
use super::regs::Reg;

/// Number of MSI-X vectors.
pub const VECTORS: u8 = 3;

/// An event of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Receive descriptors of queue 0 were written back.
    Rx0,
    /// Transmit descriptors of queue 0 were written back.
    Tx0,
    /// As [`Cause::Rx0`], of queue 1.
    Rx1,
    /// As [`Cause::Tx0`], of queue 1.
    Tx1,
    /// A message or an acknowledgement in the mailbox.
    Other,
}

/// A set of vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VectorMask(u8);

impl VectorMask {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// Whether no vector is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `vector` is in the set.
    pub const fn contains(self, vector: u8) -> bool {
        vector < VECTORS && self.0 & (1 << vector) != 0
    }

    /// Bit n stands for vector n.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The vectors in the set, rising.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..VECTORS).filter(move |&vector| self.contains(vector))
    }
}

/// What to signal now, and when to ask again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Vectors to signal now, each once.
    pub vectors: VectorMask,
    /// When moderation holds a vector back: the time, on the caller's clock, at which to call
    /// again.
    pub deadline_ns: Option<u64>,
}

/// The interrupt block.
#[derive(Clone, Debug)]
pub struct Irq {
    eicr: u8,
    eims: u8,
    eiac: u8,
    eiam: u8,
    /// Causes whose message went out and that neither EIAC nor the guest cleared since: they do
    /// not fire again before they fall.
    sent: u8,
    ivar: u32,
    ivar_misc: u8,
    eitr: [u16; VECTORS as usize],
    last_ns: [Option<u64>; VECTORS as usize],
    /// Vectors that firing masked, and that the guest did not unmask yet.
    asked: u8,
    /// Of these: unmasked, at a time that is not known yet.
    answered: u8,
    /// How long the guest takes from a vector's message to unmasking it, smoothed.
    round_ns: [u64; VECTORS as usize],
    /// What was transmitted since the last message of a transmit vector.
    gone_bytes: u32,
}

const VALID: u8 = 0x80;

/// Least time between two messages of a transmit vector, in rounds of the guest's: it spends no
/// more than a sixteenth of its time on them, unless that takes longer than [`LONGEST_GAP_NS`] or
/// it has sent [`TX_HELD_BYTES`].
pub const TX_GAP_ROUNDS: u64 = 16;

/// So much transmitted data, more than one full frame of the usual size, is told of at once.
pub const TX_HELD_BYTES: u32 = 2048;

/// The longest that EITR can say, and that a vector is held back for what it costs.
pub const LONGEST_GAP_NS: u64 = interval_ns(u16::MAX);

impl Irq {
    /// As after power-on: everything masked and unassigned.
    pub const fn new() -> Self {
        Self {
            eicr: 0,
            eims: 0,
            eiac: 0,
            eiam: 0,
            sent: 0,
            ivar: 0,
            ivar_misc: 0,
            eitr: [0; VECTORS as usize],
            last_ns: [None; VECTORS as usize],
            asked: 0,
            answered: 0,
            round_ns: [0; VECTORS as usize],
            gone_bytes: 0,
        }
    }

    /// Back to the state after power-on. When each vector last fired, and what it costs, is kept:
    /// a guest cannot escape moderation by resetting.
    pub fn reset(&mut self) {
        *self = Self {
            last_ns: self.last_ns,
            round_ns: self.round_ns,
            ..Self::new()
        };
    }

    /// Value of a register of this block, without the effects of reading it.
    pub fn peek(&self, reg: Reg, instance: u8) -> u32 {
        match reg {
            Reg::Eims => u32::from(self.eims),
            Reg::Eiac => u32::from(self.eiac),
            Reg::Eiam => u32::from(self.eiam),
            Reg::Eicr => u32::from(self.eicr),
            Reg::VtIvar => self.ivar,
            Reg::VtIvarMisc => u32::from(self.ivar_misc),
            Reg::Eitr => self
                .eitr
                .get(usize::from(instance))
                .map_or(0, |&v| u32::from(v)),
            _ => 0,
        }
    }

    /// Reads a register of this block. Reading EICR clears it.
    pub fn read(&mut self, reg: Reg, instance: u8) -> u32 {
        let value = self.peek(reg, instance);
        if reg == Reg::Eicr {
            self.eicr = 0;
            self.settle();
        }
        value
    }

    /// Writes a register of this block; `value` is masked as the table says.
    pub fn write(&mut self, reg: Reg, instance: u8, value: u32) {
        let [low, ..] = value.to_le_bytes();
        match reg {
            Reg::Eics => {
                self.eims |= low & self.eiam;
                self.eicr |= low;
                self.answered |= low & self.eiam & self.asked;
            }
            Reg::Eims => {
                self.eims |= low;
                self.answered |= low & self.asked;
            }
            Reg::Eimc => self.eims &= !low,
            Reg::Eiac => self.eiac = low,
            Reg::Eiam => self.eiam = low,
            Reg::Eicr => self.eicr &= !low,
            Reg::VtIvar => self.ivar = value,
            Reg::VtIvarMisc => self.ivar_misc = low,
            Reg::Eitr => {
                if let Some(eitr) = self.eitr.get_mut(usize::from(instance)) {
                    *eitr = value as u16;
                }
            }
            _ => {}
        }
        self.settle();
    }

    /// Records an event: sets the cause of the vector it is assigned to.
    pub fn raise(&mut self, cause: Cause, counters: &mut Counters) {
        let [rx0, tx0, rx1, tx1] = self.ivar.to_le_bytes();
        let entry = match cause {
            Cause::Rx0 => rx0,
            Cause::Tx0 => tx0,
            Cause::Rx1 => rx1,
            Cause::Tx1 => tx1,
            Cause::Other => self.ivar_misc,
        };
        let vector = entry & 0x3;
        if entry & VALID == 0 {
            counters.unrouted = counters.unrouted.wrapping_add(1);
        } else if vector >= VECTORS {
            counters.refuse(Refusal::NoSuchVector);
        } else {
            self.eicr |= 1 << vector;
        }
    }

    /// Vectors whose message is due, moderation apart.
    pub const fn due(&self) -> u8 {
        self.eicr & self.eims & !self.sent
    }

    /// The time of the last write to a register: how long the guest took to answer a message.
    /// Shorter ones count for a half, longer ones for an eighth: it may have had other work.
    pub fn written(&mut self, now_ns: u64) {
        let answered = core::mem::take(&mut self.answered);
        self.asked &= !answered;
        for (vector, (round_ns, last_ns)) in self.round_ns.iter_mut().zip(&self.last_ns).enumerate()
        {
            if answered & (1 << vector) != 0 {
                let took_ns = last_ns
                    .map_or(0, |last| now_ns.saturating_sub(last))
                    .min(LONGEST_GAP_NS);
                *round_ns = match took_ns.checked_sub(*round_ns) {
                    Some(longer) => *round_ns + longer / 8,
                    None => took_ns.midpoint(*round_ns),
                };
            }
        }
    }

    /// So much has been transmitted, beside what was before.
    pub fn transmitted(&mut self, len_bytes: u32) {
        self.gone_bytes = self.gone_bytes.saturating_add(len_bytes);
    }

    /// Whether a transmit cause is assigned to a vector.
    const fn transmits(&self, vector: u8) -> bool {
        let [_, tx0, _, tx1] = self.ivar.to_le_bytes();
        let entry = VALID | vector;
        tx0 == entry || tx1 == entry
    }

    /// Whether nothing but transmit causes is assigned to a vector.
    const fn transmits_only(&self, vector: u8) -> bool {
        let [rx0, _, rx1, _] = self.ivar.to_le_bytes();
        let entry = VALID | vector;
        self.transmits(vector) && rx0 != entry && rx1 != entry && self.ivar_misc != entry
    }

    /// Least time between two messages of a vector, for what they cost the guest.
    fn cost_ns(&self, vector: u8) -> u64 {
        match self.round_ns.get(usize::from(vector)) {
            Some(round_ns) if self.gone_bytes < TX_HELD_BYTES && self.transmits_only(vector) => {
                (TX_GAP_ROUNDS * round_ns).min(LONGEST_GAP_NS)
            }
            _ => 0,
        }
    }

    /// From when on a vector may fire.
    fn open_ns(&self, vector: u8) -> u64 {
        let index = usize::from(vector);
        let asked_ns = self.eitr.get(index).map_or(0, |&eitr| interval_ns(eitr));
        let gap_ns = asked_ns.max(self.cost_ns(vector));
        let last_ns = self.last_ns.get(index).copied().flatten();
        last_ns.map_or(0, |last| last.saturating_add(gap_ns))
    }

    /// Decides which vectors fire at `now_ns` and applies auto-clear and auto-mask to them.
    pub fn take(&mut self, now_ns: u64) -> Signals {
        let due = VectorMask(self.due());
        for last_ns in &mut self.last_ns {
            // A clock that ran backwards costs no more than one interval.
            *last_ns = last_ns.map(|last| last.min(now_ns));
        }
        let open = |vector: &u8| now_ns >= self.open_ns(*vector);
        let fired = due.iter().filter(open).fold(0, |set, v| set | 1 << v);
        for vector in VectorMask(fired).iter() {
            if let Some(last_ns) = self.last_ns.get_mut(usize::from(vector)) {
                *last_ns = Some(now_ns);
            }
            if self.transmits(vector) {
                self.gone_bytes = 0;
            }
        }
        // After that: what the others cost may be more now.
        let held = VectorMask(due.bits() & !fired);
        let deadline_ns = held.iter().map(|vector| self.open_ns(vector)).min();
        self.sent |= fired;
        self.eicr &= !(fired & self.eiac);
        self.eims &= !(fired & self.eiam);
        self.asked = self.asked & !fired | fired & self.eiam;
        self.settle();
        Signals {
            vectors: VectorMask(fired),
            deadline_ns,
        }
    }

    /// A cause that fell or was masked may fire again.
    fn settle(&mut self) {
        self.sent &= self.eicr & self.eims;
    }
}

impl Default for Irq {
    fn default() -> Self {
        Self::new()
    }
}

/// Least time between two messages of a vector: bits 14:2 of EITR, in microseconds.
pub const fn interval_ns(eitr: u16) -> u64 {
    ((eitr & 0x7FFC) >> 2) as u64 * 1000
}
