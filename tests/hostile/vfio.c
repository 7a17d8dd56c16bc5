// SPDX-License-Identifier: GPL-2.0
/* A slice as a VMM sees it: one VFIO container, group and device. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vfio.h"

static int call(int fd, unsigned long request, void *arg)
{
	int ret = ioctl(fd, request, arg);

	return ret < 0 ? -errno : ret;
}

/* The number in the name of the link .../UUID/iommu_group. */
static int group_number(const char *uuid)
{
	char path[PATH_MAX], target[PATH_MAX];
	const char *name;
	ssize_t len;

	snprintf(path, sizeof(path), "/sys/bus/mdev/devices/%s/iommu_group", uuid);
	len = readlink(path, target, sizeof(target) - 1);
	if (len < 0)
		return -errno;
	target[len] = '\0';
	name = strrchr(target, '/');
	return name ? atoi(name + 1) : -EINVAL;
}

/* The slice's group, in the container @container. Leaves what it opened to the caller. */
static int open_group_in(struct vfio_dev *dev, const char *uuid, int container)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[64];
	int ret;

	memset(dev, 0, sizeof(*dev));
	dev->container = container;
	dev->group = -1;
	dev->device = -1;
	snprintf(dev->uuid, sizeof(dev->uuid), "%s", uuid);
	if (container < 0)
		return -errno;

	ret = group_number(uuid);
	if (ret < 0)
		return ret;
	snprintf(path, sizeof(path), "/dev/vfio/%d", ret);
	dev->group = open(path, O_RDWR | O_CLOEXEC);
	if (dev->group < 0)
		return -errno;
	ret = call(dev->group, VFIO_GROUP_GET_STATUS, &status);
	if (!ret && !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		ret = -EPERM;
	if (!ret)
		ret = call(dev->group, VFIO_GROUP_SET_CONTAINER, &dev->container);
	return ret;
}

int vfio_open_group(struct vfio_dev *dev, const char *uuid)
{
	int ret = open_group_in(dev, uuid, open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC));

	if (!ret)
		ret = call(dev->container, VFIO_SET_IOMMU, (void *)VFIO_TYPE1v2_IOMMU);
	if (ret)
		vfio_close(dev);
	return ret;
}

int vfio_join(struct vfio_dev *dev, const char *uuid, const struct vfio_dev *first)
{
	int ret = open_group_in(dev, uuid, dup(first->container));

	if (!ret)
		ret = vfio_open_device(dev);
	if (ret)
		vfio_close(dev);
	return ret;
}

int vfio_open_device(struct vfio_dev *dev)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	int ret;

	ret = call(dev->group, VFIO_GROUP_GET_DEVICE_FD, dev->uuid);
	if (ret < 0)
		return ret;
	dev->device = ret;

	ret = call(dev->device, VFIO_DEVICE_GET_INFO, &info);
	if (ret)
		return ret;
	dev->num_regions = info.num_regions;
	dev->num_irqs = info.num_irqs;

	for (uint32_t i = 0; i < VFIO_PCI_NUM_REGIONS && i < info.num_regions; i++) {
		struct vfio_region_info *region = &dev->region[i];

		region->argsz = sizeof(*region);
		region->index = i;
		/* A function need not have every region (no ROM, no VGA). */
		if (call(dev->device, VFIO_DEVICE_GET_REGION_INFO, region))
			region->size = 0;
	}
	return 0;
}

int vfio_open(struct vfio_dev *dev, const char *uuid)
{
	int ret = vfio_open_group(dev, uuid);

	if (ret)
		return ret;
	ret = vfio_open_device(dev);
	if (ret)
		vfio_close(dev);
	return ret;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void vfio_close(struct vfio_dev *dev)
{
	close_fd(&dev->device);
	close_fd(&dev->group);
	close_fd(&dev->container);
}

int vfio_map(struct vfio_dev *dev, void *va, uint64_t iova, uint64_t len_bytes, uint32_t flags)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = flags,
		.vaddr = (uintptr_t)va,
		.iova = iova,
		.size = len_bytes,
	};

	return call(dev->container, VFIO_IOMMU_MAP_DMA, &map);
}

int vfio_unmap(struct vfio_dev *dev, uint64_t iova, uint64_t len_bytes)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = iova,
		.size = len_bytes,
	};

	return call(dev->container, VFIO_IOMMU_UNMAP_DMA, &unmap);
}

int vfio_read(struct vfio_dev *dev, uint32_t index, uint64_t offset, void *value, size_t width)
{
	ssize_t done = pread(dev->device, value, width, dev->region[index].offset + offset);

	if (done < 0)
		return -errno;
	return (size_t)done == width ? 0 : -EIO;
}

int vfio_write(struct vfio_dev *dev, uint32_t index, uint64_t offset, const void *value, size_t width)
{
	ssize_t done = pwrite(dev->device, value, width, dev->region[index].offset + offset);

	if (done < 0)
		return -errno;
	return (size_t)done == width ? 0 : -EIO;
}

int vfio_reset(struct vfio_dev *dev)
{
	return call(dev->device, VFIO_DEVICE_RESET, NULL);
}

int vfio_irqs_on(struct vfio_dev *dev, const int32_t *fds, uint32_t count)
{
	size_t len_bytes = sizeof(struct vfio_irq_set) + count * sizeof(*fds);
	struct vfio_irq_set *set = calloc(1, len_bytes);
	int ret;

	if (!set)
		return -ENOMEM;
	set->argsz = len_bytes;
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = VFIO_PCI_MSIX_IRQ_INDEX;
	set->count = count;
	memcpy(set->data, fds, count * sizeof(*fds));
	ret = call(dev->device, VFIO_DEVICE_SET_IRQS, set);
	free(set);
	return ret;
}

int vfio_irqs_off(struct vfio_dev *dev)
{
	struct vfio_irq_set set = {
		.argsz = sizeof(set),
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_MSIX_IRQ_INDEX,
	};

	return call(dev->device, VFIO_DEVICE_SET_IRQS, &set);
}
