// SPDX-License-Identifier: GPL-2.0

//! What the administrator sees and sets: sysfs attributes, the log.
//!
//! `Documentation/abi.rst` lists every file.

mod log;
pub(crate) mod mac;
mod nic;
mod slice;

pub(crate) use self::{
    log::{
        Ratelimit,
        Reason,
        Word, //
    },
    nic::NicFiles,
    slice::SliceFiles, //
};
