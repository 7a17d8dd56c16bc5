#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The measurements of tools/bench, inside the test machine."""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

PEER_IP, GUEST_IP = "10.77.0.1", "10.77.0.11"
TRAFFIC = "/build/traffic/traffic"
PUMP = "/build/hostile/pump"
WINDOW = 128
KVM_EXITS = Path("/sys/kernel/debug/kvm/exits")
LIB = 'export GUEST_CPUS=0-1; . /sluice/tests/kselftest/ktap_helpers.sh; . /sluice/tests/kselftest/slices_lib.sh; '
# Here also for a guest on virtio.
LIB += "GUEST_IF='$(for d in /sys/class/net/*; do [ ! -e $d/device ] || echo ${d##*/}; done)'; "
PKTGEN = """
modprobe pktgen
p() {{ echo "$2" >/proc/net/pktgen/$1; }}
p kpktgend_0 rem_device_all; p kpktgend_0 "add_device $i"
p $i "count {count}"; p $i "pkt_size 60"; p $i "burst {burst}"; p $i "delay 0"
p $i "dst_mac {mac}"; p $i "src_min 10.77.0.11"; p $i "dst_min 10.77.0.200"; p $i "udp_dst_min 9"
p pgctrl start; cat /proc/net/pktgen/$i
"""


def run(command, **options):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options).stdout


def shell(script):
    return run(["bash", "-c", LIB + script]).strip()


def peer(*command):
    return ["ip", "netns", "exec", "peer", *command]


def guest(command, timeout=120):
    """In the guest, with $i as its network interface."""
    find = 'for d in /sys/class/net/*; do [ -e $d/device ] && i=${d##*/}; done; '
    return run(["guest", "exec", "g", "--timeout", str(timeout), find + command])


def guest_background(command, timeout=120):
    find = 'for d in /sys/class/net/*; do [ -e $d/device ] && i=${d##*/}; done; '
    return subprocess.Popen(["guest", "exec", "g", "--timeout", str(timeout), find + command],
                            text=True, stdout=subprocess.PIPE)


def peer_packets(direction):
    return int(run(peer("cat", f"/sys/class/net/peer0/statistics/{direction}_packets")))


