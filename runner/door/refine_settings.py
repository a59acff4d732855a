"""The settings of a refining search, `hydra/sweeper=refine`, and the widest ranges of its axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_type_hints

from runner.door.search_settings import SearchSettings
from runner.errors import ConfigError, unknown
from runner.schema import FolderName, NonNegativeInt, PositiveInt, Range, Unit, check
from runner.search.refine import round_cost
from runner.search.space import Axis, Space

# Factors by which a logarithmic end may move outwards, the largest first
_FACTORS = (100.0, 10.0)
# Keys that other modules check
_OTHERS = ("stop", "initial", "exclude", "params", "scientific")


@dataclass(frozen=True, kw_only=True)
class RefineKnobs:
    """The checked settings; conf/hydra/sweeper/refine.yaml holds the defaults."""

    n_trials: PositiveInt
    points: Annotated[int, Range(3)]
    seeds: PositiveInt
    confirm_seeds: NonNegativeInt
    extend: bool
    sampler_seed: NonNegativeInt
    n_jobs: PositiveInt | None
    direction: Literal["maximize", "minimize"] | None
    study_name: FolderName | None
    max_failure_rate: Unit

    @property
    def as_parts(self) -> tuple[SearchSettings, dict[str, Any], dict[str, Any]]:
        """The settings that every search has, and in place of those of a sampler what decides on the points.

        They are part of the study's name. There is no pruner.
        """
        names = ("points", "seeds", "confirm_seeds", "extend")
        sampler = {"name": "refine", "seed": self.sampler_seed, **{name: getattr(self, name) for name in names}}
        search = SearchSettings(
            n_trials=self.n_trials,
            seeds=1,
            n_jobs=self.n_jobs,
            direction=self.direction,
            storage=None,
            study_name=self.study_name,
            max_failure_rate=self.max_failure_rate,
        )
        return search, sampler, {"name": "none"}


def check_refine_knobs(values: Mapping[str, Any]) -> RefineKnobs:
    """Return the checked settings of the sweeper."""
    kinds = get_type_hints(RefineKnobs, include_extras=True)
    for name in values:
        if name not in (*kinds, *_OTHERS):
            raise unknown(f"hydra.sweeper.{name}", "key", str(name), [*kinds, *_OTHERS])
    named = [each.name for each in fields(RefineKnobs)]
    knobs = RefineKnobs(**{name: check(f"hydra.sweeper.{name}", values[name], kinds[name]) for name in named})
    least = round_cost(knobs.points, knobs.seeds) + 2 * knobs.confirm_seeds
    if knobs.n_trials < least:
        raise ConfigError(
            f"hydra.sweeper.n_trials: got {knobs.n_trials}, must be at least {least}: a round of {knobs.points} points "
            f"with more seeds for the best, and {knobs.confirm_seeds} fresh seeds each of the winner and the incumbent"
        )
    return knobs


def check_refines(space: Space) -> None:
    """Raise ConfigError if there is nothing to refine."""
    if not any(axis.kind != "choice" for axis in space.axes):
        key = space.axes[0].key
        raise ConfigError(
            f"hydra/sweeper: refine narrows ranges of numbers, and {key} has choices only; "
            "add a range (optim.lr=tag(log,interval(1e-3,1))) or leave the sweeper out for a grid"
        )
    if any(axis.key == "seed" for axis in space.axes):
        raise ConfigError("seed: is searched, but refine gives the seeds itself (hydra.sweeper.seeds)")


def widest(space: Space, accepts: Callable[[Axis, str], bool]) -> Space:
    """Return a space with the widest ranges that the rounds may reach.

    Args:
        space: The given ranges.
        accepts: Returns True if a value, as text, of an axis makes a valid config.
    """
    return Space(tuple(_wider(axis, accepts) for axis in space.axes))


def _wider(axis: Axis, accepts: Callable[[Axis, str], bool]) -> Axis:
    """Return an axis with the farthest ends that are accepted: two decades out, or one width of a linear range."""
    if axis.kind == "choice" or axis.step is not None or axis.high <= axis.low:
        return axis
    width = axis.high - axis.low
    lows = [axis.low / factor for factor in _FACTORS] if axis.log else [axis.low - width, axis.low - width / 2]
    highs = [axis.high * factor for factor in _FACTORS] if axis.log else [axis.high + width, axis.high + width / 2]
    return replace(axis, low=_farthest(axis, lows, axis.low, accepts), high=_farthest(axis, highs, axis.high, accepts))


def _farthest(axis: Axis, ends: Sequence[float], given: float, accepts: Callable[[Axis, str], bool]) -> float:
    """Return the first end that is accepted, the given one if none is."""
    for end in ends:
        value = float(f"{end:.6g}")
        if axis.kind == "int":
            value = float(round(value))
            if value < 1:
                continue
        if accepts(axis, axis.text(int(value) if axis.kind == "int" else value)):
            return value
    return given
