"""Replace a model's norms by the config's, over the same channels."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from runner.components.model.layers import sequential
from runner.components.model.surgery.module_kinds import NORM_FUNCTIONS, is_unknown_norm
from runner.components.model.surgery.swap_activations import (
    Changes,
    class_name,
    count_places,
    is_equivalent,
    module_names,
    unreachable,
)
from runner.components.model.surgery.trace import Call, Trace
from runner.components.model.vit import TokenNorm
from runner.engine.contracts import NormMaker
from runner.engine.parts import fill
from runner.errors import ConfigError


def swap_norms(model: nn.Module, seen: Trace, make: NormMaker, what: str) -> Changes:
    """Replace every norm by the requested one over the same channels, and return what changed.

    A model without norms gets them between each layer and its activation. With `norm=none`, layers without bias get
    one.

    Raises:
        ConfigError: A norm is called as a function or is of an unknown kind.
    """
    for name, places in Counter(f.name for f in seen.functions if f.name in NORM_FUNCTIONS).items():
        raise unreachable(what, f"calls {name} as a function at {count_places(places)}", "norm=")
    for kind, places in Counter(class_name(c.module) for c in seen.calls if is_unknown_norm(c.module)).items():
        raise unreachable(what, f"has {places} {kind}, an unknown norm,", "norm=")
    if not seen.norms():
        return _add_norms(model, seen, make)
    changes: Changes = Counter()
    for call in {call.module: call for call in seen.norms()}.values():
        old, new = call.module, _norm_like(call, make, what)
        if new is old:
            continue
        changes[f"{_name_with_eps(old, new)} -> {_name_with_eps(new, old)}"] += 1
        for name in module_names(model, old):
            fill(model, name, _with_fused_parts(old, new))
        if (
            isinstance(new, nn.Identity)
            and isinstance(call.producer, (nn.Conv2d, nn.Linear))
            and call.producer.bias is None
        ):
            call.producer.bias = nn.Parameter(torch.zeros(len(call.producer.weight)))
            changes["layers given a bias"] += 1
    return changes


def _add_norms(model: nn.Module, seen: Trace, make: NormMaker) -> Changes:
    """Insert norms between the layers of a model and their activations, except after the classifier."""
    changes: Changes = Counter()
    head = seen.head().module
    for call in seen.activations():
        if isinstance(call.producer, (nn.Conv2d, nn.Linear)) and call.producer is not head:
            new = _norm_over_channels(len(call.producer.weight), call.shape, 1 if len(call.shape) == 4 else -1, make)
            if not isinstance(new, nn.Identity):
                changes[f"{class_name(new)} inserted before activations"] += 1
                for name in module_names(model, call.module):
                    fill(model, name, sequential(norm=new, act=call.module))
    return changes


def _norm_like(call: Call, make: NormMaker, what: str) -> nn.Module:
    """Return the requested norm over the channels of the called norm, or the called one if it already is that.

    Norms over the channels of each pixel or token (transformers, ConvNeXt) stay so with `norm=layer` and `norm=rms`.
    """
    old = call.module
    channels, axis = _channels_of(old)
    if channels is None or len(call.shape) not in (2, 3, 4) or (len(call.shape) == 3 and axis == 1):
        raise unreachable(what, f"has a {class_name(old)} over other axes than the channels", "norm=")
    if axis == -1 or isinstance(old, nn.LayerNorm):
        per_token = _norm_for_features(channels, make)
        if isinstance(per_token, nn.LayerNorm):
            if isinstance(old, nn.LayerNorm) and old.elementwise_affine:
                return old if old.eps == per_token.eps else _with_eps(old, per_token.eps)
            return per_token if axis == -1 else old
        if axis == -1 and isinstance(per_token, nn.RMSNorm):
            return old if is_equivalent(old, per_token) else per_token
    new = _norm_over_channels(channels, call.shape, axis, make)
    return old if is_equivalent(old, new) else new


def _norm_for_features(channels: int, make: NormMaker) -> nn.Module | None:
    """Return the requested norm over features (B, C), None if it needs feature maps."""
    try:
        return make(channels, 0)
    except ConfigError:
        return None


def _with_eps(old: nn.LayerNorm, eps: float) -> nn.LayerNorm:
    """Return a layer norm of the same class with another eps."""
    new = type(old).__new__(type(old))
    new.__dict__ = {**old.__dict__, "eps": eps}
    return new


def _channels_of(norm: nn.Module) -> tuple[int | None, int]:
    """Return the channels of a norm (None if it covers other axes, too) and their axis: 1 or the last."""
    if isinstance(norm, (nn.LayerNorm, nn.RMSNorm)):
        sizes = norm.normalized_shape
        return (sizes[0] if len(sizes) == 1 else None), (1 if "2d" in type(norm).__name__ else -1)
    channels = norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features
    return int(channels), 1  # type: ignore[arg-type]


def _norm_over_channels(channels: int, shape: tuple[int, ...], axis: int, make: NormMaker) -> nn.Module:
    """Return a norm for inputs of this shape: (B, C), tokens (B, N, C), maps (B, C, H, W) or (B, H, W, C)."""
    new = make(channels, 2 if len(shape) == 4 else 0)
    if isinstance(new, nn.Identity) or len(shape) == 2 or (len(shape) == 4 and axis == 1):
        return new
    if len(shape) == 3:
        return new if isinstance(new, (nn.LayerNorm, nn.RMSNorm)) else TokenNorm(new)
    return ChannelsLast(new)


class ChannelsLast(nn.Module):
    """A norm of maps (B, C, H, W), applied to maps (B, H, W, C)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized maps (B, H, W, C)."""
        out: Tensor = self.norm(x.movedim(-1, 1)).movedim(1, -1)
        return out


def _with_fused_parts(old: nn.Module, new: nn.Module) -> nn.Module:
    """Return the new norm followed by the dropout and activation of a fused norm (timm's BatchNormAct2d)."""
    others = {name: part for name, part in old.named_children() if not isinstance(part, nn.Identity)}
    return sequential(norm=new, **others) if others and type(new) is not type(old) else new


def _name_with_eps(part: nn.Module, other: nn.Module) -> str:
    """Return the class name of a module, with its eps if only that differs from the other."""
    eps = getattr(part, "eps", None)
    return (
        f"{class_name(part)} (eps {eps:g})"
        if class_name(part) == class_name(other) and eps is not None
        else class_name(part)
    )
