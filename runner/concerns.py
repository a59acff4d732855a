"""Conditions on a config, for `runner.numerics.CHANGES`: which saved runs have other numbers after a change.

A saved config does not hold the steps of an epoch or the size of the images. Where an answer needs them and they do not
follow from the config, a run counts as concerned. The user may have edited a saved config, and its values are checked
later, so malformed values count as concerned, too. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from runner.batch_sizes import with_whole_step
from runner.durations import count_and_unit
from runner.errors import ConfigError

Config = Mapping[str, Any]

# Height and width of the images of data sets that have one size
_SIDES = {"digits": 8, "mnist": 28, "fashion_mnist": 28, "cifar10": 32, "cifar100": 32, "svhn": 32}

# Models of this package whose tensors of two or more dimensions, besides norms, are all weights of layers
_PLAIN_MODELS = ("cnn", "linear", "mlp", "patch_cnn", "resnet", "resnet9", "vgg", "wide_resnet")
# The models of torchvision with positions, tokens or scales of two or more dimensions
_TORCHVISION_TOKENS = ("convnext", "maxvit", "swin", "vit")


def _knobs_of(config: Config, group: str, *options: str) -> list[Mapping[str, Any]]:
    """Return the knobs of those of the options that a config uses."""
    values = config.get(group)
    if not isinstance(values, Mapping):
        return []
    found = {values["name"]: values} if "name" in values else values
    return [found[name] or {} for name in options if name in found]


def uses(group: str, *options: str) -> Callable[[Config], bool]:
    """Return the condition that a config uses one of the options of a group."""
    return lambda config: bool(_knobs_of(config, group, *options))


def has_fraction(group: str, knob: str, *options: str) -> Callable[[Config], bool]:
    """Return the condition that a config uses one of the options with a duration that may end between two steps."""
    return lambda config: any(_may_be_fraction(config, each.get(knob)) for each in _knobs_of(config, group, *options))


def freezes(config: Config) -> bool:
    """Return True if a rule of the optimizer freezes parameters in some steps."""
    optim = config.get("optim")
    rules = optim.get("rules") if isinstance(optim, Mapping) else None
    # The user may have edited a saved config, and its values are checked later.
    listed = rules if isinstance(rules, (list, tuple)) else ()
    return any(isinstance(rule, Mapping) and not rule.keys().isdisjoint(("until", "active")) for rule in listed)


def trains_no_likelihood(config: Config) -> bool:
    """Return True if a config's loss without label smoothing is not the negative log-likelihood of the softmax."""
    loss = config.get("loss")
    return isinstance(loss, Mapping) and (loss.get("name") != "cross_entropy" or bool(loss.get("class_weights")))


def averages_predictions(config: Config) -> bool:
    """Return True if a prediction is a mean over several views or passes."""
    predict = config.get("predict")
    return isinstance(predict, Mapping) and predict.get("name") in ("tta", "ten_crop", "mc_dropout")


def validates_between_steps(config: Config) -> bool:
    """Return True if the time between two validations may be no whole number of steps."""
    return "validate_every" in config and _may_be_fraction(config, config["validate_every"])


def restarts_do_not_fit(config: Config) -> bool:
    """Return True unless cycles of equal length and a whole number of steps fill the run, without a warm-up."""
    for knobs in _knobs_of(config, "scheduler", "cosine_restarts"):
        _, length = _run_length(config)
        cycle, warmup = (_measured(config, knobs.get(name)) for name in ("cycle", "warmup"))
        if length is None or cycle is None or warmup != 0 or knobs.get("growth") != 1:
            return True
        if cycle < 2 or cycle.denominator != 1 or length % cycle:
            return True
    return False


def rises_to_a_fraction(config: Config) -> bool:
    """Return True if the peak of `onecycle` may lie between two steps, or before the first."""
    return has_fraction("scheduler", "peak", "onecycle")(config) or any(
        _measured(config, knobs.get("peak")) == 0 for knobs in _knobs_of(config, "scheduler", "onecycle")
    )


def averages_from_the_start(config: Config) -> bool:
    """Return True if SWA may start at step 0."""
    unit, _ = _run_length(config)
    for knobs in _knobs_of(config, "average", "swa"):
        start = _measured(config, knobs.get("start"))
        if start is None or (start < 1 if unit == "epoch" else round(start) == 0):
            return True
    return False


def _sides_of(config: Config) -> tuple[int, ...] | None:
    """Return the height and width of the images of a config in pixels, None if they do not follow from it."""
    data = config.get("data")
    if not isinstance(data, Mapping):
        return None
    if data.get("name") in _SIDES:
        return (_SIDES[data["name"]],)
    size = data.get("size")
    if data.get("name") == "synthetic" and data.get("kind") != "shapes":
        return (1,)
    found = tuple(size) if isinstance(size, (list, tuple)) else (size,)
    return found if all(type(side) is int for side in found) else None


