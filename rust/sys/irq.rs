// SPDX-License-Identifier: GPL-2.0

//! Interrupt handlers that own what they work on.

use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    str::CString,
    sync::Arc, //
};

use super::pci::Vectors;

/// Told about each interrupt.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Vector `vector` fired. Runs in interrupt context: takes no lock, does not sleep.
    fn interrupt(&self, vector: u8);
}

/// What the C handler is given.
struct Context<H> {
    handler: Arc<H>,
    vector: u8,
}

/// A handler on one vector. The `kernel` crate's `irq::Registration` borrows the bound device;
/// this one keeps the vectors and the handler alive by itself.
///
/// # Invariants
///
/// `irq` belongs to `_vectors` and is requested with the address of `context` as its cookie.
pub(crate) struct Line<H: Handler> {
    irq: u32,
    context: KBox<Context<H>>,
    // The kernel keeps a pointer to it.
    _name: CString,
    _vectors: Arc<Vectors>,
}

impl<H: Handler> Line<H> {
    /// Calls `handler` for each interrupt on vector `vector` until this is dropped.
    pub(crate) fn new(
        vectors: &Arc<Vectors>,
        vector: u8,
        name: CString,
        handler: Arc<H>,
    ) -> Result<Self> {
        let irq = vectors.irq(vector.into())?;
        let context = KBox::new(Context { handler, vector }, GFP_KERNEL)?;
        let cookie = core::ptr::from_ref::<Context<H>>(&context)
            .cast_mut()
            .cast();
        // SAFETY: `handle::<H>` expects a `Context<H>`, which is what the cookie points to. Both it
        // and the name live on the heap, owned by the object that is returned, whose destructor
        // frees the interrupt first. On an error nothing was registered.
        to_result(unsafe {
            bindings::request_irq(irq, Some(handle::<H>), 0, name.as_char_ptr(), cookie)
        })?;
        // INVARIANT: Requested just now.
        Ok(Self {
            irq,
            context,
            _name: name,
            _vectors: vectors.clone(),
        })
    }
}

impl<H: Handler> Drop for Line<H> {
    fn drop(&mut self) {
        let cookie = core::ptr::from_ref::<Context<H>>(&self.context)
            .cast_mut()
            .cast();
        // SAFETY: By the type invariant. It returns when no handler runs any more.
        unsafe { bindings::free_irq(self.irq, cookie) };
    }
}

/// The C handler.
///
/// # Safety
///
/// `cookie` points to a `Context<H>`.
unsafe extern "C" fn handle<H: Handler>(_irq: c_int, cookie: *mut c_void) -> bindings::irqreturn_t {
    // SAFETY: By this function's requirement; the context is only ever shared.
    let context = unsafe { &*cookie.cast_const().cast::<Context<H>>() };
    context.handler.interrupt(context.vector);
    bindings::irqreturn::IRQ_HANDLED
}
