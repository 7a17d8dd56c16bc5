// SPDX-License-Identifier: GPL-2.0

//! Files of a slice, on its mediated device.

use core::fmt::Display;

use kernel::{
    device::Device,
    fmt::Write as _,
    prelude::*,
    static_lock_class,
    str::Formatter,
    sync::Arc, //
};

use sluice_core::{
    addr::PAGE_SIZE,
    check::Rejection,
    map::{
        MapStats,
        Strategy, //
    },
    net::MacAddr,
    slice::{
        MacPolicy,
        Policy, //
    },
    source::{
        MacList,
        VlanList,
        VlanPolicy, //
    },
    stats::Stats,
    vf::{
        Counters,
        Refusal, //
    }, //
};

use super::Word;
use crate::{
    sys::sysfs::{
        Attribute,
        Files, //
    },
    vfio::SliceDev, //
};

static SETTINGS: [Attribute<SliceDev>; 12] = [
    Attribute::rw(
        "broadcast",
        |slice, out| show_switch(out, slice.with(|s| s.policy().broadcast)?),
        |slice, text| {
            let on = parse_switch(text)?;
            slice.change_policy(|policy| policy.broadcast = on)
        },
    ),
    Attribute::rw(
        "link_local",
        |slice, out| show_switch(out, slice.with(|s| s.policy().link_local)?),
        |slice, text| {
            let on = parse_switch(text)?;
            slice.change_policy(|policy| policy.link_local = on)
        },
    ),
    Attribute::rw(
        "mac",
        |slice, out| Ok(write!(out, "{}", slice.with(|s| s.mac())?)?),
        |slice, text| slice.set_mac(MacAddr::parse(text).ok_or(EINVAL)?),
    ),
    Attribute::rw(
        "macs",
        |slice, out| match slice.with(|s| s.policy().macs)? {
            MacPolicy::Own => Ok(write!(out, "none")?),
            MacPolicy::Any => Ok(write!(out, "any")?),
            MacPolicy::Also(list) => show_list(out, list.as_slice()),
        },
        |slice, text| slice.set_macs(parse_macs(text)?),
    ),
    Attribute::rw(
        "multicast",
        |slice, out| {
            Ok(write!(
                out,
                "{}",
                slice.with(|s| s.policy().multicast_max)?
            )?)
        },
        |slice, text| {
            let max = u8::try_from(parse_number(text)?).map_err(|_| ERANGE)?;
            if max > Policy::MULTICAST_MAX {
                return Err(ERANGE);
            }
            slice.change_policy(|policy| policy.multicast_max = max)
        },
    ),
    Attribute::rw(
        "pinned_max",
        |slice, out| Ok(write!(out, "{}", slice.pinned_bytes_max()?)?),
        |slice, text| slice.set_pinned_bytes_max(parse_number(text)?),
    ),
    Attribute::ro("pool", |slice, out| {
        Ok(write!(out, "{}", slice.pool().index())?)
    }),
    Attribute::rw(
        "promisc",
        |slice, out| {
            let all = slice.with(|s| s.policy().all_multicast)?;
            Ok(write!(out, "{}", if all { "multicast" } else { "off" })?)
        },
        |slice, text| {
            let all = match text {
                b"multicast" => true,
                b"off" => false,
                _ => return Err(EINVAL),
            };
            slice.change_policy(|policy| policy.all_multicast = all)
        },
    ),
    Attribute::rw(
        "source_check",
        |slice, out| show_switch(out, slice.with(|s| s.policy().check_source)?),
        |slice, text| {
            let on = parse_switch(text)?;
            slice.change_policy(|policy| policy.check_source = on)
        },
    ),
    Attribute::ro("state", |slice, out| {
        Ok(write!(out, "{}", Word(slice.with(|s| s.state())?))?)
    }),
    Attribute::rw(
        "strategy",
        |slice, out| Ok(write!(out, "{}", slice.with(|s| s.strategy().name())?)?),
        |slice, text| slice.set_strategy(Strategy::parse(text).ok_or(EINVAL)?),
    ),
    Attribute::rw(
        "vlan",
        |slice, out| match slice.with(|s| s.policy().vlans)? {
            VlanPolicy::Any => Ok(write!(out, "any")?),
            VlanPolicy::None => Ok(write!(out, "none")?),
            VlanPolicy::Port(vid) => Ok(write!(out, "port:{vid}")?),
            VlanPolicy::Only(list) => show_list(out, list.as_slice()),
        },
        |slice, text| {
            let vlans = parse_vlans(text)?;
            slice.change_policy(|policy| policy.vlans = vlans)
        },
    ),
];

