"""Norms that would meet a single value: found at assembly, by one pass of tensors that hold nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from runner.engine.contracts import Data
from runner.errors import ConfigError

BATCH = nn.modules.batchnorm._BatchNorm
PER_EXAMPLE = (nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)


def check_norms(model: nn.Module, data: Data, batch: int) -> None:
    """Raise ConfigError where a norm would take mean and spread over one value in training: torch refuses, or gives 0.

    `batch` examples go into one optimizer step. What tensors on meta cannot run is left to the first step.
    """
    examples = fewest(len(data.train.labels), batch, batch // data.batch_size)
    kinds = PER_EXAMPLE if examples > 1 else (*PER_EXAMPLE, BATCH)
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    if not found:
        return
    handles = [module.register_forward_pre_hook(check(name, examples)) for name, module in found]
    tensors = {name: t.to("meta") for name, t in chain(model.named_parameters(), model.named_buffers())}
    try:
        with torch.device("meta"), torch.no_grad():
            torch.func.functional_call(model, tensors, (torch.zeros(examples, *data.shape),))
    except RuntimeError:
        return
    finally:
        for handle in handles:
            handle.remove()


def fewest(examples: int, batch: int, parts: int) -> int:
    """Return the examples of an epoch's smallest micro-batch: the last one of its last step."""
    return len(torch.arange((examples - 1) % batch + 1).chunk(parts)[-1])


def check(name: str, examples: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """Return a hook that raises ConfigError if the norm of this name gets one value per statistic."""

    def hook(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        x: Tensor = inputs[0]
        if x.numel() > means(norm, x):
            return
        if isinstance(norm, BATCH):
            raise ConfigError(
                f"data.batch_size: leaves a (micro-)batch of {examples} example, and the batch norm '{name}' needs two "
                "values per channel"
            )
        size = "x".join(map(str, x.shape[1:]))
        raise ConfigError(
            f"norm: '{name}' ({type(norm).__name__}) gets {size} values per example, each of which is its own mean: it "
            "leaves nothing"
        )

    return hook


def means(norm: nn.Module, x: Tensor) -> int:
    """Return how many means a norm takes of its input (B, C, ...)."""
    if isinstance(norm, nn.LayerNorm):
        return x.numel() // torch.Size(norm.normalized_shape).numel()
    if isinstance(norm, nn.GroupNorm):
        return len(x) * norm.num_groups
    return x.shape[1] if isinstance(norm, BATCH) else len(x) * x.shape[1]
