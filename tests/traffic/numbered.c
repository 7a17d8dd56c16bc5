// SPDX-License-Identifier: GPL-2.0
/* Numbered raw Ethernet packets: each is accounted for, and each byte is checked. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"
#include "traffic.h"

#define BURST_MAX	64u
#define ANSWER_EVERY	16u	/* packets; a sender's window is larger */
#define SOCKET_BYTES	(32 << 20)
#define SEND_TIMEOUT_S	120	/* for one burst, also where all takes longer; then the queue is stuck */
#define STREAM_SHIFT	40	/* above a packet's number: its stream's */

static int open_interface(const char *ifname, uint8_t *mac)
{
	struct sockaddr_ll addr = { .sll_family = AF_PACKET, .sll_protocol = htons(PROBE_ETHERTYPE) };
	struct timeval timeout = { .tv_sec = SEND_TIMEOUT_S };
	struct ifreq ifr = { 0 };
	int size = SOCKET_BYTES;
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (fd < 0)
		return -1;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", ifname);
	if (ioctl(fd, SIOCGIFINDEX, &ifr))
		return -1;
	addr.sll_ifindex = ifr.ifr_ifindex;
	if (ioctl(fd, SIOCGIFHWADDR, &ifr))
		return -1;
	memcpy(mac, ifr.ifr_hwaddr.sa_data, 6);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	return bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ? -1 : fd;
}

/* Sleeps until packet @n is due. */
static void pace(uint64_t start_ns, uint64_t n, uint32_t rate_pps)
{
	uint64_t due_ns = start_ns + n * 1000000000ull / rate_pps;
	uint64_t now = now_ns();

	if (due_ns > now)
		usleep((due_ns - now) / 1000);
}

/*
 * Waits until fewer than a window of the @sent packets lie between here and the
 * receiver's program. An answer that does not come within two seconds ends the
 * wait: the packets, or it, are lost, which the receiver's account will tell.
 */
static uint64_t wait_for_window(int fd, uint64_t sent, uint64_t answered, const struct options *o)
{
	uint64_t deadline = now_ns() + 2000000000ull;
	uint64_t stream = (uint64_t)o->stream << STREAM_SHIFT;

	while (sent - answered >= o->window) {
		uint64_t now = now_ns(), so_far;
		struct pollfd pfd = { .fd = fd, .events = POLLIN };
		struct probe p;
		ssize_t len;

		if (now >= deadline || poll(&pfd, 1, (deadline - now) / 1000000 + 1) <= 0)
			return sent;
		len = recv(fd, &p, sizeof(p), MSG_DONTWAIT);
		if (len <= 0 || !probe_is(&p, len) || p.kind != PROBE_REPLY)
			continue;
		so_far = p.seq - stream;
		if (so_far > answered && so_far <= sent)
			answered = so_far;
	}
	return answered;
}

/* Tells the sender how many packets of its stream have come. */
static void answer(int fd, const struct probe *last, const uint8_t *self, uint64_t received)
{
	struct probe p;

	received += last->seq >> STREAM_SHIFT << STREAM_SHIFT;
	probe_make(&p, last->src, self, PROBE_REPLY, received, PROBE_MIN_BYTES);
	/* A lost answer is made good by the next. */
	(void)!send(fd, &p, PROBE_MIN_BYTES, MSG_DONTWAIT);
}

int numbered_send(const struct options *o)
{
	static struct probe packets[BURST_MAX];
	struct mmsghdr msgs[BURST_MAX] = { 0 };
	struct iovec iovs[BURST_MAX];
	uint32_t burst = o->burst < BURST_MAX ? o->burst : BURST_MAX;
	enum probe_kind kind = o->window ? PROBE_WINDOW : PROBE_FLOOD;
	uint64_t stream = (uint64_t)o->stream << STREAM_SHIFT;
	uint64_t sent = 0, answered = 0, retries = 0, start;
	uint8_t self[6], dst[6];
	int fd;

	if (sscanf(o->address, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx",
		   &dst[0], &dst[1], &dst[2], &dst[3], &dst[4], &dst[5]) != 6) {
		fprintf(stderr, "traffic: %s is no MAC address\n", o->address);
		return 2;
	}
	fd = open_interface(o->ifname, self);
	if (fd < 0) {
		perror(o->ifname);
		return 1;
	}
	for (uint32_t i = 0; i < burst; i++) {
		iovs[i] = (struct iovec){ &packets[i], o->size_bytes };
		msgs[i].msg_hdr.msg_iov = &iovs[i];
		msgs[i].msg_hdr.msg_iovlen = 1;
	}

	start = now_ns();
	while (sent < o->count) {
		uint32_t n = o->count - sent < burst ? o->count - sent : burst;
		uint32_t done = 0;

		for (uint32_t i = 0; i < n; i++)
			probe_make(&packets[i], dst, self, kind, stream + sent + i, o->size_bytes);
		if (o->rate_pps)
			pace(start, sent, o->rate_pps);
		if (o->window)
			answered = wait_for_window(fd, sent, answered, o);
		uint64_t stuck_ns = now_ns() + SEND_TIMEOUT_S * 1000000000ull;

		while (done < n) {
			int ret = sendmmsg(fd, msgs + done, n - done, 0);

			if (ret > 0) {
				done += ret;
			} else if (errno == ENOBUFS || errno == EAGAIN || errno == EINTR) {
				/* The device's queue is full; what was not sent is sent again. */
				retries++;
				if (now_ns() >= stuck_ns) {
					fprintf(stderr, "traffic: nothing can be sent any more after %llu packets\n",
						(unsigned long long)(sent + done));
					return 1;
				}
				usleep(100);
			} else {
				perror("send");
				return 1;
			}
		}
		sent += n;
	}
	uint64_t us = (now_ns() - start) / 1000;

	printf("sent=%llu retries=%llu us=%llu pps=%llu\n", (unsigned long long)sent,
	       (unsigned long long)retries, (unsigned long long)us,
	       (unsigned long long)(us ? sent * 1000000 / us : 0));
	return 0;
}

