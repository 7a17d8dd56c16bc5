// SPDX-License-Identifier: GPL-2.0

//! A kernel thread that sleeps until there is work or a deadline.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
    task::Task, //
};

use super::bindings::{
    sluice_cond_resched,
    sluice_park,
    sluice_thread_run, //
};

/// What a thread runs.
pub(crate) trait Body: Send + Sync + 'static {
    /// Runs until [`Current::should_stop`] says so. Returning earlier is allowed.
    fn run(&self, current: &Current);
}

/// The thread that runs a [`Body`], for that one only: it cannot be sent to others.
///
/// # Invariants
///
/// The calling thread is a kthread, made by [`Thread::run`].
pub(crate) struct Current(PhantomData<*mut ()>);

/// A kernel thread; dropping this stops it and waits for its end.
///
/// # Invariants
///
/// `task` was made by `sluice_thread_run`, which gave us a reference to it, and only this object
/// stops it. `body` is what it runs.
pub(crate) struct Thread<B: Body> {
    task: ARef<Task>,
    // Kept for the thread, which borrows it.
    _body: Arc<B>,
}

impl<B: Body> Thread<B> {
    /// Starts a thread that runs `body`. `ps` shows the whole name, the scheduler's 15 bytes of it.
    pub(crate) fn run(name: &CStr, body: Arc<B>) -> Result<Self> {
        let data = Arc::as_ptr(&body).cast_mut().cast();
        // SAFETY: `main::<B>` expects a `B`, which `data` points to and the object that is returned
        // keeps until the thread has ended. The name is copied.
        let task = unsafe { sluice_thread_run(Some(main::<B>), data, name.as_char_ptr()) };
        let task = from_err_ptr(task)?;
        // SAFETY: Neither NULL nor an error, and the reference is ours.
        let task = unsafe { ARef::from_raw(NonNull::new_unchecked(task.cast::<Task>())) };
        // INVARIANT: Made just now.
        Ok(Self { task, _body: body })
    }

    /// The thread, for those who wake it.
    pub(crate) fn task(&self) -> &ARef<Task> {
        &self.task
    }
}

impl<B: Body> Drop for Thread<B> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the task is a kthread that nobody has stopped, and the
        // reference keeps it valid although its function may have returned.
        unsafe { bindings::kthread_stop(self.task.as_ptr()) };
    }
}

/// The C entry point.
///
/// # Safety
///
/// `data` points to a `B` that lives until this returns.
unsafe extern "C" fn main<B: Body>(data: *mut c_void) -> c_int {
    // INVARIANT: This is the kthread's function, and `run` can neither keep the reference nor pass
    // it on.
    let current = Current(PhantomData);
    // SAFETY: By this function's requirement.
    unsafe { &*data.cast_const().cast::<B>() }.run(&current);
    0
}

impl Current {
    /// Whether the thread has been asked to end.
    pub(crate) fn should_stop(&self) -> bool {
        // SAFETY: By the type's invariant.
        unsafe { bindings::kthread_should_stop() }
    }

    /// Puts the thread to sleep until it is woken, `deadline_ns` (of [`super::time::now_ns`]) has
    /// passed, or it is to stop. Returns at once when `is_ready` says so, which is asked after the
    /// thread has been marked as sleeping: a waker that first makes `is_ready` true and then wakes is
    /// never missed. `is_ready` must not sleep.
    pub(crate) fn park<F: Fn() -> bool>(&self, deadline_ns: Option<u64>, is_ready: F) {
        let data = core::ptr::from_ref(&is_ready).cast_mut().cast();
        // SAFETY: By the type's invariant. The shim calls `call::<F>` with `data` before it returns
        // and keeps neither.
        unsafe { sluice_park(deadline_ns.unwrap_or(u64::MAX), Some(call::<F>), data) }
    }

    /// Lets others run if they need to.
    pub(crate) fn cond_resched(&self) {
        // SAFETY: Process context, by the type's invariant.
        unsafe { sluice_cond_resched() }
    }
}

/// Calls a closure for C.
///
/// # Safety
///
/// `data` points to an `F`.
unsafe extern "C" fn call<F: Fn() -> bool>(data: *mut c_void) -> bool {
    // SAFETY: By this function's requirement.
    let is_ready = unsafe { &*data.cast_const().cast::<F>() };
    is_ready()
}

#[kunit_tests(sluice_thread)]
mod tests {
    use kernel::{
        prelude::*,
        sync::{
            atomic::{
                Atomic,
                Full,
                Relaxed, //
            },
            Arc, //
        },
        time::{
            delay::fsleep,
            Delta, //
        }, //
    };

