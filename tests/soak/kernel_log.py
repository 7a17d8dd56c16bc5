# SPDX-License-Identifier: GPL-2.0
"""What the kernel complained about, save for what is expected."""

import errno
import os
import re

WARNING = 4

# Lines at or above warning that are no violation: pattern, the kinds of actions
# that bring them (None: all), and why.
EXPECTED = (
    (r"kvm(_amd)?( \[\d+\])?: .*(Unhandled|ignored) (WR|RD)MSR", None,
     "KVM: the guest's kernel looks for features of processors that this one does not have"),
    (r"kvm.*SMP vm created on host with unstable TSC", None, "KVM: emulated clock"),
    (r"sluice: (loading out-of-tree module taints kernel|module verification failed)", None,
     "the module is not part of the kernel, and not signed"),
    (r"clocksource:|tsc: Marking|hrtimer: interrupt took", None, "the emulator was not scheduled for a while"),
    (r"workqueue: (?!sluice)\S+ hogged CPU for", None, "an emulated processor is slow"),
    (r"virtio_net \S+ peer0: (NETDEV WATCHDOG|TX timeout on queue)", ("begin", "card_link", "wire_link", "give_back", "module_reload", "end"),
     "the emulator's hub holds packets back while the card does not receive"),
    (r": probe with driver sluice-\S+ failed with error -28", ("slices",), "driver core: there was no pool for one slice more"),
    (r": queue stopped: ", ("hostile",), "Sluice: a hostile client broke a rule; rate-limited"),
    (r": in use: .*, waiting until it lets go or ends", ("removed_in_use",),
     "Sluice: a slice that is in use is to be removed, and its user is waited for"),
    (r": Device is currently in use, task .* blocked until device is released", ("removed_in_use",), "VFIO: the same"),
)


class KernelLog:
    def __init__(self):
        self.file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.file, 0, os.SEEK_END)
        self.expected = {}

    def records(self):
        while True:
            try:
                record = os.read(self.file, 8192).decode(errors="replace")
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                yield 0, "kernel log: lines were lost before they could be read"
                continue
            head, _, text = record.partition(";")
            fields = head.split(",")
            # Facility 0 is the kernel itself; others are what programs wrote.
            if int(fields[0]) >> 3 == 0:
                yield int(fields[0]) & 7, text.splitlines()[0]

    def complaints(self, kind):
        """New lines that nothing explains, after an action of that kind."""
        bad = []
        for level, text in self.records():
            if level > WARNING:
                continue
            for pattern, kinds, why in EXPECTED:
                if re.search(pattern, text) and (kinds is None or kind in kinds):
                    self.expected[why] = self.expected.get(why, 0) + 1
                    break
            else:
                bad.append(text)
        return bad
