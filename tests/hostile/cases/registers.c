// SPDX-License-Identifier: GPL-2.0
/* Every offset of every region, every width, any value. Part of hostile.c. */

/* Accesses may fail, but must not do more than that. */
static void poke(struct vf *vf, uint32_t region, uint64_t offset, uint64_t value, size_t width)
{
	uint64_t back;

	vfio_write(&vf->dev, region, offset, &value, width);
	vfio_read(&vf->dev, region, offset, &back, width);
}

static void poke_region(struct vf *vf, uint32_t region, unsigned int step)
{
	uint64_t size = vf->dev.region[region].size;

	for (size_t width = 1; width <= 8; width *= 2) {
		for (uint64_t offset = 0; offset < size; offset += step) {
			poke(vf, region, offset, UINT64_MAX, width);
			poke(vf, region, offset, rng(), width);
		}
	}
}

TEST_F_TIMEOUT(intruder, regs_bar0, TIMEOUT_S)
{
	poke_region(&self->vf, VFIO_PCI_BAR0_REGION_INDEX, 4);
}

TEST_F_TIMEOUT(intruder, regs_bar0_unaligned, TIMEOUT_S)
{
	poke_region(&self->vf, VFIO_PCI_BAR0_REGION_INDEX, 7);
}

TEST_F_TIMEOUT(intruder, regs_bar0_at_random, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	neighbour_flood(nb, vf->mac);
	for (unsigned int i = 0; i < 50000; i++)
		poke(vf, VFIO_PCI_BAR0_REGION_INDEX, rng() % VF_BAR0_LEN & ~3ull,
		     i & 1 ? rng() : rng() % VF_RAM_BYTES, 4);
}

TEST_F_TIMEOUT(intruder, regs_msix, TIMEOUT_S)
{
	poke_region(&self->vf, VFIO_PCI_BAR3_REGION_INDEX, 4);
}

TEST_F_TIMEOUT(intruder, regs_config, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint32_t id = 0;

	poke_region(vf, VFIO_PCI_CONFIG_REGION_INDEX, 1);
	EXPECT_EQ(0, vfio_read(&vf->dev, VFIO_PCI_CONFIG_REGION_INDEX, 0, &id, 4));
	EXPECT_EQ(0x10ca8086u, id);
}

TEST_F_TIMEOUT(intruder, regs_every_region, TIMEOUT_S)
{
	for (uint32_t i = 0; i < VFIO_PCI_NUM_REGIONS; i++)
		poke_region(&self->vf, i, 64);
}

/* At and past the end of a region, across it, and at offsets of no region. */
TEST_F_TIMEOUT(intruder, regs_past_the_end, TIMEOUT_S)
{
	struct vfio_dev *dev = &self->vf.dev;
	void *volatile nowhere = NULL;
	char block[512];

	for (uint32_t i = 0; i < VFIO_PCI_NUM_REGIONS; i++) {
		uint64_t size = dev->region[i].size;
		uint64_t value = 0;

		EXPECT_GT(0, vfio_read(dev, i, size, &value, 4));
		EXPECT_GT(0, vfio_write(dev, i, size, &value, 4));
		EXPECT_GT(0, vfio_write(dev, i, size + 0x100000, &value, 4));
		if (size)
			vfio_write(dev, i, size - 2, &value, 4);
	}
	for (unsigned int i = 0; i < 1000; i++) {
		pwrite(dev->device, block, rng() % sizeof(block), rng() >> 1);
		pread(dev->device, block, rng() % sizeof(block), rng() >> 1);
	}
	/* Lengths that are no register, and memory that is not there. */
	for (size_t len = 0; len < sizeof(block); len++)
		pread(dev->device, block, len, dev->region[0].offset + len * 8);
	EXPECT_GT(0, pread(dev->device, nowhere, 4, dev->region[0].offset));
	EXPECT_GT(0, pwrite(dev->device, nowhere, 4, dev->region[0].offset));
}

