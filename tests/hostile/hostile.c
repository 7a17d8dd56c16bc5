// SPDX-License-Identifier: GPL-2.0
/*
 * A hostile guest and a hostile VMM.
 *
 * Each test opens slice A, does what no driver would do, and then looks at
 * four things: the rule that was broken has been counted, the neighbour (slice
 * B and the far end of the wire, see neighbour.h) goes on exchanging packets,
 * nobody's memory has changed, and slice A works again after a reset.
 *
 * The environment names the slices and the wire: HOSTILE_A and HOSTILE_B
 * (UUIDs), HOSTILE_PEER_IF and HOSTILE_PEER_NETNS; HOSTILE_PCI is the NIC
 * ("0000:00:03.0"), HOSTILE_C a third slice, for A's own VMM (not all tests need
 * it). tests/kselftest/hostile.sh and memory_gone.sh set them. No test asserts how
 * long something takes; the waits are bounded and long.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>

#include "kselftest_harness.h"

#include "memory_canary.h"
#include "neighbour.h"
#include "probe.h"
#include "sysfs.h"
#include "vf.h"

/* Emulated machines are slow; a test that hangs is ended by the harness. */
#define TIMEOUT_S	(240 * TIME_SCALE)

static const char *uuid_a;
static const char *pci_address;
static volatile struct neighbour *nb;

static uint64_t rng_state = 0x9e3779b97f4a7c15;

/* xorshift64: the same values in every run. */
static uint64_t rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

/* How slices begin. */
#define USUAL_STRATEGY	"persistent"

static bool usual_strategy;

/*
 * Of @rounds of a race: all under the usual strategy, some under the others, and where all takes longer (the
 * debug kernel, on which two threads that race wait for each other most of the time).
 */
static unsigned int times(unsigned int rounds)
{
	return usual_strategy && TIME_SCALE == 1 ? rounds : rounds / 4 + 1;
}

static void attack_begins(struct __test_metadata *_metadata, struct vf *vf, const char *strategy)
{
	usual_strategy = !strcmp(strategy, USUAL_STRATEGY);
	ASSERT_EQ(0, set_slice(uuid_a, "strategy", strategy));
	ASSERT_EQ(0, vf_open(vf, uuid_a));
	ASSERT_EQ(0, vf_restart(vf));
	rng_state ^= (uintptr_t)_metadata->name[0] << 32;
}

/* What every test looks at in the end. */
static void attack_ends(struct __test_metadata *_metadata, struct vf *vf)
{
	uint8_t mac[6];

	neighbour_flood_stop(nb);
	EXPECT_TRUE(neighbour_advances(nb, 3)) TH_LOG("the neighbour stands still, error %d", nb->error);
	EXPECT_EQ(0u, nb->corrupt);
	EXPECT_EQ(0u, nb->leaked);
	EXPECT_EQ(0u, nb->canary_bad);

	/* Over the wire, and through the NIC's internal switch. */
	EXPECT_EQ(0, vf_restart(vf));
	memcpy(mac, (void *)nb->peer_mac, sizeof(mac));
	EXPECT_TRUE(vf_exchange(vf, mac)) TH_LOG("no packets with the wire after a reset");
	memcpy(mac, (void *)nb->mac, sizeof(mac));
	EXPECT_TRUE(vf_exchange(vf, mac)) TH_LOG("no packets with the neighbour after a reset");
	vf_close(vf);
}

/*
 * What deals with memory is tried under each mapping strategy. The name is the
 * administrator's, in the slice's "strategy".
 */
#define EACH_STRATEGY(fixture) \
FIXTURE_VARIANT(fixture) { \
	const char *strategy; \
}; \
FIXTURE_VARIANT_ADD(fixture, persistent) { .strategy = "persistent" }; \
FIXTURE_VARIANT_ADD(fixture, single_use) { .strategy = "single-use" }; \
FIXTURE_VARIANT_ADD(fixture, shared) { .strategy = "shared" }; \
FIXTURE_VARIANT_ADD(fixture, direct_map) { .strategy = "direct-map" }; \
FIXTURE_VARIANT_ADD(fixture, copy) { .strategy = "copy" }

FIXTURE(attacker) {
	struct vf vf;
};

