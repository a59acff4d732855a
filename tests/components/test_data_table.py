"""data=table: CSV and Parquet files as people save them, against the values that were saved; and broken files."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.datasets import load_iris, load_wine
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from runner import components  # noqa: F401  (registers all)
from runner.engine.contracts import Data, Images
from runner.errors import ConfigError, RunnerError
from runner.registry import build

CONF = Path(__file__).parents[2] / "conf" / "data" / "table.yaml"
IRIS = load_iris()
HEADER = ["length", "width", "y"]
# 40 rows: two numbers and a class
ROWS = [[f"{i / 4}", f"{i * i}", "ab"[i % 2]] for i in range(40)]


def load(path: Path, **changes: Any) -> Data:
    return build("data", {**yaml.safe_load(CONF.read_text()), "root": str(path), "label": "y", **changes})


def table(folder: Path, rows: list[list[Any]], header: list[str] = HEADER, name: str = "x.csv", **form: Any) -> Path:
    with (folder / name).open("w", newline="", encoding=form.pop("encoding", "utf-8")) as file:
        csv.writer(file, **form).writerows([header, *rows])
    return folder / name


def text(folder: Path, content: bytes) -> Path:
    (folder / "x.csv").write_bytes(content)
    return folder / "x.csv"


def parts(data: Data) -> list[Images]:
    found = [data.train, data.val, *([] if data.test is None else [data.test()])]
    assert all(isinstance(part, Images) for part in found)
    return found  # type: ignore[return-value]


def rows_of(data: Data) -> np.ndarray:
    """Return features and class number of all examples, sorted."""
    found = [torch.cat([p.pixels.flatten(1), p.labels[:, None].float()], 1) for p in parts(data)]
    return np.array(sorted(torch.cat(found).tolist()))


def expected_rows(features: np.ndarray, labels: Any) -> np.ndarray:
    together = np.column_stack([features.astype(np.float32), np.asarray(labels, np.float32)])
    return np.array(sorted(together.tolist()))


def refused(path: Path, **changes: Any) -> str:
    with pytest.raises(RunnerError) as caught:
        load(path, **changes)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == (2 if isinstance(caught.value, ConfigError) else 7)
    return str(caught.value)


def iris_rows() -> list[list[Any]]:
    return [[*row, IRIS.target_names[label]] for row, label in zip(IRIS.data, IRIS.target, strict=True)]


def test_iris_by_the_names_of_its_classes(tmp_path: Path) -> None:
    data = load(table(tmp_path, iris_rows(), [*IRIS.feature_names, "species"]), label="species")
    assert (data.shape, data.classes, data.notes) == ((4, 1, 1), ("setosa", "versicolor", "virginica"), ())
    assert np.array_equal(rows_of(data), expected_rows(IRIS.data, IRIS.target))
    assert [p.labels.bincount().tolist() for p in parts(data)] == [[40] * 3, [5] * 3, [5] * 3]


def test_splits_are_fixed(tmp_path: Path) -> None:
    path = table(tmp_path, ROWS)
    for one, other in zip(parts(load(path)), parts(load(path, batch_size=3)), strict=True):
        assert torch.equal(one.pixels, other.pixels)


def test_standardize_works_per_feature(tmp_path: Path) -> None:
    wine = load_wine()
    path = table(
        tmp_path, [[*row, y] for row, y in zip(wine.data, wine.target, strict=True)], [*wine.feature_names, "y"]
    )
    train = parts(load(path))[0]
    standardize = build("preprocess", {"name": "standardize"}, shape=(13, 1, 1))
    standardize.fit(train)
    expected = StandardScaler().fit_transform(train.pixels.flatten(1).double().numpy())
    np.testing.assert_allclose(standardize(train.pixels).flatten(1).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_files_of_other_programs(tmp_path: Path, delimiter: str, encoding: str, end: str) -> None:
    data = load(table(tmp_path, ROWS, delimiter=delimiter, encoding=encoding, lineterminator=end))
    expected = np.array([[float(a), float(b)] for a, b, _ in ROWS])
    assert np.array_equal(rows_of(data), expected_rows(expected, [i % 2 for i in range(40)]))


def test_more_rows_than_are_converted_together(tmp_path: Path) -> None:
    rows = [[i, i % 7, i % 2] for i in range(20001)]
    data = load(table(tmp_path, rows))
    assert np.array_equal(rows_of(data), expected_rows(np.array(rows)[:, :2], np.array(rows)[:, 2]))


def test_quoted_cells_spaces_and_empty_lines(tmp_path: Path) -> None:
    data = load(text(tmp_path, b'length,"wid, th",y\n\n' + b' 1.5 ,"2","a, b"\n\n2,3e0,c\n' * 10))
    assert data.classes == ("a, b", "c")
    assert rows_of(data).tolist() == [[1.5, 2, 0]] * 10 + [[2, 3, 1]] * 10


def test_true_and_false_are_numbers(tmp_path: Path) -> None:
    data = load(table(tmp_path, [[row[0], "TrUe" if i % 3 else "false", row[2]] for i, row in enumerate(ROWS)]))
    expected = np.array([[i / 4, i % 3 > 0] for i in range(40)])
    assert np.array_equal(rows_of(data), expected_rows(expected, [i % 2 for i in range(40)]))


def test_an_index_without_a_name_is_not_a_feature(tmp_path: Path) -> None:
    data = load(table(tmp_path, [[i, *row] for i, row in enumerate(ROWS)], ["", *HEADER]))
    assert data.shape == (2, 1, 1)
    assert data.notes == ("data: column 1 has no name, as an index that pandas writes: not used",)


def test_ignored_columns_are_not_features(tmp_path: Path) -> None:
    path = table(tmp_path, [[f"id{i}", *row] for i, row in enumerate(ROWS)], ["id", *HEADER])
    assert load(path, ignore=["id"]).shape == (2, 1, 1)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["item 10", "item 9", "b"], ("b", "item 9", "item 10")),
        (["10", "2", "1"], ("1", "2", "10")),
        (["1.0", "0.0", "2.0"], ("0", "1", "2")),
        (["-1", "0", "1"], ("-1", "0", "1")),
        (["True", "False", "True"], ("False", "True")),
        (["日本", "grün", "é"], ("grün", "é", "日本")),
    ],
)
def test_classes_in_the_natural_order_of_their_names(
    tmp_path: Path, labels: list[str], classes: tuple[str, ...]
) -> None:
    data = load(table(tmp_path, [[i, 0, labels[i % 3]] for i in range(60)]))
    assert data.classes == classes
    for part in parts(data):
        found = [classes[label] for label in part.labels.tolist()]
        assert found == [labels[int(i) % 3].removesuffix(".0") for i in part.pixels[:, 0, 0, 0].tolist()]


def test_categories_are_refused_and_named(tmp_path: Path) -> None:
    path = table(tmp_path, [[*row, "mf"[i % 2], f"p{i}"] for i, row in enumerate(ROWS)], [*HEADER, "sex", "name"])
    says = "not numbers: 'sex' (2 values), 'name' (40); data.one_hot=[sex,name] makes a feature of each value, "
    assert refused(path) == f"data.root: {path}: {says}data.ignore=[...] leaves columns out"


def test_categories_become_the_features_of_scikit_learn(tmp_path: Path) -> None:
    colors = np.array(["red", "green", "blue"])[np.arange(40) % 3]
    path = table(tmp_path, [[row[0], color, row[2]] for row, color in zip(ROWS, colors, strict=True)])
    data = load(path, one_hot=["width"])
    hot = OneHotEncoder(sparse_output=False).fit_transform(colors[:, None])
    expected = np.column_stack([np.arange(40) / 4, hot])
    assert np.array_equal(rows_of(data), expected_rows(expected, [i % 2 for i in range(40)]))


@pytest.mark.parametrize("cell", ["", " ", "NaN", "NA", "?", "null", "None"])
def test_missing_values_are_named(tmp_path: Path, cell: str) -> None:
    rows = [[cell if i in (5, 9) else row[0], cell if i == 9 else row[1], row[2]] for i, row in enumerate(ROWS)]
    path = table(tmp_path, rows)
    listed = "column 'length' (2 missing), 'width' (1)"
    says = f"{listed}, first in row 6; data.missing=drop leaves out 2 of 40 rows, data.ignore=[...] columns"
    assert refused(path) == f"data.root: {path}: {says}"
    data = load(path, missing="drop")
    assert data.notes == (f"data: left out 2 of 40 rows with missing values: {listed}",)
    kept = [i for i in range(40) if i not in (5, 9)]
    expected = np.array([[float(ROWS[i][0]), float(ROWS[i][1])] for i in kept])
    assert np.array_equal(rows_of(data), expected_rows(expected, [i % 2 for i in kept]))


def test_missing_labels_are_named(tmp_path: Path) -> None:
    path = table(tmp_path, [[*row[:2], "" if i == 3 else row[2]] for i, row in enumerate(ROWS)])
    assert "column 'y' (1 missing), first in row 4" in refused(path)
    assert sum(len(p.labels) for p in parts(load(path, missing="drop"))) == 39


def test_a_column_says_the_split(tmp_path: Path) -> None:
    words = ["train", "Training", "valid", "TEST"]
    path = table(tmp_path, [[*row, words[i // 10]] for i, row in enumerate(ROWS)], [*HEADER, "part"])
    found = [p.pixels[:, 0, 0, 0].mul(4).tolist() for p in parts(load(path, split="part"))]
    assert found == [list(range(20)), list(range(20, 30)), list(range(30, 40))]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "tset"], "column 'part': has value 'tset', must be train, val or test"),
        (["test", "val"], "column 'part': no row is of the training split ('train')"),
    ],
)
def test_other_splits_are_refused(tmp_path: Path, words: list[str], says: str) -> None:
    path = table(tmp_path, [[*row, words[i % 2]] for i, row in enumerate(ROWS)], [*HEADER, "part"])
    assert refused(path, split="part").endswith(says)


def test_a_class_that_only_the_test_split_has_is_refused(tmp_path: Path) -> None:
    rows = [[*row[:2], "c" if i == 39 else row[2], "test" if i > 30 else "train"] for i, row in enumerate(ROWS)]
    assert "class 'c' is not among the training labels" in refused(
        table(tmp_path, rows, [*HEADER, "part"]), split="part"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label": None}, "data.label: got null, must be the column of the classes (columns: length, width, y)"),
        ({"label": "Y"}, "data.label: unknown column 'Y'; did you mean 'y'? (choose from: length, width, y)"),
        ({"split": "part"}, "data.split: unknown column 'part'"),
        ({"one_hot": ["lenght"]}, "data.one_hot: unknown column 'lenght'; did you mean 'length'?"),
        ({"ignore": ["lenght"]}, "data.ignore: unknown column 'lenght'; did you mean 'length'?"),
        ({"one_hot": ["y"]}, "data.one_hot: got 'y', which data.label names, too; choose one"),
        (
            {"one_hot": ["width"], "ignore": ["width"]},
            "data.one_hot: got 'width', which data.ignore names, too",
        ),
        ({"ignore": ["length", "width"]}, "has no columns to use as features"),
        ({"ignore": ["y"]}, "data.ignore: got 'y', which data.label names, too; choose one"),
    ],
)
def test_columns_that_do_not_exist_or_clash_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    assert says in refused(table(tmp_path, ROWS), **changes)


def test_a_quantity_is_no_class(tmp_path: Path) -> None:
    says = "column 'length': label 0.25 at position 1 is not a whole number; must be a class, not a quantity"
    assert says in refused(table(tmp_path, [[*row[:2], "1"] for row in ROWS]), label="length")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has no header with the names of the columns"),
        (b"1,2,3\n4,5,6\n", "has no header: its first line has only numbers (1, 2, 3)"),
        (b"a,b,y\n", "has a header and no rows"),
        (b"a,a,y\n1,2,x\n", "two columns are named 'a'"),
        (b"a,b,y\n1,2,x\n1,x\n", "line 3 has 2 cells, must have 3 as the header"),
        (b"a,b,y\n1,2,x\n1,2,x,4\n", "line 3 has 4 cells, must have 3 as the header"),
        (b"a,b,y\n1,\xff,x\n", "is not a Parquet file, and not UTF-8 text (byte 8)"),
        (b'a,b,y\n1,"2,x\n', "cannot be read (unexpected end of data)"),
        (b"a,b,y\n1,2,x\n" * 1, "has only one class, 'x'"),
        (b"a,b,y\n1,1_000,x\n", "not numbers: 'b' (1 values)"),
        (b"a;b;y\n1;1,5;x\n", "not numbers: 'b' (1 values)"),
        (b"a,b,y\n" + b"1,inf,x\n2,3,z\n" * 9, "NaN or infinite in float32, the first (inf) in example"),
        (b"a,b,y\n" + b"1" * 200000 + b",2,x\n", "cannot be read (field larger than field limit (131072))"),
        (b"PAR1 and no more", "Parquet"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    if content.startswith(b"PAR1"):
        pytest.importorskip("pyarrow")
    assert says in refused(text(tmp_path, content))


def test_missing_and_large_files_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.csv").endswith("none.csv does not exist; expected a table")
    assert refused(tmp_path).endswith("is not a file; expected a table")
    path = table(tmp_path, ROWS * 1000)
    assert "must be <= data.memory (1 MiB)" in refused(path, memory=1)


def test_parquet_without_pyarrow_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    says = "a Parquet file needs pyarrow; install it with: pip install pyarrow"
    assert refused(text(tmp_path, b"PAR1....PAR1")).endswith(says)


def parquet(folder: Path, columns: dict[str, Any]) -> Path:
    """Write a Parquet file; skip the test without pyarrow."""
    arrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files.write_table(arrow.table(columns), folder / "x.parquet")
    return folder / "x.parquet"


def test_parquet_holds_the_same_as_csv(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    names = [str(IRIS.target_names[label]) for label in IRIS.target]
    columns = {name: IRIS.data[:, i] for i, name in enumerate(IRIS.feature_names)}
    path = parquet(tmp_path, {**columns, "y": arrow.array(names).dictionary_encode()})
    from_csv = load(table(tmp_path, iris_rows(), [*IRIS.feature_names, "y"]))
    data = load(path)
    assert data.classes == from_csv.classes
    for one, other in zip(parts(data), parts(from_csv), strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.labels, other.labels)


def test_parquet_types(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    columns = {
        "whole": arrow.array(range(40), arrow.int16()),
        "half": arrow.array([i / 2 for i in range(40)], arrow.float32()),
        "truth": arrow.array([i % 3 == 0 for i in range(40)]),
        "y": arrow.array([i % 2 * 5 - 5 for i in range(40)]),
    }
    data = load(parquet(tmp_path, columns))
    assert data.classes == ("-5", "0")
    expected = np.array([[i, i / 2, i % 3 == 0] for i in range(40)], np.float64)
    assert np.array_equal(rows_of(data), expected_rows(expected, [i % 2 for i in range(40)]))


def test_parquet_columns_of_other_types_and_missing_values_are_named(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    columns = {
        "a": arrow.array([None if i == 4 else i for i in range(40)]),
        "when": arrow.array(range(40), arrow.timestamp("ms")),
        "y": arrow.array(["ab"[i % 2] for i in range(40)]),
    }
    path = parquet(tmp_path, columns)
    assert "column 'when' is of type timestamp[ms], must be numbers or text" in refused(path)
    assert "column 'a' (1 missing), first in row 5" in refused(path, ignore=["when"])
    assert load(path, ignore=["when"], missing="drop").shape == (1, 1, 1)


def test_a_parquet_file_of_repeated_values_costs_no_memory(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    column = arrow.array(np.zeros(3_000_000, np.int8))
    path = parquet(tmp_path, {"a": column, "y": column})
    assert path.stat().st_size < 10**5
    assert "takes up to 46 MiB, must be <= data.memory (32 MiB)" in refused(path, memory=32)
