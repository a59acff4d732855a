"""Symptoms of drops of the learning rate."""

from __future__ import annotations

from itertools import pairwise

from runner.doctor.changes_advised import Advice
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History, Series
from runner.doctor.measures import TREND_Z, block_means, mann_kendall, theil_sen
from runner.doctor.shapes import LOSS, RATE, segments, start_loss, warm_up
from runner.registry import register

# Gain before the drop, slope after it over that before, and share of the run before which a drop is early
_GAIN, _SLOWER, _EARLY = 0.05, 0.3, 0.5
# Share of the part before the drop that is judged: its beginning falls anyway
_JUDGED = 2 / 3
# Steps of a part at least, and blocks of the test
_LEAST, _BLOCKS = 30, 10
# Share of the run that a warm-up may take (Tuning Playbook)
_LONGEST = 0.1
_TOO_LONG = 2.5 * _LONGEST


@register("symptom")
def decay_too_early(history: History) -> Finding | None:
    """Return a finding if the loss was falling when the learning rate dropped early, and falls slowly since."""
    found, start, facts = segments(history), start_loss(history), history.facts
    for before, after in pairwise(found):
        drop = int(after.steps[0])
        if start is None or drop > _EARLY * facts.steps or len(before) < _LEAST or len(after) < _LEAST:
            continue
        # What falls in the first steps after a drop is the noise of the old rate
        old_part, new_part = _slope(before, _JUDGED), _slope(Series(after.steps[10:], after.values[10:]), 1.0)
        if old_part is None or new_part is None:
            continue
        (old, old_z, old_fall), new = old_part, new_part[0]
        gain = old_fall / (start - float(min(before.values.min(), after.values.min())) or 1.0)
        if old_z >= -TREND_Z / 2 or gain <= _GAIN or -new >= -_SLOWER * old:
            continue
        return Finding(
            id="decay_too_early",
            severity=Severity.HINT,
            confidence=0.7,
            evidence=Evidence(
                numbers={"drop_at_step": drop, "slope_before": old, "slope_after": new, "gain_before": gain},
                steps=(int(before.steps[len(before) // 3]), int(after.steps[-1])),
                tags=(LOSS, RATE),
            ),
            why=f"The training loss was still falling when the learning rate dropped near step {drop}, and it falls "
            "slowly since; the drop may come too early.",
            advice=tuple(_later(history)),
            probe="train from the checkpoint before the drop with the old learning rate for as many steps",
            source="CS231n, neural networks 3",
        )
    return None


def _slope(segment: Series, share: float) -> tuple[float, float, float] | None:
    """Return slope per step, z and fall of the last part of a segment, None if it is too short."""
    values = segment.values[-max(1, round(len(segment) * share)) :]
    blocks = block_means(values, _BLOCKS, 2)
    if blocks is None:
        return None
    slope = theil_sen(blocks).value / (len(values) // _BLOCKS)
    return slope, mann_kendall(blocks), -slope * len(values)


def _later(history: History) -> Advice:
    """Return the advice to drop the learning rate later."""
    later = {"multistep": "scheduler.milestones=[50%,75%]", "step": "scheduler.every=50%"}
    name = history.facts.config["scheduler"]["name"]
    return [*([(later[name],)] if name in later else []), ("scheduler=cosine",)]


@register("symptom")
def warm_up_too_long(history: History) -> Finding | None:
    """Return a finding if the warm-up takes more than a quarter of the run."""
    steps, last = warm_up(history), history.facts.steps
    if history.facts.config["scheduler"]["name"] in ("onecycle", "triangular", "cyclic") or steps <= _TOO_LONG * last:
        return None
    return Finding(
        id="warm_up_too_long",
        severity=Severity.HINT,
        confidence=0.6,
        evidence=Evidence(numbers={"warm_up_steps": steps, "steps": last}, steps=(1, steps), tags=(RATE,)),
        why=f"The warm-up takes {steps / last:.0%} of the steps; a tenth is usually enough.",
        advice=(("scheduler.warmup=10%",), ("scheduler.warmup=5%",)),
        probe=None,
        source="Tuning Playbook, learning rate warm-up",
    )
