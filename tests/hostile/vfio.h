/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A slice as a VMM sees it: one VFIO container, group and device.
 *
 * Functions return 0 or a negative errno.
 */
#ifndef HOSTILE_VFIO_H
#define HOSTILE_VFIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/vfio.h>

#define VFIO_UUID_LEN	36

struct vfio_dev {
	char uuid[VFIO_UUID_LEN + 1];
	int container;
	int group;
	int device;
	uint32_t num_regions;
	uint32_t num_irqs;
	struct vfio_region_info region[VFIO_PCI_NUM_REGIONS];
};

/* Opens the slice; -EBUSY when somebody else has it. */
int vfio_open(struct vfio_dev *dev, const char *uuid);
/* The steps of vfio_open(), for tests that do something between them. */
int vfio_open_group(struct vfio_dev *dev, const char *uuid);
int vfio_open_device(struct vfio_dev *dev);
/* Opens one more slice, whose memory is that of @first: one container for both. */
int vfio_join(struct vfio_dev *dev, const char *uuid, const struct vfio_dev *first);
void vfio_close(struct vfio_dev *dev);

/* Guest memory. @flags: VFIO_DMA_MAP_FLAG_READ and _WRITE. */
int vfio_map(struct vfio_dev *dev, void *va, uint64_t iova, uint64_t len_bytes, uint32_t flags);
int vfio_unmap(struct vfio_dev *dev, uint64_t iova, uint64_t len_bytes);

/* One access of @width bytes at @offset of region @index. */
int vfio_read(struct vfio_dev *dev, uint32_t index, uint64_t offset, void *value, size_t width);
int vfio_write(struct vfio_dev *dev, uint32_t index, uint64_t offset, const void *value, size_t width);

int vfio_reset(struct vfio_dev *dev);
/* Makes @count MSI-X vectors signal the eventfds in @fds. */
int vfio_irqs_on(struct vfio_dev *dev, const int32_t *fds, uint32_t count);
int vfio_irqs_off(struct vfio_dev *dev);

#endif
