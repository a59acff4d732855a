"""Probes of the forward pass: activations, the input batch, first-layer filters and the confusion matrix."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from runner.engine.activations import activation_hooks, activation_modules, statistics
from runner.engine.contracts import Probe, Watch, Watched
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import PositiveInt


@register("probe")
def activations(*, every: PositiveInt) -> Probe:
    """Return a probe of each activation's output, in order of execution, in the step's first forward pass.

    Logs `activations/<module>/<statistic>`: `mean` and `std` over all outputs; `dead`, the share of units (channels)
    with one value for the whole batch (a ReLU that never fires); `saturated`, the share of outputs at the flat ends of
    an activation that has two (tanh beyond 0.99, sigmoid below 0.01 or above 0.99).
    """
    # A run has one model, so its activations are found once
    find = lru_cache(maxsize=1)(activation_modules)

    def watch(watched: Watched) -> Watch:
        measured: dict[str, Tensor] = {}

        def measure(name: str, module: nn.Module, output: Tensor) -> None:
            measured.update({f"activations/{name}/{key}": value for key, value in statistics(module, output).items()})

        with activation_hooks(watched.model, find(watched.model), measure):
            yield
        return measured

    return Probe(every, watch)


@register("probe")
def images(*, every: PositiveInt, count: PositiveInt) -> Probe:
    """Return a probe of the first `count` images of the batch, augmented, preprocessed and mixed.

    Logs `images/batch`.
    """

    def watch(watched: Watched) -> Watch:
        measured = {"images/batch": watched.images[:count].detach().clone()}
        yield
        return measured

    return Probe(every, watch)


@register("probe")
def filters(*, every: PositiveInt, count: PositiveInt) -> Probe:
    """Return a probe of the first `count` units of the first layer as images, after the step.

    Logs `filters/first_layer`: the kernels of a convolution (their first channel, unless they have 1 or 3), or the
    templates of a fully connected layer (CS231n, "Interpretation of linear classifiers as template matching").

    Raises:
        ConfigError: The first layer does not read pixels.
    """

    def watch(watched: Watched) -> Watch:
        first = next((m for m in watched.model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))), None)
        pixels = watched.images[0].numel()
        if first is None or (isinstance(first, nn.Linear) and first.in_features != pixels):
            raise ConfigError("probe=filters: the first layer of this model reads no pixels")
        yield
        weight = first.weight[:count].detach().clone()
        return {"filters/first_layer": weight if weight.ndim == 4 else weight.view(-1, *watched.images.shape[1:])}

    return Probe(every, watch)


@register("probe")
def confusion(*, every: PositiveInt) -> Probe:
    """Return a probe of the batch's confusion matrix as an image, in the step's first forward pass.

    Logs `confusion/batch`: rows are true classes, columns predicted ones, and white is 100 % of a class. The true class
    of a mixed label is the one with the largest weight.
    """

    def watch(watched: Watched) -> Watch:
        outputs: list[Tensor] = []
        handle = watched.model.register_forward_hook(lambda _, __, logits: outputs.append(logits.detach()))
        try:
            yield
        finally:
            handle.remove()
        # An update may call the model again on the same batch, at other weights
        logits = torch.cat(outputs)[: len(watched.labels)]
        labels = watched.labels if watched.labels.ndim == 1 else watched.labels.argmax(1)
        classes = logits.shape[1]
        counts = torch.zeros(classes * classes, device=logits.device)
        counts.scatter_add_(0, labels * classes + logits.argmax(1), torch.ones_like(labels, dtype=counts.dtype))
        counts = counts.view(classes, classes)
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        return {"confusion/batch": (shares * 255).round().to(torch.uint8)[None]}

    return Probe(every, watch)
