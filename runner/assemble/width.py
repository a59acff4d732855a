"""The width of a model next to its base model: the ratio, the parameters that grow with it, and their factors."""

from __future__ import annotations

import copy
from math import sqrt
from typing import Any

import torch
from torch import nn

from runner.components.optim.width_rules import width_factor
from runner.engine.weights import named_kinds
from runner.engine.width import WidthFactor, WidthRatio
from runner.errors import ConfigError, shown
from runner.registry import Config

_INIT = "mup"
# The knobs that make a model wide; the first is the width that init.base_width is about
_WIDTH_KNOBS = {"cnn": ("channels", "hidden"), "mlp": ("hidden",), "resnet": ("width",), "vit": ("dim",)}
_HEADS = "heads"


def width_ratio(config: Config) -> float | None:
    """Return how many times as wide as its base model the model is, None without `init=mup`.

    Raises:
        ConfigError: The model has no rule, or no width.
    """
    init, model = config["init"], config["model"]
    if init["name"] != _INIT:
        return None
    if model["name"] not in _WIDTH_KNOBS:
        known = ", ".join(sorted(_WIDTH_KNOBS))
        raise ConfigError(
            f"init={_INIT}: no rule for the widths of model={model['name']}; expected model={known}, "
            "or choose another init"
        )
    if init["base_heads"] is not None and _HEADS not in model:
        raise ConfigError(
            f"init.base_heads: got {init['base_heads']}, must be null with model={model['name']}, which has no heads"
        )
    widths = [width for knob in _WIDTH_KNOBS[model["name"]] for width in _as_list(model[knob])]
    if not widths:
        knob = _WIDTH_KNOBS[model["name"]][0]
        raise ConfigError(f"model.{knob}: got {shown(model[knob])}, must have a width with init={_INIT}")
    return float(widths[0] / init["base_width"])


def attention_scale(config: Config) -> float | None:
    """Return the factor on the scores of attention, None for 1 / sqrt(features of a head).

    With `init=mup` it is sqrt(base) / features, which is the same at `base` features of a head, those of the base
    model. Correlated queries and keys give scores that grow like the features, not like their square root.
    """
    if width_ratio(config) is None or _HEADS not in config["model"]:
        return None
    model, init = config["model"], config["init"]
    base = init["base_width"] / (init["base_heads"] or model[_HEADS])
    return sqrt(base) / float(model["dim"] / model[_HEADS])


def width_factors(config: Config, model: nn.Module, twice: nn.Module) -> dict[str, WidthFactor] | None:
    """Return the factors of each parameter by its name, None without `init=mup`.

    Args:
        config: The config of the run.
        model: The model, with regularizers inserted.
        twice: The model of the config that `twice_as_wide` returns; its sizes that differ are widths.
    """
    ratio = width_ratio(config)
    if ratio is None:
        return None
    shapes, optim = {name: p.shape for name, p in twice.named_parameters()}, config["optim"]["name"]
    return {
        name: width_factor(optim, _ratio_of(parameter.shape, shapes[name], ratio, is_layer=not kinds))
        for name, parameter, kinds in named_kinds(model)
    }


def _ratio_of(shape: torch.Size, twice: torch.Size, ratio: float, *, is_layer: bool) -> WidthRatio:
    """Return the ratios of a parameter: of a layer's weight (out, in, ...) both, else that of its one width."""
    grown = [ratio if one != other else 1.0 for one, other in zip(shape, twice, strict=True)]
    if is_layer and len(grown) > 1:
        return WidthRatio(fan_in=grown[1], fan_out=grown[0])
    return WidthRatio(fan_in=1.0, fan_out=max(grown, default=1.0, key=lambda each: each != 1))


def twice_as_wide(config: Config) -> dict[str, Any]:
    """Return the config of a model whose widths are twice those of a config's."""
    wide = copy.deepcopy(dict(config))
    knobs: dict[str, Any] = wide["model"]
    for knob in _WIDTH_KNOBS[knobs["name"]]:
        knobs[knob] = [2 * each for each in knobs[knob]] if isinstance(knobs[knob], list) else 2 * knobs[knob]
    return wide


def _as_list(width: int | list[int]) -> list[int]:
    """Return the widths of a knob."""
    return width if isinstance(width, list) else [width]


def describe_width(config: Config) -> list[str]:
    """Return a summary line about the base model, if there is one."""
    ratio, scale = width_ratio(config), attention_scale(config)
    if ratio is None:
        return []
    scores = "" if scale is None else f"; attention scores times {scale:.4g}"
    base = config["init"]["base_width"]
    return [f"init={_INIT}: {ratio:g} times as wide as the base model (init.base_width={base}){scores}"]
