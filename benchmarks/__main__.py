"""`python -m benchmarks`: every target beside its peers, as a table, a JSON file and a chart.

Exit code 1 where something failed or did other work than the rest; a missed bound and an absent peer are no failures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.contest import TIMM_SCRIPT
from benchmarks.machine import machine
from benchmarks.report import markdown, write
from benchmarks.result import NOT_ASKED, Result
from benchmarks.slices import QUICK, SLICES, Effort, Found
from benchmarks.targets import TARGETS

ROOT = Path(__file__).resolve().parent.parent


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line, read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="five rounds of shorter turns: within 5 minutes on 2 cores"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="folder of the results")
    parser.add_argument("--only", default=",".join(SLICES), help=f"slices, of {','.join(SLICES)}")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU, for all loops")
    parser.add_argument("--timm", type=Path, help="train.py of a checkout of timm")
    given = parser.parse_args(words)
    given.only = given.only.split(",")
    if unknown := set(given.only) - set(SLICES):
        parser.error(f"--only: unknown {', '.join(sorted(unknown))} (choose from {', '.join(SLICES)})")
    if given.timm and not given.timm.is_file():
        parser.error(f"--timm: there is no file {given.timm}")
    return given


def main(words: Sequence[str] | None = None, effort: Effort | None = None) -> int:
    """Measure, print the table, write the files and return the exit code."""
    given = arguments(words)
    effort = effort or replace(QUICK if given.quick else Effort(), threads=given.threads)
    effort = replace(effort, rounds=given.rounds) if given.rounds else effort
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    if given.timm:
        os.environ[TIMM_SCRIPT] = str(given.timm.resolve())
    where = machine(effort.threads)
    found = measure(given.only, effort)
    results = [Result(t, found.pairs[t.key] if t.slice in given.only else NOT_ASKED) for t in TARGETS]
    write(given.out, results, where, found.losses)
    print(markdown(results, where))
    for fault in found.faults:
        print(f"failed: {fault}", file=sys.stderr)
    return 1 if found.faults else 0


def measure(names: Sequence[str], effort: Effort) -> Found:
    """Return what the slices found, one after the other."""
    found = Found()
    for name in names:
        start = time.perf_counter()
        part = SLICES[name](effort)
        print(f"{name}: measured in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        found.pairs |= part.pairs
        found.faults += part.faults
        found.losses |= part.losses
    return found


if __name__ == "__main__":
    sys.exit(main())
