// SPDX-License-Identifier: GPL-2.0
/*
 * What the administrator allows a slice, and a guest that wants more.
 *
 * Each test sets the attributes of slice A (and B) while they are closed, opens
 * them, and looks at both ends of the wire and at the counters. That a frame did
 * not get through is shown by a later one that did.
 *
 * The environment names the slices and the wire: POLICY_A, POLICY_B, POLICY_PEER_IF,
 * POLICY_PEER_NETNS. tests/kselftest/policy.sh sets them.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "kselftest_harness.h"

#include "sysfs.h"
#include "vf.h"
#include "wire.h"

#define TIMEOUT_S	(60 * TIME_SCALE)

/* Sub-commands and arguments of mailbox messages (igb, e1000_mbx.h). */
#define CLEAR_MACS	(VF_MSG_SET_MAC | 1u << 16)
#define ADD_MAC		(VF_MSG_SET_MAC | 2u << 16)
#define JOIN_VLAN	(VF_MSG_SET_VLAN | 1u << 16)
#define ALL_UNICAST	(VF_MSG_SET_PROMISC | 1u << 16)
#define ALL_MULTICAST	(VF_MSG_SET_PROMISC | 2u << 16)

#define RXD_VP		(1u << 3)

#define TEST_TYPE	0x88b5	/* IEEE 802: for local experiments */
#define PAUSE_TYPE	0x8808
#define VLAN_TYPE	0x8100

static const char *uuid_a, *uuid_b;
static uint8_t peer_mac[6];
static int wire;

