/* SPDX-License-Identifier: GPL-2.0 */
/* Headers that the kernel's own Rust bindings lack. */

#include <linux/eventfd.h>
#include <linux/kthread.h>
#include <linux/mdev.h>
#include <linux/vfio.h>
#include "shim.h"
