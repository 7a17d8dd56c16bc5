#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 1500
# Each allocation that the module makes, in what an administrator and a VMM can have it do, fails
# once: what was asked for fails or works, and nothing is left behind. For the debug kernel.
# Which of the actions may be named: "making a slice" open

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

FAULTS=/build/faults/faults
FAIL=/sys/kernel/debug/fail

if [[ ! -e ${FAIL}slab ]]; then
	printf 'KTAP version 1\n1..0 # SKIP needs a kernel that can fail allocations (make test-debug)\n'
	exit
fi

# only_from FIRST END: allocations fail if a caller's address is in this range.
only_from() {
	local dir
	for dir in "${FAIL}slab" "${FAIL}_page_alloc"; do
		echo N >"$dir/ignore-gfp-wait"
		echo 0 >"$dir/verbose"
		# Not what the bus's code allocates deep down for interrupts: there the kernel itself uses
		# what it has freed (ACPI's routing table), or warns (/proc/irq).
		echo 10 >"$dir/stacktrace-depth"
		echo "$1" >"$dir/require-start"
		echo "$2" >"$dir/require-end"
	done
	echo 0 >"${FAIL}_page_alloc/min-order"
}

from_sluice() {
	local size base
	read -r _ size _ _ _ base _ < <(grep '^sluice ' /proc/modules)
	only_from "$base" "$(printf '0x%x' $((base + size)))"
}

# Where there are hundreds, most are the host's buffers: of those between this many first ones and
# this many last ones only each STEP-th fails.
ENDS=24
STEP=32

# sweep AFTER FAULTS-ARGUMENT...: fails the first allocation, the second, and so on until there are
# no more; AFTER is run after each and says whether all is as before.
sweep() {
	local after=$1 n total status failed=0
	shift
	total=$("$FAULTS" 1000000 "$@")
	status=$?
	if ! "$after" || ((status != 10)); then
		echo "status $status without a fault: $total"
		return 1
	fi
	for ((n = 1; n < 10000; n += n >= ENDS && n + STEP < total - ENDS ? STEP : 1)); do
		"$FAULTS" "$n" "$@" >/tmp/faults
		status=$?
		"$after" || { echo "allocation $n: something is left behind"; return 1; }
		case $status in
		0) failed=$((failed + 1)) ;;
		10)
			echo "$failed of $total allocations failed"
			((failed >= 2))
			return
			;;
		*)
			echo "allocation $n: status $status: $(</tmp/faults)"
			return 1
			;;
		esac
	done
	return 1
}

# sweep_check NAME AFTER ...: shows how many allocations there were.
sweep_check() {
	local name=$1 output status
	shift
	if ((${#only[@]})) && [[ " ${only[*]} " != *" $name "* ]]; then
		skip "$name" "others were named"
		return
	fi
	output=$(sweep "$@" 2>&1)
	status=$?
	comment "$name: $output"
	if ((status == 0)); then pass "$name"; else fail "$name"; fi
}

# The debug kernel lets go of a driver's name seconds after it could not be registered.
name_is_free() {
	! compgen -G "$1"
}

unloaded() {
	[[ ! -e /sys/module/sluice ]] || rmmod sluice || return
	wait_for 20 name_is_free /sys/bus/pci/drivers/sluice
}

unbound() {
	[[ $(driver_of) != sluice ]] || echo "$NIC" >/sys/bus/pci/drivers/sluice/unbind
	[[ ! -e $TYPE_DIR && $(</sys/module/sluice/refcnt) == 0 ]] || return
	wait_for 20 name_is_free "/sys/bus/mdev/drivers/sluice-*"
}

no_slices() {
	local dir
	for dir in /sys/bus/mdev/devices/*; do
		[[ ! -e $dir ]] || remove_slice "${dir##*/}" || return
	done
	# The debug kernel releases objects seconds after their last use.
	wait_for 20 all_available
}

all_available() {
	[[ $(available) == "$free" ]]
}

# Closed, and nothing pinned.
idle() {
	local dir
	echo persistent >"$(slice_dir "$A")/strategy" || return
	dir=$(slice_dir "$A")
	[[ $(<"$dir/state") == closed* && $(<"$dir/stats/pins") == "$(<"$dir/stats/unpins")" && $(<"$dir/stats/pinned_bytes") == 0 ]]
}

# No allocation to fail.
takes_none() {
	local count
	count=$("$FAULTS" 1000000 "$1" "$A")
	(($? == 10)) && [[ $count == 0 ]]
}

only=("$@")
plan 13
# Modules lie in the last two GiB.
only_from 0xffffffffa0000000 0xffffffffff000000
modprobe -a mdev vfio vfio_iommu_type1
# Not from the shared folder: its driver is a module too, and does not survive this.
cp "$MODULE" /run/sluice.ko
sweep_check "inserting the module" unloaded load /run/sluice.ko

check "module loads" load_module || skip_rest "no module"
from_sluice
[[ ! -e $NIC_DIR/driver ]] || echo "$NIC" >"$NIC_DIR/driver/unbind"
echo sluice >"$NIC_DIR/driver_override"
sweep_check "taking the card" unbound write /sys/bus/pci/drivers/sluice/bind "$NIC"

check "Sluice takes the card" take_card || skip_rest "no card"
free=$(available)
sweep_check "making a slice" no_slices write "$TYPE_DIR/create" new-uuid

A=$(new_slice)
for step in open start copy pin; do
	sweep_check "$step" idle "$step" "$A"
done
check "connecting interrupts takes no memory" takes_none irqs
check "sending takes no memory of the worker" takes_none work
check "the slice is removed" remove_slice "$A"
check "module unloads" eval 'unbound && rmmod sluice'
finish
