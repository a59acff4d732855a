"""Make the runs of the bank, score the rules, or keep some as fixtures: `python -m benchmarks.doctor scores`."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.doctor.bank import make_run, write_records
from benchmarks.doctor.faults import HEALTHY
from benchmarks.doctor.plan import PARTS, SPLITS, cases
from benchmarks.doctor.report import markdown
from benchmarks.doctor.scores import scores

_HERE = Path(__file__).parent
RESULTS = _HERE / "results.json"
FIXTURE = _HERE.parents[1] / "tests" / "fixtures" / "doctor_bank.json.gz"
# Healthy runs that are kept as fixtures; of the faulty ones all of the tuning part are
_HEALTHY_KEPT = 8


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line asks for, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doctor", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=(*PARTS, "scores", "fixtures"))
    parser.add_argument("--bank", choices=SPLITS, default="second", help="the bank, each with its own split")
    parser.add_argument("--out", type=Path, default=Path("outputs/doctor_bank"), help="folder of the runs and records")
    parser.add_argument("--photographs", type=Path, help="CIFAR-10 as <split>/<class>/<image>, for held-out runs")
    given = parser.parse_args(words)
    if given.what == "scores":
        found = {part: scores(_records(given.out, part)) for part in PARTS}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        print(markdown(found))
    elif given.what == "fixtures":
        write_records(_kept(_records(given.out, "tuning")), FIXTURE)
    else:
        _make_runs(given.bank, given.what, given.out, given.photographs)
    return 0


def _make_runs(bank: str, part: str, out: Path, photographs: Path | None) -> None:
    """Make the runs of a part that are not there yet."""
    (out / "records").mkdir(parents=True, exist_ok=True)
    found = cases(part, bank)
    # In random order, so that an interrupted bank is a fair sample
    for case in random.Random(0).sample(found, len(found)):
        path = out / "records" / f"{case.name}.json"
        if path.is_file():
            continue
        start = time.perf_counter()
        path.write_text(json.dumps(make_run(case, out, photographs), separators=(",", ":")))
        print(f"{case.name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)


def _records(out: Path, part: str) -> list[dict[str, Any]]:
    """Return the records of a part that are there, in order of their names."""
    return [json.loads(path.read_text()) for path in sorted((out / "records").glob(f"{part}-*.json"))]


def _kept(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the records that are kept as fixtures, by the names of fault, net, data and seed."""
    found: dict[str, Any] = {}
    healthy = 0
    for record in records:
        case = record["case"]
        healthy += case["fault"] == HEALTHY
        if case["fault"] != HEALTHY or healthy <= _HEALTHY_KEPT:
            found["-".join(str(case[key]) for key in ("fault", "net", "data", "seed"))] = record
    return found


if __name__ == "__main__":
    sys.exit(main())
