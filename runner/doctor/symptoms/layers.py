"""Symptoms of single layers: dead or saturated units, activations and updates that shrink or grow over the layers."""

from __future__ import annotations

from runner.doctor.advice import divided_lr
from runner.doctor.changes_advised import better_start
from runner.doctor.finding import Finding, Severity
from runner.doctor.history import History
from runner.doctor.layers import activation_gain, late, layers_of, measured_at, ratios_of
from runner.doctor.shapes import RATIO, whole_blocks
from runner.registry import register

# Share of dead units, late in the run (CS231n: as much as 40 % at a high rate). Few examples are in a batch, so that a
# healthy layer shows some: more than twice the share at step 1 is needed
_DEAD, _ALL_DEAD, _DEAD_GROWTH = 0.4, 0.9, 2.0
# Share of saturated outputs: a hint, a warning (measured at initialization: Xavier 1 %, too large weights 33 to 41 %)
_SATURATED, _VERY_SATURATED = 0.1, 0.25
# Of the loss of zero outputs: below it, much is learned
_LEARNED = 0.5
# Standard deviation of a layer over that of the first one; of bounded outputs by itself (0.2 for inputs of variance 1)
_COLLAPSED, _BOUNDED, _TINY = 0.1, 0.05, 0.02
# Confidence above which a collapse is certain
_SURE = 0.9
# Growth of activations per layer, over at least so many layers, and in all
_GAINS, _LEAST_LAYERS, _TOTAL = (0.6, 1.7), 4, (0.1, 10.0)
# Measurements in a row
_ROWS = 3


@register("symptom")
def dead_relu(history: History) -> Finding | None:
    """Return a finding if many ReLUs of a layer give the same value for a whole batch, and more than at the start."""
    config = history.facts.config
    if config["activation"]["name"] != "relu":
        return None
    shares = {name: (late(values), float(values[0])) for name, values in layers_of(history, "dead").items()}
    grown = {
        name: now for name, (now, first) in shares.items() if now > max(_DEAD, min(_DEAD_GROWTH * first, _ALL_DEAD))
    }
    if not grown:
        return None
    name = max(grown, key=lambda each: grown[each])
    worst = grown[name]
    return Finding(
        id="dead_relu",
        severity=Severity.WARN if worst > _ALL_DEAD else Severity.HINT,
        confidence=0.85 if worst > _ALL_DEAD else 0.5,
        evidence=measured_at(history, (f"activations/{name}/dead",), dead_share=worst, at_start=shares[name][1]),
        why=f"{worst:.0%} of the units of {name} give one value for a whole batch, {shares[name][1]:.0%} at the start"
        + ("." if worst > _ALL_DEAD else "; some may be dead."),
        advice=(*divided_lr(config, 3), ("activation=leaky_relu",)),
        probe=None,
        source="CS231n, neural networks 1",
    )


@register("symptom")
def saturated(history: History) -> Finding | None:
    """Return a finding if many outputs of a tanh or sigmoid layer are at its bounds."""
    layers = layers_of(history, "saturated")
    if not layers:
        return None
    shares = {name: (float(values[0]), late(values)) for name, values in layers.items()}
    name = max(shares, key=lambda each: max(shares[each]))
    first, now = shares[name]
    # A trained layer may be sure of itself, unless little is learned; one that begins so cannot learn
    if first <= _SATURATED and (now <= _SATURATED or _has_learned(history)):
        return None
    sure = first > _VERY_SATURATED
    return Finding(
        id="saturated",
        severity=Severity.WARN if sure else Severity.HINT,
        confidence=0.9 if sure else 0.5,
        evidence=measured_at(history, (f"activations/{name}/saturated",), at_start=first, late=now),
        why=f"{max(first, now):.0%} of the outputs of {name} are saturated, where the gradient is nearly zero"
        + ("." if sure else "; that may slow training."),
        advice=(("init=xavier",), ("activation=relu",), *_normalized(history)),
        probe="python -m runner task=init_report with the same model",
        source="Glorot and Bengio 2010",
    )


def _has_learned(history: History) -> bool:
    """True if the training loss ends well below that of zero outputs."""
    blocks, chance = whole_blocks(history), history.facts.chance_loss()
    return blocks is not None and chance is not None and float(blocks[-1]) < _LEARNED * chance


def _normalized(history: History) -> list[tuple[str, ...]]:
    """Return the advice to normalize, where the run does not."""
    return [("norm=batch",)] if history.facts.config["norm"]["name"] == "none" else []


