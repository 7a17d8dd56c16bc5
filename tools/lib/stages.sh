# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# The stages of tools/setup. Each runs with its output in a log, may be killed
# anywhere, and starts over when it has no stamp.

# shellcheck source=tools/lib/initrds.sh
. "$SLUICE_SRC/tools/lib/initrds.sh"

explain_failure() {
	local log=$1
	{
		printf '\n%s: failed. From %s:\n\n' "$2" "$log"
		grep -nE '(^|[^a-z_])(E:|[Ee]rror|ERROR|fatal)([: ]|$)' "$log" | { head -n 5 | sed 's|^|    |'; } || true
		printf '    [...]\n'
		tail -n 20 "$log" | sed 's/^/    /'
		printf '\nRun the same command again: what is finished is kept.\n'
		printf 'If it was the network, check that "apt-get update" works on this machine.\n'
	} >&2
	exit 1
}

# logged TITLE LOG FUNCTION: run it with its output in the log.
logged() {
	local title=$1 log=$2 status=0
	say "$title …"
	# Not in an "if": that would switch off "set -e" inside the function.
	set +e
	(set -e && "$3") >"$log" 2>&1
	status=$?
	set -e
	((status == 0)) || explain_failure "$log" "$title"
}

# stage NAME TITLE INPUTS...: skipped if its stamp in STAMPS has the same inputs; logs to LOGS.
stage() {
	local name=$1 title=$2 stamp=$STAMPS/$1 inputs
	shift 2
	inputs=$(printf '%s\n' "$@" | hash_of)
	[[ ! -e $stamp || $(<"$stamp") != "$inputs" ]] || return 0
	rm -f "$stamp"
	logged "$title" "$LOGS/$name.log" "stage_$name"
	printf '%s\n' "$inputs" >"$stamp"
}

in_root() {
	SLUICE_ROOT=$ROOT "$SLUICE_SRC/tools/enter" --rw --env DEBIAN_FRONTEND=noninteractive -- "$@"
}

apt_root() {
	in_root apt-get -y -q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=5 -o APT::Install-Recommends=false "$@"
}

