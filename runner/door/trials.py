"""A sweep run: Hydra's launcher and sweeper start the trials, each failure is one line, and the others go on."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from runner.door.again import remember
from runner.door.compose import first_line, one_line, resolved
from runner.door.composer import trial_name
from runner.door.jobs import trial_job
from runner.door.naming import name_in
from runner.door.options import Conf, find_conf
from runner.door.overrides import Given, parse
from runner.door.sweep import Sweep
from runner.engine.saving import storage
from runner.engine.saving.folder import Result, lock
from runner.errors import SHOWN, RunnerError, TrialsFailed
from runner.status import Status, ending_of_code, print_error
from runner.sweeps.knobs import Knobs
from runner.sweeps.outcome import finished, own, saved, score, settle
from runner.sweeps.run import run
from runner.sweeps.screen import MOST_REASONS, final_table, reasons, screen
from runner.tasks import start
from runner.tasks.job import Job


def run_sweep(conf: Conf, sweep: Sweep, given: Sequence[Given]) -> int:
    """Run the trials of a command line; raises TrialsFailed if some failed, Locked if another process runs them."""
    count = f"{len(sweep.trials)} trials" if sweep.trials else "trials"
    sys.stdout.write(f"{count} in {sweep.folder}\n")
    sys.stdout.flush()
    with storage.refusing(sweep.folder):
        sweep.folder.mkdir(parents=True, exist_ok=True)
    with lock(sweep.folder):
        remember(sweep.folder, conf, given)
        try:
            return run_trials(conf, sweep)
        finally:
            note(sweep)


def run_trials(conf: Conf, sweep: Sweep) -> int:
    """Run the trials of a sweep, in the way that suits it."""
    if sweep.search:
        return run_searching(conf, sweep)
    if sweep.jobs and sweep.knobs:
        return run_jobs(sweep.jobs, sweep.knobs)
    return run_through_hydra(conf, sweep)


def note(sweep: Sweep) -> None:
    """Write all trials of a sweep into the notebook, at once: by themselves each would write the whole file again."""
    from runner.notebook.book import record

    record(sweep.folder, sweep.outputs)


def run_searching(conf: Conf, sweep: Sweep) -> int:
    """Run the search of a sweep; by Hydra's launcher if one of those was chosen."""
    from runner.door.searching import handed_over, run_search

    if sweep.knobs:
        return run_search(sweep.search, sweep.folder, sweep.knobs)
    with handed_over(sweep.search, sweep.folder):
        return through_hydra(["--multirun", *sweep.words], conf)


def run_jobs(jobs: Sequence[Job], knobs: Knobs) -> int:
    """Run trials that are known by our own launcher, and tell how they ended."""
    ended, stopped = run(jobs, knobs, screen(len(jobs)))
    if ended:
        final_table(ended, jobs[0].config["monitor"])
        reasons([each for each in ended if each.result.reason and each.result.status is not Status.INTERRUPTED])
    if stopped:
        good = sum(each.good for each in ended)
        sys.stderr.write(f"stopped: {good} of {len(jobs)} trials have a result; the same command goes on\n")
        return stopped
    return told([each.name for each in ended if not each.good], len(jobs))


def told(failed: Sequence[str], count: int) -> int:
    """Return the exit code of a sweep without failures; raises TrialsFailed, in one line, if there are some."""
    if failed:
        more = f", and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        raise TrialsFailed(f"{len(failed)} of {count} trials failed: {', '.join(failed[:SHOWN])}{more}")
    return 0


def run_through_hydra(conf: Conf, sweep: Sweep) -> int:
    """Have Hydra's launcher and sweeper run the trials."""
    began = time.time()
    try:
        code = through_hydra(["--multirun", *sweep.words], conf)
    except RunnerError:
        raise
    except Exception as error:
        raise TrialsFailed(f"the launcher ended the sweep: {type(error).__name__}: {first_line(error)}") from error
    if code:  # a trial was stopped from outside
        return code
    names = sweep.trials or tuple(sorted(recent(sweep.folder, began)))
    nothing = Result(status=Status.FAILED, reason="left no result")
    results = {name: saved(sweep.folder / name) or nothing for name in names}
    bad = {name: result for name, result in results.items() if not result.status.is_result}
    for name, result in list(bad.items())[:MOST_REASONS]:  # the launcher may have sent their output elsewhere
        sys.stderr.write(f"{result.status}: {name}: {result.reason or 'did not end'}\n")
    return told(list(bad), len(names))


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
    sys.stdout.write(f"trial {int(hydra_config.job.num) + 1}: {folder.name}\n")
    sys.stdout.flush()
    words = [word.lstrip("+") for word in hydra_config.overrides.task]
    search = json.loads(os.environ.get("RUNNER_SEARCH", "null"))  # set by `runner.door.searching`
    job = replace(own(trial_job(resolved(config), words, folder)), search=search)
    result = finished(job) or run_here(job)
    return score(result, config.monitor)


def run_here(job: Job) -> Result:
    """Run a trial in this process and return how it ended, which then stands in its folder too."""
    began = time.monotonic()
    try:
        ended = ending_of_code(start(job))
    except Exception as error:
        ended = print_error(error, run=job.folder_name)
    result = settle(job, ended, time.monotonic() - began)
    if ended.status is Status.INTERRUPTED:  # from outside: so is the sweep
        raise KeyboardInterrupt if ended.exit_code == 130 else SystemExit(ended.exit_code)
    return result


def trial_folder(*keys: str, _root_: DictConfig) -> str:
    """Return a trial's folder name from the composed config: what Hydra asks for as hydra.sweep.subdir."""
    given = [parse(word) for word in _root_.hydra.overrides.task]
    config = resolved(OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"]))
    name = trial_name([(each.key, each.value) for each in given if each.key in keys or not keys], config)
    return name_in(Path(str(_root_.hydra.sweep.dir)), name, config)


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
