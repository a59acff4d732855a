"""Write docs/torchvision.md: what torchvision's models take. With PYTHONPATH=. run docs/make_torchvision_table.py."""

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
from runner.components.model.foreign import settings
from runner.components.model.surgery import adapted, separate
from runner.components.model.surgery.trace import trace
from runner.engine.parts import Slot, ends_branch
from runner.errors import ConfigError
from runner.registry import build

ROOT = Path(__file__).parent.parent
ACTIVATIONS = ("gelu", "prelu")  # one without weights, one with: no other difference matters
NORMS = ("batch", "layer", "instance", "group", "none")
HEAD = """# torchvision's models

Made by `PYTHONPATH=. python docs/make_torchvision_table.py`; a test holds it against the models.

What `model=torchvision model.arch=<name>` takes, at the size the model is made for and with 1,000 classes:

- **activations**, **norms**: the places in one forward pass where `activation=` and `norm=` act. `+` before a number:
  the model has no norms and gets them between its layers and their activations. Sigmoids that gate are no activations.
- **places**: what regularizers fill (`head`, `fc`, `block`, `residual`); **ends**: what `init=residual` sets to zero.
- **cannot**: the one line that the program says before anything is trained. Every other activation and norm works.

| model | parameters | activations | norms | places | ends | cannot |
|---|---|---|---|---|---|---|
"""


class Unfilled(TorchFunctionMode):
    """Make weights without storage, so that giants are built at once."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function of torch; `empty` gives a tensor on meta."""
        return func(*args, **{**(kwargs or {}), **({"device": "meta"} if func is torch.empty else {})})


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    arch: str
    parameters: int
    activations: int
    norms: int
    added: int
    places: Mapping[str, int]
    ends: int
    cannot: list[str]

    def __str__(self) -> str:
        norms = f"{self.norms}" if self.norms else f"+{self.added}"
        places = ", ".join(f"{n} {where}" for where, n in self.places.items())
        cells = (self.arch, f"{self.parameters:,}", self.activations, norms, places, self.ends, "; ".join(self.cannot))
        return "| " + " | ".join(map(str, cells)) + " |"


def row(arch: str) -> Row:
    """Return what a model takes, from trying it."""
    plain = unfilled(arch)
    parameters = sum(p.numel() for p in plain.parameters())
    separate(plain)
    seen = trace(plain, shape_of(arch))
    tried = {norm: attempt(arch, "gelu", norm) for norm in NORMS} | {"prelu": attempt(arch, "prelu", "batch")}
    made = next(model for model in tried.values() if isinstance(model, nn.Module))
    slots = Counter(m.where for m in made.modules() if isinstance(m, Slot))
    norms = len({call.module for call in seen.norms()})
    added = (
        0 if norms or isinstance(tried["batch"], str) else sum("BatchNorm" in type(m).__name__ for m in made.modules())
    )
    ends = sum(ends_branch(m) for m in made.modules())
    cannot = [f"`{line}`" for line in dict.fromkeys(line for line in tried.values() if isinstance(line, str))]
    return Row(arch, parameters, len(seen.activations()), norms, added, dict(sorted(slots.items())), ends, cannot)


def unfilled(arch: str) -> nn.Module:
    """Return a model whose weights hold nothing."""
    with Unfilled():
        model: nn.Module = models.get_model(arch, weights=None, num_classes=1000, **made_with(arch))
    return model


def made_with(arch: str) -> dict[str, Any]:
    """Return the settings of our `model=torchvision`, without drawing googlenet's weights, which takes a minute."""
    return settings(arch, shape_of(arch)) | ({"init_weights": False} if arch in ("googlenet", "inception_v3") else {})


def shape_of(arch: str) -> tuple[int, int, int]:
    """Return the images that a model is made for."""
    side = 299 if arch == "inception_v3" else 224
    return 3, side, side


def attempt(arch: str, activation: str, norm: str) -> nn.Module | str:
    """Return the model with an activation and a norm, or the line that refuses it."""
    make: Callable[[], nn.Module] = partial(unfilled, arch)
    parts = partial(build, "activation", config("activation", activation)), build("norm", config("norm", norm))
    try:
        return adapted(make, shape_of(arch), *parts, swap=None, trained=False, what=f"torchvision's {arch}")
    except ConfigError as error:
        text = str(error)
        return text if text.startswith("norm") else f"norm={norm}: {text}"


def config(kind: str, name: str) -> dict[str, Any]:
    """Return the values of an option's YAML."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "conf" / kind / f"{name}.yaml").read_text())
    return values


def lines() -> Iterator[str]:
    """Yield the table's lines, one for each model."""
    for arch in models.list_models(module=models):
        yield f"{row(arch)}\n"


if __name__ == "__main__":
    (ROOT / "docs" / "torchvision.md").write_text(HEAD + "".join(lines()))
