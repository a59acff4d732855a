"""What the layers give, seen from inside the step."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor, nn

from runner.engine.activations import listening, places, statistics
from runner.engine.contracts import Probe, Watch, Watched
from runner.registry import register
from runner.schema import PositiveInt


@register("probe")
def activations(*, every: PositiveInt) -> Probe:
    """Return a probe of the outputs of each activation, in order of execution, in the step's first forward pass.

    `mean` and `std` are over all outputs. `dead` is the share of units (channels) that gave one value for the whole
    batch: for ReLU those that never fired. `saturated` is the share of outputs at the flat ends of the function, where
    it has ends: tanh beyond 0.99, sigmoid below 0.01 or above 0.99, ReLU at zero.
    """
    known = lru_cache(maxsize=1)(places)  # a run has one model

    def watch(watched: Watched) -> Watch:
        heard: dict[str, Tensor] = {}

        def hear(place: str, module: nn.Module, output: Tensor) -> None:
            heard.update({f"activations/{place}/{what}": x for what, x in statistics(module, output).items()})

        with listening(watched.model, known(watched.model), hear):
            yield
        return heard

    return Probe(every, watch)
