// SPDX-License-Identifier: GPL-2.0
/* Offload contexts that make no sense. Part of hostile.c. */

/* Context descriptor (82576 datasheet 7.2.2.2). */
#define CTX_LENS(mac, ip)	((uint64_t)(mac) << 9 | (ip))
#define CTX_IPV4		(1ull << 10)
#define CTX_TCP			(1ull << 11)
#define CTX_L4LEN(n)		((uint64_t)(n) << 40)
#define CTX_MSS(n)		((uint64_t)(n) << 48)
#define CTX_INDEX(n)		((uint64_t)(n) << 36)
#define CTX			(TXD_DTYP_CONTEXT | TXD_DEXT)
#define CTX_TSO(mss)		(CTX | CTX_IPV4 | CTX_TCP | CTX_L4LEN(20) | CTX_MSS(mss))

#define TSO_BYTES		4000u
#define TSO_HEADERS		54u
#define TSO_DATA		(TXD_SIMPLE | TXD_TSE | TXD_POPTS_IXSM | TXD_POPTS_TXSM | \
				 TXD_PAYLEN(TSO_BYTES - TSO_HEADERS) | TSO_BYTES)

static void expect_context_refused(struct __test_metadata *_metadata, struct vf *vf, uint64_t lens,
				   uint64_t context, uint64_t data, const char *names)
{
	vf_post(vf, &vf->tx, lens, context);
	vf_post(vf, &vf->tx, VF_TX_BUF, data);
	EXPECT_REJECTED(names, vf_doorbell(vf, &vf->tx));
}

#define CONTEXT_REFUSED(test, lens, context, data, names) \
	TEST_F_TIMEOUT(attacker, test, TIMEOUT_S) \
	{ \
		expect_context_refused(_metadata, &self->vf, lens, context, data, names); \
	}

REFUSED(tso_without_context, VF_TX_BUF, TSO_DATA, "context_missing")
REFUSED(checksum_without_context, VF_TX_BUF, SIMPLE(FRAME_BYTES) | TXD_POPTS_TXSM, "context_missing")
REFUSED(context_of_other_index, VF_TX_BUF, TSO_DATA | 7ull << 36, "context_index|context_missing|data_reserved_bits")

CONTEXT_REFUSED(context_index_high, CTX_LENS(14, 20), CTX_TSO(1460) | CTX_INDEX(7), TSO_DATA,
		"context_index|context_reserved_bits")
CONTEXT_REFUSED(context_all_ones, UINT64_MAX, UINT64_MAX & ~(1ull << 20), TSO_DATA,
		"context_reserved_bits|encryption|timestamp|snap|descriptor_type|context_index|l4_type")
CONTEXT_REFUSED(tso_no_mac_header, CTX_LENS(0, 20), CTX_TSO(1460), TSO_DATA, "mac_header_length")
CONTEXT_REFUSED(tso_long_mac_header, CTX_LENS(127, 511), CTX_TSO(1460), TSO_DATA,
		"mac_header_length|ip_header_length|payload_length|header_beyond_packet|tso_header_too_long")
CONTEXT_REFUSED(tso_no_ip_header, CTX_LENS(14, 0), CTX_TSO(1460), TSO_DATA, "ip_header_length")
CONTEXT_REFUSED(tso_no_tcp_header, CTX_LENS(14, 20), CTX | CTX_IPV4 | CTX_TCP | CTX_MSS(1460), TSO_DATA,
		"l4_header_length")
CONTEXT_REFUSED(tso_over_udp, CTX_LENS(14, 20), CTX | CTX_IPV4 | CTX_L4LEN(20) | CTX_MSS(1460), TSO_DATA,
		"l4_type")
