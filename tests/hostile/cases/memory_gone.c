// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that is taken away while the NIC has it, and given to somebody else:
 * a canary (memory_canary.h), which gets the very pages. Part of hostile.c.
 */

#define PIECE_PAGES	64u
#define PIECE_BYTES	(PIECE_PAGES * VF_PAGE)
#define PIECE_IOVA(n)	(0x20000000ull + (n) * 0x100000ull)
#define CANARY_PAGES	2048u

/* Guest memory with a DMA mapping of its own. */
struct piece {
	uint8_t *va;
	uint64_t iova;
	uint64_t frames[PIECE_PAGES];
};

static void piece_frames(struct piece *piece)
{
	for (unsigned int i = 0; i < PIECE_PAGES; i++)
		piece->frames[i] = physical_address(piece->va + i * VF_PAGE);
}

/* Piece @n, of private memory that is there. */
static void piece_map(struct __test_metadata *_metadata, struct vf *vf, struct piece *piece, unsigned int n)
{
	piece->iova = PIECE_IOVA(n);
	piece->va = mmap(NULL, PIECE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, piece->va);
	madvise(piece->va, PIECE_BYTES, MADV_NOHUGEPAGE);
	memset(piece->va, 0, PIECE_BYTES);
	ASSERT_EQ(0, vfio_map(&vf->dev, piece->va, piece->iova, PIECE_BYTES, RW));
	piece_frames(piece);
}

/* The pages that somebody pinned by now stay where they are. */
static void piece_free(struct piece *piece)
{
	munmap(piece->va, PIECE_BYTES);
	piece->va = NULL;
}

static bool piece_used(const struct piece *piece)
{
	uint64_t end = now_ms() + VF_WAIT_MS;

	while (now_ms() < end) {
		for (unsigned int i = 0; i < PIECE_PAGES; i++)
			if (!all_bytes(piece->va + i * VF_PAGE, 0, 64))
				return true;
		nap();
	}
	return false;
}

static void post_piece(struct vf *vf, const struct piece *piece)
{
	for (unsigned int i = 0; i < PIECE_PAGES; i++)
		vf_post(vf, &vf->rx, piece->iova + i * VF_PAGE, 0);
	vf_doorbell(vf, &vf->rx);
}

/* The same, and all of it is with the NIC; whether it came to that. Nothing else may be pinned. */
static bool piece_posted(struct vf *vf, const struct piece *piece)
{
	uint64_t before = stat_of(uuid_a, "pinned_bytes");

	post_piece(vf, piece);
	return stat_comes(uuid_a, "pinned_bytes", before + PIECE_BYTES);
}

/* A packet for the peer in each page. */
static void fill_piece(struct vf *vf, struct piece *piece)
{
	put_frame(vf, VF_TX_BUF, 1000);
	for (unsigned int i = 0; i < PIECE_PAGES; i++)
		memcpy(piece->va + i * VF_PAGE, vf_mem(vf, VF_TX_BUF), 1000);
}

/*
 * Somebody else has the pages of @piece, which was unmapped: first as they are,
 * then whoever gets them when they are freed. Nobody may write to them.
 */
static void expect_others_safe(struct __test_metadata *_metadata, struct piece *piece)
{
	struct canary *canary;

	if (piece->va) {
		memset(piece->va, 0x5a, PIECE_BYTES);
		EXPECT_TRUE(neighbour_flooded(nb, 30));
		EXPECT_TRUE(all_bytes(piece->va, 0x5a, PIECE_BYTES));
		canary_bait();
		piece_free(piece);
	}
	canary = canary_start(CANARY_PAGES);
	canary_bait_end();
	ASSERT_NE(NULL, canary);
	EXPECT_TRUE(neighbour_flooded(nb, 30));
	EXPECT_EQ(0, canary_changed(canary));
	canary_stop(canary);
}

/* --- unmapped by the VMM -------------------------------------------------- */

