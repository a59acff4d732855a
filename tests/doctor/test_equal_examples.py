"""Validation examples among the training examples: the count, the record of a run, and what the doctor says of it."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hand_made import facts, history, series, write_folder

import runner
from runner.assemble.load_data import load
from runner.comparing.runs import find_runs
from runner.doctor import Severity, diagnose
from runner.doctor.facts import facts_of
from runner.engine.contracts import Images
from runner.engine.count_equal import count_equal
from runner.engine.equal_examples import EqualExamples, equal_from_record


def images(pixels) -> Images:
    """Return a split of examples (N, C, H, W)."""
    return Images(pixels, torch.zeros(len(pixels), dtype=torch.int64))


def by_hand(train: torch.Tensor, val: torch.Tensor) -> EqualExamples:
    """Return the counts from the lists of all values."""
    there, asked = ({tuple(x.flatten().tolist()) for x in train}, Counter(tuple(x.flatten().tolist()) for x in val))
    shared = sum(count for example, count in asked.items() if example in there)
    return EqualExamples(
        val_in_train=shared, within_val=sum(asked.values()) - len(asked), val=len(val), train=len(train)
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 5, 7), (3, 32, 32), (1, 1, 3)])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_the_count_is_that_of_all_values(shape, kind):
    """With few values many examples are equal; odd sizes have no whole words."""
    draw = torch.Generator().manual_seed(3)
    train = torch.randint(0, 7, (60, *shape), generator=draw).to(getattr(torch, kind))
    val = torch.randint(0, 7, (40, *shape), generator=draw).to(getattr(torch, kind))
    val[5:9] = train[20:24]
    found = count_equal(images(train), images(val))
    assert found == by_hand(train, val)
    assert found.val_in_train >= 4


def test_examples_that_differ_in_one_value_are_not_equal():
    """The value is not among those that are compared first."""
    train = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    for place in (0, 9, 1500, 3071):
        val = train.clone()
        val.view(-1)[place] = 1
        assert count_equal(images(train), images(val)).val_in_train == 0
    assert count_equal(images(train), images(train.clone())).val_in_train == 1


def test_zeros_of_either_sign_are_equal():
    train = torch.zeros(2, 4, 1, 1)
    assert count_equal(images(train), images(-train)).val_in_train == 2


def test_values_of_another_type_or_size_are_not_compared():
    train = torch.zeros(2, 4, 1, 1)
    assert count_equal(images(train), images(train.double())).val_in_train == 0
    assert count_equal(images(train), images(torch.zeros(2, 5, 1, 1))).val_in_train == 0


class OnDisk:
    """A split that is read batch by batch."""

    labels = torch.zeros(2, dtype=torch.int64)

    def fetch(self, index):
        raise AssertionError("was read")


def test_a_split_on_disk_is_not_read():
    assert count_equal(OnDisk(), images(torch.zeros(1, 1, 1, 1))) is None


def test_a_large_split_is_not_compared(monkeypatch):
    monkeypatch.setattr("runner.engine.count_equal._MOST_BYTES", 7)
    assert count_equal(images(torch.zeros(1, 1, 1, 1)), images(torch.zeros(1, 1, 1, 1))) is None


GOOD = {"val_in_train": 1, "within_val": 0, "val": 3, "train": 9}


@pytest.mark.parametrize(
    "record",
    [None, 3, {}, {"val_in_train": 1}, {**GOOD, "val_in_train": 9}, {**GOOD, "val_in_train": -1},
     {**GOOD, "val_in_train": True}, {**GOOD, "val": 0}, {**GOOD, "train": "9"}, {**GOOD, "within_val": 1.0}],
)  # fmt: skip
def test_a_malformed_record_counts_as_none(record):
    assert equal_from_record(record) is None
    assert equal_from_record(GOOD) == EqualExamples(**GOOD)


def test_a_run_of_an_older_version_has_no_count(tmp_path):
    folder = write_folder(tmp_path / "run", [{"step": 1, "train/loss": 1.0}])
    assert facts_of(find_runs([str(folder)]).runs[0]).equal_examples is None


def found_for(copies: int, within: int, val: int = 1000, train: int = 4000):
    """Return the finding for a count; the run has no curves."""
    equal = EqualExamples(val_in_train=copies, within_val=within, val=val, train=train)
    return [each for each in diagnose(history(facts(equal_examples=equal))) if each.id == "val_leak"]


@pytest.mark.parametrize(
    ("copies", "within", "severity"),
    [(0, 0, None), (1, 0, None), (2, 0, Severity.HINT), (10, 0, Severity.HINT), (11, 0, Severity.ERROR),
     (1000, 0, Severity.ERROR), (240, 10, None), (241, 10, Severity.ERROR), (24, 1, None), (500, 100, None),
     (501, 100, Severity.HINT)],
)  # fmt: skip
def test_the_share_decides_and_equal_examples_within_a_split_excuse(copies, within, severity):
    """Ten equal pairs among 1,000 are usual with 80 validation examples among 4,000 training examples."""
    assert [each.severity for each in found_for(copies, within)] == ([severity] if severity else [])


def test_the_usual_share_is_that_of_a_random_split():
    """Examples of 2,000 equally frequent values: 1 - (1 - 1 / 2000)^1200 = 0.451 of them are in training, as measured.

    The estimate counts pairs, so that it is larger: 1200 / 2000 = 0.6.
    """
    draw = torch.Generator().manual_seed(0)
    values = torch.randint(0, 2000, (2000, 1, 1, 1), generator=draw).float()
    found = count_equal(images(values[:1200]), images(values[1200:]))
    assert found.share == pytest.approx(0.451, abs=0.05)
    assert found.usual == pytest.approx(0.6, rel=0.25)


@pytest.mark.parametrize("data", [["data=digits"], ["data=synthetic"], ["data=synthetic", "data.kind=shapes"]])
def test_the_data_sets_that_come_with_runner_have_no_leak(data):
    """Points in the plane have 256 x 256 different values, so that some are equal."""
    equal = load(runner.compose(data)).equal_examples
    assert [each.id for each in diagnose(history(facts(equal_examples=equal)))] == []


def test_without_copies_equal_losses_are_no_leak():
    """The same curves are a hint where the splits were not compared."""
    evaluations = np.arange(19, 571, 19)
    curves = {
        "val__accuracy": series([1.0] * 30, evaluations),
        "train_eval__accuracy": series([1.0] * 30, evaluations),
        "train_eval__loss": series([0.02] * 30, evaluations),
        "val__loss": series([0.021] * 30, evaluations),
    }
    none = EqualExamples(val_in_train=0, within_val=0, val=297, train=1200)
    assert "val_leak" in [each.id for each in diagnose(history(facts(), **curves))]
    assert "val_leak" not in [each.id for each in diagnose(history(facts(equal_examples=none), **curves))]


@pytest.mark.parametrize("mode", ["ignore", "warn"])
def test_a_run_with_copies_says_so(tmp_path, mode):
    """Fifty of 60 validation examples are copies, whatever `data.duplicates` says."""
    draw = np.random.default_rng(0)
    train = draw.integers(0, 255, (200, 4, 4), dtype=np.uint8)
    val = np.concatenate([train[:50], draw.integers(0, 255, (10, 4, 4), dtype=np.uint8)])
    splits = {"x_train": train, "x_val": val, "y_train": np.arange(200) % 2, "y_val": np.arange(60) % 2}
    np.savez(tmp_path / "data.npz", **splits)
    words = ["data=arrays", f"data.root={tmp_path / 'data.npz'}", f"data.duplicates={mode}", "model=mlp", "steps=3"]
    runner.train([*words, "augment=[]", f"outputs={tmp_path}", "name=run"])
    saved = json.loads((tmp_path / "run" / "environment.json").read_text())["data"]["equal_examples"]
    assert saved == {"val_in_train": 50, "within_val": 0, "val": 60, "train": 200}
    (finding,) = json.loads((tmp_path / "run" / "diagnosis.json").read_text())["findings"]
    assert (finding["id"], finding["severity"]) == ("val_leak", "error")
    assert finding["evidence"]["numbers"]["share"] == pytest.approx(50 / 60)
    assert finding["advice"] == [["data.duplicates=drop"]]
