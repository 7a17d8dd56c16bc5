// SPDX-License-Identifier: GPL-2.0
/* UDP request and response: the time that one packet takes there and back. */

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe.h"
#include "traffic.h"

#define ANSWER_WAIT_MS	2000

int udp_echo(const struct options *o)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(o->port) };
	uint8_t data[PROBE_MAX_BYTES];
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		perror("udp-echo");
		return 1;
	}
	for (;;) {
		struct sockaddr_in from;
		socklen_t from_len = sizeof(from);
		ssize_t len = recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &from_len);

		if (len > 0)
			sendto(fd, data, len, 0, (struct sockaddr *)&from, from_len);
	}
}

static int by_value(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

int udp_rr(const struct options *o)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(o->port) };
	uint32_t *times_us = calloc(o->count, sizeof(*times_us));
	uint64_t answered = 0, lost = 0;
	uint8_t data[PROBE_MAX_BYTES];
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0 || !times_us || inet_pton(AF_INET, o->address, &addr.sin_addr) != 1 ||
	    connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		perror("udp-rr");
		return 1;
	}
	memset(data, 0, sizeof(data));
	for (uint64_t seq = 1; seq <= o->count; seq++) {
		struct pollfd pfd = { .fd = fd, .events = POLLIN };
		uint64_t start = now_ns(), echoed = 0;

		memcpy(data, &seq, sizeof(seq));
		if (send(fd, data, o->size_bytes, 0) < 0 && errno != ECONNREFUSED) {
			perror("udp-rr");
			return 1;
		}
		/* A late answer to an earlier request is not this one's. */
		while (echoed != seq && poll(&pfd, 1, ANSWER_WAIT_MS) > 0)
			if (recv(fd, &echoed, sizeof(echoed), 0) < 0)
				echoed = 0;
		if (echoed == seq)
			times_us[answered++] = (now_ns() - start) / 1000;
		else
			lost++;
	}
	if (!answered) {
		fprintf(stderr, "udp-rr: no answer\n");
		return 1;
	}
	qsort(times_us, answered, sizeof(*times_us), by_value);
	printf("answered=%llu lost=%llu median=%u p90=%u p99=%u max=%u\n", (unsigned long long)answered,
	       (unsigned long long)lost, times_us[answered / 2], times_us[answered * 9 / 10],
	       times_us[answered * 99 / 100], times_us[answered - 1]);
	return 0;
}
