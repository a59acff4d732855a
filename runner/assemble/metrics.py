"""The metrics of a run: those of each validation, and those of its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.directions import monitor_in
from runner.engine.losses import Loss
from runner.engine.metrics import Metric, Metrics
from runner.engine.monitor import Monitor
from runner.errors import ConfigError, unknown
from runner.plain_yaml import conf_folder, yaml_files
from runner.registry import Config, build, find, names, option_config
from runner.settings import SCORES

_KIND = "metric"


def validation_metrics(config: Config, loss: Loss, num_classes: int) -> Metrics:
    """Return the metrics that the config lists, without those that have no meaning in this run.

    Raises ConfigError if the monitored score is none of a validation, or has no meaning.
    """
    built = _built(config[_KIND], loss, num_classes)
    _check_monitor(config, built)
    return _defined(built, num_classes)


def final_metrics(config: Config, loss: Loss, num_classes: int) -> Metrics:
    """Return all metrics that come with runner and those that the config lists, if they have a meaning in this run."""
    entries: dict[str, Any] = {}
    for path in yaml_files(conf_folder() / _KIND):
        entries |= option_config(_KIND, path.stem, key=_KIND)
    return _defined(_built({**entries, **config[_KIND]}, loss, num_classes), num_classes)


def describe_metrics(metrics: Metrics) -> list[str]:
    """Return a summary line for each listed metric that has no meaning in this run."""
    return [f"metric={name}: left out, {reason}" for name, reason in metrics.left_out.items()]


def _built(entries: Mapping[str, Any], loss: Loss, num_classes: int) -> dict[str, Metric]:
    """Return metrics by name; raises ConfigError for a component that returns something else."""
    found = {}
    for name, knobs in entries.items():
        values = {"name": name, **(knobs or {})}
        metric = build(_KIND, values, key=f"{_KIND}.{name}", num_classes=num_classes, loss=loss)
        if not isinstance(metric, Metric):
            kind = type(metric).__name__
            raise ConfigError(f"metric={name}: returns a {kind}, must return a Metric (runner.engine.metrics)")
        found[name] = metric
    return found


def _defined(built: Mapping[str, Metric], num_classes: int) -> Metrics:
    """Return the metrics that have a meaning in this run, and why the others have none."""
    left_out = {name: metric.undefined for name, metric in built.items() if metric.undefined}
    defined = {name: metric for name, metric in built.items() if name not in left_out}
    return Metrics(defined, num_classes, left_out=left_out)


def _check_monitor(config: Config, built: Mapping[str, Metric]) -> None:
    """Raise ConfigError if the monitored score cannot be computed, or if its direction is not in the source."""
    tag = config["monitor"]
    name = Monitor(tag).metric
    if tag in SCORES:
        return
    if tag != f"val/{name}" or name not in built:
        raise unknown("monitor", "value", tag, [*SCORES, *(f"val/{each}" for each in sorted({*names(_KIND), *built}))])
    if built[name].undefined:
        raise ConfigError(f"monitor: got '{tag}', must be another one here: {built[name].undefined}")
    if getattr(find(_KIND, name), "lower_is_better", False) != monitor_in(config).lower_is_better:
        raise ConfigError(
            f"metric={name}: `lower_is_better` must be a decorator of the component, because it is read from the source"
        )