def values(text):
    """All name=value pairs."""
    return {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", text)}


class Exits:
    """Exits of the guest per packet on the wire, while the block runs."""

    def __enter__(self):
        self.before = self.now()
        return self

    def __exit__(self, *_):
        exits, packets = (b - a for a, b in zip(self.before, self.now()))
        self.per_packet = exits / packets if packets > 100 else None

    @staticmethod
    def now():
        return int(KVM_EXITS.read_text()), peer_packets("rx") + peer_packets("tx")


class Bench:
    def __init__(self, options, uuid=None):
        self.options = options
        self.uuid = uuid
        self.samples = {}

    def add(self, name, value):
        if value is not None:
            self.samples.setdefault(name, []).append(value)
            print(f"    {name}: {value:.4g}" if value < 100 else f"    {name}: {value:.0f}", file=sys.stderr)

    @staticmethod
    def attempt(measure, *arguments):
        """One that fails leaves a gap in the table and not an hour's work undone."""
        try:
            measure(*arguments)
        except (subprocess.CalledProcessError, LookupError, ValueError, AttributeError) as error:
            print(f"  {measure.__name__} {arguments}: {error!r}", file=sys.stderr)

    def tcp(self, name, *more):
        with Exits() as exits:
            out = guest(f"iperf3 -c {PEER_IP} -t {self.options.seconds} -J --connect-timeout 20000 {' '.join(more)}",
                        self.options.seconds + 60)
        result = json.loads(out)
        self.add(f"{name}, Mbit/s", result["end"]["sum_received"]["bits_per_second"] / 1e6)
        self.add(f"{name}, exits/packet", exits.per_packet)

    def transmit(self, burst):
        name = f"transmit 60 B, {burst} per doorbell"
        count = 30000
        mac = run(peer("cat", "/sys/class/net/peer0/address")).strip()
        before = peer_packets("rx")
        with Exits() as exits:
            out = guest(PKTGEN.format(count=count, burst=burst, mac=mac))
            time.sleep(1)
        rate = int(re.search(r"(\d+)pps", out).group(1))
        arrived = min(1, (peer_packets("rx") - before) / count)
        self.add(f"{name}, kpps", rate / 1e3)
        self.add(f"{name}, arrived %", arrived * 100)
        self.add(f"{name}, exits/packet", exits.per_packet)

    def round_trip(self, name, load=False):
        server = subprocess.Popen(peer(TRAFFIC, "udp-echo"))
        stream = None
        try:
            if load:
                stream = guest_background(f"iperf3 -c {PEER_IP} -R -t 60 >/dev/null 2>&1 & p=$!; sleep 1; "
                                          f"traffic udp-rr {PEER_IP} -n 200; s=$?; kill $p; exit $s")
                out, _ = stream.communicate()
                self.add(f"{name}, median us", values(out)["median"])
                self.add(f"{name}, p99 us", values(out)["p99"])
                return
            time.sleep(0.5)
            with Exits() as exits:
                result = values(guest(f"traffic udp-rr {PEER_IP} -n 500"))
            self.add(f"{name}, median us", result["median"])
            self.add(f"{name}, p99 us", result["p99"])
            self.add(f"{name}, exits/packet", exits.per_packet)
        finally:
            server.kill()
            server.wait()

    def account(self, name, text):
        """What became of numbered packets."""
        result = values(text)
        for key in ("received", "lost", "socket_drops", "duplicated", "reordered", "corrupt"):
            self.add(f"{name}, {key}", result[key])

    def accounting(self, guest_mac):
        """Senders wait for the receiver now and then: what is lost is not for want of a buffer."""
        count, limit = self.options.count, self.options.count // 200 + 120
        peer_mac = run(peer("cat", "/sys/class/net/peer0/address")).strip()
        how = f"-n {count} -s 60 -b 8 -w {WINDOW}"
        with subprocess.Popen(peer(TRAFFIC, "receive", "peer0", "-n", str(count), "-i", "3000"),
                              text=True, stdout=subprocess.PIPE) as sink:
            while "listening" not in sink.stdout.readline():
                pass
            guest(f"traffic send $i {peer_mac} {how}", limit)
            self.account("numbered from guest", sink.communicate()[0])
        shell(f"guest_listens g {count} 3000")
        run(peer(TRAFFIC, "send", "peer0", guest_mac, *how.split()))
        self.account("numbered to guest", shell("guest_heard g"))

    def places(self):
        """Packets so far at each place that a packet passes, by direction."""
        out = {"left the slice": self.slice_packets("tx"), "reached the peer": peer_packets("rx")}
        into = {"left the peer": peer_packets("tx"), "reached the slice": self.slice_packets("rx")}
        text = guest("for f in tx_packets rx_packets rx_dropped rx_errors; do "
                     "echo $f=$(cat /sys/class/net/$i/statistics/$f); done")
        interface = values(text)
        out = {"left the guest": interface["tx_packets"]} | out
        into |= {"reached the guest": interface["rx_packets"],
                 "dropped by the guest": interface["rx_dropped"] + interface["rx_errors"]}
        return out, into

    def slice_packets(self, direction):
        if self.uuid is None:
            return 0
        return int(Path(f"/sys/bus/mdev/devices/{self.uuid}/stats/{direction}_packets").read_text())

    def bulk(self):
        """At least so many packets of TCP streams each way at once, counted wherever they pass."""
        before, count = self.places(), self.options.bulk
        started = told = time.monotonic()
        guest(f"iperf3 -c {PEER_IP} --bidir -M {self.options.mss} -t 86400 >/tmp/bulk 2>&1 & echo $! >/tmp/bulk.pid")
        while True:
            time.sleep(5)
            passed = [peer_packets(way) - old for way, old in
                      (("rx", before[0]["reached the peer"]), ("tx", before[1]["left the peer"]))]
            if min(passed) >= count:
                break
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print(f"    {told - started:.0f} s: {passed[0]} packets out, {passed[1]} in", file=sys.stderr)
                guest("kill -0 $(cat /tmp/bulk.pid)")
        seconds = time.monotonic() - started
        guest("kill $(cat /tmp/bulk.pid)")
        time.sleep(5)
        for way, old, new in zip(("out", "in"), before, self.places()):
            for place, packets in new.items():
                self.add(f"TCP packets {way}, {place}", packets - old[place])
        self.add("TCP packets both ways, kpps", sum(passed) / seconds / 1e3)

    def all(self):
        shell(f"peer_iperf_server; peer ip neigh flush dev peer0")
        guest(f"ip link set $i up; ip address replace {GUEST_IP}/24 dev $i; "
              f"n=0; until ping -c 1 -W 2 {PEER_IP}; do n=$((n + 1)); [ $n -lt 30 ] || exit 1; done")
        mac = guest("cat /sys/class/net/$i/address").strip()
        for number in range(self.options.rounds):
            print(f"  round {number + 1} of {self.options.rounds}", file=sys.stderr)
            self.attempt(self.tcp, "TCP guest to wire")
            self.attempt(self.tcp, "TCP wire to guest", "-R")
            self.attempt(self.transmit, 1)
            self.attempt(self.transmit, 32)
            self.attempt(self.round_trip, "UDP request/response")
            self.attempt(self.round_trip, "the same under TCP load", True)
        self.attempt(self.accounting, mac)
        if self.options.bulk:
            self.attempt(self.bulk)
        shell("stop_peer_iperf")
        return {name: statistics.median(samples) for name, samples in self.samples.items()}


def counters(uuid):
    """What the slice, its card and the peer counted so far."""
    stats = Path(f"/sys/bus/mdev/devices/{uuid}/stats")
    found = {f"slice {file.name}": file for file in (stats / name for name in
             ("tx_packets", "tx_descriptors", "tx_completed", "rx_packets", "rx_posted", "rx_completed"))}
    found |= {f"slice rejected/{file.name}": file for file in sorted((stats.parent / "rejected").glob("*"))}
    values = {name: int(file.read_text()) for name, file in found.items() if file.exists()}
    return values | {"peer rx_packets": peer_packets("rx"), "peer tx_packets": peer_packets("tx")}


def pump(count):
    """So many numbered packets each way between the peer and a driver in user space."""
    result = {}
    shell("load_module && take_card")
    uuid = shell("new_slice")
    peer_mac = run(peer("cat", "/sys/class/net/peer0/address")).strip()
    before = counters(uuid)

    def account(way, text):
        for key in ("received", "lost", "duplicated", "reordered", "corrupt", "pps"):
            result[f"numbered {way}, {key}"] = values(text)[key]

    def finish(way, process):
        """Shows progress, which the card's counters tell."""
        key, started = f"peer {'rx' if way == 'out' else 'tx'}_packets", time.monotonic()
        base = counters(uuid)[key]
        while process.poll() is None:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                print(f"    {way}: {counters(uuid)[key] - base} packets, {time.monotonic() - started:.0f} s", file=sys.stderr)

    with subprocess.Popen(peer(TRAFFIC, "receive", "peer0", "-n", str(count), "-i", "20000"),
                          text=True, stdout=subprocess.PIPE) as sink:
        while "listening" not in sink.stdout.readline():
            pass
        with subprocess.Popen([PUMP, "send", uuid, peer_mac, str(count)], text=True, stdout=subprocess.PIPE) as source:
            finish("out", source)
        account("out", sink.communicate()[0])
    with subprocess.Popen([PUMP, "receive", uuid, str(count)], text=True, stdout=subprocess.PIPE) as sink:
        mac = sink.stdout.readline().split()[1]
        with subprocess.Popen(peer(TRAFFIC, "send", "peer0", mac, "-n", str(count), "-s", "60", "-b", "16", "-w", "128"),
                              text=True, stdout=subprocess.PIPE) as source:
            finish("in", source)
        account("in", sink.communicate()[0])
    after = counters(uuid)
    result |= {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    shell(f"remove_slice {uuid}")
    return result


def free_kib():
    Path("/proc/sys/vm/drop_caches").write_text("3")
    time.sleep(0.5)
    fields = dict(re.findall(r"(\w+):\s+(\d+)", Path("/proc/meminfo").read_text()))
    return int(fields["MemFree"])


def open_slices(uuids):
    """A process that has them open, as a VMM that has mapped no memory yet."""
    holder = subprocess.Popen([sys.executable, "/sluice/tests/bench/holder.py", *uuids],
                              text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if holder.stdout.readline() != "open\n":
        raise RuntimeError("slices cannot be opened")
    return holder


def opened_kib(uuids):
    """What opening the slices takes of the host's memory, beside their process."""
    with open_slices([]) as nothing:
        idle = free_kib()
        nothing.stdin.close()
    with open_slices(uuids) as holder:
        opened = free_kib()
        holder.stdin.close()
    return idle - opened


def memory():
    """Memory of the module with its card and of slices, in KiB; coarse: others take and give, too."""
    start = free_kib()
    shell("load_module && take_card")
    loaded = free_kib()
    shell('for n in $(seq $(available)); do new_slice; done')
    uuids = [path.name for path in Path("/sys/bus/mdev/devices").iterdir()]
    made = free_kib()
    more = statistics.median(opened_kib(uuids) for _ in range(5))
    shell('for d in /sys/bus/mdev/devices/*; do echo 1 >$d/remove; done')
    return {"module with card, KiB": start - loaded,
            "slice, closed, KiB": (loaded - made) / len(uuids),
            "slice, open, more KiB": more / len(uuids)}


def with_virtio(options):
    shell("""modprobe -a kvm_amd bridge tun vhost_net && modprobe igb || exit
        [[ $(driver_of) == igb ]] || give_card_back; wait_for 20 host_interface || exit
        ip link add br0 type bridge; ip link set br0 up
        ip link set "$(host_interface)" master br0 up
        ip tuntap add tap0 mode tap vnet_hdr; ip link set tap0 master br0 up""")
    run(["guest", "start", "g", "--memory", "192", "--file", f"{TRAFFIC}:/bin/traffic", "--",
         "-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no,vhost=on",
         "-device", "virtio-net-pci,netdev=n,mac=52:54:00:77:01:00"])
    try:
        return Bench(options).all()
    finally:
        run(["guest", "kill", "g"])
        shell('ip link set "$(host_interface)" nomaster; ip link del br0; ip link del tap0')


def with_slice(options):
    shell("modprobe -a kvm_amd; load_module && take_card")
    uuid = shell("new_slice")
    run(["guest", "start", "g", "--memory", "192", "--vfio", uuid, "--file", f"{TRAFFIC}:/bin/traffic"])
    try:
        result = Bench(options, uuid).all()
        stats = Path(f"/sys/bus/mdev/devices/{uuid}/stats")
        for name in ("pins", "hits", "misses", "evictions", "pinned_bytes_most"):
            result[f"map {name}"] = int((stats / name).read_text())
        return result
    finally:
        run(["guest", "kill", "g"])
        shell(f"remove_slice {uuid}")


def show(results):
    names = list(dict.fromkeys(name for column in results.values() for name in column))
    print(f"\n{'':44}" + "".join(f"{column:>16}" for column in results))
    for name in names:
        cells = (column.get(name) for column in results.values())
        print(f"{name:44}" + "".join(f"{'' if cell is None else format(cell, '.4g' if cell < 100 else '.0f'):>16}"
                                     for cell in cells))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100000)
    parser.add_argument("--bulk", type=int, default=0, help="packets of TCP streams each way, counted wherever they pass")
    parser.add_argument("--mss", type=int, default=536, help="of those streams")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--pump", type=int, default=0, help="numbered packets each way through a driver in user space, and nothing else")
    parser.add_argument("--only", choices=("virtio", "slice"))
    parser.add_argument("--strategies", action="store_true", help="compare the mapping strategies, and nothing else")
    options = parser.parse_args()

    if options.strategies:
        from strategies import strategies
        save(options, strategies(options))
        return
    if options.pump:
        results = {"slice": pump(options.pump)}
        show(results)
        save(options, results)
        return
    results = {}
    if options.only != "slice":
        print("virtio-net + vhost-net + bridge", file=sys.stderr)
        results["virtio+vhost"] = with_virtio(options)
    if options.only != "virtio":
        print("slice", file=sys.stderr)
        footprint = memory()
        results["slice"] = with_slice(options) | footprint
    show(results)
    save(options, results)


def save(options, results):
    Path("/out/bench.json").write_text(json.dumps({"options": vars(options), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
