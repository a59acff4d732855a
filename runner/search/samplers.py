"""Samplers: non-adaptive ones (grid, random, qmc), and Optuna's adaptive ones (tpe, gp, cmaes)."""

from __future__ import annotations

import itertools
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError
from runner.search.exclusions import KEY, MOST_DRAWN, Exclusion, is_excluded
from runner.search.records import NON_ADAPTIVE
from runner.search.space import Axis, Point, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

# Repeated points in a row after which the space counts as exhausted
_MAX_REPEATS = 10_000
# Most whole numbers of an axis that are listed
_MOST_LISTED = 100_000


def distinct_points(space: Space, knobs: Mapping[str, Any]) -> Iterator[Point]:
    """Yield the distinct points of a non-adaptive sampler; they depend only on the space and the seed.

    So a resumed search tries the same points, with any number of workers.
    """
    points = {"grid": _shuffled_grid, "random": random_points, "qmc": _quasi_random_points}[knobs["name"]]
    seen: set[tuple[Any, ...]] = set()
    size, repeats = space.size(), 0
    for point in points(space, knobs["seed"]):
        key = tuple(space.words(point))
        repeats = repeats + 1 if key in seen else 0
        if not repeats:
            seen.add(key)
            yield point
        if len(seen) >= size or repeats > _MAX_REPEATS:
            return


def _shuffled_grid(space: Space, seed: int) -> Iterator[Point]:
    """Yield every combination in an order given by the seed, so that the first points cover the whole grid."""
    import numpy as np

    points = space.grid()
    yield from (points[index] for index in np.random.default_rng(seed).permutation(len(points)))


def random_points(space: Space, seed: int) -> Iterator[Point]:
    """Yield independent points; adding an axis does not change the values of the others."""
    import numpy as np

    axes = {axis.name: np.random.default_rng([seed, zlib.crc32(axis.name.encode())]) for axis in space.axes}
    while True:
        yield space.active_point({axis.name: axis.value_at(axes[axis.name].random()) for axis in space.axes})


def first_allowed(space: Space, exclusions: Sequence[Exclusion], seed: int = 0) -> Point:
    """Return a random point that is not left out; raises ConfigError if there is none among many."""
    for point in itertools.islice(random_points(space, seed), MOST_DRAWN):
        if not is_excluded(space, exclusions, point):
            return point
    raise ConfigError(f"{KEY}: leaves out each of {MOST_DRAWN} random points")


def _quasi_random_points(space: Space, seed: int) -> Iterator[Point]:
    """Yield a scrambled Sobol sequence over all axes, which covers the space evenly (Sobol 1967, Owen 1995)."""
    from scipy.stats.qmc import Sobol

    sequence = Sobol(len(space.axes), scramble=True, rng=seed)
    for _ in itertools.count():
        shares = sequence.random(1)[0]
        yield space.active_point(
            {axis.name: axis.value_at(share) for axis, share in zip(space.axes, shares, strict=True)}
        )


def adaptive_sampler(space: Space, knobs: Mapping[str, Any], number: int) -> BaseSampler:
    """Return Optuna's sampler for one trial, seeded by the search's seed and the trial's number.

    A single sampler would restart its random sequence in a resumed search and repeat points. The number is the trial's
    alone, also where several processes share the study. For a non-adaptive sampler, the values that an enqueued point
    leaves open are random.
    """
    import numpy as np
    import optuna

    options = {name: value for name, value in knobs.items() if name not in ("name", "seed")}
    options["seed"] = int(np.random.SeedSequence([knobs["seed"], number]).generate_state(1)[0])
    if knobs["name"] in NON_ADAPTIVE:
        return optuna.samplers.RandomSampler(seed=options["seed"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            if knobs["name"] == "tpe":
                group = space.conditional is not None
                return optuna.samplers.TPESampler(multivariate=True, group=group, **options)
            if knobs["name"] == "gp":
                return _gp_sampler(options)
            return optuna.samplers.CmaEsSampler(warn_independent_sampling=False, **options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"hydra.sweeper.sampler: {str(error).splitlines()[0]}") from error


def _gp_sampler(options: Mapping[str, Any]) -> BaseSampler:
    """Return Optuna's Gaussian process, for which long axes of whole numbers are continuous: it would list them."""
    from optuna.distributions import FloatDistribution, IntDistribution
    from optuna.samplers import GPSampler

    def is_long(axis: BaseDistribution) -> bool:
        return isinstance(axis, IntDistribution) and (axis.high - axis.low) // axis.step > _MOST_LISTED

    class _Sampler(GPSampler):
        def sample_relative(self, study: Any, trial: Any, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
            space, longs = dict(search_space), {name for name, axis in search_space.items() if is_long(axis)}
            for name in longs:
                axis: Any = search_space[name]
                space[name] = FloatDistribution(axis.low, axis.high, log=axis.log)
            found = super().sample_relative(study, trial, space)
            return found | {name: _on_axis(found[name], search_space[name]) for name in longs & found.keys()}

    return _Sampler(warn_independent_sampling=False, **options)


def _on_axis(value: float, axis: Any) -> int:
    """Return the nearest value of an axis of whole numbers."""
    steps = round((value - axis.low) / axis.step)
    return int(axis.low + axis.step * min(max(steps, 0), (axis.high - axis.low) // axis.step))


def distribution(axis: Axis) -> BaseDistribution:
    """Return Optuna's distribution of an axis."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.kind == "choice":
        return CategoricalDistribution(axis.choices)
    if axis.kind == "int":
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=None if axis.log else axis.step)
