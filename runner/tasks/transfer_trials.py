"""Ways to transfer, tried over seeds on the same budget: launched runs, their scores, and paired differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.comparing.statistics import Interval, paired_interval, sample_sd
from runner.engine.saving.folder import Result
from runner.printing import counted
from runner.status import Status
from runner.tasks.job import Config, Job, Launch, Vary
from runner.tasks.report import print_progress

Overrides = Mapping[str, Any]
# Overrides of each training run
TRAINING: Overrides = {"task": "train", "name": None, "test": "never", "figures": "never"}
_SCORE = "accuracy"


@dataclass(frozen=True)
class Trials:
    """The validation accuracies at the end of runs: by way, one per seed; nan for a run that diverged."""

    scores: Mapping[str, Sequence[float]]

    def rows(self) -> list[dict[str, str]]:
        """Return a table row per way, over the runs that did not diverge."""
        return [
            {
                "way": way,
                "accuracy": f"{statistics.fmean(scores):.4f}" if scores else "diverged",
                "sd": f"{sample_sd(scores):.4f}" if len(scores) > 1 else "",
                "lowest": f"{min(scores):.4f}" if scores else "",
                "highest": f"{max(scores):.4f}" if scores else "",
                "n": str(len(scores)),
            }
            for way, every in self.scores.items()
            for scores in [[each for each in every if not math.isnan(each)]]
        ]

    def difference(self, first: str, second: str) -> Interval:
        """Return how much higher the accuracy of one way is than that of another, paired by seed."""
        differences = [a - b for a, b in zip(self.scores[first], self.scores[second], strict=True)]
        if any(map(math.isnan, differences)):
            return Interval(math.nan, math.nan, math.nan, math.nan)
        return paired_interval(differences)

    def words(self, first: str, second: str) -> str:
        """Return in words what the seeds show about two ways."""
        found = self.difference(first, second)
        known = math.isfinite(found.low)
        ends = (
            f"95 % interval {found.low:+.4f} to {found.high:+.4f}, " if known else "no interval: all differ equally, "
        )
        better = self.better(first, second)
        shown = f"{better} is better" if better else "no difference that these seeds show"
        seeds = counted(len(self.scores[first]), "seed")
        if diverged := sum(map(math.isnan, (*self.scores[first], *self.scores[second]))):
            return f"{first} - {second}: {counted(diverged, 'run')} diverged, so that they cannot be compared"
        return f"{first} - {second}: {found.mean:+.4f} ({ends}paired over {seeds}): {shown}"

    def better(self, first: str, second: str) -> str | None:
        """Return the way whose accuracy is higher by the interval, None if it has 0 or the seeds are too few."""
        found = self.difference(first, second)
        if found.low > 0:
            return first
        return second if found.high < 0 else None

    def record(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Return the scores and differences as JSON values."""
        return {
            "scores": {way: list(map(_finite, scores)) for way, scores in self.scores.items()},
            "differences": [
                {"first": a, "second": b, "mean": _finite(d.mean), "low": _finite(d.low), "high": _finite(d.high)}
                for a, b in pairs
                for d in [self.difference(a, b)]
            ],
        }


def _finite(value: float) -> float | None:
    """Return a number, None if it is not finite."""
    return value if math.isfinite(value) else None


def variants_of(
    job: Job, vary: Vary, ways: Mapping[str, Overrides], seeds: int, more: Callable[[int], Overrides] = lambda _: {}
) -> dict[str, list[Config]]:
    """Return the checked configs of each way, one per seed from that of the job on.

    Args:
        job: The job with the common config.
        vary: Makes variants.
        ways: The overrides of each way.
        seeds: The number of seeds.
        more: Returns the overrides that depend on the number of the seed, from 0.
    """
    first = job.config["seed"]
    return {
        way: [vary(job.config, {**TRAINING, **own, "seed": first + i, **more(i)}) for i in range(seeds)]
        for way, own in ways.items()
    }


def run_trials(variants: Mapping[str, Sequence[Config]], launch: Launch, folder: Path) -> Trials:
    """Run the variants of all ways together, and return their scores."""
    every = [config for configs in variants.values() for config in configs]
    print_progress(f"  {counted(len(every), 'short training')}")
    results = iter(launch(every, folder))
    return Trials({way: [_accuracy(next(results)) for _ in configs] for way, configs in variants.items()})


def _accuracy(result: Result) -> float:
    """Return the validation accuracy at the end of a run, nan if it diverged."""
    value = None if result.status is Status.DIVERGED else result.scores["val"]["last"][_SCORE]
    return math.nan if value is None else float(value)
