/* SPDX-License-Identifier: GPL-2.0 */
#ifndef TRAFFIC_H
#define TRAFFIC_H

#include <stdint.h>

#define STREAMS	(1u << 24)

struct options {
	const char *ifname;
	const char *address;	/* MAC or IP of the other side */
	uint64_t count;
	uint32_t size_bytes;
	uint32_t burst;		/* packets per system call */
	uint32_t rate_pps;	/* 0: as fast as possible */
	uint32_t window;	/* packets that the receiver has not answered; 0: send blindly */
	uint32_t idle_ms;	/* a receiver ends when nothing came for so long */
	uint16_t port;
	uint32_t stream;	/* numbered packets of other streams are none of this one's business */
};

/* Numbered raw Ethernet packets. Each returns the exit status. */
int numbered_send(const struct options *o);
int numbered_receive(const struct options *o);
/* UDP request and response. */
int udp_echo(const struct options *o);
int udp_rr(const struct options *o);

uint64_t now_ns(void);

#endif
