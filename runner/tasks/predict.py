"""task=predict: the classes of images with a finished run, as a table."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.components.data.pixels.decoder_messages import Findings
from runner.components.data.pixels.prepare_images import first_unreadable
from runner.engine.saving.storage import printable, write_atomic
from runner.errors import ConfigError, DataError, brief, escaped
from runner.printing import counted, write_stdout
from runner.registry import register
from runner.roles import FilePath, Role
from runner.schema import PositiveInt
from runner.screen_tables import print_table
from runner.tasks.job import Job
from runner.tasks.out_file import out_file
from runner.tasks.report import print_progress
from runner.tasks.trained.image_inputs import find_images, folder_classes
from runner.tasks.trained.read_run import read_run
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
    with out_file(out, _FORMATS, overwrite=overwrite) if out is not None else nullcontext() as path:
        files, notes = find_images(images, "task.images")
        for note in notes:
            print_progress(note)
        run = read_run(job, task="predict")
        trained = restore_trained(run, threads=True)
        if top > len(trained.classes):
            raise ConfigError(f"task.top: got {top}; expected at most {len(trained.classes)}, the classes of the run")
        skip = (bad_images or run.config["data"].get("bad_images", "error")) == "skip"
        found = _predict(trained, files, images, skip=skip)
        rows = _rows(found, trained, top)
        _show(rows, found.scores, as_table=path is None)
        if path is not None:
            write_atomic(path, _as_csv(rows) if path.suffix == ".csv" else _as_json(rows, found, trained))
            write_stdout(f"saved in      {printable(path)}\n")
    return 0


@dataclass(frozen=True)
class _Found:
    """The predictions for some files.

    Attributes:
        files: The files that could be read.
        outputs: (N, K), log-probabilities or logits.
        scores: Accuracy and, of probabilities, the mean negative log-likelihood; empty unless all files have a label.
        labels: The label of each file; empty unless all have one.
        left_out: Files that could not be read, with the reason.
    """

    files: list[str]
    outputs: Tensor
    scores: dict[str, float]
    labels: list[int]
    left_out: dict[str, str]


def _scores(outputs: Tensor, labels: list[int], *, probabilities: bool) -> dict[str, float]:
    """Return the scores of labeled files; outputs are (N, K), log-probabilities or logits."""
    if not labels:
        return {}
    wanted = torch.tensor(labels)
    accuracy = {"accuracy": int((outputs.argmax(1) == wanted).sum()) / len(labels)}
    return accuracy | ({"nll": float(F.nll_loss(outputs.double(), wanted))} if probabilities else {})


def _predict(trained: Trained, files: list[str], place: str, *, skip: bool) -> _Found:
    """Return the predictions for files below a place; raises DataError for one that cannot be read unless `skip`."""
    findings = Findings()
    what = f"predicting {escaped(place)}"
    try:
        parts = list(trained.outputs(trained.reader.files(files, findings, what, skip=skip)))
    except DataError as error:
        if skip or trained.reader.view is None:
            raise
        raise DataError(f"{error}; to leave out such files: task.bad_images=skip") from error
    for line in findings.lines(files):
        print_progress(line)
    good = [file for position, file in enumerate(files) if position not in findings.bad]
    if not good:
        raise DataError(f"task.images: no image can be read, the first is {first_unreadable(files, findings.bad)}")
    if findings.bad:
        reason = first_unreadable(files, findings.bad)
        print_progress(f"left out {len(findings.bad)} of {len(files)} images, the first is {reason}")
    known = folder_classes(good, place, trained.classes)
    labels = [label for label in known if label is not None]
    if len(labels) < len(good):
        if labels:
            others = f"{len(good) - len(labels)} of {len(good)} images"
            print_progress(f"no scores: {others} are not in a folder named by a class of the run")
        labels = []
    outputs = torch.cat(parts)
    scores = _scores(outputs, labels, probabilities=trained.has_probabilities)
    return _Found(good, outputs, scores, labels, {files[position]: why for position, why in findings.bad.items()})


def _rows(found: _Found, trained: Trained, top: int) -> list[dict[str, Any]]:
    """Return a row per image: path, the most probable classes with their probabilities, and the label if it has one."""
    word = "probability" if trained.has_probabilities else "logit"
    values, places = found.outputs.topk(top, 1)
    if trained.has_probabilities:
        values = values.exp()
    rows = []
    for number, (file, best, order) in enumerate(zip(found.files, values.tolist(), places.tolist(), strict=True)):
        row: dict[str, Any] = {"path": file, "prediction": trained.classes[order[0]], word: best[0]}
        if found.labels:
            row["label"] = trained.classes[found.labels[number]]
        for rank in range(1, top):
            row |= {f"prediction_{rank + 1}": trained.classes[order[rank]], f"{word}_{rank + 1}": best[rank]}
        rows.append(row)
    return rows


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the rows as CSV; a path that is no UTF-8 keeps its bytes."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode("utf-8", "surrogateescape")


def _as_json(rows: Sequence[Mapping[str, Any]], found: _Found, trained: Trained) -> bytes:
    """Return the rows as JSON, with the run, its classes, the scores and the files that were left out."""
    content = {
        "run": str(trained.folder),
        "weights": trained.weights.name,
        "classes": list(trained.classes),
        "images": rows,
        "scores": found.scores,
        "left_out": [{"path": file, "reason": why} for file, why in found.left_out.items()],
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def _show(rows: Sequence[Mapping[str, Any]], scores: Mapping[str, float], *, as_table: bool) -> None:
    """Print the number of images of each class and the scores; with `as_table` the first rows before them."""
    if as_table:
        print_table([_shown(row) for row in rows[:_MOST_ROWS]])
        if len(rows) > _MOST_ROWS:
            write_stdout(f"{_MOST_ROWS} of {len(rows)} images; for all of them: task.out=<file>.csv\n")
    counts = Counter(row["prediction"] for row in rows)
    write_stdout(f"predicted     {counted(len(rows), 'image')}: {_counted(counts)}\n")
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
