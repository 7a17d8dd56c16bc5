# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# The two initial RAM disks: the outer test machine's, which only mounts its
# root over 9p, and the nested guest's, which is all that the guest has.

OUTER_MODULES=(9p 9pnet_virtio overlay)
GUEST_MODULES=(igbvf virtio_net bridge pktgen 8021q)
GUEST_PROGRAMS=(iperf3 ethtool ip bridge ping tcpdump)

# Not compressed: unpacking would cost an emulated guest more than loading.
pack() {
	in_root sh -ec "cd /kernel/tree; find . | cpio --quiet -o -H newc -R 0:0 >/kernel/$1.tmp"
	mv "$ROOT/kernel/$1.tmp" "$ROOT/kernel/$1"
	rm -rf "$ROOT/kernel/tree"
}

tree_begin() {
	rm -rf "$ROOT/kernel/tree"
	mkdir -p "$ROOT/kernel/tree"/{bin,dev,etc,lib,proc,root,run,sys,tmp,usr/lib}
	cp "$ROOT/bin/busybox" "$ROOT/kernel/tree/bin/"
	in_root sh -c 'for name in $(busybox --list); do [ $name = busybox ] || ln -s busybox "/kernel/tree/bin/$name"; done'
	ln -s bin "$ROOT/kernel/tree/sbin"
}

# tree_modules KERNEL MODULE...: with what they need.
tree_modules() {
	in_root sh -ec 'kernel=$1; shift
		for name; do modprobe -S "$kernel" --show-depends "$name"; done |
		sed -n "s/^insmod //p" | sort -u | while read -r file _; do
			mkdir -p "/kernel/tree${file%/*}"
			case $file in
			*.xz) xz -dc "$file" >"/kernel/tree${file%.xz}" ;;
			*.zst) zstd -dqc "$file" >"/kernel/tree${file%.zst}" ;;
			*) cp "$file" "/kernel/tree$file" ;;
			esac
		done
		mkdir -p "/kernel/tree/lib/modules/$kernel"
		for list in order builtin builtin.modinfo; do
			cp "/lib/modules/$kernel/modules.$list" "/kernel/tree/lib/modules/$kernel/"
		done
		depmod -b /kernel/tree "$kernel"' - "$@"
}

tree_programs() {
	# libgcc_s is opened by libpthread at run time, so ldd does not name it.
	in_root sh -ec 'for name; do
			program=$(command -v "$name")
			rm -f "/kernel/tree/bin/$name"
			cp -L "$program" "/kernel/tree/bin/$name"
			ldd "$program" | grep -o "/[^ ]*" || true
		done | sort -u >/tmp/libraries
		ls /lib/x86_64-linux-gnu/libgcc_s.so.1 >>/tmp/libraries
		while read -r file; do
			mkdir -p "/kernel/tree${file%/*}"
			cp -L "$file" "/kernel/tree$file"
		done </tmp/libraries' - "$@"
}

# make_outer_initrd KERNEL IMAGE
make_outer_initrd() {
	tree_begin
	tree_modules "$1" "${OUTER_MODULES[@]}"
	install -m 755 "$SLUICE_SRC/tools/lib/initrd-init" "$ROOT/kernel/tree/init"
	pack "$2"
}

stage_outer_initrd() {
	make_outer_initrd "$KVER" "$(outer_initrd_name)"
}

stage_guest_initrd() {
	tree_begin
	tree_modules "$KVER" "${GUEST_MODULES[@]}"
	tree_programs "${GUEST_PROGRAMS[@]}"
	install -m 755 "$SLUICE_SRC/tests/guest/init" "$ROOT/kernel/tree/init"
	install -m 755 "$SLUICE_SRC/tests/guest/agent" "$ROOT/kernel/tree/bin/agent"
	pack "$(guest_initrd_name)"
}
