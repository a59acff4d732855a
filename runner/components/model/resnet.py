"""Residual networks of He et al.: 6n+2 layers for small images, 18 to 152 layers for large ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from torch import nn

from runner.components.model.layers import conv_norm, halvings, named
from runner.components.model.residual import Order, basic, block, bottleneck, pad, pre, project
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Slot
from runner.registry import register
from runner.relations import Whole, With
from runner.schema import PositiveInt, Range

LARGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SMALL_STEM = Whole("6n+2 (8, 14, 20, ..., 110), 18, 34 or 101", first=8, step=6, also=(18, 34, 101))
LARGE_STEM = Whole("18, 34, 50, 101 or 152", also=(18, 34, 50, 101, 152))


@dataclass(frozen=True)
class Plan:
    """How many blocks each stage has, and of which kind."""

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
    depth: Annotated[int, Range(1), With("stem", "cifar", SMALL_STEM), With("stem", "imagenet", LARGE_STEM)],
    width: PositiveInt,
    stem: Literal["cifar", "imagenet"],
    order: Order,
) -> nn.Module:
    """Return a residual network with `width` channels in its first stage, twice as many in each further one.

    Depth 6n+2 with stem=cifar: three stages, shortcuts without weights (arXiv 1512.03385, section 4.2; resnet20 has
    0.27M parameters at width 16). Depth 18, 34, 50, 101, 152: four stages, projections (table 1; width 64), bottlenecks
    from 50 on; with stem=cifar (18, 34, 101) a 3x3 convolution replaces the 7x7 one and its pooling.
    `order=pre` puts norm and activation before the convolutions (arXiv 1603.05027).
    Raises ConfigError for images that its strides would use up.
    """
    plan = plan_of(depth, stem)
    halvings("resnet", shape, len(plan.blocks) - 1 + (2 if stem == "imagenet" else 0))
    layers: dict[str, nn.Module] = {"stem": stem_of(stem, shape[0], width, order, activation, norm)}
    cin, widening = width, 4 if plan.bottleneck else 1
    for i, count in enumerate(plan.blocks):
        cout = width * 2**i * widening
        layers[f"stage{i + 1}"] = stage(plan, cin, cout, count, 2 if i else 1, order, activation, norm)
        cin = cout
    if order == "pre":
        layers["final"] = pre(cin, activation, norm)
    head = nn.Linear(cin, num_classes)
    return named(**layers, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), slot=Slot("head"), head=head)


def plan_of(depth: int, stem: str) -> Plan:
    """Return the stages of a depth; with stem=cifar, 6n+2 means the network for small images."""
    if stem == "cifar" and depth > 2 and depth % 6 == 2:
        return Plan((depth // 6,) * 3, bottleneck=False, small=True)
    return Plan(LARGE[depth], bottleneck=depth >= 50, small=False)


def stem_of(
    stem: str, cin: int, width: int, order: Order, activation: ActivationMaker, norm: NormMaker
) -> nn.Sequential:
    """Return the layers before the first stage; in pre order norm and activation are left to the blocks."""
    kernel, stride = (3, 1) if stem == "cifar" else (7, 2)
    conv, after = conv_norm(cin, width, kernel, norm, stride=stride)
    layers: dict[str, nn.Module] = {"conv": conv}
    if order == "post":
        layers |= {"norm": after, "act": activation()}
    if stem == "imagenet":
        layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return named(**layers)


def stage(
    plan: Plan,
    cin: int,
    cout: int,
    count: int,
    stride: int,
    order: Order,
    activation: ActivationMaker,
    norm: NormMaker,
) -> nn.Sequential:
    """Return `count` blocks, the first of which changes channels and size."""
    convs, shortcut = bottleneck if plan.bottleneck else basic, pad if plan.small else project
    first = block(convs(cin, cout, stride), order, shortcut, activation, norm)
    rest = [block(convs(cout, cout, 1), order, shortcut, activation, norm) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)