@register("symptom")
def collapsed(history: History) -> Finding | None:
    """Return a finding if the activations of a layer hardly vary compared with those of the first one."""
    layers = layers_of(history, "std")
    if len(layers) < 2:
        return None
    first, *others = layers
    if not any(values.any() for values in layers.values()):
        return _collapse(history, first, 0.0, 0.0, 0.97, f"The outputs of {first} and of all other layers never vary.")
    shares = {name: late(layers[name]) / late(layers[first]) if late(layers[first]) > 0 else 1.0 for name in others}
    name = min(shares, key=lambda each: shares[each])
    at_start = float(layers[name][0] / layers[first][0]) if layers[first][0] > 0 else 1.0
    vary = f"The outputs of {name} vary {shares[name]:.1g} times as much as those of {first}"
    if shares[name] < _COLLAPSED and at_start < _COLLAPSED:
        return _collapse(history, name, shares[name], at_start, 0.93, f"{vary}: they shrink from layer to layer.")
    starts = [float(values[0]) for values in layers.values()]
    smallest, bounded = min(starts), history.facts.config["activation"]["name"] in ("sigmoid", "tanh")
    # Of inputs of variance 1, whatever the activation
    if (bounded and smallest < _BOUNDED) or max(starts) < _TINY:
        why = f"The outputs of a layer begin with a standard deviation of {smallest:.1g}; little may pass through it."
        return _collapse(history, first, shares[name], smallest, 0.6, why)
    if shares[name] < _COLLAPSED:
        return _collapse(history, name, shares[name], at_start, 0.45, f"{vary}; the layer may pass little on.")
    return None


def _collapse(history: History, name: str, share: float, at_start: float, confidence: float, why: str) -> Finding:
    """Return the finding of a layer whose outputs hardly vary; it is a warning if they do so from the start."""
    return Finding(
        id="collapsed",
        severity=Severity.WARN if confidence > _SURE else Severity.HINT,
        confidence=confidence,
        evidence=measured_at(history, (f"activations/{name}/std",), share_of_first_layer=share, at_start=at_start),
        why=why,
        advice=tuple(better_start(history.facts.config)),
        probe="python -m runner task=init_report with the same model",
        source="Glorot and Bengio 2010",
    )


@register("symptom")
def activations_grow_or_shrink(history: History) -> Finding | None:
    """Return a finding if activations grow or shrink from layer to layer at initialization."""
    gain, layers = activation_gain(history), layers_of(history, "std")
    if gain is None:
        return None
    total = gain ** (len(layers) - 1)
    # Few layers between pooling or with residuals may grow a little
    steady = len(layers) < _LEAST_LAYERS or _GAINS[0] <= gain <= _GAINS[1]
    if steady and _TOTAL[0] <= total <= _TOTAL[1]:
        return None
    # Blocks of a residual network may double the variance
    hint = "res" in history.facts.config["model"]["name"] or _TOTAL[0] <= total <= _TOTAL[1]
    return Finding(
        id="activations_grow_or_shrink",
        severity=Severity.HINT if hint else Severity.WARN,
        confidence=0.5 if hint else 0.8,
        evidence=measured_at(history, tuple(f"activations/{each}/std" for each in layers), gain=gain, total=total),
        why=f"Activations change by a factor of {gain:.2g} per layer at initialization, {total:.2g} in all"
        + ("; this may slow training." if hint else "."),
        advice=tuple(better_start(history.facts.config)),
        probe="python -m runner task=init_report with the same model",
        source="He et al. 2015; Glorot and Bengio 2010",
    )


@register("symptom")
def layer_frozen(history: History) -> Finding | None:
    """Return a finding if a trainable weight tensor never changes while others do."""
    whole, frozen = history.series(RATIO).values, []
    for name, values in ratios_of(history).items():
        if len(values) == len(whole) >= _ROWS and not values[-_ROWS:].any() and (whole[-_ROWS:] > 0).any():
            frozen.append(name)
    if not frozen:
        return None
    more = f" and {len(frozen) - 1} more" if len(frozen) > 1 else ""
    norm = history.series(f"grad_norm/{frozen[0]}").values
    blocked = bool(len(norm) and not norm[-_ROWS:].any())
    return Finding(
        id="layer_frozen",
        severity=Severity.ERROR,
        confidence=1.0,
        evidence=measured_at(history, tuple(f"ratio/l2/{name}" for name in frozen), tensors=len(frozen)),
        why=f"{frozen[0]}{more} does not move: "
        + ("no gradient reaches it." if blocked else "its learning rate is 0, or the optimizer does not have it."),
        advice=(("optim.rules=[]",),) if history.facts.config["optim"].get("rules") and not blocked else (),
        probe=None,
        source="exact: updates of 0 in three measurements in a row",
    )
