// SPDX-License-Identifier: GPL-2.0
/* Inline functions and macros of the kernel, as functions that Rust can call. */

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/hrtimer.h>
#include <linux/jiffies.h>
#include <linux/kobject.h>
#include <linux/kthread.h>
#include <linux/lockdep.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/task_work.h>
#include <xen/xen.h>

#include "shim.h"

/* Starts a thread; the caller gets a reference to its task. */
struct task_struct *sluice_thread_run(int (*main)(void *), void *data,
				      const char *name)
{
	struct task_struct *task = kthread_create(main, data, "%s", name);

	if (!IS_ERR(task)) {
		get_task_struct(task);
		wake_up_process(task);
	}
	return task;
}

/*
 * Sleeps until woken, until deadline_ns of the monotonic clock (U64_MAX: none),
 * or until the thread is to stop; not at all when ready() holds.
 */
void sluice_park(u64 deadline_ns, bool (*ready)(void *), void *data)
{
	set_current_state(TASK_IDLE);
	if (!kthread_should_stop() && !ready(data)) {
		if (deadline_ns == U64_MAX) {
			schedule();
		} else {
			ktime_t expires = ns_to_ktime(deadline_ns);

			schedule_hrtimeout_range(&expires, NSEC_PER_USEC,
						 HRTIMER_MODE_ABS);
		}
	}
	__set_current_state(TASK_RUNNING);
}

void sluice_cond_resched(void)
{
	cond_resched();
}

struct sluice_release {
	struct kobj_type type;
	void (*release)(struct kobject *kobj);
	struct completion done;
};

static void sluice_released(struct kobject *kobj)
{
	struct sluice_release *this = container_of((struct kobj_type *)kobj->ktype,
						   struct sluice_release, type);

	this->release(kobj);
	complete(&this->done);
}

/*
 * Drops a reference to an object that nobody can find any more. True if it was
 * the last and the object is released, so that its memory can be freed; false
 * if others still have theirs after timeout_ms. The release is waited for:
 * CONFIG_DEBUG_KOBJECT_RELEASE puts it off.
 */
bool sluice_kobject_put_last(struct kobject *kobj, unsigned int timeout_ms)
{
	unsigned long end = jiffies + msecs_to_jiffies(timeout_ms);
	struct sluice_release this = {
		.type = *kobj->ktype,
		.release = kobj->ktype->release,
		.done = COMPLETION_INITIALIZER_ONSTACK(this.done),
	};

	while (kref_read(&kobj->kref) > 1) {
		if (time_after(jiffies, end)) {
			kobject_put(kobj);
			return false;
		}
		msleep(1);
	}
	this.type.release = sluice_released;
	kobj->ktype = &this.type;
	kobject_put(kobj);
	wait_for_completion(&this.done);
	return true;
}

/*
 * Whether an object, in memory that was zero, is out of use after the attempt to
 * add it failed: it never came to be, or is released, which is waited for.
 */
bool sluice_kobject_is_gone(struct kobject *kobj)
{
	if (!kobj->state_initialized)
		return true;
	if (kref_read(&kobj->kref))
		return false;
#ifdef CONFIG_DEBUG_KOBJECT_RELEASE
	flush_delayed_work(&kobj->release);
#endif
	return true;
}

/* Between them, lockdep does not learn from what the thread does. */
void sluice_lockdep_off(void)
{
	lockdep_off();
}

void sluice_lockdep_on(void)
{
	lockdep_on();
}

/*
 * The kernel's address of a page that VFIO pinned, or NULL unless it is ordinary
 * RAM: not reserved (VFIO gives such frames without a reference), not a
 * device's, in the direct map.
 */
void *sluice_ram_address(const struct page *page)
{
	if (!page || !pfn_valid(page_to_pfn(page)) || PageReserved(page) ||
	    is_zone_device_page(page) || PageHighMem(page))
		return NULL;
	return page_address(page);
}

/* Whether a pinned page is the first of a huge page, or of 2^order pages in a larger one. */
bool sluice_starts_huge(struct page *page, unsigned int order)
{
	const struct folio *folio;

	if (!sluice_ram_address(page))
		return false;
	folio = page_folio(page);
	return folio_order(folio) >= order &&
	       !(folio_page_idx(folio, page) & ((1UL << order) - 1));
}

/* One more, or one less, reference to each of the pages from an address in the direct map on. */
void sluice_pages_get(const void *memory, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		get_page(virt_to_page(memory + i * PAGE_SIZE));
}

void sluice_pages_put(const void *memory, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		put_page(virt_to_page(memory + i * PAGE_SIZE));
}

/*
 * How guest pages are mapped: what the NIC writes is seen at once, and what the
 * guest writes; a page may be mapped any number of times. Where the kernel has
 * no word for that, sluice_dma_need_sync() tells.
 */
unsigned long sluice_dma_attrs(void)
{
#ifdef DMA_ATTR_REQUIRE_COHERENT
	return DMA_ATTR_REQUIRE_COHERENT;
#else
	return 0;
#endif
}

int sluice_dma_mapping_error(struct device *dev, u64 bus)
{
	return dma_mapping_error(dev, bus);
}

bool sluice_dma_need_sync(struct device *dev, u64 bus)
{
#ifdef DMA_ATTR_REQUIRE_COHERENT
	/* Xen's own mappings do not know that word. */
	return xen_domain() && dma_need_sync(dev, bus);
#else
	return dma_need_sync(dev, bus);
#endif
}

/* A copy from or to memory that a guest may be writing. */
void sluice_copy(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
}

struct sluice_return {
	struct callback_head work;
	void (*call)(void *);
	void *data;
};

/* A task may still have to return from this module's text when nothing else holds the module. */
static bool sluice_text_used;

void sluice_text_in_use(void)
{
	WRITE_ONCE(sluice_text_used, true);
}

void sluice_wait_for_returns(void)
{
	if (READ_ONCE(sluice_text_used))
		synchronize_rcu_tasks();
}

static void sluice_returns(struct callback_head *work)
{
	struct sluice_return *this = container_of(work, struct sluice_return, work);

	this->call(this->data);
	kfree(this);
	module_put(THIS_MODULE);
}

int sluice_on_return(void (*call)(void *), void *data)
{
	struct sluice_return *this;
	int error;

	/* A kernel thread never returns. */
	if (current->flags & PF_KTHREAD)
		return -ESRCH;
	/* A few bytes; the caller could not do without. */
	this = kmalloc(sizeof(*this), GFP_KERNEL | __GFP_NOFAIL);
	this->call = call;
	this->data = data;
	WRITE_ONCE(sluice_text_used, true);
	init_task_work(&this->work, sluice_returns);
	__module_get(THIS_MODULE);
	error = task_work_add(current, &this->work, TWA_RESUME);
	if (error) {
		module_put(THIS_MODULE);
		kfree(this);
	}
	return error;
}

struct task_struct *sluice_current(void)
{
	return current;
}
