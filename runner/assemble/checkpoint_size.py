"""The bytes of a run's checkpoint before the run begins: its parts are built, and not initialized."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from runner.assemble.model import construct_model
from runner.engine.clock import Clock
from runner.engine.contracts import Data
from runner.engine.fast_step import avoid_dynamo, fast_stepper, present_gradients
from runner.engine.posterior import evaluation_state
from runner.engine.schedules import cycle_ends
from runner.registry import Config, build, build_many

# Bytes of a tensor's entries in the header of its file and in the manifest
_ENTRY = 200
# Elements of a parameter whose optimizer state is representative: scalars in it do not count
_ENOUGH = 64


@dataclass(frozen=True)
class CheckpointSize:
    """The bytes of the weights and of the rest of the state in a checkpoint.

    And the number of parameters' tensors, and of the snapshots that the run keeps.
    """

    weights: int
    state: int
    parameters: int
    snapshots: int = 0


def checkpoint_size(config: Config, data: Data) -> CheckpointSize:
    """Return the size of a run's checkpoint.

    Raises whatever a component raises that cannot be built.
    """
    avoid_dynamo()
    clock = clock_of(config, data)
    with torch.random.fork_rng(devices=[]), _Unwritten():
        model, _ = construct_model(config, data.shape, len(data.classes), build_many("regularizer", config))
    if config["precision"] == "pure_bf16":
        model.to(torch.bfloat16)
    preprocess = build("preprocess", config["preprocess"], shape=data.shape)
    optimizer = build("optim", config["optim"], model=model, fused=None)
    schedule = build("scheduler", config["scheduler"], clock=clock, **vars(clock))
    context = {"clock": clock, **vars(clock), "cycle_ends": cycle_ends(schedule)}
    average = build("average", config["average"], model=model, optimizer=optimizer, **context)
    weights = evaluation_state(average.module, preprocess)
    trained = {} if average.module is model else model.state_dict()
    # What is in the weights file is not stored twice
    known = {id(tensor) for tensor in weights.values()}
    averages = [tensor for tensor in _tensors(average.state_dict()) if id(tensor) not in known]
    state = _bytes([*trained.values(), *averages]) + _optimizer_bytes(optimizer)
    snapshots = getattr(average, "snapshots", None)
    count = len(snapshots.dates) if snapshots else 0
    return CheckpointSize(_bytes(weights.values()), state, len(list(model.parameters())), count)


class _Unwritten(TorchFunctionMode):
    """Leaves tensors as they are: a system gives memory to a new one when something is written to it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Return the tensor that a method would change, and call other functions."""
        name = getattr(func, "__name__", "")
        writes = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        return args[0] if writes and args and isinstance(args[0], Tensor) else func(*args, **(kwargs or {}))


def clock_of(config: Config, data: Data) -> Clock:
    """Return the length of the run."""
    batch = data.batch_size * config["accumulate"]
    per_epoch = math.ceil(len(data.train.labels) / batch)
    return Clock(config["steps"] or max(1, round(config["epochs"] * per_epoch)), per_epoch, batch)


def _optimizer_bytes(optimizer: Optimizer) -> int:
    """Return the bytes of an optimizer's state after its first step, which makes it.

    The step is made for one parameter of each group and number of dimensions; the state of the others is as large for
    each of their elements. If a state has another shape than its parameter (Adafactor), all parameters make the step.
    """
    samples: list[tuple[nn.Parameter, list[nn.Parameter]]] = []
    for group in optimizer.param_groups:
        for dimensions in sorted({parameter.dim() for parameter in group["params"]}):
            alike = [each for each in group["params"] if each.dim() == dimensions and each.requires_grad]
            samples += [(min(alike, key=_distance), alike)] if alike else []
    _make_states(optimizer, [sample for sample, _ in samples])
    if not all(_is_like(sample, optimizer) for sample, _ in samples):
        samples = [(parameter, [parameter]) for _, alike in samples for parameter in alike]
        _make_states(optimizer, [parameter for parameter, _ in samples])
    total = 0
    for sample, alike in samples:
        tensors = list(_tensors(optimizer.state.get(sample, {})))
        content = sum(each.numel() * each.element_size() for each in tensors)
        total += content * sum(each.numel() for each in alike) // sample.numel() + len(tensors) * len(alike) * _ENTRY
    return total


def _make_states(optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
    """Make a step for some parameters, with gradients of zero."""
    for parameter in parameters:
        parameter.data.zero_()
        parameter.grad = torch.zeros_like(parameter)
    # Torch's own `step` imports torch._dynamo
    fast_stepper(optimizer).step(present_gradients(optimizer))


def _is_like(parameter: nn.Parameter, optimizer: Optimizer) -> bool:
    """Return True if the tensors of a parameter's state are numbers or have its shape."""
    tensors = _tensors(optimizer.state.get(parameter, {}))
    return all(each.numel() == 1 or each.shape == parameter.shape for each in tensors)


def _distance(parameter: nn.Parameter) -> tuple[bool, int]:
    """Return what is least for the smallest parameter that is large enough, or the largest one if none is."""
    size = parameter.numel()
    return size < _ENOUGH, size if size >= _ENOUGH else -size


def _tensors(state: Any) -> Iterator[Tensor]:
    """Yield the tensors in a nested state."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for each in state.values():
            yield from _tensors(each)
    elif isinstance(state, list | tuple):
        for each in state:
            yield from _tensors(each)


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of a file of tensors with their entries in the manifest."""
    return sum(each.numel() * each.element_size() + _ENTRY for each in tensors)
