"""Trace one forward pass on the meta device: which modules run where, and which functions are called beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from runner.components.model.surgery.module_kinds import (
    ACTIVATION_FUNCTIONS,
    DROPOUT_FUNCTIONS,
    NORM_FUNCTIONS,
    POOL_FUNCTIONS,
    can_gate,
    is_activation,
    is_dropout,
    is_known_norm,
    is_unknown_norm,
    skip_modules,
)
from runner.engine.parts import mode

_Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Consumer:
    """The first consumer of an output: a function, the module that called it, and whether it joined two tensors."""

    function: str
    module: nn.Module | None
    joins: bool


@dataclass
class Call:
    """One call of a module: input shape, the module that produced the input, and the first consumer of the output."""

    module: nn.Module
    shape: _Shape
    producer: nn.Module | None
    out: _Shape = ()
    consumer: _Consumer | None = None


@dataclass
class Function:
    """An activation, norm, dropout or pooling called as a function; `again` calls it on another tensor."""

    name: str
    again: Callable[[Tensor], Tensor]
    consumer: _Consumer | None = None


@dataclass
class Trace:
    """One forward pass: module calls in the order in which they ended, function calls, and whose outputs it changes."""

    skips: set[nn.Module]
    calls: list[Call] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    changed_in_place: set[nn.Module] = field(default_factory=set)

    def gates(self, entry: Call | Function) -> bool:
        """Return True if the call returns factors that multiply something (squeeze and excitation)."""
        word = entry.name if isinstance(entry, Function) else type(entry.module).__name__
        return can_gate(word) and entry.consumer is not None and entry.consumer.function in ("mul", "imul", "rmul")

    def activations(self) -> list[Call]:
        """Return the calls of activation modules that do not gate."""
        return [call for call in self.calls if is_activation(call.module) and not self.gates(call)]

    def norms(self) -> list[Call]:
        """Return the calls of norm modules."""
        return [call for call in self.calls if is_known_norm(call.module)]

    def head(self) -> Call:
        """Return the call of the layer that computes the logits: the last linear or convolutional one."""
        return [call for call in self.calls if isinstance(call.module, (nn.Linear, nn.Conv2d))][-1]


def trace_forward(model: nn.Module, shape: _Shape) -> Trace:
    """Trace a training forward pass of two images (C, H, W); it reads no weight and does no arithmetic."""
    tensors = {name: t.to("meta") for name, t in chain(model.named_parameters(), model.named_buffers())}
    listener = _Listener(skip_modules(model))
    with _hooked(model, listener), torch.device("meta"), torch.no_grad(), listener:
        torch.func.functional_call(model, tensors, (torch.zeros(2, *shape),))
    return listener.trace


@contextmanager
def _hooked(model: nn.Module, listener: _Listener) -> Iterator[None]:
    """Register the listener's hooks on every module within the context."""
    handles = [m.register_forward_pre_hook(listener.enter) for m in model.modules()]
    handles += [m.register_forward_hook(listener.leave) for m in model.modules()]
    try:
        with mode(model, training=True):
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Listener(TorchFunctionMode):
    """Write a Trace while a model runs. Tensors are kept alive, so that an id stays unique."""

    def __init__(self, skips: set[nn.Module]) -> None:
        super().__init__()
        self.trace = Trace(skips)
        self.open: list[Call] = []
        self.producers: dict[int, nn.Module] = {}
        # As producers, but a skipped branch passes on its input, as it does at a rate of 0
        self.makers: dict[int, nn.Module] = {}
        self.pending: dict[int, Call | Function] = {}
        self.alive: list[Any] = []

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Record that a module starts to run."""
        x = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        shape = tuple(x.shape) if x is not None else ()
        self.open.append(Call(module, shape, self.producers.get(id(x))))

    def leave(self, module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
        """Record that a module has run, and wait for the consumer of its output."""
        call = self.open.pop()
        self.trace.calls.append(call)
        if isinstance(out, Tensor):
            call.out = tuple(out.shape)
            self.alive.append(out)
            # A container or an identity returns a tensor that another module produced
            self.producers.setdefault(id(out), module)
            passed_on = self.makers.get(id(inputs[0])) if module in self.trace.skips and inputs else None
            self.makers.setdefault(id(out), passed_on or module)
            nothing = isinstance(module, nn.Identity) and module not in self.trace.skips
            if not (nothing or _is_inside(self.pending.get(id(out)), module)):
                self.pending[id(out)] = call

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a torch function and record what it read."""
        name, inside = func.__name__.strip("_"), self.open[-1].module if self.open else None
        out = func(*args, **(kwargs or {}))
        # Not a tensor: a shape, a number or an attribute
        if not isinstance(out, (Tensor, tuple, list)) or name == "get":
            return out
        read = [x for x in _flatten(args) if isinstance(x, Tensor)]
        consumer = _Consumer(name, inside, joins=len(read) == 2 and read[0].shape == read[1].shape)
        for x in read:
            if id(x) in self.pending:
                self.pending.pop(id(x)).consumer = consumer
            # Changed in place: no longer the producer's output
            if out is x:
                self.producers.pop(id(x), None)
                if maker := self.makers.pop(id(x), None):
                    self.trace.changed_in_place.add(maker)
        self.alive += [out, *read]
        if isinstance(out, Tensor) and _is_traced(name, inside, args, kwargs or {}):
            function = Function(name, lambda x: func(x, *args[1:], **(kwargs or {})))
            self.trace.functions.append(function)
            self.pending[id(out)] = function
        return out


def _is_inside(entry: Call | Function | None, outer: nn.Module) -> bool:
    """Return True if the pending entry is a submodule of the module that returns the same tensor."""
    return isinstance(entry, Call) and entry.module is not outer and any(entry.module is m for m in outer.modules())


def _flatten(args: tuple[Any, ...]) -> list[Any]:
    """Return the arguments, with lists (as for torch.cat) flattened."""
    return [x for a in args for x in (a if isinstance(a, (list, tuple)) else [a])]


def _is_traced(name: str, inside: nn.Module | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return True if a call is of an activation, norm, dropout or pooling outside the modules made for it."""
    if name in ACTIVATION_FUNCTIONS:
        return inside is None or not is_activation(inside)
    if name in NORM_FUNCTIONS:
        return inside is None or not (is_known_norm(inside) or is_unknown_norm(inside))
    if name in POOL_FUNCTIONS:
        return not isinstance(inside, nn.MaxPool2d)
    rate = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    return name in DROPOUT_FUNCTIONS and rate > 0 and (inside is None or not is_dropout(inside))
