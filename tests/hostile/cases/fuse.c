// SPDX-License-Identifier: GPL-2.0
/*
 * Guest memory from a file system that the VMM serves itself, and does not
 * deliver: whoever pins such a page waits. Only the slice itself may.
 */

#include <linux/fuse.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define FUSE_BYTES	(1ul << 20)

struct fuse_server {
	int fd;
	pthread_t thread;
	/* A page was asked for. */
	volatile bool asked;
	/* Pages are delivered from now on. */
	volatile bool deliver;
};

static void fuse_answer(int fd, uint64_t unique, int error, const void *data, size_t len)
{
	uint8_t out[sizeof(struct fuse_out_header) + 4096] = { 0 };
	struct fuse_out_header *head = (void *)out;

	head->len = sizeof(*head) + len;
	head->error = error;
	head->unique = unique;
	if (data)
		memcpy(head + 1, data, len);
	if (write(fd, out, head->len) < 0)
		return;
}

/* One file, whatever its name. */
static void *fuse_serve(void *arg)
{
	static uint8_t in[1 << 17] __attribute__((aligned(8)));
	const struct fuse_attr attr = { .ino = 2, .size = FUSE_BYTES, .mode = S_IFREG | 0600, .nlink = 1 };
	struct fuse_server *server = arg;
	const struct fuse_in_header *head = (void *)in;

	while (read(server->fd, in, sizeof(in)) > 0) {
		uint64_t unique = head->unique;

		switch (head->opcode) {
		case FUSE_INIT: {
			struct fuse_init_out out = { .major = 7, .minor = 31, .max_write = 4096 };

			fuse_answer(server->fd, unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_LOOKUP: {
			struct fuse_entry_out out = {
				.nodeid = 2, .entry_valid = 1000, .attr_valid = 1000, .attr = attr,
			};

			fuse_answer(server->fd, unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_GETATTR: {
			struct fuse_attr_out out = { .attr_valid = 1000, .attr = attr };

			if (head->nodeid == 1)
				out.attr.mode = S_IFDIR | 0700;
			fuse_answer(server->fd, unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_OPEN: {
			struct fuse_open_out out = { 0 };

			fuse_answer(server->fd, unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_READ: {
			const struct fuse_read_in *read_in = (const void *)(head + 1);
			size_t len = read_in->size < 4096 ? read_in->size : 4096;

			server->asked = true;
			while (!server->deliver)
				usleep(1000);
			fuse_answer(server->fd, unique, 0, NULL, len);
			break;
		}
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
			break;
		default:
			fuse_answer(server->fd, unique, -ENOSYS, NULL, 0);
		}
	}
	return NULL;
}

/* The file is mapped, and page faults in it last until ->deliver. */
static uint8_t *fuse_start(struct fuse_server *server)
{
	char dir[] = "/tmp/hostile-fuse-XXXXXX", path[64], options[128];
	void *va;
	int fd;

	*server = (struct fuse_server){ .fd = open("/dev/fuse", O_RDWR | O_CLOEXEC) };
	if (server->fd < 0 || !mkdtemp(dir))
		return NULL;
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", server->fd);
	if (mount("hostile", dir, "fuse", MS_NODEV, options) ||
	    pthread_create(&server->thread, NULL, fuse_serve, server))
		return NULL;
	snprintf(path, sizeof(path), "%s/memory", dir);
	fd = open(path, O_RDWR);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	if (fd < 0)
		return NULL;
	va = mmap(NULL, FUSE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	return va == MAP_FAILED ? NULL : va;
}

/* Whether a look at slice A's state comes to be refused, instead of waiting with the slice. */
static bool look_is_refused(void)
{
	uint64_t end = now_ms() + VF_WAIT_MS;
	char path[128], text[128];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/mdev/devices/%s/state", uuid_a);
	do {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		len = read(fd, text, sizeof(text));
		if (len < 0 && errno == EBUSY) {
			close(fd);
			return true;
		}
		close(fd);
	} while (now_ms() < end);
	return false;
}

TEST_F_TIMEOUT(attacker, memory_of_a_slow_file_system, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	struct fuse_server server;
	uint8_t *va = fuse_start(&server);
	uint64_t end = now_ms() + 10000;

	if (!va)
		SKIP(return, "no FUSE");
	ASSERT_EQ(0, vfio_map(&vf->dev, va, EXTRA_IOVA, FUSE_BYTES, RW));
	vf_post(vf, &vf->tx, EXTRA_IOVA, SIMPLE(FRAME_BYTES));
	vf_doorbell(vf, &vf->tx);
	while (!server.asked && now_ms() < end)
		usleep(1000);
	EXPECT_TRUE(server.asked);
	/* The slice waits for its page; the neighbour must not, nor who looks at the slice. */
	EXPECT_TRUE(look_is_refused());
	EXPECT_TRUE(neighbour_advances(nb, 50));
	server.deliver = true;
	EXPECT_EQ(0, vfio_unmap(&vf->dev, EXTRA_IOVA, FUSE_BYTES));
	munmap(va, FUSE_BYTES);
}
