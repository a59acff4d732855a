"""Step 3: learning rates that make the loss go down, from short trainings on the same batches."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runner.assemble import assemble
from runner.engine.logs.sinks import METRICS
from runner.protocol.context import Config, Context
from runner.protocol.lr_range import RangeTest, range_test
from runner.protocol.lr_scores import TAIL, Choice, between, beyond, choose, decades, noise_of, score_of, smoothed
from runner.protocol.outcome import Advice, Criterion, Level, StepResult
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
            return _of_range(self.name, hints)
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
        rows = [_row(lr, score, start, choice) for lr, score in scores.items()]
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
            headline=_headline(choice, start, self.seeds, self.iters),
            criteria=_criteria(choice, hints),
            advice=_advice(choice, context.config),
            measurements=measured,
            table=rows,
            handoff={"optim.lr": choice.lr} if found else {},
            facts={"lr_max_stable": choice.stable} if found else {},
        )


def _losses(result: Any) -> list[float]:
    """Return the training losses of a launched run, in order of the steps; nan where they are not finite."""
    path = result.folder / METRICS
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        row = json.loads(line)
        if "train/loss" in row:
            found.append(math.nan if row["train/loss"] is None else float(row["train/loss"]))
    return found


def _start(curves: Mapping[float, Sequence[Sequence[float]]]) -> float:
    """Return the mean of the first losses, which do not depend on the learning rate."""
    firsts = [losses[0] for each in curves.values() for losses in each if losses and math.isfinite(losses[0])]
    return statistics.fmean(firsts) if firsts else math.nan


def _criteria(choice: Choice, hints: Sequence[RangeTest]) -> list[Criterion]:
    """Return the criteria of the step."""
    goes_down = choice.lr is not None
    criteria = [
        Criterion(
            name="the loss goes down",
            value=f"{choice.drop:.3g}",
            threshold=f"a fall of {choice.needed:.3g} at some learning rate",
            level=Level.PASS if goes_down else Level.FAIL,
            why="" if goes_down else "no learning rate makes the loss go down: initialization, data or loss is wrong",
        )
    ]
    if goes_down:
        side = "highest" if choice.edge > 0 else "lowest"
        criteria.append(
            Criterion(
                name="inside of what was tried",
                value=f"{choice.lr:.3g}",
                threshold="not the lowest or highest",
                level=Level.WARN if choice.edge else Level.PASS,
                why=f"the {side} learning rate that was tried is best: one beyond it may be better"
                if choice.edge
                else "",
                source="CS231n, neural-networks-3",
            )
        )
    return criteria + ([_range_criterion(hints)] if hints else [])


def _range_criterion(hints: Sequence[RangeTest]) -> Criterion:
    """Return what the range tests suggest: the median over seeds, as a hint."""
    names = sorted({name for each in hints for name in each.suggested})
    medians = {name: statistics.median(e.suggested[name] for e in hints if name in e.suggested) for name in names}
    words = ", ".join(f"{name} {medians[name]:.2g}" for name in ("valley", "steep", "minimum") if name in medians)
    return Criterion(
        name="range test",
        value=words or "none",
        threshold="a hint",
        level=Level.HINT,
        why="a range test returns a learning rate even if nothing can be learned; valley is usually low",
        source="fastai",
    )


def _of_range(name: str, hints: Sequence[RangeTest]) -> StepResult:
    """Return the result of range tests alone, which hand on nothing."""
    criterion = _range_criterion(hints)
    start = next((each.losses[0] for each in hints if each.losses), math.nan)
    measured = {"rates": [], "initial_loss": start, "chosen": None, "range_test": [each.record() for each in hints]}
    measured |= {"tail": TAIL, "seeds": len(hints), "iters": 0}
    return StepResult(step=name, headline=f"range test: {criterion.value}", criteria=[criterion], measurements=measured)


def _headline(choice: Choice, start: float, seeds: int, iters: int) -> str:
    """Return the line about the choice."""
    if choice.lr is None:
        return f"no learning rate makes the loss go down from {start:.4g} ({iters} steps, {seeds} seeds)"
    stable = f", stable up to {choice.stable:.3g}" if choice.stable is not None else ""
    fall = f"the loss falls by {choice.drop:.3g} from {start:.4g}"
    return f"optim.lr={choice.lr:.3g}: {fall}; best {choice.best:.3g}{stable}"


def _advice(choice: Choice, config: Config) -> list[Advice]:
    """Return what to do where no learning rate works, or only tiny ones do."""
    if choice.lr is None:
        init = () if config["init"]["name"] == "kaiming" else ("init=kaiming",)
        return [Advice(text="Look at task=check_init and task=init_report; begin at other weights.", overrides=init)]
    if choice.stable is not None and choice.lr < config["optim"]["lr"] / 30:
        warm = Advice(
            text="Only small learning rates are stable: warm up, or clip.", overrides=("scheduler.warmup=5%",)
        )
        return [warm] if "warmup" in config["scheduler"] else []
    return []


def _row(lr: float, score: float, start: float, choice: Choice) -> dict[str, str]:
    """Return the row of a learning rate."""
    finite = math.isfinite(score)
    near = "chosen" if lr == choice.lr else "best" if lr == choice.best else "" if finite else "diverges"
    if lr == choice.lr == choice.best:
        near = "chosen, best"
    return {
        "lr": f"{lr:.3g}",
        "loss": f"{score:.4g}" if finite else "",
        "drop": f"{start - score:.4g}" if finite else "",
        "outcome": near,
    }