def shifts_too_far(config: Config) -> bool:
    """Return True if TrivialAugment may meet images of fewer than 32 pixels."""
    return bool(_knobs_of(config, "augment", "trivialaugment")) and min(_sides_of(config) or (0,)) < 32


def crops_at_odd_margins(config: Config) -> bool:
    """Return True if ten-crop may leave a margin that cannot be halved."""
    for knobs in _knobs_of(config, "predict", "ten_crop"):
        found, crop = _sides_of(config), knobs.get("crop")
        if found is None or not isinstance(crop, (int, float)):
            return True
        if any((side - max(1, round(crop * side))) % 2 for side in found):
            return True
    return False


def paces_are_rounded(config: Config) -> bool:
    """Return True if the learning rate of a parameter group with a window may have been that of the step before."""
    optim, (unit, total) = config.get("optim"), _run_length(config)
    rules = optim.get("rules") if isinstance(optim, Mapping) else None
    listed = [rule for rule in rules if isinstance(rule, Mapping)] if isinstance(rules, (list, tuple)) else []
    windows = [rule.get("active", [None, rule.get("until")]) for rule in listed if {"until", "active"} & rule.keys()]
    for window in windows:
        if not isinstance(window, (list, tuple)) or len(window) != 2 or unit != "step" or total is None:
            return True
        first = Fraction(0) if window[0] is None else _measured(config, window[0])
        end = total if window[1] is None else _measured(config, window[1])
        if first is None or end is None:
            return True
        steps, length = int(total), max(1, min(int(total), round(end)) - round(first))
        if any(int(k * (steps / length)) != k * steps // length for k in range(length)):
            return True
    return False


def _run_length(config: Config) -> tuple[str, Fraction | None]:
    """Return the unit that a config gives the length of a run in, and the length; None if its steps are rounded."""
    steps, epochs = config.get("steps"), config.get("epochs")
    if type(steps) is int and steps > 0:
        return "step", Fraction(steps)
    whole = isinstance(epochs, (int, float)) and math.isfinite(epochs) and epochs == int(epochs)
    return "epoch", Fraction(int(epochs)) if whole else None  # type: ignore[arg-type]


def _measured(config: Config, duration: object) -> Fraction | None:
    """Return a duration in the unit of the run's length, None if it does not follow from the config."""
    unit, length = _run_length(config)
    try:
        count, own = count_and_unit(str(duration))
        batch = Fraction(_images_of_step(config))
    except (ConfigError, LookupError, TypeError):
        return None
    if own == "%":
        return None if length is None else count * length / 100
    if own == "example":
        return count / batch if unit == "step" or count == 0 else None
    return count if own == unit or count == 0 else None


def _images_of_step(config: Config) -> Any:
    """Return the images of an optimizer step."""
    config = with_whole_step(config)
    return config["data"]["batch_size"] * config["accumulate"]


def _may_be_fraction(config: Config, duration: object) -> bool:
    """Return True if a duration may be no whole number of steps."""
    try:
        count, unit = count_and_unit(str(duration))
    except ConfigError:
        return True
    if unit in ("step", "epoch") and count.denominator == 1:
        return False
    if unit == "step":
        return True
    if unit == "example":
        try:
            return (count / Fraction(_images_of_step(config))).denominator != 1
        except (LookupError, TypeError, ZeroDivisionError):
            return True
    measured = _measured(config, duration)
    return measured is None or measured.denominator != 1


def _option(config: Config, group: str) -> str:
    """Return the name of a group's option, empty if a user's edit has left none."""
    values = config.get(group)
    return str(values.get("name")) if isinstance(values, Mapping) else ""


def _has_tokens(config: Config) -> bool:
    """Return True if the model has, or may have, tensors of two or more dimensions that are no weights of layers."""
    name, model = _option(config, "model"), config.get("model")
    if name == "torchvision":
        return isinstance(model, Mapping) and str(model.get("arch")).startswith(_TORCHVISION_TOKENS)
    return name not in ("", *_PLAIN_MODELS)


def penalizes_tokens(config: Config) -> bool:
    """Return True if a penalty or constraint on the weights meets such tensors."""
    chosen = config.get("regularizer")
    names = chosen.keys() if isinstance(chosen, Mapping) else ()
    return not {"l1", "l2", "elastic_net", "max_norm"}.isdisjoint(names) and _has_tokens(config)


def orthogonalizes_others(config: Config) -> bool:
    """Return True if Muon has a model that may have matrices in its layers besides their weights."""
    known = ("", *_PLAIN_MODELS, "vit", "torchvision")
    return _option(config, "optim") in ("muon", "muon_sgd") and _option(config, "model") not in known
