#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The demonstration, inside the test machine; see tools/demo.

set -u
# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/../kselftest/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/../kselftest/slices_lib.sh"

IP_A=10.77.0.11 IP_B=10.77.0.12
SECONDS_OF_TCP=5

start=$EPOCHREALTIME
summary=() failures=0 number=0 result=''

elapsed() {
	awk -v a="${1:-$start}" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'
}

say() {
	printf '          %s\n' "$*"
}

# step TITLE FUNCTION: runs it, with its time; $result goes into the summary.
step() {
	local began=$EPOCHREALTIME status=0 verdict=ok took
	number=$((number + 1)) result=''
	printf '\n[%6ss] %d. %s\n' "$(elapsed)" "$number" "$1"
	"$2" || status=$?
	took=$(elapsed "$began")
	if ((status != 0)); then
		verdict=FAILED failures=$((failures + 1))
		dmesg | tail -n 15 | sed 's/^/          | /'
	fi
	printf '          %s, %ss\n' "$verdict" "$took"
	summary+=("$(printf '%2d  %-46s %-7s %6ss  %s' "$number" "$1" "$verdict" "$took" "$result")")
	return "$status"
}

show_summary() {
	printf '\n%s\n' '------------------------------------------------------------------------------------------'
	printf '%s\n' "${summary[@]}"
	printf '%s\n' '------------------------------------------------------------------------------------------'
	if ((failures)); then
		printf '%d of %d steps FAILED\n' "$failures" "$number"
		exit 1
	fi
	printf 'All %d steps worked, in %ss.\n' "$number" "$(elapsed)"
}

# A step without which the rest makes no sense.
must() {
	step "$@" || show_summary
}

host() {
	say "$(uname -sr), built by $(sed 's/.*(\([^)]*\)) (.*/\1/' /proc/version)"
	local groups
	groups=$(find /sys/kernel/iommu_groups -mindepth 1 2>/dev/null | wc -l)
	say "IOMMU groups in /sys/kernel/iommu_groups: $groups (no IOMMU)"
	say "network card $NIC: $(lspci -s "$NIC" | cut -d' ' -f2-)"
	result="$(uname -r), $groups IOMMU groups"
	((groups == 0)) && [[ $NIC ]]
}

igb_has_card() {
	local i
	modprobe igb && [[ $(driver_of) == igb ]] || return
	wait_for 20 host_interface || return
	i=$(host_interface)
	ip address replace 10.77.0.9/24 dev "$i" && ip link set "$i" up && wait_for 30 ping -c 1 -W 2 "$PEER_IP" || return
	say "igb drives the card as $i; the wire answers"
	result="$i, ping answered"
}

load() {
	load_module || return
	say "$(modinfo -F description "$MODULE"), for $(modinfo -F vermagic "$MODULE" | cut -d' ' -f1)"
	result="sluice.ko loaded"
}

take() {
	sluicectl take "$NIC" || return
	dmesg | grep -E "sluice $NIC" | sed 's/^[^]]*\] //' | while read -r line; do say "$line"; done
	result="$(available) slices on offer"
}

make_slices() {
	A=$(sluicectl create "$NIC") && B=$(sluicectl create "$NIC") || return
	say "a: $A, MAC $(<"$(slice_dir "$A")/mac"), pool $(<"$(slice_dir "$A")/pool")"
	say "b: $B, MAC $(<"$(slice_dir "$B")/mac"), pool $(<"$(slice_dir "$B")/pool")"
	result="two mediated devices"
}

boot_guests() {
	local name
	start_guests "a=$A" "b=$B" || return
	guest_up a "$IP_A" && guest_up b "$IP_B" || return
	for name in a b; do
		say "$name: $(in_guest "$name" "i=$GUEST_IF; d=/sys/class/net/\$i/device
			echo \$(uname -r), \$(ethtool -i \$i | sed -n 's/^driver: //p') on \$(cat \$d/vendor):\$(cat \$d/device)")"
	done
	result="stock kernel, stock igbvf, link up"
}

round_trip() {
	sed -n 's/^\(rtt\|round-trip\).* = [0-9.]*\/\([0-9.]*\)\/.*/\2/p'
}

