// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into a nested guest's QEMU: where KVM stops a guest for an error that only
 * emulated SVM makes, the guest goes on.
 *
 * An exception that a guest has taken leaves its type in EXITINTINFO of the next exit when
 * QEMU emulates SVM (its helpers copy EVENTINJ, and clear no more of it than the bit that makes
 * it valid). KVM looks at the type without that bit: where the exit is a device access, it
 * says that the access was made while an event was being delivered, and gives up (internal
 * error, suberror 3). No instruction was carried out, so that it can simply be run again.
 */

#include <linux/kvm.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define VCPUS_MAX		16
#define AGAIN_MAX		8
#define DELIVERY_OF_AN_EVENT	3	/* KVM_INTERNAL_ERROR_DELIVERY_EV */

static struct {
	int fd;
	struct kvm_run *run;
} vcpus[VCPUS_MAX];
static unsigned int vcpus_known;

static bool is_vcpu(int fd)
{
	static const char kind[] = "anon_inode:kvm-vcpu:";
	char path[64], name[64] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return readlink(path, name, sizeof(name) - 1) > 0 && !strncmp(name, kind, strlen(kind));
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *got = (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
	unsigned int n;

	if (got != MAP_FAILED && fd >= 0 && offset == 0 && is_vcpu(fd)) {
		n = __atomic_fetch_add(&vcpus_known, 1, __ATOMIC_RELAXED);
		if (n < VCPUS_MAX) {
			vcpus[n].run = got;
			__atomic_store_n(&vcpus[n].fd, fd, __ATOMIC_RELEASE);
		}
	}
	return got;
}

void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return mmap(addr, len, prot, flags, fd, offset);
}

static const struct kvm_run *run_of(int fd)
{
	for (unsigned int n = 0; n < VCPUS_MAX; n++)
		if (vcpus[n].run && __atomic_load_n(&vcpus[n].fd, __ATOMIC_ACQUIRE) == fd)
			return vcpus[n].run;
	return NULL;
}

int ioctl(int fd, unsigned long request, ...)
{
	const struct kvm_run *run;
	va_list list;
	void *arg;
	long result;

	va_start(list, request);
	arg = va_arg(list, void *);
	va_end(list);
	result = syscall(SYS_ioctl, fd, request, arg);
	if (request != KVM_RUN)
		return result;
	run = run_of(fd);
	for (int n = 0; run && result == 0 && n < AGAIN_MAX; n++) {
		if (run->exit_reason != KVM_EXIT_INTERNAL_ERROR || run->internal.suberror != DELIVERY_OF_AN_EVENT)
			break;
		fprintf(stderr, "again: an event that was none, at device address %#llx\n",
			(unsigned long long)run->internal.data[3]);
		result = syscall(SYS_ioctl, fd, request, arg);
	}
	return result;
}
