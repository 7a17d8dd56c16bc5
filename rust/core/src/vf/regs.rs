// SPDX-License-Identifier: GPL-2.0

//! The registers of BAR0: names, places, access kinds and storage.
//!
//! The table follows the VF register map of the 82576 datasheet (8.26 ff.) as far as `igbvf` and
//! its siblings use it. What is not in the table does not exist: it reads zero, a write is
//! dropped, and both are counted.
//!
//! Registers 32 bits wide are accessed by 32 bits. Narrower accesses are refused everywhere, the
//! mailbox buffer included: the datasheet leaves partial writes undefined (8.1), and no driver
//! makes any.

/// Length of BAR0 in bytes.
pub const BAR0_LEN_BYTES: u32 = 0x4000;

/// QUEUE_ENABLE in RXDCTL and TXDCTL.
pub const DCTL_ENABLE: u32 = 1 << 25;
/// RST in CTRL.
pub const CTRL_RST: u32 = 1 << 26;

/// Bits for the three vectors in the interrupt registers.
const VECTORS: u32 = 0b111;
/// Vector number and valid bit, in each byte of VTIVAR.
const IVAR: u32 = 0x83;
/// Prefetch, host and write-back thresholds and QUEUE_ENABLE. The software flush bit (26) clears
/// itself and does nothing here; transmit priority (27) is the host's.
const DCTL: u32 = 0x001F_1F1F | DCTL_ENABLE;
/// Relaxed-ordering bits of the DCA control registers; DCA itself is the host's.
const TXCTL_ORDER: u32 = (1 << 9) | (1 << 11) | (1 << 13);
const RXCTL_ORDER: u32 = (1 << 9) | (1 << 13) | (1 << 15);
/// Length fields of a ring: 128-byte granules below 1 MiB.
const RING_LEN: u32 = 0x000F_FF80;

/// What an access to a register may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads as the model says; writes are refused.
    ReadOnly,
    /// As [`Access::ReadOnly`], wraps around at 2^32 and keeps its value over resets.
    Counter,
    /// Reads back what was written to the bits of `mask`.
    ReadWrite {
        /// Bits that can be written.
        mask: u32,
    },
    /// As [`Access::ReadWrite`], but refused while the register's queue runs.
    Configure {
        /// Bits that can be written.
        mask: u32,
    },
    /// Acts when written; reads are refused.
    WriteOnly {
        /// Bits that act.
        mask: u32,
    },
    /// A one sets the bit, a zero leaves it; reads back.
    WriteOneSets {
        /// Bits that can be set.
        mask: u32,
    },
    /// Reading clears all bits; writing a one clears the bit.
    ReadClears {
        /// Bits that exist.
        mask: u32,
    },
}

/// A register or an array of registers. The order is that of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the datasheet's.
pub enum Reg {
    Ctrl,
    Status,
    VmbMem,
    V2pMailbox,
    PbaCl,
    PsrType,
    VfGprc,
    VfGptc,
    VfGorc,
    VfGotc,
    VfMprc,
    VfGprlbc,
    VfGptlbc,
    VfGorlbc,
    VfGotlbc,
    Eics,
    Eims,
    Eimc,
    Eiac,
    Eiam,
    Eicr,
    Eitr,
    VtIvar,
    VtIvarMisc,
    Rdbal,
    Rdbah,
    Rdlen,
    Srrctl,
    Rdh,
    RxCtl,
    Rdt,
    Rxdctl,
    Rqdpc,
    Tdbal,
    Tdbah,
    Tdlen,
    Tdh,
    TxCtl,
    Tdt,
    Txdctl,
    Tdwbal,
    Tdwbah,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Which register.
    pub reg: Reg,
    /// The datasheet's name.
    pub name: &'static str,
    /// Offset of the first instance in BAR0, in bytes.
    pub offset: u16,
    /// Distance between instances, in bytes.
    pub stride: u16,
    /// Number of instances.
    pub count: u8,
    /// What an access may do.
    pub access: Access,
    /// Value after a reset.
    pub reset: u32,
}

const fn spec(reg: Reg, name: &'static str, offset: u16, access: Access) -> Spec {
    Spec {
        reg,
        name,
        offset,
        stride: 4,
        count: 1,
        access,
        reset: 0,
    }
}

