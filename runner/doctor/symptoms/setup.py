"""Symptoms of how a run was set up: first loss, batch size, strength of regularization, loading, fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from runner.doctor.advice import divided_lr
from runner.doctor.changes_advised import better_start
from runner.doctor.evaluations import ACCURACY, TRAIN_ACCURACY, TRAIN_LOSS, chance_accuracy, clean_loss, scores_of
from runner.doctor.finding import Evidence, Finding, Severity
from runner.doctor.history import History
from runner.doctor.layers import ratios_of
from runner.doctor.measures import binomial_se, noise_sd
from runner.doctor.shapes import LOSS, losses, whole_blocks
from runner.registry import register

# First loss over that of zero outputs (Karpathy; measured: at most 1.15 with the defaults of PyTorch, 1.5 is far above)
_FIRST = 1.5
# Steps whose noise the first loss may have, and most of that noise, of the loss of zero outputs: more is divergence
_EARLY, _MOST_NOISE = 50, 0.2
# Examples of a batch: batch normalization works best with 32 and more; below 8 its statistics are noise
_TINY_BATCH = 8
# Excess of the loss in training over that in evaluation, of the loss of zero outputs; smoothing of more is unusual
_EXCESS, _SMOOTHING, _DROPPED = 0.3, 0.5, 0.8
# Of the loss of zero outputs: a loss that stays above it under a strong regularizer
_STAYS = 0.5
# Share of an image that random erasing covers on average, and a magnitude of random operations, that are unusual
_ERASED, _MAGNITUDE = 0.4, 20.0
# Share of the time spent waiting for data, and seconds of the run below which nobody minds
_WAITS, _SECONDS = 0.2, 60.0
# Update ratio of pretrained layers in the first steps
_FINE_TUNED = 3e-3
# Most frequent class over the rarest one
_IMBALANCE = 10.0


@register("symptom")
def initial_loss(history: History) -> Finding | None:
    """Return a finding if the first training loss is far above that of zero outputs."""
    loss, chance, config = losses(history), history.facts.chance_loss(), history.facts.config
    started = config["init_from"] is None and config["extend"] is None and config["extended_from"] is None
    if chance is None or not started or not len(loss) or loss.steps[0] != 1:
        return None
    first = float(loss.values[0])
    if first <= _FIRST * chance + 3 * min(noise_sd(loss.values[:_EARLY]), _MOST_NOISE * chance):
        return None
    return Finding(
        id="initial_loss",
        severity=Severity.WARN,
        confidence=0.9,
        evidence=Evidence(numbers={"first": first, "expected": chance}, steps=(1, 1), tags=(LOSS,)),
        why=f"The loss of the first step is {first:.3g}, where outputs near zero give {chance:.3g}: the logits are too "
        "large at initialization, or the loss is not a mean.",
        advice=tuple(better_start(config)),
        probe="python -m runner task=init_report with the same model",
        source="CS231n, neural networks 3; Karpathy, A Recipe for Training Neural Networks",
    )


@register("symptom")
def bn_small_batch(history: History) -> Finding | None:
    """Return a finding if batch normalization has its statistics from few examples."""
    config = history.facts.config
    batch = config["data"].get("batch_size")
    if config["norm"]["name"] != "batch" or not isinstance(batch, int) or batch >= _TINY_BATCH:
        return None
    return Finding(
        id="bn_small_batch",
        severity=Severity.WARN if batch == 1 else Severity.HINT,
        confidence=0.9,
        evidence=Evidence(numbers={"batch_size": batch}, steps=(1, history.facts.steps), tags=(LOSS,)),
        why=f"Batch normalization has its statistics from {batch} example{'s' if batch > 1 else ''} at a time, which "
        + ("is instance normalization." if batch == 1 else "may be too noisy."),
        advice=(("data.batch_size=64",), ("norm=group",)),
        probe=None,
        source="Wu and He 2018, Group Normalization; Tuning Playbook",
    )


@register("symptom")
def regularized_too_much(history: History) -> Finding | None:
    """Return a finding if a strong regularizer keeps the training loss high."""
    chance, clean, blocks = history.facts.chance_loss(), clean_loss(history), whole_blocks(history)
    strength = _strong(history)
    if chance is None or blocks is None:
        return None
    end = float(blocks[-1])
    excess = (end - clean) / chance if clean is not None and history.facts.config["mix"]["name"] == "none" else 0.0
    # Strong knobs only count where the loss is still high; a large excess counts where a regularizer is on at all
    by_knob = strength is not None and end > _EXCESS * chance
    if not by_knob and not (excess > _EXCESS and history.facts.config["regularizer"]):
        return None
    key, value, less = strength or ("regularizer", math.nan, "regularizer=[]")
    sure = by_knob and end > _STAYS * chance
    return Finding(
        id="regularized_too_much",
        severity=Severity.WARN if sure else Severity.HINT,
        confidence=0.9 if sure else 0.85 if by_knob else 0.6,
        evidence=Evidence(
            numbers={"training": end, "chance": chance} | ({"evaluation": clean} if clean is not None else {}),
            steps=(1, history.facts.steps),
            tags=(LOSS, TRAIN_LOSS),
        ),
        why=f"The training loss ends at {end:.3g}, with {key}{'' if math.isnan(value) else f'={value:g}'}; the "
        "regularization may be too strong.",
        advice=((less,),),
        probe="train without it",
        source="Srivastava et al. 2014; Szegedy et al. 2016",
    )


def _strong(history: History) -> tuple[str, float, str] | None:
    """Return the key, the value and a usual value of a regularizer that is unusually strong, None without one."""
    config = history.facts.config
    smoothing = config["loss"].get("label_smoothing") or 0.0
    if smoothing >= _SMOOTHING:
        return "loss.label_smoothing", smoothing, "loss.label_smoothing=0.1"
    for name, knobs in config["regularizer"].items():
        rate = (knobs or {}).get("p")
        if isinstance(rate, (int, float)) and rate >= _DROPPED:
            return f"regularizer.{name}.p", rate, f"regularizer.{name}.p=0.2"
    return _strong_augmentation(config["augment"])


def _strong_augmentation(augment: Mapping[str, Any]) -> tuple[str, float, str] | None:
    """Return the key, the value and a usual value of an augmentation that is unusually strong, None without one."""
    erasing, operations = augment.get("random_erasing"), augment.get("randaugment")
    if erasing and erasing["p"] * sum(erasing["scale"]) / 2 >= _ERASED:
        return "augment.random_erasing.p", float(erasing["p"]), "augment.random_erasing.scale=[0.02,0.4]"
    if operations and operations["magnitude"] >= _MAGNITUDE:
        return "augment.randaugment.magnitude", float(operations["magnitude"]), "augment.randaugment.magnitude=9"
    return None


@register("symptom")
def data_bound(history: History) -> Finding | None:
    """Return a finding if steps wait for data for more than a fifth of the time."""
    waits, times = history.series("time/data_wait").finite(), history.series("time/step_ms").finite()
    if len(waits) < 3 or not len(times):
        return None
    share = float(np.median(waits.values))
    seconds = float(np.median(times.values)) * history.facts.steps / 1000
    if share <= _WAITS or seconds < _SECONDS:
        return None
    knob = "data.workers" if "workers" in history.facts.config["data"] else "data.placement"
    return Finding(
        id="data_bound",
        severity=Severity.HINT,
        confidence=0.7,
        evidence=Evidence(
            numbers={"wait_share": share},
            steps=(int(waits.steps[0]), int(waits.steps[-1])),
            tags=("time/data_wait",),
        ),
        why=f"Steps wait for data for {share:.0%} of the time; faster loading may save that.",
        advice=(("data.workers=null",),) if knob == "data.workers" else (("data.placement=auto",),),
        probe="python -m runner task=profile with the same config",
        source="a choice: a fifth of the time",
    )


@register("symptom")
def fine_tuned_too_fast(history: History) -> Finding | None:
    """Return a finding if pretrained layers move by much in the first tenth of the run."""
    config, ratios = history.facts.config, ratios_of(history)
    if config["init_from"] is None or len(ratios) < 2:
        return None
    # The last tensor is the new classifier, which has to move
    # The mean, since the first step may already move them far
    early = [float(np.mean(values[:3])) for values in list(ratios.values())[:-1] if np.isfinite(values[:3]).all()]
    if not early or float(np.median(early)) <= _FINE_TUNED:
        return None
    return Finding(
        id="fine_tuned_too_fast",
        severity=Severity.HINT,
        confidence=0.6,
        evidence=Evidence(
            numbers={"early_update_ratio": float(np.median(early)), "limit": _FINE_TUNED},
            steps=(1, max(1, history.facts.steps // 10)),
            tags=tuple(f"ratio/l2/{name}" for name in list(ratios)[:-1]),
        ),
        why=f"Early steps move pretrained layers by {np.median(early):.1g} of their weights; that may destroy what "
        "they have learned.",
        advice=(*divided_lr(config, 10), ("transfer=feature_extraction",)),
        probe="compare with transfer=feature_extraction, the baseline",
        source="CS231n, transfer learning",
    )


@register("symptom")
def imbalanced(history: History) -> Finding | None:
    """Return a finding if classes are rare and validation accuracy is that of the most frequent class."""
    shares, scores, chance = history.facts.class_shares, scores_of(history), chance_accuracy(history)
    if not shares or scores is None or chance is None or max(shares) <= _IMBALANCE * min(shares):
        return None
    limit = chance + 2 * binomial_se(chance, scores.val_count)
    if scores.last_val > limit or history.facts.config["loss"].get("class_weights") is not None:
        return None
    return Finding(
        id="imbalanced",
        severity=Severity.HINT,
        confidence=0.6,
        evidence=Evidence(
            numbers={"majority": chance, "rarest": min(shares), "val": scores.last_val},
            steps=scores.steps(),
            tags=(ACCURACY, TRAIN_ACCURACY),
        ),
        why=f"Classes have between {min(shares):.2g} and {chance:.2g} of the examples, and validation accuracy is that "
        "of the most frequent one; weights for the classes may help.",
        advice=(("data.sampling=balanced",), ("loss.class_weights=balanced",)),
        probe=None,
        source="Buda et al. 2018",
    )
