#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 300
# A guest in huge pages has them pinned whole (strategies.sh has one in small pages).

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

HUGE_PAGES=/sys/kernel/mm/transparent_hugepage/enabled
GRANULE_BYTES=$((2 << 20))
notes=()

stat_of() {
	cat "$(slice_dir "$A")/stats/$1"
}

figures() {
	local name
	for name in granules pins unpins hits misses evictions pinned_bytes pin_time_ns; do
		printf '%s %s, ' "$name" "$(stat_of "$name")"
	done
}

tcp_both_ways() {
	local out in
	out=$(tcp a "$PEER_IP" 1) && in=$(tcp a "$PEER_IP" 1 -R) && notes+=("$out Mbit/s out, $in in; $(figures)")
}

pinned_whole() {
	local granules pins bytes
	granules=$(stat_of granules) pins=$(stat_of pins) bytes=$(stat_of pinned_bytes)
	((granules > 0 && pins >= granules * 512 && bytes >= granules * GRANULE_BYTES && bytes <= (pins - $(stat_of unpins)) * 4096))
}

# A second stream finds most pages in the granules of the first.
few_misses() {
	local hits misses
	hits=$(stat_of hits) misses=$(stat_of misses)
	tcp a "$PEER_IP" 1 && notes+=("again: $(figures)")
	(($(stat_of hits) - hits > 20 * ($(stat_of misses) - misses)))
}

all_unpinned() {
	[[ $(stat_of pins) == "$(stat_of unpins)" && $(stat_of pinned_bytes) == 0 && $(stat_of granules) == 0 ]]
}

# What is in flight keeps its granule, and no longer: under "shared" that is until its queue stops.
given_up_with_the_strategy() {
	echo shared >"$(slice_dir "$A")/strategy"
	guest_pings a "$PEER_IP" 3 && in_guest a "i=$GUEST_IF; ip link set \$i down" && wait_for 20 all_unpinned
	local status=$?
	figures
	return "$status"
}

setting=$(grep -o '\[.*\]' "$HUGE_PAGES" | tr -d '[]')
trap 'echo "$setting" >"$HUGE_PAGES"' EXIT
plan 9
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
A=$(new_slice)
peer_iperf_server
echo always >"$HUGE_PAGES"
check "guest starts in huge pages" start_guests "a=$A" || skip_rest "no guest"
check "guest has a link" guest_up a 10.77.0.11
check "TCP both ways in huge pages" tcp_both_ways
check "granules are pinned whole" pinned_whole
check "and found again" few_misses
check "time in pinning is counted" eval '(($(stat_of pin_time_ns) > 0))'
check "they go when the strategy does" given_up_with_the_strategy
guest kill a
comment "${notes[@]}"
finish_slices
