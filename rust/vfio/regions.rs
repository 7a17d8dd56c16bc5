// SPDX-License-Identifier: GPL-2.0

//! Regions of the device file: configuration space, registers, MSI-X table.

use kernel::prelude::*;

use sluice_core::{
    platform::Platform,
    slice::Slice,
    vf::{
        config,
        msix,
        regs,
        Width, //
    }, //
};

use crate::sys::{
    bindings,
    vfio::RegionInfo, //
};

/// Number of region indices of a PCI device.
pub(super) const INDICES: u32 = bindings::VFIO_PCI_NUM_REGIONS;

/// Bytes that move between the VMM and the model under one hold of the slice's lock.
pub(super) const CHUNK_BYTES: usize = 64;

/// A region that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Region {
    /// PCI configuration space.
    Config,
    /// BAR0, the registers.
    Registers,
    /// BAR3, the MSI-X table and its pending bits.
    Msix,
}

impl Region {
    /// Region `index`, or `None` where there is none.
    pub(super) const fn new(index: u32) -> Option<Self> {
        match index {
            bindings::VFIO_PCI_CONFIG_REGION_INDEX => Some(Self::Config),
            bindings::VFIO_PCI_BAR0_REGION_INDEX => Some(Self::Registers),
            bindings::VFIO_PCI_BAR3_REGION_INDEX => Some(Self::Msix),
            _ => None,
        }
    }

    /// Length in bytes.
    pub(super) const fn len_bytes(self) -> u32 {
        match self {
            Self::Config => config::LEN_BYTES as u32,
            Self::Registers => regs::BAR0_LEN_BYTES,
            Self::Msix => msix::BAR3_LEN_BYTES,
        }
    }

    /// What the VMM is told of region `index`.
    pub(super) fn info(index: u32) -> RegionInfo {
        match Self::new(index) {
            Some(region) => RegionInfo {
                len_bytes: region.len_bytes().into(),
                flags: bindings::VFIO_REGION_INFO_FLAG_READ | bindings::VFIO_REGION_INFO_FLAG_WRITE,
            },
            None => RegionInfo {
                len_bytes: 0,
                flags: 0,
            },
        }
    }

    /// How many of `len` bytes from `offset` on lie within the region.
    pub(super) fn clamp(self, offset: u64, len: usize) -> Result<usize> {
        let left = u64::from(self.len_bytes())
            .checked_sub(offset)
            .filter(|left| *left != 0)
            .ok_or(EINVAL)?;
        Ok(usize::try_from(left).map_or(len, |left| len.min(left)))
    }

    /// Reads `to.len()` bytes at `offset` as the guest does: in the widest accesses that are
    /// aligned.
    pub(super) fn read<P: Platform>(self, slice: &mut Slice<P>, offset: u32, to: &mut [u8]) {
        for_each_access(offset, to, |at, width, bytes| {
            let value = match self {
                Self::Config => slice.config_read(at as u16, width),
                Self::Registers => slice.mmio_read(at, width),
                Self::Msix => slice.msix_read(at, width),
            };
            for (to, from) in bytes.iter_mut().zip(value.to_le_bytes()) {
                *to = from;
            }
        });
    }

    /// Writes `from` at `offset`, in the same way.
    pub(super) fn write<P: Platform>(
        self,
        slice: &mut Slice<P>,
        offset: u32,
        from: &mut [u8],
        now_ns: u64,
    ) {
        for_each_access(offset, from, |at, width, bytes| {
            let mut value = [0; 4];
            for (to, from) in value.iter_mut().zip(bytes) {
                *to = *from;
            }
            let value = u32::from_le_bytes(value);
            match self {
                Self::Config => slice.config_write(at as u16, width, value, now_ns),
                Self::Registers => slice.mmio_write(at, width, value, now_ns),
                Self::Msix => slice.msix_write(at, width, value),
            }
        });
    }
}

/// Cuts `bytes`, which begin at `offset`, into aligned accesses of 4, 2 and 1 bytes. An 8-byte
/// access becomes two, the lower half first, as a 32-bit device behind a bridge sees it.
fn for_each_access(
    mut offset: u32,
    mut bytes: &mut [u8],
    mut access: impl FnMut(u32, Width, &mut [u8]),
) {
    while !bytes.is_empty() {
        let (width, len) = match (offset & 3, bytes.len()) {
            (0, 4..) => (Width::Dword, 4),
            (0 | 2, 2..) => (Width::Word, 2),
            _ => (Width::Byte, 1),
        };
        let Some((head, tail)) = bytes.split_at_mut_checked(len) else {
            return;
        };
        access(offset, width, head);
        // `Region::clamp` keeps the sum within the region.
        offset = offset.wrapping_add(len as u32);
        bytes = tail;
    }
}
