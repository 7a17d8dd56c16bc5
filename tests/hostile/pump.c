// SPDX-License-Identifier: GPL-2.0
/*
 * A driver in user space that only works: numbered packets through a slice, as
 * many as wanted, with "traffic" (tests/traffic) at the other end of the wire.
 *
 *	pump send UUID MAC COUNT
 *	pump receive UUID COUNT
 *
 * Both print what "traffic" prints, and "ready" with the slice's MAC first.
 * Status 1 when a packet was corrupt, came twice, or the slice could not be used.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "probe.h"
#include "vf.h"

#define BURST		32u	/* packets for one doorbell */
#define WINDOW		192u	/* packets that the receiver has not answered */
#define ANSWER_EVERY	16u	/* as the other end does it */
#define LEN_BYTES	PROBE_MIN_BYTES
#define LOST_NS		2000000000ull
#define IDLE_NS		5000000000ull
#define START_NS	60000000000ull	/* the other end may have to be started */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static uint64_t per_second(uint64_t count, uint64_t ns)
{
	return ns ? (uint64_t)((double)count * 1e9 / ns) : 0;
}

/* The oldest frame that came, or NULL; valid until drop_frame(). */
static const struct probe *peek_frame(struct vf *vf, uint32_t *len_bytes)
{
	volatile uint64_t *desc = vf_desc(vf, &vf->rx, vf->rx.next);
	uint64_t word = desc[1];

	if (!(word & RXD_DD))
		return NULL;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	*len_bytes = RXD_LEN(word);
	return (const void *)vf_mem(vf, VF_RX_BUF + vf->rx.next * VF_PAGE);
}

/* Gives the buffer back to the ring; the caller rings the doorbell. */
static void drop_frame(struct vf *vf)
{
	vf->rx.next = (vf->rx.next + 1) % vf->rx.slots;
	vf_post(vf, &vf->rx, VF_RX_BUF + vf->rx.tail * VF_PAGE, 0);
}

/* Descriptors that may be posted: what is done is taken back first. */
static uint32_t room(struct vf *vf)
{
	while (vf->tx.next != vf->tx.tail) {
		volatile uint64_t *desc = vf_desc(vf, &vf->tx, vf->tx.next);

		if (!(desc[1] & TXD_DD))
			break;
		vf->tx.next = (vf->tx.next + 1) % vf->tx.slots;
	}
	return vf->tx.slots - 1 - (vf->tx.tail - vf->tx.next + vf->tx.slots) % vf->tx.slots;
}

/* Puts one packet into the ring, which must have room. */
static void post_probe(struct vf *vf, const uint8_t *dst, enum probe_kind kind, uint64_t seq)
{
	uint64_t iova = VF_TX_BUF + vf->tx.tail * VF_PAGE;

	probe_make((struct probe *)vf_mem(vf, iova), dst, vf->mac, kind, seq, LEN_BYTES);
	vf_post(vf, &vf->tx, iova, TXD_SIMPLE | TXD_PAYLEN(LEN_BYTES) | LEN_BYTES);
}

/* How many packets the other end has, as far as it said. */
static uint64_t take_answers(struct vf *vf, uint64_t sent, uint64_t answered)
{
	const struct probe *p;
	uint32_t len_bytes, taken = 0;

	while ((p = peek_frame(vf, &len_bytes))) {
		if (probe_is(p, len_bytes) && p->kind == PROBE_REPLY && p->seq > answered && p->seq <= sent)
			answered = p->seq;
		drop_frame(vf);
		taken++;
	}
	if (taken)
		vf_doorbell(vf, &vf->rx);
	return answered;
}

static int pump_out(struct vf *vf, const uint8_t *dst, uint64_t count)
{
	uint64_t sent = 0, answered = 0, unanswered = 0, start = now_ns(), moved = start;

	while (answered < count) {
		uint64_t before = sent + answered;
		uint32_t n = 0;

		answered = take_answers(vf, sent, answered);
		for (uint32_t free = room(vf); n < BURST && free && sent < count && sent - answered < WINDOW; n++, free--)
			post_probe(vf, dst, PROBE_WINDOW, sent++);
		if (n)
			vf_doorbell(vf, &vf->tx);
		if (sent + answered != before) {
			moved = now_ns();
		} else if (now_ns() - moved > LOST_NS) {
			/* Nothing more comes for these; the other end says what is missing. */
			unanswered += sent - answered;
			answered = sent;
		}
	}
	printf("sent=%llu unanswered=%llu us=%llu pps=%llu\n", (unsigned long long)sent,
	       (unsigned long long)unanswered, (unsigned long long)(moved - start) / 1000,
	       (unsigned long long)per_second(sent, moved - start));
	return 0;
}

