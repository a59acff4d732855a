"""Every task succeeds on a small run and is repeatable, and each of its knobs changes its output."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import pkgutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing_runs import write_sweep
from PIL import Image
from running import job, metrics
from small_runs import command_line_words, option_yaml, parsed_value, small

import runner.tasks
from runner.door.options import find_conf
from runner.door.task_context import start
from runner.registry import names

for module in pkgutil.iter_modules(runner.tasks.__path__, "runner.tasks."):
    importlib.import_module(module.name)
TASKS = names("task")
OTHER: dict[str, Any] = {
    "check_init.examples": 64,
    "check_init.seeds": 2,
    "check_init.expected": 2.2,
    "check_init.pass_at": 0.3,
    "clean.keep": "none",
    "coarse.epochs": 0.4,
    "coarse.mode": "qmc",
    "coarse.lr_factors": [0.5, 1.0],
    "coarse.weight_decays": [0.0, 0.5],
    "coarse.seeds": 2,
    "coarse.metric": "val/accuracy",
    "compare.runs": "outputs/s/optim.lr=0.1*",
    "compare.baseline": "lr=0.5",
    "compare.metric": "val/loss",
    "compare.at": "best",
    "compare.margin": 0.5,
    "compare.until": "val/accuracy>=0.6",
    "compare.objectives": ["val/accuracy", "seconds"],
    "compare.out": "elsewhere",
    "doctor.out": "elsewhere",
    "evaluate.split": "val",
    "export.out": "other.pt2",
    "find_lr.method": "both",
    "find_lr.lrs": [0.01, 0.1],
    "find_lr.iters": 30,
    "find_lr.seeds": 2,
    "find_lr.weight_decay": 0.1,
    "find_lr.within": 0.9,
    "fit_subset.examples": 32,
    "fit_subset.control": "zero_input",
    "grid_vs_random.matters": "scheduler.final",
    "grid_vs_random.between": [0.01, 0.1],
    "grid_vs_random.other": "optim.momentum",
    "grid_vs_random.other_between": [0.1, 0.9],
    "grid_vs_random.side": 3,
    "grid_vs_random.draws": 2,
    "init_report.activation": ["tanh"],
    "init_report.init": ["xavier"],
    "init_report.examples": 32,
    "init_report.cotangent": "normal",
    "kfold.folds": 3,
    "list.kind": "optim",
    "list.format": "markdown",
    "predict.images": "photos/1.png",
    "predict.out": "table.csv",
    "predict.top": 2,
    "ensemble.members": "best:1",
    "ensemble.combine": "logits",
    "ensemble.temperature": 2,
    "ensemble.out": "elsewhere",
    "overfit.n_batches": 2,
    "overfit.max_examples": 20,
    "overfit.lr_ladder": [3.0, 1.0],
    "overfit.loss_frac": 0.2,
    "preview.examples": 4,
    "preview.lr_axis": "log",
    "probe_stages.examples": 20,
    "profile.steps": 2,
    "profile.warmup": 1,
    "protocol.steps": [1],
    "protocol.budget": "1 training",
    "protocol.check_init": {"seeds": 2},
    "protocol.overfit": {"max_examples": 20},
    "protocol.find_lr": {"iters": 20, "seeds": 1, "lrs": [0.01, 0.1], "within": 0.9},
    "refine.epochs": 0.4,
    "refine.points": 4,
    "refine.seeds": 2,
    "refine.confirm_seeds": 3,
    "refine.metric": "val/accuracy",
    "transfer_advice.little": 1000,
    "transfer_advice.similar": 1e-6,
    "transfer_advice.examples": 20,
    "transfer_advice.seeds": 3,
    "transfer_tour.source": [1, 2],
    "transfer_tour.target": [4, 5],
    "transfer_tour.per_class": 8,
    "transfer_tour.steps": 3,
    "transfer_tour.seeds": 3,
}
# Knobs of tasks that would take long
LESS: dict[str, dict[str, Any]] = {
    "coarse": {"task.lr_factors": [0.3, 1.0], "task.weight_decays": [0.0], "task.epochs": 0.2, "optim.lr": 0.1},
    "find_lr": {"task.lrs": [0.01, 0.1, 0.3], "task.seeds": 1, "task.iters": 40},
    "protocol": {
        "task.find_lr": {"iters": 20, "seeds": 1, "lrs": [0.003, 0.03, 0.1]},
        "task.coarse": {"epochs": 0.2, "lr_factors": [0.3, 1.0], "weight_decays": [0.0]},
        "task.refine": {"epochs": 0.2, "points": 3, "seeds": 1, "confirm_seeds": 2},
    },
    "refine": {"task.epochs": 0.2, "task.points": 3, "task.seeds": 1, "task.confirm_seeds": 2, "optim.lr": 0.1},
    "kfold": {"task.folds": 2},
    "grid_vs_random": {"task.side": 2, "task.draws": 1},
    "transfer_advice": {"task.seeds": 2},
    "transfer_tour": {"task.source": [0, 1], "task.seeds": 2, "task.steps": 4, "norm": "none"},
}
PROTOCOL = ("check_init", "coarse", "find_lr", "fit_subset", "overfit", "protocol", "refine")
LAUNCH = ("grid_vs_random", "kfold", "transfer_advice", "transfer_tour", *PROTOCOL)
# The key that names a finished run, for tasks that need one
NEED_RUN = {"evaluate": "run", "predict": "run", "export": "run", "probe_stages": "run", "doctor": "run"}
NEED_RUN |= dict.fromkeys(("clean", "ensemble"), "runs")
NEED = {"predict": {"images": "photos"}, "export": {"out": "model.pt2"}}  # knobs without which a task does nothing
# Knobs that show only where something is broken or in the way; their own tests have that
ELSEWHERE = {
    "doctor.apply": "doctor/test_doctor_task.py",
    "check_init.warn_at": "protocol/test_initial_loss.py",
    "coarse.points": "protocol/test_coarse_run.py",
    "protocol.coarse": "protocol/test_coarse_run.py",
    "protocol.rounds": "protocol/test_goto.py",
    "protocol.final_test": "protocol/test_goto.py",
    "protocol.refine": "protocol/test_refine_step_run.py",
    "refine.rounds": "protocol/test_refine_step_run.py",
    "find_lr.stop": "protocol/test_protocol_run.py",
    "fit_subset.loss_below": "protocol/test_subset.py",
    "overfit.max_steps": "protocol/test_subset.py",
    "protocol.keep_going": "protocol/test_protocol_run.py",
    "ensemble.copy": "tasks/test_ensemble_task.py",
    **{f"compare.{knob}": "comparing/test_targets.py" for knob in ("per_study", "tuned", "workloads")},
    **{f"predict.{knob}": "tasks/test_predict_task.py" for knob in ("bad_images", "overwrite")},
    **{f"export.{knob}": "tasks/test_export.py" for knob in ("format", "overwrite", "tolerance")},
}
READ_RUNS = ("compare", "notebook")
SCORES: dict[float, list[float | None]] = {0.1: [0.7, 0.6, 0.8], 0.5: [0.7, 0.65, 0.71]}


def output_left(name: str, place: Path, capfd: Any, **knobs: Any) -> Any:
    """Return a task's output and files, without times, paths and the config itself."""
    place.mkdir()
    with contextlib.chdir(place):
        return output_of_task(name, Path("run"), capfd, knobs)