ping_all() {
	local wire between
	wire=$(guest_pings a "$PEER_IP" 5) && guest_pings b "$PEER_IP" 5 >/dev/null || return
	between=$(guest_pings a "$IP_B" 5) || return
	wire=$(round_trip <<<"$wire") between=$(round_trip <<<"$between")
	say "a to the wire: $wire ms; a to b: $between ms (mean)"
	result="wire $wire ms, guest to guest $between ms"
}

tcp_wire() {
	local out in
	peer_iperf_server
	out=$(tcp a "$PEER_IP" "$SECONDS_OF_TCP") && in=$(tcp a "$PEER_IP" "$SECONDS_OF_TCP" -R) || return
	say "a to the wire: $out Mbit/s; the wire to a: $in Mbit/s"
	result="out $out Mbit/s, in $in Mbit/s"
}

tcp_guests() {
	local forth back
	in_guest b 'iperf3 -s -D' || return
	forth=$(tcp a "$IP_B" "$SECONDS_OF_TCP") && back=$(tcp a "$IP_B" "$SECONDS_OF_TCP" -R) || return
	say "a to b: $forth Mbit/s; b to a: $back Mbit/s, through the card's internal switch"
	result="a to b $forth Mbit/s, b to a $back Mbit/s"
}

ATTACKS=(tx_neighbours_physical_page rx_kernel_code ring_outside_memory tx_wraps race_tx_address)

# A client with a slice of its own breaks rules; guest a's ping must not miss a beat.
hostile_client() {
	local ping=/run/demo-ping pid name count log
	HOSTILE_A=$(new_slice) HOSTILE_B=$(new_slice) || return
	export HOSTILE_A HOSTILE_B HOSTILE_PEER_IF=peer0 HOSTILE_PEER_NETNS=peer
	in_guest a --timeout 100 "ping -i 0.5 -W 10 -w 90 -c 40 $PEER_IP" >$ping &
	pid=$!
	log=$(/build/hostile/hostile "${ATTACKS[@]/#/-rattacker.persistent.}" 2>&1)
	local status=$?
	(($(grep -c '^ok' <<<"$log") == ${#ATTACKS[@]})) || status=1
	wait "$pid" || status=1
	grep -E '^(not )?ok' <<<"$log" | sed 's/^/          client: /; s/attacker\.persistent\.//'
	cd "$(slice_dir "$HOSTILE_A")/rejected" || return
	for name in *; do
		count=$(<"$name")
		((count == 0)) || say "rejected/$name: $count"
	done
	cd / || return
	# One line of each kind.
	dmesg | sed -n "s/.*$HOSTILE_A: queue stopped: //p" | awk '!seen[$1 $2]++' |
		while read -r line; do say "log: queue stopped: $line"; done
	name=$(grep -E 'packets transmitted' $ping)
	say "guest a meanwhile: $name"
	result="$(rejected "$HOSTILE_A") refusals; a: $(grep -o '[0-9]*% packet loss' <<<"$name")"
	[[ $name == *" 0% packet loss"* ]] && ((status == 0)) && remove_slice "$HOSTILE_A" && remove_slice "$HOSTILE_B"
}

kill_guest() {
	in_guest b "ping -q -i 0.01 $PEER_IP >/dev/null & sleep 1"
	guest kill b
	wait_for 10 eval '[[ $(<"$(slice_dir "$B")/state") == closed* ]]' || return
	guest_pings a "$PEER_IP" 5 >/dev/null || return
	say "guest b killed (-9) in traffic: its slice is $(<"$(slice_dir "$B")/state"), a goes on"
	result="slice closed, a goes on"
}

give_back() {
	guest stop a || return
	sluicectl destroy "$A" && sluicectl destroy "$B" && sluicectl give-back "$NIC" && rmmod sluice || return
	igb_has_card || return
	result="igb, ping answered"
}

clean_kernel() {
	local bad
	bad=$(dmesg | grep -E 'WARNING:|BUG:|Oops|UBSAN|general protection|Call Trace')
	[[ ! $bad ]] || { say "$bad"; return 1; }
	result="no warning"
}

must "Stock host without IOMMU" host
must "igb has the card" igb_has_card
must "The module loads into the stock kernel" load
must "Sluice takes the card from igb" take
must "Two slices" make_slices
must "Two guests boot" boot_guests
step "Ping" ping_all
step "TCP between guest and wire" tcp_wire
step "TCP between the guests" tcp_guests
step "A hostile client beside them" hostile_client
step "A guest dies" kill_guest
step "The card goes back to igb" give_back
step "The kernel's log" clean_kernel
show_summary
