"""Runs on folders with odd names and layouts: what is printed, written and refused."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from running import job, result

import runner.tasks.compare
import runner.tasks.evaluate
import runner.tasks.preview
import runner.tasks.train  # noqa: F401
from runner.errors import DataError
from runner.tasks import start

QUICK = ("model=mlp", "model.hidden=[8]", "steps=3", "augment=[]", "probe=[]", "data.size=[8,8]", "data.batch_size=9")


def fill(folder, count):
    """Write some noisy images, half of them under names that are not UTF-8."""
    folder.mkdir(parents=True)
    for number in range(count):
        name = os.fsdecode(b"\xff%d.png" % number) if number % 2 else f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name, "PNG")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Keep the notebook of the runs out of the clone."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(tmp_path):
    """Classes `cafe` with an accent in Latin-1, `2`, `10` and one in Chinese."""
    for name in (os.fsdecode(b"caf\xe9"), "2", "10", "猫"):
        fill(tmp_path / "images" / "Training" / name, 18)
        fill(tmp_path / "images" / "Testing" / name, 3)
    return tmp_path / "images"


def run(images, where, *more):
    return start(job("data=imagefolder", f"data.root={images}", *QUICK, *more, f"hydra.run.dir={where}"))


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("reading", [("data.workers=0",), ("data.crop=resized", "data.workers=1")])
def test_names_that_are_not_utf8_go_through_every_task(images, tmp_path, capfd, reading):
    first = tmp_path / "runs" / "first"
    first.parent.mkdir()
    assert run(images, first, *reading) == 0
    printed = capfd.readouterr().err
    line = r"found 72 images in 4 classes (2 18, 10 18, caf\xe9 18, 猫 18): train 65, val 7 (split from train), test 12"
    assert f"\n  {line}\n" in printed
    about = json.loads((first / "environment.json").read_text())["data"]
    assert about["found"] == line and about["classes"] == ["2", "10", r"caf\xe9", "猫"]
    assert {split: sum(counts) for split, counts in about["examples"].items()} == {"train": 65, "val": 7, "test": 12}
    assert "accuracy" in result(first)["scores"]["test"]
    assert start(job("task=evaluate", f"run={first}")) == 0
    assert run(images, tmp_path / "runs" / "second", *reading, "seed=1") == 0
    assert start(job("task=compare", f"runs={tmp_path}/runs/*")) == 0
    assert run(images, tmp_path / "runs" / "preview", *reading, "task=preview") == 0
    assert r"caf\xe9" in capfd.readouterr().out
    assert {path.suffix for path in (tmp_path / "runs" / "preview" / "preview").iterdir()} == {".png"}


def test_a_test_folder_without_labels_blocks_a_run_only_if_it_is_asked_for(images, tmp_path, capfd):
    (images / "Testing" / "2").rename(images / "unlabelled")
    for path in (images / "Testing").iterdir():
        path.rename(images.parent / path.name)
    (images / "unlabelled").rename(images / "Testing" / "images")
    for number, words in enumerate([(), ("test=never",)]):
        assert run(images, tmp_path / f"run{number}", *words) == 0
        assert f"data: {images}/Testing has no labels: its images are not in class folders; it is ignored" in (
            capfd.readouterr().err
        )
        assert "test" not in result(tmp_path / f"run{number}")["scores"]
    with pytest.raises(DataError, match=r"test: got end, but .*Testing has no labels"):
        run(images, tmp_path / "asked", "test=end")
    assert not (tmp_path / "asked").exists()
    with pytest.raises(DataError, match=r"task.split: got test, but .*Testing has no labels"):
        start(job("task=evaluate", f"run={tmp_path}/run0"))
    assert start(job("task=evaluate", "task.split=val", f"run={tmp_path}/run0")) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["data=digits"], "found 1797 images in 10 classes (0 178, 1 182, 2 177, 3 183, "),
        (
            ["data=synthetic", "data.train=30", "data.val=10", "data.test=20"],
            "found 60 examples in 3 classes (0 21, 1 20, 2 19): train 30, val 10, test 20",
        ),
    ],
)
def test_every_run_says_what_its_data_hold(tmp_path, capfd, words, line):
    quick = [word for word in QUICK if not word.startswith("data.")]
    assert start(job(*words, *quick, "data.batch_size=8", f"hydra.run.dir={tmp_path}/run")) == 0
    assert f"  {line}" in capfd.readouterr().err
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["data"]["found"].startswith(line)


def test_a_run_from_before_keeps_its_classes_and_splits(tmp_path, capfd):
    import yaml

    for name in ("train", "Dev"):
        for label in ("2", "10"):
            fill(tmp_path / "old" / name / label, 18)
    new = tmp_path / "run"
    assert run(tmp_path / "old", new, "data.splits=exact", "data.class_order=text") == 0
    config = yaml.safe_load((new / "config.yaml").read_text())
    for knob in ("splits", "classes", "class_order", "limit", "limit_seed"):
        del config["data"][knob]
    (new / "config.yaml").write_text(yaml.safe_dump(config))
    from runner.assemble import assemble
    from runner.numerics import completed

    experiment = assemble(completed(config), fit=False)
    assert experiment.classes == ("10", "2") and len(experiment.validation["val"]) == 4
    capfd.readouterr()
    assert start(job("task=evaluate", "task.split=val", f"run={new}")) == 0
    assert f"{result(new)['scores']['val']['best']['accuracy']:.4f}" in capfd.readouterr().out
