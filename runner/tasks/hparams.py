"""Hyperparameters for TensorBoard's HPARAMS page: each key has one type, whichever value a run has.

TensorBoard can neither sort nor filter a column in which one run has a number and another one text. Trials of a sweep
are processes of their own, so the type follows from the annotation of the knob:

- a number or a truth value, if its values are of this type only; null is missing, and so is a batch size of `auto`
- else text, also for the numbers among them (`init.head=0.1` beside `zeros`); null is missing
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from runner.batch_sizes import BatchSize, is_automatic
from runner.engine.fingerprint import Fingerprint
from runner.engine.logs.plugin_pages import flatten, to_text
from runner.errors import brief
from runner.hashes import digest
from runner.keys import hyperparameters, key_marks, named_origins, short_keys
from runner.registry import find, knobs, names
from runner.roles import Role
from runner.settings import SETTINGS
from runner.tasks.job import Job

_Value = bool | float | str
# Characters of the words of a row's name; the page cuts longer ones
_MOST_WORDS = 80


def row_name(job: Job, fingerprint: Fingerprint) -> str:
    """Return the name of a trial's row on the page, `optim=adam, lr=0.1 (3f2a91c4)`.

    The seeds of one configuration share a row if they read the same data. The end tells apart rows of the same words.
    """
    words = [word.lstrip("+").partition("=") for word in job.overrides]
    given = {key: value for key, _, value in words if _distinguishes(key)}
    # A trial's folder is named by what is swept, unless hydra.sweep.subdir names it
    named = {word.partition("=")[0] for word in re.split("[,-]", job.folder_name)}
    given = {key: given[key] for key in given if any(f".{key}".endswith(f".{word}") for word in named)} or given
    text = ", ".join(f"{short}={given[key]}" for key, short in short_keys(given).items()) or "default"
    return f"{brief(text, _MOST_WORDS)} ({digest([job.group_hash, fingerprint.id])})"


def _distinguishes(key: str) -> bool:
    """Return True if a key of a command line may tell two rows of the page apart."""
    marks = key_marks(key)
    return not key.startswith("hydra") and not marks.unnamed and marks.role is Role.EXPERIMENT


def typed_hparams(config: Mapping[str, Any]) -> dict[str, _Value]:
    """Return the hyperparameters of a config by dotted key, without those that are null."""
    # People read words, and the names of the rows tell these apart
    found = {**hyperparameters(config), **named_origins(config)}
    if is_automatic(found):  # effective_batch_size says what the run learns from
        found["data"] = {key: value for key, value in found["data"].items() if key != "batch_size"}
    return {key: _typed(value, _type_of(key, found)) for key, value in flatten(found) if value is not None}


def _typed(value: Any, kind: type | None) -> _Value:
    """Return a value as its type, as text if it is not of this type; None: the type that the value itself has."""
    kind = type(value) if kind is None else kind
    kind = float if kind is int else kind
    if kind is bool and isinstance(value, bool):
        return value
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return to_text(value)


def _type_of(key: str, config: Mapping[str, Any]) -> type | None:
    """Return the type of a key: bool, float or str; None for a knob of a plugin that is not loaded."""
    group, _, knob = key.partition(".")
    if not knob:
        return _only_type(_kinds(SETTINGS[group])) if group in SETTINGS else str
    if not isinstance(config[group], Mapping):
        return str
    if "name" in config[group]:
        return _type_of_knob(group, knob)
    option, _, knob = knob.partition(".")
    return _type_of_knob(group, knob, option)


def _type_of_knob(kind: str, knob: str, option: str | None = None) -> type | None:
    """Return the type of a knob of an option; without one, of all options, which share the key `<kind>.<knob>`.

    What is below a mapping (`knob` has a dot) is text.
    """
    options = names(kind) if option is None else [option] if option in names(kind) else []
    if "." in knob:
        return str
    found = [each[knob] for each in (_kinds_of_knobs(find(kind, each)) for each in options) if knob in each]
    return _only_type(frozenset().union(*found)) if found else None


@cache
def _kinds_of_knobs(factory: Callable[..., Any]) -> dict[str, frozenset[type]]:
    """Return the types of the values that each knob of a component allows."""
    return {knob: _kinds(annotation) for knob, annotation in knobs(factory).items()}


def _only_type(kinds: frozenset[type]) -> type:
    """Return the type of values of some types, text if they are of several."""
    kinds -= {type(None)}
    return float if kinds and kinds <= {int, float} else bool if kinds == {bool} else str


def _kinds(annotation: Any) -> frozenset[type]:
    """Return the types of the values that an annotation allows."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation == BatchSize:  # a run has found its number when it logs
        return frozenset({int})
    if origin is Annotated:
        return _kinds(arguments[0])
    if origin is Literal:
        return frozenset(map(type, arguments))
    if origin in (Union, types.UnionType):
        return frozenset().union(*map(_kinds, arguments))
    return frozenset({origin or annotation})
