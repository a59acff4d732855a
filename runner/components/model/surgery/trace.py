"""One forward pass without storage, watched: which modules run where, and what is called as a function beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from runner.components.model.surgery.kinds import (
    ACTIVATION_FUNCTIONS,
    DROPOUT_FUNCTIONS,
    NORM_FUNCTIONS,
    POOL_FUNCTIONS,
    can_gate,
    is_activation,
    is_drop,
    is_known_norm,
    is_strange_norm,
    skips,
)
from runner.engine.parts import mode

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Reader:
    """What first read an output: a function, inside the module that called it, and whether it joined two tensors."""

    function: str
    module: nn.Module | None
    joins: bool


@dataclass
class Call:
    """One run of a module: the shape of its input, the module that gave it, and what first read the output."""

    module: nn.Module
    shape: Shape
    giver: nn.Module | None
    out: Shape = ()
    reader: Reader | None = None


@dataclass
class Function:
    """An activation, norm, dropout or pooling that was called as a function; `again` calls it on another tensor."""

    name: str
    again: Callable[[Tensor], Tensor]
    reader: Reader | None = None


@dataclass
class Trace:
    """What one forward pass did: module calls in the order in which they ended, and functions."""

    skips: set[nn.Module]
    calls: list[Call] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)

    def gates(self, entry: Call | Function) -> bool:
        """Tell whether what was called gives factors that multiply something (squeeze and excitation)."""
        word = entry.name if isinstance(entry, Function) else type(entry.module).__name__
        return can_gate(word) and entry.reader is not None and entry.reader.function in ("mul", "imul", "rmul")

    def activations(self) -> list[Call]:
        """Return the calls of activation modules that are no gates."""
        return [call for call in self.calls if is_activation(call.module) and not self.gates(call)]

    def norms(self) -> list[Call]:
        """Return the calls of norm modules."""
        return [call for call in self.calls if is_known_norm(call.module)]

    def head(self) -> Call:
        """Return the call of the layer that gives the logits: the last linear or convolutional one."""
        return [call for call in self.calls if isinstance(call.module, (nn.Linear, nn.Conv2d))][-1]


def trace(model: nn.Module, shape: Shape) -> Trace:
    """Return what a training forward pass of two images (C, H, W) does; no weight is touched, no arithmetic done."""
    tensors = {name: t.to("meta") for name, t in chain(model.named_parameters(), model.named_buffers())}
    listener = Listener(skips(model))
    with hooked(model, listener), torch.device("meta"), torch.no_grad(), listener:
        torch.func.functional_call(model, tensors, (torch.zeros(2, *shape),))
    return listener.trace


@contextmanager
def hooked(model: nn.Module, listener: Listener) -> Iterator[None]:
    """Let the listener hear every module of the model, for the time being."""
    handles = [m.register_forward_pre_hook(listener.enter) for m in model.modules()]
    handles += [m.register_forward_hook(listener.leave) for m in model.modules()]
    try:
        with mode(model, training=True):
            yield
    finally:
        for handle in handles:
            handle.remove()


class Listener(TorchFunctionMode):
    """Writes a Trace while a model runs under it. Tensors are kept alive, so that an id stays one tensor's."""

    def __init__(self, skips: set[nn.Module]) -> None:
        super().__init__()
        self.trace = Trace(skips)
        self.open: list[Call] = []
        self.givers: dict[int, nn.Module] = {}
        self.waiting: dict[int, Call | Function] = {}
        self.alive: list[Any] = []

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Note that a module starts to run."""
        x = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        shape = tuple(x.shape) if x is not None else ()
        self.open.append(Call(module, shape, self.givers.get(id(x))))

    def leave(self, module: nn.Module, _: tuple[Any, ...], out: Any) -> None:
        """Note that a module has run, and wait for who reads its output."""
        call = self.open.pop()
        self.trace.calls.append(call)
        if isinstance(out, Tensor):
            call.out = tuple(out.shape)
            self.alive.append(out)
            self.givers.setdefault(id(out), module)  # an outer module, or one that does nothing, gives nothing new
            nothing = isinstance(module, nn.Identity) and module not in self.trace.skips
            if not (nothing or nested(self.waiting.get(id(out)), module)):
                self.waiting[id(out)] = call

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function of torch, and note what it read."""
        name, inside = func.__name__.strip("_"), self.open[-1].module if self.open else None
        out = func(*args, **(kwargs or {}))
        if not isinstance(out, (Tensor, tuple, list)) or name == "get":  # a shape, a number or an attribute
            return out
        read = [x for x in flat(args) if isinstance(x, Tensor)]
        reader = Reader(name, inside, joins=len(read) == 2 and read[0].shape == read[1].shape)
        for x in read:
            if id(x) in self.waiting:
                self.waiting.pop(id(x)).reader = reader
            if out is x:  # changed in place
                self.givers.pop(id(x), None)
        self.alive += [out, *read]
        if isinstance(out, Tensor) and counts(name, inside, args, kwargs or {}):
            function = Function(name, lambda x: func(x, *args[1:], **(kwargs or {})))
            self.trace.functions.append(function)
            self.waiting[id(out)] = function
        return out


def nested(entry: Call | Function | None, outer: nn.Module) -> bool:
    """Tell whether what waits for a reader is a part of the module round it, which gives the same tensor."""
    return isinstance(entry, Call) and entry.module is not outer and any(entry.module is m for m in outer.modules())


def flat(args: tuple[Any, ...]) -> list[Any]:
    """Return the arguments, those in lists (as for torch.cat) one by one."""
    return [x for a in args for x in (a if isinstance(a, (list, tuple)) else [a])]


def counts(name: str, inside: nn.Module | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a call is of an activation, norm, dropout or pooling beside the modules made for it."""
    if name in ACTIVATION_FUNCTIONS:
        return inside is None or not is_activation(inside)
    if name in NORM_FUNCTIONS:
        return inside is None or not (is_known_norm(inside) or is_strange_norm(inside))
    if name in POOL_FUNCTIONS:
        return not isinstance(inside, nn.MaxPool2d)
    rate = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    return name in DROPOUT_FUNCTIONS and rate > 0 and (inside is None or not is_drop(inside))
