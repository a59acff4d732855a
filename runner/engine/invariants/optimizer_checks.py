"""Checks of an optimizer before a step, on the host: its parameters and its learning rates."""

from __future__ import annotations

import math
from collections import Counter

from torch import Tensor

from runner.engine.invariants.violation import Violation
from runner.engine.learner import Learner


def check_rates(learner: Learner) -> None:
    """Raise if the learning rate of a parameter group is not that of the schedule."""
    step = learner.step
    factor = learner.schedule(step)
    for group in learner.optimizer.param_groups:
        wanted = learner.rate(group, step) if "active" in group else group["initial_lr"] * factor
        if not isinstance(group["lr"], Tensor) and not math.isclose(group["lr"], wanted, rel_tol=1e-6, abs_tol=0.0):
            if math.isnan(group["lr"]) and math.isnan(wanted):
                continue
            problem = f"the learning rate of '{group.get('name')}' is {group['lr']:.6g}, the schedule says {wanted:.6g}"
            raise Violation("lr", step + 1, problem, "scheduler and what sets lr", ("optim", "scheduler"))


def check_optimizer(learner: Learner) -> None:
    """Raise if the optimizer does not have each trainable tensor exactly once."""
    counts = Counter(id(p) for group in learner.optimizer.param_groups for p in group["params"])
    for name, p in learner.model.named_parameters():
        count = counts[id(p)]
        if count > 1 or (count == 0 and p.requires_grad):
            problem = (
                f"the optimizer has the weight {name} {count} times"
                if count
                else (f"the optimizer does not have the weight {name}, which is trainable")
            )
            advice = "the parameter groups of the optimizer (requires_grad=False freezes a weight)"
            raise Violation("optimizer", learner.step + 1, problem, advice, ("optim", "model"))
