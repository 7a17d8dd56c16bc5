// SPDX-License-Identifier: GPL-2.0

//! Which address a slice has unless the administrator says otherwise.

use sluice_core::net::MacAddr;

/// FNV-1a, 64 bits. Not to keep anyone out: to spread names over addresses.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// A locally administered address for the slice `uuid` of the NIC with address `nic`: the same
/// each time the slice is made. `attempt` gives others, for when one is taken.
pub(crate) fn derive(nic: MacAddr, uuid: &[u8; 16], attempt: u8) -> MacAddr {
    let bytes = nic.bytes().into_iter().chain(*uuid).chain([attempt]);
    let [first, b, c, d, e, f, x, y] = hash(bytes).to_le_bytes();
    // Individual (bit 0 clear) and locally administered (bit 1 set).
    MacAddr::new([first & !1 | 2, b, c, d, e ^ x, f ^ y])
}
