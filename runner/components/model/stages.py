"""The stages of a model, from the input to the head: what transfer freezes, and what a rate per depth counts.

A stage is a numbered part of the model's own code (`layer1`, `blocks.0`, `features.3`), a fully connected layer, or the
convolutions between two poolings. What comes before the first of them belongs to the first stage, with class tokens
and positions. A norm belongs to the stage whose outputs it normalizes, and so does the last norm before the classifier.
The head is the layer that computes the logits (`runner.engine.weights.classifiers`), and nothing else.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import nn

from runner.components.model.surgery.trace import trace_forward
from runner.engine.parts import CONVOLUTIONS, WEIGHT_LAYERS, has_running_statistics
from runner.engine.weights import Kind, classifiers, named_kinds
from runner.errors import ConfigError

_Shape = tuple[int, int, int]
_HEAD = "head"
_LEARNED_INPUTS = frozenset[Kind]({"position", "token"})
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Stage:
    """One stage of a model.

    Attributes:
        name: What users call it: the name of its module without what all stages share, or `head`.
        parts: The names of its modules, and of parameters that a module of several stages holds, from input to output.
            The features of a stage are the input of the next stage's first module.
        parameters: The names of its parameters, as `named_parameters` gives them.
        norms: The names of its norms with running statistics (BatchNorm).
    """

    name: str
    parts: tuple[str, ...]
    parameters: tuple[str, ...]
    norms: tuple[str, ...] = ()

    @property
    def expression(self) -> str:
        """Return a regular expression that finds the names of this stage's parameters and of no others."""
        return rf"^({'|'.join(map(re.escape, self.parts))})(\.|$)"


def stages(model: nn.Module, shape: _Shape | None = None) -> list[Stage]:
    """Return the stages from the input to the head; every parameter and every BatchNorm is in exactly one.

    Args:
        model: Any model that computes logits with a linear layer or a convolution.
        shape: (C, H, W) of an image. With it the stages are in the order in which the model calls them; without it in
            the order in which it defines them, which is the same in most models.

    Raises:
        ConfigError: The model has no classifier.
    """
    heads = [head.path for head in classifiers(model)]
    if not heads:
        raise ConfigError("model: got one without a linear layer or a convolution, whose stages are not known")
    units = list(_Units(model, heads).of(model, ""))
    if shape is not None:
        units = _in_order_of_calls(model, units, shape)
    body = _merged(units)
    names = _names(body, heads)
    found = [_stage(model, name, unit.parts) for name, unit in zip(names, body, strict=True)]
    return [*found, _stage(model, _HEAD, heads)]


def readers_of(model: nn.Module, found: Sequence[Stage]) -> dict[str, tuple[str, ...]]:
    """Return the modules that may read the features of each stage below the head: those of the next stage, by name."""
    modules = {name for name, _ in model.named_modules()}
    return {
        stage.name: tuple(part for part in above.parts if part in modules) for stage, above in itertools.pairwise(found)
    }


@dataclass
class _Unit:
    """Modules or a parameter that stay together.

    Attributes:
        parts: Their names.
        kinds: The kinds of their parameters, one entry per parameter; those of weights are empty.
        block: The number of the convolutional block that a single convolution belongs to, None for any other unit.
    """

    parts: list[str]
    kinds: list[frozenset[Kind]] = field(default_factory=list)
    block: tuple[str, int] | None = None

    @property
    def has_weights(self) -> bool:
        """True if a layer's weight is among the parameters."""
        return frozenset() in self.kinds

    @property
    def is_learned_input(self) -> bool:
        """True for positions and tokens alone."""
        return not self.has_weights and any(kinds & _LEARNED_INPUTS for kinds in self.kinds)


class _Units:
    """Finds the smallest parts of a model that stay together, from its names and classes."""

    def __init__(self, model: nn.Module, heads: Sequence[str]) -> None:
        self._heads = heads
        self._kinds = {name: kinds for name, _, kinds in named_kinds(model)}
        self._layers = sum(isinstance(m, WEIGHT_LAYERS) for m in model.modules()) - len(heads)

    def of(self, module: nn.Module, path: str) -> Iterator[_Unit]:
        """Yield the units of a module that has several stages, without the head."""
        for name, _ in module.named_parameters(recurse=False):
            if (full := _joined(path, name)) in self._kinds:
                yield _Unit([full], [self._kinds[full]])
        children = list(module.named_children())
        series = Counter(_NUMBER.sub("#", name) for name, child in children if _holds_state(child))
        has_pools = any(_is_pool(child) for _, child in children)
        block = 0
        for name, child in children:
            full, is_member = _joined(path, name), series[_NUMBER.sub("#", name)] > 1 and bool(_NUMBER.search(name))
            block += _is_pool(child)
            if full in self._heads or not _holds_state(child):
                continue
            if self._has_several_stages(child, full, is_member=is_member):
                yield from self.of(child, full)
            else:
                convolution = has_pools and _is_single_convolution(child)
                yield _Unit([full], self._kinds_in(full), (path, block) if convolution else None)

    def _has_several_stages(self, module: nn.Module, path: str, *, is_member: bool) -> bool:
        """Return True if a module is to be opened: what it holds are stages, or it holds the head."""
        if any(head.startswith(f"{path}.") for head in self._heads):
            return True
        layers = [part for part in module.modules() if isinstance(part, WEIGHT_LAYERS)]
        if is_member or isinstance(module, WEIGHT_LAYERS) or len(layers) < 2:
            return False
        stacked = isinstance(module, nn.Sequential) and all(isinstance(layer, nn.Linear) for layer in layers)
        return stacked or isinstance(module, (nn.ModuleList, nn.ModuleDict)) or 2 * len(layers) > self._layers

    def _kinds_in(self, path: str) -> list[frozenset[Kind]]:
        """Return the kinds of the parameters below a module."""
        return [kinds for name, kinds in self._kinds.items() if name.startswith(f"{path}.")]