/* Only what the module offers can be mapped, and never beyond its region. */
TEST_F_TIMEOUT(intruder, regs_mmap, TIMEOUT_S)
{
	struct vfio_dev *dev = &self->vf.dev;

	for (uint32_t i = 0; i < VFIO_PCI_NUM_REGIONS; i++) {
		const struct vfio_region_info *region = &dev->region[i];
		void *va;

		va = mmap(NULL, 2 * VF_BAR0_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, dev->device, region->offset);
		EXPECT_EQ(MAP_FAILED, va);
		va = mmap(NULL, VF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, dev->device,
			  region->offset + ((region->size + VF_PAGE - 1) & ~(VF_PAGE - 1)));
		EXPECT_EQ(MAP_FAILED, va);
		if (region->flags & VFIO_REGION_INFO_FLAG_MMAP)
			continue;
		va = mmap(NULL, VF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, dev->device, region->offset);
		EXPECT_EQ(MAP_FAILED, va);
		va = mmap(NULL, VF_PAGE, PROT_READ, MAP_PRIVATE, dev->device, region->offset);
		EXPECT_EQ(MAP_FAILED, va);
	}
}

/* --- mailbox ------------------------------------------------------------- */

static uint32_t answer_to(struct __test_metadata *_metadata, struct vf *vf, uint32_t w0, uint32_t w1, uint32_t w2)
{
	uint32_t msg[3] = { w0, w1, w2 };

	EXPECT_EQ(0, vf_message(vf, msg, 3, 1));
	return msg[0];
}

TEST_F_TIMEOUT(intruder, mailbox_takes_no_other_mac, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	uint32_t mac[2] = { 0 };

	/* The neighbour's, the peer's, a group address, all zero. */
	memcpy(mac, (void *)nb->mac, 6);
	EXPECT_TRUE(refused(answer_to(_metadata, vf, VF_MSG_SET_MAC, mac[0], mac[1])));
	EXPECT_TRUE(refused(answer_to(_metadata, vf, VF_MSG_SET_MAC, UINT32_MAX, UINT32_MAX)));
	EXPECT_TRUE(refused(answer_to(_metadata, vf, VF_MSG_SET_MAC, 0x01, 0)));
	EXPECT_TRUE(refused(answer_to(_metadata, vf, VF_MSG_SET_MAC, 0, 0)));
}

TEST_F_TIMEOUT(intruder, mailbox_unknown_messages, TIMEOUT_S)
{
	/* 6 is the promiscuous modes. */
	for (uint32_t type = 7; type < 0x100; type++)
		EXPECT_TRUE(refused(answer_to(_metadata, &self->vf, type, rng(), rng())));
}

TEST_F_TIMEOUT(intruder, mailbox_bad_arguments, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	EXPECT_TRUE(refused(answer_to(_metadata, vf, VF_MSG_SET_LPE, UINT32_MAX, 0)));
	EXPECT_TRUE(refused(answer_to(_metadata, vf, VF_MSG_SET_VLAN | 7 << 16, 1, 0)));
	EXPECT_TRUE(refused(answer_to(_metadata, vf, VF_MSG_SET_PROMISC | 2 << 16, 0, 0)));
	/* More multicast hashes than the mailbox holds. */
	answer_to(_metadata, vf, VF_MSG_SET_MULTICAST | 255 << 16, UINT32_MAX, UINT32_MAX);
	answer_to(_metadata, vf, VF_MSG_SET_LPE, 0, 0);
	/* More VLANs than the NIC has filters. */
	for (uint32_t vid = 1; vid < 100; vid++)
		answer_to(_metadata, vf, VF_MSG_SET_VLAN | 1 << 16, vid, 0);
	for (uint32_t vid = 1; vid < 100; vid++)
		answer_to(_metadata, vf, VF_MSG_SET_VLAN, vid, 0);
}

TEST_F_TIMEOUT(intruder, mailbox_random, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	for (unsigned int i = 0; i < 2000; i++) {
		uint32_t word = rng() % VF_MBMEM_WORDS;

		/* Not a reset too often: that is another test. */
		vf_write(vf, VF_MBMEM + 4 * word, word ? rng() : 2 + rng() % 8);
		vf_write(vf, VF_MBX, rng() & 0xff);
	}
}
