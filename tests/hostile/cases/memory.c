// SPDX-License-Identifier: GPL-2.0
/* Guest memory that goes away, or was never quite there. Part of hostile.c. */

/* A second piece of guest memory, that tests may take away. */
#define EXTRA_IOVA	0x10000000ull
#define EXTRA_BYTES	(1ull << 20)
#define EXTRA_RING	(EXTRA_IOVA + EXTRA_BYTES - 0x10000)
#define RW		(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)

static uint8_t *map_extra(struct __test_metadata *_metadata, struct vf *vf, uint32_t flags)
{
	uint8_t *va = mmap(NULL, EXTRA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, va);
	memset(va, 0, EXTRA_BYTES);
	ASSERT_EQ(0, vfio_map(&vf->dev, va, EXTRA_IOVA, EXTRA_BYTES, flags));
	return va;
}

static void post_extra_buffers(struct vf *vf)
{
	for (unsigned int i = 0; i < 200; i++)
		vf_post(vf, &vf->rx, EXTRA_IOVA + i * VF_PAGE, 0);
	vf_doorbell(vf, &vf->rx);
}

static bool extra_used(const uint8_t *va)
{
	uint64_t end = now_ms() + VF_WAIT_MS;

	while (now_ms() < end) {
		if (!all_bytes(va, 0, VF_PAGE))
			return true;
		nap();
	}
	return false;
}

/* Refills @va after it was taken away; under traffic it must stay as it is. */
static void expect_left_alone(struct __test_metadata *_metadata, uint8_t *va)
{
	memset(va, 0x5a, EXTRA_BYTES);
	EXPECT_TRUE(neighbour_flooded(nb, 200));
	EXPECT_TRUE(neighbour_advances(nb, 3));
	EXPECT_TRUE(all_bytes(va, 0x5a, EXTRA_BYTES));
}

TEST_F_TIMEOUT(attacker, unmap_under_receive_buffers, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint8_t *va = map_extra(_metadata, vf, RW);

	for (unsigned int i = 0; i < 5; i++) {
		ASSERT_EQ(0, start_without_buffers(vf));
		memset(va, 0, EXTRA_BYTES);
		post_extra_buffers(vf);
		neighbour_flood(nb, vf->mac);
		EXPECT_TRUE(extra_used(va));
		ASSERT_EQ(0, vfio_unmap(&vf->dev, EXTRA_IOVA, EXTRA_BYTES));
		expect_left_alone(_metadata, va);
		ASSERT_EQ(0, vfio_map(&vf->dev, va, EXTRA_IOVA, EXTRA_BYTES, RW));
	}
}

TEST_F_TIMEOUT(attacker, unmap_under_transmit_buffers, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint8_t *va = map_extra(_metadata, vf, RW);

	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	memcpy(va, vf_mem(vf, VF_TX_BUF), FRAME_BYTES);
	for (unsigned int i = 0; i < 20; i++) {
		expect_sent(_metadata, vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES));
		for (unsigned int j = 0; j < 100; j++)
			vf_post(vf, &vf->tx, EXTRA_IOVA, SIMPLE(FRAME_BYTES));
		vf_doorbell(vf, &vf->tx);
		ASSERT_EQ(0, vfio_unmap(&vf->dev, EXTRA_IOVA, EXTRA_BYTES));
		ASSERT_EQ(0, vfio_map(&vf->dev, va, EXTRA_IOVA, EXTRA_BYTES, RW));
		ASSERT_EQ(0, vf_restart(vf));
	}
}

TEST_F_TIMEOUT(attacker, unmap_under_transmit_then_use, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint8_t *va = map_extra(_metadata, vf, RW);

	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	memcpy(va, vf_mem(vf, VF_TX_BUF), FRAME_BYTES);
	expect_sent(_metadata, vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES));
	ASSERT_EQ(0, vfio_unmap(&vf->dev, EXTRA_IOVA, EXTRA_BYTES));
	/* Once mapped does not mean still mapped. */
	expect_refused(_metadata, vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES), "not_memory");
}

/* Another page at the same guest address: what is sent is the new one's. */
TEST_F_TIMEOUT(attacker, remap_other_memory, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint8_t *first = map_extra(_metadata, vf, RW), *second;

	ASSERT_EQ(0, start_without_buffers(vf));
	post_extra_buffers(vf);
	neighbour_flood(nb, vf->mac);
	EXPECT_TRUE(extra_used(first));
	ASSERT_EQ(0, vfio_unmap(&vf->dev, EXTRA_IOVA, EXTRA_BYTES));
	second = map_extra(_metadata, vf, RW);
	ASSERT_EQ(0, start_without_buffers(vf));
	post_extra_buffers(vf);
	EXPECT_TRUE(extra_used(second));
	expect_left_alone(_metadata, first);
}

