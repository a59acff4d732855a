"""The input normalization of a run that starts from weights: the statistics that they were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from runner.assemble.read_weights import InitialWeights, Inputs
from runner.errors import ConfigError
from runner.registry import Config

_KEY = "transfer.normalization"
_OWN = f"{_KEY}=data computes them from these data"


def follows_checkpoint(config: Config) -> bool:
    """Return True if the normalization is to be that of the weights."""
    return bool(config["transfer"].get("normalization") == "checkpoint")


def load_statistics(preprocess: nn.Module, config: Config, weights: InitialWeights) -> list[str] | None:
    """Load the statistics that the weights were trained with into `preprocess`, and return summary lines.

    None if the source of the weights does not say them.

    Raises:
        ConfigError: They belong to another preprocessing, or to images of another shape.
    """
    inputs = weights.read_inputs()
    if inputs is None:
        return None
    _check_option(config, inputs, weights.where)
    own = preprocess.state_dict()
    statistics, how = _of_color(inputs.tensors, own)
    wrong = [name for name, tensor in own.items() if name not in statistics or statistics[name].shape != tensor.shape]
    if wrong:
        given = tuple(statistics[wrong[0]].shape) if wrong[0] in statistics else "nothing"
        raise ConfigError(
            f"preprocess: the statistics of {weights.where} are for other images ({wrong[0]}: {given}, "
            f"expected {tuple(own[wrong[0]].shape)}); {_OWN}"
        )
    preprocess.load_state_dict({name: statistics[name] for name in own})
    return [f"preprocess={config['preprocess']['name']}: statistics of {weights.where}{how}; {_OWN}"] if own else []


def describe_own(config: Config, weights: InitialWeights | None) -> list[str]:
    """Return a summary line if a run that starts from weights normalizes by the statistics of its own data."""
    if weights is None or "normalization" not in config["transfer"]:
        return []
    why = f"{weights.where} does not say its own" if follows_checkpoint(config) else f"{_KEY}=data"
    return [f"preprocess={config['preprocess']['name']}: statistics of these data ({why})"]


def _check_option(config: Config, inputs: Inputs, where: str) -> None:
    """Raise ConfigError if the weights were trained with another preprocessing than the run's."""
    own, other = dict(config["preprocess"]), dict(inputs.preprocess)
    if own != other:
        differing = [key for key in {**own, **other} if own.get(key) != other.get(key)]
        key = "preprocess" if differing[0] == "name" else f"preprocess.{differing[0]}"
        given, wanted = own.get(differing[0]), other.get(differing[0])
        raise ConfigError(
            f"{key}: got {given}, but {where} was trained with {wanted}; use {key}={wanted}, "
            f"or {_KEY}=data to keep {given}"
        )


def _of_color(statistics: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Any], str]:
    """Return statistics per color as their mean for gray images, which repeat one channel; and words that say so."""
    found, how = dict(statistics), ""
    for name, tensor in statistics.items():
        # (1, 3, 1, 1) for images of one channel
        if name in own and tensor.shape == (1, 3, 1, 1) and own[name].shape == (1, 1, 1, 1):
            found[name], how = tensor.mean(1, keepdim=True), ", the mean of the three colors"
    return found, how