struct account {
	uint8_t *seen;		/* one bit per sequence number */
	uint64_t received, duplicated, reordered, corrupt, strays, highest;
};

/* Whether it is one of the packets that were asked for. */
static bool account(struct account *a, const struct probe *p, ssize_t len, const struct options *o)
{
	uint64_t seq = p->seq - ((uint64_t)o->stream << STREAM_SHIFT);
	uint8_t bit = 1 << (seq & 7);

	if (!probe_intact(p, len)) {
		a->corrupt++;
		return false;
	}
	if (p->seq >> STREAM_SHIFT != o->stream) {
		a->strays++;
		return false;
	}
	if (seq >= o->count) {
		a->corrupt++;
		return false;
	}
	if (a->seen[seq >> 3] & bit) {
		a->duplicated++;
		return true;
	}
	a->seen[seq >> 3] |= bit;
	if (a->received && seq < a->highest)
		a->reordered++;
	else
		a->highest = seq;
	a->received++;
	return true;
}

int numbered_receive(const struct options *o)
{
	static struct probe packets[BURST_MAX];
	struct mmsghdr msgs[BURST_MAX] = { 0 };
	struct iovec iovs[BURST_MAX];
	struct account a = { .seen = calloc(1, o->count / 8 + 1) };
	struct tpacket_stats stats = { 0 };
	socklen_t stats_len = sizeof(stats);
	uint64_t first = 0, last = 0, drops = 0, answered = 0;
	uint8_t self[6];
	int fd = open_interface(o->ifname, self), end;
	sigset_t signals;

	/* Who is told to end still shows its account. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	end = signalfd(-1, &signals, SFD_CLOEXEC);
	if (fd < 0 || end < 0 || !a.seen) {
		perror(o->ifname);
		return 1;
	}
	for (uint32_t i = 0; i < BURST_MAX; i++) {
		iovs[i] = (struct iovec){ &packets[i], sizeof(packets[i]) };
		msgs[i].msg_hdr.msg_iov = &iovs[i];
		msgs[i].msg_hdr.msg_iovlen = 1;
	}
	puts("listening");
	fflush(stdout);

	/* The first packet may take longer: the sender has to start. */
	while (a.received < o->count) {
		struct pollfd pfds[] = { { .fd = fd, .events = POLLIN }, { .fd = end, .events = POLLIN } };
		int n;

		if (poll(pfds, 2, a.received ? o->idle_ms : o->idle_ms + 20000) <= 0 || pfds[1].revents)
			break;
		const struct probe *asking = NULL;

		n = recvmmsg(fd, msgs, BURST_MAX, MSG_DONTWAIT, NULL);
		last = now_ns();
		for (int i = 0; i < n; i++) {
			const struct probe *p = &packets[i];

			if (!probe_is(p, msgs[i].msg_len) || (p->kind != PROBE_FLOOD && p->kind != PROBE_WINDOW) ||
			    !memcmp(p->src, self, sizeof(self)))
				continue;
			if (!a.received)
				first = last;
			if (account(&a, p, msgs[i].msg_len, o) && p->kind == PROBE_WINDOW)
				asking = p;
		}
		if (asking && a.received - answered >= ANSWER_EVERY) {
			answer(fd, asking, self, a.received);
			answered = a.received;
		}
	}
	if (!getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &stats_len))
		drops = stats.tp_drops;
	printf("received=%llu lost=%llu socket_drops=%llu duplicated=%llu reordered=%llu corrupt=%llu strays=%llu us=%llu pps=%llu\n",
	       (unsigned long long)a.received, (unsigned long long)(o->count - a.received),
	       (unsigned long long)drops, (unsigned long long)a.duplicated,
	       (unsigned long long)a.reordered, (unsigned long long)a.corrupt,
	       (unsigned long long)a.strays, (unsigned long long)(last - first) / 1000,
	       (unsigned long long)(last > first ? a.received * 1000000000ull / (last - first) : 0));
	return a.corrupt || a.duplicated ? 1 : 0;
}
