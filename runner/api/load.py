"""`runner.load`: the model of a run folder, ready to predict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from runner.api.calls import checked, words_of
from runner.api.session import call
from runner.door.compose import quote
from runner.errors import ConfigError
from runner.tasks.plugins import load_plugins
from runner.user_folders import set_library_folders

if TYPE_CHECKING:
    from runner.tasks.trained.trained import Trained

# Keys that a caller may override
_MAY_SET = ("predict", "resume_numerics")


def load(
    run: str | os.PathLike[str],
    *,
    plugins: Sequence[str | ModuleType] = (),
    device: str = "auto",
    overrides: Sequence[str] = (),
) -> Trained:
    """Return the model of a run folder, ready to predict; its data are not needed.

    A run in progress gives its newest checkpoint. Nothing is written, and no code in the folder is imported.

    Args:
        run: The run folder, such as `outputs/default`.
        plugins: The modules with your own components that the run uses, or their names.
        device: auto, cpu, cuda, cuda:<number> or mps.
        overrides: Another prediction method, as on the command line: `["predict=tta", "predict.views=[flip]"]`.

    Raises:
        ConfigError, CheckpointError: The folder holds no finished run and no checkpoint, or its files are damaged.

    Example:
        >>> trained = runner.load("outputs/default")
        >>> probabilities, classes = trained.predict("photos/")
    """

    def body() -> Trained:
        given = words_of("runner.load", overrides)
        for word in given:
            if word.partition("=")[0].partition(".")[0] not in _MAY_SET:
                only = " or ".join(f"{key}=..." for key in _MAY_SET)
                raise ConfigError(f"overrides: got '{word}'; expected only {only}")
        return _load(["task=predict", f"run={quote(os.fspath(run))}", f"device={device}", *given], plugins)

    return call("runner.load", body)


def _load(words: Sequence[str], plugins: Sequence[str | ModuleType]) -> Trained:
    """Return the model of the run that the words of a command line name."""
    with checked("runner.load", words, plugins) as command:
        job = command.job()
        set_library_folders()
        load_plugins(job.config["plugins"])
        # Late: torch takes a second, and a wrong word none
        from runner.api.torch_state import default_torch
        from runner.tasks.trained.read_run import read_run
        from runner.tasks.trained.trained import restore_trained

        with default_torch():
            return restore_trained(read_run(job, task="predict"), threads=False)
