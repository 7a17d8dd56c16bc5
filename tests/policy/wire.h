/* SPDX-License-Identifier: GPL-2.0 */
/* The far end of the wire, and frames that can be told apart wherever they turn up. */
#ifndef POLICY_WIRE_H
#define POLICY_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#define FRAME_BYTES	64u
#define NO_TAG		(-1)

/* What comes between the addresses and the payload: at most three words. */
struct mark {
	uint32_t magic;
	uint32_t id;
} __attribute__((packed));

/* An Ethernet frame of FRAME_BYTES with @words (@count of them) after the addresses, and the mark @id. */
void frame_make(uint8_t *frame, const uint8_t *dst, const uint8_t *src, const uint16_t *words,
		unsigned int count, uint32_t id);
/* The id in a frame's mark, 0 if it has none. */
uint32_t frame_id(const uint8_t *frame, unsigned int len_bytes);

/* A socket on interface @ifname of namespace @netns that sees everything; negative errno on failure. */
int wire_open(const char *ifname, const char *netns, uint8_t *mac);
/*
 * Waits for a frame with a mark and a source other than @self. Returns its id, 0 after @timeout_ms;
 * *@tag is its VLAN, or NO_TAG.
 */
uint32_t wire_receive(int fd, const uint8_t *self, int *tag, unsigned int timeout_ms);
/* Forgets what has arrived. */
void wire_drain(int fd);

#endif
