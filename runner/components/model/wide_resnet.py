"""Wide residual networks of Zagoruyko and Komodakis."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from runner.components.model.layers import halvings, named
from runner.components.model.residual import basic, block, pre, project
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Slot
from runner.registry import register
from runner.relations import Whole
from runner.schema import PositiveInt


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
    """Return WRN-`depth`-`widen` (arXiv 1605.07146, table 1): pre-activation blocks of 16, 32 and 64 times `widen`.

    WRN-28-10 has 36.5M parameters. Dropout with `where: block` is between the convolutions, as in the paper.
    Raises ConfigError for images below 4x4.
    """
    halvings("wide_resnet", shape, 2)
    bias = isinstance(norm(16, 2), nn.Identity)
    layers: dict[str, nn.Module] = {"stem": nn.Conv2d(shape[0], 16, 3, padding=1, bias=bias)}
    cin = 16
    for i in range(3):
        cout = 16 * 2**i * widen
        convs = [basic(cin, cout, 2 if i else 1)] + [basic(cout, cout, 1)] * (depth // 6 - 1)
        layers[f"stage{i + 1}"] = nn.Sequential(*(block(each, "pre", project, activation, norm) for each in convs))
        cin = cout
    layers["final"] = pre(cin, activation, norm)
    head = nn.Linear(cin, num_classes)
    return named(**layers, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), slot=Slot("head"), head=head)
