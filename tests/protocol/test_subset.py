"""A sample and its fit: the choice of examples, the reachable accuracy, permuted labels, and names of faults."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running import job
from small_runs import config
from torch.nn import functional as F

from runner.assemble import assemble
from runner.assemble.load_data import load
from runner.door.options import find_conf
from runner.door.task_context import start
from runner.engine.contracts import Images
from runner.errors import GateFailed
from runner.protocol.fit_diagnosis import Sample, diagnose, softmax_twice
from runner.protocol.subset import Goal, fit, reachable_accuracy, with_permuted_labels, with_sample

FIXED = ("model=mlp", "model.hidden=[32]", "augment=[]", "probe=[]", "device=cpu", "name=f")
SAMPLE = Sample(chance=math.log(10), entropy=2.2, classes=10, bound=1.0, goal=0.115, softmax=True)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*words):
    given = {word.partition("=")[0]: word for word in (*FIXED, *words)}
    return start(replace(job(*given.values()), folders=find_conf().folders))


def record(name="fit.json"):
    return json.loads(Path("outputs", "f", name).read_text())


@pytest.mark.parametrize("count", [10, 57, 320, 5, 5000])
def test_a_sample_has_each_class_in_its_share(count):
    loaded = load(config({"model": "mlp"}))
    found = with_sample(loaded, count).data
    assert found.train is found.val and found.test is None
    size = min(max(count, 10), 1200)
    shares = loaded.data.train.labels.bincount().numpy() / 1200 * size
    assert len(found.train.labels) == size and np.abs(found.train.labels.bincount().numpy() - shares).max() <= 1
    # They are training examples with their own labels
    known = {
        row.tobytes(): label
        for row, label in zip(
            loaded.data.train.pixels.flatten(1).numpy(), loaded.data.train.labels.tolist(), strict=True
        )
    }
    rows = found.train.pixels.flatten(1).numpy()
    assert all(known[row.tobytes()] == label for row, label in zip(rows, found.train.labels.tolist(), strict=True))


def test_a_batch_of_a_sample_has_several_classes_also_if_the_data_are_sorted():
    loaded = load(config({"model": "mlp"}))
    train = loaded.data.train.part(loaded.data.train.labels.argsort(stable=True))
    found = with_sample(replace(loaded, data=replace(loaded.data, train=train)), 320).data.train
    assert all(len(batch.unique()) >= 8 for batch in torch.split(found.labels, 64))


def test_equal_images_with_other_labels_limit_the_accuracy():
    pixels = torch.tensor([[0], [0], [0], [1], [1], [2]], dtype=torch.uint8).reshape(-1, 1, 1, 1)
    # 2 of 3, 1 of 2, 1 of 1
    assert reachable_accuracy(Images(pixels, torch.tensor([0, 0, 1, 0, 1, 0]))) == pytest.approx(4 / 6)
    assert reachable_accuracy(Images(pixels, torch.tensor([1, 1, 1, 0, 0, 5]))) == 1


def test_permuted_labels_keep_the_classes_and_nothing_else():
    loaded = load(config({"model": "mlp"}))
    found = with_permuted_labels(loaded, 0).data.train
    labels = loaded.data.train.labels
    assert found.labels.bincount().tolist() == labels.bincount().tolist()
    assert float((found.labels == labels).double().mean()) == pytest.approx(0.1, abs=0.03)
    index = torch.tensor([3, 1])
    assert torch.equal(found.fetch(index), loaded.data.train.fetch(index))


def test_a_fit_evaluates_in_both_modes_and_leaves_the_statistics_of_batchnorm_alone():
    made = config({"model": "mlp", "model.hidden": [32], "augment": [], "probe": [], "average": "none", "steps": 60,
                   "scheduler": "constant", "optim.weight_decay": 0.0, "device": "cpu"})  # fmt: skip
    loaded = with_sample(load(made), 64)
    plain, measured = assemble(made, loaded=loaded), assemble(made, loaded=loaded)
    found = fit(measured, Goal(accuracy=2.0, loss=None))
    assert not found["reached"] and not found["diverged"] and found["curve"][-1]["step"] == 60
    assert [point["step"] for point in found["curve"][:4]] == [0, 1, 2, 3]
    from runner.engine.short_run import short_run

    short_run(plain.recipe, plain.learner, plain.batches, steps=60)
    states = [each.learner.model.state_dict() for each in (plain, measured)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    model = measured.learner.model.eval()
    images, labels = next(iter(measured.validation["val"]))
    with torch.no_grad():
        logits = model(images)
    last = found["curve"][-1]
    assert last["eval_accuracy"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert last["eval_loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert found["wrong"] == (logits.argmax(1) != labels).nonzero().flatten().tolist()[:20]


def test_fit_subset_ends_at_the_loss_that_is_asked_for_and_equal_images_are_never_fitted():
    assert run("task=fit_subset", "task.examples=64", "steps=400", "task.loss_below=0.02") == 0
    ends = record()["curve"]
    assert record()["reached"] and ends[-1]["train_loss"] <= 0.02 < ends[-2]["train_loss"]
    assert run("task=fit_subset", "task.examples=64", "steps=50", "task.control=zero_input", "name=z") == 0
    blind = json.loads(Path("outputs/z/fit.json").read_text())
    assert not blind["reached"] and blind["curve"][-1]["train_accuracy"] <= max(blind["shares"])
    assert blind["curve"][-1]["spread"] == pytest.approx(0, abs=1e-5)


def rung(*losses, lr=0.1, accuracy=0.2, evaluation=None, spread=1.0, diverged=False):
    curve = [
        {"step": i, "train_loss": loss, "train_accuracy": accuracy, "spread": spread,
         "eval_accuracy": accuracy if evaluation is None else evaluation} for i, loss in enumerate(losses)
    ]  # fmt: skip
    return {"lr": lr, "curve": curve, "diverged": diverged, "reached": False}


@pytest.mark.parametrize(
    ("rungs", "name"),
    [
        ([rung(2.3, diverged=True), rung(None)], "diverged"),
        ([rung(2.3, 1.6, 1.47), rung(2.3, 2.0)], "softmax_twice"),
        ([rung(2.3, 2.2, 2.2, spread=1e-5)], "input_ignored"),
        ([rung(2.3, 2.29), rung(2.3, 2.4)], "no_learning"),
        ([rung(2.3, 0.01, accuracy=1.0, evaluation=0.5)], "eval_mode_differs"),
        ([rung(2.3, 0.01, accuracy=0.1)], "labels_or_metric"),
        ([rung(2.3, 0.5, 0.5, accuracy=1.0)], "loss_floor"),
        ([rung(2.3, 2.0, 1.5, 1.2, 1.0)], "slow"),
        ([rung(2.3, 1.0, 1.0, 1.0, 1.0)], "stuck"),
    ],
)
def test_the_end_of_the_rungs_names_the_fault(rungs, name):
    assert diagnose(rungs, SAMPLE).name == name


def test_a_doubled_softmax_is_known_for_cross_entropy_alone():
    assert diagnose([rung(2.3, 1.6, 1.47, 1.461)], replace(SAMPLE, softmax=False)).name != "softmax_twice"


@pytest.mark.parametrize(("classes", "value"), [(10, 1.461), (100, 3.622)])
def test_the_least_loss_of_a_doubled_softmax(classes, value):
    one_hot = torch.eye(classes)[:1]
    assert softmax_twice(classes) == pytest.approx(float(F.cross_entropy(one_hot, torch.tensor([0]))))
    assert softmax_twice(classes) == pytest.approx(value, abs=5e-4)


@pytest.mark.slow
def test_a_ladder_finds_the_learning_rate_that_the_config_misses():
    assert (
        run("task=overfit", "optim=sgd", "optim.lr=0.01", "task.max_steps=300", "task.lr_ladder=[1.0,10.0,30.0]") == 0
    )
    found = record("02_overfit/result.json")
    assert found["status"] == "warn" and "too small" in found["criteria"][0]["why"]
    assert found["facts"]["lr_overfit"] in (pytest.approx(0.1), pytest.approx(0.3))
    assert found["table"][0]["outcome"] == "not fitted"


@pytest.mark.slow
def test_too_few_steps_fail_with_the_name_of_the_fault():
    with pytest.raises(GateFailed, match="overfit failed: fits the sample: "):
        run("task=overfit", "optim.lr=0.001", "task.max_steps=10", "task.controls=false", "task.lr_ladder=[1.0]")
