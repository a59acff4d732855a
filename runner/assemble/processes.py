"""What several processes change in a run: the division of a batch, and the statistics of its batch norms."""

from __future__ import annotations

from torch import nn

from runner.components.norm import synchronized
from runner.engine.batches import TrainBatches
from runner.engine.division import Division, MicroBatches, Shared
from runner.engine.losses import Loss
from runner.engine.together import Strategy
from runner.engine.world import World
from runner.registry import Config, build
from runner.settings import Settings


def strategy_of(config: Config) -> Strategy:
    """Return how the processes of a run train together."""
    strategy: Strategy = build("strategy", config["strategy"])
    return strategy


def division_of(settings: Settings, batches: TrainBatches, loss: Loss, strategy: Strategy) -> Division:
    """Return how the batch of a step is divided."""
    world = batches.world
    if world.size == 1:
        return MicroBatches(settings.accumulate)
    return Shared(world, settings.accumulate, batches.size_of, loss, whole=strategy.exact_draws)


def with_joint_norms(model: nn.Module, config: Config, world: World) -> nn.Module:
    """Return a model whose batch norms have the statistics of the whole batch, if several processes share one."""
    return synchronized(model) if world.size > 1 and strategy_of(config).sync_norms else model
