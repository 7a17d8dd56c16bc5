// SPDX-License-Identifier: GPL-2.0
/*
 * Does one thing to Sluice and has the kernel fail an allocation meanwhile.
 *
 *	faults N load FILE		insert a module
 *	faults N write FILE TEXT	write to a file of sysfs; "new-uuid": one that was never there
 *	faults N STEP UUID		use a slice: see the table of steps
 *
 * The N-th allocation that /sys/kernel/debug/fail* lets fail, does. After that
 * (where pins failed, a second after) a slice must work as if nothing had been: it
 * is reset and sends a frame.
 *
 * Exit status: 0 if the allocation failed and all else was well, 10 if there
 * were fewer than N (prints how many), 1 otherwise (with a message).
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "probe.h"
#include "vf.h"

#define STATUS_NONE	10

static const char *nth_text;
static int left;

static int complain(const char *what, int error)
{
	printf("%s: %s\n", what, strerror(-error));
	return 1;
}

/* --- which allocation fails ---------------------------------------------- */

static int nth_fd = -1;

/* For the thread whose folder in /proc is given. */
static int arm(const char *proc)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/fail-nth", proc);
	nth_fd = open(path, O_RDWR | O_CLOEXEC);
	if (nth_fd < 0 || write(nth_fd, nth_text, strlen(nth_text)) < 0)
		return -errno;
	return 0;
}

/* Whether an allocation failed since arm(). */
static bool disarm(void)
{
	char text[16] = "";
	bool failed;

	left = pread(nth_fd, text, sizeof(text) - 1, 0) > 0 ? atoi(text) : -1;
	failed = left == 0;
	if (write(nth_fd, "0", 1) != 1)
		perror("fail-nth");
	close(nth_fd);
	return failed;
}

static int end(bool failed)
{
	if (failed)
		return 0;
	printf("%d\n", atoi(nth_text) - left);
	return STATUS_NONE;
}

/* --- one system call ----------------------------------------------------- */

static int load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = arm("/proc/thread-self");
	if (!ret && syscall(SYS_finit_module, fd, "", 0))
		ret = -errno;
	close(fd);
	return ret;
}

static int write_file(const char *path, const char *text)
{
	int fd = open("/proc/sys/kernel/random/uuid", O_RDONLY | O_CLOEXEC), ret;
	char uuid[37] = "";

	if (fd < 0 || read(fd, uuid, sizeof(uuid) - 1) != sizeof(uuid) - 1)
		return -ENODATA;
	close(fd);
	if (!strcmp(text, "new-uuid"))
		text = uuid;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = arm("/proc/thread-self");
	if (!ret && write(fd, text, strlen(text)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/* --- a slice in use ------------------------------------------------------ */

/* A frame to nobody. */
static int send_frame(struct vf *vf)
{
	static const uint8_t nobody[6] = { 0x52, 0x54, 0, 0x77, 0x0f, 0xff };
	struct probe p;

	probe_make(&p, nobody, vf->mac, PROBE_FLOOD, 1, 200);
	return vf_send(vf, &p, 200);
}

/* "/proc/PID" of the thread with this name. */
static int find_thread(const char *name, char *proc, size_t room)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	int ret = -ESRCH;

	while (dir && ret && (entry = readdir(dir))) {
		char path[300], comm[32] = "";
		FILE *file;

		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		if (atoi(entry->d_name) <= 0 || !(file = fopen(path, "re")))
			continue;
		if (fgets(comm, sizeof(comm), file) && !strncmp(comm, name, strlen(name))) {
			snprintf(proc, room, "/proc/%d", atoi(entry->d_name));
			ret = 0;
		}
		fclose(file);
	}
	if (dir)
		closedir(dir);
	return ret;
}

static int irqs(struct vf *vf)
{
	int32_t fds[3];
	int ret;

	for (int i = 0; i < 3; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC);
	ret = vfio_irqs_on(&vf->dev, fds, 3);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	return ret;
}

/* Host buffers for a full ring. */
static int copy(struct vf *vf)
{
	char path[128];
	int fd, ret;

	snprintf(path, sizeof(path), "/sys/bus/mdev/devices/%s/strategy", vf->dev.uuid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = write(fd, "copy", 4) == 4 ? 0 : -errno;
	close(fd);
	return ret;
}

/* In the helper's thread, which pins. */
static int pin(struct vf *vf)
{
	int ret = vf_start(vf);

	return ret ? ret : send_frame(vf);
}

/* In the worker's thread: the pages are pinned. */
static int work(struct vf *vf)
{
	int ret = 0;

	for (int i = 0; i < 16 && !ret; i++)
		ret = send_frame(vf);
	return ret;
}

static const struct step {
	const char *name;
	const char *thread;	/* whose allocations fail; NULL: this one's */
	int (*run)(struct vf *vf);
	int (*before)(struct vf *vf);
} steps[] = {
	{ .name = "irqs", .run = irqs },
	{ .name = "handshake", .run = vf_handshake },
	{ .name = "start", .run = vf_start },
	{ .name = "copy", .run = copy },
	{ .name = "pin", .thread = "sluice-pin", .run = pin },
	{ .name = "work", .thread = "sluice/", .run = work, .before = pin },
};

/* Opens the slice while an allocation fails; if that is refused, once more without. */
static int open_device(struct vf *vf, const char *uuid, bool *failed)
{
	int ret = vfio_open_group(&vf->dev, uuid);

	if (!ret)
		ret = arm("/proc/thread-self");
	if (ret)
		return ret;
	ret = vfio_open_device(&vf->dev);
	*failed = disarm();
	vfio_close(&vf->dev);
	return ret && !*failed ? ret : vf_open(vf, uuid);
}

static int use_slice(const struct step *step, const char *uuid)
{
	char proc[32] = "/proc/thread-self";
	struct vf vf = { .ram = MAP_FAILED, .ram_fd = -1 };
	bool failed = false;
	int ret;

	ret = step ? vf_open(&vf, uuid) : open_device(&vf, uuid, &failed);
	if (ret)
		return complain("cannot open the slice", ret);
	if (step) {
		if (step->before && (ret = step->before(&vf)))
			return complain("fails before", ret);
		if (step->thread && (ret = find_thread(step->thread, proc, sizeof(proc))))
			return complain(step->thread, ret);
		ret = arm(proc);
		if (ret)
			return complain("fail-nth", ret);
		ret = step->run(&vf);
		failed = disarm();
		if (ret && !failed)
			return complain("fails by itself", ret);
	}
	/* For VFIO, too little memory is the VMM's limit on it, and its word is believed for a second. */
	if (failed && step && step->thread)
		usleep(1100000);
	ret = vf_restart(&vf);
	if (ret)
		return complain("does not start again", ret);
	ret = send_frame(&vf);
	if (ret)
		return complain("does not send again", ret);
	vf_close(&vf);
	return end(failed);
}

int main(int argc, char **argv)
{
	bool failed;
	int ret;

	if (argc < 4) {
		fprintf(stderr, "see the head of faults.c\n");
		return 2;
	}
	nth_text = argv[1];
	if (!strcmp(argv[2], "load") || !strcmp(argv[2], "write")) {
		ret = argc > 4 ? write_file(argv[3], argv[4]) : load(argv[3]);
		failed = disarm();
		if (ret && !failed)
			return complain("fails by itself", ret);
		return end(failed);
	}
	if (!strcmp(argv[2], "open"))
		return use_slice(NULL, argv[3]);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		if (!strcmp(argv[2], steps[i].name))
			return use_slice(&steps[i], argv[3]);
	fprintf(stderr, "no step %s\n", argv[2]);
	return 2;
}
