"""Places for regularizers in another library's model, and the ends of its residual branches.

A place is a Slot that hangs on a layer as its child and runs before or after it, so that no weight changes its name.
Dropout and skipped branches that the model brings along become places that are filled already.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor, nn

from runner.components.model.layers import named
from runner.components.model.surgery.kinds import DROPOUTS, is_activation, is_known_norm
from runner.components.model.surgery.norms import ChannelsLast
from runner.components.model.surgery.swap import names_of
from runner.components.model.surgery.trace import Call, Trace
from runner.components.model.vit import TokenNorm
from runner.engine.parts import Slot, end_branch, fill

SUMS = ("add", "iadd", "radd")
SHORTCUTS = (
    "downsample",
    "shortcut",
    "skip",
    "proj",
    "identity",
)  # words in the names of layers beside a residual branch
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
LIBRARIES = ("torchvision.models", "timm.models", "runner.components.model.surgery.twins")


class Filled(Slot):
    """A place that holds what the model brought along, until a regularizer replaces it."""

    def __init__(self, where: str, own: nn.Module) -> None:
        super().__init__(where)
        self.own = own

    def forward(self, x: Tensor) -> Tensor:
        """Return what the model's own part makes of x."""
        out: Tensor = self.own(x)
        return out


def run_before(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pass a layer's input through the place that hangs on it."""
    return (layer.get_submodule("slot")(inputs[0]), *inputs[1:])


def run_after(layer: nn.Module, _: tuple[Any, ...], out: Tensor) -> Tensor:
    """Pass a layer's output through the place that hangs on it."""
    passed: Tensor = layer.get_submodule("slot")(out)
    return passed


def hang(layer: nn.Module, where: str) -> None:
    """Hang a place on a layer: before it for the classifier, else after it; once."""
    if "slot" in layer._modules:
        return
    layer.add_module("slot", Slot(where))
    if where == "head":
        layer.register_forward_pre_hook(run_before)
    else:
        layer.register_forward_hook(run_after)


def open_places(model: nn.Module, seen: Trace) -> None:
    """Open every place that the model has: head, fc, block, residual."""
    names = {module: name for name, module in model.named_modules()}
    head = seen.head()
    blocks = blocks_of(model, seen)
    filled = fill_own(model, seen, names)
    ends = alone([call for call in seen.calls if ends_branch(call, seen, names)])
    for call in ends:
        mark(seen, call)
        if call.module not in filled:
            hang(call.module, "residual")
    for call in hidden(seen):
        hang(call.module, "fc")
    if head.giver not in filled:
        hang(head.module, "head")
    for block in blocks:
        hang(block, "block")
    if not blocks:
        follow_pools(model)


def follow_pools(model: nn.Module) -> None:
    """Open a place behind every pooling of a model without blocks (alexnet, vgg)."""
    for name, pool in [(name, m) for name, m in model.named_modules() if isinstance(m, nn.MaxPool2d)]:
        fill(model, name, named(pool=pool, slot=Slot("block")))


def fill_own(model: nn.Module, seen: Trace, names: dict[nn.Module, str]) -> set[nn.Module]:
    """Make places of the model's own dropout and skipped branches, and return those modules."""
    filled = set()
    for call in seen.calls:
        where = place_of(call, seen, names)
        if where and call.module not in filled:
            for name in names_of(model, call.module):
                fill(model, name, Filled(where, call.module))
            filled.add(call.module)
    return filled


def place_of(call: Call, seen: Trace, names: dict[nn.Module, str]) -> str | None:
    """Return what kind of place a module of the model is that drops something, by what reads its output."""
    if call.module in seen.skips or (isinstance(call.module, DROPOUTS) and ends_branch(call, seen, names)):
        return "residual"
    if isinstance(call.module, DROPOUTS) and call.reader:
        reader, after = call.reader.module, call.giver
        if reader is seen.head().module:
            return "head"
        hidden_layer = len(call.shape) == 2 or (after is not None and is_activation(after))
        return "fc" if isinstance(reader, nn.Linear) and hidden_layer else None
    return None


def hidden(seen: Trace) -> list[Call]:
    """Return the calls of activations behind linear layers whose output goes to another layer, not into dropout."""
    return [
        call
        for call in seen.calls
        if is_activation(call.module)
        and call.giver is not None
        and (isinstance(call.giver, (nn.Linear, TokenNorm)) or is_known_norm(call.giver))
        and len(call.shape) in (2, 3)
        and call.reader
        and isinstance(call.reader.module, nn.Linear)
        and call.reader.module is not seen.head().module
    ]


def blocks_of(model: nn.Module, seen: Trace) -> list[nn.Module]:
    """Return the model's convolutional blocks: the outermost modules of its library's own classes that give maps."""
    maps = {call.module for call in seen.calls if len(call.out) == 4}
    found: list[nn.Module] = []
    inside = {model}
    for module in model.modules():
        theirs = type(module).__module__.startswith(LIBRARIES) and not isinstance(module, CONTAINERS)
        if theirs and module not in inside and module in maps and convolutional(module):
            found.append(module)
            inside.update(module.modules())
    return found


def convolutional(block: nn.Module) -> bool:
    """Tell whether a block has convolutions (windowed attention gives maps too, with channels last)."""
    return any(isinstance(part, nn.Conv2d) for part in block.modules())


def ends_branch(call: Call, seen: Trace, names: dict[nn.Module, str]) -> bool:
    """Tell whether a module's output is the residual branch that is added to a shortcut."""
    kinds = (nn.Conv2d, nn.Linear, TokenNorm, ChannelsLast, *DROPOUTS)
    if not (isinstance(call.module, kinds) or is_known_norm(call.module) or call.module in seen.skips):
        return False
    reader = call.reader
    path = names.get(call.module, "").split(".")
    beside = any(part.startswith(SHORTCUTS) for part in path)
    return bool(reader and reader.function in SUMS and reader.joins and not beside)


def alone(ends: list[Call]) -> list[Call]:
    """Return the ends that meet a shortcut, not each other (parallel branches that are summed)."""
    sums = Counter(id(call.reader) for call in {call.module: call for call in ends}.values())
    return [call for call in ends if sums[id(call.reader)] <= 1]


def mark(seen: Trace, end: Call) -> None:
    """Mark the last weighted layer of the branch that ends here, for `init=residual`."""
    ran = {call.module for call in seen.calls}
    for call in reversed(seen.calls[: index(seen, end) + 1]):
        fused = any(is_activation(part) for part in call.module.children()) and is_known_norm(call.module)
        if fused or (is_activation(call.module) and not seen.gates(call)):
            return  # an activation behind the last layer: zero would stay zero
        quiet = [m for m in call.module.children() if isinstance(m, nn.Linear) and m not in ran]
        if quiet or isinstance(call.module, (nn.Conv2d, nn.Linear)) or is_known_norm(call.module):
            end_branch(quiet[-1] if quiet else call.module)  # attention reads its layers' weights without a call
            return


def index(seen: Trace, wanted: Call) -> int:
    """Return where a call stands in the trace."""
    return next(i for i, call in enumerate(seen.calls) if call is wanted)
