"""`hydra/sweeper=refine` from the command line: what it writes and says, what it refuses, kill and resume."""

import csv
import json
import statistics
from pathlib import Path

import pytest
import yaml
from test_search_run import began, kill_when, runs

from runner.__main__ import main

SMALL = ("model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "average=none", "epochs=1", "device=cpu", "sweep=s")
REFINE = ("-m", "hydra/sweeper=refine", *SMALL, "hydra.launcher.workers=2", "optim.lr=tag(log,interval(1e-2,0.5))")
FOLDER = Path("outputs/sweeps/s")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def ranking() -> list[dict[str, str]]:
    with (FOLDER / "ranking.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_score_that_is_shown_is_that_of_fresh_seeds(capfd):
    words = [*REFINE, "hydra.sweeper.points=3", "hydra.sweeper.seeds=1", "hydra.sweeper.confirm_seeds=2"]
    assert main([*words, "hydra.sweeper.n_trials=7"]) == 0
    out, first = capfd.readouterr().out, ranking()[0]
    found = runs()
    assert len(found) == 5 and {each["status"] for each in found.values()} == {"done"}
    assert first["stage"] == "winner" and first["fresh_seeds"] == "2" and first["seeds"] == "1"
    scores = {name: each["scores"]["val"]["best"]["accuracy"] for name, each in found.items()}
    of_winner = {name: score for name, score in scores.items() if name in first["runs"].split()}
    seeds = {int(name.split("seed=")[1].split("-")[0]): score for name, score in of_winner.items()}
    assert set(seeds) == {0, 1, 2} and seeds[0] == max(score for name, score in scores.items() if "seed=0" in name)
    fresh = statistics.fmean([seeds[1], seeds[2]])
    assert float(first["fresh"]) == pytest.approx(fresh) and float(first["val/accuracy"]) == seeds[0]
    best = yaml.safe_load((FOLDER / "optimization_results.yaml").read_text())
    assert best["name"] == "refine" and best["best_value"] == pytest.approx(fresh)
    assert f"winner    optim.lr={first['optim.lr']}: val/accuracy {fresh:.4f} +- " in out
    assert "round 1: 3 points, optim.lr 0.01 to 0.5\nthe search ended: no other round fits into its 7 train" in out
    before = began()
    assert main([*words, "hydra.sweeper.n_trials=7"]) == 0
    assert began() == before


@pytest.mark.slow
def test_a_refining_search_that_is_killed_makes_the_trainings_of_one_that_is_not():
    words = [*REFINE, "hydra.sweeper.points=4", "hydra.sweeper.seeds=2", "hydra.sweeper.n_trials=18"]
    words.remove("sweep=s")
    assert main([*words, "sweep=whole"]) == 0
    kill_when(2, FOLDER, [*words, "sweep=s"])
    done = {name for name, each in runs().items() if each["status"] == "done"}
    before = {name: began()[name] for name in done}
    assert 2 <= len(before) < 17
    assert main([f"resume={FOLDER}"]) == 0
    assert {name: began()[name] for name in done} == before
    whole = Path("outputs/sweeps/whole")
    assert {json.dumps(each["scores"]) for each in runs().values()} == {
        json.dumps(each["scores"]) for each in runs(whole).values()
    }
    assert runs().keys() == runs(whole).keys()
    assert (FOLDER / "ranking.csv").read_text() == (whole / "ranking.csv").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.sweeper.n_trials=10"], "hydra.sweeper.n_trials: got 10, must be at least 24: a round of 12 points"),
        (["hydra.sweeper.pruner=asha"], "hydra.sweeper.pruner: unknown key 'pruner'"),
        (["hydra.sweeper.points=2"], "hydra.sweeper.points: got 2"),
        (["optim.lr=0.1,0.2"], "hydra/sweeper: refine narrows ranges of numbers, and optim.lr has choices only"),
        (["seed=range(0,9)"], "seed: is searched, but refine gives the seeds itself"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(words, message, capfd):
    keys = {word.partition("=")[0] for word in words}
    assert main([*(word for word in REFINE if word.partition("=")[0] not in keys), *words]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"runner: error: {message}") and error.count("\n") == 1
    assert not FOLDER.exists()


def test_an_excluded_range_is_never_trained(capfd):
    words = [*REFINE, "hydra.sweeper.points=4", "hydra.sweeper.seeds=1", "hydra.sweeper.confirm_seeds=0"]
    words += ["hydra.sweeper.n_trials=8", "hydra.sweeper.exclude=[{optim.lr: 'interval(0.05,1)'}]"]
    assert main(words) == 0
    rates = [float(name.split("lr=")[1].split("-seed")[0]) for name in runs()]
    assert len(rates) == 8 and max(rates) < 0.05
    before = began()
    assert main(words) == 0
    assert began() == before
