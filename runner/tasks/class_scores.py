"""Scores of each class: rows, a table on the screen, and CSV files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from runner.errors import escaped
from runner.screen_tables import natural_width, print_table, rows_note

# Classes that a table on the screen shows, and columns of a confusion matrix there
_MOST_ROWS, _MOST_COLUMNS = 20, 20
# Letters of a class name in a table and in a line
_LETTERS, _LETTERS_IN_LINE = 24, 16
# Between two columns
_SPACE = 2
# The column that is left out on a narrow screen
_TAKEN_FOR = "mostly taken for"
_WORST = 3


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """The scores of one class; NaN where they are not defined."""

    name: str
    examples: int
    accuracy: float  # of the examples of the class: its recall
    precision: float
    f1: float
    taken_for: str = ""  # the class of most of its wrong predictions, with their number


def class_rows(
    classes: Sequence[str], counts: NDArray[np.float64], confusion: NDArray[np.float64] | None
) -> list[ClassRow]:
    """Return the scores of each class, from the counts (3, K) of `class_counts` and the confusion matrix (K, K)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        examples, predictions, hits = counts
        accuracy, precision, f1 = hits / examples, hits / predictions, 2 * hits / (examples + predictions)
    return [
        ClassRow(
            name=name,
            examples=int(examples[k]),
            accuracy=float(accuracy[k]),
            precision=float(precision[k]),
            f1=float(f1[k]),
            taken_for="" if confusion is None else _taken_for(classes, confusion[k], k),
        )
        for k, name in enumerate(classes)
    ]


def _taken_for(classes: Sequence[str], row: NDArray[np.float64], own: int) -> str:
    """Return the class that a class is mostly taken for, with the number of times; empty if it never is."""
    wrong = row.copy()
    wrong[own] = 0
    most = int(wrong.argmax())
    return f"{_cut(classes[most], _LETTERS_IN_LINE)} ({wrong[most]:.0f})" if wrong[most] else ""


def _worst_first(rows: Sequence[ClassRow]) -> list[ClassRow]:
    """Return the classes that have examples, the one with the lowest accuracy first."""
    return sorted((row for row in rows if row.examples), key=lambda row: row.accuracy)


def worst_classes(rows: Sequence[ClassRow]) -> str:
    """Return the classes of the lowest accuracies in words, empty for two classes or if none has an error."""
    wrong = [row for row in _worst_first(rows) if row.accuracy < 1][:_WORST]
    named = [f"{_cut(row.name, _LETTERS_IN_LINE)} {row.accuracy:.4f}" for row in wrong]
    return ", ".join(named) if len(rows) > 2 else ""


def show_classes(rows: Sequence[ClassRow], stream: TextIO | None = None) -> None:
    """Print the scores of each class; of more than 20 classes the worst 20."""
    shown = _worst_first(rows)[:_MOST_ROWS] if len(rows) > _MOST_ROWS else rows
    table = [
        {
            "class": _cut(row.name, _LETTERS),
            "examples": row.examples,
            "accuracy": _number(row.accuracy),
            "precision": _number(row.precision),
            "F1": _number(row.f1),
            _TAKEN_FOR: row.taken_for,
        }
        for row in shown
    ]
    notes = rows_note(len(shown), len(rows), "classes", "the lowest accuracy first")
    print_table(table, optional=[_TAKEN_FOR], notes=notes, split=False, stream=stream)


def show_confusion(confusion: NDArray[np.float64], classes: Sequence[str], stream: TextIO | None = None) -> None:
    """Print a confusion matrix with a row for each true class; nothing if the screen is too narrow for it."""
    from runner.rich_console import make_console

    console = make_console(stream)
    if not 0 < len(classes) <= _MOST_COLUMNS:
        return
    digits = len(f"{confusion.max(initial=0):.0f}")
    room = (console.width - _LETTERS_IN_LINE) // len(classes) - _SPACE
    words = [_cut(name, max(digits, 3, min(_LETTERS_IN_LINE, room))) for name in classes]
    # Two names may be cut to the same letters
    headings = {"true": "", **{f"{number}": word for number, word in enumerate(words)}}
    table = [
        {"true": _cut(name, _LETTERS_IN_LINE), **{f"{k}": f"{n:.0f}" if n else "." for k, n in enumerate(row)}}
        for name, row in zip(classes, confusion, strict=True)
    ]
    if natural_width(table, console, headings) <= console.width:
        console.print("confusion matrix: rows are true classes, columns predicted ones")
        print_table(table, headings=headings, split=False, console=console)


def classes_csv(rows: Sequence[ClassRow]) -> bytes:
    """Return the scores of each class as CSV, undefined ones empty."""
    lines = [["class", "examples", "accuracy", "precision", "f1", "mostly_taken_for"]]
    lines += [
        [row.name, str(row.examples), *("" if math.isnan(each) else repr(each) for each in _scores(row)), row.taken_for]
        for row in rows
    ]
    return _csv(lines)


def confusion_csv(confusion: NDArray[np.float64], classes: Sequence[str]) -> bytes:
    """Return a confusion matrix as CSV: the true class, then how often each class was predicted."""
    return _csv(
        [
            ["true \\ predicted", *classes],
            *([name, *(f"{count:.0f}" for count in row)] for name, row in zip(classes, confusion, strict=True)),
        ]
    )


def _scores(row: ClassRow) -> tuple[float, float, float]:
    return row.accuracy, row.precision, row.f1


def _csv(lines: Sequence[Sequence[str]]) -> bytes:
    """Return lines as CSV; text that a spreadsheet would run as a formula gets a leading quote."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell for cell in line] for line in lines)
    return file.getvalue().encode("utf-8", "backslashreplace")


def _number(value: float) -> str:
    """Return a score with four digits, empty where it is not defined."""
    return "" if math.isnan(value) else f"{value:.4f}"


def _cut(name: str, most: int) -> str:
    """Return the name of a class on one line, cut to some letters."""
    shown = escaped(name)
    return shown if len(shown) <= most else f"{shown[: max(1, most - 1)]}…"