def _joined(path: str, name: str) -> str:
    """Return the name of a module's child in the model."""
    return f"{path}.{name}".lstrip(".")


def _holds_state(module: nn.Module) -> bool:
    """Return True if a module has parameters, or norms with running statistics."""
    return any(True for _ in module.parameters()) or any(map(has_running_statistics, module.modules()))


def _is_pool(module: nn.Module) -> bool:
    """Return True for a pooling, also with slots around it."""
    return not _holds_state(module) and any("Pool" in type(part).__name__ for part in module.modules())


def _is_single_convolution(module: nn.Module) -> bool:
    """Return True for a convolution, also with its norm and activation."""
    layers = [part for part in module.modules() if isinstance(part, WEIGHT_LAYERS)]
    return len(layers) == 1 and isinstance(layers[0], CONVOLUTIONS)


def _in_order_of_calls(model: nn.Module, units: list[_Unit], shape: _Shape) -> list[_Unit]:
    """Return the units in the order in which the model first calls them; those that it never calls stay in place."""
    first: dict[nn.Module, int] = {}
    for number, call in enumerate(trace_forward(model, shape).calls):
        first.setdefault(call.module, number)
    names = dict(model.named_modules())
    keys, last = list[int](), -1
    for unit in units:
        inside = names[unit.parts[0]].modules() if unit.parts[0] in names else ()
        last = min((first[module] for module in inside if module in first), default=last)
        keys.append(last)
    return [unit for _, unit in sorted(zip(keys, units, strict=True), key=lambda pair: pair[0])]


def _merged(units: list[_Unit]) -> list[_Unit]:
    """Return the units, with norms, scales, tokens and the convolutions of a block joined to their stage."""
    found: list[_Unit] = []
    waiting = [part for unit in units if unit.is_learned_input for part in unit.parts]
    for unit in (unit for unit in units if not unit.is_learned_input):
        same_block = unit.block is not None and found and found[-1].block == unit.block
        if found and (same_block or not unit.has_weights):
            found[-1] = _Unit([*found[-1].parts, *unit.parts], found[-1].kinds, found[-1].block)
        elif found and not found[-1].has_weights:
            # A norm of the inputs
            found[-1] = _Unit([*found[-1].parts, *unit.parts], [*found[-1].kinds, *unit.kinds], unit.block)
        else:
            found.append(unit)
    if waiting and not found:
        return [_Unit(waiting)]
    if waiting:
        found[0] = _Unit([*waiting, *found[0].parts], found[0].kinds)
    return found


def _names(body: list[_Unit], heads: Sequence[str]) -> list[str]:
    """Return the names of the stages before the head, each once, without what all names of the model share."""
    paths = [part.split(".") for unit in body for part in unit.parts] + [head.split(".") for head in heads]
    in_all = itertools.takewhile(lambda words: len(set(words)) == 1, zip(*paths, strict=False))
    shared = min(len(list(in_all)), *(len(path) - 1 for path in paths))
    names: list[str] = []
    for number, unit in enumerate(body):
        own = [".".join(part.split(".")[shared:]) for part in unit.parts]
        name = "stem" if number == 0 and len(own) > 1 else own[0]
        names.append(name if name not in (*names, _HEAD) else f"{name}_{number + 1}")
    return names


def _stage(model: nn.Module, name: str, parts: Sequence[str]) -> Stage:
    """Return a stage of these modules and parameters."""
    stage = Stage(name, tuple(parts), ())
    inside = re.compile(stage.expression)
    return Stage(
        name,
        tuple(parts),
        tuple(each for each, _ in model.named_parameters() if inside.match(each)),
        tuple(each for each, m in model.named_modules() if has_running_statistics(m) and inside.match(each)),
    )
