"""The weights that `init_from` names: read from a run folder or a file, or the published ones of torchvision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner import plain_yaml
from runner.assemble.published_weights import published_file
from runner.engine.fingerprint import from_record
from runner.engine.saving import checkpoint
from runner.engine.saving.folder import read_environment
from runner.engine.saving.storage import printable
from runner.engine.state_dict import StateDict
from runner.engine.weights_file import read_tensors, renamed, sha256_of_tensors
from runner.errors import CheckpointError, ConfigError
from runner.weight_sources import KEY, Source, find_source, recall_digest, remember_digest, state_of_source

# The prefix of the model's tensors in a checkpoint, beside those of the preprocessing
_MODEL = "model."
_PREPROCESS = "preprocess."


@dataclass(frozen=True)
class InitialWeights:
    """Tensors by name, and the classes that their classifier knows; None where the source does not say them."""

    tensors: StateDict
    classes: tuple[str, ...] | None
    where: str  # in messages
    # How the inputs were normalized that they were trained with; None where the source does not say it
    read_inputs: Callable[[], Inputs | None] = lambda: None


@dataclass(frozen=True)
class Inputs:
    """How the inputs were normalized that weights were trained with.

    Attributes:
        preprocess: The config of the preprocessing.
        tensors: Its statistics by name, as far as they are known.
    """

    preprocess: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def read_weights(config: Mapping[str, Any]) -> InitialWeights | None:
    """Return the weights that a run starts from, None if it has no `init_from`.

    Raises:
        ConfigError: There is no such file or folder, or its tensors are others than those that the run was made for.
        CheckpointError: The file is damaged.
        DataError: Published weights are missing and cannot be downloaded.
    """
    if config[KEY] is None:
        return None
    source = find_source(config[KEY])
    found = _read(source, config)
    wanted = config["init_sha256"]
    if wanted is not None and (now := sha256_of_tensors(found.tensors)) != wanted:
        raise ConfigError(
            f"{KEY}: the tensors of {found.where} have the SHA-256 {now[:12]}..., expected {wanted[:12]}... "
            "(init_sha256); restore the file, or start a new run"
        )
    return found


def digest_of_weights(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the tensors that `init_from` names, the one that was kept for the state of their file."""
    source = find_source(config[KEY])
    state = state_of_source(source)
    if known := recall_digest(state):
        return known
    found = sha256_of_tensors(_read(source, config).tensors)
    if state == state_of_source(source):
        remember_digest(state, found)
    return found


def _read(source: Source, config: Mapping[str, Any]) -> InitialWeights:
    """Return the tensors of a source."""
    if source.kind == "name":
        found = published_file(config["model"], source.text, download=config["init_download"])
        where = f"{source.text} of {config['model']['arch']}"
        inputs = partial(_standardized, found.mean, found.std)
        return InitialWeights(read_tensors(found.file, KEY), found.classes, where, inputs)
    assert source.file is not None
    if source.kind == "run":
        return _of_run(Path(source.text), source.file)
    return InitialWeights(read_tensors(source.file, KEY), None, printable(source.file))


def _of_run(folder: Path, file: Path) -> InitialWeights:
    """Return the model of a run folder, without its preprocessing."""
    saved = checkpoint.read_weights(file)
    tensors = StateDict((name, tensor) for name, tensor in saved.items() if name.startswith(_MODEL))
    if not tensors:
        raise CheckpointError(f"{KEY}: {printable(file)} holds no tensors of a model")
    tensors.versions = saved.versions
    known = from_record(read_environment(folder).get("data"))
    statistics = {name.removeprefix(_PREPROCESS): t for name, t in saved.items() if name.startswith(_PREPROCESS)}
    inputs = partial(_inputs_of_run, folder, statistics)
    return InitialWeights(renamed(tensors, _MODEL, ""), known.classes if known else None, printable(folder), inputs)


def _inputs_of_run(folder: Path, statistics: Mapping[str, Tensor]) -> Inputs | None:
    """Return how the inputs of a run were normalized, None if its config does not say it."""
    config = plain_yaml.load(folder / "config.yaml")
    found = config.get("preprocess") if isinstance(config, Mapping) else None
    return Inputs(found, statistics) if isinstance(found, Mapping) else None


def _standardized(mean: Sequence[float] | None, std: Sequence[float] | None) -> Inputs | None:
    """Return `preprocess=standardize` with a mean and a standard deviation per channel of images from 0 to 1."""
    if mean is None or std is None:
        return None
    shape = (1, -1, 1, 1)
    tensors = {
        "mean": 255 * torch.tensor(mean).reshape(shape),
        "scale": 1 / (255 * torch.tensor(std).reshape(shape)),
    }
    return Inputs({"name": "standardize"}, tensors)
