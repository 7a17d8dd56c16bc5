#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The soak of tools/soak, inside the test machine."""

import argparse
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True

from actions import Actions
from flows import Tally, exchange
from kernel_log import KernelLog
from machine import GuestLost, Machine, Violation
from plan import plan

KMEMLEAK = Path("/sys/kernel/debug/kmemleak")
STATE = Path("/out/soak.json")


def text_of(file):
    try:
        return file.read_text().strip()
    except OSError as error:
        return error.strerror


class Soak:
    def __init__(self, options):
        self.options = options
        self.began = time.monotonic()
        self.before = {"seconds": 0, "next": 1, "lost": 0, "machines": 0}
        self.counts, self.cut_short = {}, {}
        self.tally = Tally()
        self.log = KernelLog()
        self.refused, self.violations = {}, []
        self.actions = self.machine = None
        self.first, self.last = options.start, options.start + options.count
        if options.resume:
            self.resume()

    def resume(self):
        """Goes on where another machine has ended."""
        if not STATE.exists():
            self.before["machines"] = 1
            return
        state = json.loads(STATE.read_text())
        self.before = state["sums"] | {"machines": state["sums"]["machines"] + 1}
        self.counts, self.cut_short = state["counts"], state["cut_short"]
        self.tally.checked, self.tally.bytes, self.refused = state["packets"], state["bytes"], state["refused"]
        self.log.expected, self.violations = state["expected"], state["violations"]
        # Not with the action in which it ended.
        self.first = self.before["next"] + 1
        print(f"going on with action #{self.first}", flush=True)

    def seconds(self):
        return self.before["seconds"] + time.monotonic() - self.began

    def save(self, action):
        sums = {"seconds": self.seconds(), "next": action.number, "machines": self.before["machines"],
                "lost": self.before["lost"] + self.machine.lost}
        STATE.write_text(json.dumps({
            "sums": sums, "counts": self.counts, "cut_short": self.cut_short, "packets": self.tally.checked,
            "bytes": self.tally.bytes, "refused": self.actions.refused, "expected": self.log.expected, "violations": self.violations}))

    def chosen(self):
        for action in plan(self.options.seed):
            if self.seconds() >= self.options.minutes * 60:
                return
            if action.number >= self.last:
                return
            if action.number >= self.first and (not self.options.only or action.kind in self.options.only):
                yield action

    def check_log(self, kind):
        complaints = self.log.complaints(kind)
        if complaints:
            raise Violation("the kernel complained:\n" + "\n".join(complaints))

    def step(self, action):
        self.save(action)
        begin = self.seconds()
        print(f"[{begin:5.0f}s] {action}", flush=True)
        try:
            self.actions.do(action)
        except GuestLost as lost:
            self.machine.count_lost(lost.guest)
            self.cut_short[action.kind] = self.cut_short.get(action.kind, 0) + 1
        middle = self.seconds()
        self.settle()
        print(f"    {middle - begin:.0f} s, and {self.seconds() - middle:.0f} s for the checks after it", flush=True)
        self.check_log(action.kind)
        self.counts[action.kind] = self.counts.get(action.kind, 0) + 1

    def settle(self):
        """All is as before an action, and where nothing happens nothing is lost."""
        for _ in range(5):
            self.machine.ensure()
            try:
                exchange(self.machine, self.tally, self.options.packets, self.options.size)
                self.machine.check()
                return
            except GuestLost as lost:
                self.machine.count_lost(lost.guest)
        raise Violation("guests are lost again and again")

    def recover(self, action):
        """After a violation: the next action shall not suffer for it."""
        for guest in self.machine.guests.values():
            guest.end()
        self.settle()
        self.log.complaints(action.kind)

    def begin(self):
        if KMEMLEAK.exists():
            KMEMLEAK.write_text("clear")
        self.machine = Machine()
        self.actions = Actions(self.machine, self.tally)
        self.actions.refused |= self.refused
        self.settle()
        self.check_log("begin")
        # Of actions are the minutes.
        self.began = time.monotonic()

    def end(self):
        self.machine.ensure_card()
        self.machine.end_guests()
        self.machine.unload()
        self.check_log("end")
        if KMEMLEAK.exists():
            # What was freed a moment ago may still look like a leak: the second scan counts.
            for _ in range(2):
                KMEMLEAK.write_text("scan")
            leaks = KMEMLEAK.read_text()
            if "sluice" in leaks:
                raise Violation(f"kmemleak:\n{leaks}")

    def attempt(self, where, step, *arguments):
        """Whether it went as it must."""
        try:
            step(*arguments)
            return True
        except Exception as error:  # pylint: disable=broad-except
            if not isinstance(error, Violation):
                traceback.print_exc(file=sys.stdout)
            self.violations.append(f"{where}: {error}")
            self.show_violation()
            return False

    def run(self):
        if self.attempt("at the beginning", self.begin):
            for action in self.chosen():
                if self.attempt(f"in action {action}", self.step, action):
                    continue
                if not self.options.keep_going or not self.attempt(f"after action {action}", self.recover, action):
                    break
            else:
                print(f"[{self.seconds():5.0f}s] all guests are stopped, and the module is unloaded", flush=True)
                self.attempt("at the end", self.end)
        self.show_summary()
        return bool(self.violations)

    def show_violation(self):
        print(f"VIOLATION {self.violations[-1]}")
        for piece in Path("/sys/bus/mdev/devices").glob("*"):
            files = [piece / name for name in ("state", "strategy", "vlan", "source_check")]
            files += sorted(piece.glob("stats/*")) + sorted(piece.glob("rejected/*"))
            print(f"slice {piece.name}:", *(f"{file.relative_to(piece)}={text}" for file in files if (text := text_of(file)) != "0"))
        for guest in self.machine.guests.values() if self.machine else ():
            print(f"guest {guest.name}:", *guest.symptoms(), sep="\n    ")
        print(subprocess.run("dmesg | tail -n 30", shell=True, text=True, stdout=subprocess.PIPE).stdout, flush=True)

    def show_summary(self):
        if self.actions is None:
            return
        print(f"\nseed {self.options.seed}, {self.seconds() / 60:.1f} minutes, {sum(self.counts.values())} actions")
        rows = [("actions", name, count) for name, count in sorted(self.counts.items())]
        rows += [("cut short by a guest's loss", name, count) for name, count in sorted(self.cut_short.items())]
        rows += [("packets checked", name, count) for name, count in sorted(self.tally.checked.items())]
        rows += [("bytes checked", "all ways", self.tally.bytes)]
        rows += [("refused", name, count) for name, count in self.actions.refused.items()]
        rows += [("kernel lines that were expected", name, count) for name, count in sorted(self.log.expected.items())]
        rows += [("lost to the emulator", "guests", self.before["lost"] + self.machine.lost),
                 ("lost to the emulator", "machines", self.before["machines"])]
        title = None
        for part, name, count in rows:
            if part != title:
                print(f"  {part}")
                title = part
            print(f"    {name:90} {count:>10}")
        for violation in self.violations:
            print(f"VIOLATION {violation}")
        again = " ".join(word for word in sys.argv[1:] if word != "--resume")
        print(f"{len(self.violations)} violations; once more: tools/soak {again}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--from", type=int, default=1, dest="start", help="number of the first action")
    parser.add_argument("--count", type=int, default=1 << 60, help="so many of the plan, then end")
    parser.add_argument("--only", type=lambda text: text.split(","), help="kinds of actions")
    parser.add_argument("--packets", type=int, default=500, help="each way, between two actions")
    parser.add_argument("--size", type=int, default=600)
    parser.add_argument("--keep-going", action="store_true", help="after a violation")
    parser.add_argument("--resume", action="store_true")
    return Soak(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
