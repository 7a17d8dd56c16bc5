/* SPDX-License-Identifier: GPL-2.0 */
/* What the module and the kernel say about a slice and about memory. */
#ifndef HOSTILE_SYSFS_H
#define HOSTILE_SYSFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What the slice's counters of the rules in @names ("a|b|c") add up to;
 * UINT64_MAX if there are none of these names.
 */
uint64_t rejections_of(const char *uuid, const char *names);
/* The sum over all rules. */
uint64_t rejections_all(const char *uuid);
/* Waits until one of the rules in @names has been counted since @before. */
bool rejection_comes(const char *uuid, const char *names, uint64_t before);

/* The slice's "state", in @text; empty if it cannot be read. */
void state_of(const char *uuid, char *text, size_t len);
/* Waits until the slice's "state" is @want. */
bool state_comes(const char *uuid, const char *want);
/* Writes a setting of the slice; 0 or a negative errno. */
int set_slice(const char *uuid, const char *name, const char *value);
/* One of the slice's "stats"; UINT64_MAX if there is none of this name. */
uint64_t stat_of(const char *uuid, const char *name);
/* Waits until it is @want. */
bool stat_comes(const char *uuid, const char *name, uint64_t want);

/* State and counters that are not zero, for a human. */
void rejections_print(const char *uuid);

/* Physical address of a page of this process; 0 if not known. */
uint64_t physical_address(const void *va);
/* Physical address of the kernel's code; 0 if not known. */
uint64_t kernel_code_address(void);
/* Memory of this process that is locked or pinned, in KiB. */
long locked_kib(void);

#endif
