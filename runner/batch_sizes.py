"""`data.batch_size=auto`: a config names the images of a step, and the device decides how many fit at a time; no torch.

    data.batch_size=auto effective_batch_size=512

A training run finds the largest batch that fits, once, and its config then has numbers: `data.batch_size: 128`,
`accumulate: 4`. What the run learns follows from the images of a step, so the two have no part in its identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import ConfigError, shown
from runner.schema import PositiveInt

if TYPE_CHECKING:
    BatchSize = PositiveInt
else:
    # A data set is built with a number: that of the run, or all images of a step
    BatchSize = PositiveInt | Literal["auto"]

_Config = Mapping[str, Any]
_AUTO = "auto"
_OF_STEP = "effective_batch_size"


def is_automatic(config: _Config) -> bool:
    """Return True if a config leaves the batch size to the device."""
    data = config.get("data")
    return isinstance(data, Mapping) and data.get("batch_size") == _AUTO


def check_batch_size(config: _Config) -> None:
    """Raise ConfigError if the batch size, the micro-batches and the images of a step contradict each other."""
    whole, parts, data = config[_OF_STEP], config["accumulate"], config["data"]
    if is_automatic(config):
        if whole is None:
            raise ConfigError(
                f"data.batch_size: got 'auto'; requires {_OF_STEP}=<images of a step>, which accumulation keeps"
            )
        if parts != 1:
            raise ConfigError(
                f"accumulate: got {parts}, must be 1 with data.batch_size=auto, which finds it; "
                f"{_OF_STEP} is the images of a step"
            )
        if config["cuda_graphs"]:
            raise ConfigError("cuda_graphs: got true, must be false with data.batch_size=auto, which may accumulate")
    elif whole is not None and type(size := data.get("batch_size")) is int and size * parts != whole:
        raise ConfigError(
            f"{_OF_STEP}: got {whole}, must be data.batch_size times accumulate ({shown(size * parts)}); "
            "data.batch_size=auto finds both"
        )


def with_batch(config: _Config, batch: int) -> dict[str, Any]:
    """Return a config with so many images per forward pass, which divide the images of a step."""
    data = {**config["data"], "batch_size": batch}
    return {**config, "data": data, "accumulate": config[_OF_STEP] // batch}


def with_whole_step(config: _Config) -> _Config:
    """Return a config with all images of a step in one batch if it leaves the size to the device, else the same."""
    return with_batch(config, config[_OF_STEP]) if is_automatic(config) else config


def undivided(config: _Config) -> dict[str, Any]:
    """Return a config as it was before the batch size was found, if the images of a step are given, else the same."""
    data = config.get("data")
    if config.get(_OF_STEP) is None or not isinstance(data, Mapping) or "batch_size" not in data:
        return dict(config)
    return {**config, "data": {**data, "batch_size": _AUTO}, "accumulate": 1}


def sizes_of(images: int) -> list[int]:
    """Return the batch sizes that split a step of so many images into equal parts, from the smallest."""
    low = [each for each in range(1, int(images**0.5) + 1) if images % each == 0]
    return sorted({*low, *(images // each for each in low)})
