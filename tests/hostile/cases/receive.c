// SPDX-License-Identifier: GPL-2.0
/* Receive descriptors that name what they must not. Part of hostile.c. */

/* A running slice whose receive ring is empty, so that the next post is the first to be looked at. */
static int start_without_buffers(struct vf *vf)
{
	const uint32_t len_bytes = VF_RING_SLOTS * VF_DESC_BYTES;
	int ret = vf_restart(vf);

	if (ret)
		return ret;
	memset(vf_mem(vf, VF_RX_RING), 0, len_bytes);
	vf_ring_program(vf, &vf->rx, VF_RX_RING, len_bytes);
	return vf_ring_enable(vf, &vf->rx);
}

static void expect_rx_refused(struct __test_metadata *_metadata, struct vf *vf, uint64_t packet,
			      uint64_t header, const char *names)
{
	ASSERT_EQ(0, start_without_buffers(vf));
	vf_post(vf, &vf->rx, packet, header);
	EXPECT_REJECTED(names, vf_doorbell(vf, &vf->rx));
	neighbour_flood(nb, vf->mac);
	EXPECT_TRUE(neighbour_flooded(nb, 20));
	EXPECT_FALSE(vf_desc(vf, &vf->rx, 0)[1] == (RXD_DD | RXD_EOP));
}

#define RX_REFUSED(test, packet, header, names) \
	TEST_F_TIMEOUT(attacker, test, TIMEOUT_S) \
	{ \
		expect_rx_refused(_metadata, &self->vf, packet, header, names); \
	}

RX_REFUSED(rx_outside_memory, VF_RAM_BYTES + 0x10000, 0, "not_memory")
RX_REFUSED(rx_right_after_the_end, VF_RAM_BYTES, 0, "not_memory")
/* The NIC writes up to 1522 bytes, the limit that the guest asked for. */
RX_REFUSED(rx_end_of_frame_outside, VF_RAM_BYTES - 1520, 0, "not_memory")
RX_REFUSED(rx_wraps, UINT64_MAX - 1, 0, "address_wraps|not_memory")
RX_REFUSED(rx_interrupt_window, 0xfee00000, 0, "not_memory")
RX_REFUSED(rx_pci_hole, 0xe0000000, 0, "not_memory")
RX_REFUSED(rx_odd_address, VF_RX_BUF + 1, 0, "rx_packet_odd")

TEST_F_TIMEOUT(attacker, rx_neighbours_physical_page, TIMEOUT_S)
{
	if (nb->canary_phys < VF_RAM_BYTES)
		SKIP(return, "physical addresses cannot be read here");
	expect_rx_refused(_metadata, &self->vf, nb->canary_phys, 0, "not_memory");
}

TEST_F_TIMEOUT(attacker, rx_kernel_code, TIMEOUT_S)
{
	uint64_t phys = kernel_code_address();

	if (phys < VF_RAM_BYTES)
		SKIP(return, "the kernel's address cannot be read here");
	expect_rx_refused(_metadata, &self->vf, phys, 0, "not_memory");
}

TEST_F_TIMEOUT(attacker, rx_last_buffer_of_memory, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	volatile uint64_t *desc;
	uint64_t end = now_ms() + VF_WAIT_MS;

	ASSERT_EQ(0, start_without_buffers(vf));
	vf_post(vf, &vf->rx, VF_RAM_BYTES - VF_RX_BUF_BYTES, 0);
	vf_doorbell(vf, &vf->rx);
	neighbour_flood(nb, vf->mac);
	desc = vf_desc(vf, &vf->rx, 0);
	while (!(desc[1] & RXD_DD) && now_ms() < end)
		nap();
	EXPECT_TRUE(!!(desc[1] & RXD_DD));
	EXPECT_TRUE(probe_intact((struct probe *)vf_mem(vf, VF_RAM_BYTES - VF_RX_BUF_BYTES), RXD_LEN(desc[1])));
}

/* A packet longer than the buffer is spread over several, never written past one. */
TEST_F_TIMEOUT(attacker, rx_packet_longer_than_buffer, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	const uint32_t kib = 1024;

	ASSERT_EQ(0, start_without_buffers(vf));
	vf_write(vf, vf->rx.base + VF_QCTL, 0);
	vf_write(vf, vf->rx.base + VF_SRRCTL, VF_SRRCTL_ONEBUF | VF_SRRCTL_DROP | 1);
	ASSERT_EQ(0, vf_ring_enable(vf, &vf->rx));
	memset(vf_mem(vf, VF_RX_BUF), 0x5a, 64 * VF_PAGE);
	for (unsigned int i = 0; i < 64; i++)
		vf_post(vf, &vf->rx, VF_RX_BUF + i * VF_PAGE, 0);
	vf_doorbell(vf, &vf->rx);
	neighbour_flood(nb, vf->mac);
	EXPECT_TRUE(neighbour_flooded(nb, 200));
	neighbour_flood_stop(nb);
	EXPECT_TRUE(neighbour_advances(nb, 3));
	for (unsigned int i = 0; i < 64; i++)
		EXPECT_TRUE(all_bytes(vf_mem(vf, VF_RX_BUF + i * VF_PAGE + kib), 0x5a, VF_PAGE - kib));
}

/*
 * Buffers that share bytes harm only their owner. Mapped once, or for each descriptor: then the
 * kernel is told that they are meant (DMA API debugging).
 */
