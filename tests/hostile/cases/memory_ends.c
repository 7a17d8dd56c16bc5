// SPDX-License-Identifier: GPL-2.0
/* VMMs that end, or fork, while the NIC has their memory. Part of hostile.c, after memory_gone.c. */

/* A VMM with all its receive buffers posted, in a flood. */
static void doomed_vmm(volatile int *ram_fd, bool by_itself)
{
	struct vf own;

	if (vf_open(&own, uuid_a) || vf_restart(&own))
		_exit(1);
	*ram_fd = own.ram_fd;
	if (!by_itself)
		traffic_forever(&own);
	post_some(&own);
	/* Until somebody else has the memory, too. */
	while (*ram_fd >= 0)
		nap();
	_exit(0);
}

/* The memory of process @pid that is its file @fd. */
static uint8_t *memory_of(pid_t pid, int fd)
{
	char path[64];
	void *va;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	va = mmap(NULL, VF_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return va == MAP_FAILED ? NULL : va;
}

/* Its memory is somebody else's from then on: first the very pages, then what the kernel makes of them. */
TEST_F_TIMEOUT(memory_gone, vmm_ends_in_a_flood, TIMEOUT_S)
{
	volatile int *ram_fd = mmap(NULL, VF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct piece none = { 0 };
	struct vf *vf = &self->vf;

	ASSERT_NE(MAP_FAILED, ram_fd);
	neighbour_flood(nb, vf->mac);
	vf_close(vf);
	for (unsigned int i = 0; i < 4; i++) {
		uint64_t end = now_ms() + VF_WAIT_MS;
		uint8_t *ram;
		pid_t child;

		*ram_fd = -1;
		child = fork();
		ASSERT_LE(0, child);
		if (!child)
			doomed_vmm(ram_fd, i & 1);
		while (*ram_fd < 0 && now_ms() < end)
			nap();
		EXPECT_TRUE(neighbour_flooded(nb, 8));
		ram = memory_of(child, *ram_fd);
		ASSERT_NE(NULL, ram);
		*ram_fd = -1;
		if (!(i & 1))
			kill(child, SIGKILL);
		ASSERT_EQ(child, waitpid(child, NULL, 0));

		memset(ram, 0x5a, VF_RAM_BYTES);
		EXPECT_TRUE(neighbour_flooded(nb, 30));
		EXPECT_TRUE(all_bytes(ram, 0x5a, VF_RAM_BYTES));
		canary_bait();
		munmap(ram, VF_RAM_BYTES);
		expect_others_safe(_metadata, &none);
	}
	ASSERT_EQ(0, vf_open(vf, uuid_a));
}

/* The administrator ends all file systems in user space. */
static bool abort_fuse(void)
{
	return !system("d=/sys/fs/fuse/connections; mountpoint -q $d || mount -t fusectl fusectl $d; "
		       "for c in $d/*/abort; do echo 1 >$c; done");
}

/*
 * Killed while the slice's helper waits for a page of the VMM's own file
 * system, which died with it. The page fault is VFIO's, and cannot be
 * interrupted: the process stays until the file system is ended. Others go on.
 */
TEST_F_TIMEOUT(memory_gone, vmm_killed_while_it_is_waited_for, TIMEOUT_S)
{
	volatile bool *asked = mmap(NULL, VF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t end = now_ms() + VF_WAIT_MS;
	struct vf *vf = &self->vf;
	pid_t child;

	ASSERT_NE(MAP_FAILED, asked);
	if (access("/dev/fuse", R_OK | W_OK))
		SKIP(return, "no FUSE");
	vf_close(vf);
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		struct fuse_server server;
		struct vf own;
		uint8_t *va = fuse_start(&server);

		if (!va || vf_open(&own, uuid_a) || vf_restart(&own) ||
		    vfio_map(&own.dev, va, EXTRA_IOVA, FUSE_BYTES, RW))
			_exit(1);
		vf_post(&own, &own.tx, EXTRA_IOVA, SIMPLE(FRAME_BYTES));
		vf_doorbell(&own, &own.tx);
		while (!server.asked)
			nap();
		*asked = true;
		for (;;)
			pause();
	}
	while (!*asked && now_ms() < end)
		nap();
	EXPECT_TRUE(*asked);
	EXPECT_TRUE(neighbour_advances(nb, 3));
	kill(child, SIGKILL);
	EXPECT_TRUE(neighbour_advances(nb, 8));
	ASSERT_TRUE(abort_fuse());
	ASSERT_EQ(child, waitpid(child, NULL, 0));
	ASSERT_EQ(0, vf_open(vf, uuid_a));
}

/* --- forks ----------------------------------------------------------------- */

struct forked {
	bool posted, filled, stop, parent_got, child_changed;
	uint64_t frames[PIECE_PAGES];
};

/* Has a copy of the VMM's memory, which is not the NIC's. */
static void copy_of_the_vmm(volatile struct forked *forked, const struct piece *piece)
{
	memset(piece->va, 0x77, PIECE_BYTES);
	forked->filled = true;
	while (!forked->stop)
		nap();
	forked->child_changed = !all_bytes(piece->va, 0x77, PIECE_BYTES);
	_exit(0);
}

/* Maps memory, has it pinned, forks, sees that it still gets the packets, and ends. */
static void vmm_that_forks(struct __test_metadata *_metadata, struct vf *vf, volatile struct forked *forked)
{
	struct piece piece;

	piece_map(_metadata, vf, &piece, 0);
	if (start_without_buffers(vf))
		_exit(1);
	memcpy((void *)forked->frames, piece.frames, sizeof(piece.frames));
	if (!piece_posted(vf, &piece))
		_exit(1);
	if (!fork())
		copy_of_the_vmm(forked, &piece);
	while (!forked->filled)
		nap();
	forked->posted = true;
	forked->parent_got = piece_used(&piece);
	_exit(0);
}

TEST_F_TIMEOUT(memory_gone, vmm_forks_and_ends, TIMEOUT_S)
{
	volatile struct forked *forked = mmap(NULL, sizeof(*forked), PROT_READ | PROT_WRITE,
					      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t end = now_ms() + VF_WAIT_MS;
	struct vf *vf = &self->vf;
	struct canary *canary;
	pid_t parent;

	ASSERT_NE(MAP_FAILED, forked);
	parent = fork();
	ASSERT_LE(0, parent);
	if (!parent)
		vmm_that_forks(_metadata, vf, forked);
	while (!forked->posted && now_ms() < end)
		nap();
	EXPECT_TRUE(forked->posted);
	neighbour_flood(nb, vf->mac);
	ASSERT_EQ(parent, waitpid(parent, NULL, 0));
	EXPECT_TRUE(forked->parent_got);

	/* The copy lives on, and the slice is still open: this process has it. */
	canary = canary_start(CANARY_PAGES);
	ASSERT_NE(NULL, canary);
	/* Of what is not kept, pages that have had their packets are free. */
	if (keeps_pins(variant->strategy))
		EXPECT_EQ(0, canary_has(canary, (uint64_t *)forked->frames, PIECE_PAGES));
	EXPECT_TRUE(neighbour_flooded(nb, 50));
	EXPECT_EQ(0, canary_changed(canary));
	canary_stop(canary);
	forked->stop = true;
	EXPECT_EQ(0, vfio_unmap(&vf->dev, PIECE_IOVA(0), PIECE_BYTES));
	EXPECT_TRUE(neighbour_advances(nb, 3));
	EXPECT_FALSE(forked->child_changed);
}
