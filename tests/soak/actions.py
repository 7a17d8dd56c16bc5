# SPDX-License-Identifier: GPL-2.0
"""What is done to guests, slices and the card. Each action may leave the machine
as Machine.ensure() can make good; what may never happen is checked at once."""

import errno
import random
import re
import subprocess
import threading
import time
import uuid
from pathlib import Path

from flows import Flows
from machine import MEMORY_MIB, PEER_IP, ROOMY_BYTES, Slice, Violation, peer, shell, wait_for

HOSTILE = "/build/hostile/hostile"
HOST_IP = "10.77.0.9"


def hostile_cases():
    """
    As FIXTURE.TEST, or FIXTURE.VARIANT.TEST where a fixture has variants (mapping strategies). The table's rows
    have a variant and a test each, as long as there are any; the first one names the fixture.
    """
    table = subprocess.run([HOSTILE, "-l"], text=True, stderr=subprocess.STDOUT, stdout=subprocess.PIPE).stdout
    cases = []
    for part in re.split(r"^-+\n", table.partition("\n")[2], flags=re.M):
        rows = [(row[:20].strip(), row[21:46].strip(), row[47:].strip()) for row in part.splitlines()]
        fixture, variants = rows[0][0], [variant for _, variant, _ in rows if variant]
        # These want a third slice, and much time.
        if fixture != "memory_gone":
            names = [f"{fixture}.{variant}" for variant in variants] or [fixture]
            cases += [f"{name}.{test}" for name in names for _, _, test in rows if test]
    if len(cases) < 50:
        raise Violation(f"no list of hostile cases: {table}")
    return cases


def listens(pid, port):
    """Whether somebody does, in the process's network namespace."""
    tables = "".join((Path(f"/proc/{pid}/net") / name).read_text() for name in ("tcp", "tcp6"))
    return re.search(rf":{port:04X} \S+ 0A ", tables)


