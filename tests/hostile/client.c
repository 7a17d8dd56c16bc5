// SPDX-License-Identifier: GPL-2.0
/*
 * An ordinary user of a slice, for tests that do something to the hardware:
 *
 *	client UUID FILE PEER_IF PEER_NETNS [stubborn]
 *
 * Exchanges packets with the far end of the wire and says in FILE how that
 * goes, in one line: "rounds N link 0|1 asked 0|1". Lets go of the slice and
 * ends when it is asked for it; a stubborn one cannot be asked, and stays
 * whatever happens, until it is killed.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe.h"
#include "vf.h"

#define REPLY_MS	300u

static void fail(const char *what, int error)
{
	fprintf(stderr, "client: %s: %s\n", what, strerror(error));
	exit(1);
}

/* Sends requests back, for as long as the parent lives. */
static void echo(int fd, const uint8_t *self)
{
	struct probe p;
	ssize_t len;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		len = recv(fd, &p, sizeof(p), 0);
		if (len <= 0 || !probe_is(&p, len) || p.kind != PROBE_REQUEST ||
		    memcmp(p.dst, self, sizeof(p.dst)))
			continue;
		probe_turn(&p, self);
		send(fd, &p, p.len_bytes, 0);
	}
}

/* Starts the far end of the wire; learns its address. */
static void start_peer(const char *ifname, const char *netns, uint8_t *mac)
{
	struct sockaddr_ll addr = { .sll_family = AF_PACKET, .sll_protocol = htons(PROBE_ETHERTYPE) };
	struct ifreq ifr = { 0 };
	char path[128];
	int ns, fd;

	snprintf(path, sizeof(path), "/run/netns/%s", netns);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWNET))
		fail(path, errno);
	close(ns);
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", ifname);
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCGIFINDEX, &ifr))
		fail(ifname, errno);
	addr.sll_ifindex = ifr.ifr_ifindex;
	if (ioctl(fd, SIOCGIFHWADDR, &ifr) || bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		fail(ifname, errno);
	memcpy(mac, ifr.ifr_hwaddr.sa_data, 6);
	if (fork() == 0)
		echo(fd, mac);
	close(fd);
}

/* Has @fd signalled when the administrator wants the slice back. */
static int let_ask(struct vf *vf, int fd)
{
	char buffer[sizeof(struct vfio_irq_set) + sizeof(fd)] = { 0 };
	struct vfio_irq_set *set = (struct vfio_irq_set *)buffer;

	set->argsz = sizeof(buffer);
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = VFIO_PCI_REQ_IRQ_INDEX;
	set->count = 1;
	memcpy(set->data, &fd, sizeof(fd));
	return ioctl(vf->dev.device, VFIO_DEVICE_SET_IRQS, set) ? -errno : 0;
}

/* One request and its reply; false if there was none in time. */
static bool round_trip(struct vf *vf, const uint8_t *peer, uint64_t seq)
{
	static int64_t pending = -1;
	union {
		struct probe p;
		uint8_t bytes[VF_RX_BUF_BYTES];
	} frame;
	uint64_t end, iova;
	int len;

	/* A link that is down may hold packets back. */
	if (pending >= 0 && vf_tx_wait(vf, pending, REPLY_MS))
		return false;
	iova = VF_TX_BUF + vf->tx.tail * VF_PAGE;
	probe_make(&frame.p, peer, vf->mac, PROBE_REQUEST, seq, 600);
	memcpy(vf_mem(vf, iova), &frame.p, 600);
	pending = vf_post(vf, &vf->tx, iova, TXD_SIMPLE | TXD_PAYLEN(600ull) | 600);
	vf_doorbell(vf, &vf->tx);
	end = now_ms() + REPLY_MS;
	do {
		len = vf_receive(vf, &frame, 20);
		if (len > 0 && probe_is(&frame, len) && probe_intact(&frame.p, len) &&
		    frame.p.kind == PROBE_REPLY && frame.p.seq == seq)
			return true;
	} while (now_ms() < end);
	return false;
}

int main(int argc, char **argv)
{
	uint64_t rounds = 0, seq = 0, asked = 0;
	bool stubborn = argc == 6 && !strcmp(argv[5], "stubborn");
	int ask = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	uint8_t peer[6];
	struct vf vf;
	char line[64];
	int ret, fd;

	if (argc != 5 && !stubborn)
		fail("usage", EINVAL);
	fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || ask < 0)
		fail(argv[2], errno);
	ret = vf_open(&vf, argv[1]);
	if (ret)
		fail(argv[1], -ret);
	start_peer(argv[3], argv[4], peer);
	ret = stubborn ? 0 : let_ask(&vf, ask);
	if (!ret)
		ret = vf_restart(&vf);
	if (ret)
		fail("slice", -ret);

	while (!asked) {
		rounds += round_trip(&vf, peer, ++seq);
		if (read(ask, &asked, sizeof(asked)) != sizeof(asked))
			asked = 0;
		/* Of one length: the reader never sees half of another one. */
		snprintf(line, sizeof(line), "rounds %012llu link %d asked %d\n", (unsigned long long)rounds,
			 !!(vf_read(&vf, VF_STATUS) & VF_STATUS_LU), asked != 0);
		if (pwrite(fd, line, strlen(line), 0) < 0)
			fail(argv[2], errno);
	}
	vf_close(&vf);
	return 0;
}
