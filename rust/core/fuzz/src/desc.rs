// SPDX-License-Identifier: GPL-2.0

//! Descriptor codecs: what is accepted is held in full, and what is emitted is what was held.

use sluice_core::addr::BusPage;
use sluice_core::desc::rx::{
    self,
    BufferSizes,
    HwRxBuffer,
    RxBuffer,
    RxWriteBack, //
};
use sluice_core::desc::tx::{
    self,
    ContextIndex,
    HwTxData,
    Offload,
    TxContext,
    TxDesc, //
};
use sluice_core::desc::RawDesc;
use sluice_core::platform::RxLayout;

use crate::ops::{
    self,
    Op, //
};

const DEXT: u64 = 1 << 29;

/// Kinds of records; two more with the words follow each.
pub mod kind {
    pub const TX: u8 = 0;
    pub const RX: u8 = 1;
    pub const WRITE_BACK: u8 = 2;
    pub const HARDWARE: u8 = 3;
    pub const COUNT: u8 = 4;
}

/// Each record with its words.
pub fn run(data: &[u8]) {
    let mut input = ops::decode(data);
    let mut done = 0;
    while let Some(op) = input.next() {
        let mut word = || input.next().map_or(0, Op::word);
        let words = [word(), word()];
        match op.kind % kind::COUNT {
            kind::TX => transmit(op, words),
            kind::RX => receive(op, words),
            kind::WRITE_BACK => write_back(op, words),
            _ => hardware(op, words),
        }
        done += 1;
    }
    ops::count(done);
}

/// Words without the bits that make nearly all of them illegal, if the input says so.
fn plausible(op: Op, [low, high]: [u64; 2]) -> [u64; 2] {
    match op.a % 4 {
        0 => [
            low & 0xffff_ffff,
            high & 0xffff_ff10_0000_1c00 | 2 << 20 | DEXT,
        ],
        1 => [low, high & 0xffff_c390_c900_ffff | 3 << 20 | DEXT | 1 << 25],
        _ => [low, high],
    }
}

/// The words of a parsed descriptor, put together by hand from its fields.
fn words_of(desc: &TxDesc) -> [u64; 2] {
    let index = |i| u64::from(i == ContextIndex::Second) << 36;
    match desc {
        TxDesc::Context(i, c) => {
            let l4 = match c.l4 {
                tx::L4Type::Udp => 0,
                tx::L4Type::Tcp => 1,
                tx::L4Type::Sctp => 2,
            };
            [
                u64::from(c.ip_len()) | u64::from(c.mac_len()) << 9 | u64::from(c.vlan_tag) << 16,
                u64::from(c.ipv4) << 10
                    | l4 << 11
                    | 2 << 20
                    | DEXT
                    | index(*i)
                    | u64::from(c.l4_len) << 40
                    | u64::from(c.mss) << 48,
            ]
        }
        TxDesc::Data(data) => {
            let offload = data.info.offload;
            [
                data.addr.raw(),
                u64::from(data.len.get())
                    | 3 << 20
                    | u64::from(data.end_of_packet) << 24
                    | 1 << 25
                    | u64::from(data.report) << 27
                    | DEXT
                    | u64::from(offload.vlan) << 30
                    | u64::from(offload.tso) << 31
                    | index(data.info.context)
                    | u64::from(data.info.check_context) << 39
                    | u64::from(offload.ip_checksum) << 40
                    | u64::from(offload.l4_checksum) << 41
                    | u64::from(data.info.payload_len) << 46,
            ]
        }
    }
}

fn transmit(op: Op, words: [u64; 2]) {
    let words = plausible(op, words);
    let Ok(desc) = TxDesc::parse(RawDesc::copied(words)) else {
        return;
    };
    assert_eq!(words_of(&desc), words, "a bit is overlooked");
    if let TxDesc::Context(_, context) = desc {
        // What the NIC is given is legal again, and carries nothing that the offload does not use.
        let offload = offload(op.b);
        let reduced = context.reduced_to(offload);
        let parsed = TxDesc::parse(RawDesc::copied(reduced.emit()));
        assert_eq!(parsed, Ok(TxDesc::Context(ContextIndex::First, reduced)));
        assert_eq!(reduced.reduced_to(offload), reduced);
        assert!(offload.vlan || reduced.vlan_tag == 0);
        assert!(offload.tso || (reduced.mss, reduced.l4_len) == (0, 0));
        let legal = TxContext::new(reduced.mac_len(), reduced.ip_len());
        assert!(legal.is_ok());
    }
}

