// SPDX-License-Identifier: GPL-2.0

//! The host's side of the function.

use std::collections::VecDeque;

use sluice_core::net::MacAddr;
use sluice_core::vf::{
    Action,
    Cause,
    Function,
    Identity,
    Queue,
    Reply,
    Request,
    RxRing,
    TxRing,
    Width, //
};

/// The host's side: carries out what the function asks.
pub(crate) struct Host {
    pub(crate) f: Function,
    /// Actions wait for `tick`.
    pub(crate) lazy: bool,
    pub(crate) todo: VecDeque<Action>,
    pub(crate) log: Vec<Action>,
    pub(crate) fired: Vec<u8>,
    pub(crate) now_ns: u64,
    pub(crate) reply: fn(Request) -> Reply,
}

impl Host {
    pub(crate) fn new(lazy: bool, mac: MacAddr) -> Self {
        Self {
            f: Function::new(Identity { mac }),
            lazy,
            todo: VecDeque::new(),
            log: Vec::new(),
            fired: Vec::new(),
            now_ns: 0,
            reply: |_| Reply::Ack,
        }
    }

    pub(crate) fn read(&mut self, offset: u32) -> u32 {
        self.f.mmio_read(offset, Width::Dword)
    }

    pub(crate) fn write(&mut self, offset: u32, value: u32) {
        let action = self.f.mmio_write(offset, Width::Dword, value);
        self.take(action);
    }

    pub(crate) fn config(&mut self, offset: u16) -> u32 {
        self.f.config_read(offset, Width::Word)
    }

    pub(crate) fn set_config(&mut self, offset: u16, value: u32) {
        let action = self.f.config_write(offset, Width::Word, value);
        self.take(action);
    }

    pub(crate) fn take(&mut self, action: Action) {
        if action != Action::None {
            self.todo.push_back(action);
        }
        if !self.lazy {
            self.tick();
        }
    }

    /// One round of the worker.
    pub(crate) fn tick(&mut self) {
        while let Some(action) = self.todo.pop_front() {
            self.log.push(action);
            let next = match action {
                Action::TxEnable(_) => self.f.queue_enabled(Queue::Tx, true),
                Action::RxEnable(_) => self.f.queue_enabled(Queue::Rx, true),
                Action::Disable(queue) => self.f.queue_enabled(queue, false),
                Action::Mailbox(request) => {
                    self.f.mailbox_reply((self.reply)(request));
                    Action::None
                }
                Action::Reset(_) => {
                    self.f.reset_done();
                    Action::None
                }
                _ => Action::None,
            };
            if next != Action::None {
                self.todo.push_front(next);
            }
        }
        let signals = self.f.take_signals(self.now_ns);
        self.fired.extend(signals.vectors.iter());
    }

    pub(crate) fn raise(&mut self, cause: Cause) {
        self.f.raise(cause);
        self.tick();
    }

    pub(crate) fn set_link(&mut self, speed: Option<u16>) {
        let action = self.f.set_link(speed);
        self.take(action);
        self.tick();
    }

    /// Time passes: moderation lets everything through.
    pub(crate) fn wait(&mut self) {
        self.now_ns += 10_000_000;
        self.tick();
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        let request = |action: &Action| match action {
            Action::Mailbox(request) => Some(*request),
            _ => None,
        };
        self.log.iter().filter_map(request).collect()
    }

    pub(crate) fn tx_ring(&self) -> Option<TxRing> {
        self.log.iter().find_map(|action| match action {
            Action::TxEnable(ring) => Some(*ring),
            _ => None,
        })
    }

    pub(crate) fn rx_ring(&self) -> Option<RxRing> {
        self.log.iter().find_map(|action| match action {
            Action::RxEnable(ring) => Some(*ring),
            _ => None,
        })
    }

    pub(crate) fn count(&self, action: Action) -> usize {
        self.log.iter().filter(|&&logged| logged == action).count()
    }

    pub(crate) fn refused(&self) -> u64 {
        self.f.counters().refused_total()
    }

    pub(crate) fn clear(&mut self) {
        self.log.clear();
        self.fired.clear();
    }
}
