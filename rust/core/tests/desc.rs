// SPDX-License-Identifier: GPL-2.0

//! Descriptor codecs: what is parsed is all there was, and no bit is overlooked.

use proptest::prelude::*;
use sluice_core::addr::{
    BusAddr,
    BusPage, //
};
use sluice_core::check::Rejection;
use sluice_core::desc::rx::*;
use sluice_core::desc::tx::*;
use sluice_core::desc::RawDesc;
use sluice_core::platform::RxLayout;

const DEXT: u64 = 1 << 29;
const CONTEXT: u64 = 2 << 20 | DEXT;
const DATA: u64 = 3 << 20 | DEXT | 1 << 25;

fn parse(words: [u64; 2]) -> Result<TxDesc, Rejection> {
    TxDesc::parse(RawDesc::copied(words))
}

/// The words of a parsed descriptor, put together by hand from its fields.
fn words_of(desc: &TxDesc) -> [u64; 2] {
    let index = |i| u64::from(i == ContextIndex::Second) << 36;
    match desc {
        TxDesc::Context(i, context) => {
            let [low, high] = context.emit();
            [low, high | index(*i)]
        }
        TxDesc::Data(data) => {
            let offload = data.info.offload;
            [
                data.addr.raw(),
                DATA | u64::from(data.len.get())
                    | u64::from(data.end_of_packet) << 24
                    | u64::from(data.report) << 27
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

/// Words that are often legal: few bits, in the places that matter.
fn words() -> impl Strategy<Value = [u64; 2]> {
    let kind = prop_oneof![Just(CONTEXT), Just(DATA), any::<u64>()];
    let sparse = (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(a, b, c)| a & b & c);
    (any::<u64>(), kind, sparse).prop_map(|(low, kind, high)| {
        let low = if kind == CONTEXT {
            low & 0xffff_ffff
        } else {
            low
        };
        [low, kind | high]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is accepted is held in full: nothing is accepted that no field stands for.
    #[test]
    fn accepted_words_are_held_in_full(words in words()) {
        if let Ok(desc) = parse(words) {
            prop_assert_eq!(words_of(&desc), words);
        }
    }

    #[test]
    fn write_back_shows_named_bits_only(low: u64, high: u64, kib in 1..=16u16, header in 0..=15u16) {
        let layout = RxLayout { packet_bytes: kib * 1024, header_bytes: header * 64 };
        let sizes = BufferSizes::new(layout).unwrap();
        let back = RxWriteBack::parse([low, high], sizes);
        prop_assert!(back.len <= layout.packet_bytes && back.header_len <= layout.header_bytes);
        let [shown_low, shown_high] = back.emit();
        let named = 0x1fff << 4 | 0x3ff << 21 | 1 << 31;
        prop_assert_eq!(shown_low & !named, 0);
        prop_assert_eq!(shown_low >> 4 & 0x1fff, low >> 4 & 0x1fff);
        prop_assert_eq!(shown_high as u32, high as u32 & RxWriteBack::KNOWN);
        let tag = if high & 8 != 0 { high >> 48 } else { 0 };
        prop_assert_eq!(shown_high >> 48, tag);
        prop_assert_eq!(shown_high >> 32 & 0xffff, u64::from(back.len));
        // What was cut once is not cut again.
        prop_assert_eq!(RxWriteBack::parse(back.emit(), sizes), back);
    }

    #[test]
    fn hardware_words_carry_what_was_asked(
        frame in 0..1u64 << 40, offset in 0..4096u16, len in 1..16384u16, last: bool,
        vlan: bool, tso: bool, ip_checksum: bool, l4_checksum: bool, payload_len in 0..1u32 << 18,
    ) {
        let addr = bus(frame, offset);
        let offload = Offload { vlan, tso, ip_checksum, l4_checksum };
        let words = HwTxData { addr, len, last, offload, payload_len }.emit();
        prop_assert!(!sluice_core::desc::tx::is_done(words));
        // The host's descriptor is one that the host would accept from a guest.
        let Ok(TxDesc::Data(back)) = parse(words) else {
            panic!("not a data descriptor");
        };
        prop_assert_eq!(back.addr.raw(), addr.raw());
        prop_assert_eq!((back.len.get(), back.end_of_packet, back.report), (len, last, last));
        prop_assert_eq!(back.info.offload, offload);
        prop_assert_eq!(back.info.payload_len, payload_len);
        prop_assert_eq!((back.info.context, back.info.check_context), (ContextIndex::First, false));
    }
}

fn bus(frame: u64, offset: u16) -> BusAddr {
    BusPage::from_mapping(frame << 12).unwrap().at(offset)
}

/// From legal descriptors, every single flipped bit is refused or changes what is held.
#[test]
fn no_bit_is_overlooked() {
    let context = [
        34 | 14 << 9 | 5 << 16,
        CONTEXT | 1 << 10 | 20 << 40 | 1448 << 48,
    ];
    let data = [0x1234_5678, DATA | 60 | 1 << 24 | 1 << 27 | 60 << 46];
    let (mut refused, mut changed) = (0, 0);
    for words in [context, data] {
        let before = parse(words).unwrap();
        for bit in 0..128 {
            let mut flipped = words;
            flipped[bit / 64] ^= 1 << (bit % 64);
            match parse(flipped) {
                Ok(after) => {
                    assert_ne!(after, before, "bit {bit} is overlooked");
                    changed += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    println!("{refused} of 256 flips refused, {changed} change what is held");
}

#[test]
fn each_rule_has_its_name() {
    let data = |bits: u64| parse([0, DATA | 60 | bits]);
    let context = |low: u64, high: u64| parse([low, CONTEXT | high]);
    let ok = 20 | 14 << 9;
    for (got, rule) in [
        (parse([0, 60]), Rejection::LegacyDescriptor),
        (parse([0, DEXT | 60]), Rejection::DescriptorType),
        (parse([0, DEXT | 1 << 20]), Rejection::DescriptorType),
        (parse([0, DEXT | 7 << 20]), Rejection::DescriptorType),
        (data(1 << 16), Rejection::DataReservedBits),
        (data(1 << 26), Rejection::DataReservedBits),
        (data(1 << 28), Rejection::DataReservedBits),
        (data(1 << 32), Rejection::DataReservedBits),
        (data(1 << 45), Rejection::DataReservedBits),
        (data(1 << 18), Rejection::Encryption),
        (data(1 << 42), Rejection::Encryption),
        (data(1 << 19), Rejection::Timestamp),
        (data(1 << 27), Rejection::ReportWithoutEop),
        (data(2 << 36), Rejection::ContextIndex),
        (parse([0, DATA]), Rejection::EmptySegment),
        (
            parse([0, DATA & !(1 << 25) | 60]),
            Rejection::FcsNotInserted,
        ),
        (context(ok, 3 << 11), Rejection::L4Type),
        (context(ok, 1 << 9), Rejection::Snap),
        (context(ok, 1 << 13), Rejection::Encryption),
        (context(ok, 1), Rejection::Encryption),
        (context(ok | 1 << 32, 0), Rejection::Encryption),
        (context(ok, 1 << 15), Rejection::ContextReservedBits),
        (context(ok, 1 << 27), Rejection::ContextReservedBits),
        (context(ok, 7 << 36), Rejection::ContextIndex),
        (context(20 | 13 << 9, 0), Rejection::MacHeaderLength),
        (context(19 | 14 << 9, 0), Rejection::IpHeaderLength),
    ] {
        assert_eq!(got, Err(rule));
    }
}

#[test]
fn receive_buffers() {
    let sizes = |packet_bytes, header_bytes| {
        BufferSizes::new(RxLayout {
            packet_bytes,
            header_bytes,
        })
    };
    for bytes in [0, 512, 1025, 17 * 1024, 32768] {
        assert_eq!(sizes(bytes, 0), Err(Rejection::RxPacketSize));
    }
    for bytes in [1, 63, 1024] {
        assert_eq!(sizes(2048, bytes), Err(Rejection::RxHeaderSize));
    }
    let (one, two) = (sizes(2048, 0).unwrap(), sizes(2048, 128).unwrap());
    let parse = |words, sizes| RxBuffer::parse(RawDesc::copied(words), sizes);
    assert_eq!(parse([1, 0], one), Err(Rejection::RxPacketOdd));
    assert_eq!(parse([2, 1], two), Err(Rejection::RxHeaderOdd));
    // A write-back left in the second word means nothing where packets are not split.
    assert_eq!(parse([2, 3], one).unwrap().header, None);
    assert_eq!(parse([2, 4], two).unwrap().header.unwrap().raw(), 4);
    let hw = HwRxBuffer {
        packet: bus(7, 18),
        header: Some(bus(8, 0)),
    };
    assert_eq!(hw.emit(), [0x7012, 0x8000]);
}
