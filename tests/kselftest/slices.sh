#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 400
# Slices are made and removed; their attributes; what is refused.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

is_mac() {
	[[ $1 =~ ^([0-9a-f]{2}:){5}[0-9a-f]{2}$ ]]
}

one_more_and_less() {
	local before uuid
	before=$(available)
	uuid=$(new_slice) || return
	(($(available) == before - 1)) || return
	remove_slice "$uuid"
	(($(available) == before))
}

all_of_them() {
	local n i uuids=()
	n=$(available)
	for ((i = 0; i < n; i++)); do
		uuids+=("$(new_slice)") || return
	done
	(($(available) == 0)) || return
	! new_slice || return
	for ((i = 0; i < n; i++)); do
		remove_slice "${uuids[i]}" || return
	done
	(($(available) == n))
}

come_and_go() {
	local i uuid
	for ((i = 0; i < 50; i++)); do
		uuid=$(new_slice) && remove_slice "$uuid" || return
	done
}

# Several at a time, and still no number is lost.
come_and_go_at_once() {
	local before i
	before=$(available)
	for ((i = 0; i < 4; i++)); do
		(for ((j = 0; j < 15; j++)); do
			uuid=$(new_slice 2>/dev/null) && remove_slice "$uuid"
		done) &
	done
	wait
	(($(available) == before))
}

mac_of() {
	cat "$(slice_dir "$1")/mac"
}

set_mac() {
	echo "$2" >"$(slice_dir "$1")/mac"
}

macs_differ() {
	is_mac "$(mac_of "$A")" && is_mac "$(mac_of "$B")" && [[ $(mac_of "$A") != "$(mac_of "$B")" ]]
}

mac_stays() {
	local before
	before=$(mac_of "$A")
	# Where objects are released late (the debug kernel), the UUID is taken for seconds.
	remove_slice "$A" && wait_for 20 new_slice "$A" && [[ $(mac_of "$A") == "$before" ]]
}

bad_macs_refused() {
	local before mac
	before=$(mac_of "$A")
	for mac in 01:00:5e:00:00:01 ff:ff:ff:ff:ff:ff 00:00:00:00:00:00 52:54:00:12:34 \
		52:54:00:12:34:56:78 "" x 52:54:00:12:34:5g "$(mac_of "$B")"; do
		if set_mac "$A" "$mac" 2>/dev/null; then
			echo "took '$mac'"
			return 1
		fi
	done
	[[ $(mac_of "$A") == "$before" ]]
}

mac_changes() {
	set_mac "$A" 52:54:00:77:aa:01 && [[ $(mac_of "$A") == 52:54:00:77:aa:01 ]]
}

# Every attribute can be read, and none that is read-only can be written.
attributes_readable() {
	local files
	mapfile -t files < <(find "$(slice_dir "$A")/" -type f -perm -u=r ! -path '*/power/*')
	((${#files[@]} > 20)) && cat "${files[@]}" >/dev/null || return
	[[ $(<"$(slice_dir "$A")/state") == closed* ]]
}

attributes_take_nonsense() {
	local file
	while read -r file; do
		head -c 4000 /dev/urandom >"$file" 2>/dev/null
		: >"$file" 2>/dev/null
		echo 99999999999999999999999 >"$file" 2>/dev/null
		echo -1 >"$file" 2>/dev/null
	done < <(find "$(slice_dir "$A")/" -type f -perm -u=w ! -name remove ! -name uevent ! -path '*/power/*')
	attributes_readable
}

counters_start_at_zero() {
	(($(find "$(slice_dir "$A")/rejected" -type f | wc -l) > 20)) && (($(rejected "$A") == 0))
}

with_mdevctl() {
	local uuid type
	uuid=$(cat /proc/sys/kernel/random/uuid)
	type=$(basename "$TYPE_DIR")
	mdevctl types | grep -q "$type" || return
	mdevctl start --uuid "$uuid" --parent "$NIC" --type "$type" || return
	mdevctl list | grep -q "$uuid" || return
	mdevctl stop --uuid "$uuid" || return
	[[ ! -e $(slice_dir "$uuid") ]]
}

plan 21
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
check "type has a name" test -s "$TYPE_DIR/name"
check "type is for vfio-pci" eval '[[ $(<"$TYPE_DIR/device_api") == vfio-pci ]]'
check "one slice more, one less on offer" one_more_and_less
check "all slices, and not one more" all_of_them
check "50 slices come and go" come_and_go
check "slices come and go at once" come_and_go_at_once

A=$(new_slice) B=$(new_slice)
check "two slices are there" test -e "$(slice_dir "$A")" -a -e "$(slice_dir "$B")"
check "each has an IOMMU group of its own" eval \
	'[[ $(readlink "$(slice_dir "$A")/iommu_group") != $(readlink "$(slice_dir "$B")/iommu_group") ]]'
check "the same UUID twice is refused" eval '! new_slice "$A"'
check "no UUID is refused" eval '! echo nonsense >"$TYPE_DIR/create"'
check "addresses differ" macs_differ
check "the address stays when the slice is made again" mac_stays
check "bad addresses are refused" bad_macs_refused
check "the address can be changed" mac_changes
check "counters start at zero" counters_start_at_zero
check "attributes can be read" attributes_readable
check "attributes survive nonsense" attributes_take_nonsense
check "slices are removed" eval 'remove_slice "$A" && remove_slice "$B"'
check "mdevctl makes and removes one" with_mdevctl
finish
