"""The features of a model's stages while it runs: what the next stage reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# By stage, the names of the next stage's modules
Readers = Mapping[str, Sequence[str]]
# (name of a stage, the module that reads its features, the features (B, ...)), called while the model runs
_Keep = Callable[[str, nn.Module, Tensor], None]


@contextmanager
def reading_stages(model: nn.Module, readers: Readers, keep: _Keep) -> Iterator[None]:
    """Call `keep` with the features of each stage, once: the input of the first of its readers that the model calls."""
    seen: set[str] = set()

    def hook_of(name: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[object, ...]) -> None:
            if name not in seen and inputs and (features := _as_tensor(inputs[0])) is not None:
                seen.add(name)
                keep(name, module, features)

        return hook

    handles = [
        model.get_submodule(path).register_forward_pre_hook(hook_of(name))
        for name, paths in readers.items()
        for path in paths
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _as_tensor(value: object) -> Tensor | None:
    """Return an input as one tensor: that of a DenseNet's layer is a list of tensors."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(each, Tensor) for each in value):
        return torch.cat(list(value), dim=1)
    return value if isinstance(value, Tensor) and value.ndim > 1 else None