def output_of_task(name: str, folder: Path, capfd: Any, knobs: dict[str, Any]) -> Any:
    """Run a task in a folder and return its output and files."""
    if name in READ_RUNS:
        return output_about_runs(name, capfd, knobs)
    given = {**small({"steps": 3, "task": name}), **LESS.get(name, {})}
    given |= {f"task.{key}": value for key, value in knobs.items()}
    overrides = command_line_words(given)
    knobs = {**NEED.get(name, {}), **knobs}
    if name == "transfer_advice":
        assert start(job(*command_line_words(small({"steps": 3, "figures": "never"})), "hydra.run.dir=base")) == 0
        overrides.append("init_from=base")
    if name in NEED_RUN:
        write_photos(Path("photos"))
        made = {"steps": 3, **({} if name == "clean" else {"figures": "never"})}
        assert start(job(*command_line_words(small(made)), f"hydra.run.dir={folder}")) == 0
        overrides = [
            f"task={name}",
            *(f"task.{key}={parsed_value(value)}" for key, value in knobs.items()),
            f"{NEED_RUN[name]}={folder}",
        ]
    else:
        overrides.append(f"hydra.run.dir={folder}")
    capfd.readouterr()
    with_folders = ("list", "transfer_advice", "transfer_tour", *PROTOCOL)
    assert start(replace(job(*overrides), folders=find_conf().folders if name in with_folders else ())) == 0
    printed = capfd.readouterr().out if name in ("list", *LAUNCH, *NEED_RUN) else ""
    pictures = {path.name: path.read_bytes() for path in sorted(folder.rglob("*.png"))}
    logged = metrics(folder) if (folder / "metrics.jsonl").exists() else []
    result = json.loads((folder / "result.json").read_text()) if (folder / "result.json").exists() else {}
    return printed, pictures, logged, count_operations(folder), result.get("scores"), result.get("steps")


