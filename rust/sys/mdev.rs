// SPDX-License-Identifier: GPL-2.0

//! Mediated devices: a physical device offers a type, an administrator makes instances of it.
//!
//! C header: [`include/linux/mdev.h`](srctree/include/linux/mdev.h)

use core::{
    cell::UnsafeCell,
    marker::{
        PhantomData,
        PhantomPinned, //
    },
    ptr, //
};

use kernel::{
    device::{
        Bound,
        Device, //
    },
    error::{
        from_result,
        to_result, //
    },
    fmt,
    page::PAGE_SIZE,
    prelude::*,
    str::{
        CStr,
        Formatter, //
    },
    sync::{
        aref::ARef,
        Arc, //
    },
    ThisModule, //
};

use super::{
    bindings,
    sysfs::device_ptr, //
};

/// A driver of mediated devices of one type.
pub(crate) trait Driver: Sized + 'static {
    /// What stands behind a parent: the physical device that instances are carved from.
    type Parent: Send + Sync;
    /// What stands behind an instance, from [`Self::probe`] until it is removed.
    type Instance: Send + Sync;

    /// Name of the type in sysfs, after the parent driver's name and a hyphen.
    const TYPE_NAME: &'static CStr;
    /// What people call the type.
    const PRETTY_NAME: &'static CStr;
    /// Which device interface instances have for the VMM.
    const DEVICE_API: &'static CStr;

    /// The table that the driver core keeps; a static of the implementor.
    fn table() -> &'static DriverTable<Self>;
    /// Makes an instance. Its error becomes the error of the administrator's write to `create`.
    fn probe(parent: &Self::Parent, dev: &Instance) -> Result<Self::Instance>;
    /// How many more instances can be made now.
    fn available(parent: &Self::Parent) -> u32;
    /// Describes the type, in one line.
    fn describe(parent: &Self::Parent, out: &mut Formatter<'_>) -> fmt::Result;
}

/// A device instance that is being made.
#[repr(transparent)]
pub(crate) struct Instance(UnsafeCell<bindings::mdev_device>);

impl Instance {
    /// The instance's device.
    pub(crate) fn device(&self) -> &Device {
        // SAFETY: An `Instance` is a live `mdev_device`, which embeds its device.
        unsafe { Device::from_raw(&raw mut (*self.0.get()).dev) }
    }

    /// The UUID that the administrator gave to the instance.
    pub(crate) fn uuid(&self) -> [u8; 16] {
        // SAFETY: The UUID is written before the device is added and never changes.
        unsafe { (*self.0.get()).uuid.b }
    }
}

/// The driver core's table of a [`Driver`].
#[repr(transparent)]
pub(crate) struct DriverTable<D: Driver>(UnsafeCell<bindings::mdev_driver>, PhantomData<D>);

// SAFETY: Only the driver core changes the table, under its own locks, between registration and
// unregistration.
unsafe impl<D: Driver> Sync for DriverTable<D> {}

impl<D: Driver> DriverTable<D> {
    /// The table of driver `D`, called `name` in sysfs.
    pub(crate) const fn new(name: &'static CStr) -> Self {
        // SAFETY: All bytes zero are a valid `mdev_driver` without callbacks.
        let mut raw: bindings::mdev_driver = unsafe { core::mem::zeroed() };
        raw.device_api = D::DEVICE_API.as_ptr().cast();
        raw.probe = Some(Self::probe);
        raw.remove = Some(Self::remove);
        raw.get_available = Some(Self::get_available);
        raw.show_description = Some(Self::show_description);
        raw.driver.name = name.as_ptr().cast();
        Self(UnsafeCell::new(raw), PhantomData)
    }

    unsafe extern "C" fn probe(mdev: *mut bindings::mdev_device) -> kernel::ffi::c_int {
        // SAFETY: The mdev core calls with a live device whose type belongs to a registered
        // parent of this driver.
        let (dev, parent) = unsafe {
            let dev = &*mdev.cast::<Instance>();
            (dev, Parent::<D>::data((*mdev).type_))
        };
        from_result(|| {
            let instance = KBox::new(D::probe(parent, dev)?, GFP_KERNEL)?;
            // SAFETY: The device is live, and its driver data is the driver's to set in `probe`.
            unsafe {
                bindings::dev_set_drvdata(device_ptr(dev.device()), KBox::into_raw(instance).cast())
            };
            Ok(0)
        })
    }

    unsafe extern "C" fn remove(mdev: *mut bindings::mdev_device) {
        // SAFETY: The mdev core calls once for each device that `probe` accepted, which left a
        // box of this type in the driver data.
        unsafe {
            let dev = &raw mut (*mdev).dev;
            let instance = bindings::dev_get_drvdata(dev).cast::<D::Instance>();
            bindings::dev_set_drvdata(dev, ptr::null_mut());
            drop(KBox::from_raw(instance));
        }
    }

    unsafe extern "C" fn get_available(ty: *mut bindings::mdev_type) -> kernel::ffi::c_uint {
        // SAFETY: The mdev core calls with the type of a registered parent of this driver.
        D::available(unsafe { Parent::<D>::data(ty) })
    }

    unsafe extern "C" fn show_description(
        ty: *mut bindings::mdev_type,
        buf: *mut kernel::ffi::c_char,
    ) -> isize {
        // SAFETY: The mdev core calls with the type of a registered parent of this driver.
        let parent = unsafe { Parent::<D>::data(ty) };
        // SAFETY: sysfs gives one zeroed page that nobody else uses during the call.
        let page = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), PAGE_SIZE) };
        let mut out = Formatter::new(page);
        if D::describe(parent, &mut out).is_err() || fmt::Write::write_char(&mut out, '\n').is_err()
        {
            return ENOSPC.to_errno() as isize;
        }
        out.bytes_written().min(PAGE_SIZE) as isize
    }
}

