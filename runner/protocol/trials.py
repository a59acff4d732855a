"""Trainings of steps 4 and 5: what they change, and the scores by which they are ranked."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runner import user_paths
from runner.engine.logs.sinks import METRICS, read_metrics
from runner.engine.monitor import Monitor
from runner.engine.saving.storage import convert_os_errors, write_atomic
from runner.protocol.context import Config, Context
from runner.protocol.plain_config import quiet_overrides
from runner.status import Status

Metric = Literal["val/loss", "val/accuracy"]
LR, DECAY = "optim.lr", "optim.weight_decay"
# Values of the hyperparameters of a training, by key
Values = Mapping[str, float]
# Validations whose mean is the score: one alone depends more on the last few steps
_LAST = 2
# A forward and a backward pass take a third of what step 1 measures as `pass_seconds`
_PASS_SHARE = 3


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A training with its scores on validation examples.

    Attributes:
        values: The values of its hyperparameters by key.
        seed: Its seed.
        score: The mean of the metric over the last two validations; nan if the training diverged.
        accuracy: The same of the accuracy, in [0, 1].
        nll: The same of the negative log-likelihood, in nats.
        folder: Its folder, relative to that of the protocol.
    """

    values: Values
    seed: int
    score: float
    accuracy: float
    nll: float
    folder: str

    @property
    def finite(self) -> bool:
        """True if it has a score."""
        return math.isfinite(self.score)


def trial_overrides(config: Config, epochs: float) -> dict[str, Any]:
    """Return the overrides of a training of so many epochs: constant rate, two or more validations, no test."""
    return {
        **quiet_overrides(config),
        "task": "train",
        "scheduler": "constant",
        "epochs": epochs,
        "steps": None,
        "probe": [],
        "doctor": "never",
        "validate_every": "1epoch" if epochs >= _LAST else "50%",
        "checkpoint_every": "100%",
    }


def train_all(context: Context, base: Config, points: Sequence[tuple[Values, int]], metric: Metric) -> list[Trial]:
    """Train points, each with its seed, and return the trials in order."""
    variants = [context.vary(base, {**values, "seed": seed}) for values, seed in points]
    results = context.train(variants)
    return [_read(result, *point, metric) for result, point in zip(results, points, strict=True)]


def _read(result: Any, values: Values, seed: int, metric: Metric) -> Trial:
    """Return the trial of a launched run."""
    path = result.folder / METRICS
    rows: list[Mapping[str, float]] = []
    if Status(result.status).complete and user_paths.is_file(path):
        with convert_os_errors(path):
            rows = [row for _, row in read_metrics(path) if "val/accuracy" in row]
    score, accuracy, nll = (_mean(rows, tag) for tag in (metric, "val/accuracy", "val/nll"))
    folder = "/".join(result.folder.parts[-3:])
    return Trial(values=dict(values), seed=seed, score=score, accuracy=accuracy, nll=nll, folder=folder)


def _mean(rows: Sequence[Mapping[str, float]], tag: str) -> float:
    """Return the mean of a score over the last validations, nan if there are none or one is not finite."""
    found = [float(row.get(tag, math.nan)) for row in rows[-_LAST:]]
    return statistics.fmean(found) if found and all(map(math.isfinite, found)) else math.nan


def averaged(trials: Sequence[Trial]) -> list[Trial]:
    """Return one trial for each set of values, with the means over its seeds; the first one's seed and folder."""
    groups: dict[str, list[Trial]] = {}
    for each in trials:
        groups.setdefault(repr(sorted(each.values.items())), []).append(each)
    return [
        Trial(
            values=each[0].values,
            seed=each[0].seed,
            score=statistics.fmean(one.score for one in each),
            accuracy=statistics.fmean(one.accuracy for one in each),
            nll=statistics.fmean(one.nll for one in each),
            folder=each[0].folder,
        )
        for each in groups.values()
    ]


def ranked(trials: Sequence[Trial], metric: Metric) -> list[Trial]:
    """Return trials, the best first: by score, equal ones by negative log-likelihood and then the smaller rate."""
    monitor = Monitor(metric)
    nan_last = [(-monitor.rank(each.score), each.nll if each.finite else math.inf) for each in trials]
    order = sorted(range(len(trials)), key=lambda i: (*nan_last[i], trials[i].values[LR]))
    return [trials[i] for i in order]


def seed_sd(trials: Sequence[Trial]) -> float:
    """Return the standard deviation over seeds, pooled over all sets of values that have several; nan without one."""
    groups: dict[str, list[float]] = {}
    for each in trials:
        if each.finite:
            groups.setdefault(repr(sorted(each.values.items())), []).append(each.score)
    several = [scores for scores in groups.values() if len(scores) > 1]
    freedom = sum(len(scores) - 1 for scores in several)
    if not freedom:
        return math.nan
    return math.sqrt(sum(statistics.variance(scores) * (len(scores) - 1) for scores in several) / freedom)


def write_trials(context: Context, trials: Sequence[Trial], metric: Metric, stages: Sequence[str] = ()) -> None:
    """Write `trials.csv` into the folder of the step, the trials in the order in which they were made."""
    keys = list(dict.fromkeys(key for each in trials for key in each.values))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    more = ["stage"] if stages else []
    table.writerow(["trial", *more, *keys, "seed", metric, "accuracy", "nll", "outcome", "run"])
    for number, each in enumerate(trials):
        scores = [f"{value:.6g}" if math.isfinite(value) else "" for value in (each.score, each.accuracy, each.nll)]
        stage = [stages[number]] if stages else []
        outcome = "done" if each.finite else "diverged"
        table.writerow(
            [number, *stage, *(each.values.get(key, "") for key in keys), each.seed, *scores, outcome, each.folder]
        )
    write_atomic(context.folder.parent / "trials.csv", text.getvalue().encode())


def seconds_of(context: Context, trainings: int, epochs: float) -> float:
    """Return the seconds that so many trainings take, about: as earlier ones did, else by the passes of step 1."""
    if (known := context.facts.get("epoch_seconds")) is not None:
        return float(known) * trainings * epochs
    batch = context.config["data"].get("batch_size")
    steps = len(context.loaded.data.train.labels) / batch if isinstance(batch, int) else 0.0
    return float(trainings * epochs * steps * context.facts.get("pass_seconds", 0.0) / _PASS_SHARE)


def words_of(values: Values) -> str:
    """Return values as overrides: `optim.lr=0.1 optim.weight_decay=0.0001`."""
    return " ".join(f"{key}={value:.4g}" for key, value in values.items())
