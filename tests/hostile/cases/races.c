// SPDX-License-Identifier: GPL-2.0
/* Memory that changes while it is read. Part of hostile.c. */

#define FLIPS		1000000ull
#define RACE_ROUNDS	60

struct flipper {
	pthread_t thread;
	volatile uint64_t *word;	/* what is flipped */
	uint64_t good;
	uint64_t bad;
	volatile uint64_t flips;
	volatile bool stop;
};

static void *flip(void *arg)
{
	struct flipper *f = arg;

	while (!f->stop) {
		*f->word = f->bad;
		*f->word = f->good;
		f->flips++;
	}
	return NULL;
}

static void start_flipping(struct flipper *f, volatile uint64_t *word, uint64_t good, uint64_t bad)
{
	*f = (struct flipper){ .word = word, .good = good, .bad = bad };
	if (pthread_create(&f->thread, NULL, flip, f))
		abort();
}

static void stop_flipping(struct __test_metadata *_metadata, struct flipper *f)
{
	uint64_t end = now_ms() + VF_WAIT_MS;

	while (f->flips < FLIPS && now_ms() < end)
		nap();
	f->stop = true;
	pthread_join(f->thread, NULL);
	EXPECT_LE(FLIPS, f->flips);
}

/* A foreign address: the neighbour's memory where that is known, or nobody's. */
static uint64_t foreign_address(void)
{
	return nb->canary_phys >= VF_RAM_BYTES ? nb->canary_phys : VF_RAM_BYTES;
}

/*
 * Sends from a descriptor one of whose words flips. Each time that the bad value
 * was seen the queue stops and is started again.
 */
static void race_transmit(struct __test_metadata *_metadata, struct vf *vf, unsigned int which,
			  uint64_t good, uint64_t bad)
{
	uint64_t before = rejections_all(uuid_a), sent = 0;
	struct flipper f;

	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	start_flipping(&f, vf_desc(vf, &vf->tx, 0) + which, good, bad);
	for (unsigned int round = 0; round < times(RACE_ROUNDS); round++) {
		uint64_t seen = rejections_all(uuid_a);
		uint64_t end = now_ms() + VF_QUIET_MS;
		volatile uint64_t *desc = vf_desc(vf, &vf->tx, 0);

		/* Only the word that does not flip is written here. */
		desc[!which] = which ? VF_TX_BUF : SIMPLE(FRAME_BYTES);
		vf_write(vf, vf->tx.base + VF_TAIL, 1);
		while (rejections_all(uuid_a) == seen && vf_read(vf, vf->tx.base + VF_HEAD) != 1 &&
		       now_ms() < end)
			nap();
		sent += rejections_all(uuid_a) == seen;
		/* The default start clears the ring: in a race with the flipper, which wins. */
		ASSERT_EQ(0, vfio_reset(&vf->dev));
		ASSERT_EQ(0, vf_handshake(vf));
		vf_ring_program(vf, &vf->tx, VF_TX_RING, VF_RING_SLOTS * VF_DESC_BYTES);
		ASSERT_EQ(0, vf_ring_enable(vf, &vf->tx));
	}
	stop_flipping(_metadata, &f);
	TH_LOG("%llu flips, %llu of %u rounds refused, %llu not",
	       (unsigned long long)f.flips, (unsigned long long)(rejections_all(uuid_a) - before),
	       times(RACE_ROUNDS), (unsigned long long)sent);
}

TEST_F_TIMEOUT(attacker, race_tx_address, TIMEOUT_S)
{
	race_transmit(_metadata, &self->vf, 0, VF_TX_BUF, foreign_address());
}

TEST_F_TIMEOUT(attacker, race_tx_length, TIMEOUT_S)
{
	race_transmit(_metadata, &self->vf, 1, SIMPLE(FRAME_BYTES), SIMPLE(0xffffull));
}

TEST_F_TIMEOUT(attacker, race_tx_length_without_payload_length, TIMEOUT_S)
{
	race_transmit(_metadata, &self->vf, 1, SIMPLE(FRAME_BYTES), TXD_SIMPLE | TXD_PAYLEN(FRAME_BYTES) | 9000);
}

