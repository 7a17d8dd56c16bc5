// SPDX-License-Identifier: GPL-2.0
/* A VMM that does not keep to the VFIO interface. Part of hostile.c. */

#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

TEST_F_TIMEOUT(intruder, opened_twice, TIMEOUT_S)
{
	struct vfio_dev second;

	EXPECT_EQ(-EBUSY, vfio_open(&second, uuid_a));
	EXPECT_TRUE(neighbour_advances(nb, 1));
}

/* Two descriptors of one open: closing one leaves the other working. */
TEST_F_TIMEOUT(intruder, device_descriptor_twice, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	int fd = ioctl(vf->dev.group, VFIO_GROUP_GET_DEVICE_FD, uuid_a);

	if (fd < 0) {
		EXPECT_EQ(EBUSY, errno);
		return;
	}
	close(fd);
	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	expect_sent(_metadata, vf, VF_TX_BUF, SIMPLE(FRAME_BYTES));
}

TEST_F_TIMEOUT(intruder, device_of_another_group, TIMEOUT_S)
{
	EXPECT_EQ(-1, ioctl(self->vf.dev.group, VFIO_GROUP_GET_DEVICE_FD, getenv("HOSTILE_B")));
	EXPECT_EQ(-1, ioctl(self->vf.dev.group, VFIO_GROUP_GET_DEVICE_FD, "no such device"));
	EXPECT_EQ(-1, ioctl(self->vf.dev.group, VFIO_GROUP_GET_DEVICE_FD, NULL));
}

TEST_F_TIMEOUT(intruder, ioctl_short_arguments, TIMEOUT_S)
{
	static const unsigned long requests[] = {
		VFIO_DEVICE_GET_INFO, VFIO_DEVICE_GET_REGION_INFO, VFIO_DEVICE_GET_IRQ_INFO, VFIO_DEVICE_SET_IRQS,
	};
	int fd = self->vf.dev.device;
	uint32_t arg[64];

	for (unsigned int i = 0; i < ARRAY_SIZE(requests); i++) {
		for (uint32_t argsz = 0; argsz < 12; argsz++) {
			memset(arg, 0, sizeof(arg));
			arg[0] = argsz;
			EXPECT_EQ(-1, ioctl(fd, requests[i], arg));
			EXPECT_EQ(EINVAL, errno);
		}
		EXPECT_EQ(-1, ioctl(fd, requests[i], NULL));
		EXPECT_EQ(EFAULT, errno);
	}
}

TEST_F_TIMEOUT(intruder, ioctl_indices_out_of_range, TIMEOUT_S)
{
	static const uint32_t bad[] = { VFIO_PCI_NUM_REGIONS, 100, 0x7fffffff, 0x80000000, UINT32_MAX };
	int fd = self->vf.dev.device;

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		struct vfio_region_info region = { .argsz = sizeof(region), .index = bad[i] };
		struct vfio_irq_info irq = { .argsz = sizeof(irq), .index = bad[i] };

		EXPECT_EQ(-1, ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &region));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, ioctl(fd, VFIO_DEVICE_GET_IRQ_INFO, &irq));
		EXPECT_EQ(EINVAL, errno);
	}
}

TEST_F_TIMEOUT(intruder, ioctl_unknown, TIMEOUT_S)
{
	uint32_t arg[256] = { sizeof(arg) };

	/* All numbers of VFIO's type that are not the few that a slice has. */
	for (unsigned int nr = 0; nr < 256; nr++) {
		unsigned long request = _IO(VFIO_TYPE, nr);

		arg[0] = sizeof(arg);
		if (request == VFIO_DEVICE_GET_INFO || request == VFIO_DEVICE_GET_REGION_INFO ||
		    request == VFIO_DEVICE_GET_IRQ_INFO || request == VFIO_DEVICE_SET_IRQS ||
		    request == VFIO_DEVICE_RESET || request == VFIO_DEVICE_FEATURE)
			continue;
		EXPECT_EQ(-1, ioctl(self->vf.dev.device, request, arg));
	}
}

/* --- interrupts ---------------------------------------------------------- */

struct irq_case {
	uint32_t argsz, flags, index, start, count;
	int32_t fds[4];
};

static int set_irqs(int device, const struct irq_case *c)
{
	union {
		struct vfio_irq_set set;
		uint8_t bytes[sizeof(struct vfio_irq_set) + sizeof(c->fds)];
	} arg = { .set = {
		.argsz = c->argsz,
		.flags = c->flags,
		.index = c->index,
		.start = c->start,
		.count = c->count,
	} };

	memcpy(arg.set.data, c->fds, sizeof(c->fds));
	return ioctl(device, VFIO_DEVICE_SET_IRQS, &arg);
}

