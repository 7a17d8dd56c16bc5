#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# timeout: 120
# The module's own unit tests, which run in the kernel (KUnit; "mod tests" in rust/sys). For the debug kernel.

# shellcheck source=tests/kselftest/ktap_helpers.sh
. "$(dirname "$0")/ktap_helpers.sh"
# shellcheck source=tests/kselftest/slices_lib.sh
. "$(dirname "$0")/slices_lib.sh"

SUITES=/sys/kernel/debug/kunit
suites=(sluice_fence sluice_thread sluice_word)

if [[ ! -d $SUITES ]]; then
	printf 'KTAP version 1\n1..0 # SKIP needs a kernel with KUnit (make test-debug)\n'
	exit
fi

# What a suite's file "results" says of its tests, "ok 3 name" each: KUnit indents them once.
results_of() {
	sed -nE 's/^ {4}((not )?ok [0-9]+ .*)$/\1/p' "$1/results"
}

planned_of() {
	sed -nE 's/^ {4}1\.\.([0-9]+)$/\1/p' "$1/results"
}

show_failures() {
	grep -B 8 '^ *not ok' "$1/results" | sed 's/^/#   /'
}

if ! load_module; then
	plan 1
	fail "module loads"
	finish
fi
total=0
for suite in "${suites[@]}"; do
	[[ ! -e $SUITES/$suite/run ]] || echo 1 >"$SUITES/$suite/run"
	count=$(planned_of "$SUITES/$suite")
	total=$((total + ${count:-0}))
done
plan $((total + ${#suites[@]}))
for suite in "${suites[@]}"; do
	while read -r line; do
		name="$suite: ${line##* }"
		case $line in
		"ok "*SKIP*) skip "$name" "by itself" ;;
		"ok "*) pass "$name" ;;
		*) fail "$name" ;;
		esac
	done < <(results_of "$SUITES/$suite")
	show_failures "$SUITES/$suite"
	check "$suite has tests" eval '[[ -n $(planned_of "$SUITES/$suite") ]]'
done
finish