/// A driver that is registered. Instances can be made of the types of its [`Parent`]s.
pub(crate) struct Registration<D: Driver>(PhantomData<D>);

impl<D: Driver> Registration<D> {
    /// Registers the driver. `module` owns it: a VMM that has an instance open holds the module.
    ///
    /// Fails with `EBUSY` where the driver is registered already.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Arc<Self>> {
        let table = D::table().0.get();
        // SAFETY: The driver core refuses a name that is taken before it changes the table; the
        // owner is the only field that is ours to write, and it has but one value.
        to_result(unsafe {
            (*table).driver.owner = module.as_ptr();
            bindings::mdev_register_driver(table)
        })?;
        // Where there is no memory, the destructor of the value unregisters again.
        Ok(Arc::new(Self(PhantomData), GFP_KERNEL)?)
    }
}

impl<D: Driver> Drop for Registration<D> {
    fn drop(&mut self) {
        // SAFETY: `new` registered the driver. Every `Parent` holds a reference to this object,
        // so no parent is left that could bind an instance to it.
        unsafe { bindings::mdev_unregister_driver(D::table().0.get()) };
    }
}

/// What a parent consists of, at one address for its life.
#[repr(C)]
struct ParentInner<D: Driver> {
    ty: bindings::mdev_type,
    parent: bindings::mdev_parent,
    types: [*mut bindings::mdev_type; 1],
    data: D::Parent,
    _pin: PhantomPinned,
}

/// A physical device that offers instances. Dropping it removes them all, waiting for those that
/// a VMM has open (each is asked to let go).
///
/// # Invariants
///
/// `inner` is a live box whose `parent` is registered for `dev`.
pub(crate) struct Parent<D: Driver> {
    inner: *mut ParentInner<D>,
    dev: ARef<Device>,
    _driver: Arc<Registration<D>>,
}

// SAFETY: The mdev core has its own locks, and `D::Parent` is `Send` and `Sync`.
unsafe impl<D: Driver> Send for Parent<D> {}
// SAFETY: As above.
unsafe impl<D: Driver> Sync for Parent<D> {}

impl<D: Driver> Parent<D> {
    /// Lets `dev` offer instances of the driver's type, carved from `data`.
    ///
    /// To be dropped before the physical device is unbound from its driver.
    pub(crate) fn new(
        driver: Arc<Registration<D>>,
        dev: &Device<Bound>,
        data: D::Parent,
    ) -> Result<Self> {
        // SAFETY: All bytes zero are a valid `mdev_type`; the mdev core clears the parent itself.
        let (ty, parent) = unsafe { (core::mem::zeroed(), core::mem::zeroed()) };
        let inner = KBox::into_raw(KBox::new(
            ParentInner::<D> {
                ty,
                parent,
                types: [ptr::null_mut()],
                data,
                _pin: PhantomPinned,
            },
            GFP_KERNEL,
        )?);
        // SAFETY: `inner` came from a box just now, and the device and the driver's table outlive
        // the registration (the latter because of `_driver`). From here on only the mdev core
        // touches `ty` and `parent`.
        let result = unsafe {
            (*inner).ty.sysfs_name = D::TYPE_NAME.as_ptr().cast();
            (*inner).ty.pretty_name = D::PRETTY_NAME.as_ptr().cast();
            (*inner).types[0] = &raw mut (*inner).ty;
            to_result(bindings::mdev_register_parent(
                &raw mut (*inner).parent,
                device_ptr(dev),
                D::table().0.get(),
                (&raw mut (*inner).types).cast(),
                1,
            ))
        };
        if let Err(error) = result {
            // SAFETY: The parent is not registered, and the core has given its references back.
            drop(unsafe { KBox::from_raw(inner) });
            return Err(error);
        }
        Ok(Self {
            inner,
            dev: dev.into(),
            _driver: driver,
        })
    }

    /// # Safety
    ///
    /// `ty` is the type of a registered parent of driver `D`, and stays so for `'a`.
    unsafe fn data<'a>(ty: *mut bindings::mdev_type) -> &'a D::Parent {
        // CAST: `ty` is the first field of the `repr(C)` structure `ParentInner`, and the driver's
        // table, by its type, only ever meets parents of the same driver.
        // SAFETY: By the contract. No `&mut` to `data` exists while the parent is registered.
        unsafe { &(*ty.cast::<ParentInner<D>>()).data }
    }
}

impl<D: Driver> Drop for Parent<D> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant. The core removes all instances, each with `remove`,
        // before it returns.
        let references = unsafe {
            bindings::mdev_unregister_parent(&raw mut (*self.inner).parent);
            bindings::sluice_kobject_references(&raw const (*self.inner).ty.kobj)
        };
        if references == 0 {
            // SAFETY: Nobody refers to the type any more, so nobody to the box.
            drop(unsafe { KBox::from_raw(self.inner) });
        } else {
            // Someone still holds an instance's device, whose release will look at the type: give
            // the memory up rather than let that read freed memory.
            dev_warn!(
                self.dev,
                "mdev type still has {references} references: its memory is kept\n"
            );
            // SAFETY: The data is used by callbacks only, and those have ended.
            unsafe { ptr::drop_in_place(&raw mut (*self.inner).data) };
        }
    }
}
