"""Check that no norm normalizes a single value, by one forward pass on the meta device before training."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from runner.engine.batches import TrainBatches
from runner.engine.contracts import Data
from runner.engine.parts import BATCH_NORMS, INSTANCE_NORMS
from runner.errors import ConfigError

# Norms with one mean for all examples of a batch, and those with means of each example.
_PER_EXAMPLE = (*INSTANCE_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def check_norms(model: nn.Module, data: Data, batches: TrainBatches) -> None:
    """Raise ConfigError if a norm would normalize single values in training, where torch raises or returns 0.

    A model that cannot run on the meta device is not checked.
    """
    examples = _smallest_batch(batches.examples_per_epoch, batches.batch, batches.batch // data.batch_size)
    kinds = _PER_EXAMPLE if examples > 1 else (*_PER_EXAMPLE, *BATCH_NORMS)
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    if not found:
        return
    handles = [module.register_forward_pre_hook(_size_check(name, examples)) for name, module in found]
    tensors = {name: t.to("meta") for name, t in chain(model.named_parameters(), model.named_buffers())}
    try:
        with torch.device("meta"), torch.no_grad():
            torch.func.functional_call(model, tensors, (torch.zeros(examples, *data.shape),))
    except RuntimeError:
        return
    finally:
        for handle in handles:
            handle.remove()


def _smallest_batch(examples: int, batch: int, parts: int) -> int:
    """Return the examples of an epoch's smallest micro-batch: the last one of its last step."""
    return len(torch.arange((examples - 1) % batch + 1).chunk(parts)[-1])


def _size_check(name: str, examples: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """Return a hook that raises ConfigError if the norm of this name gets one value per statistic."""

    def hook(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        x: Tensor = inputs[0]
        if x.numel() > _count_means(norm, x):
            return
        if isinstance(norm, BATCH_NORMS):
            raise ConfigError(
                f"data.batch_size: leaves a (micro-)batch of {examples} example, and the batch norm '{name}' needs two "
                "values per channel"
            )
        size = "x".join(map(str, x.shape[1:]))
        if isinstance(norm, nn.RMSNorm):
            raise ConfigError(f"norm: '{name}' (RMSNorm) gets 1 channel, so its output has size 1 at every place")
        raise ConfigError(
            f"norm: '{name}' ({type(norm).__name__}) gets {size} values per example, one per mean, so its output is "
            "always 0"
        )

    return hook


def _count_means(norm: nn.Module, x: Tensor) -> int:
    """Return the number of means that a norm computes of its input (B, C, ...)."""
    if isinstance(norm, (nn.LayerNorm, nn.RMSNorm)):
        return x.numel() // torch.Size(norm.normalized_shape).numel()
    if isinstance(norm, nn.GroupNorm):
        return len(x) * norm.num_groups
    return x.shape[1] if isinstance(norm, BATCH_NORMS) else len(x) * x.shape[1]
