#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The mapping strategies under the same traffic: one guest, one slice, in turn."""

import json
import statistics
import subprocess
from pathlib import Path

from inside import GUEST_IP, PEER_IP, PKTGEN, TRAFFIC, guest, peer, run, shell, values

STRATEGIES = ("single-use", "shared", "persistent", "direct-map", "copy")
COUNTERS = ("pins", "unpins", "hits", "misses", "tx_packets", "rx_packets", "tx_copied_bytes",
            "rx_copied_bytes", "pin_time_ns")
COLUMNS = ("rate", "packets", "pins/packet", "unpins/packet", "hit rate, %", "pinned now, KiB",
           "copied B/packet", "pinning ns/packet", "CPU ns/packet")


def cpu_ns():
    """CPU time of the module's threads."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/comm"):
        try:
            if status.read_text().startswith("sluice"):
                total += int((status.parent / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return total


class Slice:
    def __init__(self, uuid):
        self.dir = Path(f"/sys/bus/mdev/devices/{uuid}")

    def stat(self, name):
        path = self.dir / "stats" / name
        return int(path.read_text()) if path.exists() else 0

    def now(self):
        return {name: self.stat(name) for name in COUNTERS} | {"cpu_ns": cpu_ns()}

    def choose(self, strategy):
        (self.dir / "strategy").write_text(strategy)


def tcp(options, *more):
    out = guest(f"iperf3 -c {PEER_IP} -t {options.seconds} -J --connect-timeout 20000 {' '.join(more)}",
                options.seconds + 60)
    return json.loads(out)["end"]["sum_received"]["bits_per_second"] / 1e6


def small(_):
    mac = run(peer("cat", "/sys/class/net/peer0/address")).strip()
    out = guest(PKTGEN.format(count=20000, burst=32, mac=mac))
    return int(out.rsplit("pps", 1)[0].split()[-1]) / 1e3


def request_response(_):
    return values(guest(f"traffic udp-rr {PEER_IP} -n 500"))["median"]


WORKLOADS = {
    "TCP out, Mbit/s": tcp,
    "TCP in, Mbit/s": lambda options: tcp(options, "-R"),
    "60 B out, 32 per doorbell, kpps": small,
    "request/response, median us": request_response,
}


def measure(part, strategy, work, options):
    """One row: what the workload made, and what it cost in counters."""
    part.choose(strategy)
    before = part.now()
    rate = work(options)
    after = part.now()
    return {"rate": rate, "pinned": part.stat("pinned_bytes")} | {k: after[k] - before[k] for k in before}


def row(samples):
    """The median rate, and sums of all else."""
    total = {key: sum(sample[key] for sample in samples) for key in samples[0]}
    packets = max(1, total["tx_packets"] + total["rx_packets"])
    asked = max(1, total["hits"] + total["misses"])
    return {
        "rate": statistics.median(sample["rate"] for sample in samples),
        "packets": packets,
        "pins/packet": total["pins"] / packets,
        "unpins/packet": total["unpins"] / packets,
        "hit rate, %": 100 * total["hits"] / asked,
        "pinned now, KiB": max(sample["pinned"] for sample in samples) / 1024,
        "copied B/packet": (total["tx_copied_bytes"] + total["rx_copied_bytes"]) / packets,
        "pinning ns/packet": total["pin_time_ns"] / packets,
        "CPU ns/packet": total["cpu_ns"] / packets,
    }


def show(table):
    for work, rows in table.items():
        print(f"\n{work}\n{'':14}" + "".join(f"{column:>19}" for column in COLUMNS))
        for strategy, cells in rows.items():
            print(f"{strategy:14}" + "".join(f"{cells[column]:>19.4g}" if cells[column] < 1e4 else
                                             f"{cells[column]:>19.0f}" for column in COLUMNS))


def strategies(options):
    shell("modprobe -a kvm_amd; load_module && take_card; peer_iperf_server")
    uuid = shell("new_slice")
    run(["guest", "start", "g", "--memory", "192", "--vfio", uuid, "--file", f"{TRAFFIC}:/bin/traffic"])
    server = None
    try:
        guest(f"ip link set $i up; ip address replace {GUEST_IP}/24 dev $i; "
              f"n=0; until ping -c 1 -W 2 {PEER_IP}; do n=$((n + 1)); [ $n -lt 30 ] || exit 1; done")
        server = subprocess.Popen(peer(TRAFFIC, "udp-echo"))
        samples = {work: {strategy: [] for strategy in STRATEGIES} for work in WORKLOADS}
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", flush=True)
            for strategy in STRATEGIES:
                for name, work in WORKLOADS.items():
                    samples[name][strategy].append(measure(Slice(uuid), strategy, work, options))
                    print(f"  {strategy}: {name}: {samples[name][strategy][-1]['rate']:.4g}", flush=True)
        table = {name: {strategy: row(some) for strategy, some in rows.items()} for name, rows in samples.items()}
    finally:
        if server:
            server.kill()
            server.wait()
        run(["guest", "kill", "g"])
        shell(f"stop_peer_iperf; remove_slice {uuid}")
    show(table)
    return table
