#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 600
# Two guests: through the NIC's internal switch, over the wire, and when one of them dies.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

IP_A=10.77.0.11 IP_B=10.77.0.12
COUNT=2000
rates=()

both_reach_the_wire() {
	guest_pings a "$PEER_IP" && guest_pings b "$PEER_IP"
}

server_in_b() {
	in_guest b 'iperf3 -s -D'
}

tcp_between() {
	local rate
	rate=$(tcp a "$IP_B" 3 "${1:-}") && rates+=("$rate Mbit/s")
}

tcp_port() {
	in_guest "$1" --timeout 60 "iperf3 -c $PEER_IP -p $2 -t 4 -J --connect-timeout 20000" | iperf_mbits
}

# Both guests with the wire at once: each gets something.
tcp_at_once() {
	local pid
	tcp_port a 5201 &
	pid=$!
	tcp_port b 5202 && wait "$pid"
}

numbered_between() {
	local got
	guest_listens b "$COUNT" 3000 || return
	in_guest a --timeout 100 "i=$GUEST_IF; traffic send \$i $(<"$(slice_dir "$B")/mac") -n $COUNT -s 300 -b 8 -w 128"
	guest_heard b && [[ $got == "$COUNT" ]]
}

# What b is sent, nobody else sees: of all that comes after, a sees its own packet first.
no_eavesdropping() {
	local mac
	mac=$(<"$(slice_dir "$A")/mac")
	guest_watches a 'ether proto 0x88b5' || return
	peer "$TRAFFIC" send peer0 "$(<"$(slice_dir "$B")/mac")" -n 200 -r 500
	peer "$TRAFFIC" send peer0 "$mac" -n 1
	guest_saw a "$mac"
}

# Prints how many frames with somebody else's source address arrived at the peer.
spoofed_frames() {
	local out
	out=$(mktemp)
	timeout 150 ip netns exec peer tcpdump -n -i peer0 ether src 52:54:00:66:66:66 >/dev/null 2>"$out" &
	local pid=$!
	wait_for 20 grep -q '^listening on' "$out" || return
	in_guest a --timeout 60 "i=$GUEST_IF; ip link add br0 type bridge; ip link set br0 address 52:54:00:66:66:66
		ip link set \$i master br0; ip link set br0 up; sleep 1
		ping -c 3 -W 1 -I br0 $PEER_IP; arping -c 3 -I br0 $PEER_IP; ip link del br0; true" >/dev/null
	# A frame of its own goes through after them.
	guest_up a "$IP_A" >/dev/null || return
	kill -INT "$pid"
	wait "$pid"
	sed -n 's/^\([0-9]*\) packets* received by filter.*/\1/p' "$out"
}

# Refused, and counted under its name (the NIC may stop it too: 82576 datasheet 7.10.3.9.2).
spoofing_is_stopped() {
	local frames
	frames=$(spoofed_frames)
	echo "# $frames frames seen, $(<"$(slice_dir "$A")/rejected/spoofed_source") refused"
	[[ $frames == 0 ]] && (($(<"$(slice_dir "$A")/rejected/spoofed_source") > 0))
}

killed_in_traffic() {
	local pid
	in_guest a --timeout 60 "iperf3 -c $IP_B -t 30 --connect-timeout 20000" >/dev/null 2>&1 &
	pid=$!
	sleep 3
	guest kill a
	wait "$pid"
	[[ $(<"$(slice_dir "$A")/state") == closed* ]]
}

plan 20
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
A=$(new_slice) B=$(new_slice)
check "both guests start" start_guests "a=$A" "b=$B" || skip_rest "no guests"
check "a has a link" guest_up a "$IP_A"
check "b has a link" guest_up b "$IP_B"
check "rmmod is refused" eval '! rmmod sluice'
check "both reach the wire" both_reach_the_wire
check "they reach each other" guest_pings a "$IP_B" 10
check "iperf3 listens in b" server_in_b
check "TCP from a to b" tcp_between
check "TCP from b to a" tcp_between -R
comment "${rates[@]}"
peer_iperf_server 5201
peer_iperf_server 5202
check "TCP of both with the wire at once" tcp_at_once
check "$COUNT numbered packets from a to b, none lost" numbered_between
check "no eavesdropping" no_eavesdropping
check "no spoofed source address leaves" spoofing_is_stopped
check "a is killed in the middle of traffic" killed_in_traffic
check "b goes on with the wire" guest_pings b "$PEER_IP" 10
check "b's TCP goes on" tcp b "$PEER_IP" 3
check "a starts again on the same slice" start_guests "a=$A"
check "they reach each other again" eval 'guest_up a "$IP_A" && guest_pings a "$IP_B"'
finish_slices
