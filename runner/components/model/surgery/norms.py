"""The norms of another library's model become those of the config, over the same channels."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from runner.components.model.layers import named
from runner.components.model.surgery.kinds import NORM_FUNCTIONS, is_strange_norm
from runner.components.model.surgery.swap import Changes, alike, beyond, counted, names_of, title
from runner.components.model.surgery.trace import Call, Trace
from runner.components.model.vit import TokenNorm
from runner.engine.contracts import NormMaker
from runner.engine.parts import fill
from runner.errors import ConfigError


def swap_norms(model: nn.Module, seen: Trace, make: NormMaker, what: str) -> Changes:
    """Put the norm asked for at every place where the model has one, over the same channels, and return what changed.

    A model without norms gets them between each layer and its activation; `norm=none` gives layers without bias one.
    Raises ConfigError for norms that are called as functions or of a kind that we do not know.
    """
    for name, places in Counter(f.name for f in seen.functions if f.name in NORM_FUNCTIONS).items():
        raise beyond(what, f"calls {name} as a function at {counted(places)}", "norm=")
    for kind, places in Counter(title(c.module) for c in seen.calls if is_strange_norm(c.module)).items():
        raise beyond(what, f"has {places} {kind}, a norm that we do not know,", "norm=")
    if not seen.norms():
        return add_norms(model, seen, make)
    changes: Changes = Counter()
    for call in {call.module: call for call in seen.norms()}.values():
        old, new = call.module, norm_like(call, make, what)
        if new is old:
            continue
        changes[f"{detailed(old, new)} -> {detailed(new, old)}"] += 1
        for name in names_of(model, old):
            fill(model, name, with_rest(old, new))
        if isinstance(new, nn.Identity) and isinstance(call.giver, (nn.Conv2d, nn.Linear)) and call.giver.bias is None:
            call.giver.bias = nn.Parameter(torch.zeros(len(call.giver.weight)))
            changes["layers given a bias"] += 1
    return changes


def add_norms(model: nn.Module, seen: Trace, make: NormMaker) -> Changes:
    """Put norms between the layers of a model and their activations, but for the one that gives the logits."""
    changes: Changes = Counter()
    head = seen.head().module
    for call in seen.activations():
        if isinstance(call.giver, (nn.Conv2d, nn.Linear)) and call.giver is not head:
            new = over_channels(len(call.giver.weight), call.shape, 1 if len(call.shape) == 4 else -1, make)
            if not isinstance(new, nn.Identity):
                changes[f"{title(new)} put before activations"] += 1
                for name in names_of(model, call.module):
                    fill(model, name, named(norm=new, act=call.module))
    return changes


def norm_like(call: Call, make: NormMaker, what: str) -> nn.Module:
    """Return the norm asked for over the channels of the norm that was called; that itself if it is one already.

    Norms over the channels of each pixel or token (transformers, convnext) stay so under `norm=layer`.
    """
    old = call.module
    channels, axis = channels_of(old)
    if channels is None or len(call.shape) not in (2, 3, 4) or (len(call.shape) == 3 and axis == 1):
        raise beyond(what, f"has a {title(old)} over other axes than the channels", "norm=")
    if axis == -1 or isinstance(old, nn.LayerNorm):
        per_token = attempt(channels, make)
        if isinstance(per_token, nn.LayerNorm):
            if isinstance(old, nn.LayerNorm) and old.elementwise_affine:
                return old if old.eps == per_token.eps else other_eps(old, per_token.eps)
            return per_token if axis == -1 else old
    new = over_channels(channels, call.shape, axis, make)
    return old if alike(old, new) else new


def attempt(channels: int, make: NormMaker) -> nn.Module | None:
    """Return the norm asked for over features (B, C), None where it is for maps only."""
    try:
        return make(channels, 0)
    except ConfigError:
        return None


def other_eps(old: nn.LayerNorm, eps: float) -> nn.LayerNorm:
    """Return a layer norm of the same class with another eps."""
    new = type(old).__new__(type(old))
    new.__dict__ = {**old.__dict__, "eps": eps}
    return new


def channels_of(norm: nn.Module) -> tuple[int | None, int]:
    """Return the channels of a norm, None if it is over more than them, and their axis: 1 or the last."""
    if isinstance(norm, (nn.LayerNorm, nn.RMSNorm)):
        sizes = norm.normalized_shape
        return (sizes[0] if len(sizes) == 1 else None), (1 if "2d" in type(norm).__name__ else -1)
    channels = norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features
    return int(channels), 1  # type: ignore[arg-type]


def over_channels(channels: int, shape: tuple[int, ...], axis: int, make: NormMaker) -> nn.Module:
    """Return a norm for inputs of this shape: (B, C), tokens (B, N, C), maps (B, C, H, W) or (B, H, W, C)."""
    new = make(channels, 2 if len(shape) == 4 else 0)
    if isinstance(new, nn.Identity) or len(shape) == 2 or (len(shape) == 4 and axis == 1):
        return new
    if len(shape) == 3:
        return new if isinstance(new, nn.LayerNorm) else TokenNorm(new)
    return ChannelsLast(new)


class ChannelsLast(nn.Module):
    """A norm of maps (B, C, H, W), applied to maps (B, H, W, C)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps normalized."""
        out: Tensor = self.norm(x.movedim(-1, 1)).movedim(1, -1)
        return out


def with_rest(old: nn.Module, new: nn.Module) -> nn.Module:
    """Return the new norm, with what a fused norm (timm's BatchNormAct2d) did beside: dropout and activation."""
    rest = {name: part for name, part in old.named_children() if not isinstance(part, nn.Identity)}
    return named(norm=new, **rest) if rest and type(new) is not type(old) else new


def detailed(part: nn.Module, other: nn.Module) -> str:
    """Return what a part is called, with its eps where only that tells it from the other."""
    eps = getattr(part, "eps", None)
    return f"{title(part)} (eps {eps:g})" if title(part) == title(other) and eps is not None else title(part)
