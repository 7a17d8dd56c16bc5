/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A small driver for the 82576 virtual function that can also do everything
 * wrong. Guest memory is VF_RAM_BYTES of shared memory at IOVA 0.
 *
 * Functions return 0 or a negative errno; waits are bounded.
 */
#ifndef HOSTILE_VF_H
#define HOSTILE_VF_H

#include <stdbool.h>
#include <stdint.h>

#include "vf_regs.h"
#include "vfio.h"

#define VF_PAGE			4096ull
#define VF_RAM_BYTES		(4ull << 20)
#define VF_RING_SLOTS		256u
#define VF_DESC_BYTES		16u

/* Where things are in guest memory. One buffer page for each descriptor. */
#define VF_TX_RING		0x010000ull
#define VF_RX_RING		0x020000ull
#define VF_TX_BUF		0x100000ull
#define VF_RX_BUF		0x200000ull
#define VF_CANARY		0x300000ull
#define VF_RX_BUF_BYTES		2048u

/* How much slower than usual the machine is (tools/build-tests --debug). */
#ifndef TIME_SCALE
#define TIME_SCALE		1
#endif
/* For an event that must come; long, since machines are slow. */
#define VF_WAIT_MS		(20000u * TIME_SCALE)
/* For an event that must not come. */
#define VF_QUIET_MS		300u

struct vf_ring {
	uint32_t base;		/* first register of the queue */
	uint64_t iova;
	uint32_t slots;
	uint32_t tail;		/* next descriptor to post */
	uint32_t next;		/* next descriptor to complete */
};

struct vf {
	struct vfio_dev dev;
	uint8_t *ram;
	int ram_fd;
	uint8_t mac[6];
	uint32_t mbx_sticky;
	struct vf_ring tx;
	struct vf_ring rx;
};

/* Opens the slice, maps guest memory, shakes hands with the PF's mailbox. */
int vf_open(struct vf *vf, const char *uuid);
/* Opens and maps only. */
int vf_open_raw(struct vf *vf, const char *uuid);
void vf_close(struct vf *vf);

uint32_t vf_read(struct vf *vf, uint32_t reg);
void vf_write(struct vf *vf, uint32_t reg, uint32_t value);

/* Resets through CTRL.RST and the mailbox, as igbvf does; learns the MAC. */
int vf_handshake(struct vf *vf);
/* Sends @words words of @msg and reads @reply words of the answer into it. */
int vf_message(struct vf *vf, uint32_t *msg, unsigned int words, unsigned int reply);
int vf_wait_link(struct vf *vf);

/* Programs a queue; nothing is checked. */
void vf_ring_program(struct vf *vf, struct vf_ring *ring, uint64_t iova, uint32_t len_bytes);
int vf_ring_enable(struct vf *vf, struct vf_ring *ring);
/* Default rings, both queues enabled, receive ring filled. */
int vf_start(struct vf *vf);
/* VFIO reset, handshake, vf_start(), link: a slice ready for use, whatever was before. */
int vf_restart(struct vf *vf);

/* Guest memory. */
uint64_t *vf_desc(struct vf *vf, const struct vf_ring *ring, uint32_t index);
uint8_t *vf_mem(struct vf *vf, uint64_t iova);

/* Writes a descriptor at the ring's tail and returns its index; no doorbell. */
uint32_t vf_post(struct vf *vf, struct vf_ring *ring, uint64_t first, uint64_t second);
void vf_doorbell(struct vf *vf, const struct vf_ring *ring);
/* Waits for "done" in transmit descriptor @index. */
int vf_tx_wait(struct vf *vf, uint32_t index, unsigned int timeout_ms);

/* Sends one frame and waits until it is done. */
int vf_send(struct vf *vf, const void *frame, uint32_t len_bytes);
/*
 * Takes one frame into @frame (room for VF_RX_BUF_BYTES) and posts the buffer
 * again. Returns its length, 0 if none came in time.
 */
int vf_receive(struct vf *vf, void *frame, unsigned int timeout_ms);

/* Monotonic time, and a short sleep for polling loops. */
uint64_t now_ms(void);
void nap(void);

#endif
