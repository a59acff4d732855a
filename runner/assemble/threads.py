"""The number of CPU threads that torch computes with: results repeat only with the same number."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from runner.engine.parts import mode
from runner.engine.world import World, cores

# Multiplications of a step, forward and backward, from which on several threads are used. On a quiet machine two gain
# from 5e8 on; on a busy one they wait for each other and lose, less the larger the step is (docs/benchmarks.md).
_LARGE_STEP = 2e9
# More threads than these gain little in any step that a CPU is used for
_MOST = 4
# Passes of a step: forward, and backward to the inputs and to the weights
_PASSES = 3


def begin(threads: int | Literal["auto"]) -> None:
    """Set the number of threads for what comes before the model is known."""
    torch.set_num_threads(1 if threads == "auto" else threads)


def choose(
    threads: int | Literal["auto"], model: nn.Module, *, shape: tuple[int, ...], examples: int, world: World
) -> int:
    """Set the number of threads of a run and return it; `auto` depends on the size of a step only.

    Neither time nor load decides, so that the same run has the same number, and the same results, every time.

    Args:
        threads: The setting.
        model: The model, on the CPU.
        shape: Shape of an image (C, H, W).
        examples: Examples of an optimizer step.
        world: The processes that share the machine; several take one thread each.

    """
    number = _automatic(model, shape, examples, world) if threads == "auto" else threads
    torch.set_num_threads(number)
    return number


def _automatic(model: nn.Module, shape: tuple[int, ...], examples: int, world: World) -> int:
    """Return 1 for small steps and for several processes, else one thread per core, but no more than are useful."""
    if world.size > 1 or _PASSES * examples * multiplications(model, shape) < _LARGE_STEP:
        return 1
    return min(_MOST, _cores())


@torch.no_grad()
def multiplications(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the multiplications of one example's forward pass, infinity if the model cannot process a single one.

    Counts each weight once per position of its module's output. Torch's own counter takes 0.2 s to import.
    """
    total = 0.0

    def add(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        first = output[0] if isinstance(output, tuple) else output
        for weight in module.parameters(recurse=False):
            if isinstance(first, Tensor) and weight.ndim >= 2:
                total += weight.numel() * max(1.0, first.numel() / weight.shape[0])

    hooks = [module.register_forward_hook(add) for module in model.modules()]
    parameter = next(model.parameters(), None)
    dtype = torch.float32 if parameter is None else parameter.dtype
    try:
        with mode(model, training=False), torch.random.fork_rng([]):
            model(torch.zeros(1, *shape, dtype=dtype))
    except (Exception, SystemExit):
        # Torch's norms refuse a single value; an error of the model itself is raised again in the first step
        return math.inf
    finally:
        for hook in hooks:
            hook.remove()
    return total


def with_saved(config: Mapping[str, Any], overrides: Sequence[str], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a saved run with the number of threads it was trained with, unless one is given now.

    Args:
        config: The config that the run continues with.
        overrides: The words of the command line.
        meta: The `meta` of the checkpoint's manifest.

    """
    given = any(each.lstrip("+").partition("=")[0] == "threads" for each in overrides)
    saved = _saved(meta)
    return dict(config) if given or saved is None else {**config, "threads": saved}


def changed(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a line for the summary if a resumed run computes with another number of threads than before."""
    saved, now = _saved(meta), torch.get_num_threads()
    if saved in (None, now):
        return ()
    return (f"threads: {now} from here on, {saved} before; the last digits of results may differ",)


def _saved(meta: Mapping[str, Any]) -> int | None:
    """Return the number of threads in a manifest, None if it has none; it is a file that a user may have edited."""
    saved = meta.get("threads")
    return saved if type(saved) is int and saved >= 1 else None


def _cores() -> int:
    """Return how many cores this process may use; `OMP_NUM_THREADS` limits them, as Slurm and torchrun set it."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores(), int(limit)) if limit.isdecimal() and int(limit) > 0 else cores()
