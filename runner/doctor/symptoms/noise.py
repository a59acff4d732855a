"""Symptom of noisy gradients: the batch is small for them."""

from __future__ import annotations

import math

import numpy as np

from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History
from runner.registry import register

_GRADIENT, _NOISE = "gradient_noise/squared_gradient", "gradient_noise/trace"
# Share of the noise scale below which a batch is small, and measurements that an average needs
_SMALL, _LEAST = 0.1, 20
# Standard errors by which the true gradient may be longer than it was measured
_SE = 2.0


@register("symptom")
def batch_too_small(history: History) -> Finding | None:
    """Return a finding if the batch is less than a tenth of the gradient noise scale in the first half of the run."""
    gradients, noises = history.series(_GRADIENT).finite(), history.series(_NOISE).finite()
    examples = _examples(history)
    if len(gradients) != len(noises) or len(gradients) < _LEAST or examples is None:
        return None
    # The scale is large for any run near its end, where the true gradient is small: the first half counts
    half = len(gradients) // 2
    squares, traces = gradients.values[:half], noises.values[:half]
    # The largest square of the gradient that fits, because the scale must not be large by chance
    mean = float(squares.mean()) + _SE * float(squares.std(ddof=1)) / math.sqrt(len(squares))
    if mean <= 0 or float(np.mean(traces)) <= 0:
        return None
    scale = float(np.mean(traces)) / mean
    if examples >= _SMALL * scale:
        return None
    return Finding(
        id="batch_too_small",
        severity=Severity.HINT,
        confidence=0.5,
        evidence=Evidence(
            numbers={"batch": examples, "noise_scale_at_least": scale, "limit": _SMALL * scale, "n": len(squares)},
            steps=(int(gradients.steps[0]), int(gradients.steps[half - 1])),
            tags=(_GRADIENT, _NOISE),
        ),
        why=f"A step has {examples} examples, and the gradient noise scale is {scale:.3g} or more: a larger batch with "
        "a larger learning rate may need fewer steps.",
        advice=((f"accumulate={2 * history.facts.config['accumulate']}",),),
        probe="train with four times the batch, and compare the losses at equal steps",
        source="McCandlish et al. 2018, An Empirical Model of Large-Batch Training",
    )


def _examples(history: History) -> int | None:
    """Return the examples of a step, None if the config does not have their number."""
    config = history.facts.config
    batch = config["data"].get("batch_size")
    return batch * int(config["accumulate"]) if isinstance(batch, int) and batch > 0 else None
