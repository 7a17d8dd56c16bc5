// SPDX-License-Identifier: GPL-2.0

//! The virtual function that the guest sees.

mod access;
mod igbvf;
mod irq;
mod mailbox;
mod rules;
