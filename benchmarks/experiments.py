"""What the benchmarks train: overrides as on the command line, and the experiments that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.assemble import Experiment

PLAIN = ["augment=[]", "norm=none", "scheduler=constant", "seed=0", "validate_every=100000000steps"]
PLAIN += ["checkpoint_every=100000000steps", "average=none"]  # all else, logs and probes too, is a run's default
MLP = ["model=mlp", "model.hidden=[128,128]", "device=cpu"]
SHAPES = ["data=synthetic", "data.kind=shapes", "data.size=32", "data.classes=6", "norm=batch"]
CNN = [*SHAPES, "model=cnn", "model.channels=[16,32,64]", "model.hidden=[]", "device=cpu", "optim.lr=0.01"]
RESNET = [*SHAPES, "data.train=8192", "data.batch_size=512", "model=resnet", "model.depth=18", "model.width=64"]
RESNET += ["device=cuda", "precision=bf16"]


def words(given: list[str]) -> list[str]:
    """Return overrides after the plain ones, the last of each key."""
    return list({word.partition("=")[0]: word for word in (*PLAIN, *given)}.values())


def experiment(overrides: list[str]) -> Experiment:
    """Return a fresh experiment."""
    from runner.assemble import assemble
    from runner.door.compose import checked, compose_parts, hydra_opened
    from runner.door.options import find_conf
    from runner.door.overrides import read_overrides

    conf = find_conf()
    given = read_overrides(conf, overrides)
    with hydra_opened(conf):
        return assemble(checked(conf, compose_parts(conf, given), given))
