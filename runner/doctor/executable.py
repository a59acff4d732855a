"""Advice that can be executed: what does not compose with the config of a run is dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from runner.doctor.finding import Finding
from runner.errors import RunnerError

_Config = dict[str, Any]
# `runner.tasks.job.Vary`, which is further down
_Vary = Callable[[_Config, Sequence[str]], _Config]


def with_executable_advice(findings: Sequence[Finding], config: _Config, vary: _Vary) -> list[Finding]:
    """Return the findings with the advice that the command line accepts on top of a config, and that changes it."""
    known: dict[tuple[str, ...], bool] = {}

    def is_executable(words: tuple[str, ...]) -> bool:
        if words not in known:
            try:
                known[words] = vary(config, words) != config
            except RunnerError:
                known[words] = False
        return known[words]

    return [replace(each, advice=tuple(filter(is_executable, each.advice))) for each in findings]
