"""Make the runs of the bank, score the rules, or keep some as fixtures: `python -m benchmarks.doctor scores`."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.doctor.bank import make_run, write_records
from benchmarks.doctor.faults import FAULTS
from benchmarks.doctor.plan import PARTS, SPLITS, Case, cases, parts
from benchmarks.doctor.report import markdown
from benchmarks.doctor.scores import scores
from benchmarks.doctor.shown import SHOWN, shown_cases

_HERE = Path(__file__).parent
# By the bank its scores, with the rules at that time: they were corrected by each bank but the last one
RESULTS = {bank: _HERE / f"results{'' if bank == 'first' else '_' + bank}.json" for bank in SPLITS}
_FIXTURES = _HERE.parents[1] / "tests" / "fixtures"
_SHOWN = "shown"


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line asks for, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doctor", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=(*PARTS, _SHOWN, "scores", "fixtures"))
    parser.add_argument("--bank", choices=SPLITS, default="fourth", help="the bank, each with its own split")
    parser.add_argument("--out", type=Path, default=Path("outputs/doctor_bank"), help="folder of the runs and records")
    parser.add_argument("--photographs", type=Path, help="CIFAR-10 as <split>/<class>/<image>, for held-out runs")
    given = parser.parse_args(words)
    if given.what == "scores":
        found = {part: scores(_records(given.out, part)) for part in parts(given.bank)}
        RESULTS[given.bank].write_text(json.dumps(found, indent=1) + "\n")
        print(markdown(found))
    elif given.what == "fixtures":
        for part in (*parts(given.bank), _SHOWN):
            if records := {_name(record): record for record in _records(given.out, part)}:
                write_records(records, fixture(given.bank, part))
    else:
        found_cases = shown_cases() if given.what == _SHOWN else cases(given.what, given.bank)
        _make_runs(found_cases, given.out, given.photographs)
    return 0


def fixture(bank: str, part: str) -> Path:
    """Return the file with the records of a part of a bank; `shown` are the runs that show one symptom each."""
    return _FIXTURES / f"doctor_bank_{bank}_{part}.json.gz"


def _make_runs(found: Sequence[Case], out: Path, photographs: Path | None) -> None:
    """Make the runs that are not there yet."""
    (out / "records").mkdir(parents=True, exist_ok=True)
    # In random order, so that an interrupted bank is a fair sample
    for case in random.Random(0).sample(found, len(found)):
        path = out / "records" / f"{case.name}.json"
        if path.is_file():
            continue
        start = time.perf_counter()
        record = make_run(case, out, photographs, shown={**FAULTS, **SHOWN})
        path.write_text(json.dumps(record, separators=(",", ":")))
        print(f"{case.name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)


def _records(out: Path, part: str) -> list[dict[str, Any]]:
    """Return the records of a part that are there, in order of their names."""
    return [json.loads(path.read_text()) for path in sorted((out / "records").glob(f"{part}-*.json"))]


def _name(record: Mapping[str, Any]) -> str:
    """Return the name of a record among those of its part."""
    return "-".join(str(record["case"][key]) for key in ("fault", "net", "data", "seed"))


if __name__ == "__main__":
    sys.exit(main())
