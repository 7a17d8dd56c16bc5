// SPDX-License-Identifier: GPL-2.0

//! How work passes from one thread to another, so that none is forgotten.
//!
//! Only the order of steps is here. The atomics, locks and threads come from whoever uses it: the
//! module brings the kernel's, the tests bring some that try every order (`tests/handover`).

mod door;
mod events;
mod fence;
mod pending;

pub use door::{
    Door,
    Fifo,
    Held, //
};
pub use events::Events;
pub use fence::{
    admits,
    Bar,
    Bars, //
};
pub use pending::{
    Pending,
    Word, //
};
