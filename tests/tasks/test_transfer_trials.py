"""task=transfer_tour and task=transfer_advice: what they run, measure and say; the rule against hand-made cases."""

from __future__ import annotations

import json
import math
import statistics
import tarfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from running import command, job, result
from scipy import stats
from torch import nn

from runner.door.options import find_conf
from runner.door.task_context import start
from runner.errors import ConfigError
from runner.tasks.feature_shift import feature_shift
from runner.tasks.linear_probe import LinearProbe
from runner.tasks.stage_report import StageReport, StageScore
from runner.tasks.transfer_rule import Measured, advise
from runner.tasks.transfer_trials import Trials

ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg.tar.xz"
SMALL = ("data=digits", "model=resnet", "model.width=8", "augment=[]", "probe=[]", "device=cpu", "optim=momentum")
TOUR = ("task=transfer_tour", *SMALL, "epochs=1", "task.steps=6", "task.seeds=2")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*words):
    assert start(replace(job(*words), folders=find_conf().folders)) == 0


def report(folder):
    return json.loads((Path("outputs") / folder / "report.json").read_text())


def configs(folder):
    return [yaml.safe_load(path.read_text()) for path in sorted(Path(folder).glob("*/config.yaml"))]


def test_a_tour_pre_trains_once_and_gives_each_way_the_same_budget_and_images(capfd):
    run(*TOUR, "name=t")
    (source,), target = configs("outputs/t/source"), configs("outputs/t/target")
    assert source["data"]["classes"] == list(range(8)) and source["data"]["limit"] is None
    assert len(target) == 6 and all(each["steps"] == 6 for each in target)
    assert all(each["data"]["classes"] == [8, 9] and each["data"]["limit"] == 20 for each in target)
    ways = {each["transfer"]["name"]: [] for each in target}
    for each in target:
        ways[each["transfer"]["name"]].append((each["seed"], each["data"]["limit_seed"]))
        assert (each["init_from"] is None) == (each["transfer"]["name"] == "none")
    assert set(ways) == {"feature_extraction", "lp_ft", "none"}
    assert all(sorted(pairs) == [(0, 0), (1, 1)] for pairs in ways.values())
    assert all(result(path.parent)["test_reads"] == 0 for path in Path("outputs").rglob("result.json"))
    scores = report("t")["scores"]
    assert [len(each) for each in scores.values()] == [2, 2, 2]
    printed = capfd.readouterr().out
    assert f"{statistics.fmean(scores['linear probe']):.4f}" in printed and "linear probe - from scratch" in printed


@pytest.mark.slow
def test_the_tour_compares_five_seeds_of_ten_images_per_class_with_an_interval():
    done = command("recipe=transfer_tour", "name=t", "device=cpu", cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    found = report("t")
    assert found["per_class"] == 10 and [len(each) for each in found["scores"].values()] == [5, 5, 5]
    # Which way is better differs between pairs of digits (docs/transfer.md)
    gains = [a - b for a, b in zip(found["scores"]["linear probe"], found["scores"]["from scratch"], strict=True)]
    low, high = stats.t.interval(0.95, 4, statistics.fmean(gains), stats.sem(gains))
    line = next(each for each in done.stdout.splitlines() if each.startswith("linear probe - from scratch"))
    assert all(f"{value:+.4f}" in line for value in (statistics.fmean(gains), low, high)), line


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.exists(), reason="needs CIFAR-10 as JPEG files")
def test_on_photographs_a_probe_of_ten_images_per_class_is_better_than_training_from_scratch(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "cifar10", filter="data")
    data = ("data=imagefolder", f"data.root={tmp_path / 'cifar10'}", "data.limit=8000", "data.batch_size=64")
    source = "[airplane,automobile,bird,deer,frog,horse,ship,truck]"
    classes = (f"task.source={source}", "task.target=[cat,dog]")
    run("recipe=transfer_tour", *data, "augment=[crop,hflip]", "epochs=8", *classes, "name=t", "device=cpu")
    scores = report("t")["scores"]
    probe, scratch = (statistics.fmean(scores[way]) for way in ("linear probe", "from scratch"))
    assert probe > scratch, scores


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["task.target=[7,8]"], "task.target: has 7, which task.source has, too"),
        (["task.target=[8]"], "data.classes: got"),
        (["task.target=[8,10]"], "data.classes: unknown class '10'"),
        (["data=synthetic", "data.kind=shapes"], "data: got synthetic; expected data with the knobs"),
    ],
)
def test_what_no_tour_can_do_is_refused_before_anything_is_written(words, line):
    other_data = any(word.startswith("data=") for word in words)
    usual = [word for word in TOUR if not (other_data and word.startswith("data="))]
    with pytest.raises(ConfigError) as raised:
        start(replace(job(*usual, *words), folders=find_conf().folders))
    assert str(raised.value).startswith(line)
    assert not Path("outputs").exists()


