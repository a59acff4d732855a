"""task=predict: the classes of images with a finished run, as a table."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from runner import user_paths
from runner.components.data.pixels.decoder_messages import Findings
from runner.components.data.pixels.prepare_images import first_unreadable
from runner.engine.saving.storage import make_folders, printable, write_atomic
from runner.errors import ConfigError, DataError, StorageError, brief, escaped
from runner.printing import counted, write_stdout
from runner.registry import register
from runner.roles import FilePath, Role
from runner.schema import PositiveInt
from runner.screen_tables import print_table
from runner.tasks.job import Job
from runner.tasks.report import print_progress
from runner.tasks.trained.image_inputs import find_images, folder_classes
from runner.tasks.trained.saved_run import read_run
from runner.tasks.trained.trained import Trained, restore_trained

_FORMATS = (".csv", ".json")
# Rows on the screen where no file is written
_MOST_ROWS = 20
# Classes that the last line counts by name
_MOST_CLASSES = 12


@register("task")
def predict(
    job: Job,
    *,
    images: Annotated[str | None, Role.PATH, FilePath()],
    out: Annotated[str | None, Role.PATH, FilePath()],
    top: PositiveInt,
    bad_images: Literal["error", "skip"] | None,
    overwrite: bool,
) -> int:
    """Predict the class of each image with `run=<folder>`; `task.out` takes a row per image as CSV or JSON.

    Images are read as the run reads its own in evaluation, and predicted with its method or with `predict=`. Where
    every image is in a folder named by a class of the run, accuracy and nll are shown, too. `bad_images` says what
    happens to files that cannot be decoded.
    """
    if images is None:
        raise ConfigError("task.images: got null; expected an image file, a folder or a pattern: task.images=photos")
    if out is not None:
        check_out(out, _FORMATS, overwrite=overwrite)
    files, notes = find_images(images, "task.images")
    for note in notes:
        print_progress(note)
    run = read_run(job, task="predict")
    trained = restore_trained(run, threads=True)
    if top > len(trained.classes):
        raise ConfigError(f"task.top: got {top}; expected at most {len(trained.classes)}, the classes of the run")
    skip = (bad_images or run.config["data"].get("bad_images", "error")) == "skip"
    found = _predict(trained, files, images, skip=skip)
    if found.left_out:
        reason = first_unreadable(files, {files.index(file): why for file, why in found.left_out.items()})
        print_progress(f"left out {len(found.left_out)} of {len(files)} images, the first is {reason}")
    _show(found, trained, out, top)
    if out is not None:
        path = Path(out)
        make_folders(path.parent)
        write_atomic(path, (_as_csv if path.suffix == ".csv" else _as_json)(found, trained, top))
        write_stdout(f"saved in      {printable(path)}\n")
    return 0


def check_out(out: str, suffixes: Sequence[str], *, overwrite: bool) -> None:
    """Raise ConfigError for a file with another suffix or one to keep, StorageError for a path that is refused."""
    path = Path(out)
    if path.suffix not in suffixes:
        raise ConfigError(
            f"task.out: got '{brief(escaped(out))}'; expected a name that ends with {' or '.join(suffixes)}"
        )
    if user_paths.is_dir(path, error=StorageError, key="task.out"):
        raise ConfigError(f"task.out: got '{brief(escaped(out))}', which is a folder; expected a file")
    if not overwrite and user_paths.exists(path, error=StorageError, key="task.out", links=False):
        raise ConfigError(f"task.out: '{brief(escaped(out))}' exists; choose another name, or task.overwrite=true")


@dataclass(frozen=True)
class _Found:
    """The predictions for some files.

    Attributes:
        files: The files that could be read.
        outputs: (N, K), probabilities or logits.
        labels: The label of each file; empty unless all have one.
        left_out: Files that could not be read, with the reason.
    """

    files: list[str]
    outputs: Tensor
    labels: list[int]
    left_out: dict[str, str]

    def scores(self, *, probabilities: bool) -> dict[str, float]:
        """Return accuracy and, of probabilities, the mean negative log-likelihood; nothing without labels."""
        if not self.labels:
            return {}
        labels = torch.tensor(self.labels)
        accuracy = int((self.outputs.argmax(1) == labels).sum()) / len(labels)
        if not probabilities:
            return {"accuracy": accuracy}
        likelihoods = self.outputs.double().gather(1, labels[:, None])
        return {"accuracy": accuracy, "nll": -float(likelihoods.log().mean())}


def _predict(trained: Trained, files: list[str], place: str, *, skip: bool) -> _Found:
    """Return the predictions for files below a place; raises DataError for one that cannot be read unless `skip`."""
    findings = Findings()
    what = f"predicting {escaped(place)}"
    try:
        parts = list(trained.predict_chunks(trained.reader.files(files, findings, what, skip=skip)))
    except DataError as error:
        if skip or trained.reader.view is None:
            raise
        raise DataError(f"{error}; to leave out such files: task.bad_images=skip") from error
    for line in findings.lines(files):
        print_progress(line)
    good = [file for position, file in enumerate(files) if position not in findings.bad]
    if not good:
        raise DataError(f"task.images: no image can be read, the first is {first_unreadable(files, findings.bad)}")
    known = folder_classes(good, place, trained.classes)
    labels = [label for label in known if label is not None]
    if labels and len(labels) < len(good):
        others = f"{len(good) - len(labels)} of {len(good)} images"
        print_progress(f"no scores: {others} are not in a folder named by a class of the run")
    left_out = {files[position]: why for position, why in findings.bad.items()}
    return _Found(good, torch.cat(parts), labels if len(labels) == len(good) else [], left_out)


def _rows(found: _Found, trained: Trained, top: int) -> list[dict[str, Any]]:
    """Return a row per image: path, the most probable classes with their probabilities, and the label if it has one."""
    word = "probability" if trained.has_probabilities else "logit"
    values, places = found.outputs.topk(top, 1)
    rows = []
    for number, (file, best, order) in enumerate(zip(found.files, values.tolist(), places.tolist(), strict=True)):
        row: dict[str, Any] = {"path": file, "prediction": trained.classes[order[0]], word: best[0]}
        if found.labels:
            row["label"] = trained.classes[found.labels[number]]
        for rank in range(1, top):
            row |= {f"prediction_{rank + 1}": trained.classes[order[rank]], f"{word}_{rank + 1}": best[rank]}
        rows.append(row)
    return rows


def _as_csv(found: _Found, trained: Trained, top: int) -> bytes:
    """Return the rows as CSV; a path that is no UTF-8 keeps its bytes."""
    rows = _rows(found, trained, top)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode("utf-8", "surrogateescape")


def _as_json(found: _Found, trained: Trained, top: int) -> bytes:
    """Return the rows as JSON, with the run, its classes, the scores and the files that were left out."""
    content = {
        "run": str(trained.folder),
        "weights": trained.weights.name,
        "classes": list(trained.classes),
        "images": _rows(found, trained, top),
        "scores": found.scores(probabilities=trained.has_probabilities),
        "left_out": [{"path": file, "reason": why} for file, why in found.left_out.items()],
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def _show(found: _Found, trained: Trained, out: str | None, top: int) -> None:
    """Print the first rows if no file is written, the number of images of each class, and the scores."""
    rows = _rows(found, trained, top)
    if out is None:
        print_table([_shown(row) for row in rows[:_MOST_ROWS]])
        if len(rows) > _MOST_ROWS:
            write_stdout(f"{_MOST_ROWS} of {len(rows)} images; for all of them: task.out=<file>.csv\n")
    counts = Counter(row["prediction"] for row in rows)
    write_stdout(f"predicted     {counted(len(rows), 'image')}: {_counted(counts)}\n")
    scores = found.scores(probabilities=trained.has_probabilities)
    if scores:
        write_stdout(f"scores        {', '.join(f'{name} {value:.4f}' for name, value in scores.items())}\n")


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
    """Return a row for the screen, each class with its number."""
    names = [key for key in row if key.startswith("prediction")]
    numbers = [key for key in row if key.startswith(("probability", "logit"))]
    ranked = [f"{row[name]} {row[number]:.4f}" for name, number in zip(names, numbers, strict=True)]
    label = {"label": row["label"]} if "label" in row else {}
    return {"path": row["path"], **label, "prediction": ", ".join(ranked)}


def _counted(counts: Mapping[str, int]) -> str:
    """Return the most frequent classes with their numbers."""
    ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    shown = ", ".join(f"{escaped(brief(name))} {count}" for name, count in ranked[:_MOST_CLASSES])
    more = len(ranked) - _MOST_CLASSES
    return f"{shown} and {more} more classes" if more > 0 else shown
