// SPDX-License-Identifier: GPL-2.0
/* A process that is given pages which were somebody else's, see memory_canary.h. */

#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory_canary.h"
#include "probe.h"
#include "sysfs.h"
#include "vf.h"

#define FILL_BYTE	0xcb
#define PACKET_BYTES	1000

static void fill(uint8_t *page)
{
	static const uint8_t nobody[6] = { 2 };

	memset(page, FILL_BYTE, VF_PAGE);
	probe_make((struct probe *)page, nobody, nobody, PROBE_CANARY, 0, PACKET_BYTES);
}

static void watch(struct canary *canary, uint8_t *memory)
{
	uint8_t want[VF_PAGE];

	fill(want);
	for (unsigned int i = 0; i < canary->pages; i++) {
		memcpy(memory + i * VF_PAGE, want, VF_PAGE);
		canary->frames[i] = physical_address(memory + i * VF_PAGE);
	}
	canary->done = 1;
	for (;;) {
		unsigned int changed = 0;

		while (canary->asked == canary->done)
			nap();
		for (unsigned int i = 0; i < canary->pages; i++)
			changed += !!memcmp(want, memory + i * VF_PAGE, VF_PAGE);
		canary->changed = changed;
		__atomic_thread_fence(__ATOMIC_RELEASE);
		canary->done++;
	}
}

static size_t canary_bytes(unsigned int pages)
{
	return sizeof(struct canary) + pages * sizeof(uint64_t);
}

static bool answers(struct canary *canary)
{
	uint64_t end = now_ms() + VF_WAIT_MS;

	while (canary->done != canary->asked) {
		if (now_ms() > end || waitpid(canary->pid, NULL, WNOHANG))
			return false;
		nap();
	}
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return true;
}

void canary_bait(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

void canary_bait_end(void)
{
	cpu_set_t all;

	memset(&all, 0xff, sizeof(all));
	sched_setaffinity(0, sizeof(all), &all);
}

struct canary *canary_start(unsigned int pages)
{
	struct canary *canary = mmap(NULL, canary_bytes(pages), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	if (canary == MAP_FAILED)
		return NULL;
	canary->pages = pages;
	canary->asked = 1;
	pid = fork();
	if (!pid) {
		void *memory = mmap(NULL, pages * VF_PAGE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (memory == MAP_FAILED)
			_exit(1);
		/* Single pages are what was freed. */
		madvise(memory, pages * VF_PAGE, MADV_NOHUGEPAGE);
		watch(canary, memory);
	}
	/* Not in the child as well: the memory is shared. */
	canary->pid = pid;
	if (pid > 0 && answers(canary))
		return canary;
	canary_stop(canary);
	return NULL;
}

unsigned int canary_has(const struct canary *canary, const uint64_t *frames, unsigned int count)
{
	unsigned int found = 0;

	for (unsigned int i = 0; i < canary->pages; i++)
		for (unsigned int j = 0; j < count; j++)
			found += frames[j] && canary->frames[i] == frames[j];
	return found;
}

unsigned int canary_changed(struct canary *canary)
{
	canary->asked++;
	return answers(canary) ? canary->changed : UINT32_MAX;
}

void canary_stop(struct canary *canary)
{
	if (canary->pid > 0) {
		kill(canary->pid, SIGKILL);
		waitpid(canary->pid, NULL, 0);
	}
	munmap(canary, canary_bytes(canary->pages));
}