static const uint8_t everybody[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
static const uint8_t pause_group[6] = { 1, 0x80, 0xc2, 0, 0, 1 };
static const uint8_t lldp_group[6] = { 1, 0x80, 0xc2, 0, 0, 0xe };
static const uint8_t other_mac[6] = { 0x52, 0x54, 0, 0x77, 0xbb, 0x01 };
static const uint8_t foreign_mac[6] = { 0x52, 0x54, 0, 0x77, 0xbb, 0x02 };
#define OTHER_MAC	"52:54:00:77:bb:01"

/* An id that no other frame has; each test has a process of its own. */
static uint32_t new_id(void)
{
	static uint32_t last;

	return (uint32_t)getpid() << 12 | ++last;
}

/* --- attributes ---------------------------------------------------------- */

/* 0 or a negative errno. */
static int set(const char *uuid, const char *name, const char *value)
{
	char path[160];
	ssize_t done;
	int fd, ret = 0;

	snprintf(path, sizeof(path), "/sys/bus/mdev/devices/%s/%s", uuid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	done = write(fd, value, strlen(value));
	if (done < 0)
		ret = -errno;
	close(fd);
	return ret;
}

static bool shows(const char *uuid, const char *name, const char *value)
{
	char path[160], text[512];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/mdev/devices/%s/%s", uuid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (len <= 0)
		return false;
	text[len - 1] = '\0';
	return !strcmp(text, value);
}

static const struct {
	const char *name, *at_first, *other;
} settings[] = {
	{ "macs", "none", OTHER_MAC },
	{ "vlan", "any", "port:7" },
	{ "multicast", "30", "2" },
	{ "promisc", "off", "multicast" },
	{ "broadcast", "on", "off" },
	{ "link_local", "off", "on" },
	{ "source_check", "on", "off" },
};

/* --- slices -------------------------------------------------------------- */

FIXTURE(slices) {
	struct vf a, b;
};

FIXTURE_SETUP(slices)
{
	self->a.ram_fd = self->b.ram_fd = -1;
	for (unsigned int i = 0; i < ARRAY_SIZE(settings); i++) {
		ASSERT_EQ(0, set(uuid_a, settings[i].name, settings[i].at_first));
		ASSERT_EQ(0, set(uuid_b, settings[i].name, settings[i].at_first));
	}
	wire_drain(wire);
}

static void close_if_open(struct vf *vf)
{
	if (vf->ram_fd >= 0)
		vf_close(vf);
}

FIXTURE_TEARDOWN(slices)
{
	close_if_open(&self->a);
	close_if_open(&self->b);
}

/* Resets the slice and waits until the NIC has buffers of its: before that, frames are lost. */
static int restart(struct vf *vf, const char *uuid)
{
	uint64_t before = stat_of(uuid, "rx_posted"), end;
	int ret = vf_restart(vf);

	for (end = now_ms() + VF_WAIT_MS; !ret && stat_of(uuid, "rx_posted") == before; nap()) {
		if (now_ms() > end)
			ret = -ETIMEDOUT;
	}
	return ret;
}

/* Opens slice A with @name set to @value, and maybe another pair. */
#define OPEN_A(...) do { \
	const char *const pairs_[] = { __VA_ARGS__ }; \
	for (unsigned int i_ = 0; i_ < ARRAY_SIZE(pairs_); i_ += 2) \
		ASSERT_EQ(0, set(uuid_a, pairs_[i_], pairs_[i_ + 1])); \
	ASSERT_EQ(0, vf_open(&self->a, uuid_a)); \
	ASSERT_EQ(0, restart(&self->a, uuid_a)); \
} while (0)

static uint32_t ask(struct vf *vf, uint32_t first, const void *rest, size_t bytes)
{
	uint32_t msg[VF_MBMEM_WORDS] = { first };

	memcpy(&msg[1], rest, bytes);
	return vf_message(vf, msg, 3, 1) ? 0 : msg[0];
}

static uint32_t ask_mac(struct vf *vf, uint32_t first, const uint8_t *mac)
{
	return ask(vf, first, mac, 6);
}

static uint32_t ask_number(struct vf *vf, uint32_t first, uint32_t number)
{
	return ask(vf, first, &number, sizeof(number));
}

#define EXPECT_GRANTED(first, reply) EXPECT_EQ((first) | VF_MSG_ACK | VF_MSG_CTS, reply)
#define EXPECT_REFUSED(first, reply) EXPECT_EQ((first) | VF_MSG_NACK | VF_MSG_CTS, reply)

/* --- frames -------------------------------------------------------------- */

/* Sends a frame from a slice; its id. */
static uint32_t send_words(struct vf *vf, const uint8_t *dst, const uint8_t *src, const uint16_t *words,
			   unsigned int count)
{
	uint8_t frame[FRAME_BYTES];
	uint32_t id = new_id();

	frame_make(frame, dst, src, words, count, id);
	return vf_send(vf, frame, sizeof(frame)) ? 0 : id;
}

static uint32_t send_plain(struct vf *vf, const uint8_t *dst, const uint8_t *src)
{
	return send_words(vf, dst, src, (const uint16_t[]){ TEST_TYPE }, 1);
}

/* Has the NIC insert a tag, by a context. */
static uint32_t send_inserted(struct vf *vf, const uint8_t *dst, uint16_t tag)
{
	uint64_t iova = VF_TX_BUF + vf->tx.tail * VF_PAGE;
	uint32_t id = new_id(), index;

	frame_make(vf_mem(vf, iova), dst, vf->mac, (const uint16_t[]){ TEST_TYPE }, 1, id);
	vf_post(vf, &vf->tx, (uint64_t)tag << 16 | 14 << 9, TXD_DTYP_CONTEXT | TXD_DEXT);
	index = vf_post(vf, &vf->tx, iova, TXD_SIMPLE | TXD_VLE | TXD_PAYLEN(FRAME_BYTES) | FRAME_BYTES);
	vf_doorbell(vf, &vf->tx);
	return vf_tx_wait(vf, index, VF_WAIT_MS) ? 0 : id;
}

/* Whether the next frame at the peer is @id, with @tag. */
static bool peer_gets(uint32_t id, int tag)
{
	int seen_tag = NO_TAG;
	uint32_t seen = wire_receive(wire, peer_mac, &seen_tag, VF_WAIT_MS);

	if (seen != id || seen_tag != tag)
		printf("# the peer got frame %u with tag %d, not %u with %d\n", seen, seen_tag, id, tag);
	return id && seen == id && seen_tag == tag;
}

/* Sends a frame from the peer, in VLAN @tag if that is one; its id. */
static uint32_t peer_sends(const uint8_t *dst, int tag)
{
	const uint16_t tagged[] = { VLAN_TYPE, tag, TEST_TYPE }, plain[] = { TEST_TYPE };
	uint8_t frame[FRAME_BYTES];
	uint32_t id = new_id();

	if (tag == NO_TAG)
		frame_make(frame, dst, peer_mac, plain, 1, id);
	else
		frame_make(frame, dst, peer_mac, tagged, 3, id);
	return send(wire, frame, sizeof(frame), 0) == sizeof(frame) ? id : 0;
}

/* Whether the next frame with a mark that the slice receives is @id; and what the NIC said of it. */
static bool slice_gets(struct vf *vf, uint32_t id, uint64_t *status)
{
	uint64_t end = now_ms() + VF_WAIT_MS;
	uint8_t frame[VF_RX_BUF_BYTES];
	uint32_t seen = 0;

	while (!seen && now_ms() < end) {
		uint32_t at = vf->rx.next;
		int len = vf_receive(vf, frame, 100);

		/* An emulated card gives a pool its own broadcast back. */
		if (len <= 0 || !memcmp(frame + 6, vf->mac, 6))
			continue;
		*status = vf_desc(vf, &vf->rx, at)[1];
		seen = frame_id(frame, len);
	}
	if (seen != id)
		printf("# the slice got frame %u, not %u\n", seen, id);
	return id && seen == id;
}

/* Sends what @send says, which must cost one frame and be counted as @rule; nothing of it is seen. */
#define EXPECT_DROPPED(rule, send) do { \
	uint64_t before_ = rejections_of(uuid_a, rule); \
	ASSERT_NE(UINT64_MAX, before_); \
	EXPECT_NE(0u, send); \
	EXPECT_TRUE(rejection_comes(uuid_a, rule, before_)) TH_LOG("%s was not counted", rule); \
	EXPECT_EQ(before_ + 1, rejections_of(uuid_a, rule)); \
	EXPECT_TRUE(peer_gets(send_plain(&self->a, peer_mac, self->a.mac), NO_TAG)); \
} while (0)

