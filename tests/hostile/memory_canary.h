/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A process that is given pages which were somebody else's before, and sees
 * whether anybody writes to them.
 *
 * Each page begins with a packet (PROBE_CANARY) that must never be on the wire.
 */
#ifndef HOSTILE_MEMORY_CANARY_H
#define HOSTILE_MEMORY_CANARY_H

#include <stdint.h>
#include <sys/types.h>

struct canary {
	unsigned int pages;
	volatile unsigned int asked;	/* checks asked for */
	volatile unsigned int done;	/* of these, done; 1 after the first filling */
	volatile unsigned int changed;	/* pages that were not as filled, at the last check */
	pid_t pid;
	uint64_t frames[];		/* physical addresses of its pages */
};

/*
 * Runs what follows, and what frees memory in it, on one CPU: what is freed
 * there is given out there next. And ends that.
 */
void canary_bait(void);
void canary_bait_end(void);

/* A process with @pages pages of memory, all filled; NULL if there is none. */
struct canary *canary_start(unsigned int pages);
/* How many of the @count pages at @frames are the canary's now. */
unsigned int canary_has(const struct canary *canary, const uint64_t *frames, unsigned int count);
/* How many of its pages have been changed; UINT32_MAX if it does not answer. */
unsigned int canary_changed(struct canary *canary);
void canary_stop(struct canary *canary);

#endif
