// SPDX-License-Identifier: GPL-2.0
/* Slices that end at the worst moment. Part of hostile.c. */

#define KILLS	50
#define RESETS	50

/* Both directions at once, until somebody ends it. */
static void traffic_forever(struct vf *vf)
{
	uint8_t frame[VF_RX_BUF_BYTES];

	put_frame(vf, VF_TX_BUF, 1000);
	for (;;) {
		for (unsigned int i = 0; i < 16; i++)
			vf_post(vf, &vf->tx, VF_TX_BUF, SIMPLE(1000ull));
		vf_doorbell(vf, &vf->tx);
		vf_receive(vf, frame, 1);
	}
}

static void post_some(struct vf *vf)
{
	put_frame(vf, VF_TX_BUF, 1000);
	for (unsigned int i = 0; i < 100; i++)
		vf_post(vf, &vf->tx, VF_TX_BUF, SIMPLE(1000ull));
	vf_doorbell(vf, &vf->tx);
}

TEST_F_TIMEOUT(attacker, reset_in_traffic, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	neighbour_flood(nb, vf->mac);
	for (unsigned int i = 0; i < times(RESETS); i++) {
		post_some(vf);
		EXPECT_TRUE(neighbour_flooded(nb, rng() % 8));
		ASSERT_EQ(0, vfio_reset(&vf->dev));
		/* At rest: nothing is written any more. */
		memset(vf->ram, 0x5a, VF_RAM_BYTES);
		EXPECT_TRUE(neighbour_flooded(nb, 8));
		EXPECT_TRUE(all_bytes(vf->ram, 0x5a, VF_RAM_BYTES));
		ASSERT_EQ(0, vf_handshake(vf));
		ASSERT_EQ(0, vf_start(vf));
	}
}

/* The reset that the guest itself can do (CTRL.RST). */
TEST_F_TIMEOUT(attacker, guest_reset_in_traffic, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	neighbour_flood(nb, vf->mac);
	for (unsigned int i = 0; i < times(RESETS); i++) {
		post_some(vf);
		vf_write(vf, VF_CTRL, VF_CTRL_RST);
		memset(vf->ram, 0x5a, VF_RAM_BYTES);
		EXPECT_TRUE(neighbour_flooded(nb, 8));
		EXPECT_TRUE(all_bytes(vf->ram, 0x5a, VF_RAM_BYTES));
		ASSERT_EQ(0, vf_handshake(vf));
		ASSERT_EQ(0, vf_start(vf));
	}
}

/* Bus mastering off means no DMA, also not into buffers that were posted before. */
TEST_F_TIMEOUT(attacker, bus_master_off_in_traffic, TIMEOUT_S)
{
	const uint16_t off = VF_PCI_COMMAND_MEMORY;
	struct vf *vf = &self->vf;

	neighbour_flood(nb, vf->mac);
	for (unsigned int i = 0; i < 10; i++) {
		post_some(vf);
		EXPECT_TRUE(neighbour_flooded(nb, 8));
		ASSERT_EQ(0, vfio_write(&vf->dev, VFIO_PCI_CONFIG_REGION_INDEX, VF_PCI_COMMAND, &off, sizeof(off)));
		memset(vf->ram, 0x5a, VF_RAM_BYTES);
		EXPECT_TRUE(neighbour_flooded(nb, 20));
		EXPECT_TRUE(all_bytes(vf->ram, 0x5a, VF_RAM_BYTES));
		ASSERT_EQ(0, vf_restart(vf));
	}
}

TEST_F_TIMEOUT(attacker, function_level_reset_in_traffic, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint8_t at = 0, id = 0;
	uint16_t control = 0;

	neighbour_flood(nb, vf->mac);
	/* Walk to the PCI Express capability; bounded, the list is the model's. */
	vfio_read(&vf->dev, VFIO_PCI_CONFIG_REGION_INDEX, 0x34, &at, 1);
	for (unsigned int i = 0; at && i < 48; i++) {
		vfio_read(&vf->dev, VFIO_PCI_CONFIG_REGION_INDEX, at, &id, 1);
		if (id == 0x10)
			break;
		vfio_read(&vf->dev, VFIO_PCI_CONFIG_REGION_INDEX, at + 1, &at, 1);
	}
	if (!at)
		SKIP(return, "no PCI Express capability");
	post_some(vf);
	EXPECT_TRUE(neighbour_flooded(nb, 20));
	vfio_read(&vf->dev, VFIO_PCI_CONFIG_REGION_INDEX, at + 8, &control, 2);
	control |= 1 << 15;
	EXPECT_EQ(0, vfio_write(&vf->dev, VFIO_PCI_CONFIG_REGION_INDEX, at + 8, &control, 2));
	memset(vf->ram, 0x5a, VF_RAM_BYTES);
	EXPECT_TRUE(neighbour_flooded(nb, 50));
	EXPECT_TRUE(all_bytes(vf->ram, 0x5a, VF_RAM_BYTES));
}