#define EXPECT_COUNTED(uuid, reason, ask_it) do { \
	uint64_t before_ = rejections_of(uuid, reason); \
	ASSERT_NE(UINT64_MAX, before_); \
	ask_it; \
	EXPECT_EQ(before_ + 1, rejections_of(uuid, reason)) TH_LOG("%s was not counted", reason); \
} while (0)

/* --- what a guest sends -------------------------------------------------- */

TEST_F_TIMEOUT(slices, frames_that_are_not_the_guests_to_send, TIMEOUT_S)
{
	const uint16_t pause[] = { PAUSE_TYPE, 1, 0xffff }, tagged[] = { VLAN_TYPE, 6, TEST_TYPE };
	const uint16_t hidden[] = { VLAN_TYPE, 0, PAUSE_TYPE }, twice[] = { VLAN_TYPE, 5, VLAN_TYPE, 5 };
	struct vf *a = &self->a;

	OPEN_A("vlan", "5", "broadcast", "off");
	EXPECT_DROPPED("spoofed_source", send_plain(a, peer_mac, foreign_mac));
	EXPECT_DROPPED("spoofed_source", send_plain(a, peer_mac, peer_mac));
	EXPECT_DROPPED("vlan_not_allowed", send_words(a, peer_mac, a->mac, tagged, 3));
	EXPECT_DROPPED("vlan_not_allowed", send_words(a, peer_mac, a->mac, twice, 4));
	EXPECT_DROPPED("vlan_not_allowed", send_inserted(a, peer_mac, 6));
	EXPECT_DROPPED("mac_control", send_words(a, pause_group, a->mac, pause, 3));
	EXPECT_DROPPED("mac_control", send_words(a, peer_mac, a->mac, pause, 3));
	EXPECT_DROPPED("mac_control", send_words(a, peer_mac, a->mac, hidden, 3));
	EXPECT_DROPPED("mac_control", send_plain(a, pause_group, a->mac));
	EXPECT_DROPPED("link_local", send_plain(a, lldp_group, a->mac));
	EXPECT_DROPPED("broadcast_not_allowed", send_plain(a, everybody, a->mac));
	EXPECT_TRUE(peer_gets(send_inserted(a, peer_mac, 5), 5));
}

