// SPDX-License-Identifier: GPL-2.0

//! Life cycles, step by step at random, next to plain models of what should come of each step.

mod fence;
mod filters;
mod slice;
