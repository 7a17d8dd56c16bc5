// SPDX-License-Identifier: GPL-2.0
/*
 * Checked packets: sequence numbers, patterns, loss accounting, latency.
 *
 *	traffic send IF MAC [-n count] [-s bytes] [-b burst] [-r packets/s] [-w window] [-S stream]
 *	traffic receive IF [-n count] [-i idle ms] [-S stream]
 *	traffic udp-echo [-p port]
 *	traffic udp-rr IP [-p port] [-n count] [-s bytes]
 *
 * Results are lines of "name=value", times in microseconds.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"
#include "traffic.h"

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int usage(void)
{
	fprintf(stderr, "usage: traffic send IF MAC | receive IF | udp-echo | udp-rr IP\n"
		"  -n count  -s bytes  -b burst  -r packets/s  -w packets  -i idle_ms  -p port  -S stream\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct options o = {
		.count = 1000, .size_bytes = PROBE_MIN_BYTES, .burst = 32, .idle_ms = 3000, .port = 7777,
	};
	const char *command = argc > 1 ? argv[1] : "";
	int option;

	/* The command and its operands come first. */
	argc--;
	argv++;
	while ((option = getopt(argc, argv, "n:s:b:r:w:i:p:S:")) != -1) {
		switch (option) {
		case 'n':
			o.count = strtoull(optarg, NULL, 0);
			break;
		case 's':
			o.size_bytes = strtoul(optarg, NULL, 0);
			break;
		case 'b':
			o.burst = strtoul(optarg, NULL, 0);
			break;
		case 'r':
			o.rate_pps = strtoul(optarg, NULL, 0);
			break;
		case 'w':
			o.window = strtoul(optarg, NULL, 0);
			break;
		case 'i':
			o.idle_ms = strtoul(optarg, NULL, 0);
			break;
		case 'p':
			o.port = strtoul(optarg, NULL, 0);
			break;
		case 'S':
			o.stream = strtoul(optarg, NULL, 0);
			break;
		default:
			return usage();
		}
	}
	argc -= optind;
	argv += optind;
	if (o.window && o.window < 2 * o.burst)
		return usage();
	if (o.stream >= STREAMS)
		return usage();
	if (o.size_bytes < PROBE_MIN_BYTES || o.size_bytes > PROBE_MAX_BYTES || !o.burst || !o.count)
		return usage();

	if (!strcmp(command, "send") && argc == 2) {
		o.ifname = argv[0];
		o.address = argv[1];
		return numbered_send(&o);
	}
	if (!strcmp(command, "receive") && argc == 1) {
		o.ifname = argv[0];
		return numbered_receive(&o);
	}
	if (!strcmp(command, "udp-echo") && !argc)
		return udp_echo(&o);
	if (!strcmp(command, "udp-rr") && argc == 1) {
		o.address = argv[0];
		return udp_rr(&o);
	}
	return usage();
}
