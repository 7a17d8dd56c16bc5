// SPDX-License-Identifier: GPL-2.0

//! [`Bars`]: once the VMM's thread has unmapped a range, nothing in it is pinned. The steps are those
//! of `SliceDev::dma_unmap`, `open` and `close` (`rust/vfio/device.rs`), of `VfioPinner::pin`
//! (`rust/sys/pin.rs`), and of VFIO's `vfio_dma_do_unmap`, which stops the host over a page that is
//! still pinned after some calls; here, after one.

use std::sync::Arc;

use crate::threads::in_every_order;
use loom::sync::Mutex;
use loom::thread;
use sluice_core::addr::{
    GuestPage,
    PAGE_SIZE, //
};
use sluice_core::handover::{
    admits,
    Bar,
    Bars, //
};

/// What is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// The bar comes after what is pinned was unpinned.
    RaisesLate,
    /// Whoever pins asks for bars, and then takes the slice's lock.
    AsksEarly,
    /// The bar goes before VFIO is through.
    LiftsEarly,
    /// What the worker has put off stays pinned.
    DoesNotSettle,
    /// Opening the slice removes all bars.
    OpensAtOnce,
}

const PAGES: usize = 3;

/// VFIO's side, under its own lock.
#[derive(Default)]
struct Vfio {
    unmapped: [bool; PAGES],
    pinned: [bool; PAGES],
}

/// The slice's side, under the slice's lock.
#[derive(Default)]
struct State {
    closed: bool,
    mapped: [bool; PAGES],
    put_off: [bool; PAGES],
}

struct Slice {
    fence: Mutex<Bars>,
    state: Mutex<State>,
    vfio: Mutex<Vfio>,
    flaw: Flaw,
}

impl Slice {
    fn bars(&self, page: usize) -> bool {
        let page = GuestPage::new(page as u64);
        self.fence.lock().unwrap().has(page)
    }

    /// The helper's poll needs a page.
    fn pin(&self, page: usize) {
        let early = self.flaw == Flaw::AsksEarly && self.bars(page);
        let mut state = self.state.lock().unwrap();
        let barred = match self.flaw {
            Flaw::AsksEarly => early,
            _ => self.bars(page),
        };
        if barred || state.closed || state.mapped[page] || state.put_off[page] {
            return;
        }
        let mut vfio = self.vfio.lock().unwrap();
        if !vfio.unmapped[page] {
            vfio.pinned[page] = true;
            state.mapped[page] = true;
        }
    }

    /// The worker's poll has done with a page, and must not wait.
    fn put_off(&self, page: usize) {
        let mut state = self.state.lock().unwrap();
        state.put_off[page] |= std::mem::take(&mut state.mapped[page]);
    }

    /// The VMM closes the slice, and opens it anew, which fails while anything is barred.
    fn reopen(&self) {
        {
            let mut state = self.state.lock().unwrap();
            let closed = State {
                closed: true,
                ..State::default()
            };
            let State {
                mapped, put_off, ..
            } = std::mem::replace(&mut *state, closed);
            for page in (0..PAGES).filter(|page| mapped[*page] || put_off[*page]) {
                self.vfio.lock().unwrap().pinned[page] = false;
            }
        }
        {
            let mut bars = self.fence.lock().unwrap();
            if self.flaw == Flaw::OpensAtOnce {
                *bars = Bars::new();
            }
            if !bars.is_empty() {
                return;
            }
        }
        self.state.lock().unwrap().closed = false;
    }

    fn raise(&self, pages: &[usize], thread: usize) {
        let iova = pages[0] as u64 * PAGE_SIZE;
        let bar = Bar::new(iova, pages.len() as u64 * PAGE_SIZE, thread);
        self.fence.lock().unwrap().put(bar);
    }

    /// `SliceDev::dma_unmap`.
    fn dma_unmap(&self, pages: &[usize], thread: usize) {
        if self.flaw != Flaw::RaisesLate {
            self.raise(pages, thread);
        }
        {
            let mut state = self.state.lock().unwrap();
            for page in 0..PAGES {
                let mut unpin = pages.contains(&page) && std::mem::take(&mut state.mapped[page]);
                if self.flaw != Flaw::DoesNotSettle {
                    unpin |= std::mem::take(&mut state.put_off[page]);
                }
                if unpin {
                    self.vfio.lock().unwrap().pinned[page] = false;
                }
            }
        }
        if self.flaw == Flaw::RaisesLate {
            self.raise(pages, thread);
        }
    }

