// SPDX-License-Identifier: GPL-2.0

//! The queue pair: its states, and what its registers say when it is enabled.

use super::counters::Refusal;
use super::regs::{
    File,
    Reg,
    Slot,
    DCTL_ENABLE, //
};
use super::Action;
use crate::addr::GuestAddr;
use crate::platform::RxLayout;

/// Longest ring: 4096 descriptors of 16 bytes.
pub const MAX_RING_LEN_BYTES: u32 = 4096 * 16;

/// A queue of the slice's only pair (number 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Transmit.
    Tx,
    /// Receive.
    Rx,
}

/// Where a queue stands between guest and host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// At rest; ENABLE reads as 0.
    Disabled,
    /// The guest asked for it, the host has not confirmed; ENABLE still reads as 0.
    Enabling,
    /// Running; ENABLE reads as 1.
    Enabled,
    /// The guest asked for it to stop, the host has not confirmed; ENABLE still reads as 1.
    Disabling,
}

impl QueueState {
    /// Whether ENABLE reads as one.
    pub const fn shows_enabled(self) -> bool {
        matches!(self, Self::Enabled | Self::Disabling)
    }
}

/// A transmit ring, as the registers named it when the queue was enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxRing {
    /// First descriptor; a multiple of 128.
    pub base: GuestAddr,
    /// A multiple of 128, at most [`MAX_RING_LEN_BYTES`]. The ring does not wrap around the end of
    /// the address space.
    pub len_bytes: u32,
}

/// A receive ring, as the registers named it when the queue was enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxRing {
    /// First descriptor; a multiple of 128.
    pub base: GuestAddr,
    /// As in [`TxRing`].
    pub len_bytes: u32,
    /// Buffer sizes. A header size other than zero means that headers are always split off.
    pub layout: RxLayout,
    /// Drop frames that find no descriptor, rather than hold up other pools.
    pub drop_enable: bool,
}

/// The states of both queues.
#[derive(Clone, Debug)]
pub struct Pair {
    tx: QueueState,
    rx: QueueState,
}

impl Pair {
    /// Both at rest.
    pub const fn new() -> Self {
        Self {
            tx: QueueState::Disabled,
            rx: QueueState::Disabled,
        }
    }

    /// Where a queue stands.
    pub const fn state(&self, queue: Queue) -> QueueState {
        match queue {
            Queue::Tx => self.tx,
            Queue::Rx => self.rx,
        }
    }

    /// State of the queue that a register belongs to. Other registers, and those of the second
    /// pair, belong to none that runs.
    pub fn state_of(&self, slot: Slot) -> QueueState {
        queue_of(slot).map_or(QueueState::Disabled, |queue| self.state(queue))
    }

    /// Shows `head` in the head register of a queue that runs.
    pub fn set_head(&self, regs: &mut File, queue: Queue, head: u16) {
        if self.state(queue).shows_enabled() {
            let reg = match queue {
                Queue::Tx => Reg::Tdh,
                Queue::Rx => Reg::Rdh,
            };
            regs.set(reg, 0, u32::from(head));
        }
    }

    /// The guest wrote a tail.
    pub fn doorbell(&self, regs: &File, slot: Slot) -> Action {
        match queue_of(slot) {
            Some(queue) if self.state(queue) == QueueState::Enabled => Action::Doorbell {
                queue,
                tail: tail(regs, queue),
            },
            _ => Action::None,
        }
    }

