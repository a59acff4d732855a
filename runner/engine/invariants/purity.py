"""The first validation changes no state: weights, buffers, optimizer, modes and random numbers stay as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from runner.engine.finite import named_tensors, optimizer_tensors
from runner.engine.invariants.evidence import few
from runner.engine.invariants.violation import Violation
from runner.engine.learner import Learner

# Elements of a tensor that are compared: all of the statistics of norms
_MOST = 4096
_KINDS = ("model", "average", "predict", "metric", "preprocess")
_ADVICE = "the model's forward pass in evaluation mode, and what validation calls"


@contextmanager
def unchanged(learner: Learner, reseed: Callable[[int], None] | None) -> Iterator[None]:
    """Raise a Violation if the body, a validation, changes the state of a run.

    Args:
        learner: The state of the run.
        reseed: Seeds torch's generators for an evaluation; None if evaluation may draw random numbers.
    """
    tensors = _tensors(learner)
    before = {name: few(tensor, _MOST).clone() for name, tensor in tensors.items()}
    modes = _modes(learner)
    state = torch.get_rng_state()
    yield
    now = _tensors(learner)
    if missing := sorted(tensors.keys() ^ now.keys()):
        raise _violation(learner, f"{missing[0]} was added or removed")
    _check_modes(learner, modes)
    names = list(before)
    same = [_same(before[name], few(now[name], _MOST)) for name in names]
    # The validation has waited for the device already
    if same and not bool(torch.stack([each.cpu() for each in same]).all()):
        changed = [name for name, each in zip(names, same, strict=True) if not bool(each)]
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise _violation(learner, f"{changed[0]}{more} changed")
    if reseed is not None and _has_drawn(state, reseed):
        raise _violation(learner, "torch's random generator was drawn from")


def _violation(learner: Learner, what: str) -> Violation:
    """Return the error for a validation that changes something."""
    return Violation("evaluation", learner.step, f"{what} during validation", _ADVICE, _KINDS)


def _tensors(learner: Learner) -> dict[str, Tensor]:
    """Return the tensors that a validation must not change, by name; caches of a model are not among them."""
    found = _saved_tensors(learner.model) | _saved_tensors(learner.preprocess)
    if learner.average.module is not learner.model:
        found |= _saved_tensors(learner.average.module, "averaged ")
    found |= optimizer_tensors(learner.optimizer, learner.parameters)
    return {name: t for name, t in found.items() if not nn.parameter.is_lazy(t) and t.layout is torch.strided}


def _saved_tensors(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Return the parameters and persistent buffers of a module by name."""
    saved = module.state_dict().keys()
    return {name: t for name, t in named_tensors(module, prefix).items() if name.rpartition(" ")[2] in saved}


def _same(before: Tensor, after: Tensor) -> Tensor:
    """Return whether two tensors are equal (), NaN being equal to itself."""
    if before.shape != after.shape:
        return torch.zeros((), dtype=torch.bool)
    return ((before == after) | ((before != before) & (after != after))).all()


def _modes(learner: Learner) -> dict[str, bool]:
    """Return the mode of each module by name."""
    found = {name: module.training for name, module in learner.model.named_modules()}
    if learner.average.module is not learner.model:
        found |= {f"averaged {name}": module.training for name, module in learner.average.module.named_modules()}
    return found


def _check_modes(learner: Learner, before: dict[str, bool]) -> None:
    """Raise if a module has another mode than before."""
    for name, training in _modes(learner).items():
        if before.get(name, training) != training:
            word = "training" if training else "evaluation"
            raise _violation(learner, f"the module '{name or 'model'}' is left in {word} mode")


def _has_drawn(before: Tensor, reseed: Callable[[int], Any]) -> bool:
    """Return True if numbers were drawn since the generator was seeded for an evaluation; its state is kept."""
    now = torch.get_rng_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        reseed(-1)
        fresh = torch.get_rng_state()
    return not torch.equal(now, fresh) and not torch.equal(now, before)
