"""Curves made by formulas: healthy ones with noise, and the pieces that the faulty ones are made of."""

from __future__ import annotations

import math

import numpy as np
from hand_made import facts, history, series

from runner.doctor import History

STEPS, EPOCH = 900, 30
CHANCE = math.log(10)


def noise(seed: int, count: int, sd: float, memory: float = 0.0) -> np.ndarray:
    """Return AR(1) noise with a standard deviation, whatever its memory."""
    white = np.random.default_rng(seed).normal(size=count) * sd * math.sqrt(1 - memory**2)
    found = np.empty(count)
    last = white[0] / math.sqrt(1 - memory**2)
    for i, each in enumerate(white):
        found[i] = last = memory * last + each if i else last
    return found


def falling(count: int = STEPS, *, low: float = 0.3, rate: float = 12.0, start: float = CHANCE) -> np.ndarray:
    """Return an exponential fall from the loss of zero outputs to a floor."""
    return low + (start - low) * np.exp(-rate * np.arange(count) / count)


def lrs(values, count: int = STEPS):
    """Return logged learning rates, one for each epoch, from values over the run."""
    steps = np.arange(EPOCH, count + 1, EPOCH)
    return series(np.interp(steps, np.linspace(1, count, len(values)), values), steps)


def cosine(count: int = STEPS, peak: float = 0.1):
    """Return the logged learning rates of a cosine schedule."""
    return lrs(peak * (1 + np.cos(np.pi * np.linspace(0, 1, 200))) / 2, count)


def evaluations(values, count: int = STEPS):
    """Return a curve with a value for each of equally spaced validations."""
    return series(values, np.linspace(count / len(values), count, len(values)).round())


def measured(values, count: int = STEPS):
    """Return a curve of a probe, measured at step 1 and then evenly."""
    return series(values, np.linspace(1, count, len(values)).round())


def rising(count: int = 30, *, top: float = 0.9, rate: float = 12.0) -> np.ndarray:
    """Return accuracies that rise from chance to a level."""
    return top - (top - 0.1) * np.exp(-rate * np.arange(1, count + 1) / count)


def run(*, scheduler: str = "cosine", count: int = STEPS, siblings: tuple[History, ...] = (), **curves) -> History:
    """Return a healthy history with changes: fields and `config__keys` of its facts, and curves as `tag__name`."""
    tags = {name: curves.pop(name) for name in list(curves) if name.partition("__")[0] in _GROUPS}
    own = {"val_examples": 1000, "train_examples": 5000, "class_shares": (0.1,) * 10}
    made = facts(steps=count, per_epoch=EPOCH, **(own | {"scheduler__name": scheduler} | curves))
    rate = lrs([0.1, 0.1], count) if scheduler == "constant" else cosine(count)
    healthy = {
        "train__loss": falling(count) + noise(0, count, 0.05),
        "train__lr": rate,
        "train_eval__accuracy": evaluations(rising(top=0.96), count),
        "train_eval__loss": evaluations(falling(30, low=0.25), count),
        "val__accuracy": evaluations(rising(), count),
        "val__loss": evaluations(falling(30, low=0.35), count),
        "ratio__l2/_global": measured([4e-3] * 19, count),
        "ratio__l2/a": measured([3e-3] * 19, count),
        "ratio__l2/b": measured([5e-3] * 19, count),
        "grad_norm__a": measured([0.5] * 19, count),
        "grad_norm___global": measured([1.0] * 19, count),
        **{f"activations__{layer}/std": measured([0.6] * 19, count) for layer in "abcd"},
        **{f"activations__{layer}/dead": measured([0.02] * 19, count) for layer in "abcd"},
    }
    # None leaves a curve out
    return history(made, siblings, **{tag: each for tag, each in (healthy | tags).items() if each is not None})


_GROUPS = ("train", "train_eval", "val", "ratio", "grad_norm", "activations", "time", "weight_norm", "gradient_noise")
