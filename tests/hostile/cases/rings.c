// SPDX-License-Identifier: GPL-2.0
/* Rings that are not rings, tails that are not tails. Part of hostile.c. */

#define RING_BYTES	(VF_RING_SLOTS * VF_DESC_BYTES)

/* Programs a ring, enables it and moves its tail: at the latest then it must be refused. */
static void use_ring(struct vf *vf, struct vf_ring *ring, uint64_t iova, uint32_t len_bytes)
{
	vf_ring_program(vf, ring, iova, len_bytes);
	vf_write(vf, ring->base + VF_QCTL, VF_QCTL_ENABLE);
	vf_write(vf, ring->base + VF_TAIL, 1);
}

static void expect_ring_refused(struct __test_metadata *_metadata, struct vf *vf, uint64_t iova,
				uint32_t len_bytes, const char *names)
{
	EXPECT_REJECTED(names, use_ring(vf, &vf->tx, iova, len_bytes));
	ASSERT_EQ(0, vf_restart(vf));
	EXPECT_REJECTED(names, use_ring(vf, &vf->rx, iova, len_bytes));
}

#define RING_REFUSED(test, iova, len_bytes, names) \
	TEST_F_TIMEOUT(attacker, test, TIMEOUT_S) \
	{ \
		expect_ring_refused(_metadata, &self->vf, iova, len_bytes, names); \
	}

RING_REFUSED(ring_outside_memory, VF_RAM_BYTES + 0x10000, RING_BYTES, "ring_not_memory")
RING_REFUSED(ring_partly_outside, VF_RAM_BYTES - 2048, RING_BYTES, "ring_not_memory")
RING_REFUSED(ring_last_page_outside, VF_RAM_BYTES - 0xf000, 0x10000, "ring_not_memory")
RING_REFUSED(ring_wraps, UINT64_MAX - 2047, RING_BYTES, "ring_wraps")
RING_REFUSED(ring_interrupt_window, 0xfee00000, RING_BYTES, "ring_not_memory")
RING_REFUSED(ring_pci_hole, 0xe0000000, RING_BYTES, "ring_not_memory")
RING_REFUSED(ring_length_zero, VF_CANARY, 0, "ring_length")
RING_REFUSED(ring_length_one_descriptor, VF_CANARY, VF_DESC_BYTES, "ring_length")
RING_REFUSED(ring_length_huge, VF_CANARY, 0x100000, "ring_length")
RING_REFUSED(ring_length_all_ones, VF_CANARY, UINT32_MAX, "ring_length")

TEST_F_TIMEOUT(attacker, ring_unaligned, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint32_t low;

	/* The low bits may as well read as zero, as the datasheet has them (8.12.8). */
	vf_ring_program(vf, &vf->tx, VF_TX_RING, RING_BYTES);
	vf_write(vf, vf->tx.base + VF_BAL, VF_TX_RING + 16);
	low = vf_read(vf, vf->tx.base + VF_BAL);
	if (low == VF_TX_RING)
		return;
	EXPECT_REJECTED("ring_base_unaligned", use_ring(vf, &vf->tx, VF_TX_RING + 16, RING_BYTES));
}

TEST_F_TIMEOUT(attacker, ring_length_odd, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	/* As above (8.12.10). */
	vf_write(vf, vf->tx.base + VF_QCTL, 0);
	vf_write(vf, vf->tx.base + VF_LEN, RING_BYTES + 1);
	if (vf_read(vf, vf->tx.base + VF_LEN) == RING_BYTES)
		return;
	EXPECT_REJECTED("ring_length", use_ring(vf, &vf->tx, VF_TX_RING, RING_BYTES + 1));
}

TEST_F_TIMEOUT(attacker, ring_at_neighbours_physical_page, TIMEOUT_S)
{
	if (nb->canary_phys < VF_RAM_BYTES)
		SKIP(return, "physical addresses cannot be read here");
	expect_ring_refused(_metadata, &self->vf, nb->canary_phys, RING_BYTES, "ring_not_memory");
}

TEST_F_TIMEOUT(attacker, rings_overlap, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	EXPECT_REJECTED("rings_overlap", use_ring(vf, &vf->tx, VF_RX_RING, RING_BYTES));
	ASSERT_EQ(0, vf_restart(vf));
	EXPECT_REJECTED("rings_overlap", use_ring(vf, &vf->rx, VF_TX_RING + 128, RING_BYTES));
}

TEST_F_TIMEOUT(attacker, buffer_over_ring, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	/* Sending the ring itself is foolish but harms nobody. */
	expect_sent(_metadata, vf, VF_TX_RING, SIMPLE(FRAME_BYTES));
	expect_sent(_metadata, vf, VF_RX_RING, SIMPLE(1000));
}

#define TAIL_REFUSED(test, queue, value, names) \
	TEST_F_TIMEOUT(attacker, test, TIMEOUT_S) \
	{ \
		EXPECT_REJECTED(names, vf_write(&self->vf, queue + VF_TAIL, value)); \
	}

