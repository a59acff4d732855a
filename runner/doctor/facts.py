"""The facts of a run that rules may read: its config, its data, its length and how it ended."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.comparing.runs import Run, read_overrides
from runner.engine.equal_examples import EQUAL, EqualExamples, equal_from_record
from runner.engine.fingerprint import Part, from_record
from runner.status import Status

# The beginning of the reason of a run that diverged
_DIVERGED = re.compile(r"diverged at step (\d+)")


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts of a run; all rules may read them.

    Attributes:
        config: The config of the run, as in its folder.
        classes: The number of classes; 0 if it is not known.
        train_examples: The number of training examples; 0 if it is not known.
        val_examples: The number of validation examples; 0 if it is not known.
        steps: The optimizer steps that the config asks for.
        steps_per_epoch: The optimizer steps of an epoch, at least 1.
        status: How the run ended.
        diverged_at: The step that diverged, None if none did.
        reason: Why the run ended, in one line, None after success.
        class_shares: The share of each class in the training examples, empty if it is not known.
        overrides: The words of the run's command line.
        equal_examples: The validation examples that equal a training example; None if they were not compared.
    """

    config: Mapping[str, Any]
    classes: int
    train_examples: int
    val_examples: int
    steps: int
    steps_per_epoch: int
    status: Status
    diverged_at: int | None = None
    reason: str | None = None
    class_shares: tuple[float, ...] = ()
    overrides: tuple[str, ...] = ()
    equal_examples: EqualExamples | None = None

    def chance_loss(self) -> float | None:
        """Return the training loss of outputs that are all zero, None if it is not known for this loss.

        It is ln C for cross-entropy, whatever the balance of the classes, their weights and label smoothing.
        """
        loss, k = self.config["loss"], self.classes
        if k < 2 or self._is_distilled:
            return None
        match loss["name"]:
            case "cross_entropy":
                return math.log(k)
            case "poly":
                return math.log(k) + float(loss["epsilon"]) * (1 - 1 / k)
            case "focal" if loss.get("alpha") is None:
                return float((1 - 1 / k) ** loss["gamma"] * math.log(k))
            case "bce":
                # The targets of an example add up to 1 - s + s K / 2
                positives = (1 - (s := float(loss["label_smoothing"]))) / k + s / 2
                return math.log(2) * (1 + (float(loss["positive_weight"]) - 1) * positives)
            case "hinge":
                return float(loss["margin"]) * (k - 1)
            case "mse":
                return 1 / k
        return None

    def prior_entropy(self) -> float | None:
        """Return the cross-entropy of the class frequencies with themselves in nats, None if they are not known.

        No network that ignores its input has a lower cross-entropy.
        """
        if not self.class_shares:
            return None
        return -sum(share * math.log(share) for share in self.class_shares if share > 0)

    def majority(self) -> float | None:
        """Return the share of the most frequent class, None if it is not known."""
        return max(self.class_shares, default=None)

    @property
    def _is_distilled(self) -> bool:
        """True if the loss has terms of a teacher."""
        return bool(self.config.get("distillation", {}).get("name", "none") != "none")


def facts_of(run: Run) -> RunFacts:
    """Return the facts of a run from its folder's files."""
    result, config = run.result, run.config
    data = run.environment.get("data")
    found = from_record(data)
    parts: Mapping[str, Part] = found.parts if found else {}
    train, val = (parts.get(split) for split in ("train", "val"))
    counts = (train.counts if train else None) or ()
    examples = (train.count if train else None) or 0
    classes = len(found.classes) if found and found.classes else len(counts)
    per_epoch = _steps_per_epoch(run, examples)
    return RunFacts(
        config=config,
        classes=classes,
        train_examples=examples,
        val_examples=(val.count if val else None) or 0,
        steps=int(config["steps"] or max(1, round(config["epochs"] * per_epoch))),
        steps_per_epoch=per_epoch,
        status=result.status,
        diverged_at=_diverged_at(run),
        reason=result.reason,
        class_shares=tuple(count / sum(counts) for count in counts) if sum(counts) else (),
        overrides=tuple(read_overrides(run.folder)),
        equal_examples=equal_from_record(data.get(EQUAL)) if isinstance(data, Mapping) else None,
    )


def _steps_per_epoch(run: Run, examples: int) -> int:
    """Return the steps of an epoch: as the result counts them, without any step from the sizes in the config."""
    if run.result.steps and run.result.epochs:
        return max(1, round(run.result.steps / run.result.epochs))
    batch = run.config["data"].get("batch_size")
    step = run.config["accumulate"] * (batch if isinstance(batch, int) else 1)
    return max(1, math.ceil(examples / int(step)))


def _diverged_at(run: Run) -> int | None:
    """Return the step that diverged, None if none did."""
    if run.result.status is not Status.DIVERGED:
        return None
    match = _DIVERGED.search(run.result.reason or "")
    return int(match[1]) if match else run.result.steps + 1
