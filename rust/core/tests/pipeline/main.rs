// SPDX-License-Identifier: GPL-2.0

//! The data path, on a simulated machine. One program: building the machine once for each file took
//! most of the tests' time.

mod adversary;
mod fairness;
mod faults;
mod frame;
mod granules;
mod hardware;
mod honest;
mod limits;
mod machines;
mod map;
mod policy;
mod residue;
#[path = "../sim/mod.rs"]
mod sim;
mod slice;
mod source;
mod strategy;
