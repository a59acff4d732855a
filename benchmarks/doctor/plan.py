"""The runs of the bank. `split.json` says which of them may be looked at while a rule is tuned."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.doctor.faults import FAULTS, HEALTHY

SPLIT = Path(__file__).with_name("split.json")


@dataclass(frozen=True, order=True)
class Case:
    """One run of the bank."""

    part: str  # tuning or held_out
    fault: str
    net: str
    data: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder and its file."""
        return f"{self.part}-{self.fault}-{self.net}-{self.data}-{self.seed}"


@cache
def _split() -> dict[str, Any]:
    """Return the split as it was committed."""
    content: dict[str, Any] = json.loads(SPLIT.read_text())
    return content


def cases(part: str) -> list[Case]:
    """Return the runs of a part, those of a fault over its nets, data sets and seeds in turn."""
    rows = _split()[part]
    found = []
    for place, fault in enumerate(FAULTS):
        count = rows["healthy_runs"] if fault == HEALTHY else rows["runs_of_a_fault"]
        pairs = [tuple(pair) for pair in rows["pairs"] if not FAULTS[fault].nets or pair[0] in FAULTS[fault].nets]
        # Each fault begins at another pair, so that few runs of each still cover all of them
        for number in range(count):
            net, data = pairs[(place + number) % len(pairs)]
            found.append(Case(part, fault, net, data, rows["first_seed"] + number // len(pairs)))
    return found
