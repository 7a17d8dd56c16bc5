// SPDX-License-Identifier: GPL-2.0

//! PCI drivers that hear of bus errors and of the host's sleep, of which the `kernel` crate's
//! adapter knows nothing.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use core::mem::offset_of;

use kernel::{
    bindings,
    device,
    driver::{
        DriverLayout,
        RegistrationOps, //
    },
    error::from_result,
    pci,
    prelude::*,
    types::Opaque,
    ThisModule, //
};

/// What a driver does beside [`pci::Driver`]. All of it is called with the device bound, and may
/// sleep.
pub(crate) trait Driver: pci::Driver {
    /// The bus reports an error that the device may have come through.
    fn bus_error(data: Pin<&Self::Data<'_>>);
    /// The device is cut off from the bus, or about to be reset by somebody else.
    fn lost(data: Pin<&Self::Data<'_>>, reason: &str);
    /// The host is about to sleep; an error keeps it awake. User space stands still already.
    fn prepare_sleep(data: Pin<&Self::Data<'_>>) -> Result;
    /// The host goes to sleep: the device is to come to rest.
    fn sleep(data: Pin<&Self::Data<'_>>) -> Result;
    /// Ends [`Self::sleep`], whether the device lost power or not.
    fn wake(data: Pin<&Self::Data<'_>>);
}

/// As [`pci::Adapter`], for a [`Driver`].
pub(crate) struct Adapter<T>(T);

// SAFETY: As for `pci::Adapter`, whose layout this has.
unsafe impl<T: Driver> DriverLayout for Adapter<T> {
    type DriverType = bindings::pci_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(bindings::pci_driver, driver);
}

// SAFETY: `unregister` undoes what `register` did: both are `pci::Adapter`'s.
unsafe impl<T: Driver + 'static> RegistrationOps for Adapter<T> {
    unsafe fn register(
        pdrv: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: The structure is the caller's own until it is registered; both tables are static.
        unsafe {
            (*pdrv.get()).err_handler = &Self::ERRORS;
            (*pdrv.get()).driver.pm = &Self::SLEEP;
        }
        // SAFETY: The caller's word, passed on.
        unsafe { pci::Adapter::<T>::register(pdrv, name, module) }
    }

    unsafe fn unregister(pdrv: &Opaque<Self::DriverType>) {
        // SAFETY: The caller's word, passed on.
        unsafe { pci::Adapter::<T>::unregister(pdrv) }
    }
}

impl<T: Driver> Adapter<T> {
    const ERRORS: bindings::pci_error_handlers = bindings::pci_error_handlers {
        error_detected: Some(Self::error_detected),
        slot_reset: Some(Self::slot_reset),
        reset_prepare: Some(Self::reset_prepare),
        // SAFETY: All bytes zero are a valid table of no handlers.
        ..unsafe { core::mem::zeroed() }
    };

    const SLEEP: bindings::dev_pm_ops = bindings::dev_pm_ops {
        prepare: Some(Self::prepare),
        suspend: Some(Self::suspend),
        freeze: Some(Self::suspend),
        poweroff: Some(Self::suspend),
        resume: Some(Self::resume),
        thaw: Some(Self::resume),
        restore: Some(Self::resume),
        // SAFETY: All bytes zero are a valid table of no operations.
        ..unsafe { core::mem::zeroed() }
    };

    /// What the driver keeps for a device.
    ///
    /// # Safety
    ///
    /// `dev` is the device of a `pci_dev` that is bound to this driver and stays so for `'a`.
    unsafe fn data<'a>(dev: *mut bindings::device) -> Pin<&'a T::Data<'a>> {
        // CAST: `device::Device` is `repr(transparent)` over `struct device`.
        // SAFETY: By the contract the device is valid, and `pci::Adapter`'s probe has stored the
        // data, which stays until after unbinding.
        unsafe { (*dev.cast::<device::Device<device::BoundInternal>>()).drvdata_borrow() }
    }

    /// # Safety
    ///
    /// For the PCI core only: the device is locked and bound to this driver.
    unsafe extern "C" fn error_detected(
        pdev: *mut bindings::pci_dev,
        state: bindings::pci_channel_state_t,
    ) -> bindings::pci_ers_result_t {
        // SAFETY: By this function's requirement.
        let data = unsafe { Self::data(&raw mut (*pdev).dev) };
        if state == PCI_CHANNEL_IO_NORMAL {
            T::bus_error(data);
            // Nothing more is wanted: the other port may be another driver's, which goes on.
            return bindings::pci_ers_result_PCI_ERS_RESULT_CAN_RECOVER;
        }
        T::lost(data, "the bus has failed");
        bindings::pci_ers_result_PCI_ERS_RESULT_DISCONNECT
    }

    /// # Safety
    ///
    /// For the PCI core only: the device is locked and bound to this driver.
    unsafe extern "C" fn slot_reset(pdev: *mut bindings::pci_dev) -> bindings::pci_ers_result_t {
        // SAFETY: By this function's requirement.
        let data = unsafe { Self::data(&raw mut (*pdev).dev) };
        // What was there before the reset cannot be made again under the slices' feet.
        T::lost(data, "the bus was reset");
        // No word on the other port, whose driver may have recovered it.
        bindings::pci_ers_result_PCI_ERS_RESULT_NONE
    }

    /// # Safety
    ///
    /// For the PCI core only: the device is locked and bound to this driver.
    unsafe extern "C" fn reset_prepare(pdev: *mut bindings::pci_dev) {
        // SAFETY: By this function's requirement.
        let data = unsafe { Self::data(&raw mut (*pdev).dev) };
        T::lost(data, "the administrator resets the function");
    }

    /// # Safety
    ///
    /// For the power management core only: the device is locked and bound to this driver.
    unsafe extern "C" fn prepare(dev: *mut bindings::device) -> c_int {
        // SAFETY: By this function's requirement.
        let data = unsafe { Self::data(dev) };
        from_result(|| T::prepare_sleep(data).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for `prepare`.
    unsafe extern "C" fn suspend(dev: *mut bindings::device) -> c_int {
        // SAFETY: By this function's requirement.
        let data = unsafe { Self::data(dev) };
        from_result(|| T::sleep(data).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for `prepare`.
    unsafe extern "C" fn resume(dev: *mut bindings::device) -> c_int {
        // SAFETY: By this function's requirement.
        T::wake(unsafe { Self::data(dev) });
        0
    }
}

/// `pci_channel_io_normal`, a macro that bindgen leaves out.
const PCI_CHANNEL_IO_NORMAL: bindings::pci_channel_state_t = 1;
