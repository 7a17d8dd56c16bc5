// SPDX-License-Identifier: GPL-2.0

//! Threads that unmap, more of them than there are places for bars.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;
use proptest_state_machine::{
    prop_state_machine,
    ReferenceStateMachine,
    StateMachineTest, //
};
use sluice_core::addr::{
    GuestPage,
    PAGE_SIZE, //
};
use sluice_core::handover::{
    Bar,
    Bars, //
};

const PAGES: u64 = 16;
const THREADS: usize = 12;
/// Threads that do not bar more than they unmap.
const PLACES: usize = 8;

#[derive(Clone, Debug)]
enum Step {
    Unmap {
        thread: usize,
        pages: Range<u64>,
    },
    /// The thread returns to user space.
    Return {
        thread: usize,
    },
}

/// What each thread unmaps.
#[derive(Clone, Debug, Default)]
struct Model {
    ranges: BTreeMap<usize, Vec<Range<u64>>>,
    /// There were more threads than places since there were none.
    crowded: bool,
}

impl Model {
    fn unmaps(&self, page: u64) -> bool {
        self.ranges
            .values()
            .flatten()
            .any(|range| range.contains(&page))
    }

    /// Whether the page lies between what one thread unmaps.
    fn surrounds(&self, page: u64) -> bool {
        self.ranges.values().any(|ranges| {
            ranges.iter().any(|range| range.start <= page)
                && ranges.iter().any(|range| page < range.end)
        })
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        let thread = || 0..THREADS;
        prop_oneof![
            14 => (thread(), 0..PAGES, 1..4u64).prop_map(|(thread, first, count)| Step::Unmap {
                thread,
                pages: first..first + count,
            }),
            8 => thread().prop_map(|thread| Step::Return { thread }),
        ]
        .boxed()
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        match step {
            Step::Unmap { thread, pages } => {
                state.ranges.entry(*thread).or_default().push(pages.clone());
            }
            Step::Return { thread } => drop(state.ranges.remove(thread)),
        }
        state.crowded |= state.ranges.len() > PLACES;
        state.crowded &= !state.ranges.is_empty();
        state
    }

    fn preconditions(state: &Self, step: &Step) -> bool {
        match step {
            Step::Return { thread } => state.ranges.contains_key(thread),
            _ => true,
        }
    }
}

#[derive(Default)]
struct Fence {
    bars: Bars,
    /// How often each thread asked to be told of its return.
    asked: BTreeMap<usize, u32>,
}

impl Fence {
    fn returns(&mut self, thread: usize) {
        for _ in 0..self.asked.remove(&thread).unwrap_or(0) {
            self.bars.lift(thread);
        }
    }
}

struct FenceTest;

impl StateMachineTest for FenceTest {
    type SystemUnderTest = Fence;
    type Reference = Model;

    fn init_test(_: &Model) -> Fence {
        Fence::default()
    }

    fn apply(mut fence: Fence, model: &Model, step: Step) -> Fence {
        match step {
            Step::Unmap { thread, pages } => {
                // Neither end need be a page's.
                let start = pages.start * PAGE_SIZE + 100;
                let bar = Bar::new(start, pages.end * PAGE_SIZE - 100 - start, thread);
                if fence.bars.put(bar) {
                    *fence.asked.entry(thread).or_default() += 1;
                }
            }
            Step::Return { thread } => fence.returns(thread),
        }
        assert_eq!(fence.bars.is_empty(), model.ranges.is_empty());
        for page in 0..PAGES + 4 {
            let barred = fence.bars.has(GuestPage::new(page));
            assert!(barred || !model.unmaps(page), "page {page} is not barred");
            let may = model.crowded || model.surrounds(page);
            assert!(!barred || may, "page {page} is barred for nothing");
        }
        fence
    }

    /// All return, those without a place first or last.
    fn teardown(mut fence: Fence, model: Model) {
        for thread in model.ranges.into_keys() {
            assert!(!fence.bars.is_empty());
            fence.returns(thread);
        }
        assert!(fence.bars.is_empty());
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn bars_are_as_their_model(sequential 20..150 => FenceTest);
}
