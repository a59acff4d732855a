"""Axes of any length take constant memory, and ranges have the values that are written (0.1 + 0.2 is 0.3)."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from running import ROOT, run_in_child
from test_space import axis, space
from test_study import points, search

from runner.door.compose import compose_parts, hydra_opened
from runner.door.grid import Axes, grid_of
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.door.plan import plan_sweep
from runner.errors import ConfigError
from runner.search.decimals import count_in_range, nth_in_range
from runner.search.samplers import NON_ADAPTIVE, distinct_points
from runner.search.space import Axis, Space
from runner.search.study import Study

SEED = Axis(key="seed", kind="int", low=0, high=2**32 - 1, step=1.0)
LR = Axis(key="optim.lr", kind="float", low=1e-4, high=1.0, log=True)
MIB = 2**20
# A list of the seeds would take 150 GB, an array of them 32 GB
ALLOWED = 300 * MIB


def grown(work) -> int:
    """Return by how many bytes the largest memory of a child exceeds that of its start."""

    def measured() -> int:
        import optuna  # noqa: F401
        import scipy.optimize  # noqa: F401
        import torch  # noqa: F401

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work()
        grew = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        return min(98, grew // (10 * MIB))

    return run_in_child(measured) * 10 * MIB


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "gp", "cmaes"])
def test_all_seeds_are_an_axis_of_constant_memory(tmp_path: Path, sampler: str) -> None:
    wide = Space((SEED, LR))

    def work() -> None:
        if sampler in NON_ADAPTIVE:
            found = list(itertools.islice(distinct_points(wide, {"name": sampler, "seed": 0}), 20))
        else:
            found = points(Study(search(wide, sampler, 8), tmp_path), lambda point: float(point["optim.lr"]))
        seeds = [point["seed"] for point in found]
        assert len({tuple(point.items()) for point in found}) == len(found)
        assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
        assert max(seeds) - min(seeds) > 2**30

    assert grown(work) < ALLOWED


def planned(*words: str):
    conf = find_conf()
    given = read_overrides(conf, words)
    with hydra_opened(conf):
        return plan_sweep(conf, compose_parts(conf, [each for each in given if not each.swept]), given)


LONG = {
    "seed=range(0,1000000000)": "the sweep has 10001 trials or more, must be at most 10000",
    "seed=int(range(0,1000000000))": "the sweep has 10001 trials or more, must be at most 10000",
    "seed=shuffle(range(0,1000000000))": "the sweep has 10001 trials or more, must be at most 10000",
    "seed=sort(range(0,1000000000))": "the sweep has 10001 trials or more, must be at most 10000",
    "optim.lr=range(0,1,0.000000001)": "the sweep has 10001 trials or more, must be at most 10000",
    "seed=range(0,200) optim.lr=range(0.1,1,0.001)": "the sweep has 180000 trials or more, must be at most 10000",
    "hydra/sweeper=optuna hydra/sweeper/sampler=grid seed=int(interval(0,4294967295))": (
        "the grid has 4294967296 points, must be at most 10000"
    ),
    "hydra/sweeper=optuna seed=range(0,1000000000)": "which has too many values",
    "hydra/sweeper=optuna seed=range(0,1000000000,-1)": "which has no values",
    "hydra/sweeper=optuna seed=int(interval(0,4294967296))": "seed: got 4294967296, must be >= 0 and <= 4294967295",
    "hydra/sweeper=optuna seed=int(interval(-1,4294967295))": "seed: got -1, must be >= 0 and <= 4294967295",
    "seed=range(0,5,0)": "which is not a valid range (the step is 0)",
    "hydra/sweeper=optuna seed=range(0,5,0)": "which is not a valid range (the step is 0)",
}


@pytest.mark.parametrize("words", LONG)
def test_what_is_too_long_or_out_of_range_is_one_line_in_constant_memory(words: str) -> None:
    def work() -> None:
        with pytest.raises(ConfigError) as refusal:
            planned(*words.split())
        assert LONG[words] in str(refusal.value) and "\n" not in str(refusal.value)

    assert grown(work) < ALLOWED


def test_a_search_over_all_seeds_is_planned_in_constant_memory(tmp_path: Path) -> None:
    """The whole way from the command line, in a process of its own."""
    program = (
        # Not getrusage, which counts the process that started this one, too
        "import re, sys\nfrom runner.__main__ import main\ncode = main(sys.argv[1:])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\nsys.exit(code)"
    )
    words = "-m data=synthetic model=linear augment=[] probe=[] steps=1 device=cpu hydra/sweeper=optuna"
    given = [*words.split(), "hydra.sweeper.n_trials=2", "hydra/sweeper/sampler=random"]
    done = subprocess.run(
        [sys.executable, "-c", program, *given, "seed=int(interval(0,4294967295))"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 1_000_000
    assert len(list(tmp_path.glob("outputs/sweeps/*/seed=*/result.json"))) == 2


RANGES = [
    (0.1, 0.5, 0.2), (0, 0.9, 0.3), (0.1, 1.0, 0.1), (1e-5, 5e-5, 1e-5), (1, 0, -0.25),
    (0.5, 3, 1), (3, 9, 2), (5, 0, -2),
]  # fmt: skip


def decimals(start: float, stop: float, step: float) -> list[Decimal]:
    """Return the values of a range by sums in decimal notation."""
    low, high, width = (Decimal(str(each)) for each in (start, stop, step))
    found = []
    while low < high if width > 0 else low > high:
        found.append(low)
        low += width
    return found


@pytest.mark.parametrize(("start", "stop", "step"), RANGES)
def test_a_range_has_the_values_of_decimal_notation(start: float, stop: float, step: float) -> None:
    wanted = [float(each) for each in decimals(start, stop, step)]
    found = [nth_in_range(start, step, index) for index in range(count_in_range(start, stop, step))]
    assert found == wanted
    assert np.allclose(found, np.arange(start, stop, step)[: len(found)])
    whole = all(isinstance(each, int) for each in (start, step))
    assert all(isinstance(each, int) is whole for each in found)


def test_a_sweep_over_a_range_names_the_values_that_are_written() -> None:
    given = read_overrides(find_conf(), ["optim.lr=range(0.1,0.5,0.2)"])
    assert [each.text for [each] in grid_of(find_conf(), Axes(given, []), {}).all()] == ["0.1", "0.3"]
    jobs = planned("optim.lr=range(0.1,0.5,0.2)", "model=mlp").jobs
    assert [job.config["optim"]["lr"] for job in jobs] == [0.1, 0.3]
    assert [job.folder_name.rpartition("-")[0] for job in jobs] == ["lr=0.1", "lr=0.3"]


def test_a_search_over_a_range_tries_the_values_that_are_written(tmp_path: Path) -> None:
    found = axis("optim.lr=range(0.1,0.75,0.2)")
    assert found.end_texts() == ["0.1", "0.7"] and found.values() == [0.1, 0.3, 0.5, 0.7]
    # Optuna gives sums in binary
    assert found.rounded(0.1 + 0.2) == 0.3
    for sampler in ("grid", "random", "qmc", "tpe"):
        made = space("optim.lr=range(0.1,0.75,0.2)")[0]
        (tmp_path / sampler).mkdir()
        tried = points(Study(search(made, sampler, 4), tmp_path / sampler), lambda point: float(point["optim.lr"]))
        texts = {text for point in tried for _, text in made.words(point)}
        assert texts <= {"0.1", "0.3", "0.5", "0.7"}


def test_many_choices_are_compared_in_a_moment() -> None:
    words = ",".join(map(str, range(1500)))
    assert len(axis(f"seed=choice({words})").choices) == 1500
    with pytest.raises(ConfigError, match="seed: given twice \\('7'\\)"):
        axis(f"seed=choice({words},7)")
