// SPDX-License-Identifier: GPL-2.0

//! VFIO devices without an IOMMU of their own.
//!
//! C header: [`include/linux/vfio.h`](srctree/include/linux/vfio.h)

use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};

use kernel::{
    device::Device,
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    ffi::{
        c_char,
        c_int,
        c_long,
        c_uint,
        c_ulong, //
    },
    ioctl::_IO,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow,
        Completion, //
    },
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

use super::{
    bindings,
    container::Container,
    sysfs::device_ptr, //
};

/// log2 of the distance between two regions in the device file.
const REGION_SHIFT: u32 = 40;

const fn command(number: u32) -> u32 {
    _IO(bindings::VFIO_TYPE as u32, bindings::VFIO_BASE + number)
}

const DEVICE_GET_INFO: u32 = command(7);
const DEVICE_GET_IRQ_INFO: u32 = command(9);
const DEVICE_SET_IRQS: u32 = command(10);
const DEVICE_RESET: u32 = command(11);

/// A region of the device file, as the VMM asks about it.
#[derive(Clone, Copy)]
pub(crate) struct RegionInfo {
    /// Size in bytes; 0 for a region that is not there.
    pub(crate) len_bytes: u64,
    /// `VFIO_REGION_INFO_FLAG_*`.
    pub(crate) flags: u32,
}

/// A place in the device file: region `index` at `offset`.
#[derive(Clone, Copy)]
pub(crate) struct Position {
    /// Which region.
    pub(crate) index: u32,
    /// Offset within the region, in bytes, below 2^40.
    pub(crate) offset: u64,
}

/// A group of interrupts, as the VMM asks about it.
#[derive(Clone, Copy)]
pub(crate) struct IrqInfo {
    /// How many there are.
    pub(crate) count: u32,
    /// `VFIO_IRQ_INFO_*`.
    pub(crate) flags: u32,
}

/// What `VFIO_DEVICE_SET_IRQS` wants done to its interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IrqAction {
    /// Hold them back.
    Mask,
    /// Let them through.
    Unmask,
    /// Raise them, or say where they are to go.
    Trigger,
}

/// What comes with a `VFIO_DEVICE_SET_IRQS`.
#[derive(Clone, Copy)]
pub(crate) enum IrqData<'a> {
    /// Nothing: the action goes for all in the range.
    None,
    /// One byte each: the action goes for those that are not zero.
    Bool(&'a [u8]),
    /// One file descriptor each: signal this; -1: nothing.
    EventFd(&'a [i32]),
}

/// A `VFIO_DEVICE_SET_IRQS` whose range lies within its index, and whose data covers the range.
pub(crate) struct IrqRequest<'a> {
    /// Which group of interrupts.
    pub(crate) index: u32,
    /// The first one.
    pub(crate) start: u32,
    /// How many.
    pub(crate) count: u32,
    /// What to do.
    pub(crate) action: IrqAction,
    /// To which of them, or with what.
    pub(crate) data: IrqData<'a>,
}

/// Most interrupts in one group that this wrapper handles.
pub(crate) const IRQS_MAX: usize = 8;

