#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 300
# The card goes from igb to Sluice and back, again and again, and works in both hands.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

ROUNDS=3

igb_works() {
	local i
	wait_for 20 host_interface || return
	i=$(host_interface)
	ip address replace 10.77.0.9/24 dev "$i" && ip link set "$i" up || return
	wait_for 30 eval "[[ \$(<$NIC_DIR/net/$i/carrier) == 1 ]]" || return
	ping -c 3 -i 0.2 -W 5 -w 40 "$PEER_IP"
}

take_from_igb() {
	take_card && [[ $(driver_of) == sluice && ! -e $NIC_DIR/net ]]
}

slices_possible() {
	(($(available) > 0))
}

# Sluice refuses to go while a slice exists, or removes it: never a dangling one.
give_back_with_slice() {
	local uuid
	uuid=$(new_slice) || return
	give_card_back || return
	[[ ! -e $(slice_dir "$uuid") ]]
}

plan $((4 + ROUNDS * 4 + 5))
check "igb loads" modprobe igb
check "igb drives the card" igb_works
check "module loads beside igb" load_module
check "the module does not take a card by itself" eval '[[ $(driver_of) == igb ]]'
for ((round = 1; round <= ROUNDS; round++)); do
	check "round $round: Sluice takes the card" take_from_igb
	check "round $round: slices are on offer" slices_possible
	check "round $round: igb takes it back" give_card_back
	check "round $round: igb works" igb_works
done
check "Sluice takes the card once more" take_from_igb
check "give-back removes a slice that nobody uses" give_back_with_slice
check "igb works after that" igb_works
check "module unloads" rmmod sluice
check "igb still works" igb_works
finish
