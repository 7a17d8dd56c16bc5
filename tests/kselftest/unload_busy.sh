#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 200
# While a slice is in use neither module, nor card, nor slice can be pulled from under it.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

PUMP=/build/hostile/pump
COUNT=3000
said=$(mktemp)

# A driver in user space has the slice, and receives packets.
user_starts() {
	"$PUMP" receive "$A" "$COUNT" >"$said" &
	user=$!
	wait_for 20 grep -q '^ready ' "$said"
}

user_receives() {
	peer "$TRAFFIC" send peer0 "$(sed -n 's/^ready //p' "$said")" -n "$COUNT" -b 16 -w 128 && wait "$user" || return
	cat "$said"
	grep -q "^received=$COUNT lost=0 " "$said"
}

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
	kill -KILL "$user"
	wait "$pid" && [[ ! -e $(slice_dir "$A") ]]
}

plan 13
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
A=$(new_slice)
check "an idle slice goes with the module" idle_slice_goes
check "module loads again" load_module
check "Sluice takes the card again" take_card || skip_rest "no card"
A=$(new_slice)
check "a user has the slice" user_starts
check "slice is running" state_is running
check "rmmod is refused" eval '! rmmod sluice'
check "a new address is refused" eval '! echo 52:54:00:77:aa:02 >"$(slice_dir "$A")/mac"'
check "the user goes on" user_receives
check "the next user has the slice" user_starts
check "removing the slice waits for its user" remove_waits
check "module unloads once nobody uses it" wait_for 20 rmmod sluice
finish