    /// A thread of the VMM unmaps, and returns to user space.
    fn unmap(&self, pages: &[usize], thread: usize) {
        self.dma_unmap(pages, thread);
        if self.flaw == Flaw::LiftsEarly {
            self.fence.lock().unwrap().lift(thread);
        }
        for page in pages {
            let mut vfio = self.vfio.lock().unwrap();
            assert!(!vfio.pinned[*page], "pinned after the unmap");
            vfio.unmapped[*page] = true;
        }
        if self.flaw != Flaw::LiftsEarly {
            self.fence.lock().unwrap().lift(thread);
        }
    }
}

fn run(flaw: Flaw, preemptions: usize, threads: [fn(&Slice); 3]) {
    in_every_order(preemptions, move || {
        let slice = Arc::new(Slice {
            fence: Mutex::new(Bars::new()),
            state: Mutex::default(),
            vfio: Mutex::default(),
            flaw,
        });
        let running = threads.map(|body| {
            let slice = slice.clone();
            thread::spawn(move || body(&slice))
        });
        running.into_iter().for_each(|t| t.join().unwrap());
        assert!((0..PAGES).all(|page| !slice.bars(page)), "a bar is left");
        assert!(slice.fence.lock().unwrap().is_empty(), "nobody can open it");
        let vfio = slice.vfio.lock().unwrap();
        let both = |page: usize| vfio.pinned[page] && vfio.unmapped[page];
        assert!(!(0..PAGES).any(both), "pinned in spite of all");
    });
}

const PINS: fn(&Slice) = |slice| {
    slice.pin(1);
    slice.pin(1);
};
const PINS_AND_PUTS_OFF: fn(&Slice) = |slice| {
    slice.pin(1);
    slice.put_off(1);
};
const REOPENS_AND_PINS: fn(&Slice) = |slice| {
    slice.reopen();
    slice.pin(1);
};
const UNMAPS: fn(&Slice) = |slice| slice.unmap(&[0, 1], 1);
const UNMAPS_TOO: fn(&Slice) = |slice| slice.unmap(&[2], 2);
const NOTHING: fn(&Slice) = |_| ();

#[test]
fn nothing_is_pinned_after_an_unmap() {
    run(Flaw::None, 3, [PINS, UNMAPS, NOTHING]);
    run(Flaw::None, 2, [PINS, UNMAPS, UNMAPS_TOO]);
    run(Flaw::None, 2, [PINS, PINS_AND_PUTS_OFF, UNMAPS]);
}

#[test]
fn closing_and_opening_lifts_no_bar() {
    run(Flaw::None, 3, [REOPENS_AND_PINS, UNMAPS, NOTHING]);
    run(Flaw::None, 2, [REOPENS_AND_PINS, UNMAPS, UNMAPS_TOO]);
}

#[test]
#[should_panic(expected = "pinned after the unmap")]
fn a_bar_that_comes_too_late_is_seen() {
    run(Flaw::RaisesLate, 3, [PINS, UNMAPS, NOTHING]);
}

#[test]
#[should_panic(expected = "pinned after the unmap")]
fn a_question_asked_too_early_is_seen() {
    run(Flaw::AsksEarly, 3, [PINS, UNMAPS, NOTHING]);
}

#[test]
#[should_panic(expected = "pinned after the unmap")]
fn a_bar_that_goes_too_early_is_seen() {
    run(Flaw::LiftsEarly, 3, [PINS, UNMAPS, NOTHING]);
}

#[test]
#[should_panic(expected = "pinned after the unmap")]
fn a_page_that_was_put_off_for_ever_is_seen() {
    run(Flaw::DoesNotSettle, 3, [PINS_AND_PUTS_OFF, UNMAPS, NOTHING]);
}

#[test]
#[should_panic(expected = "pinned after the unmap")]
fn bars_removed_by_opening_are_seen() {
    run(Flaw::OpensAtOnce, 3, [REOPENS_AND_PINS, UNMAPS, NOTHING]);
}

/// A thread of a VMM unmaps a page; after each of VFIO's calls the VMM opens one more slice, which pins it.
#[test]
fn slices_that_are_opened_meanwhile_do_not_stop_the_host() {
    const CALLS_IN_VAIN: u32 = 10;
    let mut slices = vec![Bars::new()];
    for calls in 1.. {
        for bars in &mut slices {
            bars.put(Bar::new(0, PAGE_SIZE, 1));
        }
        let barred = slices.iter().filter(|bars| !bars.is_empty()).count();
        if !admits(barred as u32) {
            break;
        }
        assert!(calls < CALLS_IN_VAIN);
        slices.push(Bars::new());
    }
    // A few do not keep others from theirs.
    assert!(admits(4));
}
