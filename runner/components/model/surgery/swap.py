"""What swapping activations and swapping norms share: when parts are the same, what they are called, what is said."""

from __future__ import annotations

from collections import Counter

from torch import nn

from runner.components.model.surgery.kinds import is_known_norm
from runner.errors import ConfigError

Changes = Counter[str]  # what was done -> places


def alike(old: nn.Module, new: nn.Module) -> bool:
    """Tell whether a part is of the kind asked for already, with the same numbers (in place or not)."""
    if type(new) not in type(old).__mro__ or (is_known_norm(old) and list(old.state_dict()) != list(new.state_dict())):
        return False
    return numbers(old) == numbers(new)


def numbers(part: nn.Module) -> str:
    """Return the numbers of a part as text, without the word inplace."""
    words = [word for word in part.extra_repr().split(", ") if word not in ("", "inplace", "inplace=True")]
    return ", ".join(words)


def names_of(model: nn.Module, part: nn.Module) -> list[str]:
    """Return every name under which a model has a part."""
    return [name for name, module in model.named_modules(remove_duplicate=False) if module is part]


def title(part: nn.Module) -> str:
    """Return what a part is called: the class, of the norm inside where it is wrapped."""
    return type(getattr(part, "norm", part)).__name__


def counted(places: int) -> str:
    """Return a number of places in words."""
    return f"{places} place{'s' if places != 1 else ''}"


def beyond(what: str, finding: str, wanted: str) -> ConfigError:
    """Return the error for a part that cannot be swapped."""
    rest = "norm" if wanted.startswith("activation") else "activation"
    return ConfigError(f"model.arch: {what} {finding}, which {wanted} cannot reach; model.swap=[{rest}] leaves it")


def words(changes: Changes) -> str:
    """Return the changes in words: `20 BatchNorm2d -> GroupNorm, 17 ReLU -> GELU`."""
    return ", ".join(f"{places} {what}" for what, places in changes.items())
