// SPDX-License-Identifier: GPL-2.0
/* Transmit descriptors that name what they must not. Part of hostile.c. */

#define FRAME_BYTES	64u
#define SIMPLE(len)	(TXD_SIMPLE | TXD_PAYLEN(len) | (len))

static void expect_refused(struct __test_metadata *_metadata, struct vf *vf, uint64_t addr,
			   uint64_t word, const char *names)
{
	uint32_t index = vf_post(vf, &vf->tx, addr, word);

	EXPECT_REJECTED(names, vf_doorbell(vf, &vf->tx));
	/* The guest is not told that it was sent. */
	if (!(word & TXD_DD))
		EXPECT_FALSE(!!(vf_desc(vf, &vf->tx, index)[1] & TXD_DD));
}

static void expect_sent(struct __test_metadata *_metadata, struct vf *vf, uint64_t addr, uint64_t word)
{
	uint32_t index = vf_post(vf, &vf->tx, addr, word);

	vf_doorbell(vf, &vf->tx);
	EXPECT_EQ(0, vf_tx_wait(vf, index, VF_WAIT_MS));
}

#define REFUSED(test, addr, word, names) \
	TEST_F_TIMEOUT(attacker, test, TIMEOUT_S) \
	{ \
		expect_refused(_metadata, &self->vf, addr, word, names); \
	}

REFUSED(tx_outside_memory, VF_RAM_BYTES + 0x10000, SIMPLE(FRAME_BYTES), "not_memory")
REFUSED(tx_one_byte_past_the_end, VF_RAM_BYTES - FRAME_BYTES + 1, SIMPLE(FRAME_BYTES), "not_memory")
REFUSED(tx_right_after_the_end, VF_RAM_BYTES, SIMPLE(FRAME_BYTES), "not_memory")
REFUSED(tx_wraps, UINT64_MAX - 31, SIMPLE(FRAME_BYTES), "address_wraps")
REFUSED(tx_top_of_address_space, UINT64_MAX - FRAME_BYTES + 1, SIMPLE(FRAME_BYTES), "not_memory|address_wraps")
REFUSED(tx_interrupt_window, 0xfee00000, SIMPLE(FRAME_BYTES), "not_memory")
REFUSED(tx_pci_hole, 0xe0000000, SIMPLE(FRAME_BYTES), "not_memory")
REFUSED(tx_beyond_any_bus, 1ull << 56, SIMPLE(FRAME_BYTES), "not_memory|address_wraps")

REFUSED(tx_zero_length, VF_TX_BUF, TXD_SIMPLE, "empty_segment")
REFUSED(tx_too_short, VF_TX_BUF, SIMPLE(8), "frame_too_short")
REFUSED(tx_too_long, VF_TX_BUF, SIMPLE(0xffffull), "frame_too_long")
REFUSED(tx_longer_than_jumbo, VF_TX_BUF, SIMPLE(9728ull), "frame_too_long")
REFUSED(tx_payload_length_too_small, VF_TX_BUF, TXD_SIMPLE | TXD_PAYLEN(60) | FRAME_BYTES, "payload_length")
REFUSED(tx_payload_length_too_large, VF_TX_BUF, TXD_SIMPLE | TXD_PAYLEN(0x3ffff) | FRAME_BYTES, "payload_length")

REFUSED(tx_legacy_descriptor, VF_TX_BUF, SIMPLE(FRAME_BYTES) & ~TXD_DEXT, "legacy_descriptor")
REFUSED(tx_all_zero, 0, 0, "legacy_descriptor")
REFUSED(tx_all_ones, UINT64_MAX, UINT64_MAX,
	"descriptor_type|data_reserved_bits|context_reserved_bits|timestamp|encryption")
