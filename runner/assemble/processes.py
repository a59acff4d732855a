"""Several processes in a run: the division of its batches, its batch norms, and settings that they cannot share."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from runner.components.norm import synchronized
from runner.engine.batches import TrainBatches
from runner.engine.division import Division, MicroBatches, Shared
from runner.engine.joint_statistics import batch_norms
from runner.engine.losses import Loss
from runner.engine.together import Strategy
from runner.engine.world import World
from runner.errors import ConfigError
from runner.printing import size_in_words
from runner.registry import Config, build
from runner.settings import Settings


def _strategy_of(config: Config) -> Strategy:
    """Return how the processes of a run train together."""
    strategy: Strategy = build("strategy", config["strategy"])
    return strategy


def division_of(config: Config, settings: Settings, batches: TrainBatches, loss: Loss) -> Division:
    """Return how the batch of a step is divided."""
    world, strategy = batches.world, _strategy_of(config)
    if world.size == 1:
        return MicroBatches(settings.accumulate)
    return Shared(
        world,
        settings.accumulate,
        batches.size_of,
        loss,
        whole=strategy.exact_draws,
        local_norms=not strategy.sync_norms,
    )


def with_joint_norms(model: nn.Module, config: Config, world: World) -> nn.Module:
    """Return a model whose batch norms have the statistics of the whole batch, if several processes share one."""
    return synchronized(model) if world.size > 1 and _strategy_of(config).sync_norms else model


def check_shareable(config: Config, world: World) -> None:
    """Raise ConfigError for what several processes cannot share."""
    if world.size == 1:
        return
    if "gradient_noise" in config["probe"]:
        raise ConfigError(f"probe: got gradient_noise, must be without it in {world.size} processes")
    if config["cuda_graphs"]:
        raise ConfigError(f"cuda_graphs: got true, must be false in {world.size} processes")
    distillation = config["distillation"]
    if distillation.get("features"):
        raise ConfigError(
            f"distillation.features: got {distillation['features']:g}, must be 0 in {world.size} processes: "
            "it compares all examples of a batch with each other"
        )
    if distillation["name"] != "none" and config["loss"].get("class_weights"):
        raise ConfigError(f"loss.class_weights: must be null with distillation in {world.size} processes")


def check_needed(config: Config, given: Iterable[str], world: World) -> None:
    """Raise ConfigError if knobs of the strategy were `given` to a run in one process, where they do nothing."""
    keys = sorted(key for key in given if key.startswith("strategy"))
    if world.size == 1 and keys:
        raise ConfigError(
            f"{keys[0]}: belongs to several processes, and this is one; start them with "
            "torchrun --nproc-per-node=<number> -m runner ..."
        )


def describe_processes(config: Config, batches: TrainBatches, model: nn.Module) -> list[str]:
    """Return summary lines about what several processes share, and what makes their number a part of the experiment."""
    world, strategy = batches.world, _strategy_of(config)
    if world.size == 1:
        return []
    size = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    lines = [
        f"{world.size} processes share each batch of {batches.batch}, about {batches.batch / world.size:.4g} examples "
        f"each; {size_in_words(size)} of gradients are added up in each step"
    ]
    if not strategy.sync_norms and batch_norms(model):
        lines.append(
            "batch norms have the statistics of each process's share: another number of processes is another run"
        )
    if not strategy.exact_draws:
        lines.append("each process draws its own dropout masks: another number of processes is another run")
    return lines
