// SPDX-License-Identifier: GPL-2.0
/* Memory that cannot be pinned, or only so much of it. Part of hostile.c, after memory_gone.c. */

#include <inttypes.h>
#include <sys/auxv.h>

/* --- the limit on locked memory --------------------------------------------- */

/* Lines of VFIO in the log about it. */
static long limit_lines(void)
{
	FILE *pipe = popen("dmesg | grep -c RLIMIT_MEMLOCK", "re");
	long count = -1;

	if (pipe && fscanf(pipe, "%ld", &count) != 1)
		count = -1;
	if (pipe)
		pclose(pipe);
	return count;
}

struct locker {
	volatile bool pause, stop;
	/* Has nothing locked now, and waits. */
	volatile bool paused;
};

/* Takes what the limit leaves, page by page, and gives it back. */
static void *lock_and_unlock(void *arg)
{
	struct locker *locker = arg;
	uint8_t *va = mmap(NULL, PIECE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	while (va != MAP_FAILED && !locker->stop) {
		for (unsigned int i = 0; i < PIECE_PAGES; i++)
			mlock(va + i * VF_PAGE, VF_PAGE);
		munlock(va, PIECE_BYTES);
		while (locker->pause && !locker->stop) {
			locker->paused = true;
			nap();
		}
	}
	return NULL;
}

/* Starts both queues over, with room for their rings. */
static int start_with_room(struct vf *vf, struct locker *locker)
{
	int ret;

	locker->pause = true;
	/* In this order: what it says from now on it says with the pause before its eyes. */
	locker->paused = false;
	while (!locker->paused)
		nap();
	/* For a second after some refusals VFIO is not asked again, not even for a ring. */
	usleep(1100 * 1000);
	vf_write(vf, vf->tx.base + VF_QCTL, 0);
	vf_write(vf, vf->rx.base + VF_QCTL, 0);
	ret = vf_start(vf);
	locker->pause = false;
	return ret;
}

/* VFIO writes a line each time it refuses a page. A VMM at its limit must not fill the log with them. */
TEST_F_TIMEOUT(memory_gone, limit_does_not_fill_the_log, TIMEOUT_S)
{
	struct locker locker = { 0 };
	struct vf *vf = &self->vf;
	unsigned int stops = 0;
	long before, lines;
	pthread_t thread;
	uint64_t begin;
	int ret;

	vf_close(vf);
	ASSERT_EQ(0, set_slice(uuid_a, "strategy", "single-use"));
	drop_ipc_lock(_metadata);
	limit_locked_pages(_metadata, 48);
	ASSERT_EQ(0, vf_open(vf, uuid_a));
	ASSERT_EQ(0, vf_restart(vf));
	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	neighbour_flood(nb, vf->mac);
	before = limit_lines();
	ASSERT_LE(0, before);
	begin = now_ms();
	ASSERT_EQ(0, pthread_create(&thread, NULL, lock_and_unlock, &locker));
	/* Whether a page finds the limit reached depends on the other thread. */
	while (stops < 10 && now_ms() < begin + VF_WAIT_MS) {
		/* Where nothing is taken for long, the ring is full. */
		uint32_t room = (vf_read(vf, vf->tx.base + VF_HEAD) - vf->tx.tail - 1) % VF_RING_SLOTS;
		char state[128];

		for (unsigned int j = 0; j < 16 && room >= 16; j++)
			vf_post(vf, &vf->tx, VF_TX_BUF, SIMPLE(FRAME_BYTES));
		vf_doorbell(vf, &vf->tx);
		usleep(2000);
		state_of(uuid_a, state, sizeof(state));
		if (strcmp(state, "running")) {
			stops++;
			EXPECT_NE(NULL, strstr(state, "pin_limit"))
				TH_LOG("state: %s", state);
			ret = start_with_room(vf, &locker);
			EXPECT_EQ(0, ret);
			if (ret)
				break;
		}
	}
	locker.stop = true;
	pthread_join(thread, NULL);
	lines = limit_lines() - before;
	TH_LOG("%ld lines in %" PRIu64 " ms, %u stops", lines, now_ms() - begin, stops);
	/* Eight a second at most. */
	EXPECT_LE(lines, 8 * (long)((now_ms() - begin) / 1000 + 2));
	EXPECT_LT(0, lines);
	neighbour_flood_stop(nb);

	vf_close(vf);
	limit_locked_pages(_metadata, 1024);
	EXPECT_EQ(0, set_slice(uuid_a, "strategy", variant->strategy));
	ASSERT_EQ(0, vf_open(vf, uuid_a));
}

/* --- kinds of memory ------------------------------------------------------- */

#define HUGE_BYTES	(2ul << 20)

static void *huge_pages(void)
{
	FILE *file = fopen("/proc/sys/vm/nr_hugepages", "we");

	if (file) {
		fprintf(file, "8\n");
		fclose(file);
	}
	return mmap(NULL, HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
}

static void *file_memory(const char *path, int open_flags, int prot, int flags)
{
	int fd = open(path, open_flags | O_CLOEXEC, 0600);
	void *va;

	if (fd < 0 || ((open_flags & O_CREAT) && ftruncate(fd, VF_PAGE)))
		return MAP_FAILED;
	va = mmap(NULL, VF_PAGE, prot, flags, fd, 0);
	close(fd);
	return va;
}

static void *transparent_huge_page(void)
{
	uint8_t *va = mmap(NULL, 2 * HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (va == MAP_FAILED)
		return va;
	va = (uint8_t *)(((uintptr_t)va + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1));
	madvise(va, HUGE_BYTES, MADV_HUGEPAGE);
	memset(va, 0, HUGE_BYTES);
	return va;
}

static void *tmpfs_memory(void)
{
	return file_memory("/dev/shm/hostile-memory", O_RDWR | O_CREAT, PROT_READ | PROT_WRITE, MAP_SHARED);
}

static void *copy_of_a_file(void)
{
	return file_memory("/proc/self/exe", O_RDONLY, PROT_READ | PROT_WRITE, MAP_PRIVATE);
}

static void *never_touched(void)
{
	return mmap(NULL, VF_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void *read_only_file(void)
{
	return file_memory("/proc/self/exe", O_RDONLY, PROT_READ, MAP_SHARED);
}

static void *read_only_anonymous(void)
{
	return mmap(NULL, VF_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void *no_access(void)
{
	return mmap(NULL, VF_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void *secret_memory(void)
{
	int fd = syscall(SYS_memfd_secret, 0);
	void *va;

	if (fd < 0 || ftruncate(fd, VF_PAGE))
		return MAP_FAILED;
	va = mmap(NULL, VF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (va != MAP_FAILED)
		memset(va, 1, VF_PAGE);
	return va;
}

/* Code that the kernel shows to every process: the same page for all. */
static void *kernels_own_code(void)
{
	return (void *)getauxval(AT_SYSINFO_EHDR);
}

static const struct {
	const char *name;
	void *(*get)(void);
	bool good;
} kinds[] = {
	{ "huge page", huge_pages, true },
	{ "transparent huge page", transparent_huge_page, true },
	{ "tmpfs", tmpfs_memory, true },
	{ "private copy of a file", copy_of_a_file, true },
	{ "never touched", never_touched, true },
	{ "read-only file", read_only_file, false },
	{ "read-only anonymous memory", read_only_anonymous, false },
	{ "no access", no_access, false },
	{ "secret memory", secret_memory, false },
	{ "vDSO", kernels_own_code, false },
};

/* Of the flood, in the first buffer since the queue was enabled. */
static bool packet_arrives_at(struct vf *vf, uint64_t iova, const void *va)
{
	uint32_t index = vf_post(vf, &vf->rx, iova, 0);
	volatile uint64_t *desc = vf_desc(vf, &vf->rx, index);
	uint64_t end = now_ms() + VF_WAIT_MS;

	vf_doorbell(vf, &vf->rx);
	while (!(desc[1] & RXD_DD)) {
		if (now_ms() > end)
			return false;
		nap();
	}
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return probe_intact(va, RXD_LEN(desc[1]));
}

TEST_F_TIMEOUT(memory_gone, kinds_of_memory, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	neighbour_flood(nb, vf->mac);
	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	for (unsigned int i = 0; i < ARRAY_SIZE(kinds); i++) {
		void *va = kinds[i].get();

		if (!va || va == MAP_FAILED) {
			TH_LOG("not here: %s (%s)", kinds[i].name, strerror(errno));
			continue;
		}
		TH_LOG("%s", kinds[i].name);
		ASSERT_EQ(0, start_without_buffers(vf));
		ASSERT_EQ(0, vfio_map(&vf->dev, va, EXTRA_IOVA, VF_PAGE, RW));
		if (kinds[i].good) {
			EXPECT_TRUE(packet_arrives_at(vf, EXTRA_IOVA, va));
			memcpy(va, vf_mem(vf, VF_TX_BUF), FRAME_BYTES);
			expect_sent(_metadata, vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES));
		} else {
			expect_refused(_metadata, vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES), "not_memory|pin_failed");
			ASSERT_EQ(0, start_without_buffers(vf));
			vf_post(vf, &vf->rx, EXTRA_IOVA, 0);
			EXPECT_REJECTED("not_memory|pin_failed", vf_doorbell(vf, &vf->rx));
		}
		ASSERT_EQ(0, vfio_unmap(&vf->dev, EXTRA_IOVA, VF_PAGE));
	}
	unlink("/dev/shm/hostile-memory");
}