/// All that a slice counts, copied at once.
struct Snapshot {
    path: Stats,
    map: MapStats,
    function: Counters,
    interrupts_deferred: u64,
}

/// One counter of a slice.
type Counter = (&'static str, fn(&Snapshot) -> u64);

static COUNTERS: [Counter; 54] = [
    ("tx_packets", |s| s.path.tx.packets),
    ("tx_bytes", |s| s.path.tx.bytes),
    ("tx_descriptors", |s| s.path.tx.taken),
    ("tx_contexts", |s| s.path.tx.contexts),
    ("tx_posted", |s| s.path.tx.posted),
    ("tx_completed", |s| s.path.tx.completed),
    ("tx_abandoned", |s| s.path.tx.abandoned),
    ("tx_dropped", |s| s.path.tx.dropped),
    ("tx_filtered", |s| s.path.tx.filtered),
    ("tx_faulted", |s| s.path.tx.faulted),
    ("tx_bounced", |s| s.path.tx.bounced),
    ("tx_copied_bytes", |s| s.path.tx.copied_bytes),
    ("tx_busy", |s| s.path.tx.busy),
    ("tx_doorbells", |s| s.path.tx.doorbells),
    ("rx_packets", |s| s.path.rx.packets),
    ("rx_bytes", |s| s.path.rx.bytes),
    ("rx_multicast", |s| s.path.rx.multicast),
    ("rx_errors", |s| s.path.rx.errors),
    ("rx_descriptors", |s| s.path.rx.taken),
    ("rx_posted", |s| s.path.rx.posted),
    ("rx_completed", |s| s.path.rx.completed),
    ("rx_abandoned", |s| s.path.rx.abandoned),
    ("rx_dropped", |s| s.path.rx.dropped),
    ("rx_faulted", |s| s.path.rx.faulted),
    ("rx_bounced", |s| s.path.rx.bounced),
    ("rx_copied_bytes", |s| s.path.rx.copied_bytes),
    ("rx_busy", |s| s.path.rx.busy),
    ("rx_doorbells", |s| s.path.rx.doorbells),
    ("rejected", |s| s.path.faults()),
    ("pins", |s| s.map.pins),
    ("unpins", |s| s.map.unpins),
    ("hits", |s| s.map.hits),
    ("misses", |s| s.map.misses),
    ("evictions", |s| s.map.evictions),
    ("invalidations", |s| s.map.invalidations),
    ("map_busy", |s| s.map.busy),
    ("leaked", |s| s.map.leaked),
    ("pin_time_ns", |s| s.map.pin_time_ns),
    ("pinned_bytes", |s| u64::from(s.map.pinned) * PAGE_SIZE),
    ("pinned_bytes_most", |s| {
        u64::from(s.map.pinned_most) * PAGE_SIZE
    }),
    ("granules", |s| s.map.granules.into()),
    ("mailbox_requests", |s| s.function.mailbox_requests),
    ("mailbox_acks", |s| s.function.mailbox_acks),
    ("mailbox_nacks", |s| s.function.mailbox_nacks),
    ("mailbox_pings", |s| s.function.mailbox_pings),
    ("resets_control", |s| s.function.control_resets),
    ("resets_function", |s| s.function.function_resets),
    ("resets_vmm", |s| s.function.vmm_resets),
    ("enable_failures", |s| s.function.enable_failures),
    ("interrupts", |s| s.function.signals),
    ("interrupts_deferred", |s| s.interrupts_deferred),
    ("interrupts_unrouted", |s| s.function.unrouted),
    ("accesses_refused", |s| s.function.refused_total()),
    ("descriptors", |s| {
        s.path.tx.taken.wrapping_add(s.path.rx.taken)
    }),
];

/// The files of a slice, as long as this lives.
pub(crate) struct SliceFiles {
    _settings: Files<SliceDev>,
    _stats: Files<SliceDev>,
    _rejected: Files<SliceDev>,
    _refused: Files<SliceDev>,
}

impl SliceFiles {
    /// Makes the files under the mediated device.
    pub(crate) fn new(dev: &Device, slice: Arc<SliceDev>) -> Result<Self> {
        Ok(Self {
            _settings: Files::new(dev, None, &SETTINGS, slice.clone(), static_lock_class!())?,
            _stats: Files::counters(
                dev,
                c"stats",
                COUNTERS.iter().map(|(name, _)| *name),
                |slice, index| {
                    let snapshot = slice.with(|s| Snapshot {
                        path: s.stats().clone(),
                        map: s.map_stats(),
                        function: *s.function_counters(),
                        interrupts_deferred: slice.interrupts_deferred(),
                    })?;
                    Ok(COUNTERS.get(index).map_or(0, |(_, count)| count(&snapshot)))
                },
                slice.clone(),
                static_lock_class!(),
            )?,
            _rejected: Files::counters(
                dev,
                c"rejected",
                Rejection::ALL.iter().map(|rule| rule.name()),
                |slice, index| {
                    let rule = Rejection::ALL.get(index).ok_or(EINVAL)?;
                    slice.with(|s| s.stats().rejected(*rule))
                },
                slice.clone(),
                static_lock_class!(),
            )?,
            _refused: Files::counters(
                dev,
                c"refused",
                Refusal::ALL.iter().map(|reason| reason.name()),
                |slice, index| {
                    let reason = Refusal::ALL.get(index).ok_or(EINVAL)?;
                    slice.with(|s| s.function_counters().refused(*reason))
                },
                slice,
                static_lock_class!(),
            )?,
        })
    }
}

/// Values with commas between them.
fn show_list(out: &mut Formatter<'_>, list: &[impl Display]) -> Result {
    for (i, value) in list.iter().enumerate() {
        write!(out, "{}{value}", if i == 0 { "" } else { "," })?;
    }
    Ok(())
}

/// `on` or `off`.
fn show_switch(out: &mut Formatter<'_>, on: bool) -> Result {
    Ok(write!(out, "{}", if on { "on" } else { "off" })?)
}

/// `on` or `off`.
fn parse_switch(text: &[u8]) -> Result<bool> {
    match text {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(EINVAL),
    }
}

/// `any`, `none`, or addresses with commas between them.
fn parse_macs(text: &[u8]) -> Result<MacPolicy> {
    match text {
        b"any" => return Ok(MacPolicy::Any),
        b"none" => return Ok(MacPolicy::Own),
        _ => {}
    }
    let mut list = MacList::EMPTY;
    for text in text.split(|&c| c == b',') {
        let mac = MacAddr::parse(text).ok_or(EINVAL)?;
        list = list.with(mac).ok_or(EINVAL)?;
    }
    Ok(MacPolicy::Also(list))
}

/// `any`, `none`, `port:` and a VLAN, or VLANs with commas between them.
fn parse_vlans(text: &[u8]) -> Result<VlanPolicy> {
    match text {
        b"any" => return Ok(VlanPolicy::Any),
        b"none" => return Ok(VlanPolicy::None),
        _ => {}
    }
    if let Some(vid) = text.strip_prefix(b"port:") {
        let vid = u16::try_from(parse_number(vid)?).map_err(|_| EINVAL)?;
        return VlanPolicy::port(vid).ok_or(EINVAL);
    }
    let mut list = VlanList::EMPTY;
    for number in text.split(|&c| c == b',') {
        let vid = u16::try_from(parse_number(number)?).map_err(|_| EINVAL)?;
        list = list.with(vid).ok_or(EINVAL)?;
    }
    Ok(VlanPolicy::Only(list))
}

/// A decimal number.
fn parse_number(text: &[u8]) -> Result<u64> {
    core::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(EINVAL)
}