/// A device that a VMM can open. All calls come from the VMM's threads and may sleep; all but
/// `open` and `close` may come from several threads at once.
pub(crate) trait Operations: Send + Sync + 'static {
    /// `VFIO_DEVICE_FLAGS_*`.
    const FLAGS: u32;
    /// Number of region indices.
    const REGIONS: u32;
    /// Number of interrupt indices.
    const IRQ_INDICES: u32;
    /// Name of the driver.
    const NAME: &'static CStr;

    /// The first file descriptor was opened. `container` reaches the VMM's memory; it is to be
    /// dropped in `close`.
    fn open(this: ArcBorrow<'_, Self>, container: Container) -> Result;
    /// The last file descriptor was closed. Nothing may be pinned afterwards.
    fn close(&self);
    /// Reads from the device file; how many bytes it gave.
    fn read(&self, at: Position, to: &mut UserSliceWriter) -> Result<usize>;
    /// Writes to the device file; how many bytes it took.
    fn write(&self, at: Position, from: &mut UserSliceReader) -> Result<usize>;
    /// Region `index`, below [`Self::REGIONS`].
    fn region(&self, index: u32) -> RegionInfo;
    /// Interrupts `index`, below [`Self::IRQ_INDICES`].
    fn irqs(&self, index: u32) -> IrqInfo;
    /// Sets interrupts up or raises them.
    fn set_irqs(&self, request: &IrqRequest<'_>) -> Result;
    /// Resets the device.
    fn reset(&self) -> Result;
    /// The administrator wants the device back, asked for the `count`-th time.
    fn request(&self, count: u32);
    /// The VMM unmaps memory: returns only when nothing in the range is pinned.
    fn dma_unmap(&self, iova: u64, len_bytes: u64);
}

/// A VFIO device with what stands behind it.
#[repr(C)]
struct Inner<T> {
    raw: bindings::vfio_device,
    /// Null, or an `Arc` given up by `into_raw`.
    data: *const T,
    /// Null, or an `Arc` given up by `into_raw`: complete when the device is released.
    released: *const Completion,
    /// Null, or the task that waits for that.
    waiter: *const bindings::task_struct,
}

/// The reference to a VFIO device that came with it. Dropping it waits for the device's end.
///
/// # Invariants
///
/// The pointer is a device made by `new`, not registered when this is dropped; the reference is
/// this object's.
struct Allocated<T> {
    inner: NonNull<Inner<T>>,
    released: Arc<Completion>,
}

impl<T> Allocated<T> {
    fn raw(&self) -> *mut bindings::vfio_device {
        // CAST: `raw` is the first field of the `repr(C)` structure `Inner`.
        self.inner.as_ptr().cast()
    }
}

impl<T> Drop for Allocated<T> {
    fn drop(&mut self) {
        let inner = self.inner.as_ptr();
        // SAFETY: By the type's invariant. Nobody else looks at `waiter` before the last reference
        // is dropped.
        unsafe {
            (*inner).waiter = bindings::sluice_current();
            bindings::put_device(&raw mut (*inner).raw.device);
        }
        // The last reference may be another's, who has it for a moment, and
        // CONFIG_DEBUG_KOBJECT_RELEASE puts the end off. It needs our table, and frees our data: the
        // card and this module must last that long. Nobody new can refer to the device.
        self.released.wait_for_completion();
    }
}

/// A VFIO device that is registered. Dropping it waits until nobody has it open, or refers to it.
///
/// # Invariants
///
/// The device is registered.
pub(crate) struct Registration<T: Operations>(Allocated<T>, PhantomData<Arc<T>>);

// SAFETY: VFIO has its own locks, and `T` is `Send` and `Sync`.
unsafe impl<T: Operations> Send for Registration<T> {}
// SAFETY: As above.
unsafe impl<T: Operations> Sync for Registration<T> {}

impl<T: Operations> Registration<T> {
    /// Makes `data` a VFIO device on top of `dev`, a mediated device.
    pub(crate) fn new(dev: &Device, data: Arc<T>) -> Result<Self> {
        let released = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        // SAFETY: The size covers a `vfio_device` at offset 0, `dev` is live, and the table is
        // static. The device keeps a reference to `dev` from registration on.
        let raw = from_err_ptr(unsafe {
            bindings::_vfio_alloc_device(
                core::mem::size_of::<Inner<T>>(),
                device_ptr(dev),
                &Self::TABLE,
            )
        })?;
        let inner = NonNull::new(raw.cast::<Inner<T>>()).ok_or(ENOMEM)?;
        // SAFETY: The allocation is ours alone until it is registered, and zeroed.
        unsafe {
            (*inner.as_ptr()).data = Arc::into_raw(data);
            (*inner.as_ptr()).released = Arc::into_raw(released.clone());
        }
        // INVARIANT: Made above, with a reference that is ours.
        let allocated = Allocated { inner, released };
        // SAFETY: The device is complete; `release` is called exactly once, by the last put.
        to_result(unsafe { bindings::vfio_register_emulated_iommu_dev(raw) })?;
        // INVARIANT: Registered above.
        Ok(Self(allocated, PhantomData))
    }

    const TABLE: bindings::vfio_device_ops = bindings::vfio_device_ops {
        name: T::NAME.to_bytes_with_nul().as_ptr().cast_mut().cast(),
        release: Some(Self::release),
        open_device: Some(Self::open_device),
        close_device: Some(Self::close_device),
        read: Some(Self::read),
        write: Some(Self::write),
        ioctl: Some(Self::ioctl),
        get_region_info_caps: Some(Self::get_region_info_caps),
        mmap: Some(Self::mmap),
        request: Some(Self::request),
        dma_unmap: Some(Self::dma_unmap),
        #[cfg(CONFIG_IOMMUFD)]
        bind_iommufd: Some(bindings::vfio_iommufd_emulated_bind),
        #[cfg(CONFIG_IOMMUFD)]
        unbind_iommufd: Some(bindings::vfio_iommufd_emulated_unbind),
        #[cfg(CONFIG_IOMMUFD)]
        attach_ioas: Some(bindings::vfio_iommufd_emulated_attach_ioas),
        #[cfg(CONFIG_IOMMUFD)]
        detach_ioas: Some(bindings::vfio_iommufd_emulated_detach_ioas),
        // SAFETY: All bytes zero are a valid table of no operations.
        ..unsafe { core::mem::zeroed() }
    };

    /// # Safety
    ///
    /// `vdev` is a device made by `new`, and stays so for `'a`.
    unsafe fn data<'a>(vdev: *mut bindings::vfio_device) -> &'a T {
        // CAST: `raw` is the first field of the `repr(C)` structure `Inner`.
        // SAFETY: By the contract; `data` is set before registration and cleared in `release`.
        unsafe { &*(*vdev.cast::<Inner<T>>()).data }
    }

    /// # Safety
    ///
    /// For the VFIO core only, with what its operations table promises.
    unsafe extern "C" fn release(vdev: *mut bindings::vfio_device) {
        let inner = vdev.cast::<Inner<T>>();
        // SAFETY: VFIO calls this once, when nobody refers to the device any more. The pointers
        // are null or came from `Arc::into_raw`.
        unsafe {
            if !(*inner).data.is_null() {
                drop(Arc::from_raw((*inner).data));
            }
            if !ptr::eq((*inner).waiter, bindings::sluice_current()) {
                bindings::sluice_text_in_use();
            }
            if !(*inner).released.is_null() {
                Arc::from_raw((*inner).released).complete_all();
            }
        }
    }

    /// # Safety
    ///
    /// For the VFIO core only, with what its operations table promises.
    unsafe extern "C" fn open_device(vdev: *mut bindings::vfio_device) -> c_int {
        from_result(|| {
            // SAFETY: VFIO calls with a registered device, whose reference count is not zero.
            let container = unsafe { Container::new(vdev) };
            // SAFETY: As in `data`; the pointer came from `Arc::into_raw`.
            let data = unsafe { ArcBorrow::from_raw((*vdev.cast::<Inner<T>>()).data) };
            T::open(data, container)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For the VFIO core only, with what its operations table promises.
    unsafe extern "C" fn close_device(vdev: *mut bindings::vfio_device) {
        // SAFETY: VFIO calls with a registered device.
        unsafe { Self::data(vdev) }.close();
    }

    /// Where in the device file `offset` lies.
    fn position(offset: i64) -> Result<Position> {
        let offset = u64::try_from(offset).map_err(|_| EINVAL)?;
        let index = (offset >> REGION_SHIFT) as u32;
        if index >= T::REGIONS {
            return Err(EINVAL);
        }
        Ok(Position {
            index,
            offset: offset & ((1 << REGION_SHIFT) - 1),
        })
    }

    /// # Safety
    ///
    /// For the VFIO core only, with what its operations table promises.
    unsafe extern "C" fn read(
        vdev: *mut bindings::vfio_device,
        buf: *mut c_char,
        count: usize,
        ppos: *mut bindings::loff_t,
    ) -> isize {
        from_result(|| {
            // SAFETY: VFIO calls with a registered device and the file's position.
            let (data, start) = unsafe { (Self::data(vdev), *ppos) };
            let mut to = UserSlice::new(UserPtr::from_ptr(buf.cast()), count).writer();
            let done = data.read(Self::position(start)?, &mut to)?;
            // SAFETY: As above.
            unsafe { *ppos = start.saturating_add(done as i64) };
            Ok(done as isize)
        })
    }

    /// # Safety
    ///
    /// For the VFIO core only, with what its operations table promises.
    unsafe extern "C" fn write(
        vdev: *mut bindings::vfio_device,
        buf: *const c_char,
        count: usize,
        ppos: *mut bindings::loff_t,
    ) -> isize {
        from_result(|| {
            // SAFETY: VFIO calls with a registered device and the file's position.
            let (data, start) = unsafe { (Self::data(vdev), *ppos) };
            let mut from = UserSlice::new(UserPtr::from_ptr(buf.cast_mut().cast()), count).reader();
            let done = data.write(Self::position(start)?, &mut from)?;
            // SAFETY: As above.
            unsafe { *ppos = start.saturating_add(done as i64) };
            Ok(done as isize)
        })
    }

    /// # Safety
    ///
    /// For the VFIO core only, with what its operations table promises.
    unsafe extern "C" fn get_region_info_caps(
        vdev: *mut bindings::vfio_device,
        info: *mut bindings::vfio_region_info,
        _caps: *mut bindings::vfio_info_cap,
    ) -> c_int {
        from_result(|| {
            // SAFETY: VFIO calls with a registered device and its own copy of the question, with
            // `argsz` checked.
            let (data, info) = unsafe { (Self::data(vdev), &mut *info) };
            if info.index >= T::REGIONS {
                return Err(EINVAL);
            }
            let region = data.region(info.index);
            info.offset = u64::from(info.index) << REGION_SHIFT;
            info.size = region.len_bytes;
            info.flags = region.flags;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For the VFIO core only, with what its operations table promises.
    unsafe extern "C" fn mmap(
        _vdev: *mut bindings::vfio_device,
        _vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // No region says that it can be mapped.
        EINVAL.to_errno()
    }

    /// # Safety
    ///
    /// For the VFIO core only, with what its operations table promises.
    unsafe extern "C" fn request(vdev: *mut bindings::vfio_device, count: c_uint) {
        // SAFETY: VFIO calls with a device that is being unregistered but still referred to.
        unsafe { Self::data(vdev) }.request(count);
    }

    /// # Safety
    ///
    /// For the VFIO core only, with what its operations table promises.
    unsafe extern "C" fn dma_unmap(vdev: *mut bindings::vfio_device, iova: u64, len_bytes: u64) {
        // SAFETY: VFIO calls with a registered device.
        unsafe { Self::data(vdev) }.dma_unmap(iova, len_bytes);
    }

    /// # Safety
    ///
    /// For the VFIO core only, with what its operations table promises.
    unsafe extern "C" fn ioctl(
        vdev: *mut bindings::vfio_device,
        cmd: c_uint,
        arg: c_ulong,
    ) -> c_long {
        // SAFETY: VFIO calls with a registered device.
        let data = unsafe { Self::data(vdev) };
        let arg = UserPtr::from_addr(arg);
        let result = match cmd {
            DEVICE_GET_INFO => Self::get_info(arg),
            DEVICE_GET_IRQ_INFO => Self::get_irq_info(data, arg),
            DEVICE_SET_IRQS => Self::set_irqs(data, arg),
            DEVICE_RESET => data.reset(),
            _ => Err(ENOTTY),
        };
        match result {
            Ok(()) => 0,
            Err(error) => error.to_errno() as c_long,
        }
    }

    /// `struct vfio_device_info`: argsz, flags, num_regions, num_irqs; no capabilities.
    fn get_info(arg: UserPtr) -> Result {
        let [argsz] = read_words(arg)?;
        const LEN: u32 = 16;
        if argsz < LEN {
            return Err(EINVAL);
        }
        // A VMM with room for the capability offset learns that there is none.
        let answer = [LEN, T::FLAGS, T::REGIONS, T::IRQ_INDICES, 0];
        let words = if argsz >= LEN + 4 { 5 } else { 4 };
        write_words(arg, answer.get(..words).ok_or(EINVAL)?)
    }

    /// `struct vfio_irq_info`: argsz, flags, index, count.
    fn get_irq_info(data: &T, arg: UserPtr) -> Result {
        let [argsz, _flags, index] = read_words(arg)?;
        if argsz < 16 || index >= T::IRQ_INDICES {
            return Err(EINVAL);
        }
        let info = data.irqs(index);
        write_words(arg, &[argsz, info.flags, index, info.count])
    }

    /// `struct vfio_irq_set`: argsz, flags, index, start, count, data.
    fn set_irqs(data: &T, arg: UserPtr) -> Result {
        let [argsz, flags, index, start, count] = read_words(arg)?;
        let irqs = if index < T::IRQ_INDICES {
            data.irqs(index).count.min(IRQS_MAX as u32)
        } else {
            0
        };
        let mut header = bindings::vfio_irq_set {
            argsz,
            flags,
            index,
            start,
            count,
            ..Default::default()
        };
        let mut data_bytes = 0usize;
        // SAFETY: The header is our own copy; the function only looks at it.
        to_result(unsafe {
            bindings::vfio_set_irqs_validate_and_prepare(
                &mut header,
                irqs as c_int,
                T::IRQ_INDICES as c_int,
                &mut data_bytes,
            )
        })?;
        let action = match flags & bindings::VFIO_IRQ_SET_ACTION_TYPE_MASK {
            bindings::VFIO_IRQ_SET_ACTION_MASK => IrqAction::Mask,
            bindings::VFIO_IRQ_SET_ACTION_UNMASK => IrqAction::Unmask,
            bindings::VFIO_IRQ_SET_ACTION_TRIGGER => IrqAction::Trigger,
            _ => return Err(EINVAL),
        };

        let mut bytes = [0u8; 4 * IRQS_MAX];
        let mut fds = [-1i32; IRQS_MAX];
        let bytes = bytes.get_mut(..data_bytes).ok_or(EINVAL)?;
        let mut from = UserSlice::new(arg, 20 + data_bytes).reader();
        from.skip(20)?;
        from.read_slice(bytes)?;
        let data_kind = match flags & bindings::VFIO_IRQ_SET_DATA_TYPE_MASK {
            bindings::VFIO_IRQ_SET_DATA_NONE => IrqData::None,
            bindings::VFIO_IRQ_SET_DATA_BOOL => IrqData::Bool(bytes),
            bindings::VFIO_IRQ_SET_DATA_EVENTFD => {
                let mut len = 0;
                for (fd, raw) in fds.iter_mut().zip(bytes.chunks_exact(4)) {
                    *fd = raw.try_into().map(i32::from_ne_bytes).map_err(|_| EINVAL)?;
                    len += 1;
                }
                IrqData::EventFd(fds.get(..len).ok_or(EINVAL)?)
            }
            _ => return Err(EINVAL),
        };
        data.set_irqs(&IrqRequest {
            index,
            start,
            count,
            action,
            data: data_kind,
        })
    }
}

impl<T: Operations> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the device is registered.
        unsafe { bindings::vfio_unregister_group_dev(self.0.raw()) };
    }
}

/// Copies `N` native-endian words from the start of a user's structure.
fn read_words<const N: usize>(from: UserPtr) -> Result<[u32; N]> {
    let mut words = [0; N];
    let mut reader = UserSlice::new(from, 4 * N).reader();
    for word in &mut words {
        *word = reader.read::<u32>()?;
    }
    Ok(words)
}

/// Copies native-endian words to the start of a user's structure.
fn write_words(to: UserPtr, words: &[u32]) -> Result {
    let mut writer = UserSlice::new(to, 4 * words.len()).writer();
    words.iter().try_for_each(|word| writer.write(word))
}
