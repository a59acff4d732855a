"""Time of comparisons and searches by their size: made run folders, and points without training.

`python -m benchmarks.compare [--runs 10000] [--points 1000,4000]` prints a Markdown table of CPU seconds. The runs are
one configuration with a seed each, a configuration each, and as many configurations as seeds. Each run has 40 logged
steps. The points of a search are asked for and told at once, in a journal; Optuna's sampler and storage are included.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from runner.status import Status

_ROOT = Path(__file__).resolve().parent.parent
_STEPS = 40
_SAMPLERS = ("random", "qmc", "tpe")
_KNOBS = {"tpe": {"n_startup_trials": 10, "n_ei_candidates": 24}}


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--points", default="1000,4000")
    asked = parser.parse_args()
    side = math.isqrt(asked.runs)
    print("| configurations x seeds | CPU s | MB of files | peak MB |\n|---|---|---|---|")
    for configurations, seeds in ((1, asked.runs), (asked.runs, 1), (side, side)):
        with tempfile.TemporaryDirectory() as place:
            make_runs(Path(place), configurations, seeds)
            seconds, peak = _measured("runner", f"runs={place}", f"task.out={place}/out", "task=compare")
            size = sum(path.stat().st_size for path in Path(place, "out").iterdir()) / 1e6
        print(f"| {configurations} x {seeds} | {seconds:.1f} | {size:.2f} | {peak:.0f} |", flush=True)
    print("\n| sampler | points | CPU s | ms per point |\n|---|---|---|---|")
    for sampler in _SAMPLERS:
        for points in map(int, asked.points.split(",")):
            seconds = searched(sampler, points)
            print(f"| {sampler} | {points} | {seconds:.1f} | {1000 * seconds / points:.2f} |", flush=True)


def _measured(module: str, *words: str) -> tuple[float, float]:
    """Return the CPU seconds and the peak memory (MB) of a command."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{module} {' '.join(words)}: ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def searched(sampler: str, points: int) -> float:
    """Return the CPU seconds of a search of so many points without training, two axes wide."""
    from runner.engine.monitor import Monitor
    from runner.search.records import RunResult, Search
    from runner.search.space import Axis, Space
    from runner.search.study import Study

    axes = (
        Axis(key="lr", kind="float", low=1e-4, high=1.0, log=True),
        Axis(key="width", kind="int", low=4, high=64, step=1.0),
    )
    search = Search(
        space=Space(axes),
        sampler={"name": sampler, "seed": 0, **_KNOBS.get(sampler, {})},
        pruner={"name": "none"},
        monitor=Monitor("val/loss"),
        storage=None,
        study_name="s",
        n_trials=points,
        n_jobs=None,
        seeds=(0,),
        max_failure_rate=1.0,
    )
    with tempfile.TemporaryDirectory() as place:
        study, began = Study(search, Path(place)), time.process_time()
        while (asked := study.ask()) is not None:
            loss = (math.log10(float(asked.point["lr"])) + 1) ** 2
            study.tell(asked, [RunResult(folder="f", status=Status("done"), score=loss)])
        return time.process_time() - began


def make_runs(folder: Path, configurations: int, seeds: int) -> None:
    """Write the folders of runs whose accuracy depends on the learning rate, the width and chance."""
    from runner import plain_yaml

    config, chance = _default_config(), random.Random(0)
    for number in range(configurations):
        config["optim"]["lr"] = 0.0001 * (number + 1)
        config["model"]["hidden"] = [16 + number % 7]
        for seed in range(seeds):
            config["seed"] = seed
            accuracy = 0.5 + 0.3 * number / configurations + chance.gauss(0, 0.02)
            run = folder / f"lr={number},seed={seed}"
            run.mkdir()
            (run / "config.yaml").write_text(plain_yaml.dump(config).decode())
            (run / "result.json").write_text(json.dumps(_result(accuracy)))
            (run / "environment.json").write_text(json.dumps({"started": "2026-11-21T10:00:00+00:00", "device": "cpu"}))
            (run / "metrics.jsonl").write_text(
                "".join(json.dumps(_row(step, accuracy)) + "\n" for step in range(_STEPS))
            )


def _default_config() -> dict[str, Any]:
    """Return the config of an MLP."""
    from runner.door.compose import compose_parts, compose_run, hydra_opened
    from runner.door.options import find_conf
    from runner.door.overrides import read_overrides

    conf = find_conf()
    given = read_overrides(conf, ["model=mlp"])
    with hydra_opened(conf):
        return compose_run(conf, compose_parts(conf, given), given)


def _result(accuracy: float) -> dict[str, Any]:
    """Return the content of `result.json`."""
    scores = {"accuracy": accuracy, "loss": 1 - accuracy, "nll": 1 - accuracy, "step": _STEPS}
    last = {"status": "done", "exit": 0, "reason": None, "steps": _STEPS, "epochs": 2.0, "seconds": 1.5}
    return {"schema": 2, **last, "scores": {"val": {"best": scores, "last": scores}}, "weights": None, "test_reads": 0}


def _row(step: int, accuracy: float) -> dict[str, float]:
    """Return a line of `metrics.jsonl`."""
    shown = {"step": step, "train/loss": 1.0, "train/loss_average": 1.0 / (step + 1), "ratio/log10/_global": -3.0}
    if step % 5 == 0:
        shown |= {"val/accuracy": accuracy, "val/loss": 1 - accuracy, "val/nll": 1 - accuracy}
        shown |= {"time/step_ms": 2.0, "time/examples_per_second": 1000.0, "time/peak_memory_mb": 300.0}
    return shown


if __name__ == "__main__":
    main()
