#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 200
# vm: --hotplug
# The link comes and goes; the host wants to sleep, the administrator wants the card back, while slices
# carry traffic.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"
# shellcheck source=tests/kselftest/hardware_lib.sh
. "$(dirname "$0")/hardware_lib.sh"

links_are() {
	link_is a "$1" && link_is b "$1"
}

sleep_fails() {
	local error
	error=$( (echo freeze >/sys/power/state) 2>&1) && return 1
	echo "$error"
	[[ $error == *"Device or resource busy"* ]]
}

plan 29
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
A=$(new_slice) B=$(new_slice)
check "a VMM uses a slice" start_client a "$A"
check "another, which cannot be asked, uses one" start_client b "$B" stubborn

for round in 1 2; do
	check "round $round: the wire is cut" monitor set_link name=nic0 up=false
	check "round $round: guests see it" wait_for 20 links_are 0
	check "round $round: the wire is mended" monitor set_link name=nic0 up=true
	check "round $round: guests see it" wait_for 30 links_are 1
	check "round $round: packets are exchanged" exchanges a b
done

mark_log
check "the host may not sleep" sleep_fails
check "it says why" said "slices are in use: no sleep"
check "packets are exchanged" exchanges a b

check "rmmod is refused" eval '! rmmod sluice'
mark_log
unbind_begin
check "the VMM that is asked lets go" wait_for 30 client_let_go a
check "unbinding waits for the other one" unbind_waits
check "which is said" wait_for 30 said "the VMM takes no requests"
check "that one goes on" exchanges b
check "until the hardware is taken from it" wait_for 60 said "taking the hardware away"
check "nothing stays pinned" wait_for 30 has_nothing_pinned b
check "it sees no link" wait_for 30 link_is b 0
check "unbinding still waits" unbind_waits
check "it is killed" kill_client b
check "the card is given back" wait_for 20 unbind_ended

check "module unloads" rmmod sluice
finish
