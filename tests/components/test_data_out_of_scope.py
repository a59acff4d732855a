"""Data for multi-label learning, regression, detection and segmentation are refused in one line that says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from running import ROOT

from runner import components  # noqa: F401  (registers all)
from runner.errors import RunnerError
from runner.registry import build

MULTI, REGRESSION, DETECTION = "(multi-label) are out of scope", "regression is out of scope", "detection and segmenta"
IMAGEFOLDER = {"size": [4, 4], "workers": 0, "cache": None}
COUNT = 48
BOTH = ["both" if i % 3 == 0 else "cat" if i % 3 == 1 else "dog" for i in range(COUNT)]


def load(option: str, root: Path, **changes: Any):
    values = yaml.safe_load((ROOT / "conf" / "data" / f"{option}.yaml").read_text())
    return build("data", {**values, "root": str(root), **(IMAGEFOLDER if option == "imagefolder" else {}), **changes})


def refused(option: str, root: Path, scope: str, **changes: Any) -> str:
    with pytest.raises(RunnerError) as caught:
        load(option, root, **changes)
    line = str(caught.value)
    assert scope in line and line.isprintable() and len(line) < 400, line
    return line


def draw(folder: Path, count: int = 4) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (4, 4), (number, 9, 7)).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    draw(folder, COUNT)
    return folder


def labeled(images: Path, header: str, cells) -> dict[str, str]:
    rows = [header, *(f"{number}.png,{cell}" for number, cell in enumerate(cells))]
    (images / "labels.csv").write_text("\n".join(rows) + "\n")
    return {"labels": "labels.csv"}


@pytest.mark.parametrize("both", ["cat;dog", "cat dog", "dog | cat", '"cat, dog"', "\"['cat', 'dog']\"", '"[""cat""]"'])
def test_several_labels_in_a_cell_are_refused(images, both):
    given = labeled(images, "file,label", [both if each == "both" else each for each in BOTH])
    assert "labels.csv: label '" in refused("imagefolder", images, MULTI, **given)


def test_names_of_several_words_are_classes(images):
    given = labeled(
        images, "file,label", [{"both": "cat like", "cat": "cat;", "dog": "big dog"}[each] for each in BOTH]
    )
    assert load("imagefolder", images, **given).classes == ("big dog", "cat like", "cat;")


def test_several_label_columns_and_rows_are_refused(images):
    bits = [{"both": "1,1", "cat": "1,0", "dog": "0,1"}[each] for each in BOTH]
    assert "has 2 classes" in refused("imagefolder", images, MULTI, **labeled(images, "file,cat,dog", bits))
    (images / "labels.csv").write_text("file,label\n" + "0.png,cat\n0.png,dog\n1.png,dog\n")
    assert "gives '0.png' the label" in refused("imagefolder", images, MULTI, labels="labels.csv")


def test_quantities_as_labels_are_refused(images):
    given = labeled(images, "file,label", [f"{number * 0.37:.2f}" for number in range(COUNT)])
    assert "has 48 different numbers in 48 examples, such as 0.00" in refused(
        "imagefolder", images, REGRESSION, **given
    )
    given = labeled(images, "file,label", [number * 7 for number in range(COUNT)])
    refused("imagefolder", images, REGRESSION, **given)
    assert "where the numbers are classes, write them as words, for example id7" in refused(
        "imagefolder", images, REGRESSION, **given
    )
    # Numbers of classes from 0 or 1 on, and what the line says, are classes
    for cells in ([n * 7 // 13 for n in range(COUNT)], [1 + n * 7 // 13 for n in range(COUNT)]):
        assert len(load("imagefolder", images, **labeled(images, "file,label", cells)).classes) == len(set(cells)) > 24
    with_word = load("imagefolder", images, **labeled(images, "file,label", [f"id{n // 2 * 7}" for n in range(COUNT)]))
    assert len(with_word.classes) == COUNT // 2
    # Grades are classes
    assert (
        len(load("imagefolder", images, **labeled(images, "file,label", [n % 5 / 2 for n in range(COUNT)])).classes)
        == 5
    )


def test_files_of_boxes_are_refused(images):
    coco = {"images": [{"id": 0, "file_name": "0.png"}], "annotations": [], "categories": []}
    for name, indent in (("annotations.json", None), ("pretty.json", 2), ("coco.txt", None)):
        (images / name).write_text(json.dumps(coco, indent=indent))
        assert "must be CSV with a row" in refused("imagefolder", images, DETECTION, labels=name)
    (images / "0.xml").write_text("<annotation/>")
    refused("imagefolder", images, DETECTION, labels="0.xml")


@pytest.mark.parametrize(
    "folders",
    [
        ("images", "labels"),
        ("train/images", "train/labels", "valid/images", "valid/labels"),
        ("images/train", "images/val", "labels/train", "labels/val"),
        ("JPEGImages", "Annotations", "SegmentationClass"),
        ("images", "masks"),
        ("train2017", "val2017", "annotations"),
    ],
    ids=str,
)
def test_the_folders_of_data_sets_for_detection_and_segmentation_are_refused(tmp_path, folders):
    for name in folders:
        if {"labels", "annotations", "Annotations"} & set(name.split("/")):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        else:
            draw(tmp_path / name)
    refused("imagefolder", tmp_path, DETECTION)


def test_folders_with_such_a_name_among_classes_are_classes(tmp_path):
    for name in ("mask", "no mask"):
        draw(tmp_path / name, 20)
    assert load("imagefolder", tmp_path).classes == ("mask", "no mask")


BITS = np.stack([np.arange(COUNT) % 2, np.arange(COUNT) % 3 == 0], 1)


@pytest.mark.parametrize(
    ("labels", "scope"),
    [
        (BITS, MULTI),
        (BITS.astype(bool), MULTI),
        (np.linspace(-1, 1, COUNT), REGRESSION),
        (np.linspace(-1, 1, 2 * COUNT).reshape(COUNT, 2), REGRESSION),
        (np.arange(COUNT) * 1000, REGRESSION),
        (np.full((COUNT, 4), 0.25), "probabilities as labels are out of scope"),
        (np.zeros((COUNT, 8, 8), np.uint8), DETECTION),
        (np.array([{"both": "cat;dog"}.get(each, each) for each in BOTH]), MULTI),
    ],
)
def test_arrays_of_other_labels_are_refused(tmp_path, labels, scope):
    np.savez(tmp_path / "x.npz", x=np.zeros((COUNT, 8, 8), np.uint8), y=labels)
    assert "array 'y'" in refused("arrays", tmp_path / "x.npz", scope, duplicates="ignore")


def test_tables_with_other_labels_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    rows = [f"{i / 4},{i * 1000.5},{i * 1000},{'cat;dog' if BOTH[i] == 'both' else BOTH[i]},1,0" for i in range(COUNT)]
    path.write_text("\n".join(["size,price,whole,tags,first,second", *rows]) + "\n")
    for label, scope in (("price", REGRESSION), ("whole", REGRESSION), ("tags", MULTI)):
        others = {"price", "whole", "tags"} - {label}
        assert f"column '{label}'" in refused("table", path, scope, label=label, ignore=sorted(others))
    for listed in ("[first,second]", "first,second", "['first', 'second']"):
        assert "one-hot columns become one" in refused("table", path, MULTI, label=listed)
