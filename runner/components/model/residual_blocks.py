"""Residual blocks, with norm and activation after each convolution (post) or before it (pre)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from runner.components.model.layers import conv_norm, sequential
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Residual, Slot

Order = Literal["post", "pre"]
# (Cin, Cout, stride, order, norm) -> module
_Shortcut = Callable[[int, int, int, Order, NormMaker], nn.Module]


@dataclass(frozen=True)
class _ConvSpec:
    """One convolution of a residual branch."""

    cin: int
    cout: int
    kernel: int
    stride: int


def basic_convs(cin: int, cout: int, stride: int) -> list[_ConvSpec]:
    """Return the basic branch: two 3x3 convolutions."""
    return [_ConvSpec(cin, cout, 3, stride), _ConvSpec(cout, cout, 3, 1)]


def bottleneck_convs(cin: int, cout: int, stride: int) -> list[_ConvSpec]:
    """Return the bottleneck branch 1x1, 3x3, 1x1 with a quarter of the channels inside.

    The stride is in the 3x3 convolution, as in torchvision; the paper has it in the first.
    """
    inner = cout // 4
    return [_ConvSpec(cin, inner, 1, 1), _ConvSpec(inner, inner, 3, stride), _ConvSpec(inner, cout, 1, 1)]


def residual_block(
    convs: list[_ConvSpec], order: Order, shortcut: _Shortcut, activation: ActivationMaker, norm: NormMaker
) -> nn.Module:
    """Return a residual block of these convolutions, as in arXiv 1512.03385 (post) or 1603.05027 (pre)."""
    make = _post_block if order == "post" else _pre_block
    return make(convs, shortcut, activation, norm)


def _post_block(convs: list[_ConvSpec], shortcut: _Shortcut, activation: ActivationMaker, norm: NormMaker) -> nn.Module:
    """Return `activation(shortcut(x) + branch(x))`, each convolution followed by its norm."""
    layers: dict[str, nn.Module] = {}
    for i, conv in enumerate(convs, 1):
        if i > 1:
            layers[f"act{i - 1}"] = activation()
        layers[f"conv{i}"], layers[f"norm{i}"] = conv_norm(conv.cin, conv.cout, conv.kernel, norm, stride=conv.stride)
    branch = sequential(**layers, slot=Slot("residual"))
    return sequential(
        residual=Residual(branch, _shortcut_for(convs, "post", shortcut, norm), activation()), slot=Slot("block")
    )


def _pre_block(convs: list[_ConvSpec], shortcut: _Shortcut, activation: ActivationMaker, norm: NormMaker) -> nn.Module:
    """Return `shortcut(x) + branch(x)`, each convolution after a norm and an activation.

    If the shape changes, the shortcut starts after the first of them, too. The slot before the last convolution is the
    place of dropout in wide residual networks (arXiv 1605.07146, section 2.4).
    """
    first = norm_act(convs[0].cin, activation, norm)
    layers: dict[str, nn.Module] = {"conv1": _conv_without_norm(convs[0], norm)}
    for i, conv in enumerate(convs[1:], 2):
        layers |= {f"pre{i}": norm_act(conv.cin, activation, norm)}
        layers |= {"slot": Slot("block")} if i == len(convs) else {}
        layers |= {f"conv{i}": _conv_without_norm(conv, norm)}
    layers |= {"last": Slot("residual")}
    aside = _shortcut_for(convs, "pre", shortcut, norm)
    if isinstance(aside, nn.Identity):
        return Residual(sequential(pre1=first, **layers), aside, nn.Identity())
    return sequential(pre1=first, residual=Residual(sequential(**layers), aside, nn.Identity()))


def _shortcut_for(convs: list[_ConvSpec], order: Order, shortcut: _Shortcut, norm: NormMaker) -> nn.Module:
    """Return the shortcut of these convolutions: the identity if the shape stays."""
    cin, cout, stride = convs[0].cin, convs[-1].cout, max(conv.stride for conv in convs)
    return nn.Identity() if stride == 1 and cin == cout else shortcut(cin, cout, stride, order, norm)


def norm_act(channels: int, activation: ActivationMaker, norm: NormMaker) -> nn.Module:
    """Return a norm followed by an activation."""
    return sequential(norm=norm(channels, 2), act=activation())


def _conv_without_norm(conv: _ConvSpec, norm: NormMaker) -> nn.Conv2d:
    """Return the convolution alone; it has a bias if the model's norm is none."""
    return conv_norm(conv.cin, conv.cout, conv.kernel, norm, stride=conv.stride)[0]


def projection_shortcut(cin: int, cout: int, stride: int, order: Order, norm: NormMaker) -> nn.Module:
    """Return the shortcut of option B: a 1x1 convolution, in post order with its norm."""
    conv, after = conv_norm(cin, cout, 1, norm, stride=stride)
    return sequential(conv=conv, norm=after) if order == "post" else conv


def padding_shortcut(cin: int, cout: int, stride: int, order: Order, norm: NormMaker) -> nn.Module:
    """Return the shortcut of option A, which has no weights."""
    return PadShortcut(cout - cin, stride)


class PadShortcut(nn.Module):
    """Subsample by `stride` and append channels of zeros (arXiv 1512.03385, section 3.3, option A)."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C + extra, H / stride, W / stride)."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
