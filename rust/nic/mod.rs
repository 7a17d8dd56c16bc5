// SPDX-License-Identifier: GPL-2.0

//! The hardware: a NIC whose pools are claimed one by one.
//!
//! A [`Nic`] lives from its PCI probe until its last user lets go. [`Nic::claim_pool`] hands out
//! a pool with its queues and filters; whoever holds a part of it keeps the pool, and when the last
//! part is dropped the pool is stopped and emptied (invariant 8).
//!
//! Locks: the control lock guards what pools share (filter tables, enables, who owns what). It is
//! the innermost lock. Queues and vectors need none: each belongs to one owner.

mod driver;
mod igb;
mod pools;
mod queue;
mod watch;

pub(crate) use self::{
    driver::{
        Driver,
        Frontend, //
    },
    igb::PortStats,
    pools::{
        PoolClaim,
        PoolPort, //
    },
    queue::{
        RxQueue,
        TxQueue, //
    }, //
};

use kernel::{
    device::Core,
    new_mutex,
    pci,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};
use sluice_core::{
    addr::PoolId,
    net::MacAddr, //
};

use self::{
    igb::{
        Port,
        Routing, //
    },
    pools::Control, //
};
use crate::{
    sys::{
        dma::DescRing,
        irq,
        time::now_ns, //
    },
    worker::{
        Mailbox,
        Pollable,
        Source, //
    }, //
};

/// log2 of the descriptors in a transmit shadow ring.
const TX_ORDER: u32 = 10;
/// log2 of the descriptors in a receive shadow ring.
const RX_ORDER: u32 = 9;

/// How long the VMMs of a card that is wanted back have before its hardware is taken from them, by
/// whichever of them VFIO asks next, every ten seconds.
const PATIENCE_NS: u64 = 15_000_000_000;

/// The shadow rings of one pool. They stay with the NIC; owners come and go.
struct Rings {
    tx: Arc<DescRing>,
    rx: Arc<DescRing>,
}

/// A NIC that has been taken over.
#[pin_data]
pub(crate) struct Nic {
    name: CString,
    port: Port,
    mac: MacAddr,
    routing: Routing,
    rings: KVec<Rings>,
    mailbox: Arc<Mailbox>,
    /// The slices know that the port is lost.
    told: Atomic<bool>,
    /// The administrator wants the card back.
    leaving: Atomic<bool>,
    /// When all slices were first told that it is; 0: not yet.
    asked_ns: Atomic<u64>,
    /// The hardware was taken from all of them.
    taken: Atomic<bool>,
    #[pin]
    control: Mutex<Control>,
}

impl Nic {
    /// Takes over the port: resets it and sets it up to deny everything. `vectors` is how many
    /// interrupt vectors there are, at least one.
    fn new(pdev: &pci::Device<Core<'_>>, port: Port, vectors: u8) -> Result<Arc<Self>> {
        let gone = |_| {
            dev_err!(pdev, "the device does not come out of its reset\n");
            EIO
        };
        port.reset().map_err(gone)?;
        if !port.is_copper() {
            dev_err!(
                pdev,
                "only ports with the internal copper PHY are supported\n"
            );
            return Err(ENODEV);
        }
        let mac = port.permanent_mac();
        if !mac.is_valid_station() {
            dev_err!(
                pdev,
                "the EEPROM holds no valid address ({})\n",
                format_args!("{mac}")
            );
            return Err(ENODEV);
        }
        let routing = Routing::new(port.pools(), vectors);
        let mut rings = KVec::new();
        for _ in 0..port.pools() {
            let tx = Arc::new(DescRing::new(pdev.as_ref(), TX_ORDER)?, GFP_KERNEL)?;
            let rx = Arc::new(DescRing::new(pdev.as_ref(), RX_ORDER)?, GFP_KERNEL)?;
            rings.push(Rings { tx, rx }, GFP_KERNEL)?;
        }
        let name = CString::try_from_fmt(fmt!("{}", pdev.as_ref().name()))?;
        let mailbox = Mailbox::new()?;
        // Last: from here on the port is to be released.
        port.configure().map_err(gone)?;
        Arc::pin_init(
            try_pin_init!(Self {
                name,
                port,
                mac,
                routing,
                rings,
                mailbox,
                told: Atomic::new(false),
                asked_ns: Atomic::new(0),
                taken: Atomic::new(false),
                leaving: Atomic::new(false),
                control <- new_mutex!(Control::new(*mac)),
            }),
            GFP_KERNEL,
        )
    }

