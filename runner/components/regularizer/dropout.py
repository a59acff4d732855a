"""Dropout: units are zeroed at random in training; `p` is always the probability to drop."""

from __future__ import annotations

from typing import Literal

from torch import nn

from runner.components.regularizer.places import counted, fill_all
from runner.engine.contracts import Regularizer
from runner.registry import register
from runner.schema import HalfOpenUnit

Where = list[Literal["head", "fc", "block"]]


@register("regularizer")
def dropout(*, p: HalfOpenUnit, where: Where) -> Regularizer:
    """Return inverted dropout: what survives is divided by 1 - p in training, evaluation changes nothing.

    Srivastava et al. 2014 (JMLR 15), scaled in training as in their section 10. Raises ConfigError where the model
    lacks a place.
    """

    def rewire(model: nn.Module) -> str:
        places = fill_all("regularizer.dropout.where", model, where, lambda: nn.Dropout(p))
        return f"dropout {p:g} at {counted(places)} ({', '.join(where)})"

    return Regularizer(rewire=rewire)
