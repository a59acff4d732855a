"""Make the runs of a part of the bank that are not there yet: `python -m benchmarks.doctor tuning --out bank`."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.doctor.bank import make_run
from benchmarks.doctor.plan import cases


def main(words: Sequence[str] | None = None) -> int:
    """Make the runs, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doctor", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=("tuning", "held_out"))
    parser.add_argument("--out", type=Path, default=Path("outputs/doctor_bank"), help="folder of the runs and records")
    parser.add_argument("--photographs", type=Path, help="CIFAR-10 as <split>/<class>/<image>, for held-out runs")
    parser.add_argument("--only", default="", help="runs whose name contains this")
    given = parser.parse_args(words)
    (given.out / "records").mkdir(parents=True, exist_ok=True)
    found = cases(given.part)
    # In random order, so that an interrupted bank is a fair sample
    for case in random.Random(0).sample(found, len(found)):
        path = given.out / "records" / f"{case.name}.json"
        if path.is_file() or given.only not in case.name:
            continue
        start = time.perf_counter()
        path.write_text(json.dumps(make_run(case, given.out, given.photographs), separators=(",", ":")))
        print(f"{case.name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
