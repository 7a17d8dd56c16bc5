# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the tests share that take hardware away. Sourced after slices_lib.sh, on
# a machine made with --hotplug.

# The slot that the card is in; the card may be gone later.
SLOT=$(basename "$(dirname "$(readlink -f "$NIC_DIR")")")

declare -A client_pids=()

# start_client NAME UUID [stubborn]: a user of the slice, see tests/hostile/client.c.
start_client() {
	local name=$1
	shift
	rm -f "/run/client-$name"
	/build/hostile/client "$1" "/run/client-$name" peer0 peer "${@:2}" >"/tmp/client-$name" 2>&1 &
	client_pids[$name]=$!
	exchanges "$name" || { cat "/tmp/client-$name" && return 1; }
}

# client_says NAME WORD: the value behind the word in the client's line.
client_says() {
	awk -v word="$2" '{ for (i = 1; i < NF; i++) if ($i == word) print $(i + 1) }' "/run/client-$1"
}

link_is() {
	[[ $(client_says "$1" link) == "$2" ]]
}

# exchanges NAME...: each of the clients has packets answered from now on.
exchanges() {
	local name before
	for name; do
		before=$(client_says "$name" rounds)
		wait_for 30 rounds_beyond "$name" "${before:-0}" || return
	done
}

# rounds_beyond NAME ROUND [MORE]
rounds_beyond() {
	((10#$(client_says "$1" rounds) > 10#$2 + ${3:-2}))
}

# goes_on NAME...: each of the clients begins another round from now on, and ends it.
goes_on() {
	local name
	local -A rounds_of=()
	for name; do
		rounds_of[$name]=$(client_says "$name" rounds)
	done
	for name; do
		wait_for 30 rounds_beyond "$name" "${rounds_of[$name]:-0}" 1 || return
	done
}

client_runs() {
	kill -0 "${client_pids[$1]}" 2>/dev/null
}

kill_client() {
	kill -9 "${client_pids[$1]}"
	wait "${client_pids[$1]}" 2>/dev/null
	true
}

# The client has ended by itself, as one does that was asked for its slice.
client_let_go() {
	! client_runs "$1" && wait "${client_pids[$1]}"
}

# KiB of the client's memory that are kept in place for its slice.
pinned_kib() {
	awk '/^Vm(Lck|Pin):/ { sum += $2 } END { print sum + 0 }' "/proc/${client_pids[$1]}/status"
}

has_pinned() {
	(($(pinned_kib "$1") > 0))
}

has_nothing_pinned() {
	(($(pinned_kib "$1") == 0))
}

# A mark in the kernel's log: said() looks only behind the last one.
mark_log() {
	LOG_MARK="hardware-test: $RANDOM$RANDOM"
	echo "$LOG_MARK" >/dev/kmsg
}

# said PATTERN [COUNT]: in so many lines, at least.
said() {
	(($(dmesg | sed -n "/$LOG_MARK/,\$p" | grep -cE "$1") >= ${2:-1}))
}

card_is_there() {
	[[ -e $NIC_DIR/vendor && $(setpci -s "$NIC" VENDOR_ID 2>/dev/null) == 8086 ]]
}

# Pulls the card out without a word. The slot's power is what the emulator
# listens to; the kernel, which is not listening for a moment, finds the slot
# powered and empty. The emulator does not survive accesses to a card that is
# just leaving, hence the memory in place of its registers.
yank_card() {
	registers_fail && setpci -s "$SLOT" CAP_EXP+18.w=0700:0720 && setpci -s "$SLOT" CAP_EXP+18.w=0020:0420
}

# plug_card ID: puts a card in; its driver is nobody.
plug_card() {
	registers_come_back && monitor device_add driver=igb "id=$1" netdev=h0 mac=52:54:00:77:00:10 bus=slot0 && wait_for 30 card_is_there
}

ones() {
	lspci -D -d 1af4:1110 | cut -d' ' -f1
}

# The card's registers read as ones from now on, as those of a device that does
# not answer: other memory is put over them.
registers_fail() {
	ONES_HOME="$(setpci -s "$(ones)" BASE_ADDRESS_2) $(setpci -s "$(ones)" BASE_ADDRESS_3)"
	setpci -s "$(ones)" "BASE_ADDRESS_2=$(setpci -s "$NIC" BASE_ADDRESS_0)" BASE_ADDRESS_3=0 COMMAND=2:2 &&
		setpci -s "$SLOT" COMMAND=0:2
}

registers_come_back() {
	setpci -s "$SLOT" COMMAND=2:2 &&
		setpci -s "$(ones)" "BASE_ADDRESS_2=${ONES_HOME% *}" "BASE_ADDRESS_3=${ONES_HOME#* }"
}

bus_master() {
	(($((0x$(setpci -s "$NIC" COMMAND))) & 4))
}

# Unbinds in the background: it waits for those who use the card.
unbind_begin() {
	echo "$NIC" >"$NIC_DIR/driver/unbind" &
	unbind_pid=$!
}

unbind_waits() {
	kill -0 "$unbind_pid" 2>/dev/null
}

unbind_ended() {
	! unbind_waits
}
