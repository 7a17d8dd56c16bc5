// SPDX-License-Identifier: GPL-2.0

//! Calls that fail: what a slice asks of its host and of the NIC's queues, counted, so that a test can have the
//! first fail, the second, and so on, alone or with all that follow.

use std::cell::Cell;

use sluice_core::platform::{
    NoGranule,
    PinError, //
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An allocation of the data path's own books.
    Alloc,
    /// A page cannot be pinned, or not be mapped for the NIC.
    Pin(PinError),
    Granule(NoGranule),
    /// A host buffer.
    Buffer,
    /// The NIC does not say in time that a queue is on.
    Start,
    /// The same, off.
    Stop,
    /// The port does not do what it can refuse.
    Port,
}

/// How many fail, from the `n`-th on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HowMany {
    One,
    All,
}

#[derive(Clone, Copy)]
struct Armed {
    fault: Fault,
    how_many: HowMany,
    /// Calls before the first that fails.
    left: u64,
    failed: u64,
}

thread_local! {
    static ARMED: Cell<Option<Armed>> = const { Cell::new(None) };
}

/// The `n`-th such call of this thread fails from now on, counted from zero.
pub fn arm(fault: Fault, n: u64, how_many: HowMany) {
    ARMED.set(Some(Armed {
        fault,
        how_many,
        left: n,
        failed: 0,
    }));
}

/// None fails any more; how many have.
pub fn disarm() -> u64 {
    ARMED.take().map_or(0, |armed| armed.failed)
}

fn fails_if(is: impl Fn(Fault) -> bool) -> Option<Fault> {
    let mut armed = ARMED.get().filter(|armed| is(armed.fault))?;
    let due = armed.left == 0 && (armed.failed == 0 || armed.how_many == HowMany::All);
    armed.left = armed.left.saturating_sub(1);
    armed.failed += u64::from(due);
    ARMED.set(Some(armed));
    due.then_some(armed.fault)
}

/// Such a call is made: whether it is to fail.
pub fn fails(fault: Fault) -> bool {
    fails_if(|armed| armed == fault).is_some()
}

/// A granule is to be pinned: why it cannot be.
pub fn granule_fails() -> Option<NoGranule> {
    match fails_if(|armed| matches!(armed, Fault::Granule(_)))? {
        Fault::Granule(why) => Some(why),
        _ => None,
    }
}

/// A page is to be pinned: why it cannot be.
pub fn pin_fails() -> Option<PinError> {
    match fails_if(|armed| matches!(armed, Fault::Pin(_)))? {
        Fault::Pin(error) => Some(error),
        _ => None,
    }
}
