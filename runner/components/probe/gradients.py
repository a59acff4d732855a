"""How large the gradients are, and how they are spread."""

from __future__ import annotations

import torch

from runner.components.probe.sample import sample
from runner.engine.contracts import Probe, Watch, Watched
from runner.registry import register
from runner.schema import PositiveInt


@register("probe")
def grad_norm(*, every: PositiveInt) -> Probe:
    """Return a probe of the L2 norm of the gradient before clipping: of each parameter, and of all as `_global`."""

    def watch(watched: Watched) -> Watch:
        outcome = yield
        found = {name: p.grad for name, p in watched.parameters.items() if p.grad is not None}
        if not found:
            return {}
        norms = torch.stack(torch._foreach_norm(list(found.values())))
        whole = torch.linalg.vector_norm(norms)
        if outcome.grad_norm is not None:  # the gradients were scaled when they were clipped: scale them back
            norms = norms * torch.where(whole > 0, outcome.grad_norm / whole, 1.0)
            whole = outcome.grad_norm
        return {f"grad_norm/{name}": norm for name, norm in zip(found, norms.unbind(), strict=True)} | {
            "grad_norm/_global": whole
        }

    return Probe(every, watch)


@register("probe")
def gradients(*, every: PositiveInt, values: PositiveInt) -> Probe:
    """Return a probe of the gradient's values as the optimizer got them (clipped), at most `values` per parameter."""

    def watch(watched: Watched) -> Watch:
        yield
        found = {name: p.grad for name, p in watched.parameters.items() if p.grad is not None}
        return {f"gradients/{name}": sample(gradient, values) for name, gradient in found.items()}

    return Probe(every, watch)
