"""Groups of images (patients, tracks) stay in one split, and the splits stay as stratified as groups allow."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from running import ROOT
from torch import Tensor

from runner import components  # noqa: F401  (registers all)
from runner.components.data.layout.group_split import stratified_group_split
from runner.components.data.splitting import stratified_split
from runner.engine.contracts import Data, Split
from runner.errors import DataError
from runner.registry import build

YAML = yaml.safe_load((ROOT / "conf" / "data" / "imagefolder.yaml").read_text())


def imagefolder(root: Path, **changes: Any) -> Data:
    return build("data", {**YAML, "root": str(root), "size": [4, 4], "workers": 0, "cache": None, **changes})


def distance(labels: Tensor, aside: Tensor, count: int) -> float:
    """Return the chi-square distance of the classes of a part from those of a stratified part of `count` examples."""
    total = np.bincount(labels)
    has = np.bincount(labels[aside], minlength=len(total))
    wanted = total * count / len(labels)
    return float((((has - wanted) ** 2) / np.maximum(wanted, 1e-12))[total > 0].sum())


def random_set(seed: int, groups: int, classes: int) -> tuple[Tensor, list[str]]:
    """Return labels and groups of examples: sizes of groups are geometric, and each group prefers some classes."""
    random = np.random.default_rng(seed)
    labels, names = [], []
    for group in range(groups):
        odds = random.dirichlet(np.full(classes, 0.5))
        size = int(random.geometric(0.15))
        labels += random.choice(classes, size, p=odds).tolist()
        names += [f"patient {group}"] * size
    return torch.tensor(labels), names


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("groups", "classes"), [(5, 2), (40, 3), (300, 10)])
def test_no_group_is_torn_and_every_class_stays_in_training(seed: int, groups: int, classes: int) -> None:
    labels, names = random_set(seed, groups, classes)
    aside, rest = stratified_group_split(labels, names, round(0.2 * len(labels)))
    assert torch.equal(torch.cat([aside, rest]).sort().values, torch.arange(len(labels)))
    assert not {names[i] for i in aside.tolist()} & {names[i] for i in rest.tolist()}
    assert set(labels[rest].tolist()) == set(labels.tolist())


@pytest.mark.parametrize("seed", range(10))
def test_the_part_is_near_the_best_of_all_choices_of_groups(seed: int) -> None:
    labels, names = random_set(seed, 11, 3)
    count = round(0.25 * len(labels))
    aside, _ = stratified_group_split(labels, names, count)
    of_group = {name: torch.tensor([i for i, other in enumerate(names) if other == name]) for name in set(names)}
    everything = set(labels.tolist())
    best = float("inf")
    for size in range(1, len(of_group)):
        for chosen in itertools.combinations(of_group, size):
            index = torch.cat([of_group[name] for name in chosen])
            outside = torch.ones(len(labels), dtype=torch.bool)
            outside[index] = False
            if set(labels[outside].tolist()) == everything:
                best = min(best, distance(labels, index, count))
    # The search is local: in most sets it finds the best, in all it is near
    assert distance(labels, aside, count) <= best + 0.15


@pytest.mark.parametrize("seed", range(5))
def test_many_groups_are_as_stratified_as_by_scikit_learn(seed: int) -> None:
    model_selection = pytest.importorskip("sklearn.model_selection")
    labels, names = random_set(seed, 300, 6)
    folds = model_selection.StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, names)
    theirs = np.mean([distance(labels, torch.as_tensor(test), len(labels) // 5) for _, test in folds])
    aside, _ = stratified_group_split(labels, names, len(labels) // 5)
    assert distance(labels, aside, len(labels) // 5) <= theirs
    assert abs(len(aside) - len(labels) // 5) <= 3


def test_groups_of_one_are_split_in_the_shares_of_the_classes() -> None:
    labels = torch.tensor([0] * 500 + [1] * 300 + [2] * 200)
    names = [str(number) for number in range(1000)]
    aside, _ = stratified_group_split(labels, names, 100)
    assert labels[aside].bincount().tolist() == [50, 30, 20]
    plain, _ = stratified_split(labels, torch.arange(1000), 100)
    assert labels[plain].bincount().tolist() == [50, 30, 20]


def test_the_choice_depends_on_the_groups_only() -> None:
    labels, names = random_set(3, 60, 4)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    aside, _ = stratified_group_split(labels, names, 40)
    moved, _ = stratified_group_split(labels[order], [names[i] for i in order.tolist()], 40)
    assert set(order[moved].tolist()) == set(aside.tolist())


def test_a_choice_is_not_of_the_largest_groups() -> None:
    shares = []
    for seed in range(20):
        labels, names = random_set(seed, 100, 2)
        aside, rest = stratified_group_split(labels, names, len(labels) // 5)
        means = [len(part) / len({names[i] for i in part.tolist()}) for part in (aside, rest)]
        shares.append(means[0] / means[1])
    assert 0.8 < np.mean(shares) < 1.25


def test_large_groups_and_classes_of_one_group() -> None:
    # Each group is larger than the part: the smallest comes nearest
    labels = torch.tensor([0, 1] * 50 + [0, 1] * 40 + [0, 1] * 45)
    names = ["a"] * 100 + ["b"] * 80 + ["c"] * 90
    aside, _ = stratified_group_split(labels, names, 10)
    assert {names[i] for i in aside.tolist()} == {"b"}
    # A group that holds a whole class cannot leave
    aside, _ = stratified_group_split(torch.tensor([0] * 10 + [1] * 10), ["a"] * 10 + ["b"] * 10, 5)
    assert len(aside) == 0


def test_a_class_without_examples_and_many_groups() -> None:
    labels = torch.tensor([0, 2] * 50_000)
    aside, _ = stratified_group_split(labels, [f"g{n // 4}" for n in range(100_000)], 10_000)
    assert labels[aside].bincount().tolist() == [5000, 0, 5000]


# In image folders


def draw(root: Path, patients: int, per_class: int) -> Path:
    """Write images of two classes of each patient: the color says the patient."""
    for patient in range(patients):
        for word in ("ill", "well"):
            for shot in range(per_class):
                path = root / word / f"p{patient:02}_{word}_{shot}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 4), (patient, shot, 100 if word == "ill" else 0)).save(path)
    return root


def patients(split: Split | None) -> set[int]:
    assert split is not None
    return set(split.fetch(torch.arange(len(split.labels)))[:, 0, 0, 0].tolist())


def disjoint(data: Data) -> bool:
    parts = [patients(data.train), patients(data.val), patients(data.test and data.test())]
    return sum(map(len, parts)) == len(set.union(*parts))


@pytest.mark.parametrize("expression", ["^p[0-9]+", "^(p[0-9]+)_", r"_?(?P<group>p\d\d)", r"/(p\d\d)_"])
def test_a_pattern_on_the_name_keeps_patients_together(tmp_path: Path, expression: str) -> None:
    root = draw(tmp_path, 20, 3)
    assert not disjoint(imagefolder(root))
    data = imagefolder(root, groups=expression)
    assert disjoint(data)
    assert [part.labels.bincount().tolist() for part in (data.train, data.val)] == [[48, 48], [6, 6]]
    assert patients(imagefolder(root, groups=expression).val) == patients(data.val)
    assert not [note for note in data.notes if "groups" in note]


def test_a_pattern_with_a_slash_reads_the_path(tmp_path: Path) -> None:
    for word in ("ill", "well"):
        for patient in range(10):
            folder = tmp_path / word / f"patient{patient}"
            folder.mkdir(parents=True)
            for shot in range(4):
                Image.new("RGB", (4, 4), (patient, shot, len(word))).save(folder / f"{shot}.png")
    data = imagefolder(tmp_path, groups="/(patient[0-9]+)/")
    assert disjoint(data) and len(patients(data.val)) == 1
    with pytest.raises(DataError, match=r"finds no group in the name of .*/0.png \(80 of 80 images\)"):
        imagefolder(tmp_path, groups="patient")


def test_a_column_holds_the_groups(tmp_path: Path) -> None:
    draw(tmp_path, 20, 2)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    rows = [[file, file.split("/")[0], f"person {int(file.split('/p')[1][:2]) // 2}"] for file in files]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label", "who"], *rows])
    data = imagefolder(tmp_path, labels="labels.csv", groups="who")
    pairs = [{patient // 2 for patient in patients(part)} for part in (data.train, data.val, data.test and data.test())]
    assert [len(pair) for pair in pairs] == [8, 1, 1] and len(set.union(*pairs)) == 10
    assert disjoint(imagefolder(tmp_path, labels="labels.csv", groups="^p[0-9]+"))
    with pytest.raises(DataError, match=r"data.groups: got 'whom'.*'whom' is no column of labels.csv either"):
        imagefolder(tmp_path, labels="labels.csv", groups="whom")
    rows[4][2] = ""
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label", "who"], *rows])
    with pytest.raises(DataError, match=r"labels.csv, line 6: no group in column 'who'"):
        imagefolder(tmp_path, labels="labels.csv", groups="who")


def test_names_give_labels_and_groups(tmp_path: Path) -> None:
    root = draw(tmp_path, 20, 3)
    data = imagefolder(root, label_regex="_(?P<label>ill|well)_", groups="^p[0-9]+", splits=None)
    assert disjoint(data) and data.classes == ("ill", "well") and len(data.val.labels) == 12


def test_split_folders_that_tear_groups_apart_are_named(tmp_path: Path) -> None:
    for split, some in (("train", range(10)), ("test", range(8, 12))):
        for word in ("ill", "well"):
            (tmp_path / split / word).mkdir(parents=True)
            for patient in some:
                for shot in range(2):
                    color = (patient, shot, len(word + split))
                    Image.new("RGB", (4, 4), color).save(tmp_path / split / word / f"p{patient:02}_{shot}.png")
    data = imagefolder(tmp_path, groups="^p[0-9]+")
    (note,) = [note for note in data.notes if "groups" in note]
    assert note == (
        "data: 2 of 12 groups have images in more than one split, so scores may be too high: "
        "'p08' (train, test), 'p09' (train, test)"
    )
    assert not patients(data.train) & patients(data.val)


def test_groups_too_few_to_set_one_aside_are_refused(tmp_path: Path) -> None:
    draw(tmp_path, 1, 20)
    with pytest.raises(DataError, match=r"data.groups: no group can be set aside for data.test_fraction=0\.1"):
        imagefolder(tmp_path, groups="^p[0-9]+")
    with pytest.raises(DataError, match=r"finds no group in the name of .*ill_0.png \(40 of 40 images\)"):
        imagefolder(tmp_path, groups="^q")


def test_the_choice_of_classes_moves_no_group(tmp_path: Path) -> None:
    draw(tmp_path, 20, 2)
    for shot in range(20):
        Image.new("RGB", (4, 4), (shot, 9, 9)).save(tmp_path / "ill" / f"p{shot:02}_more.png")
    (tmp_path / "other").mkdir()
    for shot in range(20):
        Image.new("RGB", (4, 4), (shot, 8, 8)).save(tmp_path / "other" / f"p{shot:02}.png")
    whole = imagefolder(tmp_path, groups="^p[0-9]+")
    some = imagefolder(tmp_path, groups="^p[0-9]+", classes=["ill", "well"])
    assert patients(some.val) == patients(whole.val) and patients(some.train) == patients(whole.train)