EACH_STRATEGY(attacker);

FIXTURE_SETUP(attacker)
{
	attack_begins(_metadata, &self->vf, variant->strategy);
}

FIXTURE_TEARDOWN(attacker)
{
	attack_ends(_metadata, &self->vf);
}

/* Registers, interrupts, files: whatever the strategy. */
FIXTURE(intruder) {
	struct vf vf;
};

FIXTURE_SETUP(intruder)
{
	attack_begins(_metadata, &self->vf, USUAL_STRATEGY);
}

FIXTURE_TEARDOWN(intruder)
{
	attack_ends(_metadata, &self->vf);
}

/* The tests of memory that is taken away are run on their own: cases/memory_gone.c. */
FIXTURE(memory_gone) {
	struct vf vf;
};

EACH_STRATEGY(memory_gone);

FIXTURE_SETUP(memory_gone)
{
	attack_begins(_metadata, &self->vf, variant->strategy);
}

FIXTURE_TEARDOWN(memory_gone)
{
	attack_ends(_metadata, &self->vf);
}

/* A good frame at @iova, for the peer. */
static void put_frame(struct vf *vf, uint64_t iova, uint32_t len_bytes)
{
	struct probe p;
	uint8_t peer[6];

	memcpy(peer, (void *)nb->peer_mac, sizeof(peer));
	probe_make(&p, peer, vf->mac, PROBE_FLOOD, len_bytes, len_bytes);
	memcpy(vf_mem(vf, iova), &p, len_bytes);
}

/* Whether a mailbox answer says no. */
static bool refused(uint32_t answer)
{
	return answer & VF_MSG_NACK;
}

/* Whether all of @len_bytes at @va are @byte. */
static bool all_bytes(const void *va, uint8_t byte, size_t len_bytes)
{
	const volatile uint8_t *p = va;

	for (size_t i = 0; i < len_bytes; i++)
		if (p[i] != byte)
			return false;
	return true;
}

/* Does @what and expects that one of the rules in @names is counted for it. */
#define EXPECT_REJECTED(names, what) do { \
	uint64_t before_ = rejections_of(uuid_a, names); \
	ASSERT_NE(UINT64_MAX, before_) TH_LOG("no counter named %s", names); \
	what; \
	EXPECT_TRUE(rejection_comes(uuid_a, names, before_)) { \
		TH_LOG("%s was not counted", names); \
		rejections_print(uuid_a); \
	} \
} while (0)

/* The harness keeps its list of tests per translation unit, hence one unit. */
#include "cases/transmit.c"
#include "cases/offload.c"
#include "cases/receive.c"
#include "cases/rings.c"
#include "cases/registers.c"
#include "cases/races.c"
#include "cases/memory.c"
#include "cases/lifetime.c"
#include "cases/vmm.c"
#include "cases/watchers.c"
#include "cases/fuse.c"
#include "cases/memory_gone.c"
#include "cases/memory_ends.c"
#include "cases/memory_kinds.c"
#include "cases/memory_fence.c"

static void stop_neighbour(void)
{
	neighbour_stop(nb);
}

int main(int argc, char **argv)
{
	const char *uuid_b = getenv("HOSTILE_B"), *peer_if = getenv("HOSTILE_PEER_IF");
	int error = -ENOENT;

	/* To list the tests nothing is needed. */
	if (argc == 2 && !strcmp(argv[1], "-l"))
		return test_harness_run(argc, argv);
	uuid_a = getenv("HOSTILE_A");
	pci_address = getenv("HOSTILE_PCI");
	if (!uuid_a || !uuid_b || !peer_if) {
		ksft_print_header();
		ksft_exit_skip("HOSTILE_A, HOSTILE_B and HOSTILE_PEER_IF name nothing to attack\n");
	}
	nb = neighbour_start(uuid_b, peer_if, getenv("HOSTILE_PEER_NETNS"), &error);
	if (!nb) {
		ksft_print_header();
		ksft_exit_fail_msg("the neighbour does not start: %s\n", strerror(-error));
	}
	/* Only this process: the harness ends its children with _exit(). */
	atexit(stop_neighbour);
	return test_harness_run(argc, argv);
}
