"""The first validation changes no state: weights, buffers, optimizer, modes and random numbers stay as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from runner.engine.finite import optimizer_tensors
from runner.engine.invariants.evidence import Views, few
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
    views = Views(list(tensors.values()), _MOST)
    before = views.read()
    modes = _modes(learner)
    state = torch.get_rng_state()
    yield
    now = _tensors(learner)
    if missing := sorted(tensors.keys() ^ now.keys()):
        raise _violation(learner, f"{missing[0]} was added or removed")
    _check_modes(learner, modes)
    # The validation has waited for the device already
    here = list(now.values())
    after = (views if views.are_of(here) else Views(here, _MOST)).read()
    if not _are_same(before, after):
        sizes = [few(tensor, _MOST).numel() for tensor in tensors.values()]
        pairs = zip(tensors, torch.split(before, sizes), torch.split(after, sizes), strict=True)
        changed = [name for name, old, new in pairs if not _are_same(old, new)]
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise _violation(learner, f"{changed[0]}{more} changed")
    if reseed is not None and _has_drawn(state, reseed):
        raise _violation(learner, "torch's random generator was drawn from")


def _violation(learner: Learner, what: str) -> Violation:
    """Return the error for a validation that changes something."""
    return Violation("evaluation", learner.step, f"{what} during validation", _ADVICE, _KINDS)


def _tensors(learner: Learner) -> dict[str, Tensor]:
    """Return the tensors that a validation must not change, by name; caches of a model are not among them."""
    found = dict(learner.model.state_dict())
    found |= {f"preprocess {name}": tensor for name, tensor in learner.preprocess.state_dict().items()}
    if learner.average.module is not learner.model:
        found |= {f"averaged {name}": tensor for name, tensor in learner.average.module.state_dict().items()}
    found |= optimizer_tensors(learner.optimizer, learner.parameters)
    device = next(iter(learner.parameters.values())).device
    # The counts of steps, which optimizers keep on the host, are left out on a GPU
    return {name: t for name, t in found.items() if _can_compare(t) and t.device == device}


def _can_compare(value: Any) -> bool:
    """True for a dense tensor with numbers; a state may hold anything."""
    return isinstance(value, Tensor) and value.layout is torch.strided and not is_lazy(value)


def _are_same(before: Tensor, after: Tensor) -> bool:
    """True if two samples are equal, NaN being equal to itself; waits for the device."""
    if before.shape != after.shape:
        return False
    return torch.equal(before, after) or bool(((before == after) | (before.isnan() & after.isnan())).all())


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
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices):
        reseed(-1)
        fresh = torch.get_rng_state()
    return not torch.equal(now, fresh) and not torch.equal(now, before)