impl Spec {
    const fn array(mut self, count: u8) -> Self {
        self.count = count;
        self
    }

    /// One instance for each of the two queues.
    const fn per_queue(mut self) -> Self {
        self.count = 2;
        self.stride = 0x100;
        self
    }

    const fn reset(mut self, value: u32) -> Self {
        self.reset = value;
        self
    }
}

use Access::{
    Configure,
    Counter,
    ReadClears,
    ReadOnly,
    ReadWrite,
    WriteOneSets,
    WriteOnly, //
};

const ANY: u32 = u32::MAX;

const SPECS: [Spec; 42] = [
    // VTCTRL: only RST exists, and it clears itself. It answers at 4 too, as CTRL does.
    spec(Reg::Ctrl, "CTRL", 0x0000, ReadWrite { mask: CTRL_RST }).array(2),
    spec(Reg::Status, "STATUS", 0x0008, ReadOnly),
    spec(Reg::VmbMem, "VMBMEM", 0x0800, ReadWrite { mask: ANY }).array(16),
    spec(
        Reg::V2pMailbox,
        "V2PMAILBOX",
        0x0C40,
        ReadWrite { mask: 0x7 },
    ),
    spec(Reg::PbaCl, "PBACL", 0x0F04, WriteOnly { mask: VECTORS }),
    // Header types; queues per pool (31:29) stays zero, there is one.
    spec(
        Reg::PsrType,
        "PSRTYPE",
        0x0F0C,
        ReadWrite { mask: 0x0007_FFFE },
    ),
    spec(Reg::VfGprc, "VFGPRC", 0x0F10, Counter),
    spec(Reg::VfGptc, "VFGPTC", 0x0F14, Counter),
    spec(Reg::VfGorc, "VFGORC", 0x0F18, Counter),
    spec(Reg::VfGotc, "VFGOTC", 0x0F34, Counter),
    spec(Reg::VfMprc, "VFMPRC", 0x0F3C, Counter),
    spec(Reg::VfGprlbc, "VFGPRLBC", 0x0F40, Counter),
    spec(Reg::VfGptlbc, "VFGPTLBC", 0x0F44, Counter),
    spec(Reg::VfGorlbc, "VFGORLBC", 0x0F48, Counter),
    spec(Reg::VfGotlbc, "VFGOTLBC", 0x0F50, Counter),
    spec(Reg::Eics, "EICS", 0x1520, WriteOnly { mask: VECTORS }),
    spec(Reg::Eims, "EIMS", 0x1524, WriteOneSets { mask: VECTORS }),
    spec(Reg::Eimc, "EIMC", 0x1528, WriteOnly { mask: VECTORS }),
    spec(Reg::Eiac, "EIAC", 0x152C, ReadWrite { mask: VECTORS }),
    spec(Reg::Eiam, "EIAM", 0x1530, ReadWrite { mask: VECTORS }),
    spec(Reg::Eicr, "EICR", 0x1580, ReadClears { mask: VECTORS }),
    // The interval only. Low-latency credits and the moderation counter are not modelled.
    spec(Reg::Eitr, "EITR", 0x1680, ReadWrite { mask: 0x7FFC }).array(3),
    spec(
        Reg::VtIvar,
        "VTIVAR",
        0x1700,
        ReadWrite {
            mask: IVAR * 0x0101_0101,
        },
    ),
    spec(
        Reg::VtIvarMisc,
        "VTIVAR_MISC",
        0x1740,
        ReadWrite { mask: IVAR },
    ),
    spec(Reg::Rdbal, "RDBAL", 0x2800, Configure { mask: !0x7F }).per_queue(),
    spec(Reg::Rdbah, "RDBAH", 0x2804, Configure { mask: ANY }).per_queue(),
    spec(Reg::Rdlen, "RDLEN", 0x2808, Configure { mask: RING_LEN }).per_queue(),
    spec(
        Reg::Srrctl,
        "SRRCTL",
        0x280C,
        Configure { mask: 0x8FF0_3F7F },
    )
    .per_queue(),
    spec(Reg::Rdh, "RDH", 0x2810, Configure { mask: ANY }).per_queue(),
    spec(Reg::RxCtl, "RXCTL", 0x2814, ReadWrite { mask: RXCTL_ORDER })
        .per_queue()
        .reset(RXCTL_ORDER),
    spec(Reg::Rdt, "RDT", 0x2818, ReadWrite { mask: ANY }).per_queue(),
    spec(Reg::Rxdctl, "RXDCTL", 0x2828, ReadWrite { mask: DCTL })
        .per_queue()
        .reset(1 << 16),
    spec(Reg::Rqdpc, "RQDPC", 0x2830, Counter).per_queue(),
    spec(Reg::Tdbal, "TDBAL", 0x3800, Configure { mask: !0x7F }).per_queue(),
    spec(Reg::Tdbah, "TDBAH", 0x3804, Configure { mask: ANY }).per_queue(),
    spec(Reg::Tdlen, "TDLEN", 0x3808, Configure { mask: RING_LEN }).per_queue(),
    spec(Reg::Tdh, "TDH", 0x3810, Configure { mask: ANY }).per_queue(),
    spec(Reg::TxCtl, "TXCTL", 0x3814, ReadWrite { mask: TXCTL_ORDER })
        .per_queue()
        .reset(TXCTL_ORDER),
    spec(Reg::Tdt, "TDT", 0x3818, ReadWrite { mask: ANY }).per_queue(),
    spec(Reg::Txdctl, "TXDCTL", 0x3828, ReadWrite { mask: DCTL }).per_queue(),
    spec(Reg::Tdwbal, "TDWBAL", 0x3838, Configure { mask: !0x3 }).per_queue(),
    spec(Reg::Tdwbah, "TDWBAH", 0x383C, Configure { mask: ANY }).per_queue(),
];

