"""Overrides of the benchmarks, as on the command line, and the experiments built from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.assemble import Experiment

_PLAIN = ["augment=[]", "norm=none", "scheduler=constant", "seed=0", "validate_every=100000000steps"]
_PLAIN += ["checkpoint_every=100000000steps", "average=none"]  # everything else, also logs and probes, has its default
MLP = ["model=mlp", "model.hidden=[128,128]", "device=cpu"]
_SHAPES = ["data=synthetic", "data.kind=shapes", "data.size=32", "data.classes=6", "norm=batch"]
CNN = [*_SHAPES, "model=cnn", "model.channels=[16,32,64]", "model.hidden=[]", "device=cpu", "optim.lr=0.01"]
RESNET = [*_SHAPES, "data.train=8192", "data.batch_size=512", "model=resnet", "model.depth=18", "model.width=64"]
RESNET += ["device=cuda", "precision=bf16"]


def words(given: list[str]) -> list[str]:
    """Return overrides after the common ones; of each key the last one counts."""
    return list({word.partition("=")[0]: word for word in (*_PLAIN, *given)}.values())


def config_of(overrides: list[str]) -> dict[str, Any]:
    """Return the config of a command line."""
    from runner.door.compose import compose_parts, compose_run, hydra_opened
    from runner.door.options import find_conf
    from runner.door.overrides import read_overrides

    conf = find_conf()
    given = read_overrides(conf, overrides)
    with hydra_opened(conf):
        return compose_run(conf, compose_parts(conf, given), given)


def experiment(overrides: list[str]) -> Experiment:
    """Return a new experiment."""
    from runner.assemble import assemble

    return assemble(config_of(overrides))
