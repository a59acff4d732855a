"""Hydra's config of a sweep: the launcher that a command line chooses, and the words of its runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from runner import user_paths
from runner.door.compose import choice_words, hydra_opened, picks_option, quote, to_plain
from runner.door.folders import SUBDIR, SWEEP
from runner.door.options import Conf
from runner.door.overrides import ParsedOverride, parse_override
from runner.tasks.job import Job


class _NoCallbacks:
    """The callbacks of Hydra for a sweep without any: a launcher calls `on_job_start`, for example.

    Hydra's class is in a private module. Launchers only call its methods, which all begin with `on_`.
    """

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return _ignore


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def words_of(conf: Conf, job: Job) -> list[str]:
    """Return the overrides with which Hydra composes a run.

    Values are set by `++`, which also adds a key to an open mapping. A choice of `null` is left out.
    """
    found = []
    for each in map(parse_override, job.overrides):
        if not picks_option(conf, each):
            found.append(f"++{each.word}")
        elif each.value is not None:
            found.append(each.word)
    return found


@contextmanager
def opened_launcher(
    conf: Conf, given: Sequence[ParsedOverride], folder: Path, task: Callable[[DictConfig], object]
) -> Iterator[Launcher]:
    """Yield the launcher that a command line chooses, instantiated by Hydra."""
    with hydra_opened(conf):
        config = _sweep_config(conf, given, folder)
        callbacks: Any = _NoCallbacks()
        context = HydraContext(GlobalHydra.instance().config_loader(), callbacks)
        yield Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)


def _sweep_config(conf: Conf, given: Sequence[ParsedOverride], folder: Path) -> DictConfig:
    """Return Hydra's config of a sweep, from the choices and the values under `hydra`."""
    # Some launchers store the config, and the storage of a study may have a password
    left_out = (SWEEP, SUBDIR, "hydra.mode", "hydra.sweeper.storage")
    fixed = [each for each in given if not each.swept and each.key not in left_out]
    words = [*choice_words(conf, fixed), f"hydra.sweep.dir={quote(user_paths.full(folder))}"]
    global_hydra = GlobalHydra.instance().hydra
    assert global_hydra is not None
    return global_hydra.compose_config(conf.primary, words, RunMode.MULTIRUN, with_log_configuration=False)


def launcher_values(conf: Conf, given: Sequence[ParsedOverride], folder: Path) -> dict[str, Any]:
    """Return the settings of the chosen launcher of Hydra."""
    with hydra_opened(conf):
        values: dict[str, Any] = to_plain(_sweep_config(conf, given, folder).hydra.launcher)
        return values
