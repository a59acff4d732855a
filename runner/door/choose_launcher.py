"""The launcher of a sweep: runner's, the chosen one of Hydra, or this process."""

from __future__ import annotations

from collections.abc import Sequence

from runner.door.options import Conf
from runner.door.overrides import ParsedOverride
from runner.door.plan import Plan
from runner.door.task_context import ENTRY, start
from runner.registry import MAIN
from runner.sweeps.in_process import InProcess
from runner.sweeps.launcher import Launcher
from runner.sweeps.pool import Pool
from runner.tasks.job import Job


def make_launcher(conf: Conf, plan: Plan, given: Sequence[ParsedOverride], like: Job) -> Launcher:
    """Return the launcher of a sweep; `like` is any of the runs."""
    # Another process cannot import what a notebook defines
    if MAIN in like.config["plugins"]:
        return InProcess(start)
    if plan.settings:
        return Pool(plan.settings, like=like, entry=ENTRY)
    from runner.door.submitted import make_hydra_launcher

    return make_hydra_launcher(conf, given, plan.folder, plan.batch)
