"""Symptoms of the size of updates: relative to the weights, to the clipping limit, to weight decay."""

from __future__ import annotations

import numpy as np

from runner.doctor.advice import divided_lr, rounded
from runner.doctor.changes_advised import more_lr
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History
from runner.doctor.layers import COUPLED, decay_per_step
from runner.doctor.shapes import LOSS, RATIO, early_ratio, is_short, whole_blocks
from runner.registry import register

# Early update ratio of all weights that is unusual, and that is extreme (CS231n: about 1e-3)
_LOW, _VERY_LOW, _HIGH, _VERY_HIGH = 3e-4, 1e-5, 3e-2, 1e-1
# Of the loss of zero outputs: below it something is learned, and the ratio that is unusual even then
_LEARNED, _HIGH_YET_LEARNED = 0.8, 8e-2
# Growth of the weights' norm above which a low late ratio means a rate that was too high
_GROWN = 2.0
_WEIGHTS = "weight_norm/"
# Measurements of the gradient norm at least, and the share of clipped ones (Tuning Playbook)
_LEAST, _CLIPPED = 8, 0.5
# Steps in which weight decay alone would shrink a weight to 1/e; usual values are 1,000 and more
_FORGETS = 100
# Usual weight decay (He et al. 2016; Loshchilov and Hutter 2019), and by which factor more is unusual
_USUAL_COUPLED, _USUAL_DECOUPLED, _UNUSUAL = 5e-4, 0.1, 8.0
# A loss that is still this share of that of zero outputs
_UNLEARNED = 0.25


@register("symptom")
def ratio_low(history: History) -> Finding | None:
    """Return a finding if early updates are small relative to the weights."""
    ratio = early_ratio(history)
    if ratio is None or ratio >= _LOW or _growth(history) >= _GROWN or is_short(history):
        return None
    return Finding(
        id="ratio_low",
        severity=Severity.WARN if ratio < _VERY_LOW else Severity.HINT,
        confidence=0.8 if ratio < _VERY_LOW else 0.5,
        evidence=_ratio_evidence(history, ratio, _LOW),
        why=f"Early updates are {ratio:.1g} of the weights' norm, where 1e-3 to 1e-2 is usual; the learning rate may "
        "be too low.",
        advice=tuple(more_lr(history.facts.config, 10 if ratio < _LOW / 10 else 3)),
        probe="train 200 steps from the last checkpoint with three times the learning rate",
        source="CS231n, neural networks 3",
    )


@register("symptom")
def ratio_high(history: History) -> Finding | None:
    """Return a finding if early updates are large relative to the weights."""
    ratio, blocks, chance = early_ratio(history), whole_blocks(history), history.facts.chance_loss()
    if ratio is None or ratio <= _HIGH or is_short(history):
        return None
    # Small networks train well with ratios of a few percent
    learned = blocks is not None and chance is not None and float(blocks[-1]) < _LEARNED * chance
    if learned and ratio <= _HIGH_YET_LEARNED:
        return None
    return Finding(
        id="ratio_high",
        severity=Severity.WARN if ratio > _VERY_HIGH else Severity.HINT,
        confidence=0.8 if ratio > _VERY_HIGH else 0.5,
        evidence=_ratio_evidence(history, ratio, _HIGH),
        why=f"Early updates are {ratio:.1g} of the weights' norm, where 1e-3 to 1e-2 is usual; the learning rate may "
        "be too high.",
        advice=tuple(divided_lr(history.facts.config, 10 if ratio > _VERY_HIGH else 3)),
        probe="train 200 steps from the last checkpoint with a tenth of the learning rate",
        source="CS231n, neural networks 3",
    )


def _ratio_evidence(history: History, ratio: float, limit: float) -> Evidence:
    """Return the evidence of an update ratio."""
    steps = history.series(RATIO).steps
    last = int(steps[min(3, len(steps) - 1)])
    return Evidence(
        numbers={"early_update_ratio": ratio, "limit": limit},
        steps=(int(steps[0]), max(last, history.facts.steps // 10)),
        tags=(RATIO,),
    )


def _growth(history: History) -> float:
    """Return by which factor the norm of all weights grew, 1 if it was not measured."""
    norms = [history.series(tag).finite().values for tag in history.tags(_WEIGHTS)]
    norms = [each for each in norms if len(each)]
    first, last = (float(np.sqrt(sum(each[place] ** 2 for each in norms))) for place in (0, -1))
    return last / first if first > 0 else 1.0


@register("symptom")
def clip_too_much(history: History) -> Finding | None:
    """Return a finding if more than half of the measured steps were clipped."""
    config, norms = history.facts.config, history.series("grad_norm/_global").finite()
    limit = config["clip"]
    if not isinstance(limit, (int, float)) or config["clip_by"] != "norm" or len(norms) < _LEAST:
        return None
    share = float((norms.values > limit).mean())
    if share <= _CLIPPED:
        return None
    usual = float(np.percentile(norms.values, 90))
    return Finding(
        id="clip_too_much",
        severity=Severity.WARN,
        confidence=0.95,
        evidence=Evidence(
            numbers={"clipped_share": share, "clip": float(limit), "p90_grad_norm": usual, "n": len(norms)},
            steps=(int(norms.steps[0]), int(norms.steps[-1])),
            tags=("grad_norm/_global",),
        ),
        why=f"{share:.0%} of the measured gradients were longer than clip={limit:g}: clipping sets the length of most "
        "steps.",
        advice=((f"clip={rounded(usual)}",), *divided_lr(config, 2)),
        probe=None,
        source="Tuning Playbook, gradient clipping",
    )


@register("symptom")
def decay_too_strong(history: History) -> Finding | None:
    """Return a finding if weight decay shrinks the weights within few steps, and the loss stays high."""
    optim, blocks, chance = history.facts.config["optim"], whole_blocks(history), history.facts.chance_loss()
    decay = optim.get("weight_decay")
    each = decay_per_step(history.facts.config)
    if not each or blocks is None:
        return None
    steps = 1 / each
    # Else it is the rate that is unusual
    unusual = decay > _UNUSUAL * (_USUAL_COUPLED if optim["name"] in COUPLED else _USUAL_DECOUPLED)
    if steps >= _FORGETS or not unusual:
        return None
    high = chance is not None and float(blocks.min()) > _UNLEARNED * chance
    return Finding(
        id="decay_too_strong",
        severity=Severity.WARN if high else Severity.HINT,
        confidence=0.92 if high else 0.75,
        evidence=Evidence(
            numbers={"steps_to_shrink": steps, "limit": _FORGETS, "lowest_loss": float(blocks.min())},
            steps=(1, history.facts.steps),
            tags=(LOSS,),
        ),
        why=f"Weight decay alone shrinks a weight to a third in {steps:.3g} steps, where 1,000 and more are "
        "usual; that may be too strong.",
        advice=((f"optim.weight_decay={rounded(decay * steps / 1000)}",), ("optim.weight_decay=0",)),
        probe="train with weight decay 0",
        source="Kosson et al. 2023, Rotational Equilibrium; Wang and Aitchison 2024",
    )
