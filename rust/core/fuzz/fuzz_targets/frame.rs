// SPDX-License-Identifier: GPL-2.0

//! See [`sluice_core_fuzz::frame`].

#![no_main]

use libfuzzer_sys::{
    fuzz_mutator,
    fuzz_target, //
};
use sluice_core_fuzz::{
    frame,
    ops, //
};

fuzz_target!(|data: &[u8]| frame::run(data));

fuzz_mutator!(|data: &mut [u8], len: usize, max_len: usize, seed: u32| {
    ops::mutate(data, len, max_len, seed, libfuzzer_sys::fuzzer_mutate)
});
