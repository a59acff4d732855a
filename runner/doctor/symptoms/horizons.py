"""Symptoms of running averages that span too much of a run: of gradients (momentum) and of weights."""

from __future__ import annotations

from runner.doctor.evaluations import TRAIN_LOSS, clean_loss
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History
from runner.doctor.shapes import LOSS, whole_blocks
from runner.registry import register

# Share of the run that an average may span; usual momenta average 10 to 100 steps
_SPAN, _LEAST_STEPS = 0.2, 100
# Share of the run over which nobody averages weights on purpose
_MOST = 0.5
# A loss that is still this share of that of zero outputs
_UNLEARNED = 0.5
# Excess of the loss of the averaged weights over that in training, of the latter and of that of zero outputs
_WORSE, _WORSE_LEAST = 0.2, 0.05


@register("symptom")
def momentum_too_high(history: History) -> Finding | None:
    """Return a finding if the momentum averages gradients over more than a fifth of the run."""
    optim, steps, blocks = history.facts.config["optim"], history.facts.steps, whole_blocks(history)
    betas = optim.get("betas")
    value = optim.get("momentum") if betas is None else betas[0]
    if not isinstance(value, (int, float)) or not 0 < value < 1 or blocks is None:
        return None
    span = 1 / (1 - value)
    if span <= max(_SPAN * steps, _LEAST_STEPS):
        return None
    chance = history.facts.chance_loss()
    high = chance is not None and float(blocks[-1]) > _UNLEARNED * chance
    return Finding(
        id="momentum_too_high",
        severity=Severity.WARN if high else Severity.HINT,
        confidence=0.93 if high else 0.7,
        evidence=Evidence(
            numbers={"steps_averaged": span, "limit": max(_SPAN * steps, _LEAST_STEPS), "end": float(blocks[-1])},
            steps=(1, steps),
            tags=(LOSS,),
        ),
        why=f"Momentum {value:g} adds up gradients of {span:.0f} steps in a run of {steps}; the updates may be too "
        "large and too old.",
        advice=(("optim.momentum=0.9",),) if betas is None else ((f"optim.betas=[0.9,{betas[1]}]",),),
        probe="train with momentum 0.9",
        source="Sutskever et al. 2013; Tuning Playbook",
    )


@register("symptom")
def average_too_long(history: History) -> Finding | None:
    """Return a finding if weights are averaged over half of the run, or the average is worse than the last weights."""
    average, blocks, clean = history.facts.config["average"], whole_blocks(history), clean_loss(history)
    decay, steps, chance = average.get("decay"), history.facts.steps, history.facts.chance_loss()
    if average["name"] != "ema" or not isinstance(decay, (int, float)) or not 0 < decay < 1:
        return None
    # With a warm-up it spans at most the last ninth of the steps
    span = min(1 / (1 - decay), steps / 9 if average.get("warmup") else steps)
    if span <= _SPAN * steps or blocks is None or clean is None or chance is None:
        return None
    excess = clean - float(blocks[-1])
    sure = excess > max(_WORSE * float(blocks[-1]), _WORSE_LEAST * chance)
    if not sure and span < _MOST * steps:
        return None
    return Finding(
        id="average_too_long",
        severity=Severity.WARN if sure else Severity.HINT,
        confidence=0.9 if sure else 0.7,
        evidence=Evidence(
            numbers={"steps_averaged": span, "steps": steps, "training": float(blocks[-1]), "averaged": clean},
            steps=(1, steps),
            tags=(LOSS, TRAIN_LOSS),
        ),
        why=f"The weights are averaged over {span:.0f} of {steps} steps"
        + (
            f": the average has loss {clean:.3g} on training examples, where training has {blocks[-1]:.3g}."
            if sure
            else "; the early ones may make the average worse."
        ),
        advice=(("average.warmup=true",), ("average.decay=0.99",), ("average=none",)),
        probe=None,
        source="Izmailov et al. 2018; Morales-Brotons et al. 2024, Exponential Moving Average of Weights",
    )
