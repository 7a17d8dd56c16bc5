// SPDX-License-Identifier: GPL-2.0

//! One slice as a device that a VMM opens.

mod polling;
mod settings;

use kernel::{
    device::Device,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        ArcBorrow,
        Mutex,
        MutexGuard, //
    },
    uaccess::{
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

use sluice_core::{
    addr::{
        GuestAddr,
        PoolId,
        PAGE_SIZE, //
    },
    handover::{
        Door,
        Held,
        Pending, //
    },
    net::MacAddr,
    platform::HwQueue as _,
    slice::{
        Hardware,
        Limits,
        OpenError,
        Slice,
        Stopped, //
    },
    vf::{
        regs,
        Width, //
    }, //
};

use super::{
    irqs::{
        self,
        Irqs,
        Signals, //
    },
    platform::{
        KernelPlatform,
        Queue, //
    },
    posted::{
        self,
        Posted, //
    },
    regions::{
        self,
        Region,
        CHUNK_BYTES, //
    }, //
};
use crate::{
    ctl::{
        Ratelimit,
        Reason, //
    },
    nic::{
        Nic,
        PoolClaim, //
    },
    sys::{
        bindings,
        bounce::BouncePages,
        container::Container,
        fence::Fence,
        pin::{
            Pins,
            VfioPinner, //
        },
        random::random,
        thread::Thread,
        time::now_ns,
        vfio::{
            IrqInfo,
            IrqRequest,
            Operations,
            Position,
            RegionInfo, //
        },
        word::Word, //
    },
    worker::Pollable as _, //
};

/// Receive buffers that can be bounced at a time, one host page each: 1 MiB for an open slice. More
/// where everything is copied.
const BOUNCE_PAGES: usize = 256;

/// Most bytes that a slice keeps pinned unless the administrator says otherwise.
const PINNED_BYTES_DEFAULT: u64 = 64 << 20;

/// How often, every ten seconds, the VMM is asked for the slice before its hardware is taken from it.
const LAST_REQUEST: u32 = 2;

/// A slice: the model, the pool behind it, and the VMM's eventfds.
///
/// Locking: `state` is a sleeping lock, which the worker only tries: whatever a VMM does that takes
/// for ever (its memory may be a file system's that it serves itself), it holds up its own slice
/// and no other (invariants 7, 10). For the same reason the worker neither pins nor unpins: a
/// thread of the slice's own, the helper, polls in its place when a page is not pinned yet. Copies
/// from and to the VMM's memory are made without the lock.
#[pin_data]
pub(crate) struct SliceDev {
    dev: ARef<Device>,
    nic_dev: ARef<Device>,
    nic: Arc<Nic>,
    pool: PoolId,
    /// The link may have changed while somebody else had the lock, or nobody listened.
    link_pending: Atomic<bool>,
    irqs: Arc<Irqs>,
    pins: Arc<Pins>,
    /// Register writes that await the lock's holder.
    #[pin]
    posted: Posted,
    /// The worker wants the lock that somebody else has.
    waited_for: Atomic<bool>,
    /// An administrator has waited for the lock in vain, and it has not been let go since.
    held_long: Atomic<bool>,
    /// The helper is to take the hardware from the slice.
    withdrawn: Atomic<bool>,
    /// What there is for the helper to do.
    help_wanted: Pending<Word>,
    #[pin]
    log: Ratelimit,
    #[pin]
    state: Mutex<State>,
}

pub(crate) struct State {
    slice: Slice<KernelPlatform>,
    /// The pool; `None` once the slice is removed.
    claim: Option<PoolClaim>,
    pinned_bytes_max: u64,
    /// Pages given up before the slice was opened.
    leaked_before: u64,
    /// Polls when pages have to be pinned, while the slice is open.
    helper: Option<Thread<SliceDev>>,
}

impl Door for SliceDev {
    type Guard<'a> = MutexGuard<'a, State>;
    type Write = posted::Write;

    fn wait(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn attempt(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock()
    }

    fn note_in_vain(&self, in_vain: bool) -> bool {
        // Said after the lock was let go.
        if !in_vain && self.held_long.load(Relaxed) {
            self.held_long.store(false, Relaxed);
        }
        self.waited_for.xchg(in_vain, Full)
    }

    fn push(&self, write: posted::Write) -> bool {
        self.posted.push(write)
    }

    fn is_empty(&self) -> bool {
        self.posted.is_empty()
    }

    fn carry_out(&self, state: &mut MutexGuard<'_, State>) {
        let mut written = false;
        for (offset, value) in (0..posted::CAPACITY).map_while(|_| self.posted.pop()) {
            state
                .slice
                .mmio_write(offset, Width::Dword, value, now_ns());
            written = true;
        }
        if written && state.slice.take_kick() {
            // Now the worker would find the lock taken.
            self.waited_for.store(true, Relaxed);
        }
    }

    fn kick(&self) {
        self.nic.kick(self.pool);
    }
}

impl SliceDev {
    /// A closed slice `dev` on the pool of `claim`, with the address `mac`, which the pool has.
    pub(super) fn new(
        dev: &Device,
        nic_dev: &Device,
        claim: PoolClaim,
        mac: MacAddr,
    ) -> Result<Arc<Self>> {
        let irqs = Arc::pin_init(Irqs::new(), GFP_KERNEL)?;
        let pins = Arc::pin_init(Pins::new(nic_dev, Fence::new()?), GFP_KERNEL)?;
        Arc::pin_init(
            try_pin_init!(Self {
                dev: dev.into(),
                nic_dev: nic_dev.into(),
                nic: claim.nic().clone(),
                pool: claim.pool(),
                link_pending: Atomic::new(false),
                irqs,
                pins,
                posted <- Posted::new(),
                waited_for: Atomic::new(false),
                held_long: Atomic::new(false),
                withdrawn: Atomic::new(false),
                help_wanted: Pending::new(Word::new()),
                log <- Ratelimit::new(),
                state <- new_mutex!(State {
                    slice: Slice::new(mac),
                    claim: Some(claim),
                    pinned_bytes_max: PINNED_BYTES_DEFAULT,
                    leaked_before: 0,
                    helper: None,
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// Posts a register write; `false` if it has to be made under the lock. Does not wait.
    fn post_bytes(&self, region: Region, offset: u32, bytes: &[u8]) -> bool {
        let Ok(value) = <[u8; 4]>::try_from(bytes) else {
            return false;
        };
        if region != Region::Registers || !regs::is_postable(offset) {
            return false;
        }
        Door::post(self, (offset, u32::from_le_bytes(value)))
    }

    /// Gives the pool back, at once, though the worker may still hold a reference to the slice.
    pub(super) fn retire(&self) {
        let claim = self.enter().claim.take();
        drop(claim);
    }

    /// Does `change` to the slice, wakes the worker if that is wanted, and reports what broke.
    fn change<R>(&self, change: impl FnOnce(&mut Slice<KernelPlatform>) -> R) -> R {
        self.change_held(self.enter(), change)
    }

    /// As [`Self::change`], for those who have the lock.
    fn change_held<R>(
        &self,
        mut state: Held<'_, Self>,
        change: impl FnOnce(&mut Slice<KernelPlatform>) -> R,
    ) -> R {
        let result = change(&mut state.slice);
        let kick = state.slice.take_kick();
        let report = state.slice.take_report();
        drop(state);
        // Now that the worker can have the lock.
        if kick {
            self.kick();
        }
        self.report(report);
        result
    }

    fn report(&self, stopped: Option<Stopped>) {
        let Some(stopped) = stopped else {
            return;
        };
        match self.log.pass() {
            None => {}
            Some(0) => dev_warn!(self.dev, "queue stopped: {}\n", Reason(stopped)),
            Some(missed) => dev_warn!(
                self.dev,
                "queue stopped: {} ({missed} messages left out before)\n",
                Reason(stopped)
            ),
        }
    }

    /// Puts hardware away that was taken from the slice.
    fn put_away(&self, mut hardware: Hardware<KernelPlatform>) {
        // The NIC may use that memory for ever: nobody gets it (invariant 3). One that is gone and
        // cannot reach memory has stopped.
        if hardware.rx.stop().is_err() {
            dev_err!(
                self.dev,
                "the receive queue does not stop: its buffers are given up\n"
            );
            core::mem::forget(hardware.rx_bounce);
        }
        if hardware.tx.stop().is_err() {
            dev_err!(
                self.dev,
                "the transmit queue does not stop: its buffers are given up\n"
            );
            core::mem::forget(hardware.tx_bounce);
        }
    }

    /// Gives the slice its hardware.
    #[inline(never)] // Large on the stack.
    fn begin(&self, state: &mut State, container: Container) -> Result {
        let hardware = self.hardware(state, container)?;
        state
            .slice
            .open(hardware)
            .map_err(|(error, _)| match error {
                OpenError::Busy => EBUSY,
                OpenError::NoMemory => ENOMEM,
            })
    }

    /// What the pool, the VMM's memory and the settings make up.
    #[inline(never)] // Large on the stack.
    fn hardware(&self, state: &State, container: Container) -> Result<Hardware<KernelPlatform>> {
        let claim = state.claim.as_ref().ok_or(ENODEV)?;
        let (tx, rx) = claim.queues()?;
        let (mut tx, mut rx) = (Queue::Tx(tx), Queue::Rx(rx));
        // One that did not stop for the owner before is of no use, and gets no memory to lose.
        if tx.stop().is_err() || rx.stop().is_err() {
            if self.log.pass().is_some() {
                dev_err!(self.dev, "a queue does not stop: it cannot be used\n");
            }
            return Err(EIO);
        }
        let rx_bounce = BouncePages::new(&self.nic_dev, BOUNCE_PAGES)?;
        let tx_bounce = BouncePages::new(&self.nic_dev, 0)?;
        Ok(Hardware {
            pinner: VfioPinner::new(container, self.pins.clone())?,
            tx,
            rx,
            port: claim.port(),
            signals: Signals(self.irqs.clone()),
            tx_bounce,
            rx_bounce,
            limits: Limits {
                pinned_pages: u32::try_from(state.pinned_bytes_max / PAGE_SIZE)?,
                seed: random(),
            },
        })
    }
}

impl Operations for SliceDev {
    const FLAGS: u32 = bindings::VFIO_DEVICE_FLAGS_PCI | bindings::VFIO_DEVICE_FLAGS_RESET;
    const REGIONS: u32 = regions::INDICES;
    const IRQ_INDICES: u32 = irqs::INDICES;
    const NAME: &'static CStr = c"sluice";

    fn open(this: ArcBorrow<'_, Self>, container: Container) -> Result {
        this.pins.wait_for_limit();
        this.pins.fence.wait()?;
        if this.nic.is_leaving() {
            return Err(ENODEV);
        }
        let helper = Thread::run(c"sluice-pin", Arc::<Self>::from(this))?;
        let mut state = this.enter();
        this.begin(&mut state, container)?;
        this.irqs.set_helper(helper.task().clone());
        state.leaked_before = state.slice.map_stats().leaked;
        // Whoever wanted help before finds nobody to wake.
        helper.task().wake_up();
        state.helper = Some(helper);
        // A change after it was looked at, and before this is attached, is nobody else's to tell.
        this.link_pending.store(true, Relaxed);
        this.nic.attach(this.pool, Arc::<Self>::from(this));
        // Those that were attached when the NIC was lost have been told; from here on this is one.
        if this.nic.is_lost() {
            this.withdraw();
        }
        Ok(())
    }

    fn close(&self) {
        // The helper may be waiting for the lock: its end is awaited without.
        let helper = self.enter().helper.take();
        drop(helper);
        let mut state = self.enter();
        self.nic.detach(self.pool);
        // Before the end of what counts the time that it takes. Nothing is put off from here on.
        self.pins.settle();
        // Everything is unpinned when this returns: VFIO is about to drop the container.
        if let Some(hardware) = state.slice.close(now_ns()) {
            self.put_away(hardware);
        }
        let report = state.slice.take_report();
        drop(state);
        self.irqs.clear();
        self.report(report);
    }

    fn read(&self, at: Position, to: &mut UserSliceWriter) -> Result<usize> {
        let region = Region::new(at.index).ok_or(EINVAL)?;
        for_each_chunk(region, at.offset, to.len(), |offset, chunk| {
            self.change(|slice| region.read(slice, offset, chunk));
            to.write_slice(chunk)
        })
    }

    fn write(&self, at: Position, from: &mut UserSliceReader) -> Result<usize> {
        let region = Region::new(at.index).ok_or(EINVAL)?;
        for_each_chunk(region, at.offset, from.len(), |offset, chunk| {
            from.read_slice(chunk)?;
            if self.post_bytes(region, offset, chunk) {
                return Ok(());
            }
            let now_ns = now_ns();
            self.change(|slice| region.write(slice, offset, chunk, now_ns));
            Ok(())
        })
    }

    fn region(&self, index: u32) -> RegionInfo {
        Region::info(index)
    }

    fn irqs(&self, index: u32) -> IrqInfo {
        Irqs::info(index)
    }

    fn set_irqs(&self, request: &IrqRequest<'_>) -> Result {
        self.irqs.set(request)
    }

    fn reset(&self) -> Result {
        let now_ns = now_ns();
        self.change(|slice| slice.reset(now_ns));
        Ok(())
    }

    fn request(&self, count: u32) {
        // VFIO waits for one slice after the other. The VMMs of a whole card are not to wait for each other.
        let all = self.nic.is_leaving();
        if all && self.nic.ask() {
            dev_warn!(self.nic_dev, "taking the hardware of all slices away\n");
        }
        let asked = self.irqs.request();
        if count % 6 == 0 {
            dev_warn!(
                self.dev,
                "in use: {}, waiting until it lets go or ends\n",
                if asked {
                    "asked the VMM"
                } else {
                    "the VMM takes no requests"
                }
            );
        }
        if count == LAST_REQUEST {
            // Only the open file is left to wait for.
            if !(all && self.nic.is_taken()) {
                dev_warn!(self.dev, "taking the hardware away\n");
            }
            self.withdraw();
        }
    }

    fn dma_unmap(&self, iova: u64, len_bytes: u64) {
        // First, so that nothing is pinned again once it has been unpinned.
        self.pins.fence.raise(iova, len_bytes);
        let mut state = self.enter();
        state
            .slice
            .dma_unmap(GuestAddr::new(iova), len_bytes, now_ns());
        self.pins.settle();
        if state.slice.map_stats().leaked != state.leaked_before {
            // A queue did not stop, and pages of the range may still be pinned for it. VFIO stops
            // the host over that: the slice ends here, and what it cannot let go of is given up
            // (see `sys::pin::Page`). The VMM still has it open.
            if let Some(hardware) = state.slice.end(now_ns()) {
                self.put_away(hardware);
            }
        }
        let report = state.slice.take_report();
        drop(state);
        self.report(report);
    }
}

/// Calls `each` for pieces of `len` bytes from `offset` of the region on, none of which crosses a
/// multiple of [`CHUNK_BYTES`]. How many bytes were done; an error only where that is none.
fn for_each_chunk(
    region: Region,
    offset: u64,
    len: usize,
    mut each: impl FnMut(u32, &mut [u8]) -> Result,
) -> Result<usize> {
    if len == 0 {
        return Ok(0);
    }
    let len = region.clamp(offset, len)?;
    let mut buffer = [0; CHUNK_BYTES];
    let mut done = 0;
    while done < len {
        let at = offset as usize + done;
        let piece = (len - done).min(CHUNK_BYTES - at % CHUNK_BYTES);
        let chunk = buffer.get_mut(..piece).ok_or(EINVAL)?;
        match each(at as u32, chunk) {
            Ok(()) => done += piece,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}
