// SPDX-License-Identifier: GPL-2.0

//! `sluice_core::handover` under loom: each hand-over between threads, in every order.

mod door;
mod fence;
mod pending;
mod threads;
mod turns;
