"""Write docs/torchvision.md: PYTHONPATH=. python docs/make_torchvision_table.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision import models

import runner.components  # noqa: F401  (registers them)
from runner.components.model.library_models import torchvision_arguments
from runner.components.model.surgery import adapt, separate_activations
from runner.components.model.surgery.trace import trace_forward
from runner.engine.parts import Slot, ends_branch
from runner.errors import ConfigError
from runner.registry import build

ROOT = Path(__file__).parent.parent
NORMS = ("batch", "layer", "instance", "group", "none")
HEAD = """# torchvision's models

With this page you can see which activations, norms and regularizers act on a torchvision model, and where.

`PYTHONPATH=. python docs/make_torchvision_table.py` makes this page. A test compares it with the models.

The table describes `model=torchvision model.arch=<name>`, at the image size of the model and with 1,000 classes:

- **activations**, **norms**: the number of places in one forward pass where `activation=` and `norm=` act. A `+` before
  the number means that the model has no norms and gets them between its layers and their activations. Sigmoid gates do
  not count as activations.
- **slots**: where regularizers can be inserted (`head`, `fc`, `block`, `residual`).
- **zero-init ends**: the layers that `init=residual` sets to zero.
- **rejected**: the error message for what does not work, before anything is trained. All else works.

| model | parameters | activations | norms | slots | zero-init ends | rejected |
|---|---|---|---|---|---|---|
"""


class _OnMeta(TorchFunctionMode):
    """Create tensors on the meta device, so that large models are built immediately."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a torch function; `torch.empty` returns a tensor on the meta device."""
        return func(*args, **{**(kwargs or {}), **({"device": "meta"} if func is torch.empty else {})})


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    arch: str
    parameters: int
    activations: int
    norms: int
    added: int
    slots: Mapping[str, int]
    ends: int
    rejected: list[str]

    def __str__(self) -> str:
        norms = f"{self.norms}" if self.norms else f"+{self.added}"
        slots = ", ".join(f"{n} {where}" for where, n in self.slots.items())
        cells = (self.arch, f"{self.parameters:,}", self.activations, norms, slots, self.ends, "; ".join(self.rejected))
        return "| " + " | ".join(map(str, cells)) + " |"


def row(arch: str) -> Row:
    """Return the row of a model, found by building it with each norm and activation."""
    plain = _on_meta(arch)
    parameters = sum(p.numel() for p in plain.parameters())
    separate_activations(plain)
    seen = trace_forward(plain, _shape_of(arch))
    tried = {norm: _attempt(arch, "gelu", norm) for norm in NORMS} | {"prelu": _attempt(arch, "prelu", "batch")}
    made = next(model for model in tried.values() if isinstance(model, nn.Module))
    slots = Counter(m.where for m in made.modules() if isinstance(m, Slot))
    norms = len({call.module for call in seen.norms()})
    added = (
        0 if norms or isinstance(tried["batch"], str) else sum("BatchNorm" in type(m).__name__ for m in made.modules())
    )
    ends = sum(ends_branch(m) for m in made.modules())
    rejected = [f"`{line}`" for line in dict.fromkeys(line for line in tried.values() if isinstance(line, str))]
    return Row(arch, parameters, len(seen.activations()), norms, added, dict(sorted(slots.items())), ends, rejected)


def _on_meta(arch: str) -> nn.Module:
    """Return a model whose weights have no storage."""
    with _OnMeta():
        model: nn.Module = models.get_model(arch, weights=None, num_classes=1000, **_settings_of(arch))
    return model


def _settings_of(arch: str) -> dict[str, Any]:
    """Return the settings of `model=torchvision`, without the random weights of googlenet, which take a minute."""
    return torchvision_arguments(arch, _shape_of(arch)) | (
        {"init_weights": False} if arch in ("googlenet", "inception_v3") else {}
    )


def _shape_of(arch: str) -> tuple[int, int, int]:
    """Return the image shape (C, H, W) that a model is made for."""
    side = 299 if arch == "inception_v3" else 224
    return 3, side, side


def _attempt(arch: str, activation: str, norm: str) -> nn.Module | str:
    """Return the model with an activation and a norm, or the error message that rejects the combination."""
    make: Callable[[], nn.Module] = partial(_on_meta, arch)
    parts = partial(build, "activation", _config("activation", activation)), build("norm", _config("norm", norm))
    try:
        return adapt(make, _shape_of(arch), *parts, swap=None, trained=False, what=f"torchvision's {arch}")
    except ConfigError as error:
        text = str(error)
        return text if text.startswith("norm") else f"norm={norm}: {text}"


def _config(kind: str, name: str) -> dict[str, Any]:
    """Return the content of an option's YAML file."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "conf" / kind / f"{name}.yaml").read_text())
    return values


def _rows() -> Iterator[str]:
    """Yield the rows of the table, one per model."""
    for arch in models.list_models(module=models):
        yield f"{row(arch)}\n"


if __name__ == "__main__":
    (ROOT / "docs" / "torchvision.md").write_text(HEAD + "".join(_rows()))
