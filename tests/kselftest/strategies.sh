#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 500
# Every mapping strategy carries a guest's traffic.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

# One guest at a time: see start_guests.
export GUEST_CPUS=0-1

HUGE_PAGES=/sys/kernel/mm/transparent_hugepage/enabled
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
	out=$(tcp a "$PEER_IP" 1) && in=$(tcp a "$PEER_IP" 1 -R) &&
		rates+=("$1: $out Mbit/s out, $in in; pins $(stat_of pins), hits $(stat_of hits), now $(stat_of pinned_bytes) bytes")
}

moved_since() {
	(($(stat_of tx_packets) > $1 + 20 && $(stat_of rx_packets) > $2 + 20))
}

# switching_under [-R]: a TCP stream goes on after each of many changes, and the wire's two
# ends never disagree for good: it is one connection.
switching_under() {
	local strategy sent received status=0
	in_guest a "iperf3 -c $PEER_IP -t 600 $* --connect-timeout 20000 >/tmp/stream 2>&1 & echo \$! >/tmp/stream.pid" || return
	wait_for 20 moved_since "$(stat_of tx_packets)" "$(stat_of rx_packets)" || return
	for strategy in "${STRATEGIES[@]}" "${STRATEGIES[0]}"; do
		sent=$(stat_of tx_packets) received=$(stat_of rx_packets)
		choose "$strategy" || status=1
		wait_for 30 moved_since "$sent" "$received" || { echo "stuck under $strategy" && status=1; }
	done
	in_guest a 'kill $(cat /tmp/stream.pid) && ! grep -i error /tmp/stream' && return "$status"
}

all_unpinned() {
	[[ $(stat_of pins) == "$(stat_of unpins)" && $(stat_of pinned_bytes) == 0 ]]
}

# A guest in small pages has each pinned for itself (granules.sh has one in huge pages).
no_granules() {
	[[ $(stat_of granules) == 0 && $(stat_of pinned_bytes) -gt 0 && $(stat_of pins) -le $(stat_of misses) ]]
}

# With its queues off and the strategy gone, nothing is left of what it pinned.
nothing_left() {
	in_guest a "i=$GUEST_IF; ip link set \$i down" && choose single-use && wait_for 20 all_unpinned
}

setting=$(grep -o '\[.*\]' "$HUGE_PAGES" | tr -d '[]')
trap 'echo "$setting" >"$HUGE_PAGES"' EXIT
plan $((10 + 5 * ${#STRATEGIES[@]}))
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
A=$(new_slice)
check "an unknown strategy is refused" eval '! echo sometimes >"$(slice_dir "$A")/strategy"'
peer_iperf_server
echo never >"$HUGE_PAGES"
check "guest starts" start_guests "a=$A" || skip_rest "no guest"
for strategy in "${STRATEGIES[@]}"; do
	check "$strategy is chosen" choose "$strategy"
	check "$strategy: guest has a link" guest_up a 10.77.0.11
	check "$strategy: TCP both ways" tcp_both_ways "$strategy"
	[[ $strategy != persistent ]] || check "$strategy: a pin for each page" no_granules
	check "$strategy: guest still reaches the peer" guest_pings a "$PEER_IP" 3
	check "$strategy: nothing stays pinned" nothing_left
done
check "guest has a link again" guest_up a 10.77.0.11
check "changes while the guest sends" switching_under
check "changes while the guest receives" switching_under -R
check "guest still reaches the peer" guest_pings a "$PEER_IP" 3
choose persistent
guest kill a
check "nothing stays pinned" wait_for 20 all_unpinned
comment "${rates[@]}"
finish_slices
