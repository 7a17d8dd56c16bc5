#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 600
# One guest with the stock igbvf driver: everything that it can do with its slice.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

# One guest at a time: see start_guests.
export GUEST_CPUS=0-1

IP=10.77.0.11
COUNT=5000
rates=()

# g COMMAND: in the guest, with $i as its interface. Its shell prefers busybox's
# programs, hence /bin/ip and /bin/ping where only the real ones will do.
g() {
	in_guest a --timeout 100 "i=$GUEST_IF; $1"
}

mac_matches() {
	[[ $(g 'cat /sys/class/net/$i/address') == "$(<"$(slice_dir "$A")/mac")" ]]
}

tcp_mbits() {
	local rate
	rate=$(tcp a "$PEER_IP" 3 "${1:-}") && rates+=("$rate Mbit/s ${1:+to the guest}")
}

# Big packets in both directions, not fragmented.
jumbo() {
	g 'ip link set $i mtu 9000' && guest_up a "$IP" && wait_for 30 peer_pings "$IP" 1 &&
		in_guest a --timeout 60 "/bin/ping -c 5 -i 0.2 -W 5 -s 8000 -M do $PEER_IP" &&
		peer ping -c 5 -i 0.2 -W 5 -s 8000 -M "do" "$IP"
}

standard_mtu() {
	g 'ip link set $i mtu 1500' && guest_up a "$IP" && guest_pings a "$PEER_IP"
}

vlan_up() {
	ip -n peer link add link peer0 name peer0.5 type vlan id 5
	ip -n peer address replace 10.77.5.1/24 dev peer0.5
	ip -n peer link set peer0.5 mtu 1500 up
	g 'ip link add link $i name v5 type vlan id 5 && ip address add 10.77.5.11/24 dev v5 && ip link set v5 up'
}

vlan_works() {
	guest_pings a 10.77.5.1 && peer_pings 10.77.5.11
}

# A VLAN that the guest has not joined does not reach it: of all that is sent, only the
# last packet does.
foreign_vlan_stays_out() {
	local got mac
	mac=$(<"$(slice_dir "$A")/mac")
	ip -n peer link add link peer0 name peer0.6 type vlan id 6
	ip -n peer link set peer0.6 up
	guest_listens a 51 2000 || return
	peer "$TRAFFIC" send peer0.6 "$mac" -n 50 -r 500
	peer "$TRAFFIC" send peer0 "$mac" -n 1
	guest_heard a && [[ $got == 1 ]]
}

multicast_works() {
	g '/bin/ip address add 239.7.7.7/32 dev $i autojoin && sysctl -w net.ipv4.icmp_echo_ignore_broadcasts=0' &&
		peer ip route replace 239.0.0.0/8 dev peer0 &&
		wait_for 20 peer ping -c 1 -W 3 239.7.7.7
}

# IPv6 neighbour discovery is multicast as well.
ipv6_works() {
	g '/bin/ip address add fd00:77::11/64 dev $i nodad' &&
		in_guest a --timeout 60 "/bin/ping -6 -c 3 -i 0.2 -W 5 fd00:77::1" &&
		peer ping -6 -c 3 -i 0.2 -W 5 fd00:77::11
}

# The receiver answers now and then, and the sender does not run further ahead than a
# ring is long: the NIC may drop what finds no buffer.
WINDOW=128

numbered_to_peer() {
	local out
	out=$(mktemp)
	peer "$TRAFFIC" receive peer0 -n "$COUNT" -i 3000 >"$out" &
	local pid=$!
	wait_for 20 grep -q listening "$out" || return
	g "traffic send \$i $(peer_mac) -n $COUNT -s 200 -b 8 -w $WINDOW"
	wait "$pid" || return
	cat "$out"
	[[ $(sed -n 's/.*received=\([0-9]*\).*/\1/p' "$out") == "$COUNT" ]]
}

numbered_to_guest() {
	local got
	guest_listens a "$COUNT" 3000 || return
	peer "$TRAFFIC" send peer0 "$(<"$(slice_dir "$A")/mac")" -n "$COUNT" -s 200 -b 8 -w "$WINDOW"
	guest_heard a && [[ $got == "$COUNT" ]]
}

