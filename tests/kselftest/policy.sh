#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 300
# What a slice may send, receive and ask for (tests/policy); its KTAP is printed as it is.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

if ! load_module || ! take_card; then
	plan 1
	fail "Sluice takes the card"
	finish
fi
POLICY_A=$(new_slice) POLICY_B=$(new_slice)
export POLICY_A POLICY_B POLICY_PEER_IF=peer0 POLICY_PEER_NETNS=peer

exec /build/policy/policy "$@"
