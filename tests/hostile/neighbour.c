// SPDX-License-Identifier: GPL-2.0
/* The neighbour: a second slice and the far end of the wire, see neighbour.h. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "neighbour.h"
#include "probe.h"
#include "sysfs.h"

#define CANARY_BYTE	0xca
#define CANARY_PAGES	16
#define FLOOD_BURST	4
#define JUMBO_BYTES	9014
#define REPLY_WAIT_MS	300

static volatile struct neighbour *nb;
static pid_t nb_pid;
static int peer_socket = -1;

/* --- the far end of the wire --------------------------------------------- */

static int open_peer(const char *ifname, const char *netns)
{
	struct sockaddr_ll addr = { .sll_family = AF_PACKET, .sll_protocol = htons(PROBE_ETHERTYPE) };
	struct ifreq ifr = { 0 };
	char path[128];
	int fd;

	if (netns && *netns) {
		snprintf(path, sizeof(path), "/run/netns/%s", netns);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || setns(fd, CLONE_NEWNET))
			return -errno;
		close(fd);
	}
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", ifname);
	if (ioctl(fd, SIOCGIFINDEX, &ifr))
		goto fail;
	addr.sll_ifindex = ifr.ifr_ifindex;
	if (ioctl(fd, SIOCGIFHWADDR, &ifr))
		goto fail;
	memcpy((void *)nb->peer_mac, ifr.ifr_hwaddr.sa_data, sizeof(nb->peer_mac));
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		goto fail;
	return fd;
fail:
	close(fd);
	return -errno;
}

static void peer_take(struct probe *p, ssize_t len)
{
	uint8_t self[6], neighbour[6];

	if (len <= 0 || !probe_is(p, len))
		return;
	memcpy(self, (void *)nb->peer_mac, sizeof(self));
	memcpy(neighbour, (void *)nb->mac, sizeof(neighbour));
	if (!memcmp(p->src, self, sizeof(self)))
		return;
	if (!probe_intact(p, len)) {
		/* What an attacker sends from pages that it has overwritten is its own affair. */
		if (!memcmp(p->src, neighbour, sizeof(neighbour)))
			nb->corrupt++;
	} else if (p->kind == PROBE_CANARY) {
		nb->leaked++;
	} else if (p->kind == PROBE_REQUEST && !memcmp(p->dst, self, sizeof(self))) {
		probe_turn(p, self);
		send(peer_socket, p, p->len_bytes, 0);
	}
}

/* As long as the wire takes; not a test packet, only bytes. */
static void peer_flood_jumbo(const uint8_t *dst, const uint8_t *src)
{
	static uint8_t frame[JUMBO_BYTES];

	memset(frame, 0xf7, sizeof(frame));
	memcpy(frame, dst, 6);
	memcpy(frame + 6, src, 6);
	if (send(peer_socket, frame, sizeof(frame), MSG_DONTWAIT) > 0)
		nb->flooded++;
}

static void peer_flood(uint64_t *seq)
{
	uint8_t dst[6], src[6];
	struct probe p;

	memcpy(dst, (void *)nb->flood_mac, sizeof(dst));
	memcpy(src, (void *)nb->peer_mac, sizeof(src));
	if (nb->flood_jumbo) {
		peer_flood_jumbo(dst, src);
		return;
	}
	for (int i = 0; i < FLOOD_BURST; i++) {
		++*seq;
		probe_make(&p, dst, src, PROBE_FLOOD, *seq, PROBE_MAX_BYTES - *seq % 1400);
		if (send(peer_socket, &p, p.len_bytes, MSG_DONTWAIT) > 0)
			nb->flooded++;
	}
}

static void *peer_main(void *unused)
{
	struct pollfd pfd = { .fd = peer_socket, .events = POLLIN };
	struct probe p;
	uint64_t seq = 0;

	(void)unused;
	while (!nb->stop) {
		if (poll(&pfd, 1, nb->flood ? 1 : 20) > 0)
			peer_take(&p, recv(peer_socket, &p, sizeof(p), MSG_DONTWAIT));
		else if (nb->flood)
			peer_flood(&seq);
	}
	return NULL;
}

/* --- the second slice ---------------------------------------------------- */

/*
 * The first canary page begins with a packet, so that sending it pins the page,
 * and so that its bytes can be told on the wire.
 */
static void plant_canaries(struct vf *vf)
{
	memset(vf_mem(vf, VF_CANARY), CANARY_BYTE, CANARY_PAGES * VF_PAGE);
	probe_make((struct probe *)vf_mem(vf, VF_CANARY), (uint8_t[6]){ 2 }, vf->mac, PROBE_CANARY, 0, 1000);
}

static int pin_canary(struct vf *vf)
{
	uint32_t index = vf_post(vf, &vf->tx, VF_CANARY, TXD_SIMPLE | TXD_PAYLEN(1000) | 1000);
	uint64_t end;

	vf_doorbell(vf, &vf->tx);
	if (vf_tx_wait(vf, index, VF_WAIT_MS))
		return -ETIMEDOUT;
	/* Seen this once, it must not be seen again. */
	end = now_ms() + 2000;
	while (!nb->leaked && now_ms() < end)
		nap();
	nb->leaked = 0;
	nb->canary_phys = physical_address(vf_mem(vf, VF_CANARY));
	return 0;
}

static void check_canaries(struct vf *vf)
{
	static uint8_t want[CANARY_PAGES * VF_PAGE];

	if (!want[sizeof(want) - 1]) {
		memset(want, CANARY_BYTE, sizeof(want));
		probe_make((struct probe *)want, (uint8_t[6]){ 2 }, vf->mac, PROBE_CANARY, 0, 1000);
	}
	if (memcmp(want, vf_mem(vf, VF_CANARY), sizeof(want)))
		nb->canary_bad++;
}

