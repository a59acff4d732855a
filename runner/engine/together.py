"""The strategy of processes that train one model together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A way in which processes train one model together.

    Attributes:
        sync_norms: BatchNorms have the statistics of the whole batch; else of the share of each process.
        exact_draws: Layers draw random numbers for the whole batch; else each process draws its own.
    """

    sync_norms: bool
    exact_draws: bool
