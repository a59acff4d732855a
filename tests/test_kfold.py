"""Cross-validation: folds as scikit-learn's, runs on them, predictions out of fold, and no test score."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import MLP, command, job, result
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.model_selection import StratifiedKFold
from small_runs import build, interrupted, small, uninterrupted, write_teacher

from runner import load
from runner.__main__ import main
from runner.assemble.folds import all_examples
from runner.assemble.load_data import fingerprint_before_reading
from runner.assemble.load_data import load as load_data
from runner.components.data.splitting import split_order, stratified_folds
from runner.errors import ConfigError, DataError
from runner.hashes import hash8
from runner.rich_console import make_console

QUICK = ("model=mlp", "model.hidden=[16]", "augment=[]", "probe=[]", "steps=20", "device=cpu")


@pytest.mark.parametrize("count", [2, 3, 5, 10])
@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.7, 0.2, 0.1], [0.9, 0.08, 0.02]])
def test_each_class_has_the_sizes_that_scikit_learn_gives_it(count: int, shares: list[float]) -> None:
    labels = np.random.default_rng(count).choice(len(shares), 501, p=shares)
    labels[: len(shares)] = range(len(shares))
    own = stratified_folds(torch.from_numpy(labels), split_order(range(501)), count).numpy()
    few, size = min(np.bincount(labels)) < count, len(shares)
    with pytest.warns(UserWarning, match="least populated") if few else contextlib.nullcontext():
        tests = [test for _, test in StratifiedKFold(count).split(labels, labels)]
    theirs = [np.bincount(labels[test], minlength=size).tolist() for test in tests]
    found = [np.bincount(labels[own == fold], minlength=size).tolist() for fold in range(count)]
    assert sorted(map(sum, found)) == sorted(map(sum, theirs))
    for k in range(len(shares)):
        assert sorted(each[k] for each in found) == sorted(each[k] for each in theirs)


def test_every_example_is_in_one_fold_whatever_its_neighbors() -> None:
    labels = torch.arange(103) % 7
    folds = stratified_folds(labels, split_order(range(103)), 4)
    assert sorted(folds.bincount().tolist()) == [25, 26, 26, 26]
    # The order of files decides nothing but names do: equal ranks give equal folds
    turned = stratified_folds(labels.flip(0), split_order(range(103)).flip(0), 4)
    assert torch.equal(turned.flip(0), folds)


def test_a_class_of_one_is_in_one_fold_and_no_fold_is_empty() -> None:
    folds = stratified_folds(torch.tensor([0, 0, 0, 1]), split_order(range(4)), 4)
    assert sorted(folds.tolist()) == [0, 1, 2, 3]


def config_of(**more: Any) -> dict[str, Any]:
    return {**job(*QUICK).config, **more}


def test_folds_are_parts_of_training_and_validation_only() -> None:
    whole = load_data(config_of()).data
    both, places = all_examples(whole, config_of(folds=3, fold=1))
    seen = []
    for fold in (1, 2, 3):
        data = load_data(config_of(folds=3, fold=fold)).data
        assert torch.equal(data.val.pixels, both.pixels[places == fold - 1])
        assert len(data.train.labels) + len(data.val.labels) == len(both.labels) == 1497
        assert data.test is None
        seen.append(len(data.val.labels))
    assert seen == [499, 499, 499]


def test_each_fold_is_other_data_and_known_before_it_is_read() -> None:
    given = [config_of(folds=folds, fold=fold) for folds, fold in ((3, 1), (3, 2), (4, 1))]
    found = [load_data(each).fingerprint for each in given]
    assert len({each.id for each in [*found, load_data(config_of()).fingerprint]}) == 4
    assert [fingerprint_before_reading(each).id for each in given] == [each.id for each in found]
    labels = load_data(given[0]).data.train.labels
    assert found[0].parts["train"].counts == tuple(labels.bincount().tolist())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    where = tmp_path_factory.mktemp("whole")
    done = command("task=kfold", "task.folds=3", "name=k", *QUICK, cwd=where)
    assert done.returncode == 0, done.stderr
    return where / "outputs" / "k", done


def runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("runs/*/result.json"))


def test_mean_and_sd_are_those_of_the_runs(whole: tuple[Path, Any]) -> None:
    folder, done = whole
    scores = [result(each)["scores"]["val"]["best"]["accuracy"] for each in runs(folder)]
    report = json.loads((folder / "kfold.json").read_text())
    assert report["mean"] == pytest.approx(statistics.fmean(scores))
    assert report["sd"] == pytest.approx(statistics.stdev(scores))
    assert [each["accuracy"] for each in report["folds"]] == scores and report["n"] == 3
    assert f"mean {report['mean']:.4f}, sd {report['sd']:.4f} over 3 folds" in done.stdout


def test_predictions_are_those_of_the_run_that_did_not_see_the_example(whole: tuple[Path, Any]) -> None:
    folder, _ = whole
    path = folder / "predictions" / "out_of_fold.safetensors"
    found = load_file(path)
    both, places = all_examples(load_data(config_of()).data, config_of(folds=3, fold=1))
    assert torch.equal(found["labels"], both.labels) and torch.equal(found["fold"], places + 1)
    assert found["ids"].tolist() == list(range(1497))
    for number, run in enumerate(runs(folder)):
        members = places == number
        expected = load(run).predict(both.pixels[members]).probabilities
        torch.testing.assert_close(found["log_p"][members].exp(), expected, rtol=1e-4, atol=1e-5)
    report = json.loads((folder / "kfold.json").read_text())["out_of_fold"]
    right = found["log_p"].argmax(1) == both.labels
    assert report["accuracy"] == pytest.approx(right.double().mean().item())
    nll = torch.nn.functional.nll_loss(found["log_p"].double(), both.labels)
    assert report["nll"] == pytest.approx(nll.item())
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["about"])["independent_test"] is False


def test_the_test_split_is_never_read_and_the_result_says_so(whole: tuple[Path, Any]) -> None:
    folder, done = whole
    assert "no independent test" in done.stdout
    for each in runs(folder):
        assert result(each)["test_reads"] == 0 and "test" not in result(each)["scores"]
    refused = command("task=evaluate", f"run={runs(folder)[0]}", "task.split=test", cwd=folder)
    assert refused.returncode != 0 and "folds are no independent test" in refused.stderr


def test_the_runs_are_ordinary_ones_that_can_be_made_alone(whole: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = whole
    done = command(*QUICK, "folds=3", "fold=2", "name=alone", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    alone, there = (result(each)["scores"]["val"]["best"] for each in (tmp_path / "outputs/alone", runs(folder)[1]))
    assert there["accuracy"] == alone["accuracy"] and there["loss"] == alone["loss"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("task=kfold", "test=end"), "test: got end, but task=kfold never reads the test split"),
        (("task=kfold", "folds=3", "fold=1"), "folds: task=kfold trains all folds"),
        (("task=kfold", "task.folds=1"), "task.folds: got 1, must be >= 2"),
        (("task=kfold", "task.folds=1498"), "folds: got 1498, must be at most the 1497 examples"),
        (("folds=3",), "fold: got null, must be 1 to 3 with folds=3"),
        (("folds=3", "fold=4"), "fold: got 4, must be 1 to 3 with folds=3"),
        (("fold=1",), "fold: got 1; requires folds=..."),
        (("folds=3", "fold=1", "test=end"), "test: got end, but folds are no independent test"),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], line: str, tmp_path: Path) -> None:
    done = command(*QUICK, *words, cwd=tmp_path)
    assert done.returncode in (2, 7) and line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


def test_data_on_the_disk_and_groups_are_refused() -> None:
    data = load_data(config_of()).data
    given = config_of(folds=3, fold=1)
    with pytest.raises(ConfigError, match=r"^folds: not supported with data.groups"):
        all_examples(data, {**given, "data": {**given["data"], "groups": "patient"}})

    class Streamed:
        labels = data.train.labels

    with pytest.raises(DataError, match=r"^folds: these data are read from the disk"):
        all_examples(replace(data, train=Streamed()), given)


def test_configs_without_folds_keep_their_hashes() -> None:
    given = config_of()
    assert hash8(given) == hash8({key: value for key, value in given.items() if key not in ("folds", "fold")})
    assert len({hash8({**given, "folds": 3, "fold": fold}) for fold in (1, 2, 3)}) == 3


def test_a_fold_trains_and_resumes_as_any_run(tmp_path: Path) -> None:
    given = small({"folds": 3, "fold": 2, "data.sampling": "balanced"})
    whole = uninterrupted(given, 3)[1]
    assert interrupted(given, 1, 3, tmp_path).state == whole.state
    assert (
        build(given)
        .data.found.line(tuple("0123456789"), "images")
        .endswith("train 998, val 499 (fold 2 of 3), no test")
    )


def test_a_sweep_over_folds_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The kept fingerprint of the files is that of all folds, and no fold's."""
    monkeypatch.chdir(tmp_path)
    words = ["-m", *MLP, "steps=1", "folds=2", "fold=1,2", "sweep=folds", "hydra/launcher=basic"]
    assert main(words) == main(words) == 0
    assert capfd.readouterr().out.count("already done") == 2


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return teachers that were trained without folds, and on the first of three."""
    place = tmp_path_factory.mktemp("teachers")
    return {
        "whole": write_teacher(place / "whole"),
        "fold 1": write_teacher(place / "first", "folds=3", "fold=1", "seed=3"),
    }


@pytest.mark.parametrize(
    ("teacher", "folds", "fold", "seen"),
    [
        ("whole", None, None, False),
        ("whole", 3, 1, True),
        ("fold 1", 3, 1, False),
        ("fold 1", 3, 2, True),
        ("fold 1", 4, 1, True),
        ("fold 1", None, None, True),
    ],
)
def test_a_teacher_that_saw_the_fold_is_refused(
    teacher: str, folds: int | None, fold: int | None, seen: bool, teachers: dict[str, str]
) -> None:
    given = small({"distillation": "logits", "distillation.teacher": teachers[teacher], "folds": folds, "fold": fold})
    if not seen:
        assert "the teacher is" in "".join(build(given).summary)
        return
    with pytest.raises(ConfigError, match=r"^distillation.teacher: .* examples that this run validates on") as refusal:
        build(given)
    assert "\n" not in str(refusal.value)


@pytest.mark.ci_slice
@pytest.mark.slow
def test_cross_validation_with_a_teacher_of_the_same_data_is_refused(teachers: dict[str, str], tmp_path: Path) -> None:
    words = ("task=kfold", "task.folds=3", "distillation=logits", f"distillation.teacher={teachers['whole']}")
    done = command(*QUICK, *words, cwd=tmp_path)
    assert done.returncode == 2 and "was trained on examples that this run validates on" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "outputs").exists()


def test_all_lines_fit_a_narrow_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(make_console.__kwdefaults__, "pipe_width", 60)
    words = ["task=kfold", "task.folds=2", "name=k", *QUICK[:-2], "steps=2"]
    assert main(words) == 0
    lines = capfd.readouterr().out.splitlines()
    below = lines[next(i for i, line in enumerate(lines) if "mean" in line) :]
    assert max(map(len, below)) <= 60, below
    assert "The test split was not read." in " ".join(" ".join(below).split())
    assert below[-1] == "saved in      outputs/k"


@pytest.mark.ci_slice
@pytest.mark.slow
def test_predictions_are_read_from_the_folders_of_the_runs(tmp_path: Path) -> None:
    """A run without predictions is named; another folder beside the runs is not looked at."""
    words = ("task=kfold", "task.folds=2", "name=k", *QUICK[:-2], "steps=2")
    assert command(*words, cwd=tmp_path).returncode == 0
    first, second = runs(tmp_path / "outputs" / "k")
    (first / "predictions" / "val.safetensors").unlink()
    shutil.copytree(second, second.with_name("zzz"))
    done = command(f"resume={tmp_path / 'outputs' / 'k'}", cwd=tmp_path)
    assert done.returncode != 0
    assert f"{first.name}: fold 1 has no predictions; remove this run to train it again" in done.stderr
