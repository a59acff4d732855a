"""The job of a task, and the two functions that a task can get by parameter name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from runner.engine.saving.folder import Result
from runner.engine.world import ALONE, World

# A checked config as plain dicts
Config = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a task: the checked config as plain dicts, and the folder of the run."""

    config: Config
    overrides: tuple[str, ...]  # as given on the command line
    folder_name: str  # below `outputs`; gets a number if it exists
    folder: str | None = None  # exactly this folder instead (a trial of a sweep, or hydra.run.dir)
    hash8: str = ""  # names the configuration, seed included
    group_hash: str = ""  # names the configuration without its seed
    notes: bool = True  # its task writes it into the notebook; a sweep writes all its trials itself, at its end
    search: dict[str, Any] | None = None  # the trial of a search that it reports its scores to
    world: World = ALONE  # the processes that run it together
    folders: tuple[Path, ...] = ()  # the config folders that task=list and `vary` read, runner's first
    given: frozenset[str] = frozenset()  # of the keys that may be `auto`, those that are not
    recipe: str | None = None  # the option of the group `recipe`; its values are not the user's
    allow_unused: bool = False  # settings that do nothing are accepted: they are those of an earlier command
    is_trial: bool = False  # of a sweep or of a task that launches runs: `folder` is the only place for its result
    resumed: bool = False  # `folder` holds this very run, which `resume=` continues
    opened: list[Path] = field(default_factory=list, compare=False)  # gets the folder of each run that its task opens


class Vary(Protocol):
    """Make variants of a config: a task asks for the parameter `vary`."""

    def __call__(self, config: Config, overrides: Sequence[str] | Mapping[str, Any]) -> Config:
        """Return a config with some overrides applied, checked as the command line is.

        Args:
            config: A checked config; it stays as it is.
            overrides: Words as on the command line (`["init=normal", "init.std=0.1"]`), or keys with plain values
                (`{"init": "normal", "init.std": 0.1}`). An option of a group starts from the values in its YAML;
                knobs are set after options, whatever their order. Recipes, interpolations and sweeps are not supported.

        Raises:
            ConfigError: In one line, for an unknown key or option, or a wrong value.

        """


@dataclass(kw_only=True)
class LaunchedRun(Result):
    """The result of a run that `launch` made, with the folder that holds it."""

    folder: Path


class Launch(Protocol):
    """Run variants as ordinary runs: a task asks for the parameter `launch`."""

    def __call__(self, variants: Sequence[Config], folder: Path) -> list[LaunchedRun]:
        """Run checked configs below a folder and return how and where each ended, in the given order.

        Each run has a folder of its own, named by what differs between the variants and by the hash of its config, so
        that a later call with the same configs runs only those without a result. Equal configs are run once. `auto`
        in `test` and `figures` means never, as in a sweep.

        The runs use the launcher of sweeps: `hydra.launcher.*` says how many run at once, in processes of their own.
        A single run, and all runs inside a trial of a sweep, are run in this process instead.

        Raises:
            TrialsFailed: If a run failed. Runs that diverged are results.
            Interrupted: If a signal ended the runs, which saved themselves first.

        """
