"""A sweep run: Hydra's launcher and sweeper start the trials, each failure is one line, and the others go on."""

from __future__ import annotations

import json
import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from runner.door.compose import first_line, one_line, resolved
from runner.door.jobs import trial_job
from runner.door.options import Conf, find_conf
from runner.door.overrides import parse
from runner.door.sweep import Sweep, trial_name
from runner.errors import SHOWN, RunnerError, TrialsFailed
from runner.tasks import start

FAILURE = "error.txt"  # what went wrong, in a failed trial's folder


def run_sweep(conf: Conf, sweep: Sweep) -> int:
    """Run the trials through Hydra; raises TrialsFailed at the end if some failed."""
    began = time.time()
    count = f"{len(sweep.trials)} trials" if sweep.trials else "trials"
    sys.stdout.write(f"{count} in {sweep.folder}\n")
    sys.stdout.flush()
    try:
        code = through_hydra(["--multirun", *sweep.words], conf)
    except RunnerError:
        raise
    except Exception as error:
        raise TrialsFailed(f"the launcher ended the sweep: {type(error).__name__}: {first_line(error)}") from error
    if code:  # a trial was stopped from outside
        return code
    names = sweep.trials or tuple(sorted(recent(sweep.folder, began)))
    failed = [name for name in names if (sweep.folder / name / FAILURE).exists()]
    if failed:
        more = f", and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        raise TrialsFailed(f"{len(failed)} of {len(names)} trials failed: {', '.join(failed[:SHOWN])}{more}")
    return 0


def recent(folder: Path, began: float) -> Iterator[str]:
    """Yield the trials whose folders were touched since a sweep began."""
    for path in folder.iterdir():
        if path.is_dir() and path.stat().st_mtime >= began:
            yield path.name


def trial(config: DictConfig) -> float:
    """Run one trial as Hydra's job and return its monitored score, which sweepers compare; nan if there is none.

    A failing trial does not raise: under Hydra's own sweeper that would take the trials of later batches with it.
    """
    hydra_config = HydraConfig.get()
    folder = Path(os.path.relpath(hydra_config.runtime.output_dir))
    (folder / FAILURE).unlink(missing_ok=True)
    sys.stdout.write(f"trial {int(hydra_config.job.num) + 1}: {folder.name}\n")
    sys.stdout.flush()
    words = [word.lstrip("+") for word in hydra_config.overrides.task]
    reason = failure(config, words, folder)
    if reason:
        (folder / FAILURE).write_text(f"{reason}\n", encoding="utf-8")
        sys.stderr.write(f"runner: error: {folder.name}: {reason}\n")
        return math.nan
    return score(folder, config.monitor)


def failure(config: DictConfig, words: Sequence[str], folder: Path) -> str:
    """Run the task and return why it failed, in one line; empty if it did not."""
    try:
        code = start(trial_job(resolved(config), words, folder))
    except RunnerError as error:
        return str(error)
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {first_line(error)} (a bug in runner, please report it with the lines above)"
    if code in (130, 143):  # stopped from outside: so is the sweep
        raise KeyboardInterrupt if code == 130 else SystemExit(code)
    return f"ended with exit code {code}" if code else ""


def score(folder: Path, monitor: str) -> float:
    """Return the best monitored score that a run's result holds."""
    split, metric = monitor.split("/")
    try:
        scores: Any = json.loads((folder / "result.json").read_text(encoding="utf-8"))["scores"]
        return float(scores[split]["best"][metric])
    except (OSError, ValueError, KeyError, TypeError):
        return math.nan


def trial_folder(*keys: str, _root_: DictConfig) -> str:
    """Return a trial's folder name from the composed config: what Hydra asks for as hydra.sweep.subdir."""
    given = [parse(word) for word in _root_.hydra.overrides.task]
    config = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    return trial_name([(each.key, each.value) for each in given if each.key in keys or not keys], resolved(config))


# At import: launchers that run trials in other processes import this module to find `trial`.
OmegaConf.register_new_resolver("runner_trial", trial_folder, replace=True)


def through_hydra(words: Sequence[str], conf: Conf | None = None) -> int:
    """Give a command line to Hydra itself; raises ConfigError for what Hydra refuses."""
    conf = conf or find_conf()
    flags = [f"--config-dir={folder}" for folder in conf.folders[1:]] + [f"--config-name={conf.primary}"]
    main = hydra.main(version_base="1.3", config_path=str(conf.folders[0]), config_name="config")(trial)
    with command_line([*flags, *words]):
        try:
            main()
        except HydraException as error:
            raise one_line(error) from error
        except SystemExit as error:
            return int(error.code or 0)
    return 0


@contextmanager
def command_line(words: list[str]) -> Iterator[None]:
    """Have Hydra see another command line, and raise its errors instead of printing them."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [argv[0], *words], "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full
