// SPDX-License-Identifier: GPL-2.0

//! The PCI driver. It takes only devices that the administrator gives to it by name.

use core::marker::PhantomData;

use kernel::{
    device::Core,
    device_id::IdArray,
    new_mutex,
    pci,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use super::{
    igb::Port,
    watch::Watch,
    Nic, //
};
use crate::{
    sys::{
        irq::Line,
        pci::{
            Enabled,
            Vectors, //
        },
        pci_driver, //
    },
    worker::Worker, //
};

/// No id at all, so that the driver never competes with the NIC's own one: the PCI core hands it a
/// device only when `driver_override` names it (`pci_match_device`).
static NO_IDS: IdArray<pci::DeviceId, (), 0> = IdArray::new_without_index([]);

/// What makes slices out of a NIC. Dropping it takes all slices away and waits until nobody uses
/// any of them.
pub(crate) trait Frontend: Send + Sized + 'static {
    /// Offers the NIC's pools. Called in probe, when the NIC and its worker run.
    fn start(pdev: &pci::Device<Core<'_>>, nic: Arc<Nic>) -> Result<Self>;
}

/// The PCI driver, for a frontend.
pub(crate) struct Driver<F>(PhantomData<F>);

/// Returns the port to its power-on state.
struct Released(Arc<Nic>);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.port.release();
        // It may have been lost just now, and nobody else looks any more.
        self.0.look();
    }
}

/// Keeps the port from interrupting, once it is dropped.
struct Audible(Arc<Nic>);

impl Drop for Audible {
    fn drop(&mut self) {
        self.0.port.silence();
    }
}

/// A NIC at work. Dropped field by field: the order is that of the comments.
struct Running<F> {
    /// First nobody may use a slice any more.
    _frontend: F,
    /// Then nobody looks whether it is still there,
    _watch: Watch,
    /// nothing is polled,
    _worker: Worker<Nic>,
    /// and nothing interrupts: by MSI-X, or by the line that the PCI core turns to after that.
    _audible: Audible,
    _lines: KVec<Line<Nic>>,
    /// A reset ends whatever the NIC still does.
    _released: Released,
    /// It can touch memory no more, and is as its next driver expects it.
    _enabled: Enabled,
    /// The shadow rings go last: a reset may have failed, but nothing masters the bus any more. A port of
    /// which that is not known keeps them, see `Nic::look`.
    nic: Arc<Nic>,
}

/// A NIC at work, until it is given back.
type Slot<F> = Option<KBox<Running<F>>>;

/// What the PCI core keeps for us.
pub(crate) struct Data<F> {
    // Taken out and dropped in `unbind`.
    running: Pin<KBox<Mutex<Slot<F>>>>,
}

impl<F: Frontend> Driver<F> {
    fn take_over(pdev: &pci::Device<Core<'_>>) -> Result<Running<F>> {
        let enabled = Enabled::new(pdev)?;
        let port = Port::new(pdev)?;
        let vectors = Vectors::new(pdev, 1, u32::from(port.vectors()))
            .inspect_err(|_| dev_err!(pdev, "no MSI-X vectors\n"))?;
        let vectors = Arc::new(vectors, GFP_KERNEL)?;
        let count = u8::try_from(vectors.count())?;
        let nic = Nic::new(pdev, port, count)?;
        let released = Released(nic.clone());

        // On an error these are dropped in the opposite order, which is the one of `Running`.
        let mut lines = KVec::new();
        for vector in 0..count {
            // A slash would be a folder in /proc/irq.
            let name = CString::try_from_fmt(fmt!("sluice-{}-{vector}", pdev.as_ref().name()))?;
            lines.push(Line::new(&vectors, vector, name, nic.clone())?, GFP_KERNEL)?;
        }
        let audible = Audible(nic.clone());
        let name = CString::try_from_fmt(fmt!("sluice/{}", pdev.as_ref().name()))?;
        let worker = Worker::start(&name, nic.mailbox.clone(), nic.clone())?;
        let gone = |_| EIO;
        nic.port.route_interrupts(nic.routing).map_err(gone)?;
        nic.port.start_link().map_err(|_| {
            dev_err!(pdev, "the PHY does not answer\n");
            EIO
        })?;
        let name = CString::try_from_fmt(fmt!("sluice-watch/{}", pdev.as_ref().name()))?;
        let watch = Watch::start(&name, nic.clone())?;
        let frontend = F::start(pdev, nic.clone())?;
        dev_info!(
            pdev,
            "{}: {} pools, {count} vectors, address {}\n",
            nic.chip(),
            nic.pools(),
            format_args!("{}", nic.mac())
        );
        Ok(Running {
            _frontend: frontend,
            _watch: watch,
            _worker: worker,
            _audible: audible,
            _lines: lines,
            _released: released,
            _enabled: enabled,
            nic,
        })
    }
}

impl<F: Frontend> pci::Driver for Driver<F> {
    type IdInfo = ();
    type Data<'bound> = Data<F>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &NO_IDS;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let running = KBox::new(Self::take_over(pdev)?, GFP_KERNEL)?;
        Ok(Data {
            running: KBox::pin_init(new_mutex!(Some(running)), GFP_KERNEL)?,
        })
    }

    fn unbind<'bound>(pdev: &'bound pci::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        let running = this.running.lock().take();
        if let Some(running) = &running {
            // All slices learn of it now, whichever VMM is waited for first: that the card is wanted back,
            // or gone.
            running.nic.leave();
            running.nic.ask();
            running.nic.look();
        }
        drop(running);
        dev_info!(pdev, "given back\n");
    }
}

impl<F: Frontend> Data<F> {
    /// Does `work` to the NIC, unless it is being given back.
    fn with_nic<R>(&self, work: impl FnOnce(&Nic) -> R) -> Option<R> {
        let running = self.running.lock();
        running.as_ref().map(|running| work(&running.nic))
    }
}

impl<F: Frontend> pci_driver::Driver for Driver<F> {
    fn bus_error(data: Pin<&Self::Data<'_>>) {
        data.with_nic(|nic| {
            pr_warn!("{}: the bus reports an error\n", nic.name());
            nic.look();
        });
    }

    fn lost(data: Pin<&Self::Data<'_>>, reason: &str) {
        data.with_nic(|nic| nic.lose(reason));
    }

    fn prepare_sleep(data: Pin<&Self::Data<'_>>) -> Result {
        data.with_nic(Nic::may_sleep).unwrap_or(Ok(()))
    }

    fn sleep(data: Pin<&Self::Data<'_>>) -> Result {
        data.with_nic(Nic::sleep).unwrap_or(Ok(()))
    }

    fn wake(data: Pin<&Self::Data<'_>>) {
        data.with_nic(Nic::wake);
    }
}
