#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Opens slices through VFIO and keeps them open until its input ends: holder.py UUID..."""

import fcntl
import os
import sys

# <linux/vfio.h>: _IO(';', 100 + n)
VFIO_SET_IOMMU = 0x3b66
VFIO_GROUP_SET_CONTAINER = 0x3b68
VFIO_GROUP_GET_DEVICE_FD = 0x3b6a
VFIO_TYPE1V2_IOMMU = 3

container = os.open("/dev/vfio/vfio", os.O_RDWR)
held = []
for uuid in sys.argv[1:]:
    group = os.path.basename(os.readlink(f"/sys/bus/mdev/devices/{uuid}/iommu_group"))
    group = os.open(f"/dev/vfio/{group}", os.O_RDWR)
    fcntl.ioctl(group, VFIO_GROUP_SET_CONTAINER, container.to_bytes(4, sys.byteorder))
    if not held:
        fcntl.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1V2_IOMMU)
    held.append((group, fcntl.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, uuid.encode() + b"\0")))
print("open", flush=True)
sys.stdin.read()
