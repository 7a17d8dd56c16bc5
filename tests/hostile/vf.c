// SPDX-License-Identifier: GPL-2.0
/* A small driver for the 82576 virtual function that can also do everything wrong. */

#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vf.h"

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void nap(void)
{
	usleep(200);
}

uint32_t vf_read(struct vf *vf, uint32_t reg)
{
	uint32_t value = UINT32_MAX;

	vfio_read(&vf->dev, VFIO_PCI_BAR0_REGION_INDEX, reg, &value, sizeof(value));
	return value;
}

void vf_write(struct vf *vf, uint32_t reg, uint32_t value)
{
	vfio_write(&vf->dev, VFIO_PCI_BAR0_REGION_INDEX, reg, &value, sizeof(value));
}

uint8_t *vf_mem(struct vf *vf, uint64_t iova)
{
	return vf->ram + iova % VF_RAM_BYTES;
}

uint64_t *vf_desc(struct vf *vf, const struct vf_ring *ring, uint32_t index)
{
	return (uint64_t *)vf_mem(vf, ring->iova + (uint64_t)index * VF_DESC_BYTES);
}

int vf_open_raw(struct vf *vf, const char *uuid)
{
	int ret;

	memset(vf, 0, sizeof(*vf));
	vf->ram = MAP_FAILED;
	vf->ram_fd = -1;

	ret = vfio_open(&vf->dev, uuid);
	if (ret)
		return ret;

	/* Shared memory: a fork in a test must not copy pinned pages. */
	vf->ram_fd = memfd_create("guest", MFD_CLOEXEC);
	if (vf->ram_fd < 0 || ftruncate(vf->ram_fd, VF_RAM_BYTES)) {
		ret = -errno;
		goto fail;
	}
	vf->ram = mmap(NULL, VF_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vf->ram_fd, 0);
	if (vf->ram == MAP_FAILED) {
		ret = -errno;
		goto fail;
	}
	ret = vfio_map(&vf->dev, vf->ram, 0, VF_RAM_BYTES,
		       VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
	if (ret)
		goto fail;

	vf->tx = (struct vf_ring){ .base = VF_TXQ, .iova = VF_TX_RING, .slots = VF_RING_SLOTS };
	vf->rx = (struct vf_ring){ .base = VF_RXQ, .iova = VF_RX_RING, .slots = VF_RING_SLOTS };
	return 0;
fail:
	vf_close(vf);
	return ret;
}

int vf_open(struct vf *vf, const char *uuid)
{
	int ret = vf_open_raw(vf, uuid);

	if (ret)
		return ret;
	ret = vf_handshake(vf);
	if (ret)
		vf_close(vf);
	return ret;
}

void vf_close(struct vf *vf)
{
	vfio_close(&vf->dev);
	if (vf->ram != MAP_FAILED)
		munmap(vf->ram, VF_RAM_BYTES);
	if (vf->ram_fd >= 0)
		close(vf->ram_fd);
	vf->ram = MAP_FAILED;
	vf->ram_fd = -1;
}

/* --- mailbox ------------------------------------------------------------- */

/* Some bits clear when read: keep them until somebody has asked for them. */
static uint32_t mailbox_status(struct vf *vf)
{
	uint32_t status = vf_read(vf, VF_MBX) | vf->mbx_sticky;

	vf->mbx_sticky = status & VF_MBX_STICKY;
	return status;
}

static int mailbox_wait(struct vf *vf, uint32_t bit)
{
	uint64_t end = now_ms() + VF_WAIT_MS;

	while (!(mailbox_status(vf) & bit)) {
		if (now_ms() > end)
			return -ETIMEDOUT;
		nap();
	}
	vf->mbx_sticky &= ~bit;
	return 0;
}

/* Asks for ownership until it is granted. */
static int mailbox_lock(struct vf *vf)
{
	uint64_t end = now_ms() + VF_WAIT_MS;

	for (;;) {
		vf_write(vf, VF_MBX, VF_MBX_VFU);
		if (mailbox_status(vf) & VF_MBX_VFU)
			return 0;
		if (now_ms() > end)
			return -ETIMEDOUT;
		nap();
	}
}

int vf_message(struct vf *vf, uint32_t *msg, unsigned int words, unsigned int reply)
{
	int ret = mailbox_lock(vf);

	if (ret)
		return ret;
	mailbox_status(vf);
	vf->mbx_sticky &= ~(VF_MBX_PFSTS | VF_MBX_PFACK);
	for (unsigned int i = 0; i < words; i++)
		vf_write(vf, VF_MBMEM + 4 * i, msg[i]);
	vf_write(vf, VF_MBX, VF_MBX_REQ);

	ret = mailbox_wait(vf, VF_MBX_PFACK);
	if (!ret)
		ret = mailbox_wait(vf, VF_MBX_PFSTS);
	if (!ret)
		ret = mailbox_lock(vf);
	if (ret)
		return ret;
	for (unsigned int i = 0; i < reply; i++)
		msg[i] = vf_read(vf, VF_MBMEM + 4 * i);
	vf_write(vf, VF_MBX, VF_MBX_ACK);
	return 0;
}

int vf_handshake(struct vf *vf)
{
	const uint16_t command = VF_PCI_COMMAND_MEMORY | VF_PCI_COMMAND_MASTER;
	uint32_t msg[3] = { VF_MSG_RESET };
	int ret;

	ret = vfio_write(&vf->dev, VFIO_PCI_CONFIG_REGION_INDEX, VF_PCI_COMMAND, &command, sizeof(command));
	if (ret)
		return ret;
	vf_write(vf, VF_CTRL, VF_CTRL_RST);
	vf->mbx_sticky = 0;
	ret = vf_message(vf, msg, 1, 3);
	if (ret)
		return ret;
	if ((msg[0] & ~VF_MSG_CTS) != (VF_MSG_RESET | VF_MSG_ACK))
		return -EPROTO;
	memcpy(vf->mac, &msg[1], sizeof(vf->mac));

	msg[0] = VF_MSG_SET_MAC;
	ret = vf_message(vf, msg, 3, 1);
	if (ret)
		return ret;
	return msg[0] & VF_MSG_ACK ? 0 : -EPROTO;
}

int vf_wait_link(struct vf *vf)
{
	uint64_t end = now_ms() + VF_WAIT_MS;

	while (!(vf_read(vf, VF_STATUS) & VF_STATUS_LU)) {
		if (now_ms() > end)
			return -ETIMEDOUT;
		nap();
	}
	return 0;
}

/* --- queues -------------------------------------------------------------- */

void vf_ring_program(struct vf *vf, struct vf_ring *ring, uint64_t iova, uint32_t len_bytes)
{
	ring->iova = iova;
	ring->tail = 0;
	ring->next = 0;
	vf_write(vf, ring->base + VF_QCTL, 0);
	vf_write(vf, ring->base + VF_BAL, (uint32_t)iova);
	vf_write(vf, ring->base + VF_BAH, iova >> 32);
	vf_write(vf, ring->base + VF_LEN, len_bytes);
	vf_write(vf, ring->base + VF_HEAD, 0);
	vf_write(vf, ring->base + VF_TAIL, 0);
}

int vf_ring_enable(struct vf *vf, struct vf_ring *ring)
{
	uint64_t end = now_ms() + VF_WAIT_MS;

	vf_write(vf, ring->base + VF_QCTL, VF_QCTL_ENABLE);
	while (!(vf_read(vf, ring->base + VF_QCTL) & VF_QCTL_ENABLE)) {
		if (now_ms() > end)
			return -ETIMEDOUT;
		nap();
	}
	return 0;
}

uint32_t vf_post(struct vf *vf, struct vf_ring *ring, uint64_t first, uint64_t second)
{
	volatile uint64_t *desc = vf_desc(vf, ring, ring->tail);
	uint32_t index = ring->tail;

	desc[0] = first;
	desc[1] = second;
	ring->tail = (ring->tail + 1) % ring->slots;
	return index;
}

void vf_doorbell(struct vf *vf, const struct vf_ring *ring)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	vf_write(vf, ring->base + VF_TAIL, ring->tail);
}

