// SPDX-License-Identifier: GPL-2.0

//! Mediated devices: a physical device offers a type, an administrator makes instances of it.
//!
//! C header: [`include/linux/mdev.h`](srctree/include/linux/mdev.h)

use core::{
    cell::UnsafeCell,
    marker::PhantomPinned,
    mem::ManuallyDrop,
    ptr::{
        self,
        NonNull, //
    }, //
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
    ffi::{
        c_char,
        c_int,
        c_uint, //
    },
    fmt::{
        self,
        Write as _, //
    },
    page::PAGE_SIZE,
    prelude::*,
    str::{
        CStr,
        CString,
        Formatter, //
    },
    sync::aref::ARef,
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

    /// Name of the driver in sysfs, before a hyphen and the parent's name.
    const DRIVER_NAME: &'static str;
    /// Name of the type in sysfs, after the parent driver's name and a hyphen.
    const TYPE_NAME: &'static CStr;
    /// What people call the type.
    const PRETTY_NAME: &'static CStr;
    /// Which device interface instances have for the VMM.
    const DEVICE_API: &'static CStr;

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

/// What a parent consists of, at one address for its life. Each parent has a driver of its own in
/// the driver core, so that one that goes takes nothing from the others.
#[repr(C)]
struct Inner<D: Driver> {
    ty: bindings::mdev_type,
    parent: bindings::mdev_parent,
    driver: bindings::mdev_driver,
    types: [*mut bindings::mdev_type; 1],
    name: CString,
    data: ManuallyDrop<D::Parent>,
    _pin: PhantomPinned,
}

/// For how long a parent's end waits for those who still refer to its type, in milliseconds.
const TYPE_TIMEOUT_MS: c_uint = 20_000;

/// A physical device that offers instances. Dropping it removes them all, waiting for those that
/// a VMM has open (each is asked to let go).
///
/// # Invariants
///
/// `inner` is a live box whose `driver` is registered, and whose `parent` is registered for `dev`.
/// A reference to the type's kobject is ours.
pub(crate) struct Parent<D: Driver> {
    inner: NonNull<Inner<D>>,
    dev: ARef<Device>,
}

// SAFETY: The mdev core has its own locks, and `D::Parent` is `Send` and `Sync`.
unsafe impl<D: Driver> Send for Parent<D> {}
// SAFETY: As above.
unsafe impl<D: Driver> Sync for Parent<D> {}

impl<D: Driver> Parent<D> {
    /// Lets `dev` offer instances of the driver's type, carved from `data`. A VMM that has an
    /// instance open holds `module`.
    ///
    /// To be dropped before the physical device is unbound from its driver.
    pub(crate) fn new(
        module: &'static ThisModule,
        dev: &Device<Bound>,
        data: D::Parent,
    ) -> Result<Self> {
        let name = CString::try_from_fmt(fmt!(
            "{}-{}",
            D::DRIVER_NAME,
            dev.name().to_str().map_err(|_| EINVAL)?
        ))?;
        // SAFETY: All bytes zero are valid for all three: no name, no callbacks, no references.
        let (ty, parent, driver) = unsafe {
            (
                core::mem::zeroed(),
                core::mem::zeroed(),
                core::mem::zeroed(),
            )
        };
        // First, for an `Inner` that finds no room would not drop the data.
        let room = KBox::<Inner<D>>::new_uninit(GFP_KERNEL)?;
        let inner = Inner {
            ty,
            parent,
            driver,
            types: [ptr::null_mut()],
            name,
            data: ManuallyDrop::new(data),
            _pin: PhantomPinned,
        };
        let mut inner = KBox::write(room, inner);
        inner.ty.sysfs_name = D::TYPE_NAME.as_char_ptr();
        inner.ty.pretty_name = D::PRETTY_NAME.as_char_ptr();
        inner.driver.device_api = D::DEVICE_API.as_char_ptr();
        inner.driver.probe = Some(Self::probe);
        inner.driver.remove = Some(Self::remove);
        inner.driver.get_available = Some(Self::get_available);
        inner.driver.show_description = Some(Self::show_description);
        inner.driver.driver.name = inner.name.as_char_ptr();
        inner.driver.driver.owner = module.as_ptr();
        let inner = KBox::into_raw(inner);

        // SAFETY: `inner` is a live box that stays where it is. From here on only the mdev core
        // touches `ty`, `parent` and `driver`; it undoes what it did before it fails.
        let result = unsafe {
            (*inner).types = [&raw mut (*inner).ty];
            to_result(bindings::mdev_register_driver(&raw mut (*inner).driver)).and_then(|()| {
                to_result(bindings::mdev_register_parent(
                    &raw mut (*inner).parent,
                    device_ptr(dev),
                    &raw mut (*inner).driver,
                    (&raw mut (*inner).types).cast(),
                    1,
                ))
                .inspect_err(|_| bindings::mdev_unregister_driver(&raw mut (*inner).driver))
            })
        };
        // SAFETY: The box was made above and is not null.
        let this = unsafe { NonNull::new_unchecked(inner) };
        if let Err(error) = result {
            // SAFETY: Nothing is registered. What was added before something else failed was let
            // go of, so the kobject is valid or zero.
            unsafe {
                if bindings::sluice_kobject_is_gone(&raw mut (*inner).ty.kobj) {
                    Self::free(this);
                } else {
                    Self::abandon(dev, this);
                }
            }
            return Err(error);
        }
        // SAFETY: The registration made the kobject, which is live.
        unsafe { bindings::kobject_get(&raw mut (*inner).ty.kobj) };
        // INVARIANT: Both are registered, and the reference was taken just now.
        Ok(Self {
            inner: this,
            dev: dev.into(),
        })
    }

    /// # Safety
    ///
    /// Nothing of `inner` is registered, and nobody refers to it.
    unsafe fn free(inner: NonNull<Inner<D>>) {
        // SAFETY: By the contract the box is ours alone.
        let mut inner = unsafe { KBox::from_raw(inner.as_ptr()) };
        // SAFETY: The data is not used again.
        unsafe { ManuallyDrop::drop(&mut inner.data) };
    }

    /// Someone still refers to the type, or holds an instance's device, whose release will look at
    /// the type and the driver: gives the memory up rather than let that read freed memory.
    ///
    /// # Safety
    ///
    /// Nothing of `inner` is registered, and its callbacks have ended.
    unsafe fn abandon(dev: &Device, inner: NonNull<Inner<D>>) {
        dev_warn!(dev, "mdev type is still referred to: its memory is kept\n");
        // SAFETY: Only callbacks use the data.
        unsafe { ManuallyDrop::drop(&mut (*inner.as_ptr()).data) };
    }

    /// # Safety
    ///
    /// `ty` is the type of a registered parent of driver `D`, and stays so for `'a`.
    unsafe fn data<'a>(ty: *mut bindings::mdev_type) -> &'a D::Parent {
        // CAST: `ty` is the first field of the `repr(C)` structure `Inner`.
        // SAFETY: By the contract. No `&mut` to `data` exists while the parent is registered.
        unsafe { &(*ty.cast::<Inner<D>>()).data }
    }

    /// # Safety
    ///
    /// For the mdev core only, with what its driver table promises.
    unsafe extern "C" fn probe(mdev: *mut bindings::mdev_device) -> c_int {
        // SAFETY: The mdev core calls with a live device whose type belongs to the registered
        // parent of this driver.
        let (dev, parent) = unsafe { (&*mdev.cast::<Instance>(), Self::data((*mdev).type_)) };
        from_result(|| {
            let instance = KBox::new(D::probe(parent, dev)?, GFP_KERNEL)?;
            let dev = device_ptr(dev.device());
            // SAFETY: The device is live, and its driver data is the driver's to set in `probe`.
            unsafe { bindings::dev_set_drvdata(dev, KBox::into_raw(instance).cast()) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For the mdev core only, with what its driver table promises.
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

    /// # Safety
    ///
    /// For the mdev core only, with what its driver table promises.
    unsafe extern "C" fn get_available(ty: *mut bindings::mdev_type) -> c_uint {
        // SAFETY: The mdev core calls with the type of a registered parent of this driver.
        D::available(unsafe { Self::data(ty) })
    }

    /// # Safety
    ///
    /// For the mdev core only, with what its driver table promises.
    unsafe extern "C" fn show_description(ty: *mut bindings::mdev_type, buf: *mut c_char) -> isize {
        // SAFETY: The mdev core calls with the type of a registered parent of this driver.
        let parent = unsafe { Self::data(ty) };
        // SAFETY: sysfs gives one zeroed page that nobody else uses during the call.
        let page = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), PAGE_SIZE) };
        let mut out = Formatter::new(page);
        if D::describe(parent, &mut out).is_err() || out.write_char('\n').is_err() {
            return ENOSPC.to_errno() as isize;
        }
        out.bytes_written().min(PAGE_SIZE) as isize
    }
}

impl<D: Driver> Drop for Parent<D> {
    fn drop(&mut self) {
        let inner = self.inner.as_ptr();
        // SAFETY: By the type's invariant. The core removes all instances, each with `remove`,
        // before it returns. The reference is ours, and nobody can get a new one.
        let is_released = unsafe {
            bindings::mdev_unregister_parent(&raw mut (*inner).parent);
            bindings::mdev_unregister_driver(&raw mut (*inner).driver);
            bindings::sluice_kobject_put_last(&raw mut (*inner).ty.kobj, TYPE_TIMEOUT_MS)
        };
        if is_released {
            // SAFETY: Nobody refers to the type any more, so nobody to the box.
            unsafe { Self::free(self.inner) };
        } else {
            // SAFETY: Nothing is registered any more, and only callbacks use the data.
            unsafe { Self::abandon(&self.dev, self.inner) };
        }
    }
}
