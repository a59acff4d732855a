"""How large the gradients are, and how they are spread."""

from __future__ import annotations

import math
from functools import partial

from runner.components.probe.norms import WHOLE, named, norms
from runner.components.probe.sample import sample
from runner.engine.contracts import Numbers, Probe, Watch, Watched
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
        measured, before = norms(list(found.values())), outcome.grad_norm
        whole = [] if before is None else [before.detach()]
        return {"grad_norm": Numbers([*measured, *whole], partial(unclipped, tuple(found)))}

    return Probe(every, watch)


def unclipped(names: tuple[str, ...], numbers: list[float]) -> dict[str, float]:
    """Return by tag the norms before clipping; where it computed that of all together, it comes last in `numbers`.

    The gradients were scaled when they were clipped: they are scaled back.
    """
    clipped, before = numbers[: len(names)], numbers[len(names) :]
    whole = math.hypot(*clipped)
    scale = before[0] / whole if before and whole > 0 else 1.0
    said = named("grad_norm", names, [norm * scale for norm in clipped])
    return said | {f"grad_norm/{WHOLE}": norm for norm in before}


@register("probe")
def gradients(*, every: PositiveInt, values: PositiveInt) -> Probe:
    """Return a probe of the gradient's values as the optimizer got them (clipped), at most `values` per parameter."""

    def watch(watched: Watched) -> Watch:
        yield
        found = {name: p.grad for name, p in watched.parameters.items() if p.grad is not None}
        return {f"gradients/{name}": sample(gradient, values) for name, gradient in found.items()}

    return Probe(every, watch)
