"""Searches from the command line, on digits: number of points, pruning, averaging over seeds, kill and resume."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from running import ROOT

from runner.__main__ import main

LR = "optim.lr=tag(log,interval(1e-3,1))"
SMALL = ("model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "average=none", "epochs=1", "device=cpu", "sweep=s")
SEARCH = ("-m", "hydra/sweeper=optuna", *SMALL)
RANDOM = ("hydra/sweeper/sampler=random", LR)
FOLDER = Path("outputs/sweeps/s")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def ranking(folder: Path = FOLDER) -> list[dict[str, str]]:
    with (folder / "ranking.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def runs(folder: Path = FOLDER) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


def began(folder: Path = FOLDER) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/environment.json")}


def test_two_workers_make_the_points_that_were_asked_for_and_seeds_are_averaged(capfd):
    words = [*SEARCH, *RANDOM, "hydra.sweeper.seeds=2", "hydra.launcher.workers=2"]
    assert main([*words, "hydra.sweeper.n_trials=3"]) == 0
    rows, found = ranking(), runs()
    assert len(rows) == 3 and len(found) == 6
    assert capfd.readouterr().out.startswith(f"search of 6 trials in {FOLDER}\n")
    assert {each["status"] for each in found.values()} == {"done"}
    assert [float(row["val/accuracy"]) for row in rows] == sorted(
        (float(r["val/accuracy"]) for r in rows), reverse=True
    )
    for row in rows:
        scores = [found[name]["scores"]["val"]["best"]["accuracy"] for name in row["runs"].split()]
        assert len(scores) == 2
        assert float(row["val/accuracy"]) == pytest.approx(sum(scores) / 2)
    best = yaml.safe_load((FOLDER / "optimization_results.yaml").read_text())
    assert best["name"] == "optuna" and best["best_value"] == float(rows[0]["val/accuracy"])
    assert best["best_params"] == {"optim.lr": float(rows[0]["optim.lr"])}
    before = began()
    assert main([*words, "hydra.sweeper.n_trials=4"]) == 0
    assert len(ranking()) == 4 and len(runs()) == 8
    assert {name: began()[name] for name in before} == before  # nothing was made again
    assert "4 points (4 complete)" in capfd.readouterr().out


@pytest.mark.parametrize(
    "again", [pytest.param("the same command", marks=[pytest.mark.slow, pytest.mark.ci_slice]), "resume"]
)
def test_a_search_that_is_killed_goes_on_without_a_lost_or_repeated_point(again):
    words = [*SEARCH, *RANDOM, "hydra.sweeper.n_trials=5", "hydra.launcher.workers=2"]
    words.remove("sweep=s")
    assert main([*words, "sweep=whole"]) == 0
    kill_when(2, FOLDER, [*words, "sweep=s"])
    done = {name for name, each in runs().items() if each["status"] == "done"}
    before = {name: began()[name] for name in done}
    assert len(before) < 5
    assert main([f"resume={FOLDER}"] if again == "resume" else [*words, "sweep=s"]) == 0
    assert {name: began()[name] for name in done} == before
    scores = {row["optim.lr"]: row["val/accuracy"] for row in ranking()}
    assert scores == {row["optim.lr"]: row["val/accuracy"] for row in ranking(Path("outputs/sweeps/whole"))}
    assert len(ranking()) == len(runs()) == 5


def kill_when(ended: int, folder: Path, words: list[str]) -> None:
    """Start a search and kill it (SIGKILL) once so many of its runs are done."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 120
    while time.monotonic() < until and sum(each["status"] == "done" for each in runs(folder).values()) < ended:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def losses(name: str) -> dict[int, float]:
    rows = [json.loads(line) for line in (FOLDER / name / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["val/loss"] for row in rows if "val/loss" in row}


def test_pruning_ends_bad_runs_and_keeps_the_best(capfd):
    words = ["hydra/sweeper/pruner=asha", "hydra.sweeper.pruner.reduction_factor=2", "hydra.launcher.workers=1"]
    words += ["hydra/sweeper/sampler=grid", "validate_every=5steps", "monitor=val/loss"]
    assert main([*SEARCH, *words, "optim.lr=0.3,0.2,0.1,1e-5,1e-6,1e-7,1e-8"]) == 0
    assert capfd.readouterr().out.startswith(f"search of 7 trials in {FOLDER}\n")
    found = runs()
    pruned = {name for name, each in found.items() if each["status"] == "pruned"}
    best = min(found, key=lambda name: found[name]["scores"]["val"]["best"]["loss"])
    assert best.startswith("lr=0.3-") and best not in pruned
    assert sum(float(name.split("=")[1].rpartition("-")[0]) < 0.01 for name in pruned) >= 3
    for name in pruned:
        seen = losses(name)
        assert found[name]["exit"] == 0
        assert found[name]["steps"] == max(seen) < found[best]["steps"]
        assert seen[max(seen)] > losses(best)[max(seen)]
    assert {row["runs"] for row in ranking() if row["state"] == "pruned"} == pruned


def test_hydras_launchers_give_the_same_scores_in_batches(capfd):
    words = [*RANDOM, "hydra.sweeper.n_trials=3"]
    assert main([*SEARCH, *words]) == 0
    ours = ranking()
    batches = [word for word in SEARCH if word != "sweep=s"]
    pruner = ["hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1"]
    more = ["hydra/launcher=basic", "sweep=basic", "hydra.sweeper.n_jobs=2", *pruner]
    assert main([*batches, *words, *more]) == 0
    theirs = ranking(Path("outputs/sweeps/basic"))
    scores = {row["optim.lr"]: row["val/accuracy"] for row in ours}
    assert {row["optim.lr"] for row in theirs} == set(scores)
    assert all(scores[row["optim.lr"]] == row["val/accuracy"] for row in theirs if row["state"] == "complete")


@pytest.mark.slow
@pytest.mark.ci_slice
def test_what_diverges_is_a_result_and_what_fails_is_told_of_and_tried_again(capfd):
    words = [*SEARCH, "hydra/sweeper/sampler=grid", "optim.lr=0.1,1e30", "norm=none", "monitor=val/loss"]
    assert main(words) == 0
    assert {float(row["optim.lr"]): row["state"] for row in ranking()} == {0.1: "complete", 1e30: "diverged"}
    words = [*words[:-1], "hydra.launcher.timeout=0.001"]
    assert main(["sweep=slow" if word == "sweep=s" else word for word in words]) == 1
    assert "points failed; repeat the command to try them again" in capfd.readouterr().err
    slow = Path("outputs/sweeps/slow")
    assert [row["state"] for row in ranking(slow)] == ["fail", "fail"]
    assert main(["sweep=slow" if word == "sweep=s" else word for word in words[:-1]]) == 0
    assert sorted(row["state"] for row in ranking(slow)) == ["complete", "diverged"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["seed=0"], "hydra/sweeper: the space is empty"),
        ([LR, "hydra/sweeper/sampler=tpee"], "hydra/sweeper/sampler: unknown option 'tpee'; did you mean 'tpe'?"),
        ([LR, "hydra.sweeper.sampler=gp"], "hydra.sweeper.sampler: got gp; choose one with hydra/sweeper/sampler=gp"),
        ([LR, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials: got 0, must be >= 1"),
        ([LR, "hydra.sweeper.sampler.n_startup_trials=x"], "hydra.sweeper.sampler.n_startup_trials: got 'x', must be"),
        ([LR, "hydra.sweeper.direction=minimize"], "got 'minimize', but with monitor=val/accuracy it is maximize"),
        ([LR, "monitor=val/f1"], "monitor: unknown value 'val/f1'"),
        ([LR, "loss=bce,focal", "monitor=val/loss"], "loss: is searched, so val/loss differs in meaning; use monitor="),
        (
            ["loss=focal", "loss.gamma=interval(0.5,2)", "monitor=val/loss"],
            "loss.gamma: is searched, so val/loss differs in meaning; use monitor=val/accuracy or val/nll",
        ),
        ([LR, "loss=mse", "monitor=val/nll"], "monitor: got 'val/nll', must be another one with loss=mse: its outputs"),
        ([LR, "task=preview"], "task: got 'preview', but only task=train logs val/accuracy, the score of a search"),
        ([LR, "hydra.sweeper.custom_search_space=a.b"], "hydra.sweeper.custom_search_space: not supported"),
        ([LR, "hydra.sweeper.storage=/no/such/x"], "hydra.sweeper.storage: /no/such/x: No such file or directory"),
        ([LR, "hydra.sweeper.foo=1"], "hydra.sweeper.foo: unknown key 'foo'"),
        (["optim.lrr=interval(0,1)"], "optim.lrr: unknown key 'lrr'; did you mean 'lr'?"),
        (["optim.lr=choice(0.1,x)"], "optim.lr: got 'x', must be a number"),
        (
            ["data.batch_size=interval(16,64)"],
            "number >= 1 or 'auto'; for whole numbers: int(interval(...))",
        ),
        (["optim=adam,sgd", "hydra/sweeper/sampler=cmaes"], "optim: got choices, but cmaes searches numbers only"),
        (
            ["optim=momentum,sgd", "optim.momentum=interval(0,1)", "hydra/sweeper/sampler=gp"],
            "optim.momentum: applies to some points only, which gp does not support",
        ),
        (["validate_every=choice(1epoch,5steps)", "hydra/sweeper/pruner=asha"], "cannot be compared before their end"),
        (["seed=0,1", "hydra.sweeper.seeds=2"], "seed: is searched, but hydra.sweeper.seeds averages over it"),
    ],
)
def test_a_wrong_search_is_one_line_before_the_first_trial(words, says, capsys):
    typed = {word.partition("=")[0] for word in words}
    assert main([*(word for word in SEARCH if word.partition("=")[0] not in typed), *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not Path("outputs").exists()


def test_without_optuna_the_line_says_how_to_get_it(monkeypatch, capsys):
    import importlib.metadata

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert main([*SEARCH, LR]) == 2
    assert capsys.readouterr().err == (
        "runner: error: hydra/sweeper: optuna is not installed: pip install 'optuna>=5,<6'\n"
    )


def test_the_ready_recipe_searches(capfd):
    assert main(["recipe=search_lr_wd", "hydra.sweeper.n_trials=2", "epochs=0.2", "model.hidden=[8]", "sweep=s"]) == 0
    assert [set(row) >= {"optim.lr", "optim.weight_decay", "val/loss"} for row in ranking()] == [True, True]


def test_the_recipe_for_fine_tuning_searches_momentum_with_the_rate(capfd, tmp_path):
    assert main(["model=mlp", "model.hidden=[8]", "epochs=1", "figures=never", f"hydra.run.dir={tmp_path}/base"]) == 0
    words = [f"init_from={tmp_path}/base", "model=mlp", "model.hidden=[8]", "steps=8", "hydra.sweeper.n_trials=3"]
    assert main(["recipe=search_finetune", *words, "sweep=s"]) == 0
    assert {row["optim.momentum"] for row in ranking()} <= {"0.0", "0.9"}
    assert all(0.001 <= float(row["optim.lr"]) <= 1 for row in ranking()) and len(ranking()) == 3
