#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 300
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
	link_is a "$1" && link_is b "$1" && link_is c "$1"
}

# The two that take no requests.
have_nothing_pinned() {
	has_nothing_pinned b && has_nothing_pinned c
}

see_no_link() {
	link_is b 0 && link_is c 0
}

unused_is_refused() {
	local error
	error=$(timeout 60 /build/hostile/client "$A" /run/client-d peer0 peer 2>&1)
	echo "$error"
	[[ $error == *"No such device"* ]]
}

# In the background: it waits for the VMM.
remove_begin() {
	echo 1 >"/sys/bus/mdev/devices/$1/remove" &
}

sleep_fails() {
	local error
	error=$( (echo freeze >/sys/power/state) 2>&1) && return 1
	echo "$error"
	[[ $error == *"Device or resource busy"* ]]
}

plan 46
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
# VFIO waits for one after the other, in this order.
B=$(new_slice) A=$(new_slice) C=$(new_slice)
check "a VMM uses a slice" start_client a "$A"
check "another, which cannot be asked, uses one" start_client b "$B" stubborn
check "and one more" start_client c "$C" stubborn

for round in 1 2; do
	check "round $round: the wire is cut" monitor set_link name=nic0 up=false
	check "round $round: guests see it" wait_for 20 links_are 0
	check "round $round: the wire is mended" monitor set_link name=nic0 up=true
	check "round $round: guests see it" wait_for 30 links_are 1
	check "round $round: packets are exchanged" exchanges a b c
done

mark_log
check "the host may not sleep" sleep_fails
check "it says why" said "slices are in use: no sleep"
check "packets are exchanged" exchanges a b c

check "rmmod is refused" eval '! rmmod sluice'
mark_log
unbind_begin
# The others have 20 seconds, on a slow machine, too: first, and no more than it takes.
check "those that are not asked go on" goes_on b c
check "the VMM that is asked lets go" wait_for 30 client_let_go a
check "unbinding waits for the others" unbind_waits
check "which is said" wait_for 30 said "the VMM takes no requests"
check "a slice that is not in use stays so" unused_is_refused
check "until the hardware is taken from them" wait_for 60 said "taking the hardware of all slices away"
check "nothing stays pinned" wait_for 30 have_nothing_pinned
check "they see no link" wait_for 30 see_no_link
check "unbinding still waits" unbind_waits
check "one is killed" kill_client b
check "unbinding waits for the other" wait_for 30 said "the VMM takes no requests" 2
check "which stands still as before" eval 'client_runs c && link_is c 0'
check "it is killed" kill_client c
check "the card is given back" wait_for 20 unbind_ended

# One slice is waited for already when the whole card is wanted back: that the others have to give
# it back they learn all the same.
check "Sluice takes the card again" take_card
B=$(new_slice) C=$(new_slice)
check "a VMM uses a slice" start_client b "$B" stubborn
check "another uses one" start_client c "$C" stubborn
mark_log
remove_begin "$B"
check "the first slice is wanted back" wait_for 60 said "taking the hardware away"
check "nothing of it stays pinned" wait_for 30 has_nothing_pinned b
check "the other goes on" goes_on c
unbind_begin
check "the card is wanted back" wait_for 90 said "taking the hardware of all slices away"
check "nothing of the other stays pinned" wait_for 30 has_nothing_pinned c
check "it still waits for the first" eval 'client_runs b && unbind_waits'
check "which is killed" kill_client b
check "so is the other" kill_client c
check "the card is given back" wait_for 30 unbind_ended

check "module unloads" rmmod sluice
finish