static int pump_in(struct vf *vf, uint64_t count)
{
	uint8_t *seen = calloc(1, count / 8 + 1);
	uint64_t received = 0, duplicated = 0, reordered = 0, corrupt = 0, highest = 0, answered = 0;
	uint64_t first = 0, last = now_ns() + START_NS;

	if (!seen)
		return -ENOMEM;
	while (received < count) {
		uint8_t from[6];
		const struct probe *p;
		uint32_t len_bytes, taken = 0;

		while (taken < BURST && (p = peek_frame(vf, &len_bytes))) {
			if (probe_is(p, len_bytes) && (p->kind == PROBE_WINDOW || p->kind == PROBE_FLOOD)) {
				uint8_t bit = 1 << (p->seq & 7);

				memcpy(from, p->src, sizeof(from));
				if (p->seq >= count || !probe_intact(p, len_bytes)) {
					corrupt++;
				} else if (seen[p->seq >> 3] & bit) {
					duplicated++;
				} else {
					seen[p->seq >> 3] |= bit;
					reordered += p->seq < highest;
					highest = p->seq > highest ? p->seq : highest;
					received++;
				}
			}
			drop_frame(vf);
			taken++;
		}
		if (taken) {
			vf_doorbell(vf, &vf->rx);
			last = now_ns();
			first = first ? first : last;
		} else if ((int64_t)(now_ns() - last) > (int64_t)IDLE_NS) {
			break;
		}
		if (received - answered >= ANSWER_EVERY && taken && room(vf)) {
			post_probe(vf, from, PROBE_REPLY, received);
			vf_doorbell(vf, &vf->tx);
			answered = received;
		}
	}
	free(seen);
	printf("received=%llu lost=%llu duplicated=%llu reordered=%llu corrupt=%llu us=%llu pps=%llu\n",
	       (unsigned long long)received, (unsigned long long)(count - received),
	       (unsigned long long)duplicated, (unsigned long long)reordered, (unsigned long long)corrupt,
	       (unsigned long long)(first ? last - first : 0) / 1000,
	       (unsigned long long)(first ? per_second(received, last - first) : 0));
	return corrupt || duplicated ? -EIO : 0;
}

int main(int argc, char **argv)
{
	bool out = argc == 5 && !strcmp(argv[1], "send");
	uint8_t dst[6];
	struct vf vf;
	int ret;

	if (!out && !(argc == 4 && !strcmp(argv[1], "receive"))) {
		fprintf(stderr, "usage: pump send UUID MAC COUNT | pump receive UUID COUNT\n");
		return 2;
	}
	if (out && sscanf(argv[3], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &dst[0], &dst[1], &dst[2], &dst[3],
			  &dst[4], &dst[5]) != 6) {
		fprintf(stderr, "pump: %s is no MAC address\n", argv[3]);
		return 2;
	}
	ret = vf_open(&vf, argv[2]);
	if (!ret) {
		ret = vf_start(&vf);
		if (!ret)
			ret = vf_wait_link(&vf);
		if (!ret) {
			printf("ready %02x:%02x:%02x:%02x:%02x:%02x\n", vf.mac[0], vf.mac[1], vf.mac[2],
			       vf.mac[3], vf.mac[4], vf.mac[5]);
			fflush(stdout);
			ret = out ? pump_out(&vf, dst, strtoull(argv[4], NULL, 0)) :
				    pump_in(&vf, strtoull(argv[3], NULL, 0));
		}
		vf_close(&vf);
	}
	if (ret)
		fprintf(stderr, "pump: slice %s: %s\n", argv[2], strerror(-ret));
	return ret ? 1 : 0;
}
