"""Load weights into a model by name: which tensors are taken, which are adapted, and which are left to the init."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from runner.assemble.read_weights import InitialWeights
from runner.components.init.layers import listed
from runner.engine.parts import is_kept, keep
from runner.engine.state_dict import StateDict, load_state
from runner.engine.weights import classifiers, named_kinds
from runner.engine.weights_file import check_finite, renamed
from runner.errors import CheckpointError, escaped
from runner.printing import counted
from runner.spelling import nearest
from runner.weight_sources import KEY

# Prefixes that some names of a file have, and that a model of ours or another library's has not
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.")
# Published DenseNets have norm.1, their modules are named norm1
_DENSENET = re.compile(r"(norm|conv)\.([12])(?=\.|$)")
# Class tokens and the like in front of a table of positions
_MOST_TOKENS = 2
_SHOWN = 3


@dataclass
class _Fit:
    """Tensors of a file that go into a model, and those that do not."""

    taken: dict[str, Tensor] = field(default_factory=dict)
    head: list[str] = field(default_factory=list)  # the classifier's tensors that are initialized anew
    wrong: list[str] = field(default_factory=list)  # of another shape
    lines: list[str] = field(default_factory=list)


def load_weights(model: nn.Module, weights: InitialWeights, classes: Sequence[str]) -> list[str]:
    """Load weights by name, protect them from the initialization, and return summary lines.

    The classifier is taken if it knows the same classes, its rows in their order; else it is left to the init.

    Raises:
        CheckpointError: No tensor fits, one of the body has another shape, or one holds other numbers than weights.
    """
    expected = model.state_dict()
    state = _with_names_of(model, weights.tensors)
    heads = {f"{each.path}." for each in classifiers(model)}
    fit = _Fit()
    _fit_body(model, state, {n for n in expected if not n.startswith(tuple(heads))} if heads else set(expected), fit)
    _check_shapes(fit, state, expected, weights.where)
    _fit_head(state, {n: t for n, t in expected.items() if heads and n.startswith(tuple(heads))}, weights, classes, fit)
    _check_any(fit, state, expected, weights.where)
    _check_types(fit.taken, expected, weights.where)
    check_finite(state, KEY, weights.where, fit.taken)
    load_state(model, fit.taken, state.versions, strict=False)
    keep(parameter for name, parameter in _parameters(model).items() if name in fit.taken)
    return [f"{KEY}: {line}" for line in (_first_line(fit, expected, weights), *fit.lines, *_left(model, state, fit))]


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters by name; one that several modules share (tied weights) has several names."""
    return dict(model.named_parameters(remove_duplicate=False))


def _with_names_of(model: nn.Module, state: StateDict) -> StateDict:
    """Return tensors under the model's names: without or with a prefix, whichever gives the most of them."""
    names, best = set(model.state_dict()), state
    while not names <= best.keys():
        own = [f"{child}." for child, _ in model.named_children()]
        tried = [*(renamed(best, prefix, "") for prefix in _PREFIXES), *(renamed(best, "", prefix) for prefix in own)]
        better = max(tried, key=lambda each: len(names & each.keys()))
        if len(names & better.keys()) <= len(names & best.keys()):
            break
        best = better
    return _renamed_densenet(model, best)


def _renamed_densenet(model: nn.Module, state: StateDict) -> StateDict:
    """Return the tensors under the model's names, where a file has the older ones of DenseNets."""
    own = {*model.state_dict(), *(name for name, _ in model.named_modules())}

    def name_of(name: str) -> str:
        new = _DENSENET.sub(r"\1\2", name)
        return new if new in own and name not in own else name

    found = StateDict((name_of(name), tensor) for name, tensor in state.items())
    if state.versions is not None:
        found.versions = {name_of(name): version for name, version in state.versions.items()}
    return found


def _fit_body(model: nn.Module, state: StateDict, names: set[str], fit: _Fit) -> None:
    """Take all tensors but the classifier's; adapt positions and the first convolution to other images."""
    positions = {name for name, _, kinds in named_kinds(model) if "position" in kinds}
    first = _first_convolution(model)
    for name, own in model.state_dict().items():
        if name not in names or name not in state:
            continue
        tensor: Tensor | None = state[name]
        assert tensor is not None
        if tensor.shape != own.shape:
            before = tuple(tensor.shape)
            tensor = _resized(tensor, own, is_position=name in positions, is_first=name == first)
            if tensor is not None:
                how = "resized" if name in positions else "with its input channels summed or repeated"
                fit.lines.append(f"{escaped(name)} {how}: {before} -> {tuple(own.shape)}")
        if tensor is None:
            fit.wrong.append(name)
        else:
            fit.taken[name] = tensor


def _resized(tensor: Tensor, own: Tensor, *, is_position: bool, is_first: bool) -> Tensor | None:
    """Return a tensor in the shape of the model's own, None if there is no way."""
    if is_position:
        return _resized_positions(tensor, own)
    if is_first and tensor.ndim == own.ndim and (len(tensor), *tensor.shape[2:]) == (len(own), *own.shape[2:]):
        return _other_channels(tensor, own.shape[1])
    return None


