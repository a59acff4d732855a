"""The head of a model alone: its inputs, the logits that it computes of them, and whether all before it is fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from runner.engine.randomness import generator


def head_inputs(model: nn.Module, head: str, images: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return the inputs of the head for images (B, C, H, W), the logits, and how often the head was called."""
    found: list[Tensor] = []
    handle = model.get_submodule(head).register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach()))
    try:
        logits: Tensor = model(images)
    finally:
        handle.remove()
    return found[-1] if found else torch.empty(0), logits, len(found)


def logits_of(model: nn.Module, head: str, features: Tensor) -> Tensor:
    """Return the logits (B, K) of the inputs of the head: what follows it in the sequences that hold it runs, too."""
    x, path = model.get_submodule(head)(features), head
    while path:
        path, _, name = path.rpartition(".")
        parent = model.get_submodule(path)
        if isinstance(parent, nn.Sequential):
            children = list(parent.named_children())
            for _, module in children[[each for each, _ in children].index(name) + 1 :]:
                x = module(x)
    return x.flatten(1)  # type: ignore[no-any-return]


@torch.no_grad()
def why_not_cached(
    model: nn.Module, head: str, inputs: Tensor, autocast: Callable[[], AbstractContextManager[None]]
) -> tuple[torch.Size, int] | str:
    """Return shape and bytes of an example's features, or in words why they cannot be computed once.

    Args:
        model: The model in training, with the stages below the head frozen.
        head: The name of its head.
        inputs: Some inputs (B, C, H, W).
        autocast: Returns a context manager for mixed precision.
    """
    before = [buffer.clone() for buffer in model.buffers()]
    with _generators_of(inputs.device) as states, autocast(), _random_weights(model.get_submodule(head)):
        features, logits, calls = head_inputs(model, head, inputs)
        is_random = any(not torch.equal(now(), then) for now, then in states)
        is_all = calls == 1 and features.ndim > 0 and len(features) == len(inputs)
        alone = logits_of(model, head, features) if is_all else None
    changed = False
    for buffer, old in zip(model.buffers(), before, strict=True):
        changed |= not torch.equal(buffer, old)
        buffer.copy_(old)
    if is_random:
        return "the model draws random numbers before its head (dropout or the like)"
    if changed:
        return "the model has buffers that change in training"
    if alone is None or alone.shape != logits.shape or not torch.equal(alone, logits):
        return "the model computes more than its head after it"
    if features.shape == inputs.shape:
        return "the features have the shape of the images"
    return features.shape[1:], features[0].numel() * features.element_size()


@contextmanager
def _random_weights(head: nn.Module) -> Iterator[None]:
    """Give a head weights whose outputs tell two computations apart, which zeros would not."""
    own = [parameter.clone() for parameter in head.parameters()]
    try:
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(0, "head")))
        yield
    finally:
        for parameter, old in zip(head.parameters(), own, strict=True):
            parameter.copy_(old)


@contextmanager
def _generators_of(device: torch.device) -> Iterator[list[tuple[Callable[[], Tensor], Tensor]]]:
    """Give torch's global generators their state back, and yield functions that read each, with its state now."""
    devices = [device] if device.type == "cuda" else []
    reads: list[Callable[[], Tensor]] = [torch.get_rng_state]
    reads += [partial(torch.cuda.get_rng_state, device)] if devices else []
    with torch.random.fork_rng(devices):
        yield [(read, read()) for read in reads]


def sample_inputs(shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Return two inputs of random numbers, the same in each call."""
    return torch.randn(2, *shape, generator=generator(0, "features")).to(device)