TEST_F_TIMEOUT(attacker, rx_same_buffer_everywhere, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	bool each = !strcmp(variant->strategy, "single-use");
	uint64_t pins;

	ASSERT_EQ(0, start_without_buffers(vf));
	pins = stat_of(uuid_a, "pins");
	for (unsigned int i = 0; i < VF_RING_SLOTS - 1; i++)
		vf_post(vf, &vf->rx, VF_RX_BUF, 0);
	vf_doorbell(vf, &vf->rx);
	neighbour_flood(nb, vf->mac);
	EXPECT_TRUE(neighbour_flooded(nb, 400));
	pins = stat_of(uuid_a, "pins") - pins;
	EXPECT_EQ(each, pins >= VF_RING_SLOTS - 1) TH_LOG("%llu pins", (unsigned long long)pins);
}

/* The receive ring as receive buffer: the descriptors that follow are the packet's bytes. */
TEST_F_TIMEOUT(attacker, rx_into_own_ring, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	ASSERT_EQ(0, start_without_buffers(vf));
	for (unsigned int i = 0; i < VF_RING_SLOTS - 1; i++)
		vf_post(vf, &vf->rx, VF_RX_RING, 0);
	vf_doorbell(vf, &vf->rx);
	neighbour_flood(nb, vf->mac);
	for (unsigned int i = 0; i < 50; i++) {
		vf_doorbell(vf, &vf->rx);
		EXPECT_TRUE(neighbour_flooded(nb, 4));
	}
}

TEST_F_TIMEOUT(attacker, rx_buffer_size_zero, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	vf_write(vf, vf->rx.base + VF_QCTL, 0);
	vf_write(vf, vf->rx.base + VF_SRRCTL, VF_SRRCTL_ONEBUF | VF_SRRCTL_DROP);
	EXPECT_REJECTED("rx_packet_size|rx_buffer_size", vf_write(vf, vf->rx.base + VF_QCTL, VF_QCTL_ENABLE));
}

/*
 * Buffers of 16 KiB of which only the last 2 KiB of memory exist, posted while
 * frames are short; then the guest asks for jumbo frames, and they come.
 */
TEST_F_TIMEOUT(attacker, rx_limit_raised_while_running, TIMEOUT_S)
{
	uint32_t msg[2] = { VF_MSG_SET_LPE, 9728 };
	struct vf *vf = &self->vf;

	ASSERT_EQ(0, start_without_buffers(vf));
	vf_write(vf, vf->rx.base + VF_QCTL, 0);
	vf_write(vf, vf->rx.base + VF_SRRCTL, VF_SRRCTL_ONEBUF | VF_SRRCTL_DROP | 16);
	vf_ring_program(vf, &vf->rx, VF_RX_RING, VF_RING_SLOTS * VF_DESC_BYTES);
	ASSERT_EQ(0, vf_ring_enable(vf, &vf->rx));
	for (unsigned int i = 0; i < 100; i++)
		vf_post(vf, &vf->rx, VF_RAM_BYTES - VF_RX_BUF_BYTES, 0);
	vf_doorbell(vf, &vf->rx);
	neighbour_flood(nb, vf->mac);
	EXPECT_TRUE(neighbour_flooded(nb, 20));
	EXPECT_EQ(0, vf_message(vf, msg, 2, 1));
	nb->flood_jumbo = true;
	/* On a wire of short frames none can be sent. */
	if (!neighbour_flooded(nb, 50))
		SKIP(return, "the wire takes no jumbo frames");
	EXPECT_TRUE(neighbour_advances(nb, 3));
}

/* Every value of SRRCTL's fields, with buffers right before a canary. */
TEST_F_TIMEOUT(attacker, rx_all_buffer_layouts, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	memset(vf_mem(vf, VF_CANARY), 0x5a, VF_PAGE);
	neighbour_flood(nb, vf->mac);
	for (unsigned int type = 0; type < 8; type++) {
		for (unsigned int size = 0; size < 128; size = size * 2 + 1) {
			vf_write(vf, vf->rx.base + VF_QCTL, 0);
			vf_ring_program(vf, &vf->rx, VF_RX_RING, VF_RING_SLOTS * VF_DESC_BYTES);
			vf_write(vf, vf->rx.base + VF_SRRCTL, type << 25 | (rng() % 64) << 8 | size);
			vf_write(vf, vf->rx.base + VF_QCTL, VF_QCTL_ENABLE);
			for (unsigned int i = 0; i < 16; i++)
				vf_post(vf, &vf->rx, VF_CANARY - 1024, VF_CANARY - 64);
			vf_doorbell(vf, &vf->rx);
			nap();
			/* A layout of at most 1 KiB may be used; a longer one reaches the canary by right. */
			if (size <= 1)
				EXPECT_TRUE(all_bytes(vf_mem(vf, VF_CANARY + VF_RX_BUF_BYTES), 0x5a, 1024));
			ASSERT_EQ(0, vfio_reset(&vf->dev));
			ASSERT_EQ(0, vf_handshake(vf));
		}
	}
}

TEST_F_TIMEOUT(attacker, rx_random_descriptors, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	neighbour_flood(nb, vf->mac);
	for (unsigned int round = 0; round < 100; round++) {
		ASSERT_EQ(0, start_without_buffers(vf));
		for (unsigned int i = 0; i < 16; i++)
			vf_post(vf, &vf->rx, round & 1 ? rng() : rng() % (2 * VF_RAM_BYTES) & ~1ull, rng());
		vf_doorbell(vf, &vf->rx);
		nap();
	}
}
