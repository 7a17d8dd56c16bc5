// SPDX-License-Identifier: GPL-2.0

//! What goes to the kernel's log, and how often.

use core::fmt;

use kernel::{
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};

use sluice_core::{
    platform::HwError,
    slice::{
        State,
        StopReason,
        Stopped, //
    },
    vf::Queue, //
};

use crate::sys::time::now_ns;

/// Lets a few messages of one slice through in each interval, and counts the others. Each slice
/// has one of its own, so that a guest that breaks rules all day hides nobody else's messages.
#[pin_data]
pub(crate) struct Ratelimit {
    #[pin]
    window: SpinLock<Window>,
}

#[derive(Clone, Copy)]
struct Window {
    since_ns: u64,
    used: u32,
    missed: u32,
}

impl Ratelimit {
    const INTERVAL_NS: u64 = 5_000_000_000;
    const BURST: u32 = 10;

    /// A limit that nothing has used up.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            window <- new_spinlock!(Window {
                since_ns: 0,
                used: 0,
                missed: 0,
            }),
        })
    }

    /// `None`: say nothing. Else how many messages were left out since the last one.
    pub(crate) fn pass(&self) -> Option<u32> {
        let now_ns = now_ns();
        let mut window = self.window.lock();
        if now_ns.saturating_sub(window.since_ns) >= Self::INTERVAL_NS {
            window.since_ns = now_ns;
            window.used = 0;
        }
        if window.used >= Self::BURST {
            window.missed = window.missed.saturating_add(1);
            return None;
        }
        window.used += 1;
        Some(core::mem::take(&mut window.missed))
    }
}

/// A stop, in words.
pub(crate) struct Reason(pub(crate) Stopped);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.queue {
            Queue::Tx => "tx ",
            Queue::Rx => "rx ",
        })?;
        match self.0.reason {
            StopReason::Fault(fault) => write!(
                f,
                "{} at {} value {:#x}",
                fault.rejection.name(),
                fault.index.get(),
                fault.value
            ),
            StopReason::Refused(rejection) => f.write_str(rejection.name()),
            StopReason::MemoryRemoved => f.write_str("memory_removed"),
            StopReason::Hardware(HwError::Timeout) => f.write_str("hardware_timeout"),
            StopReason::Hardware(HwError::Gone) => f.write_str("hardware_gone"),
        }
    }
}

// For the kernel's log macros, which have a trait of their own.
impl kernel::fmt::Display for Reason {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A slice's state, in a word, with the reason where there is one.
pub(crate) struct Word(pub(crate) State);

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            State::Closed => f.write_str("closed"),
            State::Open => f.write_str("open"),
            State::Running => f.write_str("running"),
            State::Faulted(stopped) => write!(f, "faulted: {}", Reason(stopped)),
        }
    }
}
