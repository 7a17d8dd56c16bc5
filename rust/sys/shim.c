// SPDX-License-Identifier: GPL-2.0
/* Inline functions and macros of the kernel, as functions that Rust can call. */

#include <linux/printk.h>

#include "shim.h"

void sluice_log(const char *text)
{
	pr_info("sluice: %s\n", text);
}
