// SPDX-License-Identifier: GPL-2.0

//! What the map does for one page is bounded, whatever the guest asks for: steps are counted, not time.

use std::cell::Cell;
use std::ops::{
    Deref,
    DerefMut, //
};

use sluice_core::addr::{
    BusPage,
    GuestPage,
    GRANULE_PAGES, //
};
use sluice_core::map::{
    Mapper,
    PinMap,
    Strategy, //
};
use sluice_core::platform::*;

thread_local! {
    /// How often a table was looked into.
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

struct Counted<T>(Box<[T]>);

impl<T> Deref for Counted<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        LOOKS.with(|looks| looks.set(looks.get() + 1));
        &self.0
    }
}

impl<T> DerefMut for Counted<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        LOOKS.with(|looks| looks.set(looks.get() + 1));
        &mut self.0
    }
}

struct Heap;

impl Alloc for Heap {
    type Buf<T> = Counted<T>;
    type Box<T> = Box<T>;
    fn boxed<T>(value: T) -> Option<Box<T>> {
        Some(Box::new(value))
    }
    fn filled<T>(len: usize, make: impl FnMut(usize) -> T) -> Option<Counted<T>> {
        Some(Counted((0..len).map(make).collect()))
    }
}

struct Page(u64);

impl PinnedPage for Page {
    fn bus(&self) -> Option<BusPage> {
        BusPage::from_mapping(self.0 << 12)
    }
    fn load_desc(&self, _: u16) -> [u64; 2] {
        [0; 2]
    }
    fn store_desc(&self, _: u16, _: [u64; 2]) {}
    fn store_u32(&self, _: u16, _: u32) {}
    fn copy_in(&self, _: u32, _: &[u8]) {}
    fn copy_out(&self, _: u32, _: &mut [u8]) {}
}

/// Memory without granules.
#[derive(Default)]
struct Memory {
    granule_tries: u64,
}

impl Pinner for Memory {
    type Page = Page;
    fn pin(&mut self, page: GuestPage, _: Access) -> Result<Page, PinError> {
        Ok(Page(page.pfn()))
    }
    fn pin_granule(&mut self, _: GuestPage, _: Access) -> Result<Page, NoGranule> {
        self.granule_tries += 1;
        Err(NoGranule::Refused)
    }
    fn unpin(&mut self, _: Page) {}
}

fn map(strategy: Strategy) -> PinMap<Memory, Heap> {
    PinMap::new(strategy, 16384, 0x1234_5678_9abc_def1).expect("a legal size")
}

/// Most looks into a table for each page that is given back.
const FEW: u64 = 32;

#[test]
fn giving_back_one_of_many_uses_of_a_page_takes_a_few_steps() {
    for strategy in Strategy::ALL {
        for uses in [1, 100, 3400] {
            let (mut map, mut memory) = (map(strategy), Memory::default());
            let mut held: Vec<_> = (0..uses)
                .map(|_| map.acquire(&mut memory, GuestPage::new(7), Access::Read))
                .map(|page| page.expect("a page"))
                .collect();
            // As the NIC completes: what was taken first, which is the end of the chain.
            for page in held.drain(..) {
                let before = LOOKS.get();
                map.cancel(&mut memory, page);
                let looks = LOOKS.get() - before;
                assert!(looks <= FEW, "{strategy:?}: {looks} of {uses} uses");
            }
            assert_eq!(map.unpin_all(&mut memory), 0);
        }
    }
}

/// Pages of as many granules as share all that is remembered, again and again.
#[test]
fn others_do_not_have_a_refused_granule_forgotten() {
    const GRANULES: u64 = 200;
    const MISSES: u64 = 8 * 4096;
    let (mut map, mut memory) = (map(Strategy::Persistent), Memory::default());
    for miss in 0..MISSES {
        // Four pages of one granule, then of the next.
        let (granule, place) = (miss / 4 % GRANULES, miss / 4 / GRANULES * 4 + miss % 4);
        let page = granule * u64::from(GRANULE_PAGES) + place % u64::from(GRANULE_PAGES);
        let page = map.acquire(&mut memory, GuestPage::new(page), Access::Read);
        map.cancel(&mut memory, page.expect("a page"));
        // So that it is missed next time.
        map.set_strategy(&mut memory, Strategy::Persistent);
    }
    assert_eq!(map.stats().misses, MISSES);
    // 64 are remembered, half of them for each direction.
    let most = (MISSES / 4096 + 1) * 32;
    assert!(
        (1..=most).contains(&memory.granule_tries),
        "{}",
        memory.granule_tries
    );
}
