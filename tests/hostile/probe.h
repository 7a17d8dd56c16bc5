/* SPDX-License-Identifier: GPL-2.0 */
/* The test packets: every byte after the header follows from the sequence number. */
#ifndef HOSTILE_PROBE_H
#define HOSTILE_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#define PROBE_ETHERTYPE	0x88b5	/* IEEE 802: for local experiments */
#define PROBE_MIN_BYTES	60u
#define PROBE_MAX_BYTES	1514u

enum probe_kind {
	PROBE_REQUEST = 1,	/* to be sent back as PROBE_REPLY */
	PROBE_REPLY,
	PROBE_FLOOD,		/* to be received and forgotten */
	PROBE_WINDOW,		/* as PROBE_FLOOD, but the sender waits for PROBE_REPLY now and then */
	PROBE_CANARY,		/* lies in a neighbour's memory; must never be on the wire */
};

struct probe {
	uint8_t dst[6];
	uint8_t src[6];
	uint16_t ethertype;
	uint16_t kind;
	uint32_t len_bytes;
	uint64_t seq;
	uint8_t fill[PROBE_MAX_BYTES - 28];
} __attribute__((packed));

void probe_make(struct probe *p, const uint8_t *dst, const uint8_t *src, enum probe_kind kind,
		uint64_t seq, uint32_t len_bytes);
/* Turns a request into its reply. */
void probe_turn(struct probe *p, const uint8_t *self);
/* Whether this is a test packet at all; its content may still be wrong. */
bool probe_is(const void *frame, uint32_t len_bytes);
/* Whether every byte is as probe_make() left it. */
bool probe_intact(const struct probe *p, uint32_t len_bytes);

#endif
