"""The runs of the two banks. A split file says which of them may be looked at while a rule is tuned."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.doctor.faults import FAULTS, HEALTHY, can_have
from benchmarks.doctor.made_data import IMAGES
from benchmarks.doctor.nets import VARIANTS

_HERE = Path(__file__).parent
# By the bank's name the file of its split, as it was committed
SPLITS = {
    "first": _HERE / "split.json",
    "second": _HERE / "split_second.json",
    "third": _HERE / "split_third.json",
    "fourth": _HERE / "split_fourth.json",
}
PARTS = ("tuning", "held_out")
# The faults of the first bank; they are the first of the list
_FAULTS_AT_FIRST = 19


@dataclass(frozen=True, order=True)
class Case:
    """One run of the bank."""

    part: str  # tuning or held_out
    fault: str
    net: str
    data: str
    seed: int
    # The place in `nets.VARIANTS`, of a healthy run
    variant: int = 0

    @property
    def name(self) -> str:
        """The name of its folder and its file."""
        return f"{self.part}-{self.fault}-{self.net}-{self.data}-{self.seed}"


@cache
def _split(bank: str) -> dict[str, Any]:
    """Return the split of a bank as it was committed."""
    content: dict[str, Any] = json.loads(SPLITS[bank].read_text())
    return content


def parts(bank: str) -> tuple[str, ...]:
    """Return the parts of a bank: the third one has no runs to tune on but those of the others."""
    return tuple(part for part in PARTS if part in _split(bank))


def cases(part: str, bank: str = "first") -> list[Case]:
    """Return the runs of a part of a bank, those of a fault over its nets, data sets and seeds in turn."""
    rows = _split(bank)[part]
    faults = list(FAULTS)[: _FAULTS_AT_FIRST if bank == "first" else None]
    found = []
    for place, fault in enumerate(faults):
        count = rows["healthy_runs"] if fault == HEALTHY else rows["runs_of_a_fault"]
        pairs = [(net, data) for net, data in rows["pairs"] if can_have(fault, net, data in IMAGES)]
        # Each fault begins at another pair, so that few runs of each still cover all of them
        for number in range(count):
            net, data = pairs[(place * (1 if bank == "first" else count) + number) % len(pairs)]
            seed, variant = rows["first_seed"] + number // len(pairs), 0
            if bank != "first" and fault == HEALTHY:
                variant = (seed + number) % len(VARIANTS)
            found.append(Case(part, fault, net, data, seed, variant))
    return found
