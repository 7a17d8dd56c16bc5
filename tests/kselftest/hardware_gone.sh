#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 150
# vm: --hotplug
# machine: own
# The card leaves, or stops to answer, while slices carry traffic.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"
# shellcheck source=tests/kselftest/hardware_lib.sh
. "$(dirname "$0")/hardware_lib.sh"

card_is_gone() {
	[[ ! -e $NIC_DIR ]]
}

slices_are_gone() {
	local uuid
	for uuid; do
		[[ ! -e $(slice_dir "$uuid") ]] || return
	done
}

says_gone() {
	grep -q hardware_gone "$(slice_dir "$1")/state"
}

# A client that is let in goes on until it is stopped.
cannot_open() {
	local status=0
	timeout 30 /build/hostile/client "$1" /run/client-none peer0 peer || status=$?
	((status != 0 && status != 124))
}

plan 35
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
A=$(new_slice) B=$(new_slice) C=$(new_slice)
check "a VMM uses a slice" start_client a "$A"
check "another, which cannot be asked, uses one" start_client b "$B" stubborn
check "memory is pinned for it" has_pinned b

mark_log
check "the card is pulled out" yank_card
check "the kernel noticed" wait_for 30 said "(left the bus|read as ones): the card is out of use"
check "both slices stand still, and say why" wait_for 30 said "queue stopped: .* hardware_gone" 2
check "the VMM that was asked lets go" wait_for 30 client_let_go a
check "the other one is waited for, in words" wait_for 30 said "the VMM takes no requests"
check "its memory is free all the same" wait_for 30 has_nothing_pinned b
check "it lives" client_runs b
check "nothing was given up" eval '! said "given up"'
check "it is killed" kill_client b
check "the card is gone for good" wait_for 20 card_is_gone
check "so are the slices" slices_are_gone "$A" "$B" "$C"

check "a card is put in" plug_card nic0
check "Sluice takes it" take_card || skip_rest "no card"
A=$(new_slice) B=$(new_slice)
check "a VMM uses a slice of it" start_client a "$A" stubborn
check "packets are exchanged" exchanges a

mark_log
check "registers read as ones" registers_fail
check "that is noticed" wait_for 30 said "registers read as ones: the card is out of use"
check "the card masters the bus no more" eval '! bus_master'
check "the slice says why it stands still" wait_for 30 says_gone "$A"
check "nothing stays pinned" wait_for 30 has_nothing_pinned a
check "nothing was leaked" eval '[[ $(<"$(slice_dir "$A")/stats/leaked") == 0 ]]'
check "an idle slice cannot be opened" cannot_open "$B"
check "no slice can be made" eval '! new_slice'
kill_client a
check "the card can be given back" eval 'echo "$NIC" >"$NIC_DIR/driver/unbind"'
check "its registers come back" registers_come_back
check "Sluice takes it once more" take_card
A=$(new_slice)
check "a VMM uses a slice as if nothing had been" start_client a "$A" stubborn
kill_client a
check "igb can have the card" give_card_back
check "it is an 82576 with an interface" wait_for 20 host_interface
check "module unloads" rmmod sluice
finish
