// SPDX-License-Identifier: GPL-2.0

//! Monotonic time in nanoseconds.

use kernel::bindings;

/// Nanoseconds since boot, without time spent suspended.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: Callable from any context.
    let now = unsafe { bindings::ktime_get() };
    // The monotonic clock starts at zero and reaches the sign bit in 292 years.
    now as u64
}
