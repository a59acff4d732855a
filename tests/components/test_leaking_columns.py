"""Columns of a table that tell the label are named in one line, and honest features are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from running import ROOT
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from runner import components  # noqa: F401  (registers all)
from runner.components.data.in_memory.leaking_columns import leaking_columns
from runner.registry import build

RANDOM = np.random.default_rng(0)
KINDS = RANDOM.integers(0, 3, 300)
NOISE = RANDOM.normal(size=(300, 2))


def leaks(columns: dict[str, np.ndarray], labels: np.ndarray, label: str) -> list[str]:
    names = list(columns)
    values = np.stack([column.astype(float) for column in columns.values()], 1)
    return [names[column] for column in leaking_columns(values, names, labels, label)]


def noise() -> dict[str, np.ndarray]:
    return {"length": NOISE[:, 0], "width": NOISE[:, 1], "age": (NOISE[:, 0] * 9).round(), "old": NOISE[:, 1] > 0}


def test_the_rest_of_a_one_hot_coding_tells_the_label() -> None:
    coded = {f"t_{name}": number == KINDS for number, name in enumerate("xyz")}
    label = coded.pop("t_x").astype(int)
    assert leaks(noise() | coded, label, "t_x") == ["t_y", "t_z"]
    # Without a name in common
    assert leaks(noise() | {"cat": KINDS == 1, "dog": KINDS == 2}, label, "bird") == ["cat", "dog"]
    # One column is the other way round
    assert leaks(noise() | {"not_x": 1 - label}, label, "x") == ["not_x"]


def test_a_copy_of_the_label_and_its_one_hot_coding_tell_it() -> None:
    assert leaks(noise() | {"code": KINDS * 10 - 3}, KINDS, "kind") == ["code"]
    coded = {f"kind={name}": number == KINDS for number, name in enumerate("xyz")}
    assert leaks(noise() | coded, KINDS, "target") == list(coded)
    # One row that differs makes it a feature
    spoiled = KINDS.copy()
    spoiled[200] = (spoiled[200] + 1) % 3
    assert leaks(noise() | coded | {"code": KINDS}, spoiled, "target") == []


@pytest.mark.parametrize("load", [load_iris, load_wine, load_digits, load_breast_cancer])
def test_features_of_well_known_data_are_not_accused(load) -> None:
    found = load()
    names = [str(each).replace(" ", "_") for each in getattr(found, "feature_names", range(found.data.shape[1]))]
    for labels in (found.target, (found.target == 0).astype(int)):
        assert leaking_columns(found.data, names, labels, "target") == []


def test_a_feature_that_separates_the_classes_is_not_accused() -> None:
    petals = load_iris()
    setosa = (petals.target == 0).astype(int)
    # All of length below 2 are setosa
    assert ((petals.data[:, 2] < 2) == setosa).all()
    assert leaking_columns(petals.data, petals.feature_names, setosa, "setosa") == []


def test_few_examples_that_fit_by_chance_are_not_accused() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        bits = random.integers(0, 2, (12, 2000))
        rare = np.arange(500) < 4
        assert (
            leaking_columns(bits.astype(float), [f"f_{n}" for n in range(2000)], random.integers(0, 2, 12), "f_y") == []
        )
        assert leaking_columns(random.permutation(rare)[:, None].astype(float), ["a"], rare.astype(int), "y") == []


def test_categories_with_hardly_any_rows_are_not_accused() -> None:
    # The name of a row tells its label
    person = np.arange(300) // 2
    columns = {f"home_{number}": person == number for number in range(150)}
    assert leaks(columns, person % 2, "home_owner") == []


def notes_of(root: Path, header: str, rows: list[str], **changes) -> list[str]:
    (root / "x.csv").write_text("\n".join([header, *rows]) + "\n")
    values = yaml.safe_load((ROOT / "conf" / "data" / "table.yaml").read_text())
    data = build("data", {**values, "root": str(root / "x.csv"), **changes})
    return [line for line in data.notes if "can be read" in line]


def test_a_table_says_so_in_one_line(tmp_path) -> None:
    rows = [f"{NOISE[n, 0]:.3f},{int(k == 0)},{int(k == 1)},{int(k == 2)},{'xyz'[k]}" for n, k in enumerate(KINDS)]
    header = "a,t_x,t_y,t_z,t"
    assert notes_of(tmp_path, header, rows, label="t_x", ignore=["t"]) == [
        "data: the label 't_x' can be read from 2 columns in every row; data.ignore=[t_y,t_z] leaves out what is not "
        "known when you predict"
    ]
    [line] = notes_of(tmp_path, header, rows, label="t", ignore=["t_y", "t_z"], one_hot=["t_x"]) or [""]
    assert line == ""
    [line] = notes_of(tmp_path, header, rows, label="t_x", ignore=["t_y", "t_z"], one_hot=["t"])
    assert "from 1 column in every row; data.ignore=[t] leaves" in line
    assert notes_of(tmp_path, header, rows, label="t_x", ignore=["t_y", "t_z", "t"]) == []
