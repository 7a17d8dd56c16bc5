// SPDX-License-Identifier: GPL-2.0
/* What the module and the kernel say about a slice and about memory. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sysfs.h"
#include "vf.h"

/*
 * One file per rule, named after it: rules of descriptors and rings in the
 * first folder, of registers in the second.
 */
static const char *const folders[] = { "rejected", "refused" };

/* @names is a list "a|b|c". */
static bool listed(const char *names, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = names; (at = strstr(at, name)); at += len)
		if ((at == names || at[-1] == '|') && (!at[len] || at[len] == '|'))
			return true;
	return false;
}

static bool read_count(int dir, const char *name, uint64_t *count)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	char text[32];
	ssize_t len;

	if (fd < 0)
		return false;
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (len <= 0)
		return false;
	text[len] = '\0';
	return sscanf(text, "%" SCNu64, count) == 1;
}

/* Adds the rules in @names, or all if it is NULL, to @total; whether there are any. */
static bool add_folder(const char *uuid, const char *folder, const char *names, uint64_t *total)
{
	struct dirent *entry;
	bool found = false;
	char path[128];
	uint64_t count;
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/bus/mdev/devices/%s/%s", uuid, folder);
	dir = opendir(path);
	if (!dir)
		return false;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || (names && !listed(names, entry->d_name)))
			continue;
		if (!read_count(dirfd(dir), entry->d_name, &count))
			continue;
		*total += count;
		found = true;
	}
	closedir(dir);
	return found;
}

static uint64_t sum(const char *uuid, const char *names)
{
	uint64_t total = 0;
	bool found = false;

	for (unsigned int i = 0; i < sizeof(folders) / sizeof(*folders); i++)
		found |= add_folder(uuid, folders[i], names, &total);
	return found ? total : UINT64_MAX;
}

uint64_t rejections_all(const char *uuid)
{
	return sum(uuid, NULL);
}

uint64_t rejections_of(const char *uuid, const char *names)
{
	return sum(uuid, names);
}

bool rejection_comes(const char *uuid, const char *names, uint64_t before)
{
	uint64_t end = now_ms() + VF_WAIT_MS;
	uint64_t count;

	for (;;) {
		count = sum(uuid, names);
		if (count != UINT64_MAX && count > before)
			return true;
		if (count == UINT64_MAX || now_ms() > end)
			return false;
		nap();
	}
}

void state_of(const char *uuid, char *text, size_t len)
{
	char path[128];
	ssize_t got;
	int fd;

	text[0] = '\0';
	snprintf(path, sizeof(path), "/sys/bus/mdev/devices/%s/state", uuid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	got = read(fd, text, len - 1);
	close(fd);
	text[got > 0 ? got : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

bool state_comes(const char *uuid, const char *want)
{
	uint64_t end = now_ms() + VF_WAIT_MS;
	char text[128];

	for (;;) {
		state_of(uuid, text, sizeof(text));
		if (!strcmp(text, want))
			return true;
		if (now_ms() > end) {
			printf("#   state is \"%s\", not \"%s\"\n", text, want);
			return false;
		}
		nap();
	}
}

int set_slice(const char *uuid, const char *name, const char *value)
{
	char path[128];
	int ret = 0;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/mdev/devices/%s/%s", uuid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

uint64_t stat_of(const char *uuid, const char *name)
{
	uint64_t total = 0;

	return add_folder(uuid, "stats", name, &total) ? total : UINT64_MAX;
}

bool stat_comes(const char *uuid, const char *name, uint64_t want)
{
	uint64_t end = now_ms() + VF_WAIT_MS;

	while (stat_of(uuid, name) != want) {
		if (now_ms() > end)
			return false;
		nap();
	}
	return true;
}

void rejections_print(const char *uuid)
{
	char command[256];

	snprintf(command, sizeof(command),
		 "cd /sys/bus/mdev/devices/%s && grep -H -v '^0$' state rejected/* refused/* | sed 's/^/#   /'", uuid);
	fflush(NULL);
	if (system(command))
		printf("#   no counters\n");
}

uint64_t physical_address(const void *va)
{
	const uint64_t present = 1ull << 63, frame_mask = (1ull << 55) - 1;
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (pread(fd, &entry, sizeof(entry), (uintptr_t)va / VF_PAGE * sizeof(entry)) != sizeof(entry))
		entry = 0;
	close(fd);
	return entry & present ? (entry & frame_mask) * VF_PAGE : 0;
}

uint64_t kernel_code_address(void)
{
	FILE *file = fopen("/proc/iomem", "re");
	uint64_t address = 0;
	char line[256];

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (strstr(line, "Kernel code") && sscanf(line, "%" SCNx64, &address) == 1)
			break;
	fclose(file);
	return address;
}

long locked_kib(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	long total = 0, value;
	char line[256];

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "VmLck: %ld", &value) == 1 || sscanf(line, "VmPin: %ld", &value) == 1)
			total += value;
	fclose(file);
	return total;
}
