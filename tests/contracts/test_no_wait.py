"""No host syncs between two log flushes: no component reads a number from the device in a step."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import OPTIONS, choices
from running import ROOT
from small_runs import build

from runner.components.optim.gradient import fused_step_works
from runner.engine import finite
from runner.engine.logs.log import Log
from runner.engine.train import train

READS = ("item", "__float__", "__bool__", "__int__", "__index__", "tolist", "__contains__", "numpy", "cpu", "nonzero")
KINDS = (
    "activation",
    "augment",
    "average",
    "distillation",
    "loss",
    "mix",
    "norm",
    "optim",
    "preprocess",
    "probe",
    "regularizer",
    "resize",
    "update",
)
SOURCE = str(ROOT / "runner")
STEPS = 3
ON_THE_HOST = "runner/components/optim/foreach.py: __int__"  # reads the count of steps, a tensor that stays on the CPU
HOST_SYNC = "runner/engine/finite.py"  # before each step of an optimizer that cannot be told on the device


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return a count of the tensor reads by runner's code; the CPU stands for a device that works in parallel."""
    monkeypatch.setattr(finite, "is_host_memory", lambda device: False)
    seen: Counter[str] = Counter()

    def counted(name: str, method: Any) -> Any:
        def call(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            frame = sys._getframe(1)
            if frame.f_code.co_filename.startswith(SOURCE):
                seen[f"{Path(frame.f_code.co_filename).relative_to(ROOT)}: {name}"] += 1
            return method(self, *args, **kwargs)

        return call

    for name in READS:
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    return seen


class Stopped(Exception):
    """Ends a run before its last step, which flushes."""


def between_flushes(experiment: Any, reads: Counter[str]) -> None:
    """Make steps 2 and later of a run that flushes only at its end; the first step may prepare caches."""

    def mixed(images: torch.Tensor, labels: torch.Tensor, step: int) -> Any:
        if step == 1:
            reads.clear()
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("error")
        if step == STEPS:
            raise Stopped
        return inner(images, labels, step)

    inner = experiment.recipe.mix
    object.__setattr__(experiment.recipe, "mix", mixed)
    try:
        with pytest.raises(Stopped):
            train(experiment.recipe, experiment.learner, experiment.batches, {}, Log(), lambda: None)
    finally:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")


def without_flushes(given: dict[str, Any]) -> dict[str, Any]:
    """Return choices of a run that is too short for a flush."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    late = {"steps": 1000, "log_every": 1000, "validate_every": "1000steps", "checkpoint_every": "1000steps"}
    often = {f"probe.{name}.every": 1 for name in given.get("probe", [])}
    return {**given, **late, **often, "device": device}


@pytest.mark.parametrize(("kind", "name"), [each for each in OPTIONS if each[0] in KINDS])
def test_no_part_of_a_step_waits_for_the_device(kind: str, name: str, reads: Counter[str]) -> None:
    experiment = build(without_flushes(choices(kind, name)))
    between_flushes(experiment, reads)
    reads.pop(ON_THE_HOST, None)
    if experiment.learner.gate.needs_host_sync:
        assert reads == {f"{HOST_SYNC}: item": STEPS - 1}
    else:
        assert not reads


@pytest.mark.parametrize("extra", [{"accumulate": 2}, {"clip": 1.0}, {"precision": "bf16"}, {"precision": "pure_bf16"}])
def test_no_way_of_making_a_step_waits_for_the_device(extra: dict[str, Any], reads: Counter[str]) -> None:
    experiment = build(without_flushes({"model": "mlp", **extra}))
    between_flushes(experiment, reads)
    pure = extra.get("precision") == "pure_bf16"
    # A CPU has no fused step under torch up to 2.13.
    plain = pure and not fused_step_works(experiment.device.type, torch.bfloat16)
    assert reads == ({f"{HOST_SYNC}: item": STEPS - 1} if plain else {})


def test_a_read_would_be_seen(reads: Counter[str]) -> None:
    experiment = build(without_flushes({"model": "mlp"}))
    experiment.learner.gate.needs_host_sync = True
    between_flushes(experiment, reads)
    assert reads == {f"{HOST_SYNC}: item": STEPS - 1}
