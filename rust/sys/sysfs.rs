// SPDX-License-Identifier: GPL-2.0

//! Tables of sysfs attributes, one value in each file.
//!
//! A table of [`Attribute`]s says what the files of some type `T` are called and what they do.
//! [`Files`] puts such a table under a device for one `T`, for as long as it lives.
//!
//! C header: [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)

use core::{
    marker::PhantomPinned,
    ptr, //
};

use kernel::{
    device::{
        Device,
        DeviceContext, //
    },
    error::{
        from_result,
        to_result, //
    },
    fmt::Write as _,
    page::PAGE_SIZE,
    prelude::*,
    str::{
        CStr,
        CString,
        Formatter, //
    },
    sync::{
        aref::ARef,
        Arc,
        LockClassKey, //
    }, //
};

use super::bindings;

/// Prints a file's value, without the newline. Where it fails, so does the read.
pub(crate) type Show<T> = fn(&T, &mut Formatter<'_>) -> Result;

/// Takes a new value, with surrounding white space removed.
pub(crate) type Store<T> = fn(&T, &[u8]) -> Result;

/// Reads counter number `index` of a group. Where it fails, so does the read.
pub(crate) type Count<T> = fn(&T, index: usize) -> Result<u64>;

/// One file: its name, how it is read and, where it can be, written.
pub(crate) struct Attribute<T: 'static> {
    name: &'static str,
    show: Show<T>,
    store: Option<Store<T>>,
}

impl<T> Attribute<T> {
    /// A file that anyone may read.
    pub(crate) const fn ro(name: &'static str, show: Show<T>) -> Self {
        Self {
            name,
            show,
            store: None,
        }
    }

    /// A file that anyone may read and root may write.
    pub(crate) const fn rw(name: &'static str, show: Show<T>, store: Store<T>) -> Self {
        Self {
            name,
            show,
            store: Some(store),
        }
    }
}

/// What a file shows.
enum Value<T: 'static> {
    Attribute(&'static Attribute<T>),
    Counter(Count<T>, usize),
}

/// An attribute as sysfs knows it, tied to the object that it describes.
#[repr(C)]
struct Entry<T: 'static> {
    raw: bindings::device_attribute,
    value: Value<T>,
    object: *const T,
    _name: CString,
}

/// A group of files under a device. Dropping it removes them and waits for readers and writers.
///
/// # Invariants
///
/// `group` is registered under `dev`, and `entries`, `pointers` and `object` stay where they are
/// until it is removed. Every entry's `object` points into `object`.
pub(crate) struct Files<T: Send + Sync + 'static> {
    dev: ARef<Device>,
    group: KBox<bindings::attribute_group>,
    _pointers: KVec<*mut bindings::attribute>,
    _entries: KVec<Entry<T>>,
    _object: Arc<T>,
    _pin: PhantomPinned,
}

// SAFETY: The raw pointers lead only to what the object owns; `T` itself is `Send` and `Sync`.
unsafe impl<T: Send + Sync> Send for Files<T> {}
// SAFETY: A shared reference gives access to nothing.
unsafe impl<T: Send + Sync> Sync for Files<T> {}

