// SPDX-License-Identifier: GPL-2.0

//! Numbers that no guest can guess.

use super::bindings;

/// 64 random bits. Never sleeps for want of entropy.
pub(crate) fn random() -> u64 {
    // SAFETY: Callable from any context.
    unsafe { bindings::get_random_u64() }
}
