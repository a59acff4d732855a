"""Bugs planted in plugins: which gate of the protocol catches each, in real runs on the digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sick_parts
from running import command

RAW = ["model=mlp", "norm=none", "preprocess=none", "init.head=null"]
CHANCE = "task.check_init={expected: 2.303}"
BUGS = {
    # Each: the words, the step that catches it, the criterion, and a word of the reason
    "softmax before cross-entropy": (["model=sick", "model.bug=softmax"], 1, "model outputs", "softmax before"),
    "sum instead of mean": (["model=sick", "loss=summed", "loss.kind=sum"], 1, "reduction", "the batch (64)"),
    "loss in bits": (["model=sick", "loss=summed", "loss.factor=1.4427", CHANCE], 1,
                     "reduction", "bits, not nats"),
    "loss scaled": (["model=sick", "loss=summed", "loss.factor=3", CHANCE], 1,
                    "excess over the expected loss", "confident and wrong"),
    "loss negated": (["model=sick", "loss=summed", "loss.factor=-1", CHANCE], 1,
                     "excess over the expected loss", "better than chance"),
    "no normalisation": (RAW, 1,
                         "excess over the expected loss", "not normalized"),
    "zero init": (["model=mlp", "model.hidden=[32]", "init=zeros"], 1, "gradients reach each parameter", "hidden.fc1"),
    "input ignored": (["model=sick", "model.bug=ignores_input"], 1, "gradients reach each parameter", "first.weight"),
    "features detached": (["model=sick", "model.bug=detached"], 1, "gradients reach each parameter", "first.weight"),
    "dead head": (["model=sick", "model.bug=dead_head"], 1, "gradients reach each parameter", "head.weight"),
    "examples mixed": (["model=sick", "model.bug=mixes"], 1, "examples are independent", "wrong axis"),
    "learning rate 0": (["model=sick", "optim=forgetful", "optim.kind=still"], 1, "learning rates", "is 0"),
    "optimizer misses a layer": (["model=sick", "optim=forgetful", "optim.kind=misses"], 1,
                                 "optimizer has each parameter once", "first.weight"),
    "validation leaks": (["model=sick", "data=leaky"], 1, "validation examples in training", "equal examples"),
    "evaluation differs": (["model=sick", "model.bug=eval_differs"], 2, "fits the sample", "eval_mode_differs"),
    "labels turned": (["model=sick", "loss=summed", "loss.kind=turned"], 2, "fits the sample", "labels_or_metric"),
}  # fmt: skip
NAMES = {1: "01_check_init", 2: "02_overfit"}
SHORT = ("task=protocol", "task.overfit={max_steps: 150, controls: false}")
QUICK = {"softmax before cross-entropy", "sum instead of mean", "validation leaks"}


def caught(tmp_path: Path, *words: str):
    sick_parts.write(tmp_path)
    done = command(*sick_parts.GIVEN, *SHORT, *words, cwd=tmp_path)
    folder = tmp_path / "outputs" / "s"
    found = {n: json.loads((folder / each / "result.json").read_text()) for n, each in NAMES.items()
             if (folder / each).exists()}  # fmt: skip
    return done, found


@pytest.mark.parametrize("bug", [pytest.param(b, marks=[] if b in QUICK else pytest.mark.slow) for b in BUGS])
def test_a_planted_bug_is_caught_by_its_gate(bug, tmp_path):
    words, step, criterion, reason = BUGS[bug]
    done, found = caught(tmp_path, *words)
    assert done.returncode == 1, done.stderr[-2000:]
    assert found[step]["status"] == "fail" and max(found) == step
    failed = {each["name"]: each["why"] for each in found[step]["criteria"] if each["level"] == "fail"}
    assert reason in failed[criterion], failed
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"runner: error: {found[step]['step']} failed: ") and criterion in last
    assert not (tmp_path / "outputs" / "s" / "conf").exists()


@pytest.mark.slow
def test_a_frozen_layer_is_a_warning_and_the_sound_parts_pass(tmp_path):
    done, found = caught(tmp_path, "model=sick", "model.bug=frozen", "task.steps=[1]")
    assert done.returncode == 0, done.stderr
    assert {each["name"] for each in found[1]["criteria"] if each["level"] == "warn"} == {"trainable parameters"}
    (tmp_path / "sound").mkdir()
    done, found = caught(tmp_path / "sound", "model=sick", "task.steps=[1,2]")
    assert done.returncode == 0, done.stderr
    assert [found[n]["status"] for n in (1, 2)] == ["pass", "pass"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["model=sick", "model.bug=softmax"], "softmax_twice"),
        (["model=sick", "model.bug=ignores_input"], "input_ignored"),
        (["model=mlp", "model.hidden=[32]", "init=zeros"], "input_ignored"),
        (["model=sick", "optim=forgetful", "optim.kind=still"], "no_learning"),
        ([*RAW, "optim=sgd", "optim.lr=1e30"], "diverged"),
        (["model=sick", "optim.lr=1e-7"], "no_learning"),
        (["model=sick", "optim.lr=1e-4"], "slow"),
    ],
)
def test_step_2_alone_names_the_fault(words, name, tmp_path):
    done, found = caught(tmp_path, *words, "task.steps=[2]")
    assert done.returncode == 1, done.stderr[-2000:]
    assert found[2]["measurements"]["diagnosis"] == name, found[2]["headline"]
