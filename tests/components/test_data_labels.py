"""Labels of image folders from CSV files and from file names."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from running import ROOT

from runner import components  # noqa: F401  (registers all)
from runner.components.data.labels.csv_table import read_table
from runner.engine.contracts import Data, Split
from runner.engine.data_summary import found_in
from runner.errors import ConfigError, DataError, RunnerError
from runner.registry import build

YAML = yaml.safe_load((ROOT / "conf" / "data" / "imagefolder.yaml").read_text())


def imagefolder(root: Path, **changes: Any) -> Data:
    return build("data", {**YAML, "root": str(root), "size": [4, 4], "workers": 0, "cache": None, **changes})


def color_of(number: int) -> tuple[int, int, int]:
    return number % 251, number // 251, 7


def draw(folder: Path, names: Sequence[str], first: int = 0) -> None:
    """Write an image per name, in the color of its number."""
    for number, name in enumerate(names, first):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), color_of(number)).save(folder / name)


def write(path: Path, rows: Sequence[Sequence[object]], **form: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=form.pop("encoding", "utf-8")) as file:
        csv.writer(file, **form).writerows(rows)
    return path


def numbers(split: Split | None) -> dict[int, int]:
    """Return the label of each image by the number in its color, read from the decoded pixels."""
    assert split is not None
    pixels = split.fetch(torch.arange(len(split.labels)))[:, :, 0, 0].tolist()
    return {red + 251 * green: label for (red, green, _), label in zip(pixels, split.labels.tolist(), strict=True)}


def all_labels(data: Data) -> dict[int, str]:
    found = {**numbers(data.train), **numbers(data.val), **(numbers(data.test()) if data.test else {})}
    return {number: data.classes[label] for number, label in sorted(found.items())}


def refused(error: type[RunnerError], root: Path, *words: str, **changes: Any) -> str:
    with pytest.raises(error) as caught:
        imagefolder(root, **{"labels": "labels.csv", **changes})
    message = str(caught.value)
    assert message.isprintable() and len(message) < 700
    for word in words:
        assert word in message, message
    return message


NAMES = [f"{number:02}.png" for number in range(40)]
WORDS = ["cat" if number % 3 else "dog" for number in range(40)]
EXPECTED = dict(enumerate(WORDS))
ROWS = [["file", "label"], *map(list, zip(NAMES, WORDS, strict=True))]


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"delimiter": ";"},
        {"delimiter": "\t"},
        {"delimiter": "|"},
        {"encoding": "utf-8-sig"},
        {"encoding": "utf-16"},
        {"lineterminator": "\n"},
        {"lineterminator": "\r"},
        {"quoting": csv.QUOTE_ALL},
        {"delimiter": ";", "encoding": "utf-8-sig", "quoting": csv.QUOTE_NONNUMERIC},
    ],
)
def test_every_form_of_csv_gives_the_labels(tmp_path: Path, form: dict[str, Any]) -> None:
    draw(tmp_path, NAMES)
    write(tmp_path / "labels.csv", ROWS, **form)
    data = imagefolder(tmp_path, labels="labels.csv")
    assert data.classes == ("cat", "dog")
    assert all_labels(data) == EXPECTED


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (["id", "breed"], None),
        (["image_id", "Class"], None),
        (["Filename", "Category"], None),
        (["what", "which"], ["what", "which"]),
        (["what", "which"], [0, 1]),
        (None, [0, 1]),
    ],
)
def test_columns_are_found_by_usual_names_by_name_or_by_number(
    tmp_path: Path, header: list[str] | None, columns: list[str | int] | None
) -> None:
    draw(tmp_path, NAMES)
    write(tmp_path / "labels.csv", [*([header] if header else []), *ROWS[1:]])
    assert all_labels(imagefolder(tmp_path, labels="labels.csv", columns=columns)) == EXPECTED


def test_columns_may_stand_in_any_order_beside_others(tmp_path: Path) -> None:
    draw(tmp_path, NAMES)
    rows = [["weight", "label", "note", "file"], *([1.5, word, "a, b", name] for name, word in ROWS[1:])]
    write(tmp_path / "labels.csv", rows)
    assert all_labels(imagefolder(tmp_path, labels="labels.csv", columns=["file", "label"])) == EXPECTED
    assert all_labels(imagefolder(tmp_path, labels="labels.csv", columns=[3, 1])) == EXPECTED


def test_kaggle_ids_without_suffix_mean_the_images_of_the_tables_split(tmp_path: Path) -> None:
    draw(tmp_path / "train", NAMES)
    draw(tmp_path / "test", NAMES, first=100)
    write(tmp_path / "train.csv", [["id", "breed"], *([name[:2], word] for name, word in ROWS[1:])])
    data = imagefolder(tmp_path, labels="train.csv")
    assert all_labels(data) == EXPECTED
    assert any("without a label in train.csv: 40 (test 40" in note for note in data.notes)
    # With the folder in the column no rule is needed
    write(tmp_path / "all.csv", [["path", "label"], *([f"train/{name[:2]}", word] for name, word in ROWS[1:])])
    assert all_labels(imagefolder(tmp_path, labels="all.csv")) == EXPECTED
    write(tmp_path / "labels.csv", [["id", "breed"], *([name[:2], word] for name, word in ROWS[1:])])
    refused(DataError, tmp_path, "labels.csv, line 2", "'00' may be test/00.png, train/00.png")


def test_a_table_outside_the_root_and_paths_of_all_kinds_name_images_below_it(tmp_path: Path) -> None:
    root = tmp_path / "images"
    draw(root, [f"a/{name}" for name in NAMES])
    cells = ["a/{}", "./a/{}", "a\\{}", str(root / "a" / "{}"), "{}", "a/../a/{}"]
    rows = [[cells[i % len(cells)].format(name), word] for i, (name, word) in enumerate(ROWS[1:])]
    write(tmp_path / "labels.csv", [["file", "label"], *rows])
    assert all_labels(imagefolder(root, labels="../labels.csv")) == EXPECTED
    assert all_labels(imagefolder(root, labels=str(tmp_path / "labels.csv"))) == EXPECTED
    # Paths count from the folder of the table, too
    write(root / "a" / "labels.csv", ROWS)
    assert all_labels(imagefolder(root, labels="a/labels.csv")) == EXPECTED


def test_a_name_in_a_wrong_folder_is_a_missing_file(tmp_path: Path) -> None:
    draw(tmp_path, [f"a/{name}" for name in NAMES])
    write(tmp_path / "labels.csv", [["file", "label"], ["b/00.png", "cat"], *([f"a/{n}", w] for n, w in ROWS[2:])])
    refused(DataError, tmp_path, "labels.csv, line 2: no image 'b/00.png'")
    write(tmp_path / "labels.csv", [["file", "label"], ["../00.png", "cat"], ["a/01.png", "dog"]])
    draw(tmp_path.parent, ["00.png"])
    refused(DataError, tmp_path, "line 2: no image '../00.png'")


def test_roboflow_exports_have_a_table_in_each_split(tmp_path: Path) -> None:
    start = 0
    for split, count in (("train", 12), ("valid", 4), ("test", 5)):
        names = [f"{split}-{number}.jpg.png" for number in range(count)]
        draw(tmp_path / split, names, first=start)
        words = [[1, 0, 0] if n % 3 == 0 else [0, 1, 0] if n % 3 == 1 else [0, 0, 1] for n in range(count)]
        rows = [[name, *bits] for name, bits in zip(names, words, strict=True)]
        # Roboflow puts a space after each comma
        (tmp_path / split / "_classes.csv").write_text(
            "\n".join(", ".join(map(str, row)) for row in [["filename", "rose", "iris", "lily"], *rows])
        )
        start += count
    data = imagefolder(tmp_path, labels="_classes.csv")
    assert data.classes == ("iris", "lily", "rose")
    assert [len(numbers(split)) for split in (data.train, data.val, data.test and data.test())] == [12, 4, 5]
    by_position = ["rose", "iris", "lily"]
    expected = [by_position[n % 3] for count in (12, 4, 5) for n in range(count)]
    assert list(all_labels(data).values()) == expected


def test_boxes_of_one_class_are_one_label_and_of_two_an_error(tmp_path: Path) -> None:
    draw(tmp_path, NAMES)
    header = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    rows = [[name, 4, 4, word, 0, 0, box, box] for name, word in ROWS[1:] for box in (1, 2)]
    write(tmp_path / "labels.csv", [header, *rows])
    data = imagefolder(tmp_path, labels="labels.csv")
    assert all_labels(data) == EXPECTED
    assert "data: 40 rows of labels.csv repeat what others say" in data.notes
    rows[5][3] = "bird"
    write(tmp_path / "labels.csv", [header, *rows])
    refused(DataError, tmp_path, "line 7", "'bird'", "line 6 'cat'", "02.png")


def test_one_hot_rows_have_exactly_one_class(tmp_path: Path) -> None:
    draw(tmp_path, NAMES)
    rows = [[name, int(word == "cat"), int(word == "dog")] for name, word in ROWS[1:]]
    write(tmp_path / "labels.csv", [["filename", "cat", "dog"], *rows])
    assert all_labels(imagefolder(tmp_path, labels="labels.csv", columns=["filename"])) == EXPECTED
    write(tmp_path / "labels.csv", [["filename", "cat", "dog"], *rows, [NAMES[0], 1, 1]])
    refused(DataError, tmp_path, "line 42: has 2 classes ('cat', 'dog'), must have one")
    write(tmp_path / "labels.csv", [["filename", "cat", "dog"], *rows[:-1], [NAMES[-1], 0, 0]])
    data = imagefolder(tmp_path, labels="labels.csv")
    assert len(all_labels(data)) == 39
    assert any("rows without a label: 1" in note and "line 41" in note for note in data.notes)
    write(tmp_path / "labels.csv", [["filename", "cat", "dog"], *rows[:-1], [NAMES[-1], 0.5, 0.5]])
    refused(DataError, tmp_path, "line 41: got '0.5' in column 'cat'")


def test_a_split_column_makes_the_splits(tmp_path: Path) -> None:
    draw(tmp_path, NAMES)
    splits = [["train", "Training", "valid", "TEST", "train"][number % 5] for number in range(40)]
    write(
        tmp_path / "labels.csv",
        [["file", "label", "split"], *([*row, s] for row, s in zip(ROWS[1:], splits, strict=True))],
    )
    for columns in (None, ["file", "label", "split"], [0, 1, 2]):
        data = imagefolder(tmp_path, labels="labels.csv", columns=columns)
        assert set(numbers(data.train)) == {n for n in range(40) if n % 5 in (0, 1, 4)}
        assert set(numbers(data.val)) == {n for n in range(40) if n % 5 == 2}
        assert set(numbers(data.test and data.test())) == {n for n in range(40) if n % 5 == 3}
        assert all_labels(data) == EXPECTED
    # Without test rows there is no test split, and a missing validation split is a part of training
    some = [[*row, s] for row, s in zip(ROWS[1:], splits, strict=True) if s in ("train", "Training")]
    write(tmp_path / "labels.csv", [["file", "label", "split"], *some])
    data = imagefolder(tmp_path, labels="labels.csv")
    assert data.test is None and len(data.val.labels) == 2 and len(data.train.labels) == 22
    write(tmp_path / "labels.csv", [["file", "label", "split"], *some, ["02.png", "cat", "holdin"]])
    refused(DataError, tmp_path, "line 26: got 'holdin' as split, must be train, val or test")


def test_split_folders_in_the_paths_make_the_splits(tmp_path: Path) -> None:
    folders = ["train", "val", "test"]
    paths = [f"{folders[number % 3]}/{name}" for number, name in enumerate(NAMES)]
    draw(tmp_path, paths)
    words = ["cat" if number % 2 else "dog" for number in range(40)]
    write(tmp_path / "labels.csv", [["file", "label"], *zip(paths, words, strict=True)])
    data = imagefolder(tmp_path, labels="labels.csv")
    for split, rest in ((data.train, 0), (data.val, 1), (data.test and data.test(), 2)):
        assert set(numbers(split)) == {number for number in range(40) if number % 3 == rest}
    # As classes they would say nothing: null counts them together
    assert "split from train" in line(imagefolder(tmp_path, labels="labels.csv", splits=None))
    chosen = imagefolder(tmp_path, labels="labels.csv", splits={"train": "val", "val": "train", "test": "test"})
    assert set(numbers(chosen.val)) == set(range(0, 40, 3))


def line(data: Data) -> str:
    return found_in(data).line(data.classes, "images")


def test_the_fixed_splits_do_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    draw(tmp_path, NAMES)
    write(tmp_path / "labels.csv", ROWS)
    write(tmp_path / "reversed.csv", [ROWS[0], *reversed(ROWS[1:])])
    first, second = imagefolder(tmp_path, labels="labels.csv"), imagefolder(tmp_path, labels="reversed.csv")
    assert torch.equal(first.train.fetch(torch.arange(32)), second.train.fetch(torch.arange(32)))
    assert numbers(first.val) == numbers(second.val)
    assert line(first).startswith("found 40 images in 2 classes (cat 26, dog 14): train 32, val 4 (split from train)")


def test_missing_files_and_unlabeled_images_are_counted_and_named(tmp_path: Path) -> None:
    draw(tmp_path, [*NAMES, "more/a.png", "more/b.png"])
    write(tmp_path / "labels.csv", [*ROWS, ["40.png", "cat"], ["41.png", "cat"]])
    refused(DataError, tmp_path, "labels.csv, line 42: no image '40.png'", "(2 of 42 rows name none)")
    write(tmp_path / "labels.csv", [*ROWS[:-1], ["39.png", ""]])
    data = imagefolder(tmp_path, labels="labels.csv")
    assert any("rows without a label: 1" in note and "line 41" in note for note in data.notes)
    assert any("without a label in labels.csv: 3 (more 2, . 1; the first is 39.png)" in note for note in data.notes)
    assert len(all_labels(data)) == 39


def test_rows_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    draw(tmp_path, NAMES)
    write(tmp_path / "labels.csv", [*ROWS, ["00", "cat"]])
    refused(DataError, tmp_path, "line 42: gives '00.png' the label 'cat', but", "line 2 'dog'")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["has no rows"]),
        (b"\n\n", ["has no rows"]),
        (b"file,label\n", ["has a header and no rows"]),
        (b"file,label\n00.png,cat\n01.png\n", ["line 3: has 1 cells, expected 2"]),
        (b"file,label\n00.png,cat\n01.png,dog,\n", ["line 3: has 3 cells, expected 2"]),
        (b'file,label\n00.png,cat\n01.png,"dog\n02.png,cat\n', ["line 3: cannot be read as CSV", "unexpected end"]),
        (b'file,label\n"a\nb.png",cat\n"x"y,dog\n', ["line 4: cannot be read as CSV"]),
        (b"file,label\n00.png,caf\xe9\n", ["line 2: byte 0xe9 is not UTF-8"]),
        (b"file,label\n00.png,ca\0t\n", ["line 2: has a NUL character"]),
        (b"\x89PNG\r\n\x1a\n\0\0", ["line 1: byte 0x89 is not UTF-8"]),
        (b"\xff\xfeab\0", ["UTF-16"]),
        (b"file,label\n00.png," + b"x" * 200_000, ["line 2: cannot be read as CSV", "field larger"]),
        (b"," * 1_000_000 + b"\n", ["has no rows"]),
        (b"a," * 1_000_000 + b"\n", ["line 1: has 1000001 columns, expected at most 65536"]),
        (b"file,label,label\n00.png,cat,dog\n", ["line 1", "2 columns 'label'"]),
        (b"00.png,cat\n01.png,dog\n", ["no column with a usual name", "number from 0 if there is no header"]),
        (b"file\n00.png\n", ["no column with a usual name for the labels"]),
        (b"file,label\n00.png,cat\n01.png,cat\n", ["all 2 training images have the label 'cat'"]),
        (b'file,label\n"0\n0.png",cat\n', ["line 2: no image '0\\n0.png'"]),
        (b"file,label\n,cat\n", ["line 2: no image ''"]),
    ],
)
def test_a_broken_table_is_one_line_with_the_place(tmp_path: Path, content: bytes, words: list[str]) -> None:
    draw(tmp_path, NAMES)
    (tmp_path / "labels.csv").write_bytes(content)
    columns = ["file", "label"] if b"label,label" in content else None
    refused(DataError, tmp_path, "labels.csv", *words, columns=columns)


def test_what_does_not_fit_the_settings_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, NAMES)
    write(tmp_path / "labels.csv", ROWS)
    refused(ConfigError, tmp_path, "data.columns: unknown column 'lable'", "label, file", columns=["file", "lable"])
    refused(ConfigError, tmp_path, "data.columns: got 2, must be from 0 to 1", columns=[0, 2])
    refused(ConfigError, tmp_path, "data.columns: got -1", columns=[0, -1])
    refused(ConfigError, tmp_path, "must be different columns", columns=["file", "file"])
    refused(ConfigError, tmp_path, "names no column of labels", columns=["file"])
    refused(ConfigError, tmp_path, "data.columns", "must be [file], [file, label]", columns=[])
    refused(ConfigError, tmp_path, "must be a file in", "CSV files there: labels.csv", labels="label.csv")
    refused(ConfigError, tmp_path, "must be one of the two", label_regex="(.)")
    refused(ConfigError, tmp_path, "requires data.labels", labels=None, columns=["file", "label"])
    refused(ConfigError, tmp_path, "must be a regular expression", labels=None, label_regex="(")
    (tmp_path / "folder.csv").mkdir()
    refused(DataError, tmp_path, "folder.csv", labels="folder.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    refused(DataError, tmp_path, "pipe.csv", labels="pipe.csv")


def test_labels_of_all_kinds_are_names_of_classes(tmp_path: Path) -> None:
    draw(tmp_path, NAMES)
    words = [["10", "2", "a\nb", "Ünï", 'say "x"'][number % 5] for number in range(40)]
    write(tmp_path / "labels.csv", [["file", "label"], *zip(NAMES, words, strict=True)])
    data = imagefolder(tmp_path, labels="labels.csv")
    assert data.classes == ("2", "10", "a\\nb", 'say "x"', "Ünï")
    some = imagefolder(tmp_path, labels="labels.csv", classes=["Ünï", 2])
    assert some.classes == ("Ünï", "2")
    whole, kept = all_labels(data), all_labels(some)
    assert kept == {number: word for number, word in whole.items() if word in ("Ünï", "2")}
    # A choice of classes moves no image to another split
    assert set(numbers(some.val)) == {
        n for n, label in numbers(data.val).items() if data.classes[label] in kept.values()
    }


def test_a_label_of_another_split_must_be_in_training(tmp_path: Path) -> None:
    draw(tmp_path, NAMES)
    rows = [[*row, "train"] for row in ROWS[1:-1]]
    write(tmp_path / "labels.csv", [["file", "label", "split"], *rows, [NAMES[-1], "bird", "test"]])
    refused(DataError, tmp_path, "label 'bird' of a test image is not in the training split")
    write(tmp_path / "labels.csv", [["file", "label", "split"], *([*row, "test"] for row in ROWS[1:])])
    refused(DataError, tmp_path, "no image is of the training split")


def test_a_large_table_is_read_in_linear_time(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", [["file", "label"], *([f"{n}.png", n % 7] for n in range(100_000))])
    table = read_table(path)
    assert len(table.rows) == 100_001 and table.lines[-1] == 100_001


# Labels from file names


def test_labels_are_read_from_names(tmp_path: Path) -> None:
    names = [f"{word}_{number:03}.png" for number, word in enumerate(WORDS)]
    draw(tmp_path / "images", names)
    for expression in ("^(?P<label>[^_]+)_", "^(cat|dog)", "^[a-z]+", r"(?P<x>)^(?P<label>cat|dog)_\d+\.png$"):
        data = imagefolder(tmp_path, label_regex=expression)
        assert all_labels(data) == EXPECTED, expression
        assert line(data).startswith("found 40 images in 2 classes (cat 26, dog 14)")


def test_names_in_split_folders_keep_their_splits(tmp_path: Path) -> None:
    draw(tmp_path / "train", [f"{'cat' if n % 2 else 'dog'}.{n}.png" for n in range(20)])
    draw(tmp_path / "test", [f"{n}.png" for n in range(20, 30)], first=20)
    data = imagefolder(tmp_path, label_regex="^([a-z]+)[.]")
    assert data.test is None and len(data.train.labels) + len(data.val.labels) == 20
    assert any("test has no labels: data.label_regex finds none in 10 images" in note for note in data.notes)
    draw(tmp_path / "val", ["cat.1.png", "dog.2.png", "no.png"], first=40)
    data = imagefolder(tmp_path, label_regex="^([a-z]+)[.][0-9]")
    assert set(numbers(data.val)) == {40, 41} and len(data.train.labels) == 20
    assert any("without a label in their names: 1" in note and "no.png" in note for note in data.notes)


def test_an_expression_that_finds_no_label_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, NAMES)
    with pytest.raises(DataError, match=r"finds no label in 40 images \(the first is 00.png\)"):
        imagefolder(tmp_path, label_regex="^(cat|dog)")
    with pytest.raises(DataError, match="all 40 training images have the label 'png'"):
        imagefolder(tmp_path, label_regex="png")
