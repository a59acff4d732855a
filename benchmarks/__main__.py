"""`python -m benchmarks`: compare runner with its peers and write a table, a JSON file and a chart.

The exit code is 1 if a loop failed or did different work from the others. A missed bound or peer is not a failure.
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
from benchmarks.report import describe_machine, markdown, write
from benchmarks.slices import QUICK, SLICES, Effort, Measured
from benchmarks.targets import NOT_ASKED, TARGETS, Result

ROOT = Path(__file__).resolve().parent.parent


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="five rounds of short turns: at most 5 minutes on 2 cores")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/benchmarks"),
        help="folder of the results (default: outputs/benchmarks)",
    )
    parser.add_argument("--only", default=",".join(SLICES), help=f"groups of targets, any of {','.join(SLICES)}")
    parser.add_argument("--rounds", type=int, help="number of rounds of each comparison")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch, in all loops")
    parser.add_argument("--timm", type=Path, help="path of train.py in a checkout of timm")
    given = parser.parse_args(words)
    given.only = given.only.split(",")
    if unknown := set(given.only) - set(SLICES):
        parser.error(f"--only: unknown {', '.join(sorted(unknown))} (choose from {', '.join(SLICES)})")
    if given.timm and not given.timm.is_file():
        parser.error(f"--timm: no file {given.timm}")
    return given


def main(words: Sequence[str] | None = None, effort: Effort | None = None) -> int:
    """Measure, print the table, write the files, and return the exit code."""
    given = _arguments(words)
    effort = effort or replace(QUICK if given.quick else Effort(), threads=given.threads)
    effort = replace(effort, rounds=given.rounds) if given.rounds else effort
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    if given.timm:
        os.environ[TIMM_SCRIPT] = str(given.timm.resolve())
    machine = describe_machine(effort.threads)
    measured = _measure(given.only, effort)
    results = [Result(t, measured.pairs[t.key] if t.slice in given.only else NOT_ASKED) for t in TARGETS]
    write(given.out, results, machine, measured.losses)
    print(markdown(results, machine))
    for fault in measured.faults:
        print(f"failed: {fault}", file=sys.stderr)
    return 1 if measured.faults else 0


def _measure(names: Sequence[str], effort: Effort) -> Measured:
    """Return the results of the slices, measured one after the other."""
    measured = Measured()
    for name in names:
        start = time.perf_counter()
        part = SLICES[name](effort)
        print(f"{name}: measured in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        measured.pairs |= part.pairs
        measured.faults += part.faults
        measured.losses |= part.losses
    return measured


if __name__ == "__main__":
    sys.exit(main())