static uint64_t rx_buffer(uint32_t index)
{
	return VF_RX_BUF + index * VF_PAGE;
}

int vf_start(struct vf *vf)
{
	uint32_t msg[2] = { VF_MSG_SET_LPE, 1522 };
	const uint32_t len_bytes = VF_RING_SLOTS * VF_DESC_BYTES;
	int ret;

	memset(vf_mem(vf, VF_TX_RING), 0, len_bytes);
	memset(vf_mem(vf, VF_RX_RING), 0, len_bytes);
	ret = vf_message(vf, msg, 2, 1);
	if (ret)
		return ret;

	vf_ring_program(vf, &vf->tx, VF_TX_RING, len_bytes);
	ret = vf_ring_enable(vf, &vf->tx);
	if (ret)
		return ret;
	vf_write(vf, vf->rx.base + VF_SRRCTL, VF_SRRCTL_ONEBUF | VF_SRRCTL_DROP | VF_SRRCTL_2K);
	vf_ring_program(vf, &vf->rx, VF_RX_RING, len_bytes);
	ret = vf_ring_enable(vf, &vf->rx);
	if (ret)
		return ret;

	/* A full ring looks empty: one slot stays free. */
	for (uint32_t i = 0; i < VF_RING_SLOTS - 1; i++)
		vf_post(vf, &vf->rx, rx_buffer(i), 0);
	vf_doorbell(vf, &vf->rx);
	return 0;
}

