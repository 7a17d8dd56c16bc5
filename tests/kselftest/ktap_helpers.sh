# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# For tests that print KTAP (Documentation/dev-tools/ktap.rst in the kernel):
#
#	. "$(dirname "$0")/ktap_helpers.sh"
#	plan 2
#	check "module loads" insmod /build/module/sluice.ko
#	check "nothing is leaked" eval '[[ $(count) == 0 ]]'
#	finish
#
# Lines at a test's head are read by tests/run:
#
#	# timeout: 300          seconds (default 120)
#	# debug: by name        with --debug only when named
#	# vm: --memory 4096     options of tools/vm (tests with the same ones share a machine)

ktap_planned=0
ktap_count=0
ktap_failed=0

plan() {
	ktap_planned=$1
	printf 'KTAP version 1\n1..%d\n' "$1"
}

comment() {
	printf '%s\n' "$*" | sed 's/^/# /'
}

pass() {
	printf 'ok %d %s\n' $((++ktap_count)) "$1"
}

fail() {
	printf 'not ok %d %s\n' $((++ktap_count)) "$1"
	ktap_failed=1
}

skip() {
	printf 'ok %d %s # SKIP %s\n' $((++ktap_count)) "$1" "$2"
}

# check NAME COMMAND...: passes if the command does; its output is shown if not.
check() {
	local name=$1 output status
	shift
	# Not in a subshell: the command may set variables.
	output=$(mktemp)
	"$@" >"$output" 2>&1
	status=$?
	if ((status == 0)); then
		pass "$name"
	else
		comment "$* (status $status)"
		tail -n 40 "$output" | sed 's/^/#   /'
		fail "$name"
	fi
	rm -f "$output"
	return "$status"
}

# skip_rest REASON: everything still planned.
skip_rest() {
	while ((ktap_count < ktap_planned)); do
		skip "test $((ktap_count + 1))" "$1"
	done
	finish
}

finish() {
	((ktap_count == ktap_planned)) || comment "planned $ktap_planned, ran $ktap_count"
	exit $((ktap_failed || ktap_count != ktap_planned))
}
