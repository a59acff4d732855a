"""The trials of a sweep, composed and checked; what is the same in many is composed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner.door.axes import Space, trials
from runner.door.compose import chooses, compose_parts
from runner.door.leaves import Leaves
from runner.door.naming import hash8, name_of
from runner.door.options import Conf
from runner.door.overrides import Given
from runner.errors import ConfigError


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep: its config, checked, and the overrides that make it."""

    config: dict[str, Any]
    words: tuple[str, ...]


class Composer:
    """Makes the configs of trials, composed once for each set of choices; used with Hydra opened."""

    def __init__(self, conf: Conf, hydra: Sequence[Given] = ()) -> None:
        self._conf, self._hydra = conf, list(hydra)
        self._composed: dict[tuple[str, ...], Leaves] = {}

    def trial(self, given: Sequence[Given]) -> Trial:
        """Return the trial that overrides make, checked; raises ConfigError if it is wrong."""
        choices = [each for each in given if chooses(self._conf, each)]
        words = tuple(each.word for each in choices)
        if words not in self._composed:
            self._composed[words] = Leaves(self._conf, compose_parts(self._conf, [*self._hydra, *choices]))
        return Trial(self._composed[words].config(given), tuple(each.word for each in given))


def check_trials(conf: Conf, space: Space) -> dict[str, Trial]:
    """Return the trials by the names of their folders, checked."""
    composer = Composer(conf, [each for each in space.given if each.of_hydra])
    found: dict[str, Trial] = {}
    swept = set(space.swept)
    for given in trials(space):
        trial = composer.trial(given)
        name = trial_name([(each.key, each.value) for each in given if each.key in swept or not swept], trial.config)
        if name in found and space.basic:
            raise ConfigError(f"{name.rpartition('-')[0]}: two trials of this sweep are the same")
        found[name] = trial
    return found


def trial_name(given: Sequence[tuple[str, Any]], config: dict[str, Any]) -> str:
    """Return the folder name of a trial below its sweep: what differs, and the hash of its config."""
    return f"{name_of(given)}-{hash8(config)}"