impl<T: Send + Sync + 'static> Files<T> {
    /// Makes the files of `table` for `object` under `dev`: in a folder `group`, or beside the
    /// device's own files where that is `None`.
    ///
    /// Fails with `EEXIST` where a name is taken and `ENOMEM`. Must not outlive the device's
    /// presence in sysfs; callers drop it when their driver is unbound from `dev`. To lockdep,
    /// the files are locks of class `key`: held by readers and writers, awaited by the drop.
    pub(crate) fn new(
        dev: &Device,
        group: Option<&'static CStr>,
        table: &'static [Attribute<T>],
        object: Arc<T>,
        key: Pin<&'static LockClassKey>,
    ) -> Result<Self> {
        let values = table
            .iter()
            .map(|attribute| (attribute.name, Value::Attribute(attribute)));
        Self::with(dev, group, values, object, key)
    }

    /// Makes a folder `group` with one file for each of `names`, which shows the counter with the
    /// same position. Fails as [`Self::new`] does.
    pub(crate) fn counters(
        dev: &Device,
        group: &'static CStr,
        names: impl Iterator<Item = &'static str>,
        count: Count<T>,
        object: Arc<T>,
        key: Pin<&'static LockClassKey>,
    ) -> Result<Self> {
        let values = names
            .enumerate()
            .map(|(index, name)| (name, Value::Counter(count, index)));
        Self::with(dev, Some(group), values, object, key)
    }

    fn with(
        dev: &Device,
        group_name: Option<&'static CStr>,
        values: impl Iterator<Item = (&'static str, Value<T>)>,
        object: Arc<T>,
        _key: Pin<&'static LockClassKey>,
    ) -> Result<Self> {
        let mut entries = KVec::new();
        for (name, value) in values {
            let name = CString::try_from_fmt(fmt!("{name}"))?;
            let writable = matches!(&value, Value::Attribute(a) if a.store.is_some());
            // SAFETY: All bytes zero are a valid `device_attribute` without name or callbacks.
            let mut raw: bindings::device_attribute = unsafe { core::mem::zeroed() };
            raw.attr.name = name.as_char_ptr();
            raw.attr.mode = if writable { 0o644 } else { 0o444 };
            #[cfg(CONFIG_DEBUG_LOCK_ALLOC)]
            {
                raw.attr.key = _key.as_ptr();
            }
            raw.__bindgen_anon_1.show = Some(Self::show);
            raw.__bindgen_anon_2.store = Some(Self::store);
            let entry = Entry {
                raw,
                value,
                object: Arc::as_ptr(&object),
                _name: name,
            };
            entries.push(entry, GFP_KERNEL)?;
        }
        let mut pointers = KVec::with_capacity(entries.len() + 1, GFP_KERNEL)?;
        let base: *mut Entry<T> = entries.as_mut_ptr();
        for index in 0..entries.len() {
            // SAFETY: `index` is within `entries`; only the address of a field is taken.
            let attr = unsafe { &raw mut (*base.add(index)).raw.attr };
            pointers.push(attr, GFP_KERNEL)?;
        }
        pointers.push(ptr::null_mut(), GFP_KERNEL)?;

        // SAFETY: All bytes zero are a valid, empty `attribute_group`.
        let mut group: bindings::attribute_group = unsafe { core::mem::zeroed() };
        group.name = group_name.map_or(ptr::null(), |name| name.as_char_ptr());
        group.__bindgen_anon_2.attrs = pointers.as_mut_ptr();
        let group = KBox::new(group, GFP_KERNEL)?;

        // SAFETY: `dev` is a live device. The group, its null-terminated list and its attributes
        // live on the heap, owned by the object made below, which removes the group first.
        to_result(unsafe { bindings::sysfs_create_group(kobject(dev), &*group) })?;
        // INVARIANT: The group is registered. Moving the boxes and vectors below moves only
        // their handles.
        Ok(Self {
            dev: dev.into(),
            group,
            _pointers: pointers,
            _entries: entries,
            _object: object,
            _pin: PhantomPinned,
        })
    }

    /// # Safety
    ///
    /// `attr` is the `raw` field of an [`Entry`] of a registered [`Files`].
    unsafe fn entry<'a>(attr: *mut bindings::device_attribute) -> (&'a Value<T>, &'a T) {
        // CAST: `raw` is the first field of the `repr(C)` structure `Entry`.
        let entry = attr.cast::<Entry<T>>();
        // SAFETY: By the contract this is an entry. By the type's invariant the object lives as
        // long as the group is registered, and sysfs waits for running callbacks before
        // `sysfs_remove_group` returns. `raw` is not touched through the references made here.
        unsafe { (&(*entry).value, &*(*entry).object) }
    }

    /// # Safety
    ///
    /// For sysfs only, with an attribute that `new` registered.
    unsafe extern "C" fn show(
        _dev: *mut bindings::device,
        attr: *mut bindings::device_attribute,
        buf: *mut kernel::ffi::c_char,
    ) -> isize {
        // SAFETY: sysfs calls with an attribute that `new` registered.
        let (value, object) = unsafe { Self::entry(attr) };
        // SAFETY: sysfs gives one zeroed page that nobody else uses during the call.
        let page = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), PAGE_SIZE) };
        let mut out = Formatter::new(page);
        from_result(|| {
            match value {
                Value::Attribute(attribute) => (attribute.show)(object, &mut out)?,
                Value::Counter(count, index) => write!(out, "{}", count(object, *index)?)?,
            }
            out.write_char('\n')?;
            Ok(out.bytes_written().min(PAGE_SIZE) as isize)
        })
    }

    /// # Safety
    ///
    /// For sysfs only, with an attribute that `new` registered.
    unsafe extern "C" fn store(
        _dev: *mut bindings::device,
        attr: *mut bindings::device_attribute,
        buf: *const kernel::ffi::c_char,
        count: usize,
    ) -> isize {
        // SAFETY: sysfs calls with an attribute that `new` registered.
        let (value, object) = unsafe { Self::entry(attr) };
        // SAFETY: sysfs gives a kernel buffer of `count` bytes, valid during the call.
        let text = unsafe { core::slice::from_raw_parts(buf.cast::<u8>(), count) };
        from_result(|| {
            let Value::Attribute(Attribute {
                store: Some(store), ..
            }) = value
            else {
                return Err(EPERM);
            };
            store(object, text.trim_ascii())?;
            Ok(count as isize)
        })
    }
}

impl<T: Send + Sync + 'static> Drop for Files<T> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the group is registered under this device.
        unsafe { bindings::sysfs_remove_group(kobject(&self.dev), &*self.group) };
    }
}

/// The kobject of a device.
fn kobject(dev: &Device) -> *mut bindings::kobject {
    let raw = device_ptr(dev);
    // SAFETY: `dev` is a live device; only the address of a field is taken.
    unsafe { &raw mut (*raw).kobj }
}

/// The C object of a device.
pub(super) fn device_ptr<Ctx: DeviceContext>(dev: &Device<Ctx>) -> *mut bindings::device {
    // `Device` is `repr(transparent)` over `Opaque<struct device>`.
    ptr::from_ref(dev).cast_mut().cast()
}