    use super::{
        super::time::now_ns,
        Body,
        Current,
        Thread, //
    };

    /// A condition is looked at so often, a millisecond or more apart.
    const LOOKS: u32 = 60_000;

    fn comes(what: impl Fn() -> bool) -> bool {
        for _ in 0..LOOKS {
            if what() {
                return true;
            }
            fsleep(Delta::from_millis(1));
        }
        false
    }

    /// Sleeps until there is work. Between having found none and sleeping it waits until there is, and the waker is through.
    struct Unlucky {
        work: Atomic<i32>,
        looked: Atomic<i32>,
        woken: Atomic<i32>,
        done: Atomic<i32>,
        ended: Atomic<i32>,
    }

    impl Unlucky {
        fn new() -> Result<Arc<Self>> {
            let unlucky = Self {
                work: Atomic::new(0),
                looked: Atomic::new(0),
                woken: Atomic::new(0),
                done: Atomic::new(0),
                ended: Atomic::new(0),
            };
            Ok(Arc::new(unlucky, GFP_KERNEL)?)
        }

        /// What there was before the waker came. Asked between marking the thread as sleeping and sleeping:
        /// nothing here may sleep.
        fn is_ready(&self) -> bool {
            let work = self.work.load(Relaxed);
            if work == 0 {
                self.looked.store(1, Relaxed);
                let begin_ns = now_ns();
                while self.woken.load(Relaxed) == 0 && now_ns() - begin_ns < 2_000_000_000 {
                    core::hint::spin_loop();
                }
            }
            work != 0
        }
    }

    impl Body for Unlucky {
        fn run(&self, current: &Current) {
            while !current.should_stop() {
                current.park(None, || self.is_ready());
                self.done.add(self.work.xchg(0, Full), Relaxed);
            }
            self.ended.store(1, Relaxed);
        }
    }

    /// Whoever wakes the thread after it has looked and before it sleeps is not missed, although it has no
    /// deadline.
    #[test]
    fn no_wakeup_is_missed() -> Result {
        let unlucky = Unlucky::new()?;
        let (looked, done) = {
            // Ended before anything is asserted: what fails never returns.
            let thread = Thread::run(c"sluice-kunit", unlucky.clone())?;
            let looked = comes(|| unlucky.looked.load(Relaxed) != 0);
            unlucky.work.store(1, Relaxed);
            thread.task().wake_up();
            unlucky.woken.store(1, Relaxed);
            (looked, comes(|| unlucky.done.load(Relaxed) == 1))
        };
        assert!(looked);
        assert!(done);
        Ok(())
    }

    /// Sleeps until a deadline that is ahead.
    struct Dreamer {
        slept: Atomic<i32>,
        early: Atomic<i32>,
    }

    impl Body for Dreamer {
        fn run(&self, current: &Current) {
            while !current.should_stop() {
                let deadline_ns = now_ns() + 1_000_000;
                current.park(Some(deadline_ns), || false);
                let word = if now_ns() < deadline_ns && !current.should_stop() {
                    &self.early
                } else {
                    &self.slept
                };
                word.add(1, Relaxed);
            }
        }
    }

    #[test]
    fn a_deadline_ends_the_sleep() -> Result {
        let dreamer = Dreamer {
            slept: Atomic::new(0),
            early: Atomic::new(0),
        };
        let dreamer = Arc::new(dreamer, GFP_KERNEL)?;
        let slept = {
            let _thread = Thread::run(c"sluice-kunit", dreamer.clone())?;
            comes(|| dreamer.slept.load(Relaxed) >= 3)
        };
        assert!(slept);
        // Nobody wakes it but its deadline, and the end.
        assert_eq!(dreamer.early.load(Relaxed), 0);
        Ok(())
    }

    /// Dropping the thread wakes it, also if it is about to sleep, and waits for its end.
    #[test]
    fn dropping_waits_for_the_end() -> Result {
        for _ in 0..50 {
            let unlucky = Unlucky::new()?;
            unlucky.woken.store(1, Relaxed);
            let thread = Thread::run(c"sluice-kunit", unlucky.clone())?;
            // Else it may be stopped before its function begins.
            let looked = comes(|| unlucky.looked.load(Relaxed) != 0);
            drop(thread);
            assert!(looked);
            assert_eq!(unlucky.ended.load(Relaxed), 1);
        }
        Ok(())
    }
}
