"""Types that the door reads from source equal those of the components; no config error needs torch."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner import annotations, registry
from runner.annotations import annotation
from runner.door.options import find_conf
from runner.source_reader import UnknownAnnotation, read_type
from runner.tasks import load_tasks
from tests.running import ROOT

UNREAD = set()  # knobs of ours whose annotation only the import can tell: state the reason beside each


def test_every_type_that_is_read_is_the_component_s():
    load_tasks()
    kinds = {kind: files for kind, files in find_conf().files.items() if files and kind != "recipe"}
    types = {
        (kind, name, knob): kind_of_knob
        for kind, names in kinds.items()
        for name in names
        for knob, kind_of_knob in registry.knobs(registry.find(kind, name)).items()
    }
    found = {place: annotation(*place) for place in types}
    assert {place for place, kind in found.items() if kind is None} == UNREAD
    assert {place: kind for place, kind in found.items() if kind is not None and kind != types[place]} == {}


def test_what_is_no_component_of_ours_has_no_type():
    assert annotation("optim", "mine", "lr") is None
    assert annotation("mine", "sgd", "lr") is None
    assert annotation("optim", "momentum", "mine") is None


SOURCE = """
from elsewhere import Far
from runner.registry import register
from typing import Literal

@register("mix", "odd")
def f(x, *, given: Far, made: int.real, called: print("no"), word: Literal["a"], bare): ...

