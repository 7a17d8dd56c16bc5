#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 900
# A hostile guest and VMM (tests/hostile) beside a neighbour; its KTAP is printed as it is.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

if ! load_module || ! take_card; then
	plan 1
	fail "Sluice takes the card"
	finish
fi
jumbo_wire
HOSTILE_A=$(new_slice) HOSTILE_B=$(new_slice) HOSTILE_PCI=$NIC
export HOSTILE_A HOSTILE_B HOSTILE_PCI HOSTILE_PEER_IF=peer0 HOSTILE_PEER_NETNS=peer
# Physical addresses in messages and /proc are for these tests only.
sysctl -q kernel.kptr_restrict=0

# What memory_gone.sh runs is not run twice. Where all takes five times as long (the debug kernel), the
# other strategies are run by name: -F memory_gone -F intruder -v copy
(($#)) || set -- -F memory_gone
[[ $* != "-F memory_gone" || ${SLUICE_TIME_SCALE:-1} == 1 ]] || set -- -F memory_gone -f intruder -v persistent
exec "/build/hostile/hostile" "$@"
