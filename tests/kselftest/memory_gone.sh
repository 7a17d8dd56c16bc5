#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 400
# A VMM takes memory away that the NIC uses (tests/hostile/cases/memory_*.c); KTAP as it is.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

if ! load_module || ! take_card; then
	plan 1
	fail "Sluice takes the card"
	finish
fi
modprobe -q fuse
HOSTILE_A=$(new_slice) HOSTILE_B=$(new_slice) HOSTILE_C=$(new_slice) HOSTILE_PCI=$NIC
export HOSTILE_A HOSTILE_B HOSTILE_C HOSTILE_PCI HOSTILE_PEER_IF=peer0 HOSTILE_PEER_NETNS=peer

# Tests may be named: -r memory_gone.copy.kinds_of_memory; under all strategies: -f memory_gone
(($#)) || set -- -F attacker -F intruder -v persistent
exec "/build/hostile/hostile" "$@"