# A killed run leaves packages half installed, and perhaps a dpkg that still
# holds its lock. All of this does nothing otherwise.
apt_repair() {
	local tries broken
	for ((tries = 0; tries < 30; tries++)); do
		! in_root dpkg --configure -a || break
		sleep 2
	done
	mapfile -t broken < <(in_root dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' |
		awk 'length($1) > 2 { print $2 }')
	((${#broken[@]} == 0)) || apt_root install --reinstall "${broken[@]}"
	apt_root --fix-broken install
}

apt_install() {
	apt_repair
	apt_root install "$@"
	[[ ! $(in_root dpkg --audit) ]]
}

# The Debian archive that this machine itself uses.
debian_mirror() {
	if [[ ${SLUICE_MIRROR:-} ]]; then
		printf '%s\n' "$SLUICE_MIRROR"
		return
	fi
	apt-get indextargets --format "\$(ORIGIN)|\$(LABEL)|\$(REPO_URI)" |
		awk -F'|' '$1 == "Debian" && $2 == "Debian" { print $3; exit }'
}

# --- on this machine ---------------------------------------------------------

host_tools() {
	local missing=() package
	for package in mmdebstrap debian-archive-keyring ca-certificates mount; do
		dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
	done
	# Always, because the mirror is read from the package lists, and because an old
	# keyring may not know the suite's key.
	apt-get -q -o Acquire::Retries=5 update || echo "apt-get update failed: going on with the lists that are there"
	[[ -e /usr/share/keyrings/debian-archive-$SUITE-stable.gpg ]] || missing+=(debian-archive-keyring)
	((${#missing[@]} == 0)) ||
		DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Acquire::Retries=5 --no-install-recommends install "${missing[@]}"
}

# --- the root ----------------------------------------------------------------

make_root() {
	local mirror option
	mirror=$(debian_mirror)
	[[ $mirror ]] || { echo "apt on this machine names no Debian archive; set SLUICE_MIRROR=URL"; return 1; }
	local options=(--variant=apt --include=ca-certificates --aptopt='Acquire::Retries "5"')
	while read -r option; do
		options+=(--aptopt="$option")
	done < <(apt-config dump | grep -E '^Acquire::(http|https)::Proxy[ :]' || true)

	mmdebstrap "${options[@]}" "$SUITE" "$ROOT" \
		"deb $mirror $SUITE main" "deb $mirror $SUITE-backports main"
	mkdir -p "$ROOT"/{sluice,build,out,cargo,target,vmroot,kernel}
	touch "$ROOT"/etc/{resolv.conf,hosts}
	# So that cargo and apt trust what this machine trusts.
	[[ ! -s /etc/ssl/certs/ca-certificates.crt ]] ||
		cp /etc/ssl/certs/ca-certificates.crt "$ROOT/etc/ssl/certs/"
	apt_root update
}

has_package() {
	in_root apt-cache show --no-all-versions "$1" >/dev/null 2>&1
}

package_version() {
	in_root apt-cache madison "$1" | awk '{ print $3; exit }'
}

# The package that holds vmlinuz. Where there is a linux-binary package,
# linux-image only depends on it; the newest kernels may not be signed yet.
image_package() {
	local package
	for package in "linux-binary-$1" "linux-binary-unsigned-$1" "linux-image-$1"; do
		! has_package "$package" || { printf '%s\n' "$package"; return; }
	done
	return 1
}

source_package() {
	printf 'linux-source-%s' "$(cut -d. -f1-2 <<<"$1")"
}

kernel_is_complete() {
	has_package "linux-modules-$1" && image_package "$1" >/dev/null &&
		in_root apt-cache madison "$(source_package "$1")" | awk '{ print $3 }' |
		grep -qxF "$(package_version "linux-headers-$1")"
}

choose_kernel() {
	local series kernel
	for series in "${KERNEL_SERIES[@]}"; do
		for kernel in $(in_root apt-cache pkgnames "linux-headers-$series." |
			sed -nE 's/^linux-headers-([0-9.]+\+deb[0-9]+-amd64)$/\1/p' | sort -rV); do
			if kernel_is_complete "$kernel"; then
				printf '%s\n' "$kernel"
				return
			fi
			echo "kernel $kernel: image, modules, headers or matching source not offered" >&2
		done
	done
	echo "no kernel of a supported series (${KERNEL_SERIES[*]}) in $SUITE-backports" >&2
	return 1
}

stage_toolchain() {
	local version
	version=$(package_version "linux-headers-$KVER")
	apt_install "${BUILD_PACKAGES[@]}" "linux-headers-$KVER=$version" "$(source_package "$KVER")=$version"
}

stage_fuzz_tools() {
	apt_install "${FUZZ_PACKAGES[@]}"
}

stage_vm_tools() {
	apt_install "${VM_PACKAGES[@]}"
}

# --- the kernel --------------------------------------------------------------

stage_source() {
	rm -rf "$ROOT/kernel/src"
	mkdir "$ROOT/kernel/src"
	in_root tar -C /kernel/src --strip-components=1 -xf "/usr/src/$(source_package "$KVER").tar.xz"
}

# Debian's compiler for this kernel: the one that its configuration names.
kernel_cc() {
	sed -nE 's/^CONFIG_CC_VERSION_TEXT="[^"]*(gcc-[0-9]+) .*/\1/p' "$ROOT/kernel/build/.config"
}

check_rustc() {
	local want have
	want=$(sed -nE 's/^CONFIG_RUSTC_VERSION_TEXT="(.*)"/\1/p' "$ROOT/kernel/build/.config")
	have=$(in_root rustc --version)
	[[ $want == "$have" ]] && return
	echo "the kernel was built with: $want"
	echo "this root has:             $have"
	echo "symbol names of Rust modules would differ"
	return 1
}

# The headers package lacks the metadata of the kernel's Rust crates. It can be
# made again from the same source, configuration and compilers.
stage_kernel_build_dir() {
	local headers=/usr/src/linux-headers-$KVER build=$ROOT/kernel/build cc
	rm -rf "$build"
	mkdir "$build"
	cp "$ROOT$headers/.config" "$build/.config"
	check_rustc
	cc=$(kernel_cc)
	# What every make for this kernel must be given; read by tools/build.
	printf 'export LOCALVERSION=%s\nKMAKE_FLAGS="CC=%s HOSTCC=%s"\n' \
		"${KVER#"${KVER%%+*}"}" "$cc" "$cc" >"$build/sluice.env"
	in_root env LOCALVERSION="${KVER#"${KVER%%+*}"}" make -C /kernel/src O=/kernel/build \
		CC="$cc" HOSTCC="$cc" -j"$(nproc)" olddefconfig prepare modules_prepare
	cp "$ROOT$headers/Module.symvers" "$build/"
	grep -qxF "$KVER" "$build/include/config/kernel.release"
}

stage_kernel_image() {
	local work=$ROOT/kernel/unpack packages
	packages=("$(image_package "$KVER")" "linux-modules-$KVER")
	# Newer packagings keep the lists of built-in modules in a package of its own.
	! has_package "linux-base-$KVER" || packages+=("linux-base-$KVER")
	rm -rf "$work" "$ROOT/usr/lib/modules/$KVER"
	mkdir -p "$work" "$ROOT/usr/lib/modules"
	in_root sh -ec 'cd /kernel/unpack; apt-get -q -o Acquire::Retries=5 -o APT::Sandbox::User=root download "$@"
		for package in *.deb; do dpkg-deb -x "$package" .; done' \
		- "${packages[@]}"
	find "$work" -name 'vmlinuz*' -exec cp {} "$ROOT/kernel/vmlinuz" \; -quit
	[[ -s $ROOT/kernel/vmlinuz ]]
	find "$work" -type d -path "*/lib/modules/$KVER" -exec mv {} "$ROOT/usr/lib/modules/" \; -quit
	in_root depmod "$KVER"
	rm -rf "$work"
}
