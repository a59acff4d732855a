"""Residual networks: He et al. (6n+2 layers for small images, 18 to 152 for large ones) and wide ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from torch import nn

from runner.components.model.layers import check_halvings, conv_norm, sequential
from runner.components.model.residual_blocks import (
    Order,
    basic_convs,
    bottleneck_convs,
    norm_act,
    padding_shortcut,
    projection_shortcut,
    residual_block,
)
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Slot
from runner.registry import register
from runner.relations import Whole, With
from runner.schema import PositiveInt, Range

_LARGE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_SMALL_STEM = Whole("6n+2 (8, 14, 20, ..., 110), 18, 34 or 101", first=8, step=6, also=(18, 34, 101))
_LARGE_STEM = Whole("18, 34, 50, 101 or 152", also=(18, 34, 50, 101, 152))


@dataclass(frozen=True)
class _StagePlan:
    """Number and kind of blocks per stage."""

    blocks: tuple[int, ...]
    bottleneck: bool
    small: bool


@register("model")
def resnet(
    shape: tuple[int, int, int],
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    depth: Annotated[int, Range(1), With("stem", "cifar", _SMALL_STEM), With("stem", "imagenet", _LARGE_STEM)],
    width: PositiveInt,
    stem: Literal["cifar", "imagenet"],
    order: Order,
) -> nn.Module:
    """Build a residual network with `width` channels in its first stage and twice as many in each further one.

    Depth 6n+2 with stem=cifar has three stages and shortcuts without weights (arXiv 1512.03385, section 4.2; resnet20
    has 0.27M parameters at width 16). Depth 18, 34, 50, 101 and 152 have four stages and projections (table 1; width
    64), and bottlenecks from 50 on.

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: Images are too small for the strides.
    """
    plan = _stage_plan(depth, stem)
    check_halvings("resnet", shape, len(plan.blocks) - 1 + (2 if stem == "imagenet" else 0))
    layers: dict[str, nn.Module] = {"stem": _stem(stem, shape[0], width, order, activation, norm)}
    cin, widening = width, 4 if plan.bottleneck else 1
    for i, count in enumerate(plan.blocks):
        cout = width * 2**i * widening
        layers[f"stage{i + 1}"] = _resnet_stage(plan, cin, cout, count, 2 if i else 1, order, activation, norm)
        cin = cout
    if order == "pre":
        layers["final"] = norm_act(cin, activation, norm)
    return sequential(**layers, **_head(cin, num_classes))


def _stage_plan(depth: int, stem: str) -> _StagePlan:
    """Return the stages of a depth; with stem=cifar, 6n+2 is the network for small images."""
    if stem == "cifar" and depth > 2 and depth % 6 == 2:
        return _StagePlan((depth // 6,) * 3, bottleneck=False, small=True)
    return _StagePlan(_LARGE_BLOCKS[depth], bottleneck=depth >= 50, small=False)


def _stem(stem: str, cin: int, width: int, order: Order, activation: ActivationMaker, norm: NormMaker) -> nn.Sequential:
    """Return the layers before the first stage; in pre order without norm and activation, which the blocks have."""
    kernel, stride = (3, 1) if stem == "cifar" else (7, 2)
    conv, after = conv_norm(cin, width, kernel, norm, stride=stride)
    layers: dict[str, nn.Module] = {"conv": conv}
    if order == "post":
        layers |= {"norm": after, "act": activation()}
    if stem == "imagenet":
        layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return sequential(**layers)


def _resnet_stage(
    plan: _StagePlan,
    cin: int,
    cout: int,
    count: int,
    stride: int,
    order: Order,
    activation: ActivationMaker,
    norm: NormMaker,
) -> nn.Sequential:
    """Return `count` blocks; the first changes channels and size."""
    convs, shortcut = (
        bottleneck_convs if plan.bottleneck else basic_convs,
        padding_shortcut if plan.small else projection_shortcut,
    )
    first = residual_block(convs(cin, cout, stride), order, shortcut, activation, norm)
    others = [residual_block(convs(cout, cout, 1), order, shortcut, activation, norm) for _ in range(count - 1)]
    return nn.Sequential(first, *others)


@register("model")
def wide_resnet(
    shape: tuple[int, int, int],
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    depth: Annotated[int, Whole("6n+4 (10, 16, 22, 28, 34, 40, ...)", first=10, step=6)],
    widen: PositiveInt,
) -> nn.Module:
    """Build WRN-`depth`-`widen`, a wide residual network (arXiv 1605.07146, table 1).

    Three stages of pre-activation blocks have 16, 32 and 64 times `widen` channels.
    WRN-28-10 has 36.5M parameters. Dropout with `where: block` lies between the convolutions, as in the paper.

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: Images are smaller than 4x4.
    """
    check_halvings("wide_resnet", shape, 2)
    bias = isinstance(norm(16, 2), nn.Identity)
    layers: dict[str, nn.Module] = {"stem": nn.Conv2d(shape[0], 16, 3, padding=1, bias=bias)}
    cin = 16
    for i in range(3):
        cout = 16 * 2**i * widen
        convs = [basic_convs(cin, cout, 2 if i else 1)] + [basic_convs(cout, cout, 1)] * (depth // 6 - 1)
        layers[f"stage{i + 1}"] = nn.Sequential(
            *(residual_block(each, "pre", projection_shortcut, activation, norm) for each in convs)
        )
        cin = cout
    layers["final"] = norm_act(cin, activation, norm)
    return sequential(**layers, **_head(cin, num_classes))


def _head(channels: int, num_classes: int) -> dict[str, nn.Module]:
    """Return global average pooling and the classifier."""
    head = nn.Linear(channels, num_classes)
    return {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "slot": Slot("head"), "head": head}
