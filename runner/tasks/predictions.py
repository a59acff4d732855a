"""`predictions/<split>.safetensors`: the predictions for a split, which NumPy reads without runner."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from runner import user_paths
from runner.engine.batches import EvalBatches
from runner.engine.evaluation import Assessment
from runner.engine.saving import storage, tensor_file
from runner.errors import CheckpointError
from runner.tasks.report import print_progress

_FOLDER = "predictions"
# Bytes of the predictions of a split up to which `predictions=auto` saves them: ImageNet's validation split has 200 MB
_AUTO_LIMIT = 256_000_000


def are_wanted(setting: str, split: str, batches: EvalBatches, classes: int) -> bool:
    """Return True if the setting `predictions` saves those of a split; print a line if `auto` finds them too large."""
    size = 4 * len(batches) * classes
    if setting == "auto" and size > _AUTO_LIMIT:
        print_progress(f"{_FOLDER} of {split}: not saved, they have {size / 1e6:.0f} MB; predictions=always saves them")
        return False
    return setting != "never"


def predictions_file(folder: Path, split: str) -> Path:
    """Return the path of the predictions for a split in a run folder."""
    return folder / _FOLDER / f"{split}.safetensors"


def write_predictions(folder: Path, split: str, found: Assessment, about: Mapping[str, Any]) -> Path:
    """Write the predictions for a split into a locked run folder, atomically, and return the path of the file.

    The tensors are `ids` (N,) and `labels` (N,), and `log_p` (N, K) float32, or `logits` if the loss has no
    probabilities. The metadata `about` is a JSON object that says what they are of.
    """
    assert found.outputs is not None
    path = predictions_file(folder, split)
    outputs = found.outputs.contiguous()
    tensors = {"ids": found.ids, "labels": found.labels, "log_p" if found.are_log_p else "logits": outputs}
    with suppress(FileExistsError):
        storage.make_folder(path.parent)
    # What a killed process left
    storage.remove_temporary(path.parent)
    # safetensors writes several entries in any order, and equal runs have equal files
    storage.write_atomic(path, save(tensors, metadata={"about": json.dumps({"split": split, **about})}))
    return path


def about_predictions(
    predict: Mapping[str, Any], *, step: int | None, weights: str, data: str, classes: Sequence[str]
) -> dict[str, Any]:
    """Return what the metadata of predictions say: of which weights they are, with which method, on which data."""
    return {
        "step": step,
        "weights": weights,
        "predict": predict["name"],
        "method": dict(predict),
        "data": data,
        "classes": list(classes),
    }


@dataclass(frozen=True)
class SavedPredictions:
    """The predictions in a file: log-probabilities (N, K) float32, labels (N,) and ids (N,)."""

    log_p: Tensor
    labels: Tensor
    ids: Tensor


def read_predictions(folder: Path, split: str, wanted: Mapping[str, Any]) -> SavedPredictions | None:
    """Return the predictions for a split that a run folder has; None if it has none with the metadata `wanted`.

    `wanted` is what `about_predictions` returns. Older versions noted the name of the method only: a file of theirs
    counts if the method has no knobs.
    """
    path = predictions_file(folder, split)
    if not user_paths.is_file(path, key="runs", error=CheckpointError):
        return None
    try:
        data = tensor_file.read_bytes(path)
        tensors = tensor_file.parse(data, path.name)
        about = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["about"])
        about.setdefault("method", {"name": about["predict"]})
        found = SavedPredictions(tensors["log_p"], tensors["labels"], tensors["ids"])
    except (CheckpointError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # Damaged, or of a loss without probabilities
        return None
    rows = (len(found.labels), len(wanted["classes"]))
    fits = found.log_p.shape == rows and found.labels.shape == found.ids.shape == rows[:1]
    return found if fits and all(about.get(key) == value for key, value in wanted.items()) else None
