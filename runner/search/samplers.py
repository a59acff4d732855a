"""Where the next point comes from: drawn by number (grid, random, qmc), or by what is known so far (tpe, gp, cmaes)."""

from __future__ import annotations

import itertools
import warnings
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError
from runner.search.space import Axis, Point, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

NON_ADAPTIVE = ("grid", "random", "qmc")
# Repeated points in a row after which the space counts as exhausted
_MAX_REPEATS = 10_000


def distinct_points(space: Space, knobs: Mapping[str, Any]) -> Iterator[Point]:
    """Yield the points of a sampler that looks at no result, each once: the same for the same space and seed.

    So a search that was killed goes on with the very points that it would have had, however many ran at once.
    """
    points = {"grid": _shuffled_grid, "random": random_points, "qmc": _quasi_random_points}[knobs["name"]]
    seen: set[tuple[Any, ...]] = set()
    size, misses = space.size(), 0
    for point in points(space, knobs["seed"]):
        key = tuple(space.words(point))
        misses = misses + 1 if key in seen else 0
        if not misses:
            seen.add(key)
            yield point
        if len(seen) >= size or misses > _MAX_REPEATS:
            return


def _shuffled_grid(space: Space, seed: int) -> Iterator[Point]:
    """Yield every combination, in an order that the seed gives: a part of a grid is then spread over all of it."""
    import numpy as np

    points = space.grid()
    yield from (points[index] for index in np.random.default_rng(seed).permutation(len(points)))


def random_points(space: Space, seed: int) -> Iterator[Point]:
    """Yield independent points; an axis that is added later leaves the values of the others as they were."""
    import numpy as np

    axes = {axis.name: np.random.default_rng([seed, zlib.crc32(axis.name.encode())]) for axis in space.axes}
    while True:
        yield space.active_point({axis.name: axis.value_at(axes[axis.name].random()) for axis in space.axes})


def _quasi_random_points(space: Space, seed: int) -> Iterator[Point]:
    """Yield a scrambled Sobol sequence, which leaves no gaps (Sobol 1967, Owen 1995); conditions take no part in it."""
    from scipy.stats.qmc import Sobol

    sequence = Sobol(len(space.axes), scramble=True, rng=seed)
    for _ in itertools.count():
        shares = sequence.random(1)[0]
        yield space.active_point(
            {axis.name: axis.value_at(share) for axis, share in zip(space.axes, shares, strict=True)}
        )


def adaptive_sampler(space: Space, knobs: Mapping[str, Any], number: int) -> BaseSampler:
    """Return Optuna's sampler for one trial. Its seed is a function of the search's and of the trial's number.

    A sampler made once would begin its sequence again in a search that goes on, and repeat points.
    """
    import numpy as np
    import optuna

    options = {name: value for name, value in knobs.items() if name not in ("name", "seed")}
    options["seed"] = int(np.random.SeedSequence([knobs["seed"], number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            if knobs["name"] == "tpe":
                group = space.conditional is not None
                return optuna.samplers.TPESampler(multivariate=True, group=group, **options)
            if knobs["name"] == "gp":
                return optuna.samplers.GPSampler(warn_independent_sampling=False, **options)
            return optuna.samplers.CmaEsSampler(warn_independent_sampling=False, **options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"hydra.sweeper.sampler: {str(error).splitlines()[0]}") from error


def distribution(axis: Axis) -> BaseDistribution:
    """Return an axis as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.kind == "choice":
        return CategoricalDistribution(axis.choices)
    if axis.kind == "int":
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=None if axis.log else axis.step)