fn offload(bits: u16) -> Offload {
    Offload {
        vlan: bits & 1 != 0,
        tso: bits & 2 != 0,
        ip_checksum: bits & 4 != 0,
        l4_checksum: bits & 8 != 0,
    }
}

fn sizes(op: Op) -> Option<BufferSizes> {
    let layout = RxLayout {
        packet_bytes: if op.flag(7) { op.b } else { (op.b % 17) << 10 },
        header_bytes: if op.flag(6) {
            op.v as u16
        } else {
            (op.v as u16 % 17) << 6
        },
    };
    let RxLayout {
        packet_bytes,
        header_bytes,
    } = layout;
    let legal = packet_bytes % 1024 == 0
        && (1024..=16384).contains(&packet_bytes)
        && header_bytes % 64 == 0
        && header_bytes <= 960;
    let sizes = BufferSizes::new(layout);
    assert_eq!(sizes.is_ok(), legal);
    sizes.ok()
}

fn receive(op: Op, words: [u64; 2]) {
    let Some(sizes) = sizes(op) else {
        return;
    };
    let split = sizes.header_bytes() != 0;
    let odd = words[0] & 1 != 0 || split && words[1] & 1 != 0;
    match RxBuffer::parse(RawDesc::copied(words), sizes) {
        Ok(buffer) => {
            assert!(!odd);
            assert_eq!(buffer.packet.raw(), words[0]);
            let header = buffer.header.map(|addr| addr.raw());
            assert_eq!(header, split.then_some(words[1]));
        }
        Err(_) => assert!(odd),
    }
}

fn write_back(op: Op, words: [u64; 2]) {
    let Some(sizes) = sizes(op) else {
        return;
    };
    let back = RxWriteBack::parse(words, sizes);
    assert!(back.len <= sizes.packet_bytes() && back.header_len <= sizes.header_bytes());
    let [low, high] = back.emit();
    // Type, header length, SPH; nothing of the hash.
    assert_eq!(low & !0xffff_fff0, 0);
    assert_eq!(low >> 4 & 0x1fff, words[0] >> 4 & 0x1fff);
    assert_eq!(high as u32, words[1] as u32 & RxWriteBack::KNOWN);
    assert_eq!(rx::is_done([low, high]), rx::is_done(words));
    assert!(back.is_tagged() || high >> 48 == 0);
    assert_eq!(RxWriteBack::parse([low, high], sizes), back, "cut twice");
}

/// What the host writes for the NIC is legal by the host's own rules.
fn hardware(op: Op, words: [u64; 2]) {
    let page = |word: u64| BusPage::from_mapping(word & !0xfff);
    let (Some(first), Some(second)) = (page(words[0]), page(words[1])) else {
        return;
    };
    let addr = first.at(words[0] as u16);
    let data = HwTxData {
        addr,
        len: op.b.max(1),
        last: op.flag(0),
        offload: offload(op.a.into()),
        payload_len: op.v & tx::MAX_PAYLEN,
    };
    let emitted = data.emit();
    assert!(!tx::is_done(emitted));
    let Ok(TxDesc::Data(parsed)) = TxDesc::parse(RawDesc::copied(emitted)) else {
        panic!("the host's own descriptor is refused: {data:?}");
    };
    assert_eq!(parsed.addr.raw(), addr.raw());
    assert_eq!(
        (parsed.len.get(), parsed.end_of_packet),
        (data.len, data.last)
    );
    assert_eq!(parsed.info.offload, data.offload);
    assert_eq!(parsed.info.payload_len, data.payload_len);
    assert_eq!(parsed.info.context, ContextIndex::First);

    let even = |page: BusPage, word: u64| page.at(word as u16 & !1);
    let buffer = HwRxBuffer {
        packet: even(first, words[0]),
        header: op.flag(1).then_some(even(second, words[1])),
    };
    let [packet, header] = buffer.emit();
    assert_eq!(packet, words[0] & !1);
    assert_eq!(header, if op.flag(1) { words[1] & !1 } else { 0 });
    assert!(!rx::is_done([packet, header]));
}