/// The table, in the order of [`Reg`].
pub static TABLE: [Spec; SPECS.len()] = SPECS;

/// One instance of a register: its place in the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Which register.
    pub reg: Reg,
    /// Which instance of it: the queue, vector or word.
    pub instance: u8,
    position: u8,
}

impl Slot {
    /// The table's row.
    pub fn spec(self) -> &'static Spec {
        // The table has a row for each variant (checked below), so the fallback is never taken.
        TABLE.get(self.reg as usize).unwrap_or(&TABLE[0])
    }

    /// Offset in BAR0, in bytes.
    pub fn offset(self) -> u32 {
        let spec = self.spec();
        u32::from(spec.offset) + u32::from(spec.stride) * u32::from(self.instance)
    }
}

const SLOTS: usize = {
    let mut total = 0;
    let mut row = 0;
    while row < SPECS.len() {
        // The table is in the order of the enum, so that a variant is its row's index.
        assert!(SPECS[row].reg as usize == row);
        total += SPECS[row].count as usize;
        row += 1;
    }
    // Positions are bytes, and zero in INDEX means "no register".
    assert!(total < 255);
    total
};

/// First position of each register's instances.
static FIRST: [u8; SPECS.len()] = {
    let mut first = [0; SPECS.len()];
    let mut position = 0;
    let mut row = 0;
    while row < SPECS.len() {
        first[row] = position;
        position += SPECS[row].count;
        row += 1;
    }
    first
};

static PLACES: [Slot; SLOTS] = {
    let mut places = [Slot {
        reg: Reg::Ctrl,
        instance: 0,
        position: 0,
    }; SLOTS];
    let mut position = 0;
    let mut row = 0;
    while row < SPECS.len() {
        let mut instance = 0;
        while instance < SPECS[row].count {
            places[position] = Slot {
                reg: SPECS[row].reg,
                instance,
                position: position as u8,
            };
            position += 1;
            instance += 1;
        }
        row += 1;
    }
    places
};

const WORDS: usize = BAR0_LEN_BYTES as usize / 4;

/// Position + 1 of the register at each 32-bit word of BAR0; 0 where there is none.
static INDEX: [u8; WORDS] = {
    let mut index = [0; WORDS];
    let mut position = 0;
    let mut row = 0;
    while row < SPECS.len() {
        let mut instance = 0;
        while instance < SPECS[row].count {
            let offset =
                SPECS[row].offset as usize + SPECS[row].stride as usize * instance as usize;
            // Registers do not overlap.
            assert!(offset % 4 == 0 && index[offset / 4] == 0);
            position += 1;
            index[offset / 4] = position;
            instance += 1;
        }
        row += 1;
    }
    index
};

