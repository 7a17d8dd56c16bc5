# SPDX-License-Identifier: GPL-2.0
"""The test machine: card, slices, guests; what must hold of them at any time."""

import errno
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path


def load_program(name, path):
    loader = importlib.machinery.SourceFileLoader(name, path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


GUEST_TOOL = load_program("guest_tool", "/sluice/tools/lib/guest")
# A QEMU that ends resets its connections.
NO_ANSWER = (GUEST_TOOL.GuestError, OSError)
# Status of "guest exec" where the guest does not answer.
EXEC_NO_ANSWER = 125
LIB = ". /sluice/tests/kselftest/ktap_helpers.sh; . /sluice/tests/kselftest/slices_lib.sh; "
TRAFFIC = "/build/traffic/traffic"
PEER_IP = "10.77.0.1"
PAGE_BYTES = 4096
MEMORY_MIB = 192
# Under direct-map nothing makes room: enough for all of a guest's memory, each way.
ROOMY_BYTES = 512 << 20
# Statistics of what is now, rather than of all that has been.
NOW = ("pinned_bytes", "granules")
# The guest's interface that igbvf drives. Its shell prefers busybox's programs, hence /bin/ip.
FIND_INTERFACE = """i=; for d in /sys/class/net/*/device/driver; do
case $(readlink $d) in */igbvf) i=$(echo $d | cut -d/ -f5); break ;; esac; done
"""
GUEST_TROUBLE = re.compile(r"Kernel panic|BUG:|Oops|WARNING:|Call Trace|NETDEV WATCHDOG|Tx Unit Hang|transmit queue \d+ timed out")


class Violation(Exception):
    """Something that must never be."""


class GuestLost(Exception):
    """A guest ended, or did not come up, and neither it nor anybody else said why."""

    def __init__(self, guest):
        super().__init__(guest.name)
        self.guest = guest


def shell(script, timeout=300):
    """With the self-tests' functions; violates if it fails."""
    result = subprocess.run(["bash", "-c", LIB + script], text=True, timeout=timeout,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        raise Violation(f"{script}: status {result.returncode}\n{result.stdout}")
    return result.stdout.strip()


def wait_for(what, condition, seconds=120):
    """Until the condition holds. Bounded, and nothing more: emulated machines are slow."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            raise Violation(f"{what}: not within {seconds} s")
        time.sleep(0.1)


def peer(*command):
    return ["ip", "netns", "exec", "peer", *command]


class Slice:
    def __init__(self, uuid):
        self.uuid = uuid
        self.path = Path("/sys/bus/mdev/devices") / uuid
        self.before = {}

    def read(self, name):
        return (self.path / name).read_text().strip()

    def number(self, name):
        return int(self.read(name))

    def write(self, name, value):
        (self.path / name).write_text(f"{value}\n")

    def exists(self):
        return self.path.exists()

    def total(self, folder):
        return sum(int(file.read_text()) for file in (self.path / folder).iterdir())

    def broken_rules(self):
        counts = {file.name: int(file.read_text()) for file in (self.path / "rejected").iterdir()}
        return {name: count for name, count in counts.items() if count}

    def unpinned(self):
        return (self.number("stats/pins") == self.number("stats/unpins")
                and all(self.number(f"stats/{name}") == 0 for name in NOW))

    def check(self):
        """Of a slice whose guest keeps the rules."""
        broken, state = self.broken_rules(), self.read("state")
        if broken or state.startswith("faulted"):
            raise Violation(f"slice {self.uuid}: {state}, rejected {broken}")
        # What is counted later is read first.
        for way in ("tx", "rx"):
            ended = self.number(f"stats/{way}_completed") + self.number(f"stats/{way}_abandoned")
            if ended > self.number(f"stats/{way}_posted"):
                raise Violation(f"slice {self.uuid}: {way}: {ended} ended of fewer posted")
        if self.number("stats/unpins") > self.number("stats/pins"):
            raise Violation(f"slice {self.uuid}: more unpins than pins")
        if self.number("stats/leaked") or self.number("stats/enable_failures"):
            raise Violation(f"slice {self.uuid}: leaked pages, or queues that did not start")
        if self.number("stats/pinned_bytes") > self.number("pinned_max"):
            raise Violation(f"slice {self.uuid}: more is pinned than pinned_max")
        counts = {file.name: int(file.read_text()) for file in (self.path / "stats").iterdir()}
        for name in NOW:
            counts.pop(name)
        for name, count in counts.items():
            if not self.before.get(name, 0) <= count < 1 << 48:
                raise Violation(f"slice {self.uuid}: {name} went from {self.before.get(name)} to {count}")
        self.before = counts

    def check_closed(self):
        wait_for(f"slice {self.uuid} is closed", lambda: self.read("state") == "closed")
        wait_for(f"slice {self.uuid}: nothing pinned", self.unpinned)
        self.check()


class Guest:
    def __init__(self, name, ip, uuid):
        self.name, self.ip, self.slice = name, ip, Slice(uuid)
        self.tool = GUEST_TOOL.Guest(name)
        self.log_seen = 0
        # Raised whenever what ran in the guest is gone.
        self.life = 0

    def start(self):
        self.log_seen, self.life = 0, self.life + 1
        # All guests on the last CPU: see start_guests in slices_lib.sh.
        command = ["taskset", "-c", str(os.cpu_count() - 1), "guest", "start", self.name,
                   "--wait", "300", "--memory", str(MEMORY_MIB), "--vfio", self.slice.uuid,
                   "--file", f"{TRAFFIC}:/bin/traffic", "--file", f"{balloon_module()}:/lib/balloon.ko",
                   "--", "-device", "virtio-balloon-pci"]
        result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if result.returncode:
            self.check_log()
            if self.tool.is_lost() or "not up in time" in result.stdout:
                raise GuestLost(self)
            raise Violation(f"guest {self.name} does not start: {result.stdout}")

    def alive(self):
        return self.tool.is_alive()

    def ask(self, command, timeout):
        """Status and output of a command in the guest."""
        result = subprocess.run([GUEST_TOOL.EXEC, self.name, "--timeout", str(timeout), command], text=True, errors="replace",
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if result.returncode == EXEC_NO_ANSWER:
            raise GUEST_TOOL.GuestError(result.stderr)
        return result.returncode, result.stdout

    def try_run(self, command, timeout=180):
        """Status and output of a command in the guest, with $i as its interface."""
        try:
            return self.ask(FIND_INTERFACE + command, timeout)
        except NO_ANSWER as error:
            self.tool.wait_end(3)
            self.check_alive()
            raise Violation(f"guest {self.name}: {command}: {error}") from error

    def run(self, command, timeout=180):
        status, output = self.try_run(command, timeout)
        if status:
            raise Violation(f"guest {self.name}: {command}: status {status}\n{output}")
        return output

    def check_alive(self):
        lost = self.tool.is_lost()
        if self.alive() and not lost:
            return
        self.check_log()
        if lost:
            # KVM may have stopped it, and QEMU goes on.
            self.tool.kill()
            raise GuestLost(self)
        raise Violation(f"guest {self.name} has ended: {self.tool.log_tail()}")

    def check_log(self):
        text = self.tool.log.read_text(errors="replace")
        new, self.log_seen = text[self.log_seen:], len(text)
        if GUEST_TROUBLE.search(new):
            raise Violation(f"guest {self.name}'s kernel complained:\n{new[-3000:]}")

    def up(self):
        self.run(f"""[ -n "$i" ] || exit 9
            ip link set $i up; ip address replace {self.ip}/24 dev $i
            n=0; until [ "$(cat /sys/class/net/$i/carrier)" = 1 ]; do
            n=$((n + 1)); [ $n -lt 600 ] || exit 8; sleep 0.2; done
            n=0; until ping -c 1 -W 1 {PEER_IP} >/dev/null; do
            n=$((n + 1)); [ $n -lt 60 ] || exit 7; done""", 240)

    def qmp(self, command, **arguments):
        try:
            answer, good = self.tool.qmp(json.dumps({"execute": command, "arguments": arguments}))
        except NO_ANSWER as error:
            self.tool.wait_end(3)
            self.check_alive()
            raise Violation(f"guest {self.name}: {command}: {error}") from error
        if not good:
            raise Violation(f"guest {self.name}: {command}: {answer}")
        return json.loads(answer)["return"]

    def symptoms(self):
        """Lines about a guest that may not answer: what it waits for, and whether it runs at all."""
        if not self.alive():
            return ["not running"]
        lines = []
        for command in ("info status", "info registers", "info lapic", "info registers"):
            try:
                answer = self.qmp("human-monitor-command", **{"command-line": command})
                lines += [line.strip() for line in answer.splitlines() if re.search(r"VM status|RIP=|IRR|ISR|TPR", line)]
            except (Violation, GuestLost) as error:
                lines.append(f"{command}: {error}")
        for task in Path(f"/proc/{self.tool.pid()}/task").iterdir():
            stack = ((task / "stack").read_text().split("\n") + [""])[0]
            ticks = (task / "stat").read_text().rpartition(")")[2].split()[11:13]
            lines.append(f"{(task / 'comm').read_text().strip()}: {'+'.join(ticks)} ticks, {stack}")
        for command in ("cat /proc/interrupts", "ip -s link show $i", "ps"):
            try:
                lines += self.ask(FIND_INTERFACE + command, 20)[1].splitlines()
            except NO_ANSWER as error:
                lines.append(f"{command}: {error}")
        return lines

    def agrees(self, command):
        """Whether a command succeeds in it, though it may be starting just now."""
        self.check_alive()
        try:
            return self.ask(command, 5)[0] == 0
        except NO_ANSWER:
            return False

    def end(self, kindly=False):
        """By powering it off, or by ending its QEMU."""
        if not self.alive():
            return
        try:
            if kindly:
                self.tool.stop(120)
            else:
                self.tool.kill()
        except GUEST_TOOL.GuestError as error:
            # One that KVM has stopped cannot be asked.
            if self.alive() or not self.tool.is_lost():
                raise Violation(f"guest {self.name} does not end: {error}") from error
        self.life += 1


def balloon_module():
    """The guest's balloon driver; its RAM disk has none."""
    target = Path("/tmp/virtio_balloon.ko")
    if not target.exists():
        source = Path(subprocess.run(["modinfo", "-n", "virtio_balloon"], check=True, text=True,
                                     stdout=subprocess.PIPE).stdout.strip())
        unpack = {".xz": ["xz", "-dc"], ".zst": ["zstd", "-dqc"]}.get(source.suffix, ["cat"])
        with open(target, "wb") as file:
            subprocess.run([*unpack, source], check=True, stdout=file)
    return target


class Machine:
    def __init__(self):
        self.nic = shell("nic_address")
        self.card = Path("/sys/bus/pci/devices") / self.nic
        self.guests = {
            name: Guest(name, f"10.77.0.{11 + n}", f"5c0ac000-0000-4000-8000-00000000000{n}")
            for n, name in enumerate(("a", "b"))}
        self.pools = None
        self.lost = 0
        # Some hostile tests send the largest packets.
        shell("jumbo_wire")
        # Guests that share a processor with their own VMM under emulation now and then sleep
        # until something comes: let something come.
        self.nudges = [subprocess.Popen(peer("ping", "-q", "-i", "0.5", guest.ip), stdout=subprocess.DEVNULL)
                       for guest in self.guests.values()]

    def ensure(self):
        """Brings the machine to where each action begins, from wherever it is."""
        for _ in range(5):
            try:
                self.ensure_card()
                for guest in self.guests.values():
                    self.ensure_guest(guest)
                return
            except GuestLost as lost:
                self.count_lost(lost.guest)
        raise Violation("guests are lost again and again")

    def ensure_card(self):
        if os.path.basename(os.path.realpath(self.card / "driver")) != "sluice":
            shell("load_module && take_card")
        self.pools = self.available() + sum(guest.slice.exists() for guest in self.guests.values())
        for guest in self.guests.values():
            if not guest.slice.exists():
                self.make_slice(guest.slice)
                guest.slice.write("pinned_max", ROOMY_BYTES)

    def make_slice(self, piece):
        (self.card / "mdev_supported_types/sluice-82576vf/create").write_text(piece.uuid)
        piece.before = {}

    def ensure_guest(self, guest):
        if not guest.alive():
            guest.start()
        guest.up()

    def available(self):
        return int((self.card / "mdev_supported_types/sluice-82576vf/available_instances").read_text())

    def count_lost(self, guest):
        self.lost += 1
        print(f"    guest {guest.name} vanished, or did not come up, without a word from its kernel: once more", flush=True)
        shutil.copy(guest.tool.log, f"/out/lost-{self.lost}.log")
        guest.slice.check_closed()

    def mac_of_peer(self):
        return subprocess.run(peer("cat", "/sys/class/net/peer0/address"), check=True, text=True,
                              stdout=subprocess.PIPE).stdout.strip()

    def check(self):
        for guest in self.guests.values():
            guest.check_alive()
            guest.check_log()
            if guest.slice.read("state") != "running":
                raise Violation(f"slice of {guest.name} is not running but {guest.slice.read('state')}")
            guest.slice.check()
        if self.available() != self.pools - len(self.guests):
            raise Violation(f"{self.available()} slices on offer of {self.pools}")

    # What must be left of all that is removed: nothing.

    def check_no_pins(self):
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                pinned = re.search(r"^VmPin:\s+([1-9]\d*)", status.read_text(), re.M)
            except OSError:
                continue
            if pinned:
                raise Violation(f"{status} has {pinned.group(1)} KiB pinned")

    def end_guests(self):
        for guest in self.guests.values():
            if guest.alive():
                guest.check_log()
            guest.end(kindly=True)
            if guest.slice.exists():
                guest.slice.check_closed()
        self.check_no_pins()

    def unload(self):
        """With no guest running."""
        for guest in self.guests.values():
            guest.slice.write("remove", 1)
        if self.available() != self.pools:
            raise Violation(f"{self.available()} slices on offer of {self.pools}, and none is made")
        shell(f"echo {self.nic} >{self.card}/driver/unbind; echo >{self.card}/driver_override; wait_for 120 rmmod sluice")
        self.check_nothing_left()

    def check_nothing_left(self):
        left = []
        if Path("/sys/module/sluice").exists():
            left.append("module")
        for file in ("/proc/vmallocinfo", "/proc/interrupts", "/proc/iomem"):
            left += [f"{file}: {line}" for line in Path(file).read_text().splitlines() if "sluice" in line]
        for comm in Path("/proc").glob("[0-9]*/comm"):
            try:
                if "sluice" in comm.read_text():
                    left.append(str(comm))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESRCH):
                    raise
        if left:
            raise Violation(f"left behind by the module: {left}")
