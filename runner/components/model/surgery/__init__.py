"""Model surgery: adapt another library's model to the config's activation and norm, and give it slots.

One traced forward pass finds what to replace. Names of weights stay, so that the library's files still load.

trace.py: the traced forward pass.
module_kinds.py: activations, norms, gates and dropout of other libraries.
swap_activations.py, swap_norms.py: the replacements.
insertion_points.py: slots for regularizers, and ends of residual branches.
torchvision_blocks.py: torchvision blocks with one activation module per use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from runner.components.model.surgery.insertion_points import add_slots
from runner.components.model.surgery.module_kinds import DROPOUT_FUNCTIONS, POOL_FUNCTIONS
from runner.components.model.surgery.swap_activations import (
    Changes,
    class_name,
    count_places,
    describe_changes,
    swap_activations,
)
from runner.components.model.surgery.swap_norms import swap_norms
from runner.components.model.surgery.torchvision_blocks import separate_activations
from runner.components.model.surgery.trace import Call, Trace, trace_forward
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import set_notes, set_pool_calls
from runner.errors import ConfigError, message_of

_Shape = tuple[int, int, int]
_SWAPPABLE = ("activation", "norm")


def adapt(
    make: Callable[[], nn.Module],
    shape: _Shape,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    swap: Sequence[str] | None,
    trained: bool,
    what: str,
) -> nn.Module:
    """Return the model that `make` builds, with the given activation and norm and with slots for regularizers.

    The model is run on images of `shape` (C, H, W). `swap` names the parts to replace; None is both, which is an error
    if it changes anything of a model that is `trained`: one whose weights will be loaded from a file. `what` is the
    model's name in messages.

    Raises:
        ConfigError: The model does not take such images, or a part cannot be replaced.
    """
    size = f"{shape[1]}x{shape[2]}"
    with _as_config_error(f"model.arch: {what} does not take images of {size}"):
        model = make()
        separate_activations(model)
        _disable_inplace(model)
        seen = trace_forward(model, shape)
    chosen = _SWAPPABLE if swap is None else swap
    changes: Changes = Counter()
    if "norm" in chosen:
        changes += swap_norms(model, seen, norm, what)
    if "activation" in chosen:
        changes += swap_activations(model, seen, activation, what)
    if trained and swap is None:
        _check_unchanged(changes, what)
    with _as_config_error(f"model.arch: {what} does not run on images of {size} with the norm asked for"):
        after = trace_forward(model, shape) if chosen else seen
    _mark_uncalled_linears(model, after)
    add_slots(model, after)
    set_notes(model, [*_summary_lines(seen, changes, chosen)])
    set_pool_calls(model, sum(function.name in POOL_FUNCTIONS for function in seen.functions))
    return model.train()


def _check_unchanged(changes: Changes, what: str) -> None:
    """Raise ConfigError if anything was replaced in a model whose weights were trained with its own parts."""
    if changes:
        raise ConfigError(
            f"init_from: the weights of {what} were trained with other parts ({describe_changes(changes)}); "
            "model.swap=[] keeps them, model.swap=[activation,norm] replaces them anyway"
        )


def _disable_inplace(model: nn.Module) -> None:
    """Make no module work in place, because the module before it and hooks may need its input."""
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]


def _mark_uncalled_linears(model: nn.Module, seen: Trace) -> None:
    """Give linear layers that are never called (attention reads their weights) torch's class for such layers.

    Modules that act on a call, such as DropConnect, then skip them instead of claiming to affect them.
    """
    called = {call.module for call in seen.calls}
    for module in model.modules():
        if type(module) is nn.Linear and module not in called:
            module.__class__ = nn.modules.linear.NonDynamicallyQuantizableLinear


@contextmanager
def _as_config_error(what: str) -> Iterator[None]:
    """Turn torch's errors for a model that does not run into one line."""
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(f"{what}: {' '.join(message_of(error).split())[:160]}") from error


def _summary_lines(seen: Trace, changes: Changes, chosen: Sequence[str]) -> Iterator[str]:
    """Yield what was replaced, what stays and what has no effect, one line each."""
    if changes:
        yield describe_changes(changes)
    for kind, own in (("activation", seen.activations()), ("norm", seen.norms())):
        if kind not in chosen:
            yield f"{kind}= has no effect: model.swap keeps the model's own ({_count_by_class(own)})"
    gates = [call for call in seen.calls if seen.gates(call)]
    if gates and "activation" in chosen:
        yield f"{_count_by_class(gates)} kept: they are gates"
    drops = Counter(f.name for f in seen.functions if f.name in DROPOUT_FUNCTIONS)
    for name, places in drops.items():
        yield f"{name} is called as a function at {count_places(places)} and is kept"


def _count_by_class(calls: list[Call]) -> str:
    """Return the number of called modules per class."""
    return ", ".join(f"{n} {kind}" for kind, n in Counter(class_name(call.module) for call in calls).items()) or "none"