    /// The guest wrote TXDCTL or RXDCTL. The thresholds are kept in any case.
    pub fn control(
        &mut self,
        regs: &mut File,
        slot: Slot,
        value: u32,
        resetting: bool,
    ) -> Result<Action, Refusal> {
        let enable = value & DCTL_ENABLE != 0;
        regs.put(slot, value & !DCTL_ENABLE);
        let Some(queue) = queue_of(slot) else {
            return if enable {
                Err(Refusal::SecondQueue)
            } else {
                Ok(Action::None)
            };
        };
        let (next, action) = match (self.state(queue), enable) {
            (QueueState::Disabled, true) if resetting => return Err(Refusal::ResetPending),
            (QueueState::Disabled, true) => {
                let action = match queue {
                    Queue::Tx => Action::TxEnable(tx_ring(regs)?),
                    Queue::Rx => Action::RxEnable(rx_ring(regs)?),
                };
                (QueueState::Enabling, action)
            }
            (QueueState::Enabling | QueueState::Enabled, false) => {
                (QueueState::Disabling, Action::Disable(queue))
            }
            (QueueState::Disabling, true) => return Err(Refusal::QueueBusy),
            (state, _) => (state, Action::None),
        };
        *self.state_mut(queue) = next;
        Ok(action)
    }

    /// The host reports that a queue runs, or does not.
    pub fn confirm(&mut self, regs: &File, queue: Queue, on: bool) -> Action {
        let state = self.state(queue);
        let (next, action) = match (state, on) {
            (QueueState::Enabling, true) => match tail(regs, queue) {
                0 => (QueueState::Enabled, Action::None),
                tail => (QueueState::Enabled, Action::Doorbell { queue, tail }),
            },
            (_, true) => (state, Action::None),
            (_, false) => (QueueState::Disabled, Action::None),
        };
        *self.state_mut(queue) = next;
        action
    }