# Frames for somebody else on the wire do not reach the guest, whatever it asks for: of all that is
# sent, it sees the last one first.
promiscuous_refused() {
	local mac
	mac=$(<"$(slice_dir "$A")/mac")
	guest_watches a 'ether proto 0x88b5' || return
	peer "$TRAFFIC" send peer0 52:54:00:77:77:77 -n 100 -r 500
	peer "$TRAFFIC" send peer0 "$mac" -n 1
	guest_saw a "$mac"
}

# igbvf may lose its link for two seconds when it has just used the mailbox: see the user guide.
ethtool_works() {
	g 'ethtool -i $i | grep -q "driver: igbvf" && ethtool -S $i && ethtool -g $i && ethtool -c $i' &&
		wait_for 20 g 'ethtool $i | grep -q "Link detected: yes"'
}

# The driver's own test: register and link.
ethtool_test() {
	g 'ethtool -t $i offline' || return
	guest_up a "$IP"
	guest_pings a "$PEER_IP"
}

ring_sizes() {
	local n
	for n in 80 4096 512 256; do
		g "ethtool -G \$i rx $n tx $n" && guest_up a "$IP" && guest_pings a "$PEER_IP" || return
	done
}

down_and_up() {
	local n
	for n in 1 2 3 4 5; do
		g 'ip link set $i down && ip link set $i up' || return
	done
	guest_up a "$IP" && guest_pings a "$PEER_IP"
}

driver_reload() {
	local n
	for n in 1 2 3; do
		in_guest a --timeout 60 'modprobe -r igbvf && modprobe igbvf' || return
	done
	guest_up a "$IP" && guest_pings a "$PEER_IP"
}

# With the interface up: igbvf's reset_prepare waits for ever on one that is down (it disables NAPI twice).
function_reset() {
	g 'd=$(readlink -f /sys/class/net/$i/device); echo 1 >$d/reset' || return
	guest_up a "$IP" && guest_pings a "$PEER_IP"
}

other_mac_refused() {
	local mac
	mac=$(<"$(slice_dir "$A")/mac")
	g 'ip link set $i down; ip link set $i address 52:54:00:66:66:66; ip link set $i up'
	g "ip link set \$i down; ip link set \$i address $mac; ip link set \$i up"
	guest_up a "$IP" && guest_pings a "$PEER_IP"
}

reboot_guest() {
	# Guests run with -no-reboot.
	guest qmp a '{"execute":"set-action","arguments":{"reboot":"reset"}}' &&
		guest qmp a '{"execute":"system_reset"}' || return
	wait_for 90 in_guest a --timeout 5 'true' && guest_up a "$IP" && guest_pings a "$PEER_IP"
}

no_rule_broken() {
	local bad
	bad=$(cd "$(slice_dir "$A")/rejected" && grep -v -H '^0$' ./*)
	echo "$bad"
	[[ ! $bad && $(<"$(slice_dir "$A")/state") != faulted* ]]
}

plan 30
jumbo_wire
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
A=$(new_slice)
check "guest starts" start_guests "a=$A" || skip_rest "no guest"
check "igbvf drives the slice" g '[ -n "$i" ]'
check "guest has the slice's address" mac_matches
check "link comes up" guest_up a "$IP"
check "guest reaches the peer" guest_pings a "$PEER_IP" 10
check "peer reaches the guest" peer_pings "$IP" 10
peer_iperf_server
check "TCP from the guest" tcp_mbits
check "TCP to the guest" tcp_mbits -R
comment "${rates[@]}"
check "$COUNT numbered packets from the guest, none lost" numbered_to_peer
check "$COUNT numbered packets to the guest, none lost" numbered_to_guest
check "packets of many sizes" g "for s in \$(seq 0 73 1472); do ping -q -c 1 -W 5 -s \$s $PEER_IP || exit 1; done"
check "jumbo frames" jumbo
check "standard frames again" standard_mtu
check "VLAN is joined" vlan_up
check "VLAN carries packets" vlan_works
check "a VLAN that was not joined stays out" foreign_vlan_stays_out
check "multicast" multicast_works
check "IPv6" ipv6_works
check "promiscuous mode shows nothing of others" promiscuous_refused
check "ethtool" ethtool_works
check "ethtool's self-test" ethtool_test
check "ring sizes" ring_sizes
check "interface down and up" down_and_up
check "igbvf unloaded and loaded" driver_reload
check "another MAC address is not taken" other_mac_refused
check "function reset" function_reset
check "guest reboots" reboot_guest
check "no rule was broken" no_rule_broken
finish_slices
