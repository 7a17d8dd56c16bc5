# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
# What the build root is made of. Sourced by the other scripts.

# Raised by hand when an existing cache must not be used any more.
RECIPE=1

SUITE=trixie

# Kernel series that the module supports, best first.
KERNEL_SERIES=(7.3 7.2)

BUILD_PACKAGES=(
	make gcc bc flex bison libelf-dev libssl-dev libc6-dev pahole kmod cpio xz-utils
	rustc rust-src rustfmt rust-clippy cargo bindgen libclang-dev python3 shellcheck
)

# For libFuzzer, which cargo builds from its C++ source.
FUZZ_PACKAGES=(libclang-rt-dev g++)

VM_PACKAGES=(
	qemu-system-x86 ipxe-qemu busybox-static iproute2 iputils-ping iperf3 ethtool tcpdump
	python3 procps pciutils mdevctl
)

# For the debug kernel: KASAN and Rust together need clang, of the LLVM that rustc has.
DEBUG_LLVM=19
# How much longer everything may take on it.
DEBUG_TIME_SCALE=5
DEBUG_PACKAGES=("clang-$DEBUG_LLVM" "lld-$DEBUG_LLVM" "llvm-$DEBUG_LLVM")