TAIL_REFUSED(tx_tail_at_the_end, VF_TXQ, VF_RING_SLOTS, "tail_outside_ring")
TAIL_REFUSED(tx_tail_far_outside, VF_TXQ, 0xffff, "tail_outside_ring")
TAIL_REFUSED(tx_tail_all_ones, VF_TXQ, UINT32_MAX, "tail_outside_ring")
TAIL_REFUSED(tx_tail_jumps, VF_TXQ, 100, "legacy_descriptor")
TAIL_REFUSED(rx_tail_at_the_end, VF_RXQ, VF_RING_SLOTS, "tail_outside_ring")
TAIL_REFUSED(rx_tail_all_ones, VF_RXQ, UINT32_MAX, "tail_outside_ring")

TEST_F_TIMEOUT(attacker, tx_tail_backwards, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	for (unsigned int i = 0; i < 4; i++)
		expect_sent(_metadata, vf, VF_TX_BUF, SIMPLE(FRAME_BYTES));
	/* All the rest of the ring, then: descriptors that are zero. */
	EXPECT_REJECTED("legacy_descriptor", vf_write(vf, vf->tx.base + VF_TAIL, 2));
}

/* The tail may go around between two looks; what is sent is what lies there. */
TEST_F_TIMEOUT(attacker, tx_tail_at_random, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	for (unsigned int i = 0; i < VF_RING_SLOTS; i++)
		vf_post(vf, &vf->tx, VF_TX_BUF, SIMPLE(FRAME_BYTES));
	for (unsigned int i = 0; i < 2000; i++)
		vf_write(vf, vf->tx.base + VF_TAIL, rng() % VF_RING_SLOTS);
}

TEST_F_TIMEOUT(attacker, head_is_not_the_guests, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	for (unsigned int i = 0; i < 200; i++) {
		vf_write(vf, vf->tx.base + VF_HEAD, rng());
		vf_write(vf, vf->rx.base + VF_HEAD, rng());
		vf_post(vf, &vf->tx, VF_TX_BUF, SIMPLE(FRAME_BYTES));
		vf_doorbell(vf, &vf->tx);
	}
}

TEST_F_TIMEOUT(attacker, enable_half_configured, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	/* Nothing programmed since the reset: a ring of length 0. */
	ASSERT_EQ(0, vfio_reset(&vf->dev));
	ASSERT_EQ(0, vf_handshake(vf));
	EXPECT_REJECTED("ring_length", vf_write(vf, VF_TXQ + VF_QCTL, VF_QCTL_ENABLE);
			vf_write(vf, VF_TXQ + VF_TAIL, 1));
	ASSERT_EQ(0, vfio_reset(&vf->dev));
	ASSERT_EQ(0, vf_handshake(vf));
	EXPECT_REJECTED("ring_length|rx_packet_size", vf_write(vf, VF_RXQ + VF_QCTL, VF_QCTL_ENABLE);
			vf_write(vf, VF_RXQ + VF_TAIL, 1));
	/* Both queues of the function, without a handshake. */
	ASSERT_EQ(0, vfio_reset(&vf->dev));
	for (unsigned int q = 0; q < VF_QUEUES; q++) {
		vf_write(vf, VF_TXQ + q * VF_QUEUE_STRIDE + VF_QCTL, VF_QCTL_ENABLE);
		vf_write(vf, VF_RXQ + q * VF_QUEUE_STRIDE + VF_QCTL, VF_QCTL_ENABLE);
	}
}

/* The ring's place and length change while the queue runs. */
TEST_F_TIMEOUT(attacker, ring_moves_while_running, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	for (unsigned int i = 0; i < 200; i++) {
		vf_post(vf, &vf->tx, VF_TX_BUF, SIMPLE(FRAME_BYTES));
		vf_doorbell(vf, &vf->tx);
		vf_write(vf, vf->tx.base + VF_BAL, rng() & ~127u);
		vf_write(vf, vf->tx.base + VF_LEN, (rng() & 0xfff80));
		vf_write(vf, vf->rx.base + VF_BAL, rng() & ~127u);
		vf_write(vf, vf->rx.base + VF_LEN, (rng() & 0xfff80));
	}
}

TEST_F_TIMEOUT(attacker, enable_and_disable_in_turn, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	neighbour_flood(nb, vf->mac);
	for (unsigned int i = 0; i < 100; i++) {
		put_frame(vf, VF_TX_BUF, FRAME_BYTES);
		vf_post(vf, &vf->tx, VF_TX_BUF, SIMPLE(FRAME_BYTES));
		vf_doorbell(vf, &vf->tx);
		vf_write(vf, vf->tx.base + VF_QCTL, 0);
		vf_write(vf, vf->rx.base + VF_QCTL, 0);
		ASSERT_EQ(0, vf_start(vf));
	}
}