static void unmap_under_ring(struct __test_metadata *_metadata, struct vf *vf, struct vf_ring *ring)
{
	uint8_t *va = map_extra(_metadata, vf, RW);

	vf_write(vf, ring->base + VF_QCTL, 0);
	vf_ring_program(vf, ring, EXTRA_RING, VF_RING_SLOTS * VF_DESC_BYTES);
	ASSERT_EQ(0, vf_ring_enable(vf, ring));
	vf_write(vf, ring->base + VF_TAIL, 1);
	neighbour_flood(nb, vf->mac);
	EXPECT_TRUE(neighbour_flooded(nb, 20));
	ASSERT_EQ(0, vfio_unmap(&vf->dev, EXTRA_IOVA, EXTRA_BYTES));
	expect_left_alone(_metadata, va);
	/* A doorbell for a ring that is gone. */
	for (unsigned int i = 0; i < VF_RING_SLOTS; i++)
		vf_write(vf, ring->base + VF_TAIL, i);
	EXPECT_TRUE(all_bytes(va, 0x5a, EXTRA_BYTES));
}

TEST_F_TIMEOUT(attacker, unmap_under_transmit_ring, TIMEOUT_S)
{
	unmap_under_ring(_metadata, &self->vf, &self->vf.tx);
}

TEST_F_TIMEOUT(attacker, unmap_under_receive_ring, TIMEOUT_S)
{
	unmap_under_ring(_metadata, &self->vf, &self->vf.rx);
}

TEST_F_TIMEOUT(attacker, unmap_everything_in_traffic, TIMEOUT_S)
{
	struct vfio_iommu_type1_dma_unmap all = {
		.argsz = sizeof(all),
		.flags = VFIO_DMA_UNMAP_FLAG_ALL,
	};
	struct vf *vf = &self->vf;

	neighbour_flood(nb, vf->mac);
	EXPECT_TRUE(neighbour_flooded(nb, 20));
	ASSERT_EQ(0, ioctl(vf->dev.container, VFIO_IOMMU_UNMAP_DMA, &all));
	memset(vf->ram, 0x5a, VF_RAM_BYTES);
	EXPECT_TRUE(neighbour_flooded(nb, 200));
	EXPECT_TRUE(all_bytes(vf->ram, 0x5a, VF_RAM_BYTES));
	ASSERT_EQ(0, vfio_map(&vf->dev, vf->ram, 0, VF_RAM_BYTES, RW));
}

/* The VMM frees the memory without a word to VFIO: pinned pages stay the guest's. */
TEST_F_TIMEOUT(attacker, munmap_without_unmap, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint8_t *va = map_extra(_metadata, vf, RW), *reused;

	ASSERT_EQ(0, start_without_buffers(vf));
	post_extra_buffers(vf);
	neighbour_flood(nb, vf->mac);
	EXPECT_TRUE(extra_used(va));
	ASSERT_EQ(0, munmap(va, EXTRA_BYTES));
	reused = mmap(NULL, 4 * EXTRA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, reused);
	memset(reused, 0x5a, 4 * EXTRA_BYTES);
	EXPECT_TRUE(neighbour_flooded(nb, 200));
	EXPECT_TRUE(all_bytes(reused, 0x5a, 4 * EXTRA_BYTES));
	ASSERT_EQ(0, vfio_unmap(&vf->dev, EXTRA_IOVA, EXTRA_BYTES));
}

TEST_F_TIMEOUT(attacker, read_only_memory_for_receive, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint8_t *va = map_extra(_metadata, vf, VFIO_DMA_MAP_FLAG_READ);

	ASSERT_EQ(0, start_without_buffers(vf));
	neighbour_flood(nb, vf->mac);
	EXPECT_REJECTED("access_denied|not_memory", post_extra_buffers(vf));
	EXPECT_TRUE(neighbour_flooded(nb, 50));
	EXPECT_TRUE(all_bytes(va, 0, EXTRA_BYTES));
}

TEST_F_TIMEOUT(attacker, read_only_memory_for_rings, TIMEOUT_S)
{
	map_extra(_metadata, &self->vf, VFIO_DMA_MAP_FLAG_READ);
	expect_ring_refused(_metadata, &self->vf, EXTRA_RING, RING_BYTES, "ring_not_memory|access_denied");
}

