// SPDX-License-Identifier: GPL-2.0

//! What the fuzz targets do with their input. Each target is a function of bytes and nothing else;
//! a breach of a rule is a panic.
//!
//! See "Fuzzing" in `Documentation/hacking.rst`.

pub mod desc;
pub mod frame;
pub mod function;
pub mod ops;
pub mod slice;
pub mod source;

#[allow(clippy::len_without_is_empty, clippy::should_implement_trait)]
#[path = "../../tests/sim/mod.rs"]
pub mod sim;
