#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What a soak does, in which order: plan.py SEED [COUNT] prints its beginning.

The sequence follows from the seed and from nothing else, so that a failure can
be met again. Actions come in rounds, each a shuffled deck in which every kind
has at least one card.
"""

import itertools
import random
import sys
from dataclasses import dataclass

GUESTS = ("a", "b")
STRATEGIES = ("single-use", "shared", "persistent", "direct-map", "copy")

# Kinds of actions, and their cards in the deck. What is costly has one.
DECK = {
    "strategy": 3, "balloon": 2, "hostile": 3, "slices": 1, "tcp": 2,
    "guest_reset": 1, "function_reset": 2, "driver_reload": 1, "interface": 1, "ring_size": 1,
    "guest_killed": 2, "guest_crashes": 1, "removed_in_use": 1, "policy": 2,
    "card_link": 2, "wire_link": 1, "give_back": 1, "module_reload": 1,
}


@dataclass(frozen=True)
class Action:
    number: int
    kind: str
    details: dict

    def __str__(self):
        return " ".join([f"#{self.number}", self.kind,
                         *(f"{name}={value}" for name, value in self.details.items())])


def some(rng, values, least, most):
    return [rng.choice(values) for _ in range(rng.randint(least, most))]


def policy(rng):
    """Settings under which a guest that keeps the rules breaks none."""
    return {
        "source_check": rng.choice(("on", "on", "off")),
        "vlan": rng.choice(("any", "none", "5", "7,9,4094")),
        "multicast": rng.choice((0, 1, 30)),
        "promisc": rng.choice(("off", "multicast")),
        "link_local": rng.choice(("off", "on")),
        "pinned_max": rng.choice((8, 64, 512)) << 20,
    }


# What an action of a kind is told, beside the guest that it concerns.
DETAILS = {
    "strategy": lambda rng: {"names": some(rng, STRATEGIES, 3, 8)},
    "balloon": lambda rng: {"mib": rng.randrange(130, 176, 5)},
    "hostile": lambda rng: {"cases": [rng.getrandbits(32) for _ in range(3)]},
    "slices": lambda rng: {"order": rng.getrandbits(32)},
    "tcp": lambda rng: {"reverse": rng.random() < 0.5, "seconds": rng.randint(2, 4)},
    "function_reset": lambda rng: {"times": rng.randint(1, 3)},
    "driver_reload": lambda rng: {"times": rng.randint(1, 3)},
    "interface": lambda rng: {"times": rng.randint(1, 5)},
    "ring_size": lambda rng: {"sizes": some(rng, (80, 128, 512, 2048, 4096), 1, 3)},
    "guest_killed": lambda rng: {"after_ms": rng.randint(0, 2000)},
    "removed_in_use": lambda rng: {"after_ms": rng.randint(500, 3000)},
    "policy": lambda rng: {"settings": policy(rng)},
    "card_link": lambda rng: {"down_ms": [rng.randint(50, 2000) for _ in range(rng.randint(1, 3))]},
    "wire_link": lambda rng: {"down_ms": [rng.randint(50, 2000) for _ in range(rng.randint(1, 3))]},
}


def plan(seed):
    number = 0
    for round_number in itertools.count():
        rng = random.Random(f"{seed}/{round_number}")
        deck = [kind for kind, cards in DECK.items() for _ in range(cards)]
        rng.shuffle(deck)
        for kind in deck:
            number += 1
            details = {"guest": rng.choice(GUESTS)}
            yield Action(number, kind, details | DETAILS.get(kind, lambda _: {})(rng))


def main():
    count = int(sys.argv[2]) if len(sys.argv) > 2 else sum(DECK.values())
    for action in itertools.islice(plan(int(sys.argv[1])), count):
        print(action)


if __name__ == "__main__":
    main()
