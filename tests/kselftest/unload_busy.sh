#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 400
# While a slice is in use neither module, nor card, nor slice can be pulled from under it.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

# One guest at a time: see start_guests.
export GUEST_CPUS=0-1

state_is() {
	[[ $(<"$(slice_dir "$A")/state") == "$1"* ]]
}

# Slices that nobody uses do not keep the module.
idle_slice_goes() {
	rmmod sluice && [[ ! -e $(slice_dir "$A") ]]
}

user_was_asked() {
	dmesg | grep -q "$A: in use: "
}

# The kernel waits for the user of the slice: it goes through when that one ends.
remove_waits() {
	remove_slice "$A" &
	local pid=$!
	wait_for 20 user_was_asked && kill -0 "$pid" || return
	guest kill a
	wait "$pid" && [[ ! -e $(slice_dir "$A") ]]
}

plan 14
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
A=$(new_slice)
check "an idle slice goes with the module" idle_slice_goes
check "module loads again" load_module
check "Sluice takes the card again" take_card || skip_rest "no card"
A=$(new_slice)
check "guest starts" start_guests "a=$A"
check "guest has a link" guest_up a 10.77.0.11
check "guest reaches the peer" guest_pings a "$PEER_IP"
check "slice is running" state_is running
check "rmmod is refused" eval '! rmmod sluice'
check "a new address is refused" eval '! echo 52:54:00:77:aa:02 >"$(slice_dir "$A")/mac"'
check "guest still reaches the peer" guest_pings a "$PEER_IP"
check "removing the slice waits for its user" remove_waits
check "module unloads once nobody uses it" wait_for 20 rmmod sluice
finish
