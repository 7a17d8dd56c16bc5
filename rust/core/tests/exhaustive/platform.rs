// SPDX-License-Identifier: GPL-2.0

//! The machine as the paths see it.

use sluice_core::addr::{
    BusPage,
    GuestPage, //
};
use sluice_core::net::MacAddr;
use sluice_core::platform::*;
use sluice_core::pool::PoolRules;

use super::machine::{
    Shared,
    BUS, //
};

pub struct Page {
    world: Shared,
    pfn: u64,
    access: Access,
}

impl PinnedPage for Page {
    fn bus(&self) -> Option<BusPage> {
        BusPage::from_mapping((self.pfn + BUS) << 12).filter(|_| self.access.is_by_nic())
    }
    fn load_desc(&self, offset: u16) -> [u64; 2] {
        self.world.borrow_mut().load(offset)
    }
    fn store_desc(&self, offset: u16, [low, high]: [u64; 2]) {
        let mut world = self.world.borrow_mut();
        world.report(usize::from(offset) / 16, [Some(low), Some(high)]);
    }
    fn store_u32(&self, offset: u16, value: u32) {
        assert_eq!(offset % 16, 12);
        let mut world = self.world.borrow_mut();
        world.report(
            usize::from(offset) / 16,
            [None, Some(u64::from(value) << 32)],
        );
    }
    fn copy_in(&self, _: u32, _: &[u8]) {
        panic!("nothing is copied");
    }
    fn copy_out(&self, _: u32, bytes: &mut [u8]) {
        // The reader of a received packet's address.
        bytes.fill(0);
    }
}

pub struct PagePinner(pub Shared);

impl Pinner for PagePinner {
    type Page = Page;
    fn pin(&mut self, page: GuestPage, access: Access) -> Result<Page, PinError> {
        let (world, pfn) = (self.0.clone(), page.pfn());
        world.borrow_mut().pin(pfn, access);
        Ok(Page { world, pfn, access })
    }
    fn unpin(&mut self, page: Page) {
        page.world.borrow_mut().unpin(page.pfn, page.access);
    }
}

pub struct NicQueue(pub Shared);

impl HwQueue for NicQueue {
    fn len(&self) -> u16 {
        self.0.borrow().config.shadow
    }
    fn write(&mut self, index: u16, words: [u64; 2]) {
        self.0.borrow_mut().shadow_write(index, words);
    }
    fn read(&self, index: u16) -> [u64; 2] {
        self.0.borrow().shadow_read(index)
    }
    fn doorbell(&mut self, tail: u16) {
        self.0.borrow_mut().doorbell(tail);
    }
    fn start(&mut self, _: RxLayout) -> Result<(), HwError> {
        self.0.borrow_mut().start();
        Ok(())
    }
    fn stop(&mut self) -> Result<(), HwError> {
        self.0.borrow_mut().stop();
        Ok(())
    }
}

pub struct Heap;

impl Alloc for Heap {
    type Buf<T> = Box<[T]>;
    type Box<T> = Box<T>;
    fn boxed<T>(value: T) -> Option<Box<T>> {
        Some(Box::new(value))
    }
    fn filled<T>(len: usize, make: impl FnMut(usize) -> T) -> Option<Box<[T]>> {
        Some((0..len).map(make).collect())
    }
}

/// Parts that a queue does not use.
pub struct Unused;

impl Bounce for Unused {
    fn reserve(&mut self, _: u16) -> bool {
        false
    }
    fn bus(&self, _: u16) -> Option<BusPage> {
        None
    }
    fn copy_out(&self, _: u16, _: u16, _: &mut [u8]) {
        panic!("nothing is bounced");
    }
    fn copy_in(&mut self, _: u16, _: u16, _: &[u8]) {
        panic!("nothing is bounced");
    }
}

impl Signals for Unused {
    fn signal(&mut self, _: u8) {}
}

impl Port for Unused {
    fn link(&self) -> Option<u16> {
        None
    }
    fn set_mac(&mut self, _: MacAddr) -> bool {
        false
    }
    fn set_multicast(&mut self, _: &[u16]) -> bool {
        false
    }
    fn set_vlan(&mut self, _: u16, _: bool) -> bool {
        false
    }
    fn set_max_frame(&mut self, _: u16) -> bool {
        false
    }
    fn replace_mac(&mut self, _: Option<MacAddr>, _: Option<MacAddr>) -> bool {
        false
    }
    fn set_all_multicast(&mut self, _: bool) {}
    fn reset_filters(&mut self, _: &PoolRules) {}
}

pub struct Small;

impl Platform for Small {
    type Alloc = Heap;
    type Pinner = PagePinner;
    type Queue = NicQueue;
    type Port = Unused;
    type Signals = Unused;
    type Bounce = Unused;
}
