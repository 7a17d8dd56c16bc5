#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The module loads and unloads, again and again, and leaves nothing behind.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"

module=/build/module/sluice.ko

load_twenty_times() {
	local i
	for ((i = 0; i < 20; i++)); do
		insmod "$module" && rmmod sluice || return
	done
}

is_gone() {
	[[ ! -e /sys/module/sluice ]]
}

plan 4
# insmod does not load what the module depends on.
check "dependencies load" modprobe -a vfio mdev
check "module is for this kernel" eval "[[ \$(modinfo -F vermagic $module) == \"\$(uname -r) \"* ]]"
check "load and unload 20 times" load_twenty_times
check "nothing is left" is_gone
finish
