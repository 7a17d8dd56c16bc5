// SPDX-License-Identifier: GPL-2.0

//! Looking at a NIC now and then: whether it is lost and nobody has reported it (packets alone need
//! no register to be read), and what it has counted.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::Nic;
use crate::sys::{
    thread::{
        Body,
        Current,
        Thread, //
    },
    time::now_ns, //
};

/// How often the NIC is looked at.
const INTERVAL_NS: u64 = 1_000_000_000;

/// Watches a NIC until this is dropped.
pub(super) struct Watch {
    _thread: Thread<Watched>,
}

struct Watched(Arc<Nic>);

impl Watch {
    /// Starts the thread, named `name`.
    pub(super) fn start(name: &CStr, nic: Arc<Nic>) -> Result<Self> {
        let body = Arc::new(Watched(nic), GFP_KERNEL)?;
        Ok(Self {
            _thread: Thread::run(name, body)?,
        })
    }
}

impl Body for Watched {
    fn run(&self, current: &Current) {
        while !current.should_stop() {
            self.0.look();
            let _ = self.0.stats();
            current.park(Some(now_ns().saturating_add(INTERVAL_NS)), || false);
        }
    }
}
