"""Muon: orthogonalized momentum for hidden matrices, and AdamW or SGD for the other parameters, in one optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from runner.components.optim.adaptive import Betas, pair
from runner.components.optim.foreach import adam_direction, decay, gather
from runner.components.optim.groups import Groups
from runner.engine.parts import CONVOLUTIONS
from runner.engine.weights import classifiers, layer_weights
from runner.registry import register
from runner.schema import HalfOpenUnit, Positive, PositiveInt

# Jordan et al. 2024: the polynomial a x + b x^3 + c x^5 is steep at zero, so that few iterations are enough
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)

# Smallest norm to divide by, for a matrix of zeros
_SMALLEST = 1e-12


class Muon(Optimizer):
    """Muon for the groups with `orthogonal`, AdamW for the others; `torch.optim.Muon` supports only 2-D tensors."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step from the gradients."""
        for group in self.param_groups:
            tensors, directions = _orthogonal(self, group) if group["orthogonal"] else adam_direction(self, group)
            if tensors:
                decay(tensors, group)
                torch._foreach_add_(tensors, directions, alpha=-group["lr"])


def _orthogonal(optimizer: Optimizer, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors of a group and the direction of each: its Nesterov momentum, orthogonalized and scaled."""
    tensors, gradients, (momenta,) = gather(optimizer, group, momentum_buffer=torch.zeros_like)
    if not tensors:
        return [], []
    torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
    nesterov = list(torch._foreach_lerp(gradients, momenta, group["momentum"]))
    directions = orthogonalized(nesterov, group["ns_steps"])
    torch._foreach_mul_(directions, [0.2 * max(len(p), p[0].numel()) ** 0.5 for p in tensors])
    return tensors, directions


def orthogonalized(matrices: list[Tensor], steps: int) -> list[Tensor]:
    """Return matrices, or kernels (out, in, h, w) as matrices (out, in * h * w), with singular values near 1.

    Matrices of one shape are stacked. Kernels in channels_last are flattened in memory order, which permutes columns:
    that changes neither the result nor its layout.
    """
    results = list(matrices)
    for shape in sorted({p.shape for p in matrices}):
        indices = [i for i, p in enumerate(matrices) if p.shape == shape]
        first = matrices[indices[0]]
        channels_last = len(shape) == 4 and not first.is_contiguous() and first.stride(1) == 1
        ordered = [matrices[i].permute(0, 2, 3, 1) if channels_last else matrices[i] for i in indices]
        stacked = torch.stack([p.flatten(1) for p in ordered])
        for i, update in zip(indices, _newton_schulz(stacked, steps), strict=True):
            shaped = update.view(ordered[0].shape)
            results[i] = shaped.permute(0, 3, 1, 2) if channels_last else shaped
    return results


def _newton_schulz(matrices: Tensor, steps: int) -> Tensor:
    """Return matrices (n, rows, columns) with their singular values brought near 1 by Newton-Schulz iterations.

    Relative to the matrix's Frobenius norm, singular values of 0.002 or more end between 0.68 and 1.21 after five
    iterations, those of 0.02 or more after three. An iteration multiplies smaller ones by up to 3.44. The computation
    is in bfloat16 on CUDA, whose error the iteration tolerates, and in the given precision elsewhere.
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
    """Return the weights of linear, convolution and attention layers, except those of the last layer, the classifier.

    The first layer is included. Embeddings, parametrized weights, and what is no weight of a layer are not.
    """
    kinds = (nn.Linear, *CONVOLUTIONS, nn.MultiheadAttention)
    matrices = [w.parameters[0] for w in layer_weights(model) if w.is_plain and isinstance(w.module, kinds)]
    last = {parameter for weight in classifiers(model) for parameter in weight.parameters}
    return set(matrices) - last


@register("optim")
def muon(groups: Groups, *, momentum: HalfOpenUnit, ns_steps: PositiveInt, betas: Betas, eps: Positive) -> Optimizer:
    """Return Muon for hidden matrices and kernels, AdamW for the other parameters, at one learning rate.

    Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): `m <- momentum * m + (1 - momentum) * g;
    u = momentum * m + (1 - momentum) * g; w <- w - lr * (0.2 * sqrt(max(rows, columns)) * orth(u) + weight_decay * w)`.
    `orth(u)` brings the singular values between 0.68 and 1.21 in `ns_steps` Newton-Schulz iterations; with five, those
    below 0.002 of the Frobenius norm stay smaller, with three those below 0.02. A kernel (out, in, h, w) is the
    matrix (out, in * h * w). The scale gives the step the root mean square of AdamW's, so that both share `lr` (arXiv
    2502.16982, section 2.2). `betas` and `eps` are AdamW's. The classifier, embeddings, parametrized weights (weight
    norm), and biases, norms, positions and tokens have AdamW. Groups are named `muon ...` and `adamw ...`; both have
    decoupled weight decay.
    """
    parts = groups.split(_hidden(groups.model), ("muon", "adamw"))
    shared = {"lr": groups.lr, "momentum": momentum, "ns_steps": ns_steps, "betas": pair(betas), "eps": eps}
    return Muon(parts, {**shared, "weight_decay": groups.weight_decay})


class MuonSGD(Optimizer):
    """Muon for the groups with `orthogonal`, SGD with Nesterov momentum for the others; see `muon_sgd`."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step from the gradients."""
        for group in self.param_groups:
            tensors, gradients, (velocities,) = gather(self, group, momentum_buffer=torch.zeros_like)
            if not tensors:
                continue
            if group["orthogonal"]:
                nesterov = _nesterov(gradients, velocities, group["momentum"])
                if group["fixed_norm"]:
                    _rescale(tensors)
                else:
                    decay(tensors, group)
                directions = orthogonalized(nesterov, group["ns_steps"])
            else:
                if group["weight_decay"]:
                    gradients = list(torch._foreach_add(gradients, tensors, alpha=group["weight_decay"]))
                directions = _nesterov(gradients, velocities, group["momentum"])
            torch._foreach_add_(tensors, directions, alpha=-group["lr"])


def _nesterov(gradients: list[Tensor], velocities: list[Tensor], momentum: float) -> list[Tensor]:
    """Update `v <- momentum * v + g` and return Nesterov's direction `g + momentum * v`."""
    torch._foreach_mul_(velocities, momentum)
    torch._foreach_add_(velocities, gradients)
    return list(torch._foreach_add(gradients, velocities, alpha=momentum))


def _rescale(tensors: list[Tensor]) -> None:
    """Scale each matrix to the Frobenius norm sqrt(rows), that of orthonormal rows; zeros stay zeros."""
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
    """Return Muon for hidden matrices and kernels, SGD with Nesterov momentum for the other parameters.

    The optimizer of the CIFAR-10 speed runs (Jordan et al. 2024). Both: `v <- momentum * v + g; u = g + momentum * v`.
    Muon: `w <- w - lr * orth(u)`, where `orth(u)` has singular values near 1 (see `muon`), whatever the size of the
    gradient. SGD: `w <- w - sgd_lr * u`. With `fixed_norm` each matrix is scaled to the Frobenius norm sqrt(rows)
    before its step: `lr` is then about the relative change per step, and matrices have no weight decay. Without it,
    their weight decay is decoupled. For SGD weight decay is L2, as in `nesterov`.
    """
    parts = groups.split(_hidden(groups.model), ("muon", "sgd"), lr=sgd_lr)
    for part in parts:
        part["momentum"] = momentum if part["orthogonal"] else sgd_momentum
    return MuonSGD(parts, {"lr": groups.lr, "ns_steps": ns_steps, "fixed_norm": fixed_norm})