@register("mix")
class Whole: ...
"""


@pytest.mark.parametrize("knob", ["given", "made", "called", "bare"])
def test_an_annotation_that_cannot_be_read_is_left_to_the_import(tmp_path, monkeypatch, knob):
    (tmp_path / "components" / "mix").mkdir(parents=True)
    (tmp_path / "components" / "mix" / "odd.py").write_text(SOURCE)
    monkeypatch.setattr(annotations, "PACKAGE", tmp_path)
    annotation.cache_clear()
    try:
        assert str(annotation("mix", "odd", "word")) == "typing.Literal['a']"
        assert annotation("mix", "odd", knob) is None
        assert annotation("mix", "whole", knob) is None
    finally:
        annotation.cache_clear()


@pytest.mark.parametrize("text", ["f(1)", "__import__('os')", "[].append", "lambda: 0", "'x' if 1 else 2", "int.real"])
def test_only_types_are_read(text):
    with pytest.raises(UnknownAnnotation):
        read_type(ast.parse(text, mode="eval").body, Path(annotations.__file__))


REFUSED = {
    "optim.lr=-1": "optim.lr: got -1, must be > 0",
    "optim.lr=abc": "optim.lr: got 'abc', must be a number",
    "optim.lr=null": "optim.lr: got null, must be a number",
    "optim.lr=nan": "optim.lr: got nan, must be a number",
    "optim.momentum=1": "optim.momentum: got 1, must be >= 0 and < 1",
    "optim=adam optim.betas=[0.9,1.5]": "optim.betas[1]: got 1.5, must be >= 0 and < 1",
    "optim=adam optim.betas=0.9": "optim.betas: got 0.9, must be two numbers [mean of g, mean of g squared]",
    "optim=adam optim.betas=[0.9]": "optim.betas: got [0.9], must be two numbers [mean of g, mean of g squared]",
    "augment=[resized_crop] augment.resized_crop.scale=[0.9,0.5]": "augment.resized_crop.scale: got [0.9, 0.5], must",
    "optim=sdg": "optim: unknown option 'sdg'; did you mean 'sgd'?",
    "optim.lrr=1": "optim.lrr: unknown key 'lrr'; did you mean 'lr'?",
    "optim.no_decay=[bias,norms]": "optim.no_decay[1]: unknown value 'norms'; did you mean 'norm'?",
    "model=vgg model.depth=12": "model.depth: unknown value '12'",
    "model.order=before": "model.order: unknown value 'before'",
    "model=mlp model.hidden=[64,0]": "model.hidden[1]: got 0, must be >= 1",
    "model=mlp model.hidden=[64,1.5]": "model.hidden[1]: got 1.5, must be a whole number",
    "augment.crop.mode=mirror": "augment.crop.mode: unknown value 'mirror'",
    "augment.crop.padding=-2": "augment.crop.padding: got -2, must be ",
    "augment=[rotate] augment.rotate.degrees=200": "augment.rotate.degrees: got 200, must be >= 0 and <= 180",
    "regularizer=[dropout] regularizer.dropout.where=[]": "regularizer.dropout.where: got [], must name at least one",
    "regularizer=[l2] regularizer.l2.strength=-1": "regularizer.l2.strength: got -1, must be >= 0",
    "probe.grad_norm.every=0": "probe.grad_norm.every: got 0, must be >= 1",
    "scheduler=step scheduler.every=often": "scheduler.every: got 'often', must be a duration",
    "scheduler=multistep scheduler.milestones=[10%,x]": "scheduler.milestones[1]: got 'x', must be a duration",
    "loss=focal loss.gamma=-1": "loss.gamma: got -1, must be >= 0",
    "mix=mixup mix.p=2": "mix.p: got 2, must be >= 0 and <= 1",
    "init.head=-1": "init.head: got -1, must be 'small', 'zeros', 'prior' or a number > 0",
    "data.batch_size=0": "data.batch_size: got 0, must be a whole number >= 1 or 'auto'",
    "data.placement=disk": "data.placement: unknown value 'disk'",
    "average.decay=1": "average.decay: got 1, must be >= 0 and < 1",
    "predict=tta predict.views=[turn]": "predict.views[0]: unknown value 'turn'",
    "activation=leaky_relu activation.slope=true": "activation.slope: got true, must be a number",
    "task=evaluate task.split=tests": "task.split: unknown value 'tests'; did you mean 'test'?",
    "model=cnn model.kernel=4": "model.kernel: got 4, must be odd",
    "model=cnn model.kernel=0": "model.kernel: got 0, must be odd",
    "model=vit model.heads=3": "model.heads: got 3, must divide model.dim (128)",
    "model=vit model.dim=30": "model.heads: got 4, must divide model.dim (30)",
    "model=resnet model.depth=9": "model.depth: got 9, must be 6n+2 (8, 14, 20, ..., 110), 18, 34 or 101 with",
    "model.stem=imagenet": "model.depth: got 8, must be 18, 34, 50, 101 or 152 with stem=imagenet",
    "model=wide_resnet model.depth=4": "model.depth: got 4, must be 6n+4",
    "augment=[short_side] augment.short_side.low=3": "augment.short_side.low: got 3, must be <= ",
    "data=imagefolder data.root=. data.val_fraction=0.9": "data.val_fraction: got 0.9, must be < 1 - ",
    "optim.rules=[{lr:2}]": "optim.rules[0].match: got null, must be a regular expression for names of tensors",
    "optim.rules=[{match:'('}]": "optim.rules[0].match: got '(', must be a regular expression",
    "optim.rules=[{match:fc,lr:-1}]": "optim.rules[0].lr: got -1, must be >= 0",
    "optim.rules=[{match:fc,until:soon}]": "optim.rules[0].until: got 'soon', must be a duration",
    "optim.rules=[{match:fc,rate:2}]": "optim.rules[0].rate: unknown key 'rate'",
    "optim.rules=[fc]": "optim.rules[0]: got 'fc', must be a mapping",
    "data=synthetic data.kind=shapes data.classes=7": "data.classes: got 7, must be <= 6 with kind=shapes",
    "optim=schedulefree optim.betas=[0,0.9]": "optim.betas: got [0, 0.9], must be two numbers [share of the average, ",
    "data=imagefolder data.root=. data.crop=resized data.placement=host": "data.placement: got 'host', must be 'auto'",
    "cuda_graphs=true accumulate=2": "accumulate: got 2, must be 1 with cuda_graphs=true",
    "cuda_graphs=true device=cpu": "cuda_graphs: got true, must be false with device=cpu",
    "epochs=0": "epochs: got 0, must be > 0",
    "precision=half": "precision: unknown value 'half'",
    "steps=1 epochs=1": "steps: given together with epochs, must be one of the two",
}
PROGRAM = """
import sys
from runner.__main__ import main
for words in sys.argv[1:]:
    assert main(words.split()) == 2, words
    assert "torch" not in sys.modules, words
"""


def test_no_config_error_imports_torch(tmp_path):
    command = [sys.executable, "-W", "error", "-c", PROGRAM, *REFUSED]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("runner: error: ") for line in done.stderr.splitlines()]
    assert len(lines) == len(REFUSED)
    assert [line[: len(start)] for line, start in zip(lines, REFUSED.values(), strict=True)] == [*REFUSED.values()]
    assert not list(tmp_path.iterdir())
