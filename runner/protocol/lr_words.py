"""The outcome of step 3 in words: its criteria, advice, headline and table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from runner.protocol.context import Config
from runner.protocol.lr_range import RangeTest
from runner.protocol.lr_scores import TAIL, Choice
from runner.protocol.outcome import Advice, Criterion, Level, StepResult


def criteria_of(choice: Choice, hints: Sequence[RangeTest]) -> list[Criterion]:
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
                name="inside the range",
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


def result_of_range(name: str, hints: Sequence[RangeTest]) -> StepResult:
    """Return the result of range tests alone, which hand on nothing."""
    criterion = _range_criterion(hints)
    start = next((each.losses[0] for each in hints if each.losses), math.nan)
    measured = {"rates": [], "initial_loss": start, "chosen": None, "range_test": [each.record() for each in hints]}
    measured |= {"tail": TAIL, "seeds": len(hints), "iters": 0}
    return StepResult(step=name, headline=f"range test: {criterion.value}", criteria=[criterion], measurements=measured)


def headline_of(choice: Choice, start: float, seeds: int, iters: int) -> str:
    """Return the line about the choice."""
    if choice.lr is None:
        return f"no learning rate makes the loss go down from {start:.4g} ({iters} steps, {seeds} seeds)"
    stable = f", stable up to {choice.stable:.3g}" if choice.stable is not None else ""
    fall = f"the loss falls by {choice.drop:.3g} from {start:.4g}"
    return f"optim.lr={choice.lr:.3g}: {fall}; best {choice.best:.3g}{stable}"


def advice_of(choice: Choice, config: Config) -> list[Advice]:
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


def row_of(lr: float, score: float, start: float, choice: Choice) -> dict[str, str]:
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
