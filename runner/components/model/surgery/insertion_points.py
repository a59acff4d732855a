"""Slots for regularizers in another library's model, and the ends of its residual branches.

A slot is a child of a layer and runs before or after it, so that no weight changes its name. The model's own dropout
and skipped branches become slots that are already filled.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor, nn

from runner.components.model.layers import sequential
from runner.components.model.surgery.module_kinds import DROPOUTS, is_activation, is_known_norm
from runner.components.model.surgery.swap_activations import module_names
from runner.components.model.surgery.swap_norms import ChannelsLast
from runner.components.model.surgery.trace import Call, Trace
from runner.components.model.vit import TokenNorm
from runner.engine.parts import Slot, end_branch, fill

_SUMS = ("add", "iadd", "radd")
# Words in the names of layers beside a residual branch
_SHORTCUTS = ("downsample", "shortcut", "skip", "proj", "identity")
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_LIBRARIES = ("torchvision.models", "timm.models", "runner.components.model.surgery.torchvision_blocks")


class _FilledSlot(Slot):
    """A slot that holds the model's own module until a regularizer replaces it."""

    def __init__(self, where: str, own: nn.Module) -> None:
        super().__init__(where)
        self.own = own

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the model's own module."""
        out: Tensor = self.own(x)
        return out


def _run_before(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pass a layer's input through its slot."""
    return (layer.get_submodule("slot")(inputs[0]), *inputs[1:])


def _run_after(layer: nn.Module, _: tuple[Any, ...], out: Tensor) -> Tensor:
    """Pass a layer's output through its slot."""
    passed: Tensor = layer.get_submodule("slot")(out)
    return passed


def _attach_slot(layer: nn.Module, where: str) -> None:
    """Attach a slot to a layer once: before it for the classifier, else after it."""
    if any(name == "slot" for name, _ in layer.named_children()):
        return
    layer.add_module("slot", Slot(where))
    if where == "head":
        layer.register_forward_pre_hook(_run_before)
    else:
        layer.register_forward_hook(_run_after)


def add_slots(model: nn.Module, seen: Trace) -> None:
    """Add every slot that the model has a place for: head, fc, block, residual."""
    names = {module: name for name, module in model.named_modules()}
    head = seen.head()
    blocks = _conv_blocks(model, seen)
    filled = _slots_from_own_dropout(model, seen, names)
    ends = _without_parallel_branches([call for call in seen.calls if _ends_residual_branch(call, seen, names)])
    for call in ends:
        _mark_branch_end(seen, call)
        if call.module not in filled:
            _attach_slot(call.module, "residual")
    for call in _hidden_activations(seen):
        _attach_slot(call.module, "fc")
    if head.producer not in filled:
        _attach_slot(head.module, "head")
    for block in blocks:
        _attach_slot(block, "block")
    if not blocks:
        _add_slots_after_pools(model)


def _add_slots_after_pools(model: nn.Module) -> None:
    """Add a slot after every pooling of a model without blocks (AlexNet, VGG)."""
    for name, pool in [(name, m) for name, m in model.named_modules() if isinstance(m, nn.MaxPool2d)]:
        fill(model, name, sequential(pool=pool, slot=Slot("block")))


def _slots_from_own_dropout(model: nn.Module, seen: Trace, names: dict[nn.Module, str]) -> set[nn.Module]:
    """Turn the model's own dropout and skipped branches into slots, and return those modules."""
    filled = set()
    for call in seen.calls:
        where = _slot_kind(call, seen, names)
        if where and call.module not in filled:
            for name in module_names(model, call.module):
                fill(model, name, _FilledSlot(where, call.module))
            filled.add(call.module)
    return filled


def _slot_kind(call: Call, seen: Trace, names: dict[nn.Module, str]) -> str | None:
    """Return the slot kind of a dropout or skip module, by what reads its output; None for other modules."""
    if call.module in seen.skips or (isinstance(call.module, DROPOUTS) and _ends_residual_branch(call, seen, names)):
        return "residual"
    if isinstance(call.module, DROPOUTS) and call.consumer:
        consumer, after = call.consumer.module, call.producer
        if consumer is seen.head().module:
            return "head"
        hidden_layer = len(call.shape) == 2 or (after is not None and is_activation(after))
        return "fc" if isinstance(consumer, nn.Linear) and hidden_layer else None
    return None


def _hidden_activations(seen: Trace) -> list[Call]:
    """Return the calls of activations after linear layers whose output goes to another layer, not to dropout."""
    return [
        call
        for call in seen.calls
        if is_activation(call.module)
        and call.producer is not None
        and (isinstance(call.producer, (nn.Linear, TokenNorm)) or is_known_norm(call.producer))
        and len(call.shape) in (2, 3)
        and call.consumer
        and isinstance(call.consumer.module, nn.Linear)
        and call.consumer.module is not seen.head().module
    ]


def _conv_blocks(model: nn.Module, seen: Trace) -> list[nn.Module]:
    """Return the convolutional blocks: the outermost modules of the library's own classes that return maps."""
    maps = {call.module for call in seen.calls if len(call.out) == 4}
    blocks: list[nn.Module] = []
    inside = {model}
    for module in model.modules():
        of_library = type(module).__module__.startswith(_LIBRARIES) and not isinstance(module, _CONTAINERS)
        if of_library and module not in inside and module in maps and _has_convs(module):
            blocks.append(module)
            inside.update(module.modules())
    return blocks


def _has_convs(block: nn.Module) -> bool:
    """Return True if a block has convolutions (windowed attention returns maps, too, with channels last)."""
    return any(isinstance(part, nn.Conv2d) for part in block.modules())


def _ends_residual_branch(call: Call, seen: Trace, names: dict[nn.Module, str]) -> bool:
    """Return True if a module's output is the residual branch that is added to a shortcut."""
    kinds = (nn.Conv2d, nn.Linear, TokenNorm, ChannelsLast, *DROPOUTS)
    if not (isinstance(call.module, kinds) or is_known_norm(call.module) or call.module in seen.skips):
        return False
    consumer = call.consumer
    path = names.get(call.module, "").split(".")
    beside = any(part.startswith(_SHORTCUTS) for part in path)
    return bool(consumer and consumer.function in _SUMS and consumer.joins and not beside)


def _without_parallel_branches(ends: list[Call]) -> list[Call]:
    """Return the branch ends that are added to a shortcut, not to each other (parallel branches)."""
    sums = Counter(id(call.consumer) for call in {call.module: call for call in ends}.values())
    return [call for call in ends if sums[id(call.consumer)] <= 1]


def _mark_branch_end(seen: Trace, end: Call) -> None:
    """Mark the last weighted layer of the branch that ends here, for `init=residual`."""
    ran = {call.module for call in seen.calls}
    for call in reversed(seen.calls[: _call_index(seen, end) + 1]):
        fused = any(is_activation(part) for part in call.module.children()) and is_known_norm(call.module)
        if fused or (is_activation(call.module) and not seen.gates(call)):
            # Zeros before an activation would never learn
            return
        quiet = [m for m in call.module.children() if isinstance(m, nn.Linear) and m not in ran]
        if quiet or isinstance(call.module, (nn.Conv2d, nn.Linear)) or is_known_norm(call.module):
            # Attention reads the weights of its layers without calling them
            end_branch(quiet[-1] if quiet else call.module)
            return


def _call_index(seen: Trace, wanted: Call) -> int:
    """Return the position of a call in the trace."""
    return next(i for i, call in enumerate(seen.calls) if call is wanted)
