# SPDX-License-Identifier: GPL-2.0
"""Numbered packets between guests and the wire; every byte of them is checked."""

import itertools
import re
import signal
import subprocess
import time

from machine import TRAFFIC, GuestLost, Violation, peer

ENDLESS = 1000000
TO_GUEST_BYTES, TO_WIRE_BYTES = 1000, 700
# Packets a second each way, while an action runs: it shall not wait for them.
RATE = 25
STREAMS = itertools.count(1)
# Far longer than a packet takes on a slow machine.
IDLE_MS = 20000


def values(text):
    """All name=value pairs of a receiver's account."""
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", text)}


class Tally:
    """Packets that came, and were as they had been sent, by way."""

    def __init__(self):
        self.checked, self.bytes = {}, 0

    def add(self, way, account, size_bytes, count=None):
        """Takes a receiver's account; with a count, all of them must have come."""
        if "received" not in account or account["corrupt"] or account["duplicated"]:
            raise Violation(f"{way}: {account}")
        if count is not None and account["received"] != count:
            raise Violation(f"{way}: {count} were sent, and {account} came")
        self.checked[way] = self.checked.get(way, 0) + account["received"]
        self.bytes += account["received"] * size_bytes


class PeerReceiver:
    def __init__(self, stream, count, idle_ms):
        self.process = subprocess.Popen(
            peer(TRAFFIC, "receive", "peer0", "-n", str(count), "-i", str(idle_ms), "-S", str(stream)),
            text=True, stdout=subprocess.PIPE)
        if self.process.stdout.readline() != "listening\n":
            raise Violation("the peer cannot receive")

    def end(self):
        self.process.send_signal(signal.SIGTERM)

    def account(self):
        out, _ = self.process.communicate(timeout=180)
        return values(out)


class GuestReceiver:
    """In the guest's background: its agent does one thing at a time."""

    def __init__(self, guest, stream, count, idle_ms):
        self.guest, self.life, self.file = guest, guest.life, f"/tmp/stream-{stream}"
        guest.run(f"""traffic receive $i -n {count} -i {idle_ms} -S {stream} </dev/null >{self.file} 2>&1 &
            echo $! >{self.file}.pid
            n=0; until grep -qs listening {self.file}; do
            n=$((n + 1)); [ $n -lt 300 ] || exit 8; sleep 0.1; done""")

    def end(self):
        self.guest.try_run(f"kill $(cat {self.file}.pid)")

    def account(self):
        """None if the guest is another one by now."""
        if self.life != self.guest.life:
            return None
        return values(self.guest.run(f"""n=0; until grep -q received= {self.file}; do
            n=$((n + 1)); [ $n -lt 600 ] || exit 8; sleep 0.2; done; cat {self.file}; rm {self.file}*"""))


def send_from_guest(guest, mac, stream, count, size, more=""):
    return f"traffic send $i {mac} -n {count} -s {size} -b 8 -w 32 -S {stream} {more}"


def send_from_peer(mac, stream, count, size, *more):
    return peer(TRAFFIC, "send", "peer0", mac, "-n", str(count), "-s", str(size), "-b", "8", "-w", "32",
                "-S", str(stream), *more)


def exchange(machine, tally, count, size):
    """Where nothing happens, nothing is lost: each guest with the wire both ways, and with the other."""
    guests = list(machine.guests.values())
    for guest in guests:
        stream = next(STREAMS)
        receiver = PeerReceiver(stream, count, IDLE_MS)
        guest.run(send_from_guest(guest, machine.mac_of_peer(), stream, count, size))
        tally.add(f"{guest.name} to wire", receiver.account(), size, count)

        stream = next(STREAMS)
        receiver = GuestReceiver(guest, stream, count, IDLE_MS)
        subprocess.run(send_from_peer(guest.slice.read("mac"), stream, count, size), check=True, stdout=subprocess.DEVNULL)
        tally.add(f"wire to {guest.name}", receiver.account(), size, count)
    for sender, other in (guests, guests[::-1]):
        stream = next(STREAMS)
        receiver = GuestReceiver(other, stream, count, IDLE_MS)
        sender.run(send_from_guest(sender, other.slice.read("mac"), stream, count, size))
        tally.add(f"{sender.name} to {other.name}", receiver.account(), size, count)


class Flows:
    """While the block runs, packets flow both ways between each guest and the wire."""

    def __init__(self, machine, tally, guests, to_wire=True):
        self.machine, self.tally, self.guests, self.to_wire = machine, tally, guests, to_wire
        self.receivers, self.senders = [], []

    def __enter__(self):
        try:
            self.begin()
        except (GuestLost, Violation):
            self.abort()
            raise
        return self

    def begin(self):
        mac = self.machine.mac_of_peer()
        for guest in self.guests:
            stream = next(STREAMS)
            self.receivers.append((f"wire to {guest.name}", GuestReceiver(guest, stream, ENDLESS, 600000), TO_GUEST_BYTES))
            self.senders.append(subprocess.Popen(
                send_from_peer(guest.slice.read("mac"), stream, ENDLESS, TO_GUEST_BYTES, "-r", str(RATE)),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            if self.to_wire:
                stream = next(STREAMS)
                self.receivers.append((f"{guest.name} to wire", PeerReceiver(stream, ENDLESS, 600000), TO_WIRE_BYTES))
                command = send_from_guest(guest, mac, stream, ENDLESS, TO_WIRE_BYTES, f"-r {RATE}")
                guest.run(f"{command} </dev/null >/tmp/send 2>&1 & echo $! >/tmp/send.pid")

    def __exit__(self, kind, *_):
        for sender in self.senders:
            sender.kill()
            sender.wait()
        try:
            for guest in self.guests:
                if guest.alive():
                    guest.try_run("kill $(cat /tmp/send.pid); rm /tmp/send.pid")
            # For what is still on its way; it is no violation if that takes longer.
            time.sleep(0.5)
            for _, receiver, _ in self.receivers:
                if not isinstance(receiver, GuestReceiver) or receiver.life == receiver.guest.life:
                    receiver.end()
            for way, receiver, size_bytes in self.receivers:
                account = receiver.account()
                if account is not None:
                    self.tally.add(way, account, size_bytes)
        except (GuestLost, Violation):
            self.abort()
            if kind is None:
                raise

    def abort(self):
        """Ends what still runs, where that is still possible."""
        receivers = [receiver.process for _, receiver, _ in self.receivers if isinstance(receiver, PeerReceiver)]
        for process in self.senders + receivers:
            if process.poll() is None:
                process.kill()
                process.wait()
        for guest in self.guests:
            try:
                guest.try_run("killall traffic")
            except (GuestLost, Violation):
                pass