/* Takes what has come: answers requests; true if it was the reply to @seq. */
static bool take(struct vf *vf, uint64_t seq, unsigned int timeout_ms)
{
	union {
		struct probe p;
		uint8_t bytes[VF_RX_BUF_BYTES];
	} in;
	int len = vf_receive(vf, &in, timeout_ms);

	if (len <= 0 || !probe_is(&in, len))
		return false;
	if (!probe_intact(&in.p, len)) {
		nb->corrupt++;
		return false;
	}
	if (in.p.kind == PROBE_REQUEST) {
		probe_turn(&in.p, vf->mac);
		vf_send(vf, &in.p, in.p.len_bytes);
	}
	return in.p.kind == PROBE_REPLY && in.p.seq == seq;
}

static int exchange_forever(struct vf *vf)
{
	uint64_t seq = 0, deadline;
	uint8_t peer[6];
	struct probe p;
	bool answered;
	int ret;

	memcpy(peer, (void *)nb->peer_mac, sizeof(peer));
	while (!nb->stop) {
		seq++;
		probe_make(&p, peer, vf->mac, PROBE_REQUEST, seq,
			   PROBE_MIN_BYTES + seq * 37 % (PROBE_MAX_BYTES - PROBE_MIN_BYTES));
		ret = vf_send(vf, &p, p.len_bytes);
		if (ret)
			return ret;
		deadline = now_ms() + REPLY_WAIT_MS;
		do {
			answered = take(vf, seq, 20);
		} while (!answered && now_ms() < deadline && !nb->stop);
		if (answered)
			nb->round_trips++;
		else
			nb->resent++;
		if (seq % 16 == 0)
			check_canaries(vf);
	}
	return 0;
}

static int run(const char *uuid, const char *peer_if, const char *peer_netns)
{
	pthread_t thread;
	struct vf vf;
	int ret;

	ret = open_peer(peer_if, peer_netns);
	if (ret < 0)
		return ret;
	peer_socket = ret;
	ret = -pthread_create(&thread, NULL, peer_main, NULL);
	if (ret)
		return ret;

	ret = vf_open(&vf, uuid);
	if (ret)
		return ret;
	memcpy((void *)nb->mac, vf.mac, sizeof(vf.mac));
	plant_canaries(&vf);
	ret = vf_restart(&vf);
	if (!ret)
		ret = pin_canary(&vf);
	if (!ret) {
		nb->ready = true;
		ret = exchange_forever(&vf);
	}
	nb->stop = true;
	pthread_join(thread, NULL);
	vf_close(&vf);
	return ret;
}

/* --- for the tests ------------------------------------------------------- */

volatile struct neighbour *neighbour_start(const char *uuid, const char *peer_if, const char *peer_netns,
					   int *error)
{
	nb = mmap(NULL, sizeof(*nb), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (nb == MAP_FAILED) {
		*error = -errno;
		return NULL;
	}
	fflush(NULL);
	nb_pid = fork();
	if (nb_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		nb->error = run(uuid, peer_if, peer_netns);
		_exit(0);
	}
	while (!nb->ready && waitpid(nb_pid, NULL, WNOHANG) == 0)
		nap();
	if (nb->ready)
		return nb;
	*error = nb->error ? nb->error : -EIO;
	return NULL;
}

void neighbour_stop(volatile struct neighbour *state)
{
	state->stop = true;
	waitpid(nb_pid, NULL, 0);
}

bool neighbour_advances(volatile struct neighbour *state, unsigned int count)
{
	uint64_t goal = state->round_trips + count;
	uint64_t end = now_ms() + VF_WAIT_MS;

	while (state->round_trips < goal) {
		if (now_ms() > end || state->error)
			return false;
		nap();
	}
	return true;
}

bool neighbour_unharmed(volatile struct neighbour *state)
{
	return !state->corrupt && !state->leaked && !state->canary_bad && !state->error;
}

void neighbour_flood(volatile struct neighbour *state, const uint8_t *mac)
{
	memcpy((void *)state->flood_mac, mac, sizeof(state->flood_mac));
	state->flood = true;
}

void neighbour_flood_stop(volatile struct neighbour *state)
{
	state->flood = false;
	state->flood_jumbo = false;
}

bool neighbour_flooded(volatile struct neighbour *state, unsigned int count)
{
	uint64_t goal = state->flooded + count;
	uint64_t end = now_ms() + VF_WAIT_MS;

	while (state->flooded < goal) {
		if (now_ms() > end || state->error)
			return false;
		nap();
	}
	return true;
}

bool vf_exchange(struct vf *vf, const uint8_t *dst)
{
	union {
		struct probe p;
		uint8_t bytes[VF_RX_BUF_BYTES];
	} in;
	uint64_t end = now_ms() + VF_WAIT_MS;
	struct probe out;
	uint64_t again;
	int len;

	do {
		uint64_t seq = now_ms() << 16 | (getpid() & 0xffff);

		probe_make(&out, dst, vf->mac, PROBE_REQUEST, seq, 600);
		if (vf_send(vf, &out, out.len_bytes))
			return false;
		again = now_ms() + REPLY_WAIT_MS;
		do {
			len = vf_receive(vf, &in, REPLY_WAIT_MS);
			if (len < 0)
				return false;
			if (len && probe_is(&in, len) && probe_intact(&in.p, len) &&
			    in.p.kind == PROBE_REPLY && in.p.seq == seq)
				return true;
		} while (len && now_ms() < again);
	} while (now_ms() < end);
	return false;
}
