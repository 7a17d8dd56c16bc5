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
