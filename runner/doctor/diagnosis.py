"""Run all symptoms on a run, runner's own and those of plugins."""

from __future__ import annotations

import inspect
import json
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import runner.doctor.symptoms  # noqa: F401  (registers them)
from runner.decoration import decorative
from runner.doctor.finding import Finding
from runner.doctor.history import History
from runner.doctor.order import in_order
from runner.errors import PLUGIN, PluginError, describe
from runner.registry import find, is_plugins, names, wrong_product
from runner.user_paths import near

_Rule = Callable[[History], Finding | None]
_KIND = "symptom"


def diagnose(history: History) -> list[Finding]:
    """Return the findings of a run, the worst first, without those that another one explains.

    A symptom that raises, as one of a plugin may, is skipped with a line that names it.
    """
    return in_order(_findings(history))


def _findings(history: History) -> Iterator[Finding]:
    """Yield what each symptom finds."""
    for name in names(_KIND):
        rule = find(_KIND, name)
        with decorative(f"symptom {name}: not checked"):
            found = _of_plugin(name, rule, history) if is_plugins(rule) else rule(history)
            if found is not None:
                yield found


def _of_plugin(name: str, rule: _Rule, history: History) -> Finding | None:
    """Return what a symptom of a plugin finds; raises PluginError, with its place, if that is no finding."""
    try:
        found = rule(history)
    except Exception as error:
        raise PluginError(f"{PLUGIN}{_place(rule, error)}: {describe(error)}") from error
    if found is None:
        return None
    if not isinstance(found, Finding):
        raise wrong_product(_KIND, name, f"returned {type(found).__name__}; expected a Finding or None")
    try:
        json.dumps(found.to_record(), allow_nan=False)
    except Exception as error:
        raise wrong_product(_KIND, name, f"returned a Finding with wrong fields ({describe(error)})") from error
    return found


def _place(rule: _Rule, error: BaseException) -> str:
    """Return the file and line of a plugin's rule that an error passed through last."""
    code: Any = getattr(inspect.unwrap(rule), "__code__", None)
    if code is None:
        return rule.__module__
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code is code]
    return f"{near(code.co_filename)}:{lines[-1] if lines else code.co_firstlineno}"
