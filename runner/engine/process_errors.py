"""Errors of several processes that train one model."""

from __future__ import annotations

from runner.errors import RunnerError


class ProcessLost(RunnerError):
    """Another process of the run has ended or does not answer."""

    exit_code = 8


class ProcessesDiffer(RunnerError):
    """The processes of a run do not have the same config, data or weights."""

    exit_code = 8
