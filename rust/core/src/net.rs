// SPDX-License-Identifier: GPL-2.0

//! Ethernet names.

use core::fmt;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// From the bytes in wire order.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The bytes in wire order.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// Whether a station may have this address: neither zero nor a group address.
    pub const fn is_valid_station(self) -> bool {
        let b = self.0;
        b[0] & 1 == 0 && (b[0] | b[1] | b[2] | b[3] | b[4] | b[5]) != 0
    }

    /// Parses `aa:bb:cc:dd:ee:ff` (no surrounding space).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut groups = text.split(|&c| c == b':');
        for byte in &mut bytes {
            let group = groups.next()?;
            if group.len() != 2 {
                return None;
            }
            for &c in group {
                let digit = char::from(c).to_digit(16)?;
                *byte = (*byte << 4) | digit as u8;
            }
        }
        groups.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
