"""The first checkpoint holds what is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.engine.invariants.violation import Violation
from runner.engine.learner import Learner
from runner.engine.saving import checkpoint
from runner.engine.state_dict import state_of


def check_saved(folder: Path, learner: Learner) -> None:
    """Raise a Violation if the checkpoint of the current step in a run folder is not the learner's state."""
    snapshot = checkpoint.load(folder, step=learner.step)
    if snapshot is None:
        raise _violation(learner, "there is no checkpoint of this step")
    state = snapshot.state["learner"]
    weights = state_of(model=learner.average.module, preprocess=learner.preprocess)
    pairs = [
        ("the evaluated weights", weights, {name: snapshot.weights.get(name) for name in weights}),
        ("the model", dict(learner.model.state_dict()), state["model"]),
        ("the optimizer", learner.optimizer.state_dict(), state["optimizer"]),
        ("the step", learner.step, state["step"]),
    ]
    for what, memory, saved in pairs:
        if place := next(_differences(memory, saved), None):
            raise _violation(learner, f"{what} in the checkpoint differ from memory{place}")


def _violation(learner: Learner, problem: str) -> Violation:
    """Return the error for a checkpoint that does not hold the state."""
    advice = "what the checkpoint is made of, and whether another process writes to the run folder"
    return Violation("saved", learner.step, problem, advice, ("optim", "average", "model"))


def _differences(memory: Any, saved: Any, place: str = "") -> Iterator[str]:
    """Yield where a saved state differs from one in memory."""
    if isinstance(memory, Tensor) or isinstance(saved, Tensor):
        if not _same_tensor(memory, saved):
            yield f" at {place}" if place else ""
    elif isinstance(memory, Mapping):
        if not isinstance(saved, Mapping) or {str(key) for key in memory} != {str(key) for key in saved}:
            yield f" at {place}"
            return
        by_text = {str(key): value for key, value in saved.items()}
        for key, value in memory.items():
            yield from _differences(value, by_text[str(key)], f"{place}.{key}".lstrip("."))
    elif isinstance(memory, (list, tuple)):
        if not isinstance(saved, (list, tuple)) or len(memory) != len(saved):
            yield f" at {place}"
            return
        for number, (one, other) in enumerate(zip(memory, saved, strict=True)):
            yield from _differences(one, other, f"{place}[{number}]")
    elif memory != saved and not (memory != memory and saved != saved):
        yield f" at {place}"


def _same_tensor(memory: Any, saved: Any) -> bool:
    """Return True if two tensors have the same values, NaN being equal to itself."""
    if not isinstance(memory, Tensor) or not isinstance(saved, Tensor) or memory.shape != saved.shape:
        return False
    one, other = memory.detach().cpu(), saved.detach().cpu()
    if torch.equal(one, other):
        return True
    if one.is_floating_point() or one.is_complex():
        return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())
    return False
