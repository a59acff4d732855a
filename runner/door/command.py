"""What a checked command line leads to: its config printed, one run, or a sweep."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace

from omegaconf import DictConfig, OmegaConf

from runner.door.again import go_on
from runner.door.arguments import Arguments
from runner.door.compose import Parts, checked, compose_parts, hydra_opened, settle
from runner.door.jobs import single_job
from runner.door.options import Conf, find_conf
from runner.door.overrides import Given, read_overrides
from runner.errors import ConfigError

OF_ONE_RUN = ("hydra.run.dir", "hydra.mode")


def run(arguments: Arguments) -> int:
    """Compose and check, then print, start the run or hand the sweep over; returns the exit code."""
    arguments = go_on(arguments)
    conf = find_conf(arguments.config_dir, arguments.config_name)
    given = read_overrides(conf, arguments.overrides)
    with hydra_opened(conf):
        fixed = [each for each in given if not each.swept]
        parts = compose_parts(conf, fixed)
        many = arguments.multirun or getattr(parts.hydra.mode, "name", None) == "MULTIRUN"
        if many and not arguments.cfg and not arguments.info:
            from runner.door.sweep import plan

            gc.enable()  # `runner.__main__.command` switched it off; each trial's composition is garbage in the end
            sweep = plan(conf, parts, given)
        else:
            refuse_sweep(conf, given, parts.config, info=arguments.info is not None)
            config = checked(conf, parts, given)
    if arguments.cfg:
        return show(conf, parts, given, resolve=arguments.resolve)
    if arguments.info:
        from runner.door.trials import through_hydra

        return through_hydra([f"--info={arguments.info}", *(each.word for each in given)], conf)
    if many:
        from runner.door.trials import run_sweep

        return run_sweep(conf, sweep, given)
    job = replace(single_job(config, given), folders=conf.folders)
    from runner.tasks import start

    return start(job)


def refuse_sweep(conf: Conf, given: list[Given], config: DictConfig, *, info: bool) -> None:
    """Refuse several values for one key, and what says how a sweep is run, where one run is asked for."""
    for each in given:
        if each.of_hydra and each.key not in OF_ONE_RUN and not info:
            raise ConfigError(f"{each.key}: belongs to a sweep; add -m")
        if each.swept:
            many = each.key in conf.defaults and conf.several(each.key)
            listed = many or OmegaConf.is_list(OmegaConf.select(config, each.key))
            hint = f", or write a list: '{each.key}=[{each.text}]'" if listed else ""
            raise ConfigError(f"{each.key}: got several values ({each.text}); add -m to run each of them{hint}")


def show(conf: Conf, parts: Parts, given: list[Given], *, resolve: bool) -> int:
    """Print the config that this command line gives."""
    sys.stdout.write(OmegaConf.to_yaml(settle(conf, parts, given), resolve=resolve))
    return 0
