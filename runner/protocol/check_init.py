"""Step 1: the loss of the untrained model, and checks that cost a few forward passes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from runner.assemble import Experiment, assemble
from runner.protocol.context import Context
from runner.protocol.expected_loss import entropy
from runner.protocol.initial_loss import (
    Gate,
    InitialLoss,
    examples_of,
    expectation,
    loss_criteria,
    measure,
    output_criterion,
    reduction_criterion,
)
from runner.protocol.leaks import leak_criterion
from runner.protocol.outcome import Advice, Criterion, Level, StepResult
from runner.protocol.plain_config import plain_overrides
from runner.protocol.preflight import preflight


@dataclass(frozen=True, kw_only=True)
class CheckInit:
    """Step 1. The attributes are the knobs of `task=check_init`."""

    examples: int
    seeds: int
    expected: float | None
    pass_at: float
    warn_at: float
    number: int = 1
    name: str = "check_init"

    def reads(self, context: Context) -> Mapping[str, Any]:
        """Return all that the result depends on."""
        return {"config": context.config, "knobs": vars(self)}

    def needs(self, context: Context) -> tuple[int, float]:
        """Return no training."""
        return 0, 0.0

    def run(self, context: Context) -> StepResult:
        """Measure the initial loss over seeds, and check inputs, gradients, optimizer and splits."""
        config = context.vary(context.config, plain_overrides(context.config))
        seeds = [config["seed"] + i for i in range(self.seeds)]
        experiments = (assemble({**config, "seed": seed}, loaded=context.loaded) for seed in seeds)
        first = next(experiments)
        found = [measure(first, self.examples), *(measure(each, self.examples) for each in experiments)]
        counts = np.bincount(context.loaded.data.train.labels.numpy(), minlength=len(first.classes)).astype(float)
        expected, words = expectation(found[0], config["loss"], counts, self.expected)
        pretrained = config["init_from"] is not None
        gate = Gate(pass_at=self.pass_at, warn_at=self.warn_at, pretrained=pretrained)
        criteria = self._of_loss(found, expected, config, gate, first)
        begins = time.perf_counter()
        images, labels = next(iter(examples_of(fresh := assemble(config, loaded=context.loaded), self.examples)))
        criteria += preflight(fresh, images, labels, transfers=config["transfer"]["name"] != "none")
        criteria.append(leak_criterion(context.loaded.data.train, context.loaded.data.val))
        facts = self._facts(found, expected, counts, time.perf_counter() - begins)
        complete = assemble(context.config, loaded=context.loaded)
        criteria += _of_penalties(complete)
        with_all = measure(complete, self.examples)
        return StepResult(
            step=self.name,
            headline=_headline(found, expected, words),
            criteria=criteria,
            advice=_advice(criteria, config),
            measurements=_measurements(found, expected, words, with_all),
            facts=facts,
        )

    def _of_loss(
        self,
        found: Sequence[InitialLoss],
        expected: float | None,
        config: Mapping[str, Any],
        gate: Gate,
        experiment: Experiment,
    ) -> list[Criterion]:
        """Return the criteria of the initial loss."""
        name = config["loss"]["name"]
        finite = all(each.finite for each in found)
        criteria = [
            Criterion(
                name="finite",
                value="all" if finite else "NaN or infinity",
                threshold="all outputs and losses",
                level=Level.PASS if finite else Level.FAIL,
                why="" if finite else "outputs or losses are not finite before training",
            ),
            output_criterion(found[0], name),
        ]
        if not finite:
            return criteria
        criteria.append(reduction_criterion(found[0], expected, _factors(experiment)))
        if expected is None:
            why = "the loss has no formula here: give its value for an untrained model with task.expected=<number>"
            skipped = Criterion(name="excess over the expected loss", value="unknown", threshold="task.expected",
                                level=Level.SKIP, why=why)  # fmt: skip
            return [*criteria, skipped]
        return [*criteria, *loss_criteria(found, expected, name == "cross_entropy", gate)]

    def _facts(
        self, found: Sequence[InitialLoss], expected: float | None, counts: np.ndarray[Any, Any], seconds: float
    ) -> dict[str, Any]:
        """Return the numbers that later steps use; `pass_seconds` is the time of a few batches, an upper limit."""
        initial = statistics.median(each.loss for each in found)
        return {
            "initial_loss": initial,
            "chance_loss": initial if expected is None else expected,
            "prior_entropy": entropy(counts / counts.sum()),
            "pass_seconds": seconds,
        }


def _of_penalties(experiment: Experiment) -> list[Criterion]:
    """Return the criterion that penalties raise the loss, for a config that has some."""
    penalties = experiment.recipe.penalties
    if not penalties:
        return []
    with torch.no_grad():
        total = sum(float(penalty(experiment.learner.model)) for penalty in penalties)
    raises = math.isfinite(total) and total >= 0
    return [
        Criterion(
            name="penalties raise the loss",
            value=f"{total:+.4g}",
            threshold=">= 0",
            level=Level.PASS if raises else Level.FAIL,
            why="" if raises else "a penalty lowers the loss, or is not finite: training would make the weights grow",
            source="CS231n, neural-networks-3",
        )
    ]


def _factors(experiment: Experiment) -> dict[str, float]:
    """Return the factors of wrong reductions, by name."""
    accumulate = experiment.recipe.accumulate
    sizes = {
        "the batch": experiment.batches.batch // accumulate,
        "the micro-batches": accumulate,
        "the classes": len(experiment.classes),
        "the pixels": math.prod(experiment.loaded.data.shape[1:]),
    }
    found: dict[str, float] = {}
    for name, size in sizes.items():
        found |= {f"{name} ({size})": float(size), f"1 / {name} ({size})": 1 / size}
    return {**found, "1 / ln 2 (bits, not nats)": 1 / math.log(2)}


def _headline(found: Sequence[InitialLoss], expected: float | None, words: str) -> str:
    """Return the line about the initial loss."""
    loss = statistics.median(each.loss for each in found)
    error = statistics.median(each.error for each in found)
    start = f"initial loss {loss:.4g} ± {error:.2g} (median of {len(found)} seeds)"
    if expected is None:
        return f"{start}, expected: unknown"
    variance = statistics.median(each.variance for each in found)
    share = f" ({(loss - expected) / abs(expected):+.1%})" if expected else ""
    return (
        f"{start}, expected {words} = {expected:.4g}, excess {loss - expected:+.3g}{share}, "
        f"half the logits' variance {variance / 2:.3g}"
    )


def _measurements(
    found: Sequence[InitialLoss], expected: float | None, words: str, with_all: InitialLoss
) -> dict[str, Any]:
    """Return the numbers of `result.json`."""
    return {
        "expected": expected,
        "expected_words": words,
        "seeds": [{"loss": each.loss, "standard_error": each.error, "logit_variance": each.variance} for each in found],
        "with_regularization": with_all.loss,
    }


def _advice(criteria: Sequence[Criterion], config: Mapping[str, Any]) -> list[Advice]:
    """Return changes to try for what did not pass."""
    bad = {each.name: each for each in criteria if each.level in (Level.WARN, Level.FAIL)}
    found = []
    excess = bad.get("excess over the expected loss")
    if excess and excess.value.startswith("+") and "reduction" not in bad:
        head = ("init.head=zeros",) if "head" in config["init"] else ()
        if config["preprocess"]["name"] == "none" and "inputs" in bad:
            found.append(Advice(text="Center and scale the inputs.", overrides=("preprocess=standardize",)))
        found.append(Advice(text="Let the head begin at zero: the first loss is then that of chance.", overrides=head))
    elif "inputs" in bad:
        found.append(Advice(text="Center and scale the inputs.", overrides=("preprocess=standardize",)))
    if "learning rates" in bad:
        found.append(Advice(text="Give the optimizer a learning rate.", overrides=("optim.lr=0.01",)))
    if "gradients reach each parameter" in bad:
        init = ("init=kaiming",) if config["init"]["name"] != "kaiming" else ()
        found.append(Advice(text=_GRADIENTS, overrides=init))
    if excess and not excess.value.startswith("+"):
        found.append(Advice(text="Look at the sign and the scale of the loss, and whether the inputs tell the label."))
    return [*found, *(Advice(text=text) for name, text in _REPAIRS.items() if name in bad)]


_GRADIENTS = "Look for detach(), no_grad(), a product with 0 or dead units in the model, and at task=init_report."
# What only the code can change, by the criterion
_REPAIRS = {
    "model outputs": "Return the outputs of the last layer as they are: the loss has the softmax.",
    "reduction": "Return the mean over the examples, in nats (natural logarithm).",
    "explained by the logits": "Look at the labels, and at the reduction and the scale of the loss.",
    "examples are independent": "Let the model reduce over features and positions, never over axis 0, the examples.",
    "optimizer has each parameter once": "Make the optimizer of all parameters: model.parameters(), or groups.",
    "trainable parameters": "Leave requires_grad as it is, or say with transfer= which layers do not train.",
    "validation examples in training": "Split before examples are repeated, and take equal ones into one split.",
}
