# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2120
#
# What the tests of slices share. Sourced in the test machine, after
# ktap_helpers.sh; run as root.

MODULE=/build/module/sluice.ko
PEER_IP=10.77.0.1
TRAFFIC=/build/traffic/traffic

# The 82576's PCI address.
nic_address() {
	local dev
	for dev in /sys/bus/pci/devices/*; do
		[[ $(<"$dev/vendor") == 0x8086 && $(<"$dev/device") == 0x10c9 ]] && basename "$dev" && return
	done
	return 1
}

NIC=$(nic_address)
NIC_DIR=/sys/bus/pci/devices/$NIC
TYPE_DIR=$NIC_DIR/mdev_supported_types/sluice-82576vf

# wait_for SECONDS COMMAND...: until it succeeds. Bounded, and nothing more.
wait_for() {
	local end=$((SECONDS + $1 * ${SLUICE_TIME_SCALE:-1}))
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || return 1
		sleep 0.1
	done
}

peer() {
	ip netns exec peer "$@"
}

peer_mac() {
	peer cat /sys/class/net/peer0/address
}

# The wire carries jumbo frames, until the end of the test (tools/lib/vm-tests).
jumbo_wire() {
	ip -n peer link set peer0 mtu 9000
}

load_module() {
	[[ -e /sys/module/sluice ]] && return
	modprobe -a mdev vfio vfio_iommu_type1 && insmod "$MODULE" "$@"
}

driver_of() {
	basename "$(readlink "$NIC_DIR/driver" 2>/dev/null)" 2>/dev/null
}

# bind_to DRIVER
bind_to() {
	[[ $(driver_of) == "$1" ]] && return
	[[ ! -e $NIC_DIR/driver ]] || echo "$NIC" >"$NIC_DIR/driver/unbind" || return
	echo "$1" >"$NIC_DIR/driver_override" || return
	echo "$NIC" >"/sys/bus/pci/drivers/$1/bind"
}

take_card() {
	bind_to sluice
}

give_card_back() {
	modprobe igb || return
	[[ ! -e $NIC_DIR/driver ]] || echo "$NIC" >"$NIC_DIR/driver/unbind" || return
	echo >"$NIC_DIR/driver_override"
	echo "$NIC" >/sys/bus/pci/drivers/igb/bind
}

# The network interface that igb made for the card.
host_interface() {
	local dir
	for dir in "$NIC_DIR"/net/*; do
		[[ -e $dir ]] && basename "$dir" && return
	done
	return 1
}

available() {
	cat "$TYPE_DIR/available_instances"
}

slice_dir() {
	printf '/sys/bus/mdev/devices/%s' "$1"
}

# Prints the UUID of a new slice.
new_slice() {
	local uuid
	uuid=${1:-$(cat /proc/sys/kernel/random/uuid)}
	echo "$uuid" >"$TYPE_DIR/create" && echo "$uuid"
}

remove_slice() {
	echo 1 >"$(slice_dir "$1")/remove"
}

# The sum of a slice's counters of broken rules.
rejected() {
	cat "$(slice_dir "$1")"/rejected/* | awk '{ sum += $1 } END { print sum + 0 }'
}

# --- guests ------------------------------------------------------------------

# start_guests NAME=UUID...: one after the other, all on the last CPU. Guests that run at
# once on two CPUs under emulated SVM corrupt the outer machine's state and end it,
# also without Sluice. A test with one guest lets it run anywhere: GUEST_CPUS=0-1.
start_guests() {
	local pair cpus=${GUEST_CPUS:-$(($(nproc) - 1))}
	modprobe kvm_amd || return
	for pair; do
		taskset -c "$cpus" guest start "${pair%%=*}" --memory 192 --vfio "${pair#*=}" --file "$TRAFFIC:/bin/traffic" || return
	done
}

# in_guest NAME [--timeout S] 'command'
in_guest() {
	guest exec "$@"
}

# The guest's interface that igbvf drives.
GUEST_IF='$(for d in /sys/class/net/*/device/driver; do
	case $(readlink $d) in */igbvf) echo $d | cut -d/ -f5; break ;; esac
done)'

