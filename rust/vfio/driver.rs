// SPDX-License-Identifier: GPL-2.0

//! Making and removing slices.

use kernel::{
    device::{
        Core,
        Device, //
    },
    fmt,
    module::this_module,
    pci,
    prelude::*,
    str::Formatter,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

use sluice_core::platform::Port as _;

use super::device::SliceDev;
use crate::{
    ctl::{
        mac,
        NicFiles,
        SliceFiles, //
    },
    nic::{
        Frontend,
        Nic, //
    },
    sys::{
        mdev,
        vfio, //
    }, //
};

/// How often another address is tried when the derived one is taken.
const MAC_ATTEMPTS: u8 = 8;

/// The mediated device driver.
struct SliceDriver;

/// A NIC that slices are carved from.
struct Source {
    nic: Arc<Nic>,
    dev: ARef<Device>,
}

/// A slice while it exists. Dropped field by field: the files first, then the device, which waits
/// for the VMM.
struct Instance {
    _files: SliceFiles,
    _vfio: vfio::Registration<SliceDev>,
    _pool: PoolGuard,
}

/// Gives the slice's pool back when dropped.
struct PoolGuard(Arc<SliceDev>);

impl Drop for PoolGuard {
    fn drop(&mut self) {
        self.0.retire();
    }
}

impl mdev::Driver for SliceDriver {
    type Parent = Source;
    type Instance = Instance;

    const DRIVER_NAME: &'static str = "sluice";
    const TYPE_NAME: &'static CStr = c"82576vf";
    const PRETTY_NAME: &'static CStr = c"Sluice 82576VF slice";
    const DEVICE_API: &'static CStr = c"vfio-pci";

    fn probe(source: &Source, dev: &mdev::Instance) -> Result<Instance> {
        let claim = source.nic.claim_pool()?;
        let uuid = dev.uuid();
        let mut port = claim.port();
        let address = (0..MAC_ATTEMPTS)
            .map(|attempt| mac::derive(source.nic.mac(), &uuid, attempt))
            .find(|address| port.set_mac(*address))
            .ok_or(EADDRNOTAVAIL)?;
        drop(port);

        let slice = SliceDev::new(dev.device(), &source.dev, claim, address)?;
        let pool = PoolGuard(slice.clone());
        let vfio = vfio::Registration::new(dev.device(), slice.clone())?;
        let files = SliceFiles::new(dev.device(), slice)?;
        Ok(Instance {
            _files: files,
            _vfio: vfio,
            _pool: pool,
        })
    }

    fn available(source: &Source) -> u32 {
        source.nic.free_pools()
    }

    fn describe(source: &Source, out: &mut Formatter<'_>) -> fmt::Result {
        fmt::Write::write_fmt(
            out,
            fmt!(
                "Intel 82576 virtual function on one of {} pools, without IOMMU and SR-IOV",
                source.nic.pools()
            ),
        )
    }
}

/// What a NIC offers to administrators: slices and files. Dropping it removes them all, and waits
/// for VMMs that use them.
pub(crate) struct NicSlices {
    _files: NicFiles,
    _parent: mdev::Parent<SliceDriver>,
}

impl Frontend for NicSlices {
    fn start(pdev: &pci::Device<Core<'_>>, nic: Arc<Nic>) -> Result<Self> {
        let dev: &Device = pdev.as_ref();
        let files = NicFiles::new(dev, nic.clone())?;
        let source = Source {
            nic,
            dev: dev.into(),
        };
        let parent = mdev::Parent::new(this_module::<crate::LocalModule>(), pdev.as_ref(), source)?;
        Ok(Self {
            _files: files,
            _parent: parent,
        })
    }
}