TEST_F_TIMEOUT(memory_gone, half_of_the_receive_buffers, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	struct piece gone, kept;

	piece_map(_metadata, vf, &gone, 0);
	piece_map(_metadata, vf, &kept, 1);
	ASSERT_EQ(0, start_without_buffers(vf));
	neighbour_flood(nb, vf->mac);
	for (unsigned int i = 0; i < PIECE_PAGES; i++) {
		vf_post(vf, &vf->rx, kept.iova + i * VF_PAGE, 0);
		vf_post(vf, &vf->rx, gone.iova + i * VF_PAGE, 0);
	}
	vf_doorbell(vf, &vf->rx);
	EXPECT_TRUE(piece_used(&gone));

	ASSERT_EQ(0, vfio_unmap(&vf->dev, gone.iova, PIECE_BYTES));
	memset(kept.va, 0, PIECE_BYTES);
	EXPECT_TRUE(state_comes(uuid_a, "faulted: rx memory_removed"));
	expect_others_safe(_metadata, &gone);
	/* The queue is at rest, also where memory is left. */
	EXPECT_TRUE(all_bytes(kept.va, 0, PIECE_BYTES));

	/* The other queue goes on; this one does when it is enabled again. */
	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	expect_sent(_metadata, vf, VF_TX_BUF, SIMPLE(FRAME_BYTES));
	ASSERT_EQ(0, start_without_buffers(vf));
	post_piece(vf, &kept);
	EXPECT_TRUE(piece_used(&kept));
}

TEST_F_TIMEOUT(memory_gone, transmit_buffers, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	struct piece gone;
	char state[128];

	neighbour_flood(nb, vf->mac);
	for (unsigned int round = 0; round < 2; round++) {
		piece_map(_metadata, vf, &gone, 0);
		fill_piece(vf, &gone);
		for (unsigned int i = 0; i < 2 * PIECE_PAGES; i++)
			vf_post(vf, &vf->tx, gone.iova + i % PIECE_PAGES * VF_PAGE, SIMPLE(1000ull));
		vf_doorbell(vf, &vf->tx);
		ASSERT_EQ(0, vfio_unmap(&vf->dev, gone.iova, PIECE_BYTES));
		expect_others_safe(_metadata, &gone);
		/* Sent before, in flight, or not looked at yet when its memory went. */
		state_of(uuid_a, state, sizeof(state));
		EXPECT_TRUE(!strcmp(state, "running") || !strcmp(state, "faulted: tx memory_removed") ||
			    !strncmp(state, "faulted: tx not_memory", 22)) TH_LOG("state: %s", state);
		EXPECT_EQ(VF_QCTL_ENABLE, vf_read(vf, vf->rx.base + VF_QCTL) & VF_QCTL_ENABLE);
		ASSERT_EQ(0, vf_restart(vf));
	}
}

static void ring_gone(struct __test_metadata *_metadata, struct vf *vf, struct vf_ring *ring,
		      const char *state)
{
	struct piece gone;

	piece_map(_metadata, vf, &gone, 0);
	vf_write(vf, ring->base + VF_QCTL, 0);
	vf_ring_program(vf, ring, gone.iova, VF_RING_SLOTS * VF_DESC_BYTES);
	for (unsigned int i = 0; i < VF_RING_SLOTS - 1; i++) {
		uint64_t *desc = (uint64_t *)(gone.va + i * VF_DESC_BYTES);

		desc[0] = ring == &vf->rx ? VF_RX_BUF + i * VF_PAGE : VF_TX_BUF;
		desc[1] = ring == &vf->rx ? 0 : SIMPLE(1000ull);
	}
	put_frame(vf, VF_TX_BUF, 1000);
	ASSERT_EQ(0, vf_ring_enable(vf, ring));
	vf_write(vf, ring->base + VF_TAIL, VF_RING_SLOTS - 1);
	neighbour_flood(nb, vf->mac);
	EXPECT_TRUE(neighbour_flooded(nb, 20));

	ASSERT_EQ(0, vfio_unmap(&vf->dev, gone.iova, PIECE_BYTES));
	EXPECT_TRUE(state_comes(uuid_a, state));
	/* A doorbell for a ring that is gone. */
	vf_write(vf, ring->base + VF_TAIL, 1);
	expect_others_safe(_metadata, &gone);
}

TEST_F_TIMEOUT(memory_gone, receive_ring, TIMEOUT_S)
{
	ring_gone(_metadata, &self->vf, &self->vf.rx, "faulted: rx memory_removed");
}

TEST_F_TIMEOUT(memory_gone, transmit_ring, TIMEOUT_S)
{
	ring_gone(_metadata, &self->vf, &self->vf.tx, "faulted: tx memory_removed");
}

/* Whether pages stay pinned that are not in flight. */
static bool keeps_pins(const char *strategy)
{
	return strcmp(strategy, "single-use") && strcmp(strategy, "shared");
}