/* The wire carries them all: what kept them off it above was the check. */
TEST_F_TIMEOUT(slices, frames_of_a_guest_that_may, TIMEOUT_S)
{
	const uint16_t pause[] = { PAUSE_TYPE, 1, 0xffff }, tagged[] = { VLAN_TYPE, 6, TEST_TYPE };
	struct vf *a = &self->a;

	OPEN_A("source_check", "off");
	EXPECT_TRUE(peer_gets(send_plain(a, peer_mac, foreign_mac), NO_TAG));
	EXPECT_TRUE(peer_gets(send_words(a, peer_mac, a->mac, tagged, 3), 6));
	EXPECT_TRUE(peer_gets(send_inserted(a, peer_mac, 6), 6));
	EXPECT_TRUE(peer_gets(send_words(a, pause_group, a->mac, pause, 3), NO_TAG));
	EXPECT_TRUE(peer_gets(send_words(a, peer_mac, a->mac, pause, 3), NO_TAG));
	vf_close(a);

	OPEN_A("source_check", "on", "link_local", "on");
	EXPECT_TRUE(peer_gets(send_plain(a, lldp_group, a->mac), NO_TAG));
	EXPECT_TRUE(peer_gets(send_plain(a, everybody, a->mac), NO_TAG));
	EXPECT_DROPPED("mac_control", send_words(a, pause_group, a->mac, pause, 3));
}

/* --- addresses ----------------------------------------------------------- */

TEST_F_TIMEOUT(slices, an_address_of_the_administrators_list, TIMEOUT_S)
{
	struct vf *a = &self->a;
	uint64_t status;

	OPEN_A("macs", OTHER_MAC);
	EXPECT_EQ(-EADDRNOTAVAIL, set(uuid_b, "macs", OTHER_MAC));
	EXPECT_EQ(-EADDRNOTAVAIL, set(uuid_b, "mac", OTHER_MAC));
	EXPECT_GRANTED(ADD_MAC, ask_mac(a, ADD_MAC, other_mac));
	EXPECT_GRANTED(VF_MSG_SET_MAC, ask_mac(a, VF_MSG_SET_MAC, other_mac));
	EXPECT_COUNTED(uuid_a, "mac_not_allowed",
		       EXPECT_REFUSED(ADD_MAC, ask_mac(a, ADD_MAC, foreign_mac)));
	EXPECT_COUNTED(uuid_a, "mac_not_allowed",
		       EXPECT_REFUSED(VF_MSG_SET_MAC, ask_mac(a, VF_MSG_SET_MAC, foreign_mac)));

	EXPECT_TRUE(peer_gets(send_plain(a, peer_mac, other_mac), NO_TAG));
	EXPECT_DROPPED("spoofed_source", send_plain(a, peer_mac, foreign_mac));
	EXPECT_NE(0u, peer_sends(foreign_mac, NO_TAG));
	EXPECT_TRUE(slice_gets(a, peer_sends(other_mac, NO_TAG), &status));
	EXPECT_TRUE(slice_gets(a, peer_sends(a->mac, NO_TAG), &status));
}

