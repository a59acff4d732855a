"""Step 3: learning rates that make the loss go down, from short trainings on the same batches."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runner import user_paths
from runner.assemble import assemble
from runner.engine.logs.sinks import METRICS, read_metrics
from runner.engine.saving.storage import convert_os_errors
from runner.protocol.context import Config, Context
from runner.protocol.lr_range import RangeTest, range_test
from runner.protocol.lr_scores import TAIL, Choice, between, beyond, choose, decades, noise_of, score_of, smoothed
from runner.protocol.lr_words import advice_of, criteria_of, headline_of, result_of_range, row_of
from runner.protocol.outcome import StepResult
from runner.protocol.plain_config import quiet_overrides

# Weight decay of the short trainings
_DECAY = {"sgd": 1e-4, "momentum": 1e-4, "nesterov": 1e-4, "adamw": 1e-2}
_EXTENSIONS = 2
_RANGE_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class FindLr:
    """Step 3. The attributes are the knobs of `task=find_lr`."""

    method: Literal["sweep", "range", "both"]
    lrs: tuple[float, ...] | None
    iters: int
    seeds: int
    weight_decay: float | Literal["auto"]
    within: float
    stop: float
    number: int = 3
    name: str = "find_lr"

    def reads(self, context: Context) -> Mapping[str, Any]:
        """Return all that the result depends on."""
        return {"config": context.config, "knobs": vars(self)}

    def needs(self, context: Context) -> tuple[int, float]:
        """Return the first learning rates of all seeds."""
        if self.method == "range":
            return 0, 0.0
        count = (4 if self.lrs is None else len(self.lrs)) * self.seeds
        return count, count * self.iters * context.facts.get("pass_seconds", 0.0) / 3

    def run(self, context: Context) -> StepResult:
        """Train with each learning rate, look closer at the best, extend at edges, and choose."""
        base = context.vary(context.config, self._overrides(context.config))
        hints = [] if self.method == "sweep" else [self._range(context, base, i) for i in range(_RANGE_SEEDS)]
        if self.method == "range":
            return result_of_range(self.name, hints)
        chance = context.facts.get("chance_loss")
        curves = dict[float, list[list[float]]]()
        self._train(context, base, self.lrs or decades(self._center(context)), curves)
        choice = self._choose(curves, chance)
        extended = 0
        if self.lrs is None:
            if choice.best is not None:
                self._train(context, base, between(choice.best, list(curves)), curves)
                choice = self._choose(curves, chance)
            while choice.edge and extended < _EXTENSIONS and self._train(
                context, base, beyond(choice.edge, list(curves)), curves
            ):  # fmt: skip
                choice, extended = self._choose(curves, chance), extended + 1
        return self._result(curves, choice, hints, context)

    def _overrides(self, config: Config) -> dict[str, Any]:
        """Return the overrides of a short training: constant rate, no averages, no validation before the end."""
        decay = _DECAY.get(config["optim"]["name"]) if self.weight_decay == "auto" else self.weight_decay
        found = {
            **quiet_overrides(config),
            "task": "train",
            "scheduler": "constant",
            "steps": self.iters,
            "probe": [],
            "validate_every": f"{self.iters}steps",
            "checkpoint_every": f"{self.iters}steps",
        }
        return (
            found if decay is None or "weight_decay" not in config["optim"] else {**found, "optim.weight_decay": decay}
        )

    def _center(self, context: Context) -> float:
        """Return the learning rate that fitted the sample, else that of the config."""
        found: float = context.facts.get("lr_overfit") or context.config["optim"]["lr"]
        return found

    def _train(
        self, context: Context, base: Config, rates: Sequence[float], curves: dict[float, list[list[float]]]
    ) -> bool:
        """Add the curves of new learning rates, all seeds of each; return False if the budget has no room for them."""
        seeds = [base["seed"] + i for i in range(self.seeds)]
        pairs = [(lr, seed) for lr in rates for seed in seeds]
        if not pairs or context.budget.refusal(len(pairs)):
            return False
        variants = [context.vary(base, {"optim.lr": lr, "seed": seed}) for lr, seed in pairs]
        for (lr, _), result in zip(pairs, context.train(variants), strict=True):
            curves.setdefault(lr, []).append(_losses(result))
        return True

    def _choose(self, curves: Mapping[float, Sequence[Sequence[float]]], chance: float | None) -> Choice:
        """Return the choice among the learning rates so far."""
        scores = self._scores(curves)
        best = min(scores, key=lambda lr: scores[lr])
        noise = statistics.fmean(map(noise_of, curves[best]))
        start = _start(curves)
        return choose(scores, start, noise, start if chance is None else chance, self.within)

    def _scores(self, curves: Mapping[float, Sequence[Sequence[float]]]) -> dict[float, float]:
        """Return the score of each learning rate, the mean over seeds, in rising order."""
        return {
            lr: statistics.fmean(score_of(losses, self.iters, self.stop) for losses in each)
            for lr, each in sorted(curves.items())
        }

    def _range(self, context: Context, base: Config, number: int) -> RangeTest:
        """Return the range test of a seed."""
        config = context.vary(base, {"seed": base["seed"] + number})
        return range_test(assemble(config, loaded=context.loaded), self.iters, self.stop)

    def _result(
        self,
        curves: Mapping[float, Sequence[Sequence[float]]],
        choice: Choice,
        hints: Sequence[RangeTest],
        context: Context,
    ) -> StepResult:
        """Return the result of the step."""
        scores, start = self._scores(curves), _start(curves)
        rows = [row_of(lr, score, start, choice) for lr, score in scores.items()]
        measured = {
            "rates": [
                {"lr": lr, "score": score, "curve": smoothed(curves[lr][0]).tolist()} for lr, score in scores.items()
            ],
            "initial_loss": start, "chosen": choice.lr, "best": choice.best, "lr_max_stable": choice.stable,
            "drop": choice.drop, "needed": choice.needed, "tail": TAIL, "iters": self.iters, "seeds": self.seeds,
            "range_test": [each.record() for each in hints],
        }  # fmt: skip
        found = choice.lr is not None
        return StepResult(
            step=self.name,
            headline=headline_of(choice, start, self.seeds, self.iters),
            criteria=criteria_of(choice, hints),
            advice=advice_of(choice, context.config),
            measurements=measured,
            table=rows,
            handoff={"optim.lr": choice.lr} if found else {},
            facts={"lr_max_stable": choice.stable} if found else {},
        )


def _losses(result: Any) -> list[float]:
    """Return the training losses of a launched run, in order of the steps; nan where they are not finite."""
    path = result.folder / METRICS
    if not user_paths.is_file(path):
        return []
    with convert_os_errors(path):
        return [float(row["train/loss"]) for _, row in read_metrics(path) if "train/loss" in row]


def _start(curves: Mapping[float, Sequence[Sequence[float]]]) -> float:
    """Return the mean of the first losses, which do not depend on the learning rate."""
    firsts = [losses[0] for each in curves.values() for losses in each if losses and math.isfinite(losses[0])]
    return statistics.fmean(firsts) if firsts else math.nan