/* Nothing in flight there, though perhaps still pinned: the slice goes on as if nothing had happened. */
TEST_F_TIMEOUT(memory_gone, idle_pages, TIMEOUT_S)
{
	uint64_t before = stat_of(uuid_a, "invalidations");
	uint64_t kept = keeps_pins(variant->strategy) ? PIECE_PAGES : 0;
	struct vf *vf = &self->vf;
	struct piece gone;
	uint8_t peer[6];

	neighbour_flood(nb, vf->mac);
	piece_map(_metadata, vf, &gone, 0);
	fill_piece(vf, &gone);
	for (unsigned int i = 0; i < PIECE_PAGES; i++)
		expect_sent(_metadata, vf, gone.iova + i * VF_PAGE, SIMPLE(1000ull));
	ASSERT_EQ(0, vfio_unmap(&vf->dev, gone.iova, PIECE_BYTES));
	EXPECT_LE(before + kept, stat_of(uuid_a, "invalidations"));
	EXPECT_TRUE(state_comes(uuid_a, "running"));
	expect_others_safe(_metadata, &gone);
	memcpy(peer, (void *)nb->peer_mac, sizeof(peer));
	EXPECT_TRUE(vf_exchange(vf, peer));
}

/* --- freed by the VMM, without a word to VFIO ------------------------------ */

enum loss { LOSS_DONTNEED, LOSS_MUNMAP, LOSS_PUNCH_HOLE };

/* @kept: pages stay pinned when they are not in flight any more. */
static void lose_quietly(struct __test_metadata *_metadata, struct vf *vf, enum loss loss, bool kept)
{
	int fd = memfd_create("piece", MFD_CLOEXEC);
	struct canary *canary;
	struct piece gone;

	if (loss == LOSS_PUNCH_HOLE) {
		gone.iova = PIECE_IOVA(0);
		ASSERT_EQ(0, ftruncate(fd, PIECE_BYTES));
		gone.va = mmap(NULL, PIECE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		ASSERT_NE(MAP_FAILED, gone.va);
		memset(gone.va, 0, PIECE_BYTES);
		ASSERT_EQ(0, vfio_map(&vf->dev, gone.va, gone.iova, PIECE_BYTES, RW));
		piece_frames(&gone);
	} else {
		piece_map(_metadata, vf, &gone, 0);
	}
	ASSERT_EQ(0, start_without_buffers(vf));
	ASSERT_TRUE(piece_posted(vf, &gone));
	neighbour_flood(nb, vf->mac);
	EXPECT_TRUE(piece_used(&gone));

	canary_bait();
	if (loss == LOSS_DONTNEED) {
		ASSERT_EQ(0, madvise(gone.va, PIECE_BYTES, MADV_DONTNEED));
	} else if (loss == LOSS_MUNMAP) {
		piece_free(&gone);
	} else {
		ASSERT_EQ(0, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PIECE_BYTES));
	}
	canary = canary_start(CANARY_PAGES);
	canary_bait_end();
	ASSERT_NE(NULL, canary);
	if (gone.va) {
		memset(gone.va, 0x5a, PIECE_BYTES);
	}

	/* What is pinned belongs to nobody else, */
	if (kept)
		EXPECT_EQ(0, canary_has(canary, gone.frames, PIECE_PAGES));
	post_piece(vf, &gone);
	EXPECT_TRUE(neighbour_flooded(nb, 50));
	EXPECT_EQ(0, canary_changed(canary));
	/* and the VMM's new pages at the old place are not the NIC's, unless it pins them anew. */
	if (gone.va && kept) {
		EXPECT_TRUE(all_bytes(gone.va, 0x5a, PIECE_BYTES));
	}
	canary_stop(canary);

	/* Until it is unmapped as well. */
	ASSERT_EQ(0, vfio_unmap(&vf->dev, gone.iova, PIECE_BYTES));
	expect_others_safe(_metadata, &gone);
	close(fd);
}

TEST_F_TIMEOUT(memory_gone, dontneed_as_a_balloon_does, TIMEOUT_S)
{
	lose_quietly(_metadata, &self->vf, LOSS_DONTNEED, keeps_pins(variant->strategy));
}

TEST_F_TIMEOUT(memory_gone, munmap_alone, TIMEOUT_S)
{
	lose_quietly(_metadata, &self->vf, LOSS_MUNMAP, keeps_pins(variant->strategy));
}

TEST_F_TIMEOUT(memory_gone, hole_in_the_file, TIMEOUT_S)
{
	lose_quietly(_metadata, &self->vf, LOSS_PUNCH_HOLE, keeps_pins(variant->strategy));
}
