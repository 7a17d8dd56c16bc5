// SPDX-License-Identifier: GPL-2.0

//! Shadow rings: coherent memory that the NIC reads and writes and only the host writes beside it.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::Coherent,
    prelude::*,
    sync::barrier::{
        dma_mb,
        Read,
        Write, //
    }, //
};

/// Words in a descriptor.
const WORDS: usize = 2;

/// A ring of 16-byte descriptors in coherent memory (invariant 1: no guest and no VMM has a
/// mapping of it).
///
/// # Invariants
///
/// `mem` holds `WORDS << order` words.
pub(crate) struct DescRing {
    mem: Coherent<[u64]>,
    order: u32,
}

impl DescRing {
    /// Allocates a zeroed ring of `1 << order` descriptors, 15 at most. Sleeps.
    pub(crate) fn new(dev: &Device<Bound>, order: u32) -> Result<Self> {
        if order > 15 {
            return Err(EINVAL);
        }
        // INVARIANT: That many words are allocated.
        Ok(Self {
            mem: Coherent::zeroed_slice(dev, WORDS << order, GFP_KERNEL)?,
            order,
        })
    }

    /// Descriptors in the ring.
    #[inline]
    pub(crate) fn len(&self) -> u16 {
        1 << self.order
    }

    /// Where the NIC finds the ring.
    pub(crate) fn bus(&self) -> u64 {
        self.mem.dma_address()
    }

    /// The first word of descriptor `index`, reduced modulo the length.
    #[inline]
    fn slot(&self, index: u16) -> *mut u64 {
        let index = usize::from(index) & ((1 << self.order) - 1);
        // SAFETY: `index` is below the number of descriptors, so by the type invariant the offset
        // lies within the allocation.
        unsafe { self.mem.as_mut_ptr().cast::<u64>().add(index * WORDS) }
    }

    /// Writes a descriptor. The caller is the only writer on the host's side.
    #[inline]
    pub(crate) fn write(&self, index: u16, words: [u64; WORDS]) {
        let slot = self.slot(index);
        let [first, second] = words;
        // SAFETY: `slot` points to two words of the allocation. Volatile, since the NIC may read
        // at any time; it acts on them only after the doorbell, which orders them before it.
        unsafe {
            slot.write_volatile(first.to_le());
            slot.add(1).write_volatile(second.to_le());
        }
    }

    /// Reads a descriptor as the NIC left it: the second word, which carries the "done" bit, first.
    #[inline]
    pub(crate) fn read(&self, index: u16) -> [u64; WORDS] {
        let slot = self.slot(index);
        // SAFETY: As in `write`; volatile, since the NIC may write at any time.
        let second = u64::from_le(unsafe { slot.add(1).read_volatile() });
        dma_mb(Read);
        // SAFETY: As above.
        let first = u64::from_le(unsafe { slot.read_volatile() });
        [first, second]
    }

    /// Makes earlier writes visible to the NIC before a later doorbell.
    #[inline]
    pub(crate) fn publish(&self) {
        dma_mb(Write);
    }

    /// Zeroes the ring, so that nothing of it passes to the next owner (invariant 8). The NIC must
    /// be done with it.
    pub(crate) fn clear(&self) {
        for index in 0..self.len() {
            self.write(index, [0; WORDS]);
        }
    }
}
