"""State dicts of modules with the versions of their layout, which a module needs to read a state of its own.

Torch stores a version for each module beside the tensors (`_metadata` of a state dict, documented under
`torch.nn.Module.load_state_dict`). Some modules rename or reject tensors without it, for example torchvision's MNASNet.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

# torch.nn.Module's own version; only others are stored
_DEFAULT = 1
_VERSION = "version"


class StateDict(dict[str, Tensor]):
    """Tensors by name.

    Attributes:
        versions: The version of each module that has another than torch's default, by the module's name; None if they
            are unknown, as in a checkpoint that was saved without them.
    """

    versions: dict[str, int] | None = None


def state_of(**modules: nn.Module) -> StateDict:
    """Return the tensors and versions of some modules, with `<keyword>.` before each name."""
    found = StateDict()
    versions: dict[str, int] = {}
    for prefix, module in modules.items():
        state = module.state_dict()
        found.update({f"{prefix}.{name}": tensor for name, tensor in state.items()})
        versions |= {f"{prefix}.{name}": version for name, version in versions_in(state).items()}
    found.versions = versions
    return found


def load_state(
    module: nn.Module, tensors: Mapping[str, Tensor], versions: Mapping[str, int] | None, *, strict: bool = True
) -> None:
    """Load tensors into a module.

    Args:
        module: The module.
        tensors: Its parameters and buffers by name.
        versions: The versions that the tensors were saved with; None: the module's own.
        strict: As for `torch.nn.Module.load_state_dict`.

    Raises:
        RuntimeError: The tensors are of another model.
    """
    own: Mapping[str, Mapping[str, Any]] = getattr(module.state_dict(keep_vars=True), "_metadata", {})
    # `load_state_dict` reads this attribute
    state: Any = OrderedDict(tensors)
    state._metadata = OrderedDict(
        (name, meta if versions is None else {**meta, _VERSION: versions.get(name, _DEFAULT)})
        for name, meta in own.items()
    )
    module.load_state_dict(state, strict=strict)


def load_part(prefix: str, module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Load the tensors whose names begin with `<prefix>.` into a module; RuntimeError if they are of another model."""
    start = f"{prefix}."
    tensors = {name.removeprefix(start): tensor for name, tensor in saved.items() if name.startswith(start)}
    load_state(module, tensors, part_versions(prefix, saved))


def part_versions(prefix: str, saved: Mapping[str, Tensor]) -> dict[str, int] | None:
    """Return the versions of the modules whose names begin with `<prefix>.`, None if the state has none."""
    start = f"{prefix}."
    versions = saved.versions if isinstance(saved, StateDict) else None
    if versions is None:
        return None
    return {name.removeprefix(start): each for name, each in versions.items() if name.startswith(start)}


def versions_in(state: Mapping[str, Any]) -> dict[str, int]:
    """Return the versions in a state dict of torch that are not the default, by the module's name."""
    own: Mapping[str, Mapping[str, Any]] = getattr(state, "_metadata", {})
    listed = {name: meta.get(_VERSION) for name, meta in own.items()}
    return {name: version for name, version in listed.items() if isinstance(version, int) and version != _DEFAULT}
