// SPDX-License-Identifier: GPL-2.0
/* The test packets: every byte after the header follows from the sequence number. */

#include <arpa/inet.h>
#include <stddef.h>
#include <string.h>

#include "probe.h"

static uint8_t fill_byte(uint64_t seq, uint32_t i)
{
	return (uint8_t)(seq * 31 + i * 7 + (i >> 8) + 1);
}

void probe_make(struct probe *p, const uint8_t *dst, const uint8_t *src, enum probe_kind kind,
		uint64_t seq, uint32_t len_bytes)
{
	memcpy(p->dst, dst, sizeof(p->dst));
	memcpy(p->src, src, sizeof(p->src));
	p->ethertype = htons(PROBE_ETHERTYPE);
	p->kind = kind;
	p->len_bytes = len_bytes;
	p->seq = seq;
	for (uint32_t i = 0; i < len_bytes - offsetof(struct probe, fill); i++)
		p->fill[i] = fill_byte(seq, i);
}

void probe_turn(struct probe *p, const uint8_t *self)
{
	memcpy(p->dst, p->src, sizeof(p->dst));
	memcpy(p->src, self, sizeof(p->src));
	p->kind = PROBE_REPLY;
}

bool probe_is(const void *frame, uint32_t len_bytes)
{
	const struct probe *p = frame;

	return len_bytes >= offsetof(struct probe, fill) && p->ethertype == htons(PROBE_ETHERTYPE);
}

bool probe_intact(const struct probe *p, uint32_t len_bytes)
{
	uint32_t len = p->len_bytes;

	/* The frame may have been padded, or still have its FCS. */
	if (len < PROBE_MIN_BYTES || len > PROBE_MAX_BYTES || len > len_bytes)
		return false;
	for (uint32_t i = 0; i < len - offsetof(struct probe, fill); i++)
		if (p->fill[i] != fill_byte(p->seq, i))
			return false;
	return true;
}