TEST_F_TIMEOUT(intruder, irqs_bad_arguments, TIMEOUT_S)
{
	const uint32_t fds = VFIO_IRQ_SET_DATA_EVENTFD, trigger = VFIO_IRQ_SET_ACTION_TRIGGER;
	const uint32_t size = sizeof(struct vfio_irq_set), msix = VFIO_PCI_MSIX_IRQ_INDEX;
	int good = eventfd(0, EFD_CLOEXEC), file = open("/dev/null", O_RDWR | O_CLOEXEC);
	const struct irq_case cases[] = {
		/* Counts and starts past the last vector, and sums that wrap. */
		{ size + 16, fds | trigger, msix, 0, 4, { good, good, good, good } },
		{ size + 16, fds | trigger, msix, 3, 1, { good } },
		{ size + 16, fds | trigger, msix, 2, 2, { good, good } },
		{ size + 16, fds | trigger, msix, UINT32_MAX, 1, { good } },
		{ size + 16, fds | trigger, msix, UINT32_MAX, 2, { good, good } },
		{ size + 16, fds | trigger, msix, 0, UINT32_MAX, { good } },
		{ size + 16, fds | trigger, msix, 1, 0x40000000, { good } },
		/* Less data than said. */
		{ size + 4, fds | trigger, msix, 0, 3, { good, good, good } },
		{ size, fds | trigger, msix, 0, 1, { good } },
		/* Not eventfds. */
		{ size + 16, fds | trigger, msix, 0, 1, { 9999 } },
		{ size + 16, fds | trigger, msix, 0, 1, { file } },
		{ size + 16, fds | trigger, msix, 0, 2, { good, file } },
		{ size + 16, fds | trigger, msix, 0, 1, { -2 } },
		/* Indices that are not there. */
		{ size + 16, fds | trigger, VFIO_PCI_NUM_IRQS, 0, 1, { good } },
		{ size + 16, fds | trigger, UINT32_MAX, 0, 1, { good } },
		{ size + 16, fds | trigger, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, { good } },
		/* Flags: none, two kinds of data, two actions, unknown ones. */
		{ size + 16, 0, msix, 0, 1, { good } },
		{ size + 16, fds, msix, 0, 1, { good } },
		{ size + 16, trigger, msix, 0, 1, { good } },
		{ size + 16, fds | VFIO_IRQ_SET_DATA_BOOL | trigger, msix, 0, 1, { good } },
		{ size + 16, fds | trigger | VFIO_IRQ_SET_ACTION_MASK, msix, 0, 1, { good } },
		{ size + 16, fds | trigger | 1u << 31, msix, 0, 1, { good } },
		{ size + 16, UINT32_MAX, msix, 0, 1, { good } },
	};
	const struct irq_case fine = { size + 12, fds | trigger, msix, 0, 3, { good, -1, good } };

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		EXPECT_EQ(-1, set_irqs(self->vf.dev.device, &cases[i])) TH_LOG("case %u was accepted", i);
	}
	EXPECT_EQ(0, set_irqs(self->vf.dev.device, &fine));
	EXPECT_EQ(0, vfio_irqs_off(&self->vf.dev));
	EXPECT_EQ(0, vfio_irqs_off(&self->vf.dev));
}

TEST_F_TIMEOUT(intruder, irqs_random_arguments, TIMEOUT_S)
{
	int good = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	for (unsigned int i = 0; i < 5000; i++) {
		struct irq_case c = {
			rng() % 40, rng() % 64, rng() % 6, rng() % 5, rng() % 5,
			{ good, rng() % 8, -1, good },
		};

		if (i & 1)
			c.argsz = 36;
		set_irqs(self->vf.dev.device, &c);
	}
	vfio_irqs_off(&self->vf.dev);
}

/* A signal comes when asked for, and to nobody after it was taken back. */
TEST_F_TIMEOUT(intruder, irqs_only_where_asked, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	struct pollfd pfd = { .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = POLLIN };
	int32_t fds[3] = { pfd.fd, pfd.fd, pfd.fd };
	uint64_t count;

	ASSERT_EQ(0, vfio_irqs_on(&vf->dev, fds, 3));
	/* Transmit queue 0 to vector 0, enabled (datasheet 8.14.9, 8.14.5). */
	vf_write(vf, VF_IVAR0, 0x8080);
	vf_write(vf, VF_EIAC, 7);
	vf_write(vf, VF_EIMS, 7);
	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	expect_sent(_metadata, vf, VF_TX_BUF, SIMPLE(FRAME_BYTES));
	EXPECT_EQ(1, poll(&pfd, 1, VF_WAIT_MS));

	ASSERT_EQ(0, vfio_irqs_off(&vf->dev));
	while (read(pfd.fd, &count, sizeof(count)) > 0)
		;
	for (unsigned int i = 0; i < 20; i++)
		expect_sent(_metadata, vf, VF_TX_BUF, SIMPLE(FRAME_BYTES));
	vf_write(vf, VF_EICS, 7);
	EXPECT_EQ(0, poll(&pfd, 1, VF_QUIET_MS));
	close(pfd.fd);
}

