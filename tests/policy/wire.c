// SPDX-License-Identifier: GPL-2.0
/* The far end of the wire, see wire.h. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vf.h"
#include "wire.h"

#define MAGIC	0x534c5543u

void frame_make(uint8_t *frame, const uint8_t *dst, const uint8_t *src, const uint16_t *words,
		unsigned int count, uint32_t id)
{
	const struct mark mark = { MAGIC, id };

	memset(frame, 0, FRAME_BYTES);
	memcpy(frame, dst, 6);
	memcpy(frame + 6, src, 6);
	for (unsigned int i = 0; i < count; i++) {
		uint16_t word = htons(words[i]);

		memcpy(frame + 12 + 2 * i, &word, sizeof(word));
	}
	memcpy(frame + 24, &mark, sizeof(mark));
}

uint32_t frame_id(const uint8_t *frame, unsigned int len_bytes)
{
	const uint32_t magic = MAGIC;
	const uint8_t *at = memmem(frame, len_bytes, &magic, sizeof(magic));
	struct mark mark;

	if (!at || at + sizeof(mark) > frame + len_bytes)
		return 0;
	memcpy(&mark, at, sizeof(mark));
	return mark.id;
}

int wire_open(const char *ifname, const char *netns, uint8_t *mac)
{
	struct sockaddr_ll addr = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	struct packet_mreq all = { .mr_type = PACKET_MR_PROMISC };
	struct ifreq ifr = { 0 };
	char path[128];
	int fd, on = 1;

	snprintf(path, sizeof(path), "/run/netns/%s", netns);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		return -errno;
	close(fd);
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", ifname);
	if (ioctl(fd, SIOCGIFINDEX, &ifr))
		goto fail;
	addr.sll_ifindex = ifr.ifr_ifindex;
	all.mr_ifindex = ifr.ifr_ifindex;
	if (ioctl(fd, SIOCGIFHWADDR, &ifr))
		goto fail;
	memcpy(mac, ifr.ifr_hwaddr.sa_data, 6);
	if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		goto fail;
	return fd;
fail:
	close(fd);
	return -errno;
}

/* The tag that the kernel has taken out of the frame. */
static int tag_of(struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		struct tpacket_auxdata aux;

		if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA)
			continue;
		memcpy(&aux, CMSG_DATA(c), sizeof(aux));
		if (aux.tp_status & TP_STATUS_VLAN_VALID)
			return aux.tp_vlan_tci & 0xfff;
	}
	return NO_TAG;
}

uint32_t wire_receive(int fd, const uint8_t *self, int *tag, unsigned int timeout_ms)
{
	uint64_t end = now_ms() + timeout_ms, now;

	while ((now = now_ms()) < end) {
		struct pollfd pfd = { .fd = fd, .events = POLLIN };
		union {
			struct cmsghdr header;
			char bytes[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
		} control;
		uint8_t frame[2048];
		struct iovec iov = { frame, sizeof(frame) };
		struct msghdr msg = {
			.msg_iov = &iov, .msg_iovlen = 1,
			.msg_control = &control, .msg_controllen = sizeof(control),
		};
		ssize_t len;
		uint32_t id;

		if (poll(&pfd, 1, end - now) <= 0)
			break;
		len = recvmsg(fd, &msg, MSG_DONTWAIT);
		if (len < 14 || !memcmp(frame + 6, self, 6))
			continue;
		id = frame_id(frame, len);
		*tag = tag_of(&msg);
		if (id)
			return id;
	}
	return 0;
}

void wire_drain(int fd)
{
	uint8_t byte;

	while (recv(fd, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) >= 0)
		;
}