def write_photos(folder: Path) -> None:
    """Write two small gray pictures."""
    folder.mkdir()
    for number in range(2):
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) << number).save(folder / f"{number}.png")


def output_about_runs(name: str, capfd: Any, knobs: dict[str, Any]) -> Any:
    """Run a task that reads finished runs, and return what it prints and writes."""
    write_sweep(Path("outputs/s"), SCORES, gain=0.05)
    before = set(Path().rglob("*"))
    capfd.readouterr()
    assert start(job(f"task={name}", *(f"task.{key}={value}" for key, value in knobs.items()))) == 0
    made = {str(path): path.read_bytes() for path in sorted({*Path().rglob("*.*")} - before) if path.is_file()}
    return capfd.readouterr().out, made


def count_operations(folder: Path) -> Counter[str]:
    """Return how often each operation stands in the traces that a task leaves."""
    traces = [json.loads(gzip.decompress(path.read_bytes())) for path in folder.rglob("*.trace.json.gz")]
    return Counter(event["name"] for trace in traces for event in trace["traceEvents"] if event.get("cat") == "cpu_op")


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.rendered
@pytest.mark.parametrize("name", TASKS)
def test_a_task_does_the_same_twice(name: str, tmp_path: Path, capfd: Any) -> None:
    first, second = (output_left(name, tmp_path / word, capfd) for word in ("one", "two"))
    assert any(first)
    assert first == second


KNOBS = [(n, k) for n in TASKS for k in option_yaml("task", n) if k != "name" and f"{n}.{k}" not in ELSEWHERE]


def test_the_tests_of_other_knobs_are_there():
    for knob, path in ELSEWHERE.items():
        assert f"task.{knob.partition('.')[2]}=" in (Path(__file__).parent.parent / path).read_text()


@pytest.fixture(scope="module")
def usual():
    """What each task leaves with its own knobs, made once."""
    return {}


@pytest.mark.rendered
@pytest.mark.parametrize(("name", "knob"), KNOBS)
def test_another_value_of_a_tasks_knob_changes_something(
    name: str, knob: str, tmp_path: Path, capfd: Any, usual: dict[str, Any]
) -> None:
    default = option_yaml("task", name)[knob]
    assert isinstance(default, bool) or f"{name}.{knob}" in OTHER, "say in OTHER what else it can be"
    other = OTHER.get(f"{name}.{knob}", not default)
    if name not in usual:
        usual[name] = output_left(name, tmp_path / "one", capfd)
    assert output_left(name, tmp_path / "other", capfd, **{knob: other}) != usual[name]
