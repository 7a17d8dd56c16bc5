// SPDX-License-Identifier: GPL-2.0
/*
 * An eventfd with many watchers: whoever signals it runs through all of them,
 * with interrupts off. Part of hostile.c.
 */

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

/* An epoll instance takes a file once, so the eventfd is so many files, in so many instances. */
#define WATCHER_FILES		400
#define WATCHER_INSTANCES	50

/* Those that @fd has from now on, until the process ends. */
static void watch(struct __test_metadata *_metadata, int fd)
{
	struct rlimit files = { .rlim_cur = 2048, .rlim_max = 2048 };
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	int dups[WATCHER_FILES];

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &files));
	for (unsigned int i = 0; i < WATCHER_FILES; i++) {
		dups[i] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		ASSERT_LE(0, dups[i]);
	}
	for (unsigned int j = 0; j < WATCHER_INSTANCES; j++) {
		int instance = epoll_create1(EPOLL_CLOEXEC);

		ASSERT_LE(0, instance);
		for (unsigned int i = 0; i < WATCHER_FILES; i++)
			ASSERT_EQ(0, epoll_ctl(instance, EPOLL_CTL_ADD, dups[i], &event));
	}
}

/* Signals that take long are made by the slice's helper, and not by who serves the neighbour. */
TEST_F_TIMEOUT(intruder, irqs_with_many_watchers, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	struct pollfd pfd = { .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = POLLIN };
	int32_t fds[3] = { pfd.fd, pfd.fd, pfd.fd };
	uint64_t before = stat_of(uuid_a, "interrupts_deferred"), now = before, count;
	uint64_t end = now_ms() + VF_WAIT_MS;

	ASSERT_NE(UINT64_MAX, before);
	watch(_metadata, pfd.fd);
	ASSERT_EQ(0, vfio_irqs_on(&vf->dev, fds, 3));
	vf_write(vf, VF_IVAR0, 0x8080);
	vf_write(vf, VF_EIAC, 7);
	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	do {
		vf_write(vf, VF_EIMS, 7);
		expect_sent(_metadata, vf, VF_TX_BUF, SIMPLE(FRAME_BYTES));
		vf_write(vf, VF_EICS, 7);
		now = stat_of(uuid_a, "interrupts_deferred");
	} while (now == before && now_ms() < end);
	EXPECT_GT(now, before) TH_LOG("no signal was left to the helper");
	EXPECT_TRUE(neighbour_advances(nb, 10));

	/* They come nevertheless. */
	while (read(pfd.fd, &count, sizeof(count)) > 0)
		;
	vf_write(vf, VF_EIMS, 7);
	vf_write(vf, VF_EICS, 7);
	EXPECT_EQ(1, poll(&pfd, 1, VF_WAIT_MS));
	EXPECT_EQ(0, vfio_irqs_off(&vf->dev));
}
