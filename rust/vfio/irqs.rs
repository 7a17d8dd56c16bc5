// SPDX-License-Identifier: GPL-2.0

//! Interrupts: which eventfd the VMM wants signalled for which vector (invariant 6).

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLock, //
    },
    task::Task, //
};

use sluice_core::{
    handover::Pending,
    patience::Patience,
    platform,
    vf::irq::VECTORS, //
};

use crate::sys::{
    bindings,
    eventfd::EventFd,
    time::now_ns,
    vfio::{
        IrqAction,
        IrqData,
        IrqInfo,
        IrqRequest, //
    },
    word::Word, //
};

/// Number of interrupt indices of a PCI device.
pub(super) const INDICES: u32 = bindings::VFIO_PCI_NUM_IRQS;

const MSIX: u32 = bindings::VFIO_PCI_MSIX_IRQ_INDEX;
const REQUEST: u32 = bindings::VFIO_PCI_REQ_IRQ_INDEX;

const VECTOR_COUNT: usize = VECTORS as usize;

/// Where the interrupts of one index go.
struct Lines<const N: usize> {
    /// The VMM has set the index up and not disabled it since.
    enabled: bool,
    fds: [Option<EventFd>; N],
}

impl<const N: usize> Lines<N> {
    const fn new() -> Self {
        Self {
            enabled: false,
            fds: [const { None }; N],
        }
    }

    /// Signals a line, if the VMM wants it.
    fn signal(&self, index: u8) {
        if let Some(Some(fd)) = self.fds.get(usize::from(index)) {
            fd.signal();
        }
    }

    /// The lines of a request, whose range may be empty.
    fn range(&mut self, start: usize, count: usize) -> Result<&mut [Option<EventFd>]> {
        let end = start.checked_add(count).ok_or(EINVAL)?;
        self.fds.get_mut(start..end).ok_or(EINVAL)
    }
}

/// All interrupts of a slice. The VMM's threads set them up, the worker signals them.
///
/// What a signal costs is the VMM's to choose: all that waits for an eventfd runs within it. While
/// that takes long, signals are left to the slice's helper, at nobody else's cost (invariant 10).
#[pin_data]
pub(crate) struct Irqs {
    #[pin]
    msix: SpinLock<Lines<VECTOR_COUNT>>,
    #[pin]
    request: SpinLock<Lines<1>>,
    /// Of the slice and not of who has it open: opening it again would be a way around.
    #[pin]
    patience: SpinLock<Patience>,
    /// Vectors that the helper is to signal, one bit each.
    owed: Pending<Word>,
    #[pin]
    helper: SpinLock<Option<ARef<Task>>>,
    /// Signals that were left to the helper since the slice was made.
    deferred: Atomic<u64>,
}