TEST_F_TIMEOUT(slices, addresses_that_a_trusted_guest_chooses, TIMEOUT_S)
{
	struct vf *a = &self->a, *b = &self->b;
	uint8_t mac[6] = { 0x52, 0x54, 0, 0x77, 0xcc, 0 };
	unsigned int granted = 0;
	uint64_t status;

	ASSERT_EQ(0, set(uuid_b, "macs", "any"));
	ASSERT_EQ(0, vf_open(b, uuid_b));
	OPEN_A("macs", "any");
	EXPECT_DROPPED("spoofed_source", send_plain(a, peer_mac, other_mac));
	EXPECT_GRANTED(VF_MSG_SET_MAC, ask_mac(a, VF_MSG_SET_MAC, other_mac));
	EXPECT_TRUE(peer_gets(send_plain(a, peer_mac, other_mac), NO_TAG));
	EXPECT_TRUE(slice_gets(a, peer_sends(other_mac, NO_TAG), &status));
	EXPECT_COUNTED(uuid_b, "mac_unavailable",
		       EXPECT_REFUSED(VF_MSG_SET_MAC, ask_mac(b, VF_MSG_SET_MAC, other_mac)));
	EXPECT_REFUSED(ADD_MAC, ask_mac(b, ADD_MAC, a->mac));

	/* As many as there are for one, and still one for the other. */
	for (mac[5] = 1; mac[5] < 30; mac[5]++)
		granted += !!(ask_mac(a, ADD_MAC, mac) & VF_MSG_ACK);
	EXPECT_EQ(7u, granted);
	EXPECT_GRANTED(ADD_MAC, ask_mac(b, ADD_MAC, mac));
	mac[5] = 7;
	EXPECT_TRUE(peer_gets(send_plain(a, peer_mac, mac), NO_TAG));
	EXPECT_TRUE(slice_gets(a, peer_sends(mac, NO_TAG), &status));
	EXPECT_GRANTED(CLEAR_MACS, ask_mac(a, CLEAR_MACS, mac));
	EXPECT_DROPPED("spoofed_source", send_plain(a, peer_mac, mac));

	/* Nothing is left of it after a reset, and others can have it. */
	ASSERT_EQ(0, restart(a, uuid_a));
	EXPECT_DROPPED("spoofed_source", send_plain(a, peer_mac, other_mac));
	EXPECT_NE(0u, peer_sends(other_mac, NO_TAG));
	EXPECT_TRUE(slice_gets(a, peer_sends(a->mac, NO_TAG), &status));
	EXPECT_GRANTED(VF_MSG_SET_MAC, ask_mac(b, VF_MSG_SET_MAC, other_mac));
}

/* --- VLANs --------------------------------------------------------------- */

TEST_F_TIMEOUT(slices, a_guest_that_joins_every_vlan, TIMEOUT_S)
{
	struct vf *a = &self->a, *b = &self->b;
	unsigned int joined = 0;
	uint64_t status;

	OPEN_A("vlan", "any");
	for (uint32_t vid = 1; vid < 200; vid++)
		joined += !!(ask_number(a, JOIN_VLAN, vid) & VF_MSG_ACK);
	EXPECT_EQ(10u, joined);
	EXPECT_COUNTED(uuid_a, "vlan_unavailable",
		       EXPECT_REFUSED(VF_MSG_SET_VLAN, ask_number(a, JOIN_VLAN, 300)));

	/* The neighbour's part of the table is there. */
	ASSERT_EQ(0, set(uuid_b, "vlan", "500,501,502"));
	ASSERT_EQ(0, vf_open(b, uuid_b));
	ASSERT_EQ(0, restart(b, uuid_b));
	for (uint32_t vid = 500; vid < 503; vid++)
		EXPECT_GRANTED(JOIN_VLAN, ask_number(b, JOIN_VLAN, vid));
	EXPECT_COUNTED(uuid_b, "vlan_join_denied",
		       EXPECT_REFUSED(VF_MSG_SET_VLAN, ask_number(b, JOIN_VLAN, 1)));
	EXPECT_NE(0u, peer_sends(b->mac, 1));
	EXPECT_TRUE(slice_gets(b, peer_sends(b->mac, 502), &status));
	EXPECT_NE(0u, peer_sends(a->mac, 502));
	EXPECT_TRUE(slice_gets(a, peer_sends(a->mac, 10), &status));
	EXPECT_EQ(RXD_VP, status & RXD_VP);
}

