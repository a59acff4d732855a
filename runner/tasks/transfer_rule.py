"""The 2x2 rule of transfer: the amount of data and how similar they are, and what the lectures say for each cell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from runner.printing import counted
from runner.tasks.stage_report import StageReport, StageScore


@dataclass(frozen=True)
class Measured:
    """The facts about the data that the rule needs.

    Attributes:
        images: The number of training examples.
        classes: The number of classes.
        fewest: The training examples of the smallest class.
        shift: The distance of the features to those of the training of the weights (`feature_shift`), None if the
            model does not keep statistics of these.
    """

    images: int
    classes: int
    fewest: int
    shift: float | None

    @property
    def per_class(self) -> float:
        """Return the mean number of training examples of a class."""
        return self.images / self.classes


@dataclass(frozen=True)
class _Advice:
    """A cell of the rule with the measurements behind it.

    Attributes:
        measured: What is known of the data.
        best: The stage whose features a linear classifier reads best; None if no features are finite.
        top: The stage below the head.
        few: Whether there are few examples of a class.
        is_similar: Whether the data are similar to those of the weights.
        little, similar: The limits.
        says: What the lectures say.
        overrides: The command-line words for it.
    """

    measured: Measured
    best: StageScore | None
    top: StageScore
    few: bool
    is_similar: bool
    little: int
    similar: float
    says: str
    overrides: str

    @property
    def cell(self) -> str:
        """Return the name of the cell."""
        return f"{'little' if self.few else 'much'} data, {'similar' if self.is_similar else 'different'}"

    def lines(self) -> list[str]:
        """Return the measurements, the cell and what the lectures say, as lines for the screen."""
        data, shift = self.measured, self.measured.shift
        distance = (
            "not known, the model has no BatchNorm"
            if shift is None
            else f"{shift:.3f} (similar up to {self.similar:g})"
        )
        return [
            f"data per class:     {data.per_class:.1f} ({counted(data.images, 'image')}, smallest class {data.fewest}; "
            f"little below {self.little})",
            f"accuracy by stage:  {_words(self.top)} at the top, {_words(self.best)} at best",
            f"feature statistics: {distance}",
            f"cell:               {self.cell}",
            f"the lectures say:   {self.overrides}  ({self.says})",
            "",
        ]

    def record(self) -> dict[str, Any]:
        """Return the advice as JSON values."""
        return {
            "data": {**asdict(self.measured), "per_class": self.measured.per_class},
            "limits": {"little": self.little, "similar": self.similar},
            "top_stage": self.top.stage,
            "best_stage": self.best.stage if self.best else None,
            "cell": self.cell,
            "lectures": {"say": self.says, "overrides": self.overrides},
        }


def _words(score: StageScore | None) -> str:
    """Return the accuracy of a stage with its name."""
    return f"{score.probe.accuracy:.4f} ({score.stage})" if score and score.probe else "not finite"


def advise(measured: Measured, stages: StageReport, *, little: int, similar: float) -> _Advice:
    """Return the cell of some data and what the lectures say about it.

    Data are similar if the features of the top stage are read as well as those of any stage, within a standard error,
    and if the statistics of the features are within `similar` standard deviations of those of the source.
    """
    best, top = stages.best, stages.scores[-1]
    few = measured.per_class < little
    reads = bool(best and best.probe and top.probe and _is_close(top, best))
    near = measured.shift is None or measured.shift <= similar
    says, overrides = _lectures(few, reads and near, stages)
    return _Advice(measured, best, top, few, reads and near, little, similar, says, overrides)


def _is_close(top: StageScore, best: StageScore) -> bool:
    """Return True if the accuracy of the top stage is within a standard error of the best one."""
    assert top.probe and best.probe
    return best.probe.accuracy - top.probe.accuracy <= best.probe.standard_error


def _lectures(few: bool, similar: bool, stages: StageReport) -> tuple[str, str]:
    """Return what the lectures say for a cell, and the overrides that do it."""
    names = [each.stage for each in stages.scores]
    above = names[names.index(stages.best.stage) + 1 :] if stages.best else []
    if few and similar:
        return "a linear classifier on the top features", "transfer=feature_extraction"
    if similar:
        return "fine-tune, after a linear probe", "transfer=lp_ft"
    if not few:
        return "fine-tune everything, or many stages", "transfer=fine_tune"
    if above and len(above) < len(names):
        words = f"transfer=partial 'transfer.trained=[{','.join(above)}]'"
        return f"the hardest cell: start from the features of {names[-len(above) - 1]}, and get more data", words
    return "the hardest cell: a linear classifier on the best features, and more data", "transfer=feature_extraction"
