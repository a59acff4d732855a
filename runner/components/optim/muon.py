"""Muon: orthogonalized momentum for hidden matrices, and AdamW or SGD for everything else, in one optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from runner.components.optim.adaptive import Betas, pair
from runner.components.optim.foreach import adam_direction, decay, gather
from runner.components.optim.groups import Groups
from runner.registry import register
from runner.schema import HalfOpenUnit, Positive, PositiveInt

# Jordan et al. 2024: steepest at zero, so that few iterations are enough
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)

# Norm that a matrix of zeros is divided by
_SMALLEST = 1e-12


class Muon(Optimizer):
    """Groups with `orthogonal` take Muon's step, the others AdamW's; `torch.optim.Muon` reaches 2-D tensors only."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step from the gradients."""
        for group in self.param_groups:
            tensors, directions = _orthogonal(self, group) if group["orthogonal"] else adam_direction(self, group)
            if tensors:
                decay(tensors, group)
                torch._foreach_add_(tensors, directions, alpha=-group["lr"])


def _orthogonal(optimizer: Optimizer, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors of a group and the direction of each: its Nesterov momentum, orthogonalized and scaled.

    A kernel (out, in, h, w) counts as the matrix (out, in * h * w). The scale 0.2 * sqrt(max(rows, columns)) gives the
    step the root mean square of AdamW's, so that both share a learning rate (arXiv 2502.16982, section 2.2).
    """
    tensors, gradients, (momenta,) = gather(optimizer, group, momentum_buffer=torch.zeros_like)
    if not tensors:
        return [], []
    torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
    ahead = list(torch._foreach_lerp(gradients, momenta, group["momentum"]))
    directions = orthogonalized(ahead, group["ns_steps"])
    torch._foreach_mul_(directions, [0.2 * max(len(p), p[0].numel()) ** 0.5 for p in tensors])
    return tensors, directions


def orthogonalized(matrices: list[Tensor], steps: int) -> list[Tensor]:
    """Return matrices, or kernels (out, in, h, w) as matrices (out, in * h * w), with singular values near 1.

    Those of one shape are iterated together. Kernels in channels_last are taken, and given back, in the order of
    memory: the columns come in another order, which changes nothing else.
    """
    found = list(matrices)
    for shape in sorted({p.shape for p in matrices}):
        alike = [i for i, p in enumerate(matrices) if p.shape == shape]
        first = matrices[alike[0]]
        last = len(shape) == 4 and not first.is_contiguous() and first.stride(1) == 1
        ordered = [matrices[i].permute(0, 2, 3, 1) if last else matrices[i] for i in alike]
        stacked = torch.stack([p.flatten(1) for p in ordered])
        for i, update in zip(alike, _newton_schulz(stacked, steps), strict=True):
            laid = update.view(ordered[0].shape)
            found[i] = laid.permute(0, 3, 1, 2) if last else laid
    return found


def _newton_schulz(matrices: Tensor, steps: int) -> Tensor:
    """Return matrices (n, rows, columns) with their singular values brought near 1 (between about 0.7 and 1.2).

    On CUDA in bfloat16, which the iteration bears; elsewhere in the precision given.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else matrices.dtype)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return torch.empty_like(matrices).copy_(x.mT if tall else x)


def _hidden(model: nn.Module) -> set[nn.Parameter]:
    """Return the weights of linear, convolution and attention layers without the last layer's, which is the output.

    The first layer is among them. Embeddings, positions, class tokens, biases and norms are not.
    """
    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)
    layers = [m for m in model.modules() if isinstance(m, kinds)]
    matrices = [p for m in layers for p in m.parameters(recurse=False) if p.ndim >= 2]
    return set(matrices) - set(layers[-1].parameters() if layers else ())


@register("optim")
def muon(groups: Groups, *, momentum: HalfOpenUnit, ns_steps: PositiveInt, betas: Betas, eps: Positive) -> Optimizer:
    """Return Muon for the hidden matrices and kernels, AdamW for the rest (Jordan et al. 2024), at one learning rate.

    `momentum` and `ns_steps` (iterations of Newton-Schulz) are Muon's, `betas` and `eps` AdamW's. Groups are named
    `muon ...` and `adamw ...`; weight decay is decoupled in both.
    """
    parts = groups.split(_hidden(groups.model), ("muon", "adamw"))
    shared = {"lr": groups.lr, "momentum": momentum, "ns_steps": ns_steps, "betas": pair(betas), "eps": eps}
    return Muon(parts, {**shared, "weight_decay": groups.weight_decay})


class MuonSGD(Optimizer):
    """Groups with `orthogonal` take Muon's step, the others that of SGD with Nesterov's momentum.

    Both keep a velocity `v <- momentum * v + g` and look ahead to `g + momentum * v`.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step from the gradients."""
        for group in self.param_groups:
            tensors, gradients, (velocities,) = gather(self, group, momentum_buffer=torch.zeros_like)
            if not tensors:
                continue
            if group["orthogonal"]:
                ahead = _look_ahead(gradients, velocities, group["momentum"])
                if group["fixed_norm"]:
                    _rescale(tensors)
                else:
                    decay(tensors, group)
                directions = orthogonalized(ahead, group["ns_steps"])
            else:
                if group["weight_decay"]:
                    gradients = list(torch._foreach_add(gradients, tensors, alpha=group["weight_decay"]))
                directions = _look_ahead(gradients, velocities, group["momentum"])
            torch._foreach_add_(tensors, directions, alpha=-group["lr"])


def _look_ahead(gradients: list[Tensor], velocities: list[Tensor], momentum: float) -> list[Tensor]:
    """Move the velocities on and return where Nesterov's momentum takes the gradients."""
    torch._foreach_mul_(velocities, momentum)
    torch._foreach_add_(velocities, gradients)
    return list(torch._foreach_add(gradients, velocities, alpha=momentum))


def _rescale(tensors: list[Tensor]) -> None:
    """Bring each matrix to the norm of one with orthonormal rows, sqrt(rows); one of zeros stays."""
    factors = torch._foreach_norm(tensors)
    torch._foreach_clamp_min_(factors, _SMALLEST)
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, [len(p) ** 0.5 for p in tensors])
    torch._foreach_mul_(tensors, factors)


@register("optim")
def muon_sgd(
    groups: Groups,
    *,
    momentum: HalfOpenUnit,
    ns_steps: PositiveInt,
    fixed_norm: bool,
    sgd_lr: Positive,
    sgd_momentum: HalfOpenUnit,
) -> Optimizer:
    """Return Muon for hidden matrices and kernels, Nesterov's SGD for the rest (Jordan et al. 2024, for CIFAR-10).

    Muon's update has singular values near 1, times `lr`, whatever the gradient's size. With `fixed_norm` each matrix
    is brought to the norm sqrt(rows) before the step: `lr` is then about the share of it that a step replaces, and
    weight decay would do nothing to it. Without, it is decoupled there. For SGD it is L2, as in `nesterov`.
    """
    parts = groups.split(_hidden(groups.model), ("muon", "sgd"), lr=sgd_lr)
    for part in parts:
        part["momentum"] = momentum if part["orthogonal"] else sgd_momentum
    return MuonSGD(parts, {"lr": groups.lr, "ns_steps": ns_steps, "fixed_norm": fixed_norm})