TEST_F_TIMEOUT(slices, a_vlan_that_the_guest_does_not_know_of, TIMEOUT_S)
{
	const uint16_t tagged[] = { VLAN_TYPE, 7, TEST_TYPE }, priority[] = { VLAN_TYPE, 0xe000, TEST_TYPE };
	struct vf *a = &self->a;
	uint64_t status = 0, before;

	OPEN_A("vlan", "port:7");
	EXPECT_TRUE(peer_gets(send_plain(a, peer_mac, a->mac), 7));
	EXPECT_COUNTED(uuid_a, "vlan_join_denied",
		       EXPECT_REFUSED(VF_MSG_SET_VLAN, ask_number(a, JOIN_VLAN, 7)));
	EXPECT_COUNTED(uuid_a, "vlan_join_denied",
		       EXPECT_REFUSED(VF_MSG_SET_VLAN, ask_number(a, VF_MSG_SET_VLAN, 7)));

	before = rejections_of(uuid_a, "vlan_not_allowed");
	EXPECT_NE(0u, send_words(a, peer_mac, a->mac, tagged, 3));
	EXPECT_NE(0u, send_words(a, peer_mac, a->mac, priority, 3));
	EXPECT_NE(0u, send_inserted(a, peer_mac, 7));
	EXPECT_NE(0u, send_inserted(a, peer_mac, 8));
	EXPECT_TRUE(peer_gets(send_plain(a, everybody, a->mac), 7));
	EXPECT_EQ(before + 4, rejections_of(uuid_a, "vlan_not_allowed"));

	EXPECT_NE(0u, peer_sends(a->mac, NO_TAG));
	EXPECT_NE(0u, peer_sends(a->mac, 0));
	EXPECT_NE(0u, peer_sends(a->mac, 8));
	EXPECT_NE(0u, peer_sends(everybody, NO_TAG));
	EXPECT_TRUE(slice_gets(a, peer_sends(a->mac, 7), &status));
	EXPECT_EQ(0u, status & RXD_VP);
	EXPECT_EQ(0u, status >> 48);
	EXPECT_TRUE(slice_gets(a, peer_sends(everybody, 7), &status));
	EXPECT_EQ(0u, status & RXD_VP);

	/* The next owner's frames are as they are. */
	vf_close(a);
	OPEN_A("vlan", "none");
	EXPECT_TRUE(peer_gets(send_plain(a, peer_mac, a->mac), NO_TAG));
	EXPECT_TRUE(slice_gets(a, peer_sends(a->mac, NO_TAG), &status));
}

/* --- groups -------------------------------------------------------------- */

TEST_F_TIMEOUT(slices, broadcast_and_multicast, TIMEOUT_S)
{
	/* Hash 0x123: bits 47:36 of the address (82576 datasheet 7.1.3.3). */
	const uint8_t group[6] = { 0x33, 0x33, 0, 0, 0x30, 0x12 };
	const uint32_t many = VF_MSG_SET_MULTICAST | 3u << 16, few = VF_MSG_SET_MULTICAST | 1u << 16;
	struct vf *a = &self->a;
	uint64_t status;

	OPEN_A("broadcast", "off", "multicast", "2");
	EXPECT_NE(0u, peer_sends(everybody, NO_TAG));
	EXPECT_NE(0u, peer_sends(group, NO_TAG));
	EXPECT_TRUE(slice_gets(a, peer_sends(a->mac, NO_TAG), &status));
	EXPECT_COUNTED(uuid_a, "multicast_limit", EXPECT_REFUSED(many, ask_number(a, many, 0x123)));
	EXPECT_NE(0u, peer_sends(group, NO_TAG));
	EXPECT_TRUE(slice_gets(a, peer_sends(a->mac, NO_TAG), &status));
	EXPECT_GRANTED(few, ask_number(a, few, 0x123));
	EXPECT_TRUE(slice_gets(a, peer_sends(group, NO_TAG), &status));

	EXPECT_COUNTED(uuid_a, "promisc_denied",
		       EXPECT_REFUSED(ALL_MULTICAST, ask_number(a, ALL_MULTICAST, 0)));
	EXPECT_COUNTED(uuid_a, "promisc_denied",
		       EXPECT_REFUSED(ALL_UNICAST, ask_number(a, ALL_UNICAST, 0)));
	vf_close(a);

	OPEN_A("promisc", "multicast", "broadcast", "on");
	EXPECT_TRUE(slice_gets(a, peer_sends(everybody, NO_TAG), &status));
	/* As igb does: what was done is gone from the argument. */
	EXPECT_GRANTED(VF_MSG_SET_PROMISC, ask_number(a, ALL_MULTICAST, 0));
	EXPECT_REFUSED(ALL_UNICAST, ask_number(a, ALL_UNICAST, 0));
}

