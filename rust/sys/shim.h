/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SLUICE_SHIM_H
#define SLUICE_SHIM_H

#include <linux/types.h>

struct device;
struct kobject;
struct page;
struct task_struct;

struct task_struct *sluice_thread_run(int (*main)(void *), void *data,
				      const char *name);
void sluice_park(u64 deadline_ns, bool (*ready)(void *), void *data);
void sluice_cond_resched(void);

bool sluice_kobject_put_last(struct kobject *kobj, unsigned int timeout_ms);
bool sluice_kobject_is_gone(struct kobject *kobj);
void sluice_lockdep_off(void);
void sluice_lockdep_on(void);
void *sluice_ram_address(const struct page *page);
bool sluice_starts_huge(struct page *page, unsigned int order);
void sluice_pages_get(const void *memory, unsigned int count);
void sluice_pages_put(const void *memory, unsigned int count);
unsigned long sluice_dma_attrs(void);
int sluice_dma_mapping_error(struct device *dev, u64 bus);
bool sluice_dma_need_sync(struct device *dev, u64 bus);
void sluice_copy(void *to, const void *from, size_t len);

/* Calls call(data) when the current thread returns to user space. */
int sluice_on_return(void (*call)(void *), void *data);
struct task_struct *sluice_current(void);
/* The current thread is not waited for: it may be in this module's text a little longer. */
void sluice_text_in_use(void);
/* To be called last when the module ends. */
void sluice_wait_for_returns(void);

#endif