/* An eventfd that nobody reads and whose counter is full does not hold up anything. */
TEST_F_TIMEOUT(intruder, irqs_full_eventfd, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	int fd = eventfd(0, EFD_CLOEXEC);
	int32_t fds[3] = { fd, fd, fd };
	uint64_t full = UINT64_MAX - 1;

	ASSERT_EQ((ssize_t)sizeof(full), write(fd, &full, sizeof(full)));
	ASSERT_EQ(0, vfio_irqs_on(&vf->dev, fds, 3));
	vf_write(vf, VF_IVAR0, 0x8080);
	vf_write(vf, VF_EIMS, 7);
	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	for (unsigned int i = 0; i < 50; i++) {
		expect_sent(_metadata, vf, VF_TX_BUF, SIMPLE(FRAME_BYTES));
		vf_write(vf, VF_EICS, 7);
	}
	EXPECT_TRUE(neighbour_advances(nb, 3));
	vfio_irqs_off(&vf->dev);
	close(fd);
}

/* --- limits -------------------------------------------------------------- */

static void drop_ipc_lock(struct __test_metadata *_metadata)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	ASSERT_EQ(0, syscall(SYS_capget, &header, data));
	data[0].effective &= ~(1u << CAP_IPC_LOCK);
	data[0].permitted &= ~(1u << CAP_IPC_LOCK);
	ASSERT_EQ(0, syscall(SYS_capset, &header, data));
}

/* As if without the right to lock memory beyond @pages. */
static void limit_locked_pages(struct __test_metadata *_metadata, unsigned int pages)
{
	struct rlimit limit;

	ASSERT_EQ(0, getrlimit(RLIMIT_MEMLOCK, &limit));
	limit.rlim_cur = pages * VF_PAGE;
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
}

/* Pins are charged to the VMM's limit: past it the slice has to do with less, or is refused. */
TEST_F_TIMEOUT(attacker, memlock_limit, TIMEOUT_S)
{
	struct vf *vf = &self->vf;

	vf_close(vf);
	drop_ipc_lock(_metadata);

	limit_locked_pages(_metadata, 0);
	ASSERT_EQ(0, vf_open(vf, uuid_a));
	EXPECT_REJECTED("pin_limit", use_ring(vf, &vf->tx, VF_TX_RING, RING_BYTES));
	vf_close(vf);

	/* 255 buffers on a page each, and rings: more than this allows. */
	limit_locked_pages(_metadata, 32);
	ASSERT_EQ(0, vf_open(vf, uuid_a));
	ASSERT_EQ(0, vf_restart(vf));
	neighbour_flood(nb, vf->mac);
	EXPECT_TRUE(neighbour_flooded(nb, 100));
	post_some(vf);
	EXPECT_TRUE(neighbour_advances(nb, 3));
	EXPECT_GE(32 * 4, locked_kib());
	vf_close(vf);

	limit_locked_pages(_metadata, 1024);
	ASSERT_EQ(0, vf_open(vf, uuid_a));
}

/* Guest memory whose missing pages the VMM delivers through userfaultfd: pinning does not ask for them. */
TEST_F_TIMEOUT(attacker, memory_behind_userfaultfd, TIMEOUT_S)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct vf *vf = &self->vf;
	uint8_t *va;
	int uffd;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	ASSERT_LE(0, uffd);
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_API, &api));
	va = mmap(NULL, EXTRA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, va);
	range.range.start = (uintptr_t)va;
	range.range.len = EXTRA_BYTES;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &range));
	ASSERT_EQ(0, vfio_map(&vf->dev, va, EXTRA_IOVA, EXTRA_BYTES, RW));

	expect_refused(_metadata, vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES), "not_memory");
	EXPECT_TRUE(neighbour_advances(nb, 3));

	/* From here on the pages are there. */
	close(uffd);
	ASSERT_EQ(0, vf_restart(vf));
	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	memcpy(va, vf_mem(vf, VF_TX_BUF), FRAME_BYTES);
	expect_sent(_metadata, vf, EXTRA_IOVA, SIMPLE(FRAME_BYTES));
	EXPECT_EQ(0, vfio_unmap(&vf->dev, EXTRA_IOVA, EXTRA_BYTES));
	munmap(va, EXTRA_BYTES);
}
