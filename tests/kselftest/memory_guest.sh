#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 400
# A guest whose memory shrinks in traffic: balloon, and unplugging of a memory module.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

MIB=$((1 << 20))
BALLOON=/tmp/virtio_balloon.ko

# One guest at a time: see start_guests.
start_guest() {
	local module
	module=$(modinfo -k "$GUEST_RELEASE" -n virtio_balloon) || return
	case $module in
	*.xz) xz -dc "$module" >"$BALLOON" ;;
	*.zst) zstd -dqc "$module" >"$BALLOON" ;;
	*) cp "$module" "$BALLOON" ;;
	esac || return
	modprobe kvm_amd || return
	guest start a --memory 192 --vfio "$A" --append "memhp_default_state=online_movable swiotlb=1024" --file "$BALLOON:/lib/balloon.ko" -- \
		-m 192,slots=2,maxmem=1G -object memory-backend-ram,id=more,size=128M -device pc-dimm,id=dimm,memdev=more \
		-device virtio-balloon-pci
}

balloon_is() {
	guest qmp a '{"execute": "query-balloon"}' | grep -q "\"actual\": $1\b"
}

# balloon BYTES: how much memory the guest keeps.
balloon() {
	guest qmp a "{\"execute\": \"balloon\", \"arguments\": {\"value\": $1}}" && wait_for 30 balloon_is "$1"
}

resident_kib() {
	awk '/^VmRSS/ { print $2 }' "/proc/$(guest pid a)/status"
}

guest_kib() {
	in_guest a "awk '/^MemTotal/ { print \$2 }' /proc/meminfo"
}

# QEMU keeps what the guest gave it: the slice may have it pinned.
inflate() {
	local before after
	before=$(resident_kib) && balloon $((240 * MIB)) && after=$(resident_kib) || return
	echo "QEMU's memory: $before KiB before, $after after"
	((after > before - 16 * 1024))
}

no_module_left() {
	[[ $(guest qmp a '{"execute": "query-memory-devices"}') == *'"return": []'* ]]
}

# In traffic; bounded by the wait.
unplug() {
	tcp a "$PEER_IP" 8 &
	local traffic=$!
	sleep 1
	guest qmp a '{"execute": "device_del", "arguments": {"id": "dimm"}}' && wait_for 30 no_module_left
	local status=$?
	wait "$traffic" && return "$status"
}

state_is() {
	[[ $(<"$(slice_dir "$A")/state") == "$1" ]]
}

plan 12
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
A=$(new_slice)
peer_iperf_server
check "guest with 192 + 128 MiB starts" start_guest || skip_rest "no guest"
check "guest has a link" guest_up a 10.77.0.11
check "guest has the memory module" eval '(($(guest_kib) > 200 * 1024))'
check "guest has a balloon" in_guest a "insmod /lib/balloon.ko"
check "balloon grows, and QEMU frees nothing" inflate
check "TCP with a full balloon" tcp a "$PEER_IP" 2 -R
check "balloon shrinks" balloon $((320 * MIB))
check "memory module is unplugged in traffic" unplug
check "guest still reaches the peer" guest_pings a "$PEER_IP" 3
check "no queue was stopped" state_is running
guest kill a
finish_slices