REFUSED(tx_type_0, VF_TX_BUF, SIMPLE(FRAME_BYTES) & ~TXD_DTYP_DATA, "descriptor_type")
REFUSED(tx_type_1, VF_TX_BUF, (SIMPLE(FRAME_BYTES) & ~TXD_DTYP_DATA) | 1ull << 20, "descriptor_type")
REFUSED(tx_reserved_type_bits, VF_TX_BUF, SIMPLE(FRAME_BYTES) | 3ull << 16, "data_reserved_bits|timestamp|encryption")
REFUSED(tx_reserved_command_bit, VF_TX_BUF, SIMPLE(FRAME_BYTES) | 1ull << 26, "data_reserved_bits")
REFUSED(tx_reserved_command_bit_28, VF_TX_BUF, SIMPLE(FRAME_BYTES) | 1ull << 28, "data_reserved_bits")
REFUSED(tx_timestamp, VF_TX_BUF, SIMPLE(FRAME_BYTES) | 1ull << 19, "timestamp|data_reserved_bits")
REFUSED(tx_without_fcs, VF_TX_BUF, SIMPLE(FRAME_BYTES) & ~TXD_IFCS, "fcs_not_inserted")

TEST_F_TIMEOUT(attacker, tx_each_reserved_status_bit, TIMEOUT_S)
{
	/* STA, the low 4 bits of the upper half, is the NIC's to write; 46 up is PAYLEN. */
	for (unsigned int bit = 42; bit < 46; bit++) {
		expect_refused(_metadata, &self->vf, VF_TX_BUF, SIMPLE(FRAME_BYTES) | 1ull << bit,
			       "data_reserved_bits|encryption");
		ASSERT_EQ(0, vf_restart(&self->vf));
	}
}

TEST_F_TIMEOUT(attacker, tx_last_bytes_of_memory, TIMEOUT_S)
{
	put_frame(&self->vf, VF_RAM_BYTES - FRAME_BYTES, FRAME_BYTES);
	expect_sent(_metadata, &self->vf, VF_RAM_BYTES - FRAME_BYTES, SIMPLE(FRAME_BYTES));
}

TEST_F_TIMEOUT(attacker, tx_first_bytes_of_memory, TIMEOUT_S)
{
	put_frame(&self->vf, 0, FRAME_BYTES);
	expect_sent(_metadata, &self->vf, 0, SIMPLE(FRAME_BYTES));
}

TEST_F_TIMEOUT(attacker, tx_every_offset_across_a_page, TIMEOUT_S)
{
	for (uint64_t at = VF_TX_BUF + VF_PAGE - FRAME_BYTES; at <= VF_TX_BUF + VF_PAGE; at++) {
		put_frame(&self->vf, at, FRAME_BYTES);
		expect_sent(_metadata, &self->vf, at, SIMPLE(FRAME_BYTES));
	}
}

TEST_F_TIMEOUT(attacker, tx_neighbours_physical_page, TIMEOUT_S)
{
	if (nb->canary_phys < VF_RAM_BYTES)
		SKIP(return, "physical addresses cannot be read here");
	expect_refused(_metadata, &self->vf, nb->canary_phys, SIMPLE(1000), "not_memory");
}

TEST_F_TIMEOUT(attacker, tx_own_physical_page, TIMEOUT_S)
{
	uint64_t phys;

	*vf_mem(&self->vf, VF_CANARY) = 1;
	phys = physical_address(vf_mem(&self->vf, VF_CANARY));
	if (phys < VF_RAM_BYTES)
		SKIP(return, "physical addresses cannot be read here");
	expect_refused(_metadata, &self->vf, phys, SIMPLE(FRAME_BYTES), "not_memory");
}

TEST_F_TIMEOUT(attacker, tx_kernel_code, TIMEOUT_S)
{
	uint64_t phys = kernel_code_address();

	if (phys < VF_RAM_BYTES)
		SKIP(return, "the kernel's address cannot be read here");
	expect_refused(_metadata, &self->vf, phys, SIMPLE(FRAME_BYTES), "not_memory");
}

TEST_F_TIMEOUT(attacker, tx_second_segment_outside, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	vf_post(vf, &vf->tx, VF_TX_BUF, TXD_DTYP_DATA | TXD_DEXT | TXD_IFCS | TXD_PAYLEN(96) | 32);
	vf_post(vf, &vf->tx, VF_RAM_BYTES, TXD_DTYP_DATA | TXD_DEXT | TXD_IFCS | TXD_PAYLEN(96) | 32);
	vf_post(vf, &vf->tx, VF_TX_BUF + 64, TXD_SIMPLE | TXD_PAYLEN(96) | 32);
	EXPECT_REJECTED("not_memory", vf_doorbell(vf, &vf->tx));
}

