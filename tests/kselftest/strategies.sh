#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 400
# Every mapping strategy carries a guest's traffic, and one follows the other under it.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

STRATEGIES=(single-use shared persistent direct-map copy)
rates=()

stat_of() {
	cat "$(slice_dir "$A")/stats/$1"
}

choose() {
	echo "$1" >"$(slice_dir "$A")/strategy" && [[ $(<"$(slice_dir "$A")/strategy") == "$1" ]]
}

tcp_both_ways() {
	local out in
	out=$(tcp a "$PEER_IP" 2) && in=$(tcp a "$PEER_IP" 2 -R) &&
		rates+=("$1: $out Mbit/s out, $in in; pins $(stat_of pins), hits $(stat_of hits), now $(stat_of pinned_bytes) bytes")
}

# No strategy leaves the guest without its queues, and nothing is counted as a fault.
switching_under_traffic() {
	local pid strategy
	in_guest a --timeout 90 "iperf3 -c $PEER_IP -t 12 --connect-timeout 20000" >/dev/null &
	pid=$!
	for _ in 1 2; do
		for strategy in "${STRATEGIES[@]}"; do
			sleep 0.5
			choose "$strategy" || return
		done
	done
	wait "$pid" && [[ $(<"$(slice_dir "$A")/state") == running && $(rejected "$A") == 0 ]]
}

all_unpinned() {
	[[ $(stat_of pins) == "$(stat_of unpins)" && $(stat_of pinned_bytes) == 0 ]]
}

plan $((8 + 2 * ${#STRATEGIES[@]}))
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
A=$(new_slice)
check "an unknown strategy is refused" eval '! echo sometimes >"$(slice_dir "$A")/strategy"'
check "guest starts" start_guests "a=$A" || skip_rest "no guest"
check "guest has a link" guest_up a 10.77.0.11
peer_iperf_server
for strategy in "${STRATEGIES[@]}"; do
	check "$strategy is chosen" choose "$strategy"
	check "$strategy carries TCP both ways" tcp_both_ways "$strategy"
done
comment "${rates[@]}"
check "one strategy follows the other under traffic" switching_under_traffic
check "guest still reaches the peer" guest_pings a "$PEER_IP" 5
guest kill a
check "nothing stays pinned" wait_for 20 all_unpinned
finish_slices