impl Irqs {
    /// Nothing is set up.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            msix <- new_spinlock!(Lines::new()),
            request <- new_spinlock!(Lines::new()),
            patience <- new_spinlock!(Patience::new()),
            owed: Pending::new(Word::new()),
            helper <- new_spinlock!(None),
            deferred: Atomic::new(0),
        })
    }

    /// Who calls [`Self::signal_owed`] when it [is owed](Self::is_owed), if it is woken for that.
    pub(super) fn set_helper(&self, helper: ARef<Task>) {
        let old = self.helper.lock().replace(helper);
        drop(old);
    }

    /// What there is of `index`: MSI-X and the wish to have the device back, no INTx, no MSI.
    pub(super) fn info(index: u32) -> IrqInfo {
        let count = match index {
            MSIX => VECTOR_COUNT as u32,
            REQUEST => 1,
            _ => 0,
        };
        IrqInfo {
            count,
            flags: if count != 0 {
                bindings::VFIO_IRQ_INFO_EVENTFD
            } else {
                0
            },
        }
    }

    /// `VFIO_DEVICE_SET_IRQS`, whose range has been checked against [`Self::info`].
    ///
    /// Nothing is masked here: MSI-X vectors are masked in the table, which the VMM keeps.
    /// `EINVAL`: raising what is not set up, or a file that is no eventfd. On an error nothing
    /// has changed.
    pub(super) fn set(&self, request: &IrqRequest<'_>) -> Result {
        if request.action != IrqAction::Trigger {
            return Err(ENOTTY);
        }
        match request.index {
            MSIX => set_lines(&self.msix, request),
            REQUEST => set_lines(&self.request, request),
            _ => Err(EINVAL),
        }
    }

    /// Forgets all eventfds, the helper, and what it was to do. It has ended.
    pub(super) fn clear(&self) {
        disable(&self.msix);
        disable(&self.request);
        let helper = self.helper.lock().take();
        drop(helper);
        let _ = self.owed.take();
    }

    /// Tells the VMM that the administrator wants the device back; whether it had asked for that.
    pub(super) fn request(&self) -> bool {
        self.request
            .lock()
            .fds
            .iter()
            .flatten()
            .map(EventFd::signal)
            .count()
            != 0
    }

    /// Signals an MSI-X vector, if the VMM wants it, or has the helper do it.
    fn signal(&self, vector: u8) {
        let start_ns = now_ns();
        if self.patience.lock().is_lost(start_ns) {
            self.defer(vector);
            return;
        }
        // Whoever has the lock may be in the middle of a long signal.
        let Some(lines) = self.msix.try_lock() else {
            self.defer(vector);
            return;
        };
        lines.signal(vector);
        drop(lines);
        self.patience.lock().took(start_ns, now_ns());
    }

    fn defer(&self, vector: u8) {
        self.deferred.add(1, Relaxed);
        if self.owed.post(1 << vector) {
            if let Some(helper) = &*self.helper.lock() {
                helper.wake_up();
            }
        }
    }

    /// Whether [`Self::signal_owed`] has anything to do.
    pub(super) fn is_owed(&self) -> bool {
        self.owed.is_any()
    }

    /// Signals what was left to the helper, without regard to the time that it takes.
    pub(super) fn signal_owed(&self) {
        let owed = self.owed.take();
        (0..VECTORS)
            .filter(|vector| owed >> vector & 1 != 0)
            .for_each(|vector| self.msix.lock().signal(vector));
    }

    /// Signals that were left to the helper since the slice was made.
    pub(super) fn deferred(&self) -> u64 {
        self.deferred.load(Relaxed)
    }
}

/// Carries out a request on one index. Eventfds are got and put without the lock.
fn set_lines<const N: usize>(lines: &SpinLock<Lines<N>>, request: &IrqRequest<'_>) -> Result {
    let (start, count) = (request.start as usize, request.count as usize);
    match request.data {
        IrqData::None if count == 0 => disable(lines),
        IrqData::None => {
            let mut lines = lines.lock();
            if !lines.enabled {
                return Err(EINVAL);
            }
            lines
                .range(start, count)?
                .iter()
                .flatten()
                .for_each(EventFd::signal);
        }
        IrqData::Bool(wanted) => {
            let mut lines = lines.lock();
            if !lines.enabled {
                return Err(EINVAL);
            }
            for (fd, wanted) in lines.range(start, count)?.iter().zip(wanted) {
                if let (Some(fd), 1..) = (fd, *wanted) {
                    fd.signal();
                }
            }
        }
        IrqData::EventFd(fds) => {
            let mut new = [const { None }; N];
            for (slot, fd) in new.iter_mut().zip(fds) {
                *slot = match *fd {
                    -1 => None,
                    fd => Some(EventFd::from_fd(fd)?),
                };
            }
            let mut lines = lines.lock();
            lines
                .range(start, count)?
                .swap_with_slice(new.get_mut(..count).ok_or(EINVAL)?);
            lines.enabled = true;
            drop(lines);
            // What was there before goes here, after the lock.
            drop(new);
        }
    }
    Ok(())
}

fn disable<const N: usize>(lines: &SpinLock<Lines<N>>) {
    let old = core::mem::replace(&mut *lines.lock(), Lines::new());
    drop(old);
}

/// The worker's side of a slice's interrupts.
pub(crate) struct Signals(pub(super) Arc<Irqs>);

impl platform::Signals for Signals {
    fn signal(&mut self, vector: u8) {
        self.0.signal(vector);
    }
}