def _other_channels(weight: Tensor, channels: int) -> Tensor:
    """Return a convolution's weight (out, C, ...) for other input channels, as timm does.

    For one channel the inputs' weights are summed, which gives gray images the same outputs; for others they are
    repeated and scaled, so that the outputs keep their size.
    """
    weight = weight.float()
    if channels == 1:
        return weight.sum(1, keepdim=True)
    count = weight.shape[1]
    return weight.repeat(1, -(-channels // count), *[1] * (weight.ndim - 2))[:, :channels] * (count / channels)


def _resized_positions(table: Tensor, own: Tensor) -> Tensor | None:
    """Return a table (1, tokens + side^2, D) of positions for another grid, by bicubic interpolation as timm does."""
    if table.ndim != 3 or own.ndim != 3 or len(table) != 1 or table.shape[2] != own.shape[2]:
        return None
    for tokens in range(_MOST_TOKENS + 1):
        old, new = (math.isqrt(max(0, each.shape[1] - tokens)) for each in (table, own))
        if old and new and (old**2 + tokens, new**2 + tokens) == (table.shape[1], own.shape[1]):
            grid = table[:, tokens:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
            grid = interpolate(grid, (new, new), mode="bicubic", antialias=True, align_corners=False)
            return torch.cat([table[:, :tokens].float(), grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    return None


def _first_convolution(model: nn.Module) -> str | None:
    """Return the name of the first convolution's weight, None if the model has none or it is grouped."""
    found = ((f"{name}.weight".lstrip("."), m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d))
    name, module = next(found, (None, None))
    return name if module is not None and module.groups == 1 else None


def _fit_head(
    state: StateDict, expected: dict[str, Tensor], weights: InitialWeights, classes: Sequence[str], fit: _Fit
) -> None:
    """Take the classifier's tensors if they are for the same classes, in the order of the model's."""
    found = {name: state[name] for name in expected if name in state}
    fits = bool(found) and all(tensor.shape == expected[name].shape for name, tensor in found.items())
    known = weights.classes
    if not fits or (known is not None and set(known) != set(classes)):
        fit.head = list(expected)
        return
    if known is None:
        fit.lines.append("the classifier is taken: the number of classes is the same, and the file does not name them")
    elif tuple(known) != tuple(classes):
        order = torch.tensor([known.index(name) for name in classes])
        found = {name: tensor[order] if len(tensor) == len(known) else tensor for name, tensor in found.items()}
        fit.lines.append("the classifier's rows are put into the order of these classes")
    fit.taken.update(found)


def _check_shapes(fit: _Fit, state: StateDict, expected: dict[str, Tensor], where: str) -> None:
    """Raise CheckpointError if a tensor has another shape and no way to adapt it."""
    if fit.wrong:
        name = fit.wrong[0]
        count = f"{counted(len(fit.wrong), 'tensor')} {'have' if len(fit.wrong) > 1 else 'has'}"
        raise CheckpointError(
            f"{KEY}: {where}: {count} another shape than in this model, the first is {escaped(name)} "
            f"({tuple(state[name].shape)}, expected {tuple(expected[name].shape)})"
        )


def _check_any(fit: _Fit, state: StateDict, expected: dict[str, Tensor], where: str) -> None:
    """Raise CheckpointError if nothing fits."""
    if not fit.taken and any(name in state for name in expected):
        raise CheckpointError(
            f"{KEY}: {where}: of this model it has the classifier only, and that is for other classes"
        )
    if not fit.taken:
        wanted = next(iter(expected), "")
        has, own = (", ".join(map(escaped, names)) for names in (nearest(wanted, state)[:_SHOWN], [*expected][:_SHOWN]))
        raise CheckpointError(f"{KEY}: {where}: no tensor has a name of this model (it has {has}; expected {own})")


def _check_types(taken: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> None:
    """Raise CheckpointError for numbers that are no weights, such as the integers of a quantized model.

    torch would convert them without a word.
    """
    for name, tensor in taken.items():
        if expected[name].is_floating_point() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{KEY}: {where}: {escaped(name)} is of type {kind}, expected a floating-point type; "
                "save the weights of a model that is not quantized"
            )


def _first_line(fit: _Fit, expected: dict[str, Tensor], weights: InitialWeights) -> str:
    """Return how much was taken, and why the classifier was not."""
    line = f"took {len(fit.taken)} of {len(expected)} tensors from {weights.where}"
    if not fit.head:
        return line
    return f"{line}; the classifier is initialized anew, for other classes ({listed(fit.head)})"


def _left(model: nn.Module, state: StateDict, fit: _Fit) -> Iterator[str]:
    """Yield lines about parameters and statistics that the file lacks, and tensors that the model lacks."""
    own = model.state_dict()
    # A file may have tied weights under one of their names
    unset = {name for name, parameter in _parameters(model).items() if not is_kept(parameter)}
    unset |= {name for name in own if "running_" in name and name not in fit.taken}
    if lacks := [name for name in own if name in unset and name not in fit.head]:
        yield f"{counted(len(lacks), 'tensor')} only in the model: {listed(lacks)}"
    if more := [escaped(name) for name in state if name not in own]:
        yield f"{counted(len(more), 'tensor')} only in the file: {listed(more)}"
