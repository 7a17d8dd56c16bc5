# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
# Paths of the checkout and of the cache, messages. Sourced, never run.

SLUICE_SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${SLUICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice}

# shellcheck source=tools/lib/config.sh
. "$SLUICE_SRC/tools/lib/config.sh"

die() {
	printf '%s: %s\n' "${0##*/}" "$1" >&2
	shift
	(($# == 0)) || printf '  %s\n' "$@" >&2
	exit 1
}

need_root() {
	((EUID == 0)) || die "needs root: it mounts and changes root (only inside its own mount namespace)"
	unshare --mount --propagation private true 2>/dev/null ||
		die "cannot make a mount namespace" "In a container, give it CAP_SYS_ADMIN (docker run --privileged)."
}

# One line per step, with the time since the script began.
say() {
	printf '[%4ds] %s\n' "$SECONDS" "$*" >&"${SAY_FD:-1}"
}

hash_of() {
	sha256sum | cut -c1-12
}

# The link that says which cache directory this recipe uses; the directory's
# name also has the kernel's version, which is known only after asking apt.
cache_link() {
	printf '%s/current-%s' "$CACHE" "$(declare -p RECIPE SUITE KERNEL_SERIES | hash_of)"
}

# Sets CACHE_DIR, ROOT and KVER, or fails if there is no cache yet.
use_cache() {
	local link
	link=$(cache_link)
	[[ -d $link/root ]] || return 1
	CACHE_DIR=$(readlink -f "$link")
	ROOT=$CACHE_DIR/root
	KVER=$(<"$CACHE_DIR/kernel-version")
}

require_cache() {
	use_cache || die "no build root yet" "run: make setup"
}

# emulator_died STATUS DIR: of a tools/vm with --out DIR. QEMU is gone, or stands
# still (see tools/lib/ask-why), though the kernel neither panicked nor warned.
# Nested virtualisation under emulation does that now and then; a fault of ours
# would do it again, so who asks tries again, a few times.
emulator_died() {
	[[ ($1 == 125 || $1 == 126) && ! $(complaints_of "$2") ]]
}

# What the kernel of tools/vm --out DIR complained of. That others wait for a processor
# which gets no interrupts any more by the emulator's fault is not the kernel's fault.
complaints_of() {
	local starved='^$'
	! grep -qs "$LOST_INTERRUPT" "$1/.vm/watch.log" || starved='soft lockup|workqueue lockup|detected (expedited )?stall'
	grep -E "$COMPLAINTS" "$1/serial.log" | grep -vE "$starved" || true
}
LOST_INTERRUPT='the emulator has lost the end of'
COMPLAINTS='Kernel panic|BUG:|kernel BUG|Oops|WARNING:|UBSAN|stall'

# Contents of what goes into an initrd; part of the image's name, so that
# checkouts with different contents can share one cache.
outer_initrd_name() {
	printf 'initrd-%s.img' "$(cat "$SLUICE_SRC"/tools/lib/{initrd-init,initrds.sh} | hash_of)"
}

guest_initrd_name() {
	printf 'guest-%s.img' "$(cat "$SLUICE_SRC"/tests/guest/{agent,init} "$SLUICE_SRC/tools/lib/initrds.sh" | hash_of)"
}

# The debug kernel's directory in /kernel of the build root, and its release.
debug_name() {
	printf 'debug-%s' "$({ declare -p DEBUG_PACKAGES && tail -n +2 "$SLUICE_SRC/tools/lib/debug.config"; } | hash_of)"
}

debug_release() {
	printf '%s-%s' "${KVER%%+*}" "$(debug_name)"
}

debug_initrd_name() {
	printf '%s-%s' "$(debug_name)" "$(outer_initrd_name)"
}