    fn state_mut(&mut self, queue: Queue) -> &mut QueueState {
        match queue {
            Queue::Tx => &mut self.tx,
            Queue::Rx => &mut self.rx,
        }
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

/// The queue that a register belongs to, if it is one of the usable pair.
pub fn queue_of(slot: Slot) -> Option<Queue> {
    let queue = match slot.reg {
        Reg::Tdbal
        | Reg::Tdbah
        | Reg::Tdlen
        | Reg::Tdh
        | Reg::Tdt
        | Reg::Tdwbal
        | Reg::Tdwbah
        | Reg::Txdctl => Queue::Tx,
        Reg::Rdbal | Reg::Rdbah | Reg::Rdlen | Reg::Srrctl | Reg::Rdh | Reg::Rdt | Reg::Rxdctl => {
            Queue::Rx
        }
        _ => return None,
    };
    (slot.instance == 0).then_some(queue)
}

/// The tail register.
pub fn tail(regs: &File, queue: Queue) -> u32 {
    match queue {
        Queue::Tx => regs.get(Reg::Tdt, 0),
        Queue::Rx => regs.get(Reg::Rdt, 0),
    }
}

/// The transmit ring that the registers name now.
pub fn tx_ring(regs: &File) -> Result<TxRing, Refusal> {
    let (base, len_bytes) = ring(regs, [Reg::Tdbal, Reg::Tdbah, Reg::Tdlen, Reg::Tdh])?;
    Ok(TxRing { base, len_bytes })
}

/// The receive ring that the registers name now.
pub fn rx_ring(regs: &File) -> Result<RxRing, Refusal> {
    let (base, len_bytes) = ring(regs, [Reg::Rdbal, Reg::Rdbah, Reg::Rdlen, Reg::Rdh])?;
    let srrctl = regs.get(Reg::Srrctl, 0);
    Ok(RxRing {
        base,
        len_bytes,
        layout: layout(srrctl)?,
        drop_enable: srrctl >> 31 != 0,
    })
}

fn ring(regs: &File, [low, high, len, head]: [Reg; 4]) -> Result<(GuestAddr, u32), Refusal> {
    if regs.get(head, 0) != 0 {
        return Err(Refusal::HeadNotReset);
    }
    let base = GuestAddr::new(u64::from(regs.get(low, 0)) | (u64::from(regs.get(high, 0)) << 32));
    let len_bytes = regs.get(len, 0);
    if len_bytes == 0 || len_bytes > MAX_RING_LEN_BYTES {
        return Err(Refusal::RingLength);
    }
    // The last byte must have an address.
    base.checked_add(u64::from(len_bytes - 1))
        .ok_or(Refusal::RingWraps)?;
    Ok((base, len_bytes))
}

/// SRRCTL (datasheet 8.10.2): packet buffer in KiB (6:0), header buffer in units of 64 bytes
/// (13:8), descriptor type (27:25).
fn layout(srrctl: u32) -> Result<RxLayout, Refusal> {
    const ONE_BUFFER: u32 = 1;
    const SPLIT_ALWAYS: u32 = 5;

    let packet_kib = srrctl & 0x7F;
    let header_bytes = (((srrctl >> 8) & 0x3F) * 64) as u16;
    if !(1..=16).contains(&packet_kib) {
        return Err(Refusal::RxBufferSize);
    }
    let header_bytes = match (srrctl >> 25) & 0x7 {
        ONE_BUFFER => 0,
        SPLIT_ALWAYS if header_bytes == 0 => return Err(Refusal::RxBufferSize),
        SPLIT_ALWAYS => header_bytes,
        _ => return Err(Refusal::RxDescType),
    };
    Ok(RxLayout {
        packet_bytes: (packet_kib * 1024) as u16,
        header_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Registers that name a legal ring of each kind.
    fn legal() -> File {
        let mut regs = File::new();
        for (low, len) in [(Reg::Tdbal, Reg::Tdlen), (Reg::Rdbal, Reg::Rdlen)] {
            regs.set(low, 0, 0x1000);
            regs.set(len, 0, 4096);
        }
        regs.set(Reg::Srrctl, 0, 0x0200_0002);
        regs
    }

    #[test]
    fn rings_have_bounds() {
        let mut regs = legal();
        let ring = tx_ring(&regs).unwrap();
        assert_eq!(ring.base, GuestAddr::new(0x1000));
        assert_eq!(ring.len_bytes, 4096);

        regs.set(Reg::Tdlen, 0, 0);
        assert_eq!(tx_ring(&regs), Err(Refusal::RingLength));
        regs.set(Reg::Tdlen, 0, MAX_RING_LEN_BYTES);
        assert!(tx_ring(&regs).is_ok());
        regs.set(Reg::Tdlen, 0, MAX_RING_LEN_BYTES + 128);
        assert_eq!(tx_ring(&regs), Err(Refusal::RingLength));

        // The last ring of the address space, and one beyond.
        regs.set(Reg::Tdbah, 0, u32::MAX);
        regs.set(Reg::Tdbal, 0, 0xFFFF_FF00);
        regs.set(Reg::Tdlen, 0, 256);
        assert!(tx_ring(&regs).is_ok());
        regs.set(Reg::Tdlen, 0, 384);
        assert_eq!(tx_ring(&regs), Err(Refusal::RingWraps));

        let mut regs = legal();
        regs.set(Reg::Tdh, 0, 1);
        assert_eq!(tx_ring(&regs), Err(Refusal::HeadNotReset));
        assert!(rx_ring(&regs).is_ok());
    }

    #[test]
    fn receive_layouts() {
        let of = |srrctl| {
            let mut regs = legal();
            regs.set(Reg::Srrctl, 0, srrctl);
            rx_ring(&regs).map(|ring| (ring.layout.packet_bytes, ring.layout.header_bytes))
        };
        assert_eq!(of(0x0200_0001), Ok((1024, 0)));
        assert_eq!(of(0x0200_0010), Ok((16384, 0)));
        // One buffer: the header size does not matter.
        assert_eq!(of(0x0200_3F02), Ok((2048, 0)));
        assert_eq!(of(0x0A00_0202), Ok((2048, 128)));
        assert_eq!(of(0x0A00_3F02), Ok((2048, 4032)));
        assert_eq!(of(0x0A00_0002), Err(Refusal::RxBufferSize));
        assert_eq!(of(0x0200_0000), Err(Refusal::RxBufferSize));
        assert_eq!(of(0x0200_0011), Err(Refusal::RxBufferSize));
        for kind in [0, 2, 3, 4, 6, 7] {
            assert_eq!(of(kind << 25 | 0x102), Err(Refusal::RxDescType));
        }
    }
}