def test_advice_has_the_cell_the_trial_and_the_overrides(capfd):
    run(
        *SMALL,
        "data.classes=[0,1,2,3,4,5,6,7]",
        "steps=40",
        "test=never",
        "figures=never",
        "hydra.run.dir=outputs/base",
    )
    words = ["task=transfer_advice", "init_from=outputs/base", "data.classes=[8,9]", "data.limit=20", "steps=6"]
    capfd.readouterr()
    run(*SMALL, *words, "task.seeds=2", "name=a")
    found, printed = report("a"), capfd.readouterr().out
    assert found["data"]["per_class"] == 10 and found["cell"].startswith("little data, ")
    assert math.isfinite(found["data"]["shift"]) and found["data"]["shift"] > 0
    assert f"the lectures say:   {found['lectures']['overrides']}" in printed
    runs = configs("outputs/a/runs")
    assert sorted((each["transfer"]["name"], each["seed"]) for each in runs) == [
        *(("feature_extraction", seed) for seed in (0, 1)),
        *(("fine_tune", seed) for seed in (0, 1)),
    ]
    assert all(each["steps"] == 6 for each in runs)
    assert len(json.loads((Path("outputs/a") / "stages.json").read_text())["stages"]) == 4
    assert "the trial says:     transfer=" in printed


def test_advice_needs_weights():
    with pytest.raises(ConfigError, match="init_from: got null; expected the weights to transfer"):
        start(replace(job("task=transfer_advice", *SMALL), folders=find_conf().folders))


def stages(*accuracies):
    names = ["stem", "stage1", "stage2"]
    scores = [StageScore(n, 4, LinearProbe(a, 1.0, 0.1, 100), 0.0, 0.0) for n, a in zip(names, accuracies, strict=True)]
    return StageReport(scores, "weights", ("digits", "id"), 100, 100, 0.1)


@pytest.mark.parametrize(
    ("images", "shift", "accuracies", "cell", "overrides"),
    [
        (200, 0.1, (0.5, 0.7, 0.9), "little data, similar", "transfer=feature_extraction"),
        (200, None, (0.5, 0.9, 0.88), "little data, similar", "transfer=feature_extraction"),
        (20000, 0.1, (0.5, 0.7, 0.9), "much data, similar", "transfer=lp_ft"),
        (20000, 0.6, (0.5, 0.7, 0.9), "much data, different", "transfer=fine_tune"),
        (20000, 0.1, (0.5, 0.9, 0.7), "much data, different", "transfer=fine_tune"),
        (200, 0.6, (0.5, 0.7, 0.9), "little data, different", "transfer=feature_extraction"),
        (200, 0.1, (0.5, 0.9, 0.7), "little data, different", "transfer=partial 'transfer.trained=[stage2]'"),
    ],
)
def test_the_rule_has_the_four_cells_of_the_lectures(images, shift, accuracies, cell, overrides):
    found = advise(Measured(images, 10, images // 10, shift), stages(*accuracies), little=100, similar=0.5)
    assert (found.cell, found.overrides) == (cell, overrides)
    assert any(overrides in line for line in found.lines()) and found.record()["cell"] == cell


def test_the_shift_is_the_distance_in_standard_deviations_of_the_source():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2))
    images = torch.randn(64, 3, 4, 4)
    images = (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True, correction=0)
    norm = model[0]
    norm.eps, norm.running_mean[:], norm.running_var[:] = 0.0, 5.0, 4.0

    def shift(inputs):
        parts = [(part, torch.zeros(len(part))) for part in inputs.split(24)]
        return feature_shift(model, parts, nullcontext)

    assert shift(2 * images + 5) == pytest.approx(0, abs=1e-6)
    assert shift(2 * images + 11) == pytest.approx(3)
    assert shift(8 * images + 5) == pytest.approx(3)
    assert shift(8 * images + 13) == pytest.approx(5)
    assert feature_shift(nn.Flatten(), [(images, torch.zeros(64))], nullcontext) is None
    assert norm.training and norm.num_batches_tracked == 0


def test_differences_are_paired_and_have_the_interval_of_the_t_test():
    trials = Trials({"a": [0.9, 0.8, 0.95], "b": [0.7, 0.65, 0.78]})
    expected = stats.ttest_rel(*trials.scores.values()).confidence_interval(0.95)
    found = trials.difference("a", "b")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert trials.better("a", "b") == "a" and trials.better("b", "a") == "a"
    assert "a - b: +0.1733" in trials.words("a", "b") and "a is better" in trials.words("a", "b")


def test_scores_that_show_nothing_are_said_to():
    equal = Trials({"a": [0.9, 0.9], "b": [0.8, 0.8]})
    assert equal.better("a", "b") is None and "no interval" in equal.words("a", "b")
    lost = Trials({"a": [0.9, math.nan], "b": [0.8, 0.7]})
    assert lost.better("a", "b") is None and "1 run diverged" in lost.words("a", "b")
    assert lost.record([("a", "b")])["scores"]["a"] == [0.9, None]
    assert [row["n"] for row in lost.rows()] == ["1", "2"] and lost.rows()[0]["accuracy"] == "0.9000"
    assert Trials({"a": [math.nan] * 2}).rows()[0]["accuracy"] == "diverged"
