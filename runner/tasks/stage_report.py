"""The output of task=probe_stages: a table on the screen, `stages.json`, and the plot of accuracy against depth."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from runner.engine.figures.picture import figure, new_figure
from runner.screen_tables import print_table
from runner.tasks.linear_probe import LinearProbe

_SCHEMA = 1
_NOT_FINITE = "not finite"
# Stages whose names are written horizontally
_MOST_HORIZONTAL = 8


@dataclass(frozen=True)
class StageScore:
    """The scores of one stage's features.

    Attributes:
        stage: The name of the stage.
        features: Their number.
        probe: The linear classifier on them; None if they are not finite.
        logme: LogME on training examples.
        h_score: The H-score on training examples.
    """

    stage: str
    features: int
    probe: LinearProbe | None = None
    logme: float = math.nan
    h_score: float = math.nan


@dataclass(frozen=True)
class StageReport:
    """The scores of all stages from the input to the head, and what they were measured on.

    Attributes:
        scores: One per stage.
        weights: The weights of the model, for messages.
        data: The name of the data set, and its fingerprint.
        train: The number of training examples.
        val: The number of validation examples.
        chance: The share of the most frequent class on validation.
        left_out: The stages that the model does not call in evaluation.
    """

    scores: Sequence[StageScore]
    weights: str
    data: tuple[str, str]
    train: int
    val: int
    chance: float
    left_out: Sequence[str] = ()

    @property
    def best(self) -> StageScore | None:
        """Return the stage of the highest accuracy, the first of equal ones; None if no features are finite."""
        scored = [each for each in self.scores if each.probe]
        return max(scored, key=_accuracy, default=None)


def _accuracy(score: StageScore) -> float:
    """Return the accuracy of a stage, nan if its features are not finite."""
    return score.probe.accuracy if score.probe else math.nan


def show_stages(report: StageReport) -> None:
    """Print the table of the stages, with notes that say what was measured."""
    rows = [_row(each) for each in report.scores]
    notes = [
        f"linear classifiers on {report.train} training examples;",
        f"L2 is chosen, and accuracy measured, on {report.val} validation examples (± standard error);",
        f"the most frequent class has {report.chance:.4f} of them",
    ]
    if report.left_out:
        notes.append(f"not called in evaluation: {', '.join(report.left_out)}")
    if best := report.best:
        place = [each.stage for each in report.scores].index(best.stage) + 1
        notes.append(
            f"highest accuracy: {best.stage}, {_accuracy(best):.4f} (stage {place} of {len(report.scores)} below the "
            "head)"
        )
    print_table(rows, optional=("L2", "H-score", "LogME", "features"), title=f"stages of {report.weights}", notes=notes)


def _row(score: StageScore) -> dict[str, str]:
    """Return the row of a stage."""
    probe = score.probe
    return {
        "stage": score.stage,
        "features": f"{score.features:,}",
        "accuracy": f"{probe.accuracy:.4f}" if probe else _NOT_FINITE,
        "±": f"{probe.standard_error:.4f}" if probe else "",
        "L2": f"{probe.penalty:g}" if probe else "",
        "LogME": f"{score.logme:.4f}" if probe else "",
        "H-score": f"{score.h_score:.4f}" if probe else "",
    }


def stages_record(report: StageReport) -> bytes:
    """Return the content of `stages.json`; numbers that are not finite are null."""
    record = {
        "schema": _SCHEMA,
        "weights": report.weights,
        "data": {"name": report.data[0], "fingerprint": report.data[1]},
        "examples": {"train": report.train, "val": report.val},
        "most_frequent_class": report.chance,
        "not_called": list(report.left_out),
        "stages": [_entry(each) for each in report.scores],
    }
    return json.dumps(record, indent=1, allow_nan=False).encode() + b"\n"


def _entry(score: StageScore) -> dict[str, Any]:
    """Return the numbers of a stage."""
    probe = asdict(score.probe) if score.probe else dict.fromkeys(LinearProbe.__dataclass_fields__)
    numbers = {
        **probe,
        "standard_error": score.probe.standard_error if score.probe else None,
        "logme": score.logme,
        "h_score": score.h_score,
    }
    finite = {name: value if value is None or math.isfinite(value) else None for name, value in numbers.items()}
    return {"stage": score.stage, "features": score.features, **finite}


@figure("png")
def stages_figure(report: StageReport) -> Any:
    """Draw the accuracy of a linear classifier against depth, and both transferability scores below it."""
    names = [each.stage for each in report.scores]
    depth = range(1, len(names) + 1)
    sheet = new_figure(max(6.0, 1.5 + 0.55 * len(names)), 6.2, layout="constrained")
    above, below = sheet.subplots(2, 1, sharex=True, height_ratios=[1.7, 1])
    errors = [each.probe.standard_error if each.probe else math.nan for each in report.scores]
    above.errorbar(depth, [_accuracy(each) for each in report.scores], errors, marker="o", capsize=3, color="C0")
    above.axhline(report.chance, color="0.6", linestyle=":", label="most frequent class")
    above.set_ylabel("validation accuracy")
    above.set_title(f"Linear classifier on each stage: {report.data[0]}", fontsize=11, parse_math=False)
    above.legend(frameon=False, fontsize=9)
    right = below.twinx()
    lines = [
        below.plot(depth, [each.logme for each in report.scores], marker="o", color="C1", label="LogME (left)")[0],
        right.plot(depth, [each.h_score for each in report.scores], marker="s", color="C2", label="H-score (right)")[0],
    ]
    below.set_ylabel("LogME")
    right.set_ylabel("H-score")
    below.legend(handles=lines, frameon=False, fontsize=9)
    flat = len(names) <= _MOST_HORIZONTAL
    below.set_xticks(list(depth), names, rotation=0 if flat else 60, ha="center" if flat else "right", parse_math=False)
    below.set_xlabel("stage, from the input to the head")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.spines["top"].set_visible(False)
    above.spines["right"].set_visible(False)
    right.spines["top"].set_visible(False)
    return sheet
