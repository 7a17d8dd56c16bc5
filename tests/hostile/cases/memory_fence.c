// SPDX-License-Identifier: GPL-2.0
/*
 * Pinning against unmapping: a page that is pinned again while VFIO unmaps it
 * again and again stops the host (BUG_ON in vfio_dma_do_unmap). Part of
 * hostile.c, after memory_gone.c.
 */

#include <linux/userfaultfd.h>
#include <sched.h>

/* A page that can be read, and that holds up whoever writes to it. */
struct stalling_page {
	int uffd;
	void *va;
};

static bool stalling_page_make(struct stalling_page *page)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_WP };

	page->uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (page->uffd < 0 || ioctl(page->uffd, UFFDIO_API, &api))
		return false;
	page->va = mmap(NULL, VF_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page->va == MAP_FAILED)
		return false;
	memset(page->va, 0, VF_PAGE);
	range.range.start = (uintptr_t)page->va;
	range.range.len = VF_PAGE;
	return !ioctl(page->uffd, UFFDIO_REGISTER, &range);
}

static int stalling_page_set(struct stalling_page *page, bool stalls)
{
	struct uffdio_writeprotect protect = {
		.range = { .start = (uintptr_t)page->va, .len = VF_PAGE },
		.mode = stalls ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(page->uffd, UFFDIO_WRITEPROTECT, &protect);
}

/* Whether somebody is held up there. */
static bool stalling_page_has_come(struct stalling_page *page)
{
	struct pollfd pfd = { .fd = page->uffd, .events = POLLIN };

	return poll(&pfd, 1, VF_WAIT_MS) == 1;
}

struct slow_unmap {
	struct vf *vf;
	struct stalling_page page;
	int ret;
};

static void *unmap_slowly(void *arg)
{
	struct slow_unmap *slow = arg;

	slow->ret = ioctl(slow->vf->dev.container, VFIO_IOMMU_UNMAP_DMA, slow->page.va);
	return NULL;
}

/*
 * A thread has unmapped, and is held up on its way out of the kernel. Until it
 * is out nothing is pinned there, also not by a slice that was closed and
 * opened again: whether VFIO is through is not to be known before.
 */
TEST_F_TIMEOUT(memory_gone, fence_lasts_until_the_thread_is_out, TIMEOUT_S)
{
	struct vfio_iommu_type1_dma_unmap *unmap;
	struct slow_unmap slow = { .vf = &self->vf };
	struct vf *vf = &self->vf;
	struct piece piece;
	pthread_t thread;
	int fd;

	/* VFIO tells nobody of an unmap where nothing is pinned, and nothing need be barred. */
	if (!keeps_pins(variant->strategy))
		SKIP(return, "nothing stays pinned under this strategy");
	if (!stalling_page_make(&slow.page))
		SKIP(return, "no userfaultfd");
	piece_map(_metadata, vf, &piece, 0);
	fill_piece(vf, &piece);
	expect_sent(_metadata, vf, piece.iova, SIMPLE(1000ull));
	unmap = slow.page.va;
	unmap->argsz = sizeof(*unmap);
	unmap->iova = piece.iova;
	unmap->size = PIECE_BYTES;
	ASSERT_EQ(0, stalling_page_set(&slow.page, true));
	ASSERT_EQ(0, pthread_create(&thread, NULL, unmap_slowly, &slow));
	ASSERT_TRUE(stalling_page_has_come(&slow.page));

	/* Unmapped it is: it can be mapped again. */
	ASSERT_EQ(0, vfio_map(&vf->dev, piece.va, piece.iova, PIECE_BYTES, RW));
	expect_refused(_metadata, vf, piece.iova, SIMPLE(1000ull), "not_memory");
	/* Other memory is not barred. */
	ASSERT_EQ(0, vf_restart(vf));
	expect_sent(_metadata, vf, VF_TX_BUF, SIMPLE(1000ull));
	EXPECT_TRUE(neighbour_advances(nb, 3));
	/* One more try, as another user of the slice. */
	close(vf->dev.device);
	fd = vfio_open_device(&vf->dev);
	EXPECT_EQ(-EBUSY, fd);
	if (!fd) {
		ASSERT_EQ(0, vf_restart(vf));
		expect_refused(_metadata, vf, piece.iova, SIMPLE(1000ull), "not_memory");
		close(vf->dev.device);
	}

	ASSERT_EQ(0, stalling_page_set(&slow.page, false));
	pthread_join(thread, NULL);
	EXPECT_EQ(0, slow.ret);
	ASSERT_EQ(0, vfio_open_device(&vf->dev));
	ASSERT_EQ(0, vf_restart(vf));
	expect_sent(_metadata, vf, piece.iova, SIMPLE(1000ull));
	ASSERT_EQ(0, vfio_unmap(&vf->dev, piece.iova, PIECE_BYTES));
	piece_free(&piece);
}

/* The thread that is held up is killed with its process: the slice is free again. */
TEST_F_TIMEOUT(memory_gone, fence_ends_with_the_process, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	pid_t child;

	vf_close(vf);
	for (unsigned int i = 0; i < 3; i++) {
		volatile bool *stalled = mmap(NULL, VF_PAGE, PROT_READ | PROT_WRITE,
					      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		uint64_t end = now_ms() + VF_WAIT_MS;

		ASSERT_NE(MAP_FAILED, stalled);
		child = fork();
		ASSERT_LE(0, child);
		if (!child) {
			struct vfio_iommu_type1_dma_unmap *unmap;
			struct slow_unmap slow;
			pthread_t thread;
			struct vf own;

			slow.vf = &own;
			if (!stalling_page_make(&slow.page) || vf_open(&own, uuid_a) || vf_restart(&own))
				_exit(1);
			unmap = slow.page.va;
			unmap->argsz = sizeof(*unmap);
			unmap->size = VF_RAM_BYTES;
			if (stalling_page_set(&slow.page, true) ||
			    pthread_create(&thread, NULL, unmap_slowly, &slow) ||
			    !stalling_page_has_come(&slow.page))
				_exit(1);
			*stalled = true;
			pause();
		}
		while (!*stalled && now_ms() < end && !waitpid(child, NULL, WNOHANG))
			nap();
		EXPECT_TRUE(*stalled);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		ASSERT_EQ(0, vf_open(vf, uuid_a));
		ASSERT_EQ(0, vf_restart(vf));
		vf_close(vf);
		munmap((void *)stalled, VF_PAGE);
	}
	ASSERT_EQ(0, vf_open(vf, uuid_a));
}

/* --- as fast as they can ---------------------------------------------------- */

struct race {
	struct vf *vf;
	struct piece *piece;
	/* Its rings are as far from where vf_start() puts them. */
	uint64_t base;
	volatile bool stop;
	volatile unsigned int rounds;
	volatile unsigned int failed;
};

/* As little of the CPU as can be had: others overtake this thread wherever they may. */
static void be_slow(void)
{
	const struct sched_param param = { 0 };

	canary_bait();
	sched_setscheduler(0, SCHED_IDLE, &param);
}

static void *unmap_for_ever(void *arg)
{
	struct race *race = arg;

	be_slow();
	while (!race->stop) {
		if (vfio_unmap(&race->vf->dev, race->piece->iova, PIECE_BYTES) ||
		    vfio_map(&race->vf->dev, race->piece->va, race->piece->iova, PIECE_BYTES, RW))
			race->failed++;
		race->rounds++;
	}
	return NULL;
}

/* Starts both queues over, and names the piece's pages in both directions. */
static void name_pages(struct race *race)
{
	const uint32_t len_bytes = VF_RING_SLOTS * VF_DESC_BYTES;
	struct vf *vf = race->vf;

	vf_write(vf, vf->tx.base + VF_QCTL, 0);
	vf_write(vf, vf->rx.base + VF_QCTL, 0);
	vf_write(vf, vf->rx.base + VF_SRRCTL, VF_SRRCTL_ONEBUF | VF_SRRCTL_DROP | VF_SRRCTL_2K);
	vf_ring_program(vf, &vf->tx, race->base + VF_TX_RING, len_bytes);
	vf_ring_program(vf, &vf->rx, race->base + VF_RX_RING, len_bytes);
	if (vf_ring_enable(vf, &vf->tx) || vf_ring_enable(vf, &vf->rx))
		race->failed++;
	for (unsigned int i = 0; i < 8; i++) {
		uint64_t iova = race->piece->iova + (race->rounds + i) % PIECE_PAGES * VF_PAGE;

		vf_post(vf, &vf->rx, iova, 0);
		vf_post(vf, &vf->tx, iova, SIMPLE(1000ull));
	}
	vf_doorbell(vf, &vf->rx);
	vf_doorbell(vf, &vf->tx);
	race->rounds++;
}

static void *name_for_ever(void *arg)
{
	struct race *race = arg;

	while (!race->stop)
		name_pages(race);
	return NULL;
}

/* Closes and opens the slice as well. */
static void *reopen_for_ever(void *arg)
{
	struct race *race = arg;

	while (!race->stop) {
		close(race->vf->dev.device);
		/* Not while the other thread is in the kernel. */
		while (vfio_open_device(&race->vf->dev))
			nap();
		if (vf_handshake(race->vf))
			race->failed++;
		name_pages(race);
	}
	return NULL;
}

/* Lets @count threads race until each has done so many @rounds. */
static void race_until(struct __test_metadata *_metadata, void *(*const *runners)(void *), struct race *races,
		       unsigned int count, const unsigned int *rounds)
{
	uint64_t end = now_ms() + 2 * VF_WAIT_MS;
	pthread_t threads[4];
	bool enough = false;

	for (unsigned int i = 0; i < count; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, runners[i], &races[i]));
	while (!enough && now_ms() < end) {
		enough = true;
		for (unsigned int i = 0; i < count; i++)
			enough &= races[i].rounds >= rounds[i];
		nap();
	}
	EXPECT_TRUE(enough);
	for (unsigned int i = 0; i < count; i++) {
		races[i].stop = true;
		pthread_join(threads[i], NULL);
		EXPECT_EQ(0, races[i].failed);
		TH_LOG("thread %u: %u rounds", i, races[i].rounds);
	}
}

/* Two slices pin the same memory all the time while it is unmapped and mapped. */
TEST_F_TIMEOUT(memory_gone, pins_race_with_unmaps, TIMEOUT_S)
{
	static void *(*const runners[])(void *) = { unmap_for_ever, name_for_ever, name_for_ever };
	static const unsigned int rounds[] = { 100, 50, 50 };
	const char *uuid_c = getenv("HOSTILE_C");
	struct vf *vf = &self->vf, third = { 0 };
	struct race races[3];
	struct piece piece;

	if (!uuid_c)
		SKIP(return, "no third slice");
	piece_map(_metadata, vf, &piece, 0);
	fill_piece(vf, &piece);
	ASSERT_EQ(0, vfio_join(&third.dev, uuid_c, &vf->dev));
	third.ram = mmap(NULL, VF_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, third.ram);
	third.tx = (struct vf_ring){ .base = VF_TXQ, .slots = VF_RING_SLOTS };
	third.rx = (struct vf_ring){ .base = VF_RXQ, .slots = VF_RING_SLOTS };
	ASSERT_EQ(0, vfio_map(&vf->dev, third.ram, VF_RAM_BYTES, VF_RAM_BYTES, RW));
	ASSERT_EQ(0, vf_handshake(&third));

	neighbour_flood(nb, vf->mac);
	races[0] = races[1] = (struct race){ .vf = vf, .piece = &piece };
	races[2] = (struct race){ .vf = &third, .piece = &piece, .base = VF_RAM_BYTES };
	race_until(_metadata, runners, races, 3, rounds);

	ASSERT_EQ(0, vfio_unmap(&vf->dev, piece.iova, PIECE_BYTES));
	expect_others_safe(_metadata, &piece);
	vfio_close(&third.dev);
	munmap(third.ram, VF_RAM_BYTES);
	EXPECT_EQ(0, stat_of(uuid_c, "pinned_bytes"));
}

/* The slice is closed and opened, and pins again, while its memory is unmapped and mapped. */
TEST_F_TIMEOUT(memory_gone, reopening_races_with_unmaps, TIMEOUT_S)
{
	static void *(*const runners[])(void *) = { unmap_for_ever, reopen_for_ever };
	static const unsigned int rounds[] = { 50, 20 };
	struct vf *vf = &self->vf;
	struct race races[2];
	struct piece piece;

	piece_map(_metadata, vf, &piece, 0);
	fill_piece(vf, &piece);
	neighbour_flood(nb, vf->mac);
	races[0] = races[1] = (struct race){ .vf = vf, .piece = &piece };
	race_until(_metadata, runners, races, 2, rounds);
	ASSERT_EQ(0, vfio_unmap(&vf->dev, piece.iova, PIECE_BYTES));
	expect_others_safe(_metadata, &piece);
}
