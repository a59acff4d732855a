"""Run all symptoms on a run, runner's own and those of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import runner.doctor.symptoms  # noqa: F401  (registers them)
from runner.decoration import decorative
from runner.doctor.finding import Finding
from runner.doctor.history import History
from runner.doctor.order import in_order
from runner.registry import find, is_plugins, names


def diagnose(history: History) -> list[Finding]:
    """Return the findings of a run, the worst first, without those that another one explains.

    A symptom that raises, as one of a plugin may, is skipped with a line that names it.
    """
    return in_order(_findings(history))


def _findings(history: History) -> Iterator[Finding]:
    """Yield what each symptom finds."""
    for name in names("symptom"):
        rule = find("symptom", name)
        with decorative(f"symptom={name}{_owner(rule)}: not checked"):
            found = rule(history)
            if isinstance(found, Finding):
                yield found
            elif found is not None:
                raise TypeError(f"returned a {type(found).__name__}; expected a Finding or None")


def _owner(rule: Callable[..., Any]) -> str:
    """Return the module of a rule of a plugin in words, empty for runner's own."""
    return f" of {rule.__module__}" if is_plugins(rule) else ""
