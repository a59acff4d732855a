"""Equal examples in several splits of arrays and tables, against a comparison of all pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from runner import components  # noqa: F401  (registers all)
from runner.engine.contracts import Data, Images
from runner.errors import DataError
from runner.registry import build

CONF = Path(__file__).parents[2] / "conf" / "data"


def load(option: str, path: Path, **changes: Any) -> Data:
    return build("data", {**yaml.safe_load((CONF / f"{option}.yaml").read_text()), "root": str(path), **changes})


def splits(data: Data) -> dict[str, Images]:
    assert data.test is not None
    return {"train": data.train, "val": data.val, "test": data.test()}  # type: ignore[dict-item]


def shared(one: Images, other: Images) -> int:
    """Return how many examples of a split equal one of another, by comparing all pairs."""
    a, b = (part.pixels.flatten(1).numpy() for part in (one, other))
    return int((a[:, None] == b[None]).all(2).any(1).sum())


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Images of three splits: two test images and one validation image are training images, too."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8)
    labels = np.arange(40) % 2
    test, val = pixels[30:36].copy(), pixels[36:].copy()
    test[1], test[4], val[2] = pixels[7], pixels[8], pixels[9]
    names = {"x_train": pixels[:30], "y_train": labels[:30], "x_test": test, "y_test": labels[30:36]}
    np.savez(tmp_path / "x.npz", **names, x_val=val, y_val=labels[36:])
    return tmp_path / "x.npz"


def test_copies_in_arrays_are_counted_and_named(arrays: Path) -> None:
    data = load("arrays", arrays)
    said = [note for note in data.notes if "too" in note]
    assert said == [
        "data: 2 of 6 test images are in train too (x_test[1] = x_train[7], x_test[4] = x_train[8]); "
        "data.duplicates=drop leaves them out of training",
        "data: 1 of 4 val images is in train too (x_val[2] = x_train[9]); "
        "data.duplicates=drop leaves them out of training",
    ]
    found = splits(data)
    assert shared(found["test"], found["train"]) == 2


def test_drop_leaves_no_copy_and_keeps_all_else(arrays: Path) -> None:
    before, data = splits(load("arrays", arrays, duplicates="ignore")), load("arrays", arrays, duplicates="drop")
    after = splits(data)
    for one, other in (("test", "train"), ("test", "val"), ("val", "train")):
        assert shared(after[one], after[other]) == 0
    assert [len(part.labels) for part in after.values()] == [27, 4, 6]
    assert shared(after["train"], before["train"]) == 27
    assert "data: left out 3 training and 0 validation images (data.duplicates=drop)" in data.notes
    assert data.found is not None
    assert "train 27 (3 copies left out)" in data.found.line(data.classes, "images")
    assert "found 40 images" not in data.found.line(data.classes, "images")  # the test arrays stand apart


def test_error_refuses_and_ignore_says_nothing(arrays: Path) -> None:
    with pytest.raises(DataError, match=r"data.duplicates: 2 of 6 test images are in train too .*choose drop or warn"):
        load("arrays", arrays, duplicates="error")
    assert not [note for note in load("arrays", arrays, duplicates="ignore").notes if "too" in note]


def test_splits_that_are_made_are_checked_by_row(tmp_path: Path) -> None:
    """All rows stand twice: every example of a part has its copy in another one or beside it."""
    rows = [f"{value},{-value},{'ab'[value % 2]}" for value in range(40)]
    (tmp_path / "x.csv").write_text("\n".join(["p,q,y", *rows, *rows]) + "\n")
    data = load("table", tmp_path / "x.csv", label="y", duplicates="warn")
    found = splits(data)
    expected = {pair: shared(found[pair[0]], found[pair[1]]) for pair in (("test", "train"), ("val", "train"))}
    assert all(expected.values())
    for (one, other), count in expected.items():
        line = next(note for note in data.notes if f"{one} examples are in {other} too" in note)
        assert line.startswith(f"data: {count} of 8 ")
        a, b = (int(word) for word in line.split("(row ")[1].split(",")[0].split(" = row "))
        assert abs(a - b) == 40


def test_equal_features_with_another_label_are_named(tmp_path: Path) -> None:
    rows = ["0.0,1,a", "-0.0,1,b", *(f"{value},2,{'ab'[value % 2]}" for value in range(1, 40))]
    (tmp_path / "x.csv").write_text("\n".join(["p,q,y", *rows]) + "\n")
    notes = load("table", tmp_path / "x.csv", label="y").notes
    (line,) = [note for note in notes if "another label" in note]
    assert line.startswith("data: 2 examples have copies with another label (row ")
    assert "row 1 'a'" in line and "row 2 'b'" in line


@pytest.mark.parametrize(("lost", "said"), [("train", "training image of class '1'"), ("val", "validation image")])
def test_drop_that_leaves_nothing_is_refused(tmp_path: Path, lost: str, said: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4), dtype=np.uint8)
    labels = np.arange(20) % 2
    test = pixels[10:]
    copied = {"train": pixels[:10].copy(), "val": pixels[5:8]}
    if lost == "train":
        copied["train"][1::2] = test[1::2]
    else:
        copied["val"] = test[:3]
    names = {f"x_{split}": values for split, values in copied.items()}
    np.savez(tmp_path / "x.npz", **names, y_train=labels[:10], y_val=labels[5:8], x_test=test, y_test=labels[10:])
    with pytest.raises(DataError, match=f"data.duplicates: got drop, which leaves no {said}"):
        load("arrays", tmp_path / "x.npz", duplicates="drop")
