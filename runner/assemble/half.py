"""`precision=pure_bf16`: weights, gradients and the optimizer's state in bfloat16, but for those of norms.

The forward pass is that of `bf16`, under autocast, which then finds the weights already cast: it rounds the images once
where the first layer reads them, and lets norms and losses compute in float32. Averages of weights are float32 of their
own. There is no pure fp16: without a loss scaler, which refuses gradients in float16, those below 6e-8 are lost, and so
is Adam's mean of squares below them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Adagrad, NAdam, Optimizer

from runner.errors import ConfigError

HALF = torch.bfloat16
LEAST = 2.0**-8  # share of a bfloat16 that can be taken from it, whatever its value: less may be lost in rounding
FADING = ("betas", "momentum", "alpha")  # of an optimizer's groups: how much of an average stays in a step
INSTEAD = "choose precision=bf16"


def halve(model: nn.Module) -> None:
    """Round the weights of a model to bfloat16 in place; norms keep theirs, and all buffers stay as they are."""
    for module in model.modules():
        if "Norm" not in type(module).__name__:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(HALF)


def check_state(optimizer: Optimizer) -> None:
    """Raise ConfigError for an optimizer whose state would stand still in bfloat16, unseen.

    NAdam's product over all steps is float32, until torch rounds it in a run that goes on.
    """
    if isinstance(optimizer, (Adagrad, NAdam)) or hasattr(optimizer, "averaged"):
        kind = type(optimizer).__name__
        raise ConfigError(f"precision: pure_bf16 cannot hold what {kind} gathers over all steps; {INSTEAD}")
    for key, stays in fading(optimizer):
        if 1 - stays < LEAST:
            raise ConfigError(
                f"precision: pure_bf16 cannot hold an average that keeps {stays:g} of itself in each step ({key}): "
                f"it never fades; at most {1 - LEAST:.3f} does, or {INSTEAD}"
            )


def fading(optimizer: Optimizer) -> Iterator[tuple[str, float]]:
    """Yield how much of each average of an optimizer stays in a step, with the word for it in torch's groups."""
    for group in optimizer.param_groups:
        for key in FADING:
            value: Any = group.get(key, 0.0)
            yield from ((key, float(each)) for each in (value if isinstance(value, (list, tuple)) else [value]))
