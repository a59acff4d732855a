"""The end of an error line about an unknown name or a wrong value: what to type instead.

Only an error needs this module and the tables of words.
"""

from __future__ import annotations

from typing import Any

from runner.field_words import NOT_HERE, normalized, value_words
from runner.out_of_scope import scope_hint
from runner.spelling import close

# Words that people take for an option of a group
_CLASSIFIES = "task=train, the default, trains a classifier; task=predict classifies images"
_NOTES = {("tracker", "tensorboard"): "TensorBoard's event file is always written; leave it out"}
_NOTES |= {("task", word): _CLASSIFIES for word in ("classify", "classification", "imageclassification", "classifier")}


def name_hint(key: str, given: str, ranked: list[str]) -> str:
    """Return which name was meant, in words: by the tables of other libraries' words, else by its spelling."""
    if note := _NOTES.get((key, normalized(given))):
        return f"; {note}"
    # The settings of a sweep are no group with options
    ours = value_words(key.rpartition(".")[0] if key.startswith("hydra.") else key, given)
    if ours and ours != NOT_HERE and (ours in ranked or "=" in ours or ours == "[]"):
        return f"; did you mean {_command(key, ours)}?"
    if scope := scope_hint(key, given):
        return scope
    # `torch.optim.AdamW` by its last word
    words = {normalized(given), normalized(given.rpartition(".")[2])}
    same = [name for name in ranked if normalized(name) in words]
    near = same or [name for name in ranked[:1] if ours is None and close(given, name)]
    return f"; did you mean '{near[0]}'?" if near else ""


def value_hint(key: str, value: Any) -> str:
    """Return which value was meant, in words, by the tables of other libraries' words."""
    ours = value_words(key, str(value)) if isinstance(value, (str, bool, int)) else None
    return f"; did you mean {_command(key, ours)}?" if ours and ours != NOT_HERE else ""


def _command(key: str, ours: str) -> str:
    """Return a name in quotes, or the whole override where the name alone is not the answer."""
    if "=" in ours:
        return " ".join(f"'{word}'" for word in ours.strip("'").split())
    return f"'{key}={ours}'" if ours == "[]" else f"'{ours}'"
