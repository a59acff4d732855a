"""The table of the classes fits every screen, and no number of it is cut."""

import io
import re

import numpy as np
import pytest
from sklearn import metrics as reference

from runner.engine.figures.classes import calibration_figure, confusion_figure
from runner.tasks.class_scores import class_rows, confusion_csv, show_classes, show_confusion, worst_classes

pytestmark = pytest.mark.rendered


class Screen(io.StringIO):
    def isatty(self):
        return True


def matrix(classes, examples=2000, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, examples)
    predicted = np.where(random.random(examples) < 0.8, labels, random.integers(0, classes, examples))
    return labels, predicted, reference.confusion_matrix(labels, predicted, labels=range(classes)).astype(float)


def rows(classes, names=None, examples=2000):
    *_, found = matrix(classes, examples)
    counts = np.stack([found.sum(1), found.sum(0), found.diagonal()])
    return class_rows(names or [f"class number {k} of many" for k in range(classes)], counts, found)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("classes", [2, 10, 20, 100, 1000])
def test_no_number_is_cut_at_any_width(width, classes, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    found, screen = rows(classes), Screen()
    show_classes(found, screen)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    shown = [line for line in lines if re.search(r" \d\.\d{4} ", f"{line} ")]
    assert len(shown) == min(20, classes)
    listed = found if classes <= 20 else sorted((row for row in found if row.examples), key=lambda row: row.accuracy)
    for line, row in zip(shown, listed, strict=False):
        numbers = [f"{each:.4f}" for each in (row.accuracy, row.precision, row.f1) if each == each]
        assert re.findall(r"\d\.\d{4}", line) == numbers and f" {row.examples} " in line
    assert (f"20 of {classes} classes, the lowest accuracy first" in lines) == (classes > 20)
    assert any("mostly taken for" in line for line in lines) == (width >= 80)


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("classes", [2, 10, 20, 30])
def test_a_confusion_matrix_is_complete_or_not_shown(width, classes, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    *_, found = matrix(classes)
    screen = Screen()
    show_confusion(found, [f"name {k}" for k in range(classes)], screen)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert max(map(len, lines), default=0) <= width
    if lines:
        cells = [re.findall(r"(?<= )(?:\d+|\.)(?= |$)", line[7:]) for line in lines if line.startswith(" name")]
        cells = [row for row in cells if len(row) == classes]
        assert [[0 if cell == "." else int(cell) for cell in row] for row in cells] == found.tolist()
    assert lines or classes > 2
    assert not lines or classes < 30


def test_class_scores_are_those_of_scikit_learn():
    labels, predicted, _ = matrix(10)
    found = rows(10)
    expected = reference.precision_recall_fscore_support(labels, predicted, labels=range(10))
    precision, recall, f1, count = expected
    assert [row.precision for row in found] == pytest.approx(precision)
    assert [row.accuracy for row in found] == pytest.approx(recall)
    assert [row.f1 for row in found] == pytest.approx(f1) and [row.examples for row in found] == list(count)


def test_classes_without_examples_or_predictions_have_no_such_score():
    counts = np.array([[2.0, 0, 0], [1, 1, 0], [1, 0, 0]])
    found = class_rows(["a", "b", "c"], counts, None)
    assert [row.accuracy for row in found] == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
    assert [row.precision for row in found] == pytest.approx([1, 0, np.nan], nan_ok=True)
    assert [row.f1 for row in found] == pytest.approx([2 / 3, 0, np.nan], nan_ok=True)
    assert worst_classes(found) == "a 0.5000"


def test_names_cannot_break_a_table_or_a_sheet():
    names = ["=1+1", "a\x1b[31mred", "[bold]x[/bold]", "日本語", 'say "a",b']
    found, screen = rows(5, names), Screen()
    show_classes(found, screen)
    assert "\x1b[31m" not in screen.getvalue() and "[bold]x[/bold]" in screen.getvalue()
    text = confusion_csv(matrix(5)[2], names).decode()
    assert "'=1+1" in text and '"say ""a"",b"' in text and "日本語" in text


@pytest.mark.parametrize("classes", [2, 20, 60, 1000])
def test_figures_are_drawn_for_any_number_of_classes(classes):
    *_, found = matrix(classes)
    names = [["$x$", "日本", "a very long name of a class", "b"][k % 4] for k in range(classes)]
    assert confusion_figure(found, names, title="validation: $1").draw().startswith(b"\x89PNG")


def test_a_reliability_diagram_of_no_examples_is_drawn():
    assert calibration_figure(np.zeros((3, 15)), title="ECE").draw().startswith(b"\x89PNG")
