"""Another library's model becomes one like ours: its activations and norms are the config's, it has places.

What is swapped is found by watching one forward pass. Names of weights stay, so that files of the library still load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from runner.components.model.surgery.activations import swap_activations
from runner.components.model.surgery.kinds import DROPOUT_FUNCTIONS, POOL_FUNCTIONS
from runner.components.model.surgery.norms import swap_norms
from runner.components.model.surgery.places import open_places
from runner.components.model.surgery.swap import Changes, counted, title, words
from runner.components.model.surgery.trace import Call, Trace, trace
from runner.components.model.surgery.twins import separate
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import set_notes, set_pool_calls
from runner.errors import ConfigError

Shape = tuple[int, int, int]
BOTH = ("activation", "norm")


def adapted(
    make: Callable[[], nn.Module],
    shape: Shape,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    swap: Sequence[str] | None,
    trained: bool,
    what: str,
) -> nn.Module:
    """Return the model that `make` builds, with the activation and norm given and with places for regularizers.

    `swap` names what is swapped; None is both, and an error if that changes anything of a `trained` model. `what` names
    the model in messages. Raises ConfigError for images (C, H, W) that the model does not take, and for parts that
    cannot be swapped.
    """
    size = f"{shape[1]}x{shape[2]}"
    with refusing(f"model.arch: {what} does not take images of {size}"):
        model = make()
        separate(model)
        keep_inputs(model)
        seen = trace(model, shape)
    chosen = BOTH if swap is None else swap
    changes: Changes = Counter()
    if "norm" in chosen:
        changes += swap_norms(model, seen, norm, what)
    if "activation" in chosen:
        changes += swap_activations(model, seen, activation, what)
    if trained and swap is None and changes:
        raise ConfigError(
            f"model.weights: the weights of {what} were trained with other parts ({words(changes)}); "
            "model.swap=[] keeps its own, model.swap=[activation,norm] swaps them all the same"
        )
    with refusing(f"model.arch: {what} does not run on images of {size} with the norm asked for"):
        after = trace(model, shape) if chosen else seen
    set_apart(model, after)
    open_places(model, after)
    set_notes(model, [*story(seen, changes, chosen)])
    set_pool_calls(model, sum(function.name in POOL_FUNCTIONS for function in seen.functions))
    return model.train()


def keep_inputs(model: nn.Module) -> None:
    """Let no module work in place: the part before it may need what it would overwrite, as hooks do."""
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]


def set_apart(model: nn.Module, seen: Trace) -> None:
    """Give linear layers that are never called (attention reads their weights) torch's class for such layers.

    What acts when a layer is called, DropConnect for one, then passes them by instead of claiming to reach them.
    """
    called = {call.module for call in seen.calls}
    for module in model.modules():
        if type(module) is nn.Linear and module not in called:
            module.__class__ = nn.modules.linear.NonDynamicallyQuantizableLinear


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn what torch says of a model that does not run into one line."""
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(f"{what}: {' '.join(str(error).split())[:160]}") from error


def story(seen: Trace, changes: Changes, chosen: Sequence[str]) -> Iterator[str]:
    """Yield what was swapped, what stays and what does not act, one line each."""
    if changes:
        yield words(changes)
    for kind, own in (("activation", seen.activations()), ("norm", seen.norms())):
        if kind not in chosen:
            yield f"{kind}= does not act: model.swap leaves the model its own ({listed(own)})"
    gates = [call for call in seen.calls if seen.gates(call)]
    if gates and "activation" in chosen:
        yield f"{listed(gates)} stay: they gate"
    drops = Counter(f.name for f in seen.functions if f.name in DROPOUT_FUNCTIONS)
    for name, places in drops.items():
        yield f"{name} is called as a function at {counted(places)}, which stays"


def listed(calls: list[Call]) -> str:
    """Return how many modules of which kinds were called."""
    return ", ".join(f"{n} {kind}" for kind, n in Counter(title(call.module) for call in calls).items()) or "none"
