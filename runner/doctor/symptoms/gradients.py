"""Symptoms of gradients: they vanish on the way to the early layers, or explode."""

from __future__ import annotations

import numpy as np

from runner.doctor.advice import divided_lr
from runner.doctor.changes_advised import better_start, clipped
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History
from runner.doctor.layers import decay_per_step, measured_at, ratios_of
from runner.doctor.measures import median_so_far
from runner.doctor.shapes import is_short
from runner.registry import register

# Measurements in a row
_ROWS = 3
# Update ratio of an early layer that stands still, and over that of the last layer
_STANDS, _SHRINKS = 1e-5, 1e-3
# Update ratio of weights that only decay, over the decay of a step
_DECAYS = 1.5
# Layers that gradients vanish over, at least
_LEAST_LAYERS = 5
# Norm of all gradients over its running median
_EXPLODES = 100.0


@register("symptom")
def vanishing(history: History) -> Finding | None:
    """Return a finding if early layers stand still while the last one moves."""
    ratios = {name: values[-_ROWS:] for name, values in ratios_of(history).items() if len(values) >= _ROWS}
    if len(ratios) < 2:
        return None
    first, *_, last = ratios
    early, end = float(np.max(ratios[first])), float(np.median(ratios[last]))
    stands = 0 < early < _STANDS and early < _SHRINKS * end
    if not stands and not _only_decays(history, early):
        return None
    return Finding(
        id="vanishing",
        severity=Severity.WARN,
        confidence=0.8,
        evidence=measured_at(history, (f"ratio/l2/{first}", f"ratio/l2/{last}"), first_layer=early, last_layer=end),
        why=f"The first layer moves by {early:.1g} of its weights in a step"
        + (", no more than by weight decay" if not stands else "")
        + f", the last by {end:.1g}: gradients vanish.",
        advice=tuple(better_start(history.facts.config)),
        probe="python -m runner task=init_report with the same model",
        source="Glorot and Bengio 2010",
    )


def _only_decays(history: History, early: float) -> bool:
    """True if weight decay alone moves the first layer, since its gradient is far smaller than that of the last one."""
    norms = [history.series(f"grad_norm/{name}").finite().values[-_ROWS:] for name in ratios_of(history)]
    known = len(norms) >= _LEAST_LAYERS and all(len(each) for each in norms)
    if not known or not 0 < early < _DECAYS * decay_per_step(history.facts.config):
        return False
    # From layer to layer: a single small gradient is that of a dead layer
    sizes = np.array([np.median(each) for each in norms])
    return bool(sizes[0] < _SHRINKS * sizes[-1] and (np.diff(sizes) > 0).all())


@register("symptom")
def exploding(history: History) -> Finding | None:
    """Return a finding if the gradient's norm is a hundred times its median for three measurements."""
    norms = history.series("grad_norm/_global").finite()
    if len(norms) < 2 * _ROWS or is_short(history):
        return None
    medians = median_so_far(norms.values)
    high = norms.values > _EXPLODES * medians
    places = [i for i in range(len(high) - _ROWS + 1) if high[i : i + _ROWS].all()]
    if not places:
        return None
    usual, config = float(np.percentile(norms.values, 90)), history.facts.config
    first = int(norms.steps[places[0]])
    return Finding(
        id="exploding",
        severity=Severity.WARN,
        confidence=0.85,
        evidence=Evidence(
            numbers={"largest": float(norms.values.max()), "median": float(medians[-1])},
            steps=(first, int(norms.steps[places[-1] + _ROWS - 1])),
            tags=("grad_norm/_global",),
        ),
        why=f"From step {first} on gradients are more than 100 times as long as before.",
        advice=(*clipped(config, usual), *divided_lr(config, 10), *better_start(config)),
        probe=None,
        source="Pascanu et al. 2013",
    )
