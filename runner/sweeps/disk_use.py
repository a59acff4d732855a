"""Before the first trial of a sweep: the disk that its trials will take, and an error if that much is not free."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import user_paths
from runner.engine.saving import storage
from runner.engine.saving.disk import free_bytes
from runner.engine.saving.manifest import FOLDER
from runner.errors import StorageError
from runner.printing import counted, size_in_words
from runner.sweeps.launcher import Launcher
from runner.sweeps.outcome import folder_of, read_saved_result
from runner.tasks.job import Job

# Different runs whose sizes are estimated at most; the others are as large as these on average
_MOST = 32
# What the size of a run depends on
_GROUPS = (
    *("data", "model", "activation", "norm", "regularizer", "optim", "scheduler", "average", "preprocess", "probe"),
    "metric",
)
_SETTINGS = (
    *("epochs", "steps", "precision", "accumulate", "validate_every", "checkpoint_every", "keep", "log_every"),
    *("predictions", "init_from", "plugins"),
)
# Groups whose numbers with a fraction do not change it, but where they are zero
_RATES = ("optim", "regularizer", "average", "scheduler")


@dataclass(frozen=True)
class _DiskUse:
    """The bytes that trials take: when all have ended, and at most while they run; `count` of them are known."""

    final: float
    most: float
    count: float


def check_space(
    jobs: Sequence[Job], launcher: Launcher, folder: Path, say: Callable[[str], object], count: float | None = None
) -> None:
    """Say what the trials still to run will take on the disk; raises StorageError if that much is not free.

    Nothing is said where the size of no trial is known.

    Args:
        jobs: The trials; those with a result are not run again.
        launcher: Estimates the sizes.
        folder: Where the trials are.
        say: Prints a line.
        count: The number of trials, if `jobs` are examples of them; may be infinite.
    """
    left = [job for job in jobs if count is not None or not _has_result(folder_of(job))]
    count = len(left) if count is None else count
    if not left or count < 1:
        return
    use = _disk_use(left, launcher, count)
    free = free_bytes(folder)
    if use is None or free is None:
        return
    needed = use.most - sum(map(_held, left))
    if needed > free and use.count < math.inf:
        raise StorageError(
            f"{storage.printable(folder)}: {counted(int(use.count), 'trial')} need about {size_in_words(needed)}, "
            f"{size_in_words(free)} are free; choose keep=best or keep=none, fewer trials, or another outputs=<folder>"
        )
    say(f"{'disk':<14}{_in_words(use, count)}, {size_in_words(free)} free\n")


def _in_words(use: _DiskUse, count: float) -> str:
    """Return the disk use in words, with what it is at most if that is much more."""
    what = f"for {counted(int(use.count), 'trial')}" if count < math.inf else "for each trial"
    of = f" of {int(count)}" if use.count < count < math.inf else ""
    most = f" (up to {size_in_words(use.most)} while they run)" if use.most > 1.5 * use.final else ""
    return f"about {size_in_words(use.final)} {what}{of}{most}"


def _disk_use(jobs: Sequence[Job], launcher: Launcher, count: float) -> _DiskUse | None:
    """Return the disk use of so many trials like jobs, None if no size is known."""
    different = {_key(job.config): job.config for job in jobs}
    keys = _spread(list(different))
    found = dict(zip(keys, launcher.sizes([different[key] for key in keys], _least(count, len(jobs))), strict=True))
    sizes = [size for size in found.values() if size]
    if not sizes:
        return None
    mean = (sum(final for final, _ in sizes) / len(sizes), sum(most for _, most in sizes) / len(sizes))
    # Trials of a kind that cannot be built are left out, those of kinds that nobody looked at are not
    known = [size for job in jobs if (size := found.get(_key(job.config), mean))]
    times = (1.0 if math.isinf(count) else count) / len(jobs)
    more = sorted((most - final for final, most in known), reverse=True)
    final = times * sum(final for final, _ in known)
    return _DiskUse(final, final + sum(more[: launcher.at_once()]), count / len(jobs) * len(known))


def _least(count: float, known: int) -> int:
    """Return the number of trials that a launcher can rely on."""
    return known if math.isinf(count) else int(count)


def _spread(keys: list[str]) -> list[str]:
    """Return keys at equal distances, all if they are few."""
    step = max(1.0, len(keys) / _MOST)
    return [keys[int(number * step)] for number in range(min(len(keys), _MOST))]


def _key(config: Mapping[str, Any]) -> str:
    """Return a text that is equal for configs whose runs have the same size."""
    # A task of the user's own may do without some
    groups = {name: config.get(name) for name in _GROUPS}
    # Rates, and the seed of generated data
    for name in _RATES:
        groups[name] = _without_rates(groups[name])
    return repr((groups, [config.get(name) for name in _SETTINGS]))


def _without_rates(value: Any) -> Any:
    """Return nested values in which numbers with a fraction are 0 or 1."""
    if isinstance(value, Mapping):
        return {key: _without_rates(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_rates(each) for each in value]
    return float(value != 0) if isinstance(value, float) else value


def results_in(folder: Path) -> int:
    """Return how many trials in the folder of a sweep have a result."""
    return sum(_has_result(folder / name) for name in user_paths.listed(folder, error=StorageError))


def _has_result(folder: Path) -> bool:
    """Return True if a trial has a result."""
    found = read_saved_result(folder)
    return found is not None and found.status.is_result


def _held(job: Job) -> int:
    """Return the bytes of the checkpoints that an interrupted trial has already."""
    checkpoints = folder_of(job) / FOLDER
    try:
        names = user_paths.listed(checkpoints) if user_paths.is_dir(checkpoints, links=False) else []
        found = [user_paths.status(checkpoints / name, links=False) for name in names]
    except Exception:
        return 0
    return sum(each.st_size for each in found if each)
