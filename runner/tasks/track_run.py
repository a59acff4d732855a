"""The trackers of a run: built from its config, and fed while it trains."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.decoration import decorative
from runner.engine.saving.folder import Result
from runner.passwords import masked
from runner.printing import counted
from runner.registry import build
from runner.tasks.job import Job
from runner.tasks.run_folder import Run
from runner.trackers.contract import TrackedRun, Tracker
from runner.trackers.follower import End, Follower, write_warning
from runner.trackers.record import Record

# Seconds that the end of a run waits for its trackers, all together
PATIENCE = 30.0


def build_trackers(job: Job) -> dict[str, Tracker]:
    """Return the trackers of a job by name; raises ConfigError if one is not installed."""
    if not job.world.is_main:
        return {}
    chosen: Mapping[str, Any] = job.config["tracker"]
    return {
        name: build("tracker", {"name": name, **knobs}, key=f"tracker.{name}", outputs=job.config["outputs"])
        for name, knobs in chosen.items()
    }


@contextmanager
def tracked(run: Run, job: Job, trackers: Mapping[str, Tracker]) -> Iterator[None]:
    """Send the rows of a run to its trackers until it has ended, and then for at most `PATIENCE` seconds."""
    followers: dict[str, Follower] = {}
    record: Record | None = None
    with decorative("trackers: not started"):
        record = Record(run.folder) if trackers else None
        described = _described(run.folder, job)
        for name, tracker in trackers.items():
            if record and not (record.entry(name).finished and run.result.status.finished):
                followers[name] = Follower(name, tracker, described, record)
    try:
        yield
    finally:
        if record and followers:
            with decorative("trackers: not ended"):
                _end(run, followers, record)


def _described(folder: Path, job: Job) -> TrackedRun:
    """Return what trackers are told about a run."""
    sweep = folder.parent.name if job.is_trial else None
    config: dict[str, Any] = _without_passwords(job.config)
    return TrackedRun(folder, folder.name, job.group_hash, sweep, config)


def _without_passwords(value: Any) -> Any:
    """Return a value with `***` for the password of each URL in it."""
    if isinstance(value, Mapping):
        return {key: _without_passwords(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_passwords(item) for item in value]
    return masked(value) if isinstance(value, str) else value


def _end(run: Run, followers: Mapping[str, Follower], record: Record) -> None:
    """Wait for the trackers, and say which rows are missing."""
    end = End(str(run.result.status), run.result.status.finished, _final_scores(run.result))
    for follower in followers.values():
        follower.end(end)
    until = time.monotonic() + PATIENCE
    slow = [follower for follower in followers.values() if not follower.wait(max(0.0, until - time.monotonic()))]
    record.close()
    for name, follower in followers.items():
        if follower in slow:
            follower.abandon()
        if follower in slow or follower.failed:
            rows = counted(follower.missing(), "row")
            write_warning(f"tracker={name}: {rows} not sent; resume={shlex.quote(str(run.folder))} sends them")


def _final_scores(result: Result) -> dict[str, float]:
    """Return the scores that `metrics.jsonl` does not have, by tag."""
    return dict(_flat("test", (result.scores or {}).get("test", {})))


def _flat(tag: str, scores: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield nested scores by their tags."""
    for name, value in scores.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{tag}/{name}", value)
        else:
            yield f"{tag}/{name}", value
