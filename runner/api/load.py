"""`runner.load`: the model of a run folder, ready to predict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.door.compose import compose_parts, compose_run, hydra_opened, quote
from runner.door.jobs import single_job
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.errors import ConfigError
from runner.tasks.plugins import load_plugins
from runner.user_folders import expand_home, set_library_folders

if TYPE_CHECKING:
    from runner.tasks.trained.trained import Trained

# Keys that a caller may override
_MAY_SET = ("predict", "resume_numerics")


def load(
    run: str | os.PathLike[str], *, plugins: Sequence[str] = (), device: str = "auto", overrides: Sequence[str] = ()
) -> Trained:
    """Return the model of a run folder, ready to predict; its data are not needed.

    A run in progress gives its newest checkpoint. Nothing is written, and no code in the folder is imported.

    Args:
        run: The run folder, such as `outputs/default`.
        plugins: The modules with the user's own components that the run uses, as on its command line.
        device: auto, cpu, cuda, cuda:<number> or mps.
        overrides: Another prediction method, as on the command line: `["predict=tta", "predict.views=[flip]"]`.

    Raises:
        ConfigError, CheckpointError: The folder holds no finished run and no checkpoint, or its files are damaged.

    Example:
        >>> trained = runner.load("outputs/default")
        >>> probabilities, classes = trained.predict("photos/")
    """
    for word in overrides:
        if word.partition("=")[0].partition(".")[0] not in _MAY_SET:
            raise ConfigError(f"overrides: got '{word}'; expected only {' and '.join(_MAY_SET)}=...")
    folder = str(expand_home(os.fspath(run)))
    words = ["task=predict", f"run={quote(folder)}", f"device={device}", *overrides]
    words += [f"plugins=[{','.join(plugins)}]"] if plugins else []
    conf = find_conf()
    given = read_overrides(conf, words)
    with hydra_opened(conf):
        job = single_job(compose_run(conf, compose_parts(conf, given), given), given)
    set_library_folders()
    load_plugins(job.config["plugins"])
    # Late: torch takes a second, and a wrong word none
    from runner.tasks.trained.saved_run import read_run
    from runner.tasks.trained.trained import restore_trained

    return restore_trained(read_run(job, task="predict"), threads=False)
