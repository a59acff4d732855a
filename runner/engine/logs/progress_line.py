"""The line of a run's progress: names and values, as many as there is room for."""

from __future__ import annotations

from collections.abc import Mapping

# Of the text beside the bar: what it has not, and what is left out in a narrow terminal, the first to go first.
_NEVER, _WITHOUT = ("step", "val loss"), ("images/s", "val accuracy", "left", "loss", "epoch")


def line(parts: Mapping[str, str]) -> str:
    """Return names and values as a line."""
    return "  ".join(f"{name} {value}".strip() for name, value in parts.items())


def lines(parts: Mapping[str, str], width: int) -> list[str]:
    """Return names and values as lines of a width."""
    found = list[str]()
    for name, value in parts.items():
        word = line({name: value})
        if found and len(f"{found[-1]}  {word}") <= width:
            found[-1] += f"  {word}"
        else:
            found.append(word)
    return found


def fitting(parts: Mapping[str, str], width: int) -> str:
    """Return as many parts of a line as fit: the first to go are those that `_WITHOUT` does not have."""
    left = {name: value for name, value in parts.items() if name not in _NEVER}
    for name in (*(each for each in parts if each not in _WITHOUT), *_WITHOUT):
        if len(line(left)) > width:
            left.pop(name, None)
    return line(left)
