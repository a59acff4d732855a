"""`predictions/<split>.safetensors`: the predictions for a split, which NumPy reads without runner."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import save

from runner.engine.batches import EvalBatches
from runner.engine.evaluation import Assessment
from runner.engine.saving import storage
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