# guest_up NAME IP: an address for it, its link comes up, and the peer answers. igbvf's watchdog
# looks at the link every two seconds, and now and then finds it down once more.
guest_up() {
	in_guest "$1" --timeout 90 "i=$GUEST_IF; [ -n \"\$i\" ] || exit 9
		ip link set \$i up; ip address replace $2/24 dev \$i
		n=0; until [ \"\$(cat /sys/class/net/\$i/carrier)\" = 1 ]; do
			n=\$((n + 1)); [ \$n -lt 300 ] || exit 8; sleep 0.2; done
		n=0; until ping -c 1 -W 1 $PEER_IP >/dev/null; do
			n=\$((n + 1)); [ \$n -lt 20 ] || exit 7; done"
}

# guest_pings NAME IP [COUNT]: at least one answer to each of COUNT requests in a row.
guest_pings() {
	in_guest "$1" --timeout 60 "ping -c ${3:-3} -i 0.2 -W 5 -w 40 $2"
}

peer_pings() {
	peer ping -c "${2:-3}" -i 0.2 -W 5 -w 40 "$1"
}

# guest_listens GUEST COUNT IDLE_MS: when this returns, the guest counts numbered packets.
guest_listens() {
	in_guest "$1" --timeout 90 "i=$GUEST_IF
		rm -f /tmp/numbered; traffic receive \$i -n $2 -i $3 </dev/null >/tmp/numbered 2>&1 &
		n=0; until grep -qs listening /tmp/numbered; do
			n=\$((n + 1)); [ \$n -lt 300 ] || exit 8; sleep 0.2; done"
}

# guest_heard GUEST: sets got to how many there were, once the guest has stopped counting.
guest_heard() {
	local out
	out=$(in_guest "$1" --timeout 90 'n=0; until grep -q received= /tmp/numbered; do
			n=$((n + 1)); [ $n -lt 300 ] || exit 8; sleep 0.2; done; cat /tmp/numbered') || return
	echo "$out"
	got=$(sed -n 's/.*received=\([0-9]*\).*/\1/p' <<<"$out")
}

# guest_watches GUEST FILTER: when this returns, the guest's interface takes all that it gets, and the
# first packet that FILTER lets through will be kept.
guest_watches() {
	in_guest "$1" --timeout 90 "i=$GUEST_IF
		rm -f /tmp/seen /tmp/watcher; ip link set \$i promisc on
		# tcpdump wants to become somebody whom it can find.
		[ -e /etc/passwd ] || echo root:x:0:0::/:/bin/sh >/etc/passwd
		timeout 80 tcpdump -Z root -l -n -e -c 1 -i \$i $2 </dev/null >/tmp/seen 2>/tmp/watcher &
		n=0; until grep -qs '^listening on' /tmp/watcher; do
			n=\$((n + 1)); [ \$n -lt 100 ] || { cat /tmp/watcher; exit 8; }; sleep 0.2; done"
}

# guest_saw GUEST MAC: the first packet comes, and it is one for that address.
guest_saw() {
	local packet
	packet=$(in_guest "$1" --timeout 90 "i=$GUEST_IF
		n=0; until grep -qs . /tmp/seen; do
			n=\$((n + 1)); [ \$n -lt 100 ] || { cat /tmp/watcher; exit 8; }; sleep 0.2; done
		ip link set \$i promisc off; cat /tmp/seen") || { echo "$packet" && return 1; }
	echo "$packet"
	[[ $packet == *" > $2, "* ]]
}

peer_iperf_server() {
	peer iperf3 -s -D -p "${1:-5201}" --pidfile "/run/iperf-${1:-5201}.pid"
}

stop_peer_iperf() {
	local file
	for file in /run/iperf-*.pid; do
		[[ ! -e $file ]] || kill "$(tr -d '\0' <"$file")" 2>/dev/null
		rm -f "$file"
	done
}

# Reads iperf3's JSON: received Mbit/s; fails if there was an error or nothing came.
iperf_mbits() {
	python3 -c '
import json, sys
result = json.load(sys.stdin)
if "error" in result:
    sys.exit(result["error"])
rate = result["end"]["sum_received"]["bits_per_second"] / 1e6
print(round(rate))
sys.exit(rate <= 0)'
}

# tcp GUEST IP [SECONDS] [-R]: Mbit/s between the guest and an iperf3 server at IP.
# A server that is not done with its last client is busy, and says so or hangs up.
tcp() {
	local result seconds=$((${3:-3} * ${SLUICE_TIME_SCALE:-1}))
	local busy='server is busy|unable to send control|control socket has closed'
	local end=$((SECONDS + 60 * ${SLUICE_TIME_SCALE:-1}))
	until result=$(in_guest "$1" --timeout $((seconds + 60)) "iperf3 -c $2 -t $seconds ${4:-} -J --connect-timeout 20000")
		[[ ! $result =~ $busy ]] || ((SECONDS >= end)); do
		sleep 1
	done
	iperf_mbits <<<"$result"
}

# Nothing that the tests made is left.
finish_slices() {
	stop_peer_iperf
	finish
}
