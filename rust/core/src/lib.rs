// SPDX-License-Identifier: GPL-2.0

//! The pure part of Sluice: no kernel, no unsafe code, no allocation of its own.
//!
//! The same files are compiled into the module and, by cargo, for tests.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod addr;
mod bounce;
pub mod check;
pub mod desc;
pub mod frame;
pub mod handover;
pub mod map;
pub mod memlock;
pub mod net;
pub mod path;
pub mod patience;
pub mod platform;
pub mod pool;
pub mod ring;
pub mod rx;
pub mod slice;
pub mod source;
pub mod stats;
pub mod turns;
pub mod tx;
pub mod vf;
