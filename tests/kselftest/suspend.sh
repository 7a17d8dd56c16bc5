#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 150
# vm: --hotplug
# The host sleeps between two uses of a slice: as far as drivers put devices to sleep, not until the power is off.
# The last test of its machine: what emulates that does not wake up whole.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"
# shellcheck source=tests/kselftest/hardware_lib.sh
. "$(dirname "$0")/hardware_lib.sh"

# Up to where drivers have put their devices to sleep, and back after some seconds.
host_sleeps() {
	echo devices >/sys/power/pm_test && echo freeze >/sys/power/state
}

received() {
	cat "$NIC_DIR/sluice_stats/rx_packets"
}

# What the port counted before it slept, and nobody has read.
counters_live_on() {
	local after
	after=$(received)
	echo "$before before, $rounds answers, $after after"
	((rounds > 0 && after >= before + rounds))
}

plan 8
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
A=$(new_slice)
echo 02:00:00:00:00:77 >"$(slice_dir "$A")/macs"
before=$(received)
check "a VMM uses the slice" start_client a "$A" stubborn
kill_client a
rounds=$((10#$(client_says a rounds)))
mark_log
check "the host sleeps while no slice is in use" host_sleeps
check "the card woke up" eval '! said "does not wake up|out of use"'
check "the port's counters go on" counters_live_on
check "a VMM uses the slice that was there before" start_client a "$A" stubborn
kill_client a
check "module unloads" wait_for 20 rmmod sluice
finish
