"""The bytes that a run takes on the disk, before it begins: when it has ended, and at most while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.assemble.checkpoint_size import CheckpointSize, checkpoint_size, clock_of
from runner.assemble.load_data import preloaded
from runner.engine.contracts import Data
from runner.registry import Config, build

# Measured: files of every run; bytes of logs for a step, for rates and timing, a validation, and a measurement of a
# probe, in all and for each parameter
_FILES = 40_000
_PER_STEP, _PER_ROW = 178, 300
_PER_VALIDATION = 860
_PER_MEASUREMENT, _PER_PARAMETER = 220, 95


def run_size(config: Config) -> tuple[int, int]:
    """Return the bytes of a run when it has ended, and the most that it takes while it runs.

    Raises whatever the data set or a component raises that cannot be built; nothing is downloaded.
    """
    data = _data(config)
    size, clock = checkpoint_size(config, data), clock_of(config, data)
    logs = _FILES + _PER_STEP * clock.total_steps + _PER_ROW * (clock.total_steps // config["log_every"])
    logs += int(clock.total_steps / clock.interval(config["validate_every"])) * _PER_VALIDATION
    logs += sum(_probe_bytes(knobs or {}, clock.total_steps, size, data) for knobs in config["probe"].values())
    if config["predictions"] != "never":
        logs += len(data.val.labels) * (4 * len(data.classes) + 16)
    both = size.weights + size.state
    snapshots = size.snapshots * size.weights
    kept = {"none": 0, "best": size.weights + snapshots}.get(config["keep"], size.weights + both + snapshots)
    return logs + kept, logs + _peak(config, size)


def _peak(config: Config, size: CheckpointSize) -> int:
    """Return the most bytes of checkpoints at the same time.

    Two newest, the best one, and another that is written before one of them is removed; with `checkpoint_every=auto`,
    the weights of the best step are written with it. A snapshot has its state as long as the run goes on if it is
    that of a checkpoint.
    """
    best = size.weights if config["checkpoint_every"] == "auto" else 0
    return (4 + size.snapshots) * (size.weights + size.state) + best


def _probe_bytes(knobs: Mapping[str, Any], steps: int, size: CheckpointSize, data: Data) -> int:
    """Return the bytes of what a probe logs."""
    every = knobs.get("every")
    measurements = 1 + steps // every if isinstance(every, int) and every > 0 else steps
    pictures = knobs.get("count", 0) if isinstance(knobs.get("count", 0), int) else 0
    channels, height, width = data.shape
    return measurements * (_PER_MEASUREMENT + _PER_PARAMETER * size.parameters + pictures * channels * height * width)


def _data(config: Config) -> Data:
    """Return the data set of a config, for its shape, its classes and the number of its examples."""
    if loaded := preloaded(config):
        return loaded.data
    chosen = {**config["data"], **({"download": False} if "download" in config["data"] else {})}
    data: Data = build("data", chosen)
    return data