/// The register at `offset`, a multiple of 4. Constant time.
pub fn find(offset: u32) -> Option<Slot> {
    let entry = INDEX.get(usize::try_from(offset / 4).ok()?)?;
    PLACES
        .get(usize::from(entry.checked_sub(1)?))
        .copied()
        .filter(|_| offset % 4 == 0)
}

/// Whether a write of 32 bits at `offset` may be carried out a little later, in order, as a bus
/// posts it: it changes nothing but the model, and starts neither a wait nor a stop. Tails and
/// interrupt masks are such: what a guest writes most often.
pub fn is_postable(offset: u32) -> bool {
    find(offset).is_some_and(|slot| {
        matches!(
            slot.reg,
            Reg::Tdt
                | Reg::Rdt
                | Reg::Eics
                | Reg::Eims
                | Reg::Eimc
                | Reg::Eiac
                | Reg::Eiam
                | Reg::Eitr
        )
    })
}

/// Every register instance, by rising table row.
pub fn all() -> impl Iterator<Item = Slot> {
    PLACES.iter().copied()
}

/// Values of the registers that keep one. The state of interrupts and of the mailbox is kept by
/// their own blocks, and their positions here stay zero.
#[derive(Clone, Debug)]
pub struct File {
    values: [u32; SLOTS],
}

impl File {
    /// As after power-on.
    pub fn new() -> Self {
        let mut file = Self { values: [0; SLOTS] };
        file.reset();
        file
    }

    /// Everything but the counters goes to its reset value.
    pub fn reset(&mut self) {
        for (value, slot) in self.values.iter_mut().zip(PLACES.iter()) {
            let spec = slot.spec();
            if spec.access != Access::Counter {
                *value = spec.reset;
            }
        }
    }

    /// Value of one instance; zero where there is no such instance.
    pub fn get(&self, reg: Reg, instance: u8) -> u32 {
        self.position(reg, instance)
            .and_then(|p| self.values.get(p))
            .copied()
            .unwrap_or(0)
    }

    /// Sets one instance, unmasked.
    pub fn set(&mut self, reg: Reg, instance: u8, value: u32) {
        if let Some(place) = self
            .position(reg, instance)
            .and_then(|p| self.values.get_mut(p))
        {
            *place = value;
        }
    }

    /// Value at a place.
    pub fn at(&self, slot: Slot) -> u32 {
        self.values
            .get(usize::from(slot.position))
            .copied()
            .unwrap_or(0)
    }

    /// Sets the value at a place, unmasked.
    pub fn put(&mut self, slot: Slot, value: u32) {
        if let Some(place) = self.values.get_mut(usize::from(slot.position)) {
            *place = value;
        }
    }

    /// Adds to a counter, modulo 2^32.
    pub fn count(&mut self, reg: Reg, instance: u8, n: u32) {
        let value = self.get(reg, instance).wrapping_add(n);
        self.set(reg, instance, value);
    }

    fn position(&self, reg: Reg, instance: u8) -> Option<usize> {
        let spec = TABLE.get(reg as usize)?;
        let first = FIRST.get(reg as usize)?;
        (instance < spec.count).then(|| usize::from(*first) + usize::from(instance))
    }
}

impl Default for File {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_finds_itself() {
        let mut n = 0;
        for slot in all() {
            assert_eq!(find(slot.offset()), Some(slot));
            n += 1;
        }
        assert_eq!(n, SLOTS);
    }

    #[test]
    fn what_is_not_named_is_not_found() {
        let named = (0..BAR0_LEN_BYTES)
            .filter(|&offset| find(offset).is_some())
            .count();
        assert_eq!(named, SLOTS);
        assert_eq!(find(BAR0_LEN_BYTES), None);
        assert_eq!(find(u32::MAX), None);
        assert_eq!(find(0x1521), None);
    }

    #[test]
    fn counters_survive_a_reset_and_wrap() {
        let mut file = File::new();
        file.count(Reg::VfGorc, 0, u32::MAX);
        file.count(Reg::VfGorc, 0, 3);
        file.set(Reg::Rdt, 1, 7);
        file.reset();
        assert_eq!(file.get(Reg::VfGorc, 0), 2);
        assert_eq!(file.get(Reg::Rdt, 1), 0);
        assert_eq!(file.get(Reg::Rxdctl, 0), 1 << 16);
        assert_eq!(file.get(Reg::Rdt, 2), 0);
    }
}