int vf_restart(struct vf *vf)
{
	int ret = vfio_reset(&vf->dev);

	if (!ret)
		ret = vf_handshake(vf);
	if (!ret)
		ret = vf_start(vf);
	if (!ret)
		ret = vf_wait_link(vf);
	return ret;
}

int vf_tx_wait(struct vf *vf, uint32_t index, unsigned int timeout_ms)
{
	volatile uint64_t *desc = vf_desc(vf, &vf->tx, index);
	uint64_t end = now_ms() + timeout_ms;

	while (!(desc[1] & TXD_DD)) {
		if (now_ms() > end)
			return -ETIMEDOUT;
		nap();
	}
	return 0;
}

int vf_send(struct vf *vf, const void *frame, uint32_t len_bytes)
{
	uint64_t iova = VF_TX_BUF + vf->tx.tail * VF_PAGE;
	uint32_t index;

	memcpy(vf_mem(vf, iova), frame, len_bytes);
	index = vf_post(vf, &vf->tx, iova, TXD_SIMPLE | TXD_PAYLEN(len_bytes) | len_bytes);
	vf_doorbell(vf, &vf->tx);
	return vf_tx_wait(vf, index, VF_WAIT_MS);
}

int vf_receive(struct vf *vf, void *frame, unsigned int timeout_ms)
{
	volatile uint64_t *desc = vf_desc(vf, &vf->rx, vf->rx.next);
	uint64_t end = now_ms() + timeout_ms;
	uint64_t word;
	uint32_t len_bytes;

	while (!((word = desc[1]) & RXD_DD)) {
		if (now_ms() > end)
			return 0;
		nap();
	}
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	len_bytes = RXD_LEN(word);
	if (len_bytes > VF_RX_BUF_BYTES)
		return -EMSGSIZE;
	memcpy(frame, vf_mem(vf, rx_buffer(vf->rx.next)), len_bytes);
	vf->rx.next = (vf->rx.next + 1) % vf->rx.slots;
	/* The free slot takes the next buffer in turn, at its own page. */
	vf_post(vf, &vf->rx, rx_buffer(vf->rx.tail), 0);
	vf_doorbell(vf, &vf->rx);
	return len_bytes;
}
