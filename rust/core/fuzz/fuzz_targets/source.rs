// SPDX-License-Identifier: GPL-2.0

//! See [`sluice_core_fuzz::source`].

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_core_fuzz::source;

fuzz_target!(|data: &[u8]| source::run(data));
