"""Published weights of torchvision's models by name: the file in torch hub's folder, downloaded once and checked."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlparse

from runner.components.data.download import DOWNLOAD_FOLDER, locked, socket_timeout, use_private_bar_lock
from runner.engine.saving.storage import convert_os_errors, printable, sha256_of
from runner.errors import CheckpointError, ConfigError, DataError, unknown
from runner.registry import Config
from runner.user_paths import exists, full, is_file

_KEY = "init_from"
_LIBRARY = "torchvision"
# The first digits of a file's SHA-256 are in its name, as torch.hub expects
_HASH = re.compile(r"-([0-9a-f]{8,64})\.")
# Seconds without data before a download is aborted
_TIMEOUT = 60.0


class _Published(NamedTuple):
    """The file of published weights, and what torchvision says of them.

    Attributes:
        file: Where it is.
        classes: The classes that the classifier knows.
        mean, std: The statistics per color of images from 0 to 1 by which the inputs were normalized.
    """

    file: Path
    classes: tuple[str, ...] | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def published_file(model: Config, name: str, *, download: bool) -> _Published:
    """Return the file of published weights, and what torchvision says of them; None for what it does not say.

    Raises:
        ConfigError: The model has no published weights, or none of this name.
        CheckpointError: The file is damaged.
        DataError: The file is missing, and `download` is false or fails.
    """
    entry = _entry(model, name)
    file = Path(_hub_folder()) / Path(urlparse(entry.url).path).name
    place = f"put {file.name} from {entry.url} into {printable(file.parent)}"
    what = f"{_KEY}: {name} of {model['arch']}"
    if not is_file(file, error=DataError, key=_KEY):
        if exists(file, error=DataError, key=_KEY):
            raise DataError(f"{_KEY}: {printable(file)} is in the way; it must be a file")
        if not download:
            raise DataError(f"{what} is not in {printable(file.parent)}, and init_download is false; {place}")
        _download(entry.url, file, f"{what} cannot be downloaded", place)
    _check_hash(file, entry.url)
    categories = entry.meta.get("categories")
    return _Published(file, tuple(categories) if categories else None, *_statistics(entry))


def _statistics(entry: Any) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return mean and standard deviation of the transforms of published weights, None where they have none."""
    transforms = entry.transforms()
    mean, std = getattr(transforms, "mean", None), getattr(transforms, "std", None)
    return (tuple(mean), tuple(std)) if mean and std else (None, None)


def _entry(model: Config, name: str) -> Any:
    """Return torchvision's entry of published weights."""
    if model["name"] != _LIBRARY:
        raise ConfigError(
            f"{_KEY}: got '{name}', but model={model['name']} has no published weights by name; "
            f"expected a run folder, a .safetensors or a .pt file (names are for model={_LIBRARY})"
        )
    from torchvision import models

    arch, choices = str(model["arch"]), models.list_models(module=models)
    if arch not in choices:
        raise unknown("model.arch", "torchvision model", arch, choices)
    known = models.get_model_weights(arch)
    if name == "DEFAULT":
        return known.DEFAULT
    if name not in known.__members__:
        raise unknown(_KEY, f"weights of {arch}", name, [*known.__members__, "DEFAULT"])
    return known[name]


def _hub_folder() -> str:
    """Return the folder in which torch.hub keeps weights."""
    from torch import hub

    return f"{hub.get_dir()}/checkpoints"


def _download(url: str, file: Path, failed: str, place: str) -> None:
    """Download a file to a folder of its own, and move it to its place when it is whole and has its hash."""
    from torch import hub

    part = Path(full(file.parent)) / DOWNLOAD_FOLDER
    try:
        with locked(file.parent):
            # Another process may have downloaded it meanwhile
            if is_file(file, error=DataError, key=_KEY):
                return
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            use_private_bar_lock()
            try:
                with socket_timeout(_TIMEOUT):
                    hub.download_url_to_file(url, str(part / file.name), _published_hash(url))
                (part / file.name).replace(file)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except Exception as error:
        if isinstance(error, HTTPError):
            # The error holds the connection
            error.close()
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise DataError(f"{failed} ({reason}); {place}") from error


def _published_hash(url: str) -> str | None:
    """Return the digits of the SHA-256 in a file's name, None if there are none."""
    match = _HASH.search(Path(urlparse(url).path).name)
    return match[1] if match else None


def _check_hash(file: Path, url: str) -> None:
    """Raise CheckpointError if a file is not the one that was published."""
    wanted = _published_hash(url)
    with convert_os_errors(file):
        found = sha256_of(file)
    if wanted and not found.startswith(wanted):
        raise CheckpointError(
            f"{_KEY}: {printable(file)} is damaged (its SHA-256 begins with {found[: len(wanted)]}, the published one "
            f"with {wanted}); remove it, and it is downloaded again"
        )