class Actions:
    def __init__(self, machine, tally):
        self.machine, self.tally = machine, tally
        # Broken rules and refused accesses of hostile clients; settings refused while in use.
        self.refused = {"rules broken": 0, "accesses refused": 0, "settings while in use": 0, "slices beyond the last": 0}
        self.hostile_cases = hostile_cases()

    def do(self, action):
        details = dict(action.details)
        guest = self.machine.guests[details.pop("guest")]
        getattr(self, action.kind)(guest, **details)

    def flows(self, *guests, to_wire=True):
        return Flows(self.machine, self.tally, guests or self.machine.guests.values(), to_wire)

    def others(self, guest):
        return [other for other in self.machine.guests.values() if other is not guest]

    # --- while guests go on ---

    def strategy(self, guest, names):
        piece = guest.slice
        with self.flows():
            for name in names:
                if name == "direct-map" and piece.number("pinned_max") < ROOMY_BYTES:
                    name = "persistent"
                before = piece.number("stats/tx_packets"), piece.number("stats/rx_packets")
                piece.write("strategy", name)
                if piece.read("strategy") != name:
                    raise Violation(f"strategy is {piece.read('strategy')}, not {name}")
                wait_for(f"packets both ways under {name}",
                         lambda: piece.number("stats/tx_packets") > before[0] + 20
                         and piece.number("stats/rx_packets") > before[1] + 20)

    def balloon(self, guest, mib):
        with self.flows():
            guest.run("[ -e /sys/module/virtio_balloon ] || insmod /lib/balloon.ko")
            for size in (mib << 20, MEMORY_MIB << 20):
                guest.qmp("balloon", value=size)
                wait_for(f"balloon leaves {size} bytes", lambda: guest.qmp("query-balloon")["actual"] == size)

    def tcp(self, guest, reverse, seconds):
        """Both guests at once: offloads, and packets of all sizes."""
        failures = []

        def stream(one, port):
            server = subprocess.Popen(peer("iperf3", "-s", "-1", "-p", str(port)), stdout=subprocess.DEVNULL)
            try:
                wait_for("iperf3 listens", lambda: listens(server.pid, port))
                one.run(f"iperf3 -c {PEER_IP} -p {port} -t {seconds} {'-R' if reverse else ''}", seconds + 180)
            except Exception as error:  # pylint: disable=broad-except
                failures.append(error)
            finally:
                server.kill()
                server.wait()

        threads = [threading.Thread(target=stream, args=(one, 5201 + n))
                   for n, one in enumerate((guest, *self.others(guest)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def slices(self, _, order):
        """All the others come and go."""
        rng, made = random.Random(order), []
        with self.flows():
            free = self.machine.available()
            for n in range(free):
                made.append(Slice(str(uuid.UUID(int=rng.getrandbits(128), version=4))))
                self.machine.make_slice(made[-1])
            try:
                self.machine.make_slice(Slice(str(uuid.UUID(int=rng.getrandbits(128), version=4))))
                raise Violation("one slice more than there are pools")
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise Violation(f"a slice too many: {error}") from error
                self.refused["slices beyond the last"] += 1
            rng.shuffle(made)
            for piece in made:
                piece.write("remove", 1)
            if self.machine.available() != free:
                raise Violation(f"{self.machine.available()} slices on offer, {free} before")

    def hostile(self, _, cases):
        """Some of its tests beside the guests. What it sends to the wire is not for our account there."""
        names = [self.hostile_cases[pick % len(self.hostile_cases)] for pick in cases]
        print(f"    {' '.join(names)}", flush=True)
        before = self.machine.available()
        pieces = [Slice(str(uuid.uuid4())), Slice(str(uuid.uuid4()))]
        for piece in pieces:
            self.machine.make_slice(piece)
        options = " ".join(f"-r {name}" for name in names)
        with self.flows(to_wire=False):
            said = shell(f"export HOSTILE_A={pieces[0].uuid} HOSTILE_B={pieces[1].uuid} HOSTILE_PCI={self.machine.nic} "
                         f"HOSTILE_PEER_IF=peer0 HOSTILE_PEER_NETNS=peer; sysctl -q kernel.kptr_restrict=0; {HOSTILE} {options}", 600)
        if len(re.findall("^ok ", said, re.M)) != len(set(names)):
            raise Violation(f"hostile clients: not all have run\n{said}")
        for piece in pieces:
            self.refused["rules broken"] += piece.total("rejected")
            self.refused["accesses refused"] += piece.number("stats/accesses_refused")
            wait_for("nothing pinned for hostile clients", piece.unpinned)
            if piece.number("stats/leaked"):
                raise Violation("hostile clients leaked pages")
            piece.write("remove", 1)
        if self.machine.available() != before:
            raise Violation(f"{self.machine.available()} slices on offer, {before} before")

    # --- what guests do ---

    def guest_reset(self, guest):
        with self.flows():
            guest.run("touch /tmp/before")
            # A guest that resets by itself must end: it is one that crashed.
            guest.qmp("set-action", reboot="reset")
            guest.qmp("system_reset")
            guest.life += 1
            wait_for(f"guest {guest.name} restarts", lambda: guest.agrees("[ ! -e /tmp/before ]"), 300)
            guest.qmp("set-action", reboot="shutdown")
            guest.up()

    def function_reset(self, guest, times):
        # With the interface up: igbvf's reset_prepare waits for ever on one that is down.
        with self.flows():
            for _ in range(times):
                guest.run("echo 1 >$(readlink -f /sys/class/net/$i/device)/reset")
                guest.up()

    def driver_reload(self, guest, times):
        with self.flows():
            for _ in range(times):
                guest.run("modprobe -r igbvf && modprobe igbvf")
            guest.up()

    def interface(self, guest, times):
        with self.flows():
            for _ in range(times):
                guest.run("ip link set $i down && ip link set $i up")
            guest.up()

    def ring_size(self, guest, sizes):
        with self.flows():
            for size in sizes:
                guest.run(f"ethtool -G $i rx {size} tx {size}")
                guest.up()
            guest.run("ethtool -G $i rx 256 tx 256")
            guest.up()

    # --- guests that end ---

    def guest_killed(self, guest, after_ms):
        with self.flows():
            time.sleep(after_ms / 1000)
            guest.end()
            guest.slice.check_closed()
            self.machine.ensure_guest(guest)

    def guest_crashes(self, guest):
        with self.flows():
            guest.check_log()
            guest.tool.run("sleep 1; echo c >/proc/sysrq-trigger", 3)
            if not guest.tool.wait_end(120):
                raise Violation(f"guest {guest.name} does not end though its kernel should have crashed")
            guest.life += 1
            (guest.tool.dir / "told").touch()
            guest.slice.check_closed()
            self.machine.ensure_guest(guest)

    def removed_in_use(self, guest, after_ms):
        """Removing a slice waits for its user, and nobody else waits for either."""
        with self.flows(*self.others(guest)):
            removal = threading.Thread(target=guest.slice.write, args=("remove", 1))
            removal.start()
            time.sleep(after_ms / 1000)
            guest.end()
            removal.join(120)
            if removal.is_alive() or guest.slice.exists():
                raise Violation("the slice stays, though its user has ended")

    def policy(self, guest, settings):
        with self.flows(*self.others(guest)):
            self.refuse_while_open(guest, settings)
            guest.end(kindly=True)
            guest.slice.check_closed()
            if settings["pinned_max"] < ROOMY_BYTES:
                guest.slice.write("strategy", "persistent")
            for name, value in settings.items():
                guest.slice.write(name, value)
                if guest.slice.read(name) != str(value):
                    raise Violation(f"{name} is {guest.slice.read(name)}, not {value}")
            self.machine.ensure_guest(guest)

    def refuse_while_open(self, guest, settings):
        for name, value in settings.items():
            try:
                guest.slice.write(name, value)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise Violation(f"{name}={value} while in use: {error}") from error
                self.refused["settings while in use"] += 1
                continue
            raise Violation(f"{name} was changed while a VMM has the slice open")

    # --- the wire and the card ---

    def card_link(self, _, down_ms):
        link = self.machine.card / "sluice/link"
        with self.flows():
            for pause_ms in down_ms:
                shell("monitor set_link name=nic0 up=false")
                wait_for("the card sees no link", lambda: link.read_text().strip() == "0")
                time.sleep(pause_ms / 1000)
                shell("monitor set_link name=nic0 up=true")
                wait_for("the card sees its link", lambda: link.read_text().strip() != "0")
            for guest in self.machine.guests.values():
                guest.up()

    def wire_link(self, _, down_ms):
        """The far end's cable."""
        with self.flows():
            for pause_ms in down_ms:
                shell("monitor set_link name=peer up=false")
                time.sleep(pause_ms / 1000)
                shell("monitor set_link name=peer up=true")
            wait_for("the peer's link", lambda: shell("peer cat /sys/class/net/peer0/carrier") == "1")

    def give_back(self, _):
        """The host has the card for a moment; its slices go with it."""
        self.machine.end_guests()
        shell("give_card_back; wait_for 120 host_interface")
        for guest in self.machine.guests.values():
            if guest.slice.exists():
                raise Violation("a slice outlives its card")
        shell(f"i=$(host_interface); ip address replace {HOST_IP}/24 dev $i && ip link set $i up && "
              f"wait_for 120 grep -q 1 /sys/class/net/$i/carrier && ping -c 3 -i 0.2 -W 5 -w 40 {PEER_IP}")

    def module_reload(self, _):
        self.machine.end_guests()
        self.machine.unload()