CONTEXT_REFUSED(tso_reserved_l4, CTX_LENS(14, 20), CTX_TSO(1460) | 3ull << 11, TSO_DATA, "l4_type")
CONTEXT_REFUSED(tso_mss_zero, CTX_LENS(14, 20), CTX_TSO(0), TSO_DATA, "mss_too_small")
CONTEXT_REFUSED(tso_mss_one, CTX_LENS(14, 20), CTX_TSO(1), TSO_DATA, "mss_too_small")
CONTEXT_REFUSED(tso_mss_largest, CTX_LENS(14, 20), CTX_TSO(0xffff), TSO_DATA, "mss_too_large")
CONTEXT_REFUSED(tso_wrong_payload_length, CTX_LENS(14, 20), CTX_TSO(1460), TSO_DATA + TXD_PAYLEN(1),
		"payload_length")
CONTEXT_REFUSED(tso_only_headers, CTX_LENS(14, 20), CTX_TSO(1460),
		TXD_SIMPLE | TXD_TSE | TXD_POPTS_IXSM | TXD_POPTS_TXSM | TSO_HEADERS,
		"tso_no_payload|payload_length")
CONTEXT_REFUSED(tso_no_checksum, CTX_LENS(14, 20), CTX_TSO(1460), TSO_DATA & ~TXD_POPTS_TXSM,
		"tso_no_checksum")
CONTEXT_REFUSED(checksum_header_past_packet, CTX_LENS(14, 200), CTX | CTX_IPV4 | CTX_TCP,
		SIMPLE(FRAME_BYTES) | TXD_POPTS_TXSM, "header_beyond_packet")
CONTEXT_REFUSED(checksum_ipv4_of_ipv6, CTX_LENS(14, 40), CTX | CTX_TCP,
		SIMPLE(128) | TXD_POPTS_IXSM | TXD_POPTS_TXSM, "checksum_not_ipv4")

TEST_F_TIMEOUT(attacker, context_inside_packet, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	vf_post(vf, &vf->tx, VF_TX_BUF, TXD_DTYP_DATA | TXD_DEXT | TXD_IFCS | TXD_PAYLEN(96) | 48);
	vf_post(vf, &vf->tx, CTX_LENS(14, 20), CTX_TSO(1460));
	vf_post(vf, &vf->tx, VF_TX_BUF + 48, TXD_SIMPLE | TXD_PAYLEN(96) | 48);
	EXPECT_REJECTED("context_inside_packet", vf_doorbell(vf, &vf->tx));
}

TEST_F_TIMEOUT(attacker, ring_full_of_contexts, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	/* Contexts alone are legal, and must neither be sent nor block what follows. */
	for (unsigned int round = 0; round < 4; round++) {
		for (unsigned int i = 0; i < VF_RING_SLOTS - 2; i++)
			vf_post(vf, &vf->tx, CTX_LENS(14, 20), CTX_TSO(1460));
		put_frame(vf, VF_TX_BUF, FRAME_BYTES);
		expect_sent(_metadata, vf, VF_TX_BUF, SIMPLE(FRAME_BYTES));
	}
}

TEST_F_TIMEOUT(attacker, context_does_not_outlive_reset, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	vf_post(vf, &vf->tx, CTX_LENS(14, 20), CTX_TSO(1460));
	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	expect_sent(_metadata, vf, VF_TX_BUF, SIMPLE(FRAME_BYTES));
	ASSERT_EQ(0, vf_restart(vf));
	expect_refused(_metadata, vf, VF_TX_BUF, TSO_DATA, "context_missing");
}

TEST_F_TIMEOUT(attacker, random_contexts, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	for (unsigned int round = 0; round < 200; round++) {
		/* The second half starts from a good context and changes one bit in each word. */
		uint64_t lens = round < 100 ? rng() : CTX_LENS(14, 20) ^ 1ull << rng() % 64;
		uint64_t ctx = round < 100 ? rng() | CTX : CTX_TSO(1460) ^ 1ull << rng() % 64;

		vf_post(vf, &vf->tx, lens, ctx);
		vf_post(vf, &vf->tx, VF_TX_BUF, TSO_DATA);
		vf_doorbell(vf, &vf->tx);
		nap();
		ASSERT_EQ(0, vf_restart(vf));
	}
}
