"""Residual blocks, with norm and activation after each convolution (post) or before it (pre)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from runner.components.model.layers import conv_norm, named
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Residual, Slot

Order = Literal["post", "pre"]
Shortcut = Callable[[int, int, int, Order, NormMaker], nn.Module]  # (Cin, Cout, stride, order, norm) -> module


@dataclass(frozen=True)
class Conv:
    """One convolution of a branch."""

    cin: int
    cout: int
    kernel: int
    stride: int


def basic(cin: int, cout: int, stride: int) -> list[Conv]:
    """Return the branch of two 3x3 convolutions."""
    return [Conv(cin, cout, 3, stride), Conv(cout, cout, 3, 1)]


def bottleneck(cin: int, cout: int, stride: int) -> list[Conv]:
    """Return the branch 1x1, 3x3, 1x1 with a quarter of the channels inside.

    The stride is in the 3x3 convolution, as in torchvision; the paper has it in the first.
    """
    inner = cout // 4
    return [Conv(cin, inner, 1, 1), Conv(inner, inner, 3, stride), Conv(inner, cout, 1, 1)]


def block(
    convs: list[Conv], order: Order, shortcut: Shortcut, activation: ActivationMaker, norm: NormMaker
) -> nn.Module:
    """Return a residual block with these convolutions, as in arXiv 1512.03385 (post) or 1603.05027 (pre)."""
    make = post_block if order == "post" else pre_block
    return make(convs, shortcut, activation, norm)


def post_block(convs: list[Conv], shortcut: Shortcut, activation: ActivationMaker, norm: NormMaker) -> nn.Module:
    """Return `activation(shortcut(x) + branch(x))`, each convolution followed by its norm."""
    layers: dict[str, nn.Module] = {}
    for i, conv in enumerate(convs, 1):
        if i > 1:
            layers[f"act{i - 1}"] = activation()
        layers[f"conv{i}"], layers[f"norm{i}"] = conv_norm(conv.cin, conv.cout, conv.kernel, norm, stride=conv.stride)
    branch = named(**layers, slot=Slot("residual"))
    return named(residual=Residual(branch, around(convs, "post", shortcut, norm), activation()), slot=Slot("block"))


def pre_block(convs: list[Conv], shortcut: Shortcut, activation: ActivationMaker, norm: NormMaker) -> nn.Module:
    """Return `shortcut(x) + branch(x)`, each convolution after a norm and an activation.

    Where the shape changes, the shortcut too starts after the first of them. The slot before the last convolution is
    where wide residual networks have their dropout (arXiv 1605.07146, section 2.4).
    """
    first = pre(convs[0].cin, activation, norm)
    layers: dict[str, nn.Module] = {"conv1": bare(convs[0], norm)}
    for i, conv in enumerate(convs[1:], 2):
        layers |= {f"pre{i}": pre(conv.cin, activation, norm)}
        layers |= {"slot": Slot("block")} if i == len(convs) else {}
        layers |= {f"conv{i}": bare(conv, norm)}
    layers |= {"last": Slot("residual")}
    aside = around(convs, "pre", shortcut, norm)
    if isinstance(aside, nn.Identity):
        return Residual(named(pre1=first, **layers), aside, nn.Identity())
    return named(pre1=first, residual=Residual(named(**layers), aside, nn.Identity()))


def around(convs: list[Conv], order: Order, shortcut: Shortcut, norm: NormMaker) -> nn.Module:
    """Return the shortcut round these convolutions: nothing where the shape stays."""
    cin, cout, stride = convs[0].cin, convs[-1].cout, max(conv.stride for conv in convs)
    return nn.Identity() if stride == 1 and cin == cout else shortcut(cin, cout, stride, order, norm)


def pre(channels: int, activation: ActivationMaker, norm: NormMaker) -> nn.Module:
    """Return a norm and an activation."""
    return named(norm=norm(channels, 2), act=activation())


def bare(conv: Conv, norm: NormMaker) -> nn.Conv2d:
    """Return the convolution alone; it has a bias where the model's norm is none."""
    return conv_norm(conv.cin, conv.cout, conv.kernel, norm, stride=conv.stride)[0]


def project(cin: int, cout: int, stride: int, order: Order, norm: NormMaker) -> nn.Module:
    """Return the shortcut of option B: a 1x1 convolution, in post order with its norm."""
    conv, after = conv_norm(cin, cout, 1, norm, stride=stride)
    return named(conv=conv, norm=after) if order == "post" else conv


def pad(cin: int, cout: int, stride: int, order: Order, norm: NormMaker) -> nn.Module:
    """Return the shortcut of option A: it has no weights."""
    return PadShortcut(cout - cin, stride)


class PadShortcut(nn.Module):
    """Every `stride`-th pixel, with channels of zeros appended (arXiv 1512.03385, section 3.3, option A)."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C + extra, H / stride, W / stride)."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
