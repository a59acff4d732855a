"""Vision transformers of Dosovitskiy et al., small enough for small images."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from runner.components.model.layers import sequential
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Residual, Slot
from runner.errors import ConfigError
from runner.registry import register
from runner.relations import Divides
from runner.schema import Positive, PositiveInt, Range


@register("model")
def vit(
    shape: tuple[int, int, int],
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    attention_scale: float | None,
    *,
    patch: PositiveInt,
    dim: PositiveInt,
    depth: PositiveInt,
    heads: Annotated[int, Range(1), Divides("dim")],
    expansion: Positive,
) -> nn.Module:
    """Build a vision transformer (arXiv 2010.11929) with a class token, learned positions and pre-norm blocks.

    The paper has activation=gelu and norm=layer, which acts on the channels of every token. ViT-S/16 has dim 384, depth
    12, heads 6 (22.05M parameters for 224x224 and 1,000 classes), ViT-B/16 dim 768, heads 12 (86.6M). Attention
    multiplies its scores by `attention_scale`; None is 1 / sqrt(features of a head).

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: `patch` does not divide both sides of the image.
    """
    if shape[1] % patch or shape[2] % patch:
        raise ConfigError(f"model.patch: got {patch}, must divide both sides of images of {shape[1]}x{shape[2]}")
    hidden = round(expansion * dim)
    blocks = {
        f"block{i + 1}": _encoder_block(Attention(dim, heads, attention_scale), dim, hidden, activation, norm)
        for i in range(depth)
    }
    return sequential(
        embed=Embedding(shape, patch, dim),
        **blocks,
        norm=TokenNorm(norm(dim, 0)),
        token=ClassToken(),
        slot=Slot("head"),
        head=nn.Linear(dim, num_classes),
    )


def _encoder_block(
    attend: Attention, dim: int, hidden: int, activation: ActivationMaker, norm: NormMaker
) -> nn.Sequential:
    """Return an encoder block (B, N, dim): attention, then an MLP, each a residual branch behind a norm."""
    attention = sequential(norm=TokenNorm(norm(dim, 0)), attend=attend, slot=Slot("residual"))
    perceptron = sequential(
        norm=TokenNorm(norm(dim, 0)),
        fc1=nn.Linear(dim, hidden),
        act=activation(),
        drop=Slot("fc"),
        fc2=nn.Linear(hidden, dim),
        slot=Slot("residual"),
    )
    return sequential(
        attention=Residual(attention, nn.Identity(), nn.Identity()),
        mlp=Residual(perceptron, nn.Identity(), nn.Identity()),
    )


class Embedding(nn.Module):
    """Embed patches as tokens (B, 1 + N, dim) after a class token, and add learned positions."""

    def __init__(self, shape: tuple[int, int, int], patch: int, dim: int) -> None:
        super().__init__()
        count = (shape[1] // patch) * (shape[2] // patch)
        self.patches = nn.Conv2d(shape[0], dim, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + count, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens of images (B, C, H, W)."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        # len(x) would make the number of images a constant of an exported graph
        return torch.cat([self.token.expand(x.shape[0], -1, -1), patches], dim=1) + self.positions


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, dim)."""

    def __init__(self, dim: int, heads: int, scale: float | None = None) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended tokens (B, N, dim)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        gathered: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return gathered


class TokenNorm(nn.Module):
    """A norm of features (B, C), applied to every token of (B, N, C)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized tokens (B, N, C)."""
        out: Tensor = self.norm(x.flatten(0, 1)).view_as(x)
        return out


class ClassToken(nn.Module):
    """Select the class token: (B, N, C) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the class token."""
        return x[:, 0]