/* --- the attributes themselves ------------------------------------------- */

TEST_F_TIMEOUT(slices, settings_stay_while_the_slice_is_open, TIMEOUT_S)
{
	static const char *const bad[][2] = {
		{ "macs", "52:54:00:77:bb" }, { "macs", "ff:ff:ff:ff:ff:ff" }, { "macs", "\n" },
		{ "macs", OTHER_MAC "," }, { "macs", OTHER_MAC ",01:00:5e:00:00:01" },
		{ "vlan", "port:0" }, { "vlan", "port:4095" }, { "vlan", "port:" }, { "vlan", "port:1,2" },
		{ "promisc", "on" }, { "broadcast", "yes" }, { "link_local", "\n" }, { "multicast", "x" },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, set(uuid_a, bad[i][0], bad[i][1])) TH_LOG("%s: %s", bad[i][0], bad[i][1]);
	}
	EXPECT_EQ(-ERANGE, set(uuid_a, "multicast", "31"));
	ASSERT_EQ(0, set(uuid_a, "macs", OTHER_MAC));
	EXPECT_EQ(-EADDRNOTAVAIL, set(uuid_a, "mac", OTHER_MAC));
	ASSERT_EQ(0, set(uuid_a, "macs", "none"));
	for (unsigned int i = 0; i < ARRAY_SIZE(settings); i++)
		EXPECT_TRUE(shows(uuid_a, settings[i].name, settings[i].at_first));

	ASSERT_EQ(0, vf_open(&self->a, uuid_a));
	for (unsigned int i = 0; i < ARRAY_SIZE(settings); i++) {
		EXPECT_EQ(-EBUSY, set(uuid_a, settings[i].name, settings[i].other));
		EXPECT_TRUE(shows(uuid_a, settings[i].name, settings[i].at_first));
	}
	vf_close(&self->a);
	for (unsigned int i = 0; i < ARRAY_SIZE(settings); i++) {
		EXPECT_EQ(0, set(uuid_a, settings[i].name, settings[i].other));
		EXPECT_TRUE(shows(uuid_a, settings[i].name, settings[i].other));
	}
}

int main(int argc, char **argv)
{
	const char *peer_if = getenv("POLICY_PEER_IF"), *netns = getenv("POLICY_PEER_NETNS");

	uuid_a = getenv("POLICY_A");
	uuid_b = getenv("POLICY_B");
	if (!uuid_a || !uuid_b || !peer_if || !netns) {
		ksft_print_header();
		ksft_exit_skip("POLICY_A, POLICY_B, POLICY_PEER_IF and POLICY_PEER_NETNS name nothing to test\n");
	}
	wire = wire_open(peer_if, netns, peer_mac);
	if (wire < 0) {
		ksft_print_header();
		ksft_exit_fail_msg("no wire: %s\n", strerror(-wire));
	}
	return test_harness_run(argc, argv);
}