TEST_F_TIMEOUT(attacker, read_only_memory_for_transmit, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint8_t *va = map_extra(_metadata, vf, VFIO_DMA_MAP_FLAG_READ);

	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	memcpy(va, vf_mem(vf, VF_TX_BUF), FRAME_BYTES);
	expect_sent(_metadata, vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES));
	/* Pinned for reading must not do for writing. */
	ASSERT_EQ(0, start_without_buffers(vf));
	expect_sent(_metadata, vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES));
	EXPECT_REJECTED("access_denied|not_memory", post_extra_buffers(vf));
}

TEST_F_TIMEOUT(attacker, write_only_memory_for_transmit, TIMEOUT_S)
{
	map_extra(_metadata, &self->vf, VFIO_DMA_MAP_FLAG_WRITE);
	expect_refused(_metadata, &self->vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES), "access_denied|not_memory");
}

/* Memory that the process itself may only read, mapped as writable. */
TEST_F_TIMEOUT(attacker, pages_the_process_may_not_write, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint8_t *va = map_extra(_metadata, vf, RW);

	ASSERT_EQ(0, mprotect(va, EXTRA_BYTES, PROT_READ));
	ASSERT_EQ(0, start_without_buffers(vf));
	neighbour_flood(nb, vf->mac);
	EXPECT_REJECTED("access_denied|not_memory|pin_failed", post_extra_buffers(vf));
	EXPECT_TRUE(all_bytes(va, 0, EXTRA_BYTES));
}

TEST_F_TIMEOUT(attacker, pages_that_do_not_exist, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint8_t *va = map_extra(_metadata, vf, RW);

	ASSERT_EQ(0, munmap(va, EXTRA_BYTES));
	expect_refused(_metadata, vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES), "access_denied|not_memory|pin_failed");
}

/* The first PCI memory BAR that can be mapped; the NIC's own is best. */
static uint8_t *map_some_bar(struct __test_metadata *_metadata)
{
	char path[128];

	for (int slot = -1; slot < 32; slot++) {
		for (int bar = 0; bar < 6; bar++) {
			uint8_t *va;
			int fd;

			if (slot < 0)
				snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource%d",
					 pci_address ? pci_address : "none", bar);
			else
				snprintf(path, sizeof(path), "/sys/bus/pci/devices/0000:00:%02x.0/resource%d",
					 slot, bar);
			fd = open(path, O_RDWR | O_CLOEXEC);
			if (fd < 0)
				continue;
			va = mmap(NULL, VF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
			close(fd);
			if (va != MAP_FAILED) {
				TH_LOG("device memory: %s", path);
				return va;
			}
		}
	}
	return NULL;
}

TEST_F_TIMEOUT(attacker, device_memory_as_guest_memory, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint8_t *va = map_some_bar(_metadata);

	if (!va)
		SKIP(return, "no PCI BAR can be mapped here");
	if (vfio_map(&vf->dev, va, EXTRA_IOVA, VF_PAGE, RW))
		return;
	expect_refused(_metadata, vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES), "not_memory|access_denied|pin_failed");
	ASSERT_EQ(0, start_without_buffers(vf));
	vf_post(vf, &vf->rx, EXTRA_IOVA, 0);
	EXPECT_REJECTED("not_memory|access_denied|pin_failed", vf_doorbell(vf, &vf->rx));
	ASSERT_EQ(0, vf_restart(vf));
	expect_ring_refused(_metadata, vf, EXTRA_IOVA, 2048, "ring_not_memory|pin_failed|access_denied");
}

/*
 * Frames that have a struct page and are no memory: the firmware's, below 1 MiB. VFIO gives them
 * without a reference; device memory, which has no struct page, it refuses by itself.
 */
TEST_F_TIMEOUT(attacker, reserved_memory_as_guest_memory, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	int fd = open("/dev/mem", O_RDWR | O_CLOEXEC);
	uint8_t *va;

	if (fd < 0)
		SKIP(return, "there is no /dev/mem");
	va = mmap(NULL, VF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0xf0000);
	close(fd);
	if (va == MAP_FAILED)
		SKIP(return, "the firmware's memory cannot be mapped here");
	if (vfio_map(&vf->dev, va, EXTRA_IOVA, VF_PAGE, RW))
		SKIP(return, "VFIO does not take the firmware's memory");
	expect_refused(_metadata, vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES), "not_memory");
	expect_ring_refused(_metadata, vf, EXTRA_IOVA, 2048, "ring_not_memory");
}