    /// The PCI address, for messages.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    /// The chip, for messages.
    pub(crate) fn chip(&self) -> &'static str {
        self.port.chip()
    }

    /// Pools that the NIC has, claimed or not.
    pub(crate) fn pools(&self) -> u8 {
        self.port.pools()
    }

    /// The NIC's own address, which no slice gets.
    pub(crate) fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Link speed in Mb/s, or `None` while the link is down or the device gone.
    pub(crate) fn link(&self) -> Option<u16> {
        self.port.link().ok().flatten()
    }

    /// What the port has counted since it was taken over. To be called now and then: its registers
    /// stop at their largest value.
    pub(crate) fn stats(&self) -> PortStats {
        self.control.lock().add_stats(&self.port)
    }

    /// Whether the port was lost, and will not come back.
    pub(crate) fn is_lost(&self) -> bool {
        self.port.is_lost()
    }

    /// Sees whether the port still answers. If not, the slices are told, once.
    fn look(&self) {
        self.port.look();
        if self.port.is_lost() && !self.told.xchg(true, Full) {
            if self.port.is_adrift() {
                // It may write back into them for ever: nobody gets that memory (invariant 3).
                for rings in &self.rings {
                    core::mem::forget((rings.tx.clone(), rings.rx.clone()));
                }
            }
            self.mailbox.withdraw();
        }
    }

    /// Gives the port up for `reason`, and tells the slices.
    fn lose(&self, reason: &str) {
        self.port.lose(reason);
        self.look();
    }

    /// The administrator wants the card back. From now on nobody is to begin to use a slice.
    fn leave(&self) {
        self.leaving.store(true, Relaxed);
    }

    /// Whether the administrator wants the whole card back, rather than a slice.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Tells all slices in use that the hardware is wanted back, at once and again as long as any is
    /// waited for. Once they have known it for some time it is taken from them.
    ///
    /// Returns whether that is now, for the first time.
    pub(crate) fn ask(&self) -> bool {
        self.mailbox.ask();
        let now_ns = now_ns();
        let Err(asked_ns) = self.asked_ns.cmpxchg(0, now_ns, Relaxed) else {
            return false;
        };
        if now_ns.saturating_sub(asked_ns) < PATIENCE_NS {
            return false;
        }
        // Also from those that were opened just before.
        self.mailbox.withdraw();
        !self.taken.xchg(true, Relaxed)
    }

    /// Whether the hardware was taken from all slices.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Relaxed)
    }

    /// Polls `target` from now on whenever something happens to `pool`.
    pub(crate) fn attach(&self, pool: PoolId, target: Arc<dyn Pollable>) {
        self.mailbox.attach(pool, target);
    }

    /// Ends [`Self::attach`]. A poll that has begun may still run when this returns.
    pub(crate) fn detach(&self, pool: PoolId) {
        self.mailbox.detach(pool);
    }

    /// There is work for `pool`: has it polled. Callable from any context.
    pub(crate) fn kick(&self, pool: PoolId) {
        self.mailbox.kick(pool);
    }
}

impl irq::Handler for Nic {
    fn interrupt(&self, vector: u8) {
        // Masked first, marked second: the worker arms the vector only after it has seen the mark.
        self.port.mask(vector);
        let uses = self.routing.vector_use(vector);
        if uses.pools != 0 {
            self.mailbox.interrupted(uses.pools);
        }
        if uses.link {
            self.mailbox.link_interrupted();
        }
    }
}

impl Source for Nic {
    fn acknowledge(&self, pool: PoolId) {
        let vector = self.routing.pool_vector(pool);
        // A shared vector's cause is not this pool's alone to forget.
        if self.routing.vector_use(vector).is_exclusive() {
            self.port.clear_cause(vector);
        }
    }

    fn arm(&self, pool: PoolId) {
        self.port.unmask(self.routing.pool_vector(pool));
    }

    fn link_event(&self) -> bool {
        if !self.port.is_present() {
            return true;
        }
        let changed = self.port.acknowledge_link();
        self.port.unmask(self.routing.link_vector());
        changed
    }
}
