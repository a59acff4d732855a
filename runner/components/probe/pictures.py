"""What can be looked at: the batch, the first layer, the mistakes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from runner.engine.contracts import Probe, Watch, Watched
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import PositiveInt


@register("probe")
def images(*, every: PositiveInt, count: PositiveInt) -> Probe:
    """Return a probe that shows the first `count` images of the batch as the model sees them."""

    def watch(watched: Watched) -> Watch:
        shown = {"images/batch": watched.images[:count].detach().clone()}
        yield
        return shown

    return Probe(every, watch)


@register("probe")
def filters(*, every: PositiveInt, count: PositiveInt) -> Probe:
    """Return a probe that shows the first `count` units of the first layer as images, after the step.

    For a convolution its kernels (their first channel where they read neither 1 nor 3); for a fully connected layer on
    the pixels its templates (CS231n, "Interpretation of linear classifiers as template matching").
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
    """Return a probe of the batch's confusion matrix as an image: rows true classes, columns the model's.

    White is the whole of a class. Of mixed labels the heavier class counts as true.
    """

    def watch(watched: Watched) -> Watch:
        said: list[Tensor] = []
        handle = watched.model.register_forward_hook(lambda _, __, logits: said.append(logits.detach()))
        try:
            yield
        finally:
            handle.remove()
        logits = torch.cat(said)
        labels = watched.labels if watched.labels.ndim == 1 else watched.labels.argmax(1)
        classes = logits.shape[1]
        counts = torch.zeros(classes * classes, device=logits.device)
        counts.scatter_add_(0, labels * classes + logits.argmax(1), torch.ones_like(labels, dtype=counts.dtype))
        counts = counts.view(classes, classes)
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        return {"confusion/batch": (shares * 255).round().to(torch.uint8)[None]}

    return Probe(every, watch)
