#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 150
# vm: --hotplug --kernel-args pcie_ports=native
# machine: own
# The bus fails under traffic; somebody resets the function.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"
# shellcheck source=tests/kselftest/hardware_lib.sh
. "$(dirname "$0")/hardware_lib.sh"

# Uncorrectable errors (PCI Express base specification, 7.8.4.2).
COMPLETION_TIMEOUT=0x4000
MALFORMED_TLP=0x40000

# bus_error STATUS: has the kernel read that status from the card. The first is not fatal.
bus_error() {
	modprobe aer_inject && python3 - "$NIC" "$1" <<-'EOF'
		import struct, sys
		domain, bus, device = sys.argv[1].split(":")
		device, function = device.split(".")
		error = struct.pack("BBBxIIIIIII", int(bus, 16), int(device, 16), int(function),
		                    int(sys.argv[2], 16), 0, 0, 0, 0, 0, int(domain, 16))
		with open("/dev/aer_inject", "wb", buffering=0) as file:
		    file.write(error)
	EOF
}

# What makes a card whole that the bus has reset.
find_again() {
	echo 1 >"$NIC_DIR/remove" && echo 1 >/sys/bus/pci/rescan && wait_for 30 card_is_there
}

plan 19
check "module loads" load_module
check "Sluice takes the card" take_card || skip_rest "no card"
A=$(new_slice)
check "a VMM uses a slice" start_client a "$A"

mark_log
check "a completion times out" bus_error "$COMPLETION_TIMEOUT"
check "that is said" wait_for 30 said "the bus reports an error"
check "packets are exchanged" exchanges a
check "the card is used on" eval '! said "out of use"'

mark_log
check "the bus fails" bus_error "$MALFORMED_TLP"
check "the card is out of use" wait_for 30 said "the bus has failed: the card is out of use"
check "the slice stands still" wait_for 30 said "hardware_gone"
check "the VMM that is asked lets go" wait_for 30 client_let_go a
check "the card is removed and found again" find_again
check "Sluice takes the card" take_card

A=$(new_slice)
check "a VMM uses a slice" start_client a "$A"
mark_log
check "somebody resets the function" eval 'echo 1 >"$NIC_DIR/reset"'
check "the card is out of use" said "resets the function: the card is out of use"
check "the VMM that is asked lets go" wait_for 30 client_let_go a
check "the card is taken again" eval 'echo "$NIC" >"$NIC_DIR/driver/unbind" && take_card'

check "module unloads" wait_for 20 rmmod sluice
finish