TEST_F_TIMEOUT(attacker, tx_segments_that_are_one_packet, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint32_t index;

	put_frame(vf, VF_TX_BUF, 96);
	vf_post(vf, &vf->tx, VF_TX_BUF, TXD_DTYP_DATA | TXD_DEXT | TXD_IFCS | TXD_PAYLEN(96) | 32);
	vf_post(vf, &vf->tx, VF_TX_BUF + 32, TXD_DTYP_DATA | TXD_DEXT | TXD_IFCS | TXD_PAYLEN(96) | 32);
	index = vf_post(vf, &vf->tx, VF_TX_BUF + 64, TXD_SIMPLE | TXD_PAYLEN(96) | 32);
	vf_doorbell(vf, &vf->tx);
	EXPECT_EQ(0, vf_tx_wait(vf, index, VF_WAIT_MS));
}

TEST_F_TIMEOUT(attacker, tx_packet_without_end, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	for (unsigned int i = 0; i < VF_RING_SLOTS - 1; i++)
		vf_post(vf, &vf->tx, VF_TX_BUF, TXD_DTYP_DATA | TXD_DEXT | TXD_IFCS | TXD_PAYLEN(4096) | 16);
	EXPECT_REJECTED("too_many_segments|payload_length", vf_doorbell(vf, &vf->tx));
}

TEST_F_TIMEOUT(attacker, tx_end_comes_later, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint64_t before = rejections_all(uuid_a);

	put_frame(vf, VF_TX_BUF, 96);
	vf_post(vf, &vf->tx, VF_TX_BUF, TXD_DTYP_DATA | TXD_DEXT | TXD_IFCS | TXD_PAYLEN(96) | 48);
	vf_doorbell(vf, &vf->tx);
	EXPECT_TRUE(neighbour_advances(nb, 5));
	EXPECT_EQ(before, rejections_all(uuid_a));
	expect_sent(_metadata, vf, VF_TX_BUF + 48, TXD_SIMPLE | TXD_PAYLEN(96) | 48);
}

TEST_F_TIMEOUT(attacker, tx_segments_disagree, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	vf_post(vf, &vf->tx, VF_TX_BUF, TXD_DTYP_DATA | TXD_DEXT | TXD_IFCS | TXD_VLE | TXD_PAYLEN(96) | 48);
	vf_post(vf, &vf->tx, VF_TX_BUF + 48, TXD_SIMPLE | TXD_TSE | TXD_POPTS_TXSM | TXD_PAYLEN(96) | 48);
	EXPECT_REJECTED("segments_disagree|context_missing", vf_doorbell(vf, &vf->tx));
}

TEST_F_TIMEOUT(attacker, tx_report_without_end, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	vf_post(vf, &vf->tx, VF_TX_BUF, (TXD_SIMPLE & ~TXD_EOP) | TXD_PAYLEN(96) | 48);
	vf_post(vf, &vf->tx, VF_TX_BUF + 48, TXD_SIMPLE | TXD_PAYLEN(96) | 48);
	EXPECT_REJECTED("report_without_eop", vf_doorbell(vf, &vf->tx));
}

TEST_F_TIMEOUT(attacker, tx_good_after_bad_stays_unsent, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint32_t index;

	vf_post(vf, &vf->tx, VF_RAM_BYTES, SIMPLE(FRAME_BYTES));
	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	index = vf_post(vf, &vf->tx, VF_TX_BUF, SIMPLE(FRAME_BYTES));
	EXPECT_REJECTED("not_memory", vf_doorbell(vf, &vf->tx));
	EXPECT_EQ(-ETIMEDOUT, vf_tx_wait(vf, index, VF_QUIET_MS));
}

TEST_F_TIMEOUT(attacker, tx_random_descriptors, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	for (unsigned int round = 0; round < 200; round++) {
		for (unsigned int i = 0; i < 16; i++) {
			uint64_t addr = round & 1 ? rng() : rng() % (2 * VF_RAM_BYTES);
			uint64_t word = rng();

			/* Half of them nearly right, so that they get past the first checks. */
			if (round & 2)
				word = (word & ~0xffff0000ull) | TXD_SIMPLE | (word & 0x3f0000);
			vf_post(vf, &vf->tx, addr, word);
		}
		vf_doorbell(vf, &vf->tx);
		vf_read(vf, VF_TXQ + VF_HEAD);
		nap();
		ASSERT_EQ(0, vf_restart(vf));
	}
}
