"""Which files of a folder are images of which class and split, and the line that says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from running import ROOT

from runner import components  # noqa: F401  (registers all)
from runner.components.data.layout.split_folders import splits_by_name
from runner.components.data.splitting import stratified_sample
from runner.engine.contracts import Data
from runner.engine.data_summary import Found, found_in
from runner.errors import ConfigError, DataError
from runner.identity import data_state
from runner.registry import build

YAML = yaml.safe_load((ROOT / "conf" / "data" / "imagefolder.yaml").read_text())


def imagefolder(root: Path, **changes: Any) -> Data:
    return build("data", {**YAML, "root": str(root), "size": [4, 4], "workers": 0, "cache": None, **changes})


def config_of(root: Path) -> dict[str, Any]:
    return {"data": {**YAML, "name": "imagefolder", "root": str(root)}}


def draw(root: Path, **counts: int) -> Path:
    """Write so many one-colored images into each folder, given as `split__class` or `class`."""
    for folder, count in counts.items():
        fill(root / folder.replace("__", "/"), count)
    return root


def fill(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        color = tuple(np.random.default_rng(abs(hash((str(folder), number)))).integers(0, 256, 3).tolist())
        Image.new("RGB", (4, 4), color).save(folder / f"{number:03}.png")


def line(data: Data) -> str:
    return found_in(data).line(data.classes, "images")


def counts(data: Data) -> dict[str, list[int]]:
    """Return the examples per class of each split, counted in the labels themselves."""
    splits = {"train": data.train, "val": data.val, **({} if data.test is None else {"test": data.test()})}
    return {name: split.labels.bincount(minlength=len(data.classes)).tolist() for name, split in splits.items()}


def refused(error: type[Exception], root: Path, *words: str, **changes: Any) -> str:
    with pytest.raises(error) as caught:
        imagefolder(root, **changes)
    message = str(caught.value)
    assert message.isprintable()
    for word in words:
        assert word in message, message
    return message


# Split folders


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "", "Testing"),  # brain tumors on Kaggle
        ("training_set", "", "test_set"),  # cats and dogs on Kaggle
        ("Train", "Valid", "Test"),
        ("train", "valid", "test"),  # Roboflow
        ("TRAIN", "VAL", "TEST"),
        ("seg_train", "", "seg_test"),  # Intel's scenes on Kaggle
        ("asl_alphabet_train", "", "asl_alphabet_test"),
        ("train", "dev", "eval"),
        ("train", "Validation", "testing"),
        ("train-images", "val-images", "test-images"),
        ("train2017", "val2017", ""),  # COCO
        ("TrainSet", "ValSet", "TestSet"),
        ("trainset", "validset", "testset"),
        ("Training Data", "Development Data", "Evaluation Data"),
        ("tr", "va", "te"),
        ("train_data", "", "holdout"),
    ],
)
def test_usual_words_in_any_case_name_the_splits(tmp_path: Path, train: str, val: str, test: str) -> None:
    for folder, count in ((train, 10), (val, 3), (test, 2)):
        if folder:
            fill(tmp_path / folder / "ant", count)
            fill(tmp_path / folder / "bee", count)
    data = imagefolder(tmp_path)
    assert data.classes == ("ant", "bee")
    expected = {"train": [10, 10], "val": [3, 3]} if val else {"train": [9, 9], "val": [1, 1]}
    assert counts(data) == {**expected, **({"test": [2, 2]} if test else {})}


@pytest.mark.parametrize(
    "classes",
    [
        ("freight train", "passenger train", "tram"),
        ("training shoes", "dress shoes"),
        ("tr", "de", "en"),
        ("brain", "strain", "contest", "interval"),
        ("test tube", "flask"),
        ("development_aid", "trade"),
    ],
)
def test_names_of_classes_with_other_words_are_classes(tmp_path: Path, classes: tuple[str, ...]) -> None:
    assert splits_by_name(sorted(classes)) == {}
    for name in classes:
        fill(tmp_path / name, 10)
    assert imagefolder(tmp_path).classes == tuple(sorted(classes))


def test_two_folders_for_one_split_are_refused_with_the_choices(tmp_path: Path) -> None:
    root = draw(tmp_path, train__a=4, train__b=4, val__a=2, val__b=2, Valid__a=2, Valid__b=2)
    refused(
        DataError, root, "Valid, val all look like the validation split", 'data.splits="{train: train, val: Valid}"'
    )
    data = imagefolder(root, splits={"train": "train", "val": "Valid"})
    assert counts(data) == {"train": [4, 4], "val": [2, 2]} and data.test is None
    other = draw(tmp_path / "other", train__a=4, train__b=4, Train__a=2, Train__b=2)
    refused(DataError, other, "Train, train all look like the training split")


@pytest.mark.parametrize("names", [("train", "bus", "car"), ("test", "exam"), ("dev", "ops")])
def test_a_class_called_like_a_split_is_asked_about_and_works(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        fill(tmp_path / name, 20)
    message = refused(DataError, tmp_path, "beside other folders of images", "data.splits=null", "data.splits=")
    assert all(name in message for name in names)
    data = imagefolder(tmp_path, splits=None)
    assert data.classes == tuple(sorted(names))
    assert counts(data) == {"train": [16] * len(names), "val": [2] * len(names), "test": [2] * len(names)}


def test_split_folders_beside_class_folders_can_be_told_apart(tmp_path: Path) -> None:
    root = draw(tmp_path, cat=10, dog=10, test__cat=3, test__dog=2)
    message = refused(DataError, root, 'data.splits="{train: ., test: test}"')
    assert "test" in message and "cat, dog" in message
    data = imagefolder(root, splits={"train": ".", "test": "test"})
    assert data.classes == ("cat", "dog")
    assert counts(data) == {"train": [9, 9], "val": [1, 1], "test": [3, 2]}


def test_only_folders_to_evaluate_on_are_no_training_data(tmp_path: Path) -> None:
    refused(DataError, draw(tmp_path, val__a=2, val__b=2, test__a=2, test__b=2), "no folder of training images")


def test_a_folder_without_images_beside_the_splits_is_named_and_left_out(tmp_path: Path) -> None:
    root = draw(tmp_path, train__a=10, train__b=10)
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").write_text("{}")
    assert any("folders that are not a split" in note and "annotations" in note for note in imagefolder(root).notes)


def test_split_folders_inside_class_folders_are_named(tmp_path: Path) -> None:
    data = imagefolder(draw(tmp_path, cat__train=8, cat__test=2, dog__train=8, dog__test=2))
    (note,) = data.notes
    assert "no splits" in note and "cat/test, cat/train" in note and data.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"train": "none"}, "got 'none', must be a folder below data.root (folders in"),
        ({"train": "a", "val": "a"}, "must not hold the images of"),
        ({"train": "a", "val": "a/x/deep"}, "must not hold the images of"),
        ({"train": "../a"}, "must be a folder below data.root"),
        ({"train": "/tmp"}, "must be a folder below data.root"),
        ({"val": "a"}, "data.splits.train"),
        ({"trian": "a"}, "did you mean 'train'"),
        ("folders", "'auto', 'exact' or a mapping"),
    ],
)
def test_splits_that_cannot_be_are_one_line(tmp_path: Path, splits: Any, words: str) -> None:
    draw(tmp_path, a__x=4, a__y=4, a__x__deep=2)
    refused(ConfigError, tmp_path, words, splits=splits)


def test_nested_split_folders_are_given_by_path(tmp_path: Path) -> None:
    root = draw(tmp_path, seg__train__a=10, seg__train__b=10, held__out__a=3, held__out__b=3)
    data = imagefolder(root, splits={"train": "seg/train", "test": "held/out"})
    assert counts(data) == {"train": [9, 9], "val": [1, 1], "test": [3, 3]}


def test_a_doubled_folder_is_hinted_at(tmp_path: Path) -> None:
    root = draw(tmp_path, train__train__a=4, train__train__b=4)
    refused(DataError, root, "only one class, 'train'", "a, b", "data.splits")


def test_exact_names_are_those_of_old_runs(tmp_path: Path) -> None:
    root = draw(tmp_path, train__a=10, train__b=10, Val__a=5, Val__b=5, extra__c=3)
    assert counts(imagefolder(root, splits="exact")) == {"train": [9, 9], "val": [1, 1]}
    flat = draw(tmp_path / "flat", Training__a=20, Testing__a=20)
    assert imagefolder(flat, splits="exact").classes == ("Testing", "Training")


# What was found


def test_the_line_says_what_was_found(tmp_path: Path) -> None:
    root = draw(tmp_path, train__ants=124, train__bees=121, test__ants=70, test__bees=83)
    assert line(imagefolder(root)) == (
        "found 245 images in 2 classes (ants 124, bees 121): train 221, val 24 (split from train), test 153"
    )
    assert line(imagefolder(root, limit=50, classes=["bees", "ants"])) == (
        "found 245 images in 2 classes (bees 121, ants 124): train 50 (of 221, data.limit), val 24 (split from train), "
        "test 153"
    )


def test_the_line_counts_all_images_of_a_folder_without_splits(tmp_path: Path) -> None:
    data = imagefolder(draw(tmp_path, a=20, b=20, c=10), classes=["a", "c"])
    assert line(data).startswith("found 30 images in 2 of 3 classes (a 20, c 10): train 24, val 3 (split from train), ")
    assert sum(map(sum, counts(data).values())) == 30


def test_the_line_stays_short_for_many_classes() -> None:
    found = Found([7] * 999 + [12], {"train": [6] * 999 + [11], "val": [1] * 1000})
    expected = "found 7005 images in 1000 classes (7 to 12 each): train 6005, val 1000, no test"
    assert found.line([f"n{i:08}" for i in range(1000)], "images") == expected
    assert (
        Found([5] * 20, {"train": [4] * 20})
        .line(["x"] * 20, "examples")
        .startswith("found 100 examples in 20 classes (5 each): train 80, no val")
    )


@pytest.mark.parametrize("name", ["digits", "synthetic", "gaussian"])
def test_every_data_set_counts_its_splits(name: str) -> None:
    data = build("data", yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text()))
    found = found_in(data)
    assert {split: list(each or ()) for split, each in found.counts.items()} == counts(data)


# Hidden, system and other files

JUNK = (
    *(".ipynb_checkpoints", "__MACOSX", ".thumbnails", "@eaDir", "$RECYCLE.BIN", "System Volume Information"),
    *("lost+found", ".git", ".Trash-1000", "@Recycle", "__pycache__"),
)


@pytest.mark.parametrize("level", ["", "train", "train/a", "train/a/deep", "test", "test/b"])
def test_hidden_and_system_folders_do_not_count_at_any_level(tmp_path: Path, level: str) -> None:
    draw(tmp_path, train__a=9, train__b=10, train__a__deep=1, test__a=3, test__b=3)
    for junk in JUNK:
        fill(tmp_path / level / junk / "inner", 1)
        fill(tmp_path / level / junk, 1)
    data = imagefolder(tmp_path)
    assert counts(data) == {"train": [9, 9], "val": [1, 1], "test": [3, 3]}
    (note,) = data.notes
    first = "$RECYCLE.BIN 1, .Trash-1000 1, .git 1, .ipynb_checkpoints 1, .thumbnails 1, ... 6 more names"
    assert note == f"data: left out hidden or system files and folders: {len(JUNK)} ({first})"


def test_hidden_files_are_counted_by_name_in_one_line(tmp_path: Path) -> None:
    root = draw(tmp_path, a=10, b=10)
    for name in ("a/._000.png", "a/._001.png", "b/.DS_Store", "a/.DS_Store", "Thumbs.db", "b/desktop.ini"):
        (root / name).write_bytes(b"x")
    (root / "a" / "notes.txt").write_text("x")
    (root / "b" / "LICENSE").write_text("x")
    Image.new("RGB", (4, 4)).save(root / "stray.png")
    (root / "b" / "link").symlink_to(root / "a", target_is_directory=True)
    data = imagefolder(root)
    assert sum(map(sum, counts(data).values())) == 20
    assert data.notes == (
        "data: left out hidden or system files and folders: 6 (.DS_Store 2, ._* 2, Thumbs.db 1, desktop.ini 1)",
        "data: left out files that are not images: 2 (.txt 1, no suffix 1)",
        f"data: left out images outside the class folders: 1 ({root}/stray.png)",
        f"data: left out links to folders inside class folders: 1 ({root}/b/link)",
    )


def test_a_link_to_a_folder_that_it_is_in_is_left_out_and_said(tmp_path: Path) -> None:
    root = draw(tmp_path / "disk" / "set", a=10, b=10)
    expected, state = counts(imagefolder(root)), data_state(config_of(root))
    for name, target in (("here", root), ("above", tmp_path), ("disk", Path("/")), ("relative", Path(".."))):
        (root / name).symlink_to(target, target_is_directory=True)
    data = imagefolder(root)
    assert data.classes == ("a", "b") and counts(data) == expected
    assert data.notes == (f"data: left out links to a folder that they are in: 4 (the first is {root}/above)",)
    assert data_state(config_of(root)) == state
    # Another folder of the same name beginning is none that it is in
    fill(tmp_path / "disk" / "se", 10)
    (root / "other").symlink_to(tmp_path / "disk" / "se", target_is_directory=True)
    assert imagefolder(root).classes == ("a", "b", "other")
    assert data_state(config_of(root)) != state


# A test folder without labels


@pytest.mark.parametrize("inside", ["", "images", "test", "unknown/deep"])
def test_a_test_folder_without_labels_is_named_and_ignored(tmp_path: Path, inside: str) -> None:
    draw(tmp_path, train__a=10, train__b=10)
    fill(tmp_path / "test" / inside, 5)
    data = imagefolder(tmp_path)
    assert data.test is None and f"{tmp_path}/test has no labels" in str(found_in(data).no_test)
    assert [note for note in data.notes if note.endswith("it is ignored")]
    assert line(data).endswith("no test (no labels)")


# Names


def undecoded(name: bytes) -> str:
    return os.fsdecode(name)


def test_names_that_are_not_utf8_work_and_are_shown_escaped(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"th\xe9", b"two\nlines"):
        fill(tmp_path / undecoded(name), 9)
        Image.new("RGB", (4, 4)).save(tmp_path / undecoded(name) / undecoded(b"\xff.png"), "PNG")
    data = imagefolder(tmp_path)
    assert data.classes == (r"caf\xe9", r"th\xe9", r"two\nlines")
    assert line(data).isprintable() and counts(data) == {"train": [8, 8, 8], "val": [1, 1, 1], "test": [1, 1, 1]}
    assert imagefolder(tmp_path, classes=[r"th\xe9", r"caf\xe9"]).classes == (r"th\xe9", r"caf\xe9")
    (tmp_path / undecoded(b"caf\xe9") / undecoded(b"\xfe.png")).write_bytes(b"no image")
    refused(DataError, tmp_path, r"caf\xe9/\xfe.png: cannot be read as an image", val_fraction=0.8, test_fraction=0)
    (tmp_path / undecoded(b"empty \xe9")).mkdir()
    refused(DataError, tmp_path, r"class 'empty \xe9' has no images")


def test_names_that_look_alike_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / undecoded(b"caf\xe9"), 4)
    fill(tmp_path / r"caf\xe9", 4)
    refused(DataError, tmp_path, r"two class folders that are shown as 'caf\xe9'")


def test_numbers_in_names_of_classes_count_as_numbers(tmp_path: Path) -> None:
    names = ["0", "1", "2", "10", "11", "100"]
    for name in names:
        fill(tmp_path / name, 10)
    assert imagefolder(tmp_path).classes == tuple(names)
    assert imagefolder(tmp_path, class_order="text").classes == tuple(sorted(names))
    mixed = ["10 b", "2 a", "a10", "a2", "a02", "b"]
    other = tmp_path / "other"
    for name in mixed:
        fill(other / name, 10)
    assert imagefolder(other).classes == ("2 a", "10 b", "a02", "a2", "a10", "b")


@pytest.mark.parametrize("changes", [{"class_order": "text"}, {"classes": ["10", "2"]}, {"limit": 8}])
def test_order_classes_and_limit_move_no_image_to_another_split(tmp_path: Path, changes: dict[str, Any]) -> None:
    draw(tmp_path, **{"1": 13, "2": 17, "10": 11, "20": 19})

    def files(data: Data) -> dict[str, set[bytes]]:
        opened = {"train": data.train, "val": data.val, "test": data.test and data.test()}
        return {
            name: {
                f"{data.classes[label]}".encode() + row.numpy().tobytes()
                for row, label in zip(split.fetch(torch.arange(len(split.labels))), split.labels.tolist(), strict=True)
            }
            for name, split in opened.items()
        }

    before, after = files(imagefolder(tmp_path)), files(imagefolder(tmp_path, **changes))
    for name, found in after.items():
        assert found <= before[name] and found
        if "limit" not in changes or name != "train":
            kept = {b"10", b"2"} if "classes" in changes else {b"1", b"2", b"10", b"20"}
            assert {each for each in before[name] if any(each[:-48] == name for name in kept)} == found


def test_a_choice_of_classes_has_the_order_that_is_given(tmp_path: Path) -> None:
    root = draw(tmp_path, train__a=10, train__b=20, train__c=30, test__a=1, test__b=2, test__c=3, test__d=4)
    (root / "train" / "empty").mkdir()
    data = imagefolder(root, classes=["c", "a"])
    assert data.classes == ("c", "a") and counts(data) == {"train": [27, 9], "val": [3, 1], "test": [3, 1]}


def test_numbers_choose_classes(tmp_path: Path) -> None:
    draw(tmp_path, **{"3": 10, "7": 10, "8": 10})
    assert imagefolder(tmp_path, classes=[7, "3"]).classes == ("7", "3")


@pytest.mark.parametrize(
    ("classes", "words"),
    [(["cat", "dgo"], "unknown class 'dgo' (nearest: dog"), (["cat"], "at least two"), (["cat", "cat"], "each once")],
)
def test_classes_that_cannot_be_are_one_line(tmp_path: Path, classes: list[str], words: str) -> None:
    refused(ConfigError, draw(tmp_path, cat=4, dog=4), "data.classes", words, classes=classes)


# A limit


@pytest.mark.parametrize("limit", [4, 5, 9, 40, 83])
def test_a_limit_takes_its_share_of_each_class_and_at_least_one(tmp_path: Path, limit: int) -> None:
    sizes = {"a": 100, "b": 50, "c": 10, "d": 2}
    root = draw(tmp_path, **{f"train__{name}": size for name, size in sizes.items()}, val__a=3, val__b=3)
    found = counts(imagefolder(root, limit=limit))
    assert found["val"] == [3, 3, 0, 0] and sum(found["train"]) == limit
    for count, size in zip(found["train"], sizes.values(), strict=True):
        # A quota is off by less than one, but for the examples that small classes get in any case
        assert 1 <= count <= size and abs(count - limit * size / 162) <= 2


@pytest.mark.parametrize("count", [1000, 1001, 1500, 9999, 20_000, 102_999])
def test_a_sample_of_many_classes_has_exactly_its_size(count: int) -> None:
    labels = torch.cat([torch.arange(1000), torch.zeros(100_000, dtype=torch.int64), torch.arange(2000) // 2])
    found = stratified_sample(labels, torch.arange(len(labels)), count)
    quotas = labels[found].bincount(minlength=1000)
    assert len(found) == len(found.unique()) == count and (quotas >= 1).all() and (found.diff() > 0).all()
    assert (quotas <= labels.bincount()).all() and quotas[0] == quotas.max()


def test_a_limit_depends_on_its_seed_and_smaller_ones_are_part_of_larger_ones(tmp_path: Path) -> None:
    root = draw(tmp_path, a=60, b=60)

    def chosen(limit: int, seed: int = 0) -> set[bytes]:
        split = imagefolder(root, limit=limit, limit_seed=seed).train
        return {row.numpy().tobytes() for row in split.fetch(torch.arange(len(split.labels)))}

    assert chosen(20) == chosen(20) and chosen(20) < chosen(40) and chosen(20) != chosen(20, seed=1)
    assert len(chosen(1000)) == 96


def test_a_limit_below_the_number_of_classes_is_refused(tmp_path: Path) -> None:
    refused(ConfigError, draw(tmp_path, a=10, b=10), "data.limit: got 1, must be >= 2", limit=1)
