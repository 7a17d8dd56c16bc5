/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The neighbour: a process that owns the second slice and the far end of the
 * wire, exchanges checked packets between them without pause, and watches its
 * canaries. It answers requests on both, and floods an address when asked.
 */
#ifndef HOSTILE_NEIGHBOUR_H
#define HOSTILE_NEIGHBOUR_H

#include <stdbool.h>
#include <stdint.h>

#include "vf.h"

struct neighbour {
	/* Written by the neighbour. */
	bool ready;
	int error;			/* why it is not ready, or why it stopped */
	uint8_t mac[6];
	uint8_t peer_mac[6];
	uint64_t canary_phys;		/* physical address of a canary page that is pinned */
	uint64_t round_trips;
	uint64_t resent;		/* requests that had no answer in time */
	uint64_t corrupt;		/* test packets with a wrong byte */
	uint64_t leaked;		/* canary packets seen on the wire */
	uint64_t canary_bad;		/* times that a canary was found changed */
	uint64_t flooded;		/* packets sent to flood_mac */
	/* Written by the tests. */
	uint8_t flood_mac[6];
	bool flood;
	bool flood_jumbo;		/* with packets of 9014 bytes instead */
	bool stop;
};

/* NULL with the reason in *@error (negative errno) if it does not come up. */
volatile struct neighbour *neighbour_start(const char *uuid, const char *peer_if, const char *peer_netns,
					   int *error);
void neighbour_stop(volatile struct neighbour *nb);

/* Waits for @count more round trips. */
bool neighbour_advances(volatile struct neighbour *nb, unsigned int count);
/* Nothing was changed, leaked or corrupted so far. */
bool neighbour_unharmed(volatile struct neighbour *nb);

void neighbour_flood(volatile struct neighbour *nb, const uint8_t *mac);
void neighbour_flood_stop(volatile struct neighbour *nb);
/* Waits until the flood has sent @count more packets. */
bool neighbour_flooded(volatile struct neighbour *nb, unsigned int count);

/* Request and reply between @vf and @dst, repeated until one is answered. */
bool vf_exchange(struct vf *vf, const uint8_t *dst);

#endif
