"""Scores with several meanings: the loss of runs that train different losses, or that older versions made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from runner.comparing.groups import Group
from runner.comparing.runs import Run
from runner.comparing.verdicts import Criterion
from runner.engine.monitor import Monitor
from runner.errors import ConfigError

# Scores of a validation, as the tables show them
SCORES = ("val/accuracy", "val/loss", "val/nll")
# Most losses that the error lists
_SHOWN = 3


def check_same_score(runs: Sequence[Run], metric: str, key: str = "task.metric") -> None:
    """Raise ConfigError if the runs measure a score in several ways: the loss, by different losses or versions."""
    if Monitor(metric).metric != "loss":
        return
    other = f"use {metric.partition('/')[0]}/nll"
    if len(schemas := _schemas(runs)) > 1:
        words = ", ".join(f"{count} of schema {schema}" for schema, count in sorted(schemas.items()))
        raise ConfigError(
            f"{key}: got '{metric}', which is the negative log-likelihood in results of schema 1 and the "
            f"configured loss in later ones ({words}); {other}"
        )
    found = Counter(map(_loss_of, runs))
    if len(found) > 1 and 1 not in schemas:
        words = ", ".join(f"{loss} in {count}" for loss, count in found.most_common(_SHOWN))
        raise ConfigError(
            f"{key}: got '{metric}', which is another loss in some runs ({words}); {other} or val/accuracy"
        )


def check_is_known(groups: Sequence[Group], criterion: Criterion) -> None:
    """Raise ConfigError if no complete run has the score of a metric that a run need not compute."""
    metric, complete = criterion.score, [run for group in groups for run in group.complete]
    if metric.is_of_component and complete and all(run.score(metric.tag, criterion.at) is None for run in complete):
        best = "; task.at=best is known" if any(run.score(metric.tag, "best") is not None for run in complete) else ""
        raise ConfigError(
            f"task.metric: got '{metric.tag}', which no run has at its {criterion.at} validation; "
            f"runs compute it at each validation with metric=[{metric.metric}]{best}"
        )


def shared_scores(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the scores that the results of all runs measure in one way, whatever their losses are."""
    return tuple(each for each in SCORES if len(_schemas(runs)) == 1 or Monitor(each).metric != "loss")


def _schemas(runs: Sequence[Run]) -> Counter[int]:
    """Return the schemas of the results that hold scores, with their counts."""
    return Counter(run.result.schema for run in runs if run.result.scores)


def _loss_of(run: Run) -> str:
    """Return the loss of a run with the knobs that `val/loss` depends on."""
    meant = Monitor("val/loss").changes_with
    knobs = {key: value for key, value in run.config["loss"].items() if value is not None and meant(f"loss.{key}")}
    return " ".join(str(value) if key == "name" else f"{key}={value}" for key, value in knobs.items())