TEST_F_TIMEOUT(attacker, race_tx_type, TIMEOUT_S)
{
	race_transmit(_metadata, &self->vf, 1, SIMPLE(FRAME_BYTES), CTX_TSO(1460));
}

TEST_F_TIMEOUT(attacker, race_tx_end_of_packet, TIMEOUT_S)
{
	race_transmit(_metadata, &self->vf, 1, SIMPLE(FRAME_BYTES), SIMPLE(FRAME_BYTES) & ~(TXD_EOP | TXD_RS));
}

/* The address of a posted receive buffer flips while packets come in. */
TEST_F_TIMEOUT(attacker, race_rx_address, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	struct flipper f;

	neighbour_flood(nb, vf->mac);
	start_flipping(&f, vf_desc(vf, &vf->rx, 0), VF_RX_BUF, foreign_address());
	for (unsigned int round = 0; round < times(RACE_ROUNDS / 2); round++) {
		ASSERT_EQ(0, vfio_reset(&vf->dev));
		ASSERT_EQ(0, vf_handshake(vf));
		vf_write(vf, vf->rx.base + VF_SRRCTL, VF_SRRCTL_ONEBUF | VF_SRRCTL_DROP | VF_SRRCTL_2K);
		vf_ring_program(vf, &vf->rx, VF_RX_RING, VF_RING_SLOTS * VF_DESC_BYTES);
		ASSERT_EQ(0, vf_ring_enable(vf, &vf->rx));
		vf_desc(vf, &vf->rx, 0)[1] = 0;
		vf_write(vf, vf->rx.base + VF_TAIL, 1);
		EXPECT_TRUE(neighbour_flooded(nb, 4));
	}
	stop_flipping(_metadata, &f);
}

/* The whole transmit ring is rewritten with noise while the tail runs around it. */
static void *scribble(void *arg)
{
	struct flipper *f = arg;
	uint64_t x = 88172645463325252;

	while (!f->stop) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		f->word[x % (2 * VF_RING_SLOTS)] = x & 1 << 12 ? x : SIMPLE(FRAME_BYTES);
		f->flips++;
	}
	return NULL;
}

TEST_F_TIMEOUT(attacker, race_ring_of_noise, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	struct flipper f = { .word = vf_desc(vf, &vf->tx, 0) };

	put_frame(vf, VF_TX_BUF, FRAME_BYTES);
	ASSERT_EQ(0, pthread_create(&f.thread, NULL, scribble, &f));
	for (unsigned int round = 0; round < times(RACE_ROUNDS); round++) {
		for (unsigned int i = 0; i < 32; i++)
			vf_write(vf, vf->tx.base + VF_TAIL, rng() % VF_RING_SLOTS);
		ASSERT_EQ(0, vfio_reset(&vf->dev));
		ASSERT_EQ(0, vf_handshake(vf));
		vf_ring_program(vf, &vf->tx, VF_TX_RING, VF_RING_SLOTS * VF_DESC_BYTES);
		ASSERT_EQ(0, vf_ring_enable(vf, &vf->tx));
	}
	stop_flipping(_metadata, &f);
}

/* Two threads on the registers of one slice. */
static void *write_registers(void *arg)
{
	struct flipper *f = arg;
	struct vf *vf = (struct vf *)f->word;

	while (!f->stop) {
		vf_write(vf, f->flips % VF_BAR0_LEN & ~3u, f->flips * 2654435761u);
		f->flips++;
	}
	return NULL;
}

TEST_F_TIMEOUT(attacker, race_registers, TIMEOUT_S)
{
	struct vf *vf = &self->vf;
	struct flipper f = { .word = (uint64_t *)vf };

	ASSERT_EQ(0, pthread_create(&f.thread, NULL, write_registers, &f));
	neighbour_flood(nb, vf->mac);
	for (unsigned int i = 0; i < 100; i++) {
		vfio_reset(&vf->dev);
		for (unsigned int j = 0; j < 200; j++)
			vf_write(vf, rng() % VF_BAR0_LEN & ~3ull, rng());
	}
	f.stop = true;
	pthread_join(f.thread, NULL);
}