TEST_F_TIMEOUT(attacker, close_in_traffic, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint8_t mac[6];

	memcpy(mac, vf->mac, sizeof(mac));
	neighbour_flood(nb, mac);
	for (unsigned int i = 0; i < times(20); i++) {
		uint8_t *ram;

		post_some(vf);
		EXPECT_TRUE(neighbour_flooded(nb, 8));
		vfio_close(&vf->dev);
		memset(vf->ram, 0x5a, VF_RAM_BYTES);
		EXPECT_TRUE(neighbour_flooded(nb, 20));
		ram = vf->ram;
		EXPECT_TRUE(all_bytes(ram, 0x5a, VF_RAM_BYTES));
		vf_close(vf);
		ASSERT_EQ(0, vf_open(vf, uuid_a));
		ASSERT_EQ(0, vf_restart(vf));
	}
}

/* Only the device goes; container, group and mappings stay. */
TEST_F_TIMEOUT(attacker, close_device_only, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	neighbour_flood(nb, vf->mac);
	for (unsigned int i = 0; i < times(20); i++) {
		post_some(vf);
		EXPECT_TRUE(neighbour_flooded(nb, 4));
		close(vf->dev.device);
		memset(vf->ram, 0x5a, VF_RAM_BYTES);
		EXPECT_TRUE(neighbour_flooded(nb, 8));
		EXPECT_TRUE(all_bytes(vf->ram, 0x5a, VF_RAM_BYTES));
		ASSERT_EQ(0, vfio_open_device(&vf->dev));
		ASSERT_EQ(0, vf_restart(vf));
	}
}

/* kill -9 at any moment: from before the open to the middle of traffic. */
TEST_F_TIMEOUT(attacker, killed_at_random, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	neighbour_flood(nb, vf->mac);
	vf_close(vf);
	for (unsigned int i = 0; i < times(KILLS); i++) {
		pid_t child;
		int status;

		child = fork();
		ASSERT_LE(0, child);
		if (!child) {
			struct vf own;

			if (vf_open(&own, uuid_a) || vf_restart(&own))
				_exit(1);
			traffic_forever(&own);
		}
		usleep(rng() % 200000);
		kill(child, SIGKILL);
		ASSERT_EQ(child, waitpid(child, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status)) TH_LOG("slice could not be opened in round %u", i);
	}
	EXPECT_TRUE(neighbour_advances(nb, 3));
	ASSERT_EQ(0, vf_open(vf, uuid_a));
}

/* The process that mapped the memory dies; another one still holds the device. */
TEST_F_TIMEOUT(attacker, mapper_dies_first, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	pid_t child;

	neighbour_flood(nb, vf->mac);
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		void *va = mmap(NULL, EXTRA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (va == MAP_FAILED || vfio_map(&vf->dev, va, EXTRA_IOVA, EXTRA_BYTES, RW))
			_exit(1);
		if (start_without_buffers(vf))
			_exit(1);
		post_extra_buffers(vf);
		_exit(extra_used(va) ? 0 : 1);
	}
	int status = 0;

	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(neighbour_flooded(nb, 100));
	/* New pages of a dead process's memory cannot be pinned. */
	vf_post(vf, &vf->tx, EXTRA_IOVA + EXTRA_BYTES - VF_PAGE, SIMPLE(FRAME_BYTES));
	vf_doorbell(vf, &vf->tx);
	EXPECT_TRUE(neighbour_flooded(nb, 20));
	EXPECT_EQ(0, vfio_unmap(&vf->dev, EXTRA_IOVA, EXTRA_BYTES));
}

/* What was pinned is given back. */
TEST_F_TIMEOUT(attacker, pins_do_not_add_up, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	long before, after;

	vf_close(vf);
	before = locked_kib();
	for (unsigned int i = 0; i < 10; i++) {
		ASSERT_EQ(0, vf_open(vf, uuid_a));
		ASSERT_EQ(0, vf_restart(vf));
		post_some(vf);
		vf_close(vf);
	}
	after = locked_kib();
	EXPECT_EQ(before, after);
	ASSERT_EQ(0, vf_open(vf, uuid_a));
}
