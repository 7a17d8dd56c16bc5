// SPDX-License-Identifier: GPL-2.0

//! The sidecore: one thread per NIC that moves requests and completions of all its slices.
//!
//! Interrupts and doorbells only mark a pool as pending and wake the thread; all work happens in
//! it, a bounded burst per slice in turn, so that no slice can starve another (invariant 10).

mod run;

pub(crate) use self::run::Worker;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex,
        SetOnce, //
    },
    task::Task, //
};
pub(crate) use sluice_core::slice::Polled;

use sluice_core::{
    addr::PoolId,
    handover::{
        Events,
        Pending, //
    },
    turns::PoolMask, //
};

use crate::sys::word::Word;

/// Something the worker polls: a slice. Where not said otherwise, its methods run in the worker's thread and
/// may sleep.
pub(crate) trait Pollable: Send + Sync {
    /// Takes up to `budget` new descriptors in each direction. `now_ns` is monotonic time.
    fn poll(&self, now_ns: u64, budget: u16) -> Polled;
    /// The port's link may have changed.
    fn link_changed(&self, now_ns: u64);
    /// The hardware is wanted back: who uses the pool is to be told. Does not wait; callable from
    /// any thread.
    fn ask(&self);
    /// The hardware is being taken away, and with it the pool: it is to be given up soon. Does not
    /// wait; callable from any thread.
    fn withdraw(&self);
}

/// Where a pool's interrupts come from. Called from the worker's thread.
pub(crate) trait Source: Send + Sync + 'static {
    /// Forgets what has been signalled for `pool` so far. The caller looks at the queues after
    /// this, so nothing is lost.
    fn acknowledge(&self, pool: PoolId);
    /// Lets `pool` interrupt again. An event since [`Self::acknowledge`] interrupts at once.
    fn arm(&self, pool: PoolId);
    /// Takes note of a link event and lets the next one interrupt. Returns whether the link has
    /// changed: its vector may be another's as well.
    fn link_event(&self) -> bool;
}

/// The side of a worker that others see: who is polled, and what has happened.
#[pin_data]
pub(crate) struct Mailbox {
    pending: Pending<Word>,
    thread: SetOnce<ARef<Task>>,
    #[pin]
    slots: Mutex<[Option<Arc<dyn Pollable>>; PoolId::MAX]>,
}

impl Mailbox {
    /// Nobody is polled yet.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                pending: Pending::new(Word::new()),
                thread: SetOnce::new(),
                slots <- new_mutex!([const { None }; PoolId::MAX]),
            }),
            GFP_KERNEL,
        )
    }

    /// Polls `target` from now on whenever something happens to `pool`. Replaces an earlier one.
    pub(crate) fn attach(&self, pool: PoolId, target: Arc<dyn Pollable>) {
        let old = self.replace(pool, Some(target));
        drop(old);
        self.kick(pool);
    }

    /// Ends [`Self::attach`]. A poll that has begun may still run when this returns; the target
    /// must take that (it is called with its own lock free, and kept alive until then).
    pub(crate) fn detach(&self, pool: PoolId) {
        drop(self.replace(pool, None));
    }

    fn replace(
        &self,
        pool: PoolId,
        target: Option<Arc<dyn Pollable>>,
    ) -> Option<Arc<dyn Pollable>> {
        let mut slots = self.slots.lock();
        match slots.get_mut(pool.index()) {
            Some(slot) => core::mem::replace(slot, target),
            None => None,
        }
    }

    /// Whether anybody is polled.
    pub(crate) fn is_in_use(&self) -> bool {
        self.slots.lock().iter().any(Option::is_some)
    }

    /// Tells everybody that the hardware is wanted back.
    pub(crate) fn ask(&self) {
        self.tell(|target| target.ask());
    }

    /// Tells everybody that the hardware is being taken away.
    pub(crate) fn withdraw(&self) {
        self.tell(|target| target.withdraw());
    }

    fn tell(&self, news: impl Fn(&dyn Pollable)) {
        for index in 0..PoolId::MAX {
            let target = self.slots.lock().get(index).cloned().flatten();
            if let Some(target) = target {
                news(&*target);
            }
        }
    }

    fn target(&self, pool: PoolId) -> Option<Arc<dyn Pollable>> {
        self.slots.lock().get(pool.index()).cloned().flatten()
    }

    /// There is work for `pool`. Callable from any context.
    pub(crate) fn kick(&self, pool: PoolId) {
        self.post(Events::kicked(pool));
    }

    /// The interrupt of `pools` fired and is masked now. Callable from interrupt context.
    pub(crate) fn interrupted(&self, pools: PoolMask) {
        self.post(Events::interrupted(pools));
    }

    /// The link interrupt fired. Callable from interrupt context.
    pub(crate) fn link_interrupted(&self) {
        self.post(Events::LINK);
    }

    fn post(&self, events: Events) {
        if !self.pending.post(events.bits()) {
            return;
        }
        if let Some(thread) = self.thread.as_ref() {
            thread.wake_up();
        }
    }

    fn take(&self) -> Events {
        Events::new(self.pending.take())
    }

    fn is_pending(&self) -> bool {
        self.pending.is_any()
    }
}
