"""Runs know their data: renamed classes, deleted, changed, moved and copied images on resume and evaluation."""

from __future__ import annotations

import json
import os
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from running import job, killed_in_step, metrics, result, run_in_child
from test_multirun import hparams

import runner.tasks.train  # noqa: F401
from runner.__main__ import main
from runner.engine.contracts import Data, Images
from runner.engine.fingerprint import from_record
from runner.engine.saving import checkpoint
from runner.registry import register
from runner.schema import PositiveInt
from runner.tasks import start

STEPS = 6
PARTS = (
    "data=imagefolder", "data.size=[6,6]", "data.workers=0", "data.batch_size=8", "model=linear", "augment=[]",
    "probe=[]", f"steps={STEPS}", "validate_every=2steps", "checkpoint_every=2steps", "figures=never", "device=cpu",
)  # fmt: skip


def write_images(root: Path, classes=("ants", "bees", "cats"), count: int = 12, seed: int = 0) -> Path:
    """Write images of classes that a linear model tells apart by their color."""
    from PIL import Image

    random = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 40, (8, 8, 3), dtype=np.uint8)
            pixels[..., label % 3] += 200
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
    return root


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_images(tmp_path / "images")


def train(*more: str, folder: str = "run") -> None:
    assert start(job(*PARTS, "data.root=images", *more, f"hydra.run.dir={folder}")) == 0


def interrupted(folder: str = "run") -> None:
    """Leave a run that was killed after its first checkpoint."""
    work = killed_in_step(4, lambda: start(job(*PARTS, "data.root=images", f"hydra.run.dir={folder}")))
    assert run_in_child(work) == -9


def refused(capfd, *words: str, code: int = 7) -> str:
    """Return the one line of a command that must be refused."""
    capfd.readouterr()
    assert main([*words]) == code
    line = capfd.readouterr().err
    assert line.count("\n") == 1, line
    return line


def said(capfd, *words: str) -> str:
    """Return what a command writes to standard error, which must end well."""
    capfd.readouterr()
    assert main([*words]) == 0
    return capfd.readouterr().err


def test_the_run_its_checkpoints_and_its_result_say_what_it_read(images):
    train()
    environment = json.loads(Path("run/environment.json").read_text())
    found = from_record(environment["data"])
    assert found.classes == ("ants", "bees", "cats")
    assert sum(part.count for part in found.parts.values()) == 36
    assert result(Path("run"))["data"] == [found.id] == [environment["data"]["fingerprint"]]
    assert from_record(checkpoint.load(Path("run")).meta["data"]) == found
    assert environment["paths"] == {"data.root": str(images)}
    assert yaml.safe_load(Path("run/config.yaml").read_text())["data"]["root"] == "images"


def test_a_renamed_class_is_refused_by_name(images, capfd):
    train()
    (images / "ants").rename(images / "wasps")
    line = refused(capfd, "task=evaluate", "run=run")
    assert "lack its classes 'ants'" in line and "does not know 'wasps'" in line
    line = refused(capfd, "resume=run")
    assert "without 'ants' and with 'wasps'" in line and "resume_data" not in line
    assert "does not know the classes 'wasps'" in refused(capfd, "resume=run", "resume_data=new")
    (images / "wasps").rename(images / "ants")
    assert said(capfd, "task=evaluate", "run=run") == ""


def test_a_new_class_is_refused_by_name(images, capfd):
    train()
    shutil.copytree(images / "cats", images / "bears")
    assert "it does not know 'bears'" in refused(capfd, "task=evaluate", "run=run")
    assert "with 'bears'" in refused(capfd, "resume=run")


def test_deleted_images_are_counted_and_adopted_only_when_told(images, capfd):
    interrupted()
    for number in (0, 1, 2):
        (images / "bees" / f"{number:02}.png").unlink()
    (images / "cats" / "00.png").unlink()
    line = refused(capfd, "resume=run", "device=cpu")
    assert "examples instead of" in line and "'bees'" in line and "resume_data=new" in line
    before = result(Path("run"))["data"]
    assert "goes on with other data" in said(capfd, "resume=run", "device=cpu", "resume_data=new")
    found = result(Path("run"))
    assert found["status"] == "done" and found["data"][:1] == before and len(found["data"]) == 2
    assert from_record(checkpoint.load(Path("run")).meta["data"]).id == found["data"][1]
    # Only this command adopted them
    assert yaml.safe_load(Path("run/config.yaml").read_text())["resume_data"] == "same"
    assert said(capfd, "resume=run", "device=cpu") == ""


def test_changed_pixels_are_noticed_at_equal_size_and_time(images, capfd):
    interrupted()
    path = next((images / "cats").glob("*.png"))
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "other contents under the same names and sizes" in refused(capfd, "resume=run", "device=cpu")


def test_a_moved_set_is_resumed_and_evaluated_as_if_it_lay_where_it_was(images, capfd, tmp_path):
    train(folder="whole")
    interrupted()
    images.rename(tmp_path / "elsewhere")
    assert "is not a folder" in refused(capfd, "resume=run", "device=cpu")
    # With a path the command may, but need not, repeat what kind of data it is
    assert main(["resume=run", "device=cpu", "data=imagefolder", "data.root=elsewhere"]) == 0
    assert metrics(Path("run")) == metrics(Path("whole"))
    assert said(capfd, "task=evaluate", "run=whole", f"data.root={tmp_path / 'elsewhere'}") == ""
    # The resumed run knows the new place
    assert said(capfd, "task=evaluate", "run=run") == ""
    assert "is not a folder" in refused(capfd, "task=evaluate", "run=whole")


def test_a_relative_root_is_found_from_another_folder(images, capfd, tmp_path, monkeypatch):
    interrupted()
    (tmp_path / "far" / "away").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "far" / "away")
    assert main(["resume=../../run", "device=cpu"]) == 0
    assert said(capfd, "task=evaluate", "run=../../run") == ""
    # A set of the same relative name does not stand in for it
    write_images(tmp_path / "far" / "away" / "images", seed=5)
    assert said(capfd, "task=evaluate", "run=../../run") == ""


def test_a_run_does_not_go_on_with_other_data_in_another_place(images, capfd, tmp_path):
    interrupted()
    write_images(tmp_path / "other", seed=1)
    line = refused(capfd, "resume=run", "device=cpu", "data.root=other")
    assert "not those that it was trained on" in line and "resume_data=new" in line


def test_other_data_are_scored_where_a_command_names_them_and_counted_nowhere(images, capfd, tmp_path):
    train()
    write_images(tmp_path / "other", seed=1)
    before = result(Path("run"))["test_reads"]
    line = said(capfd, "task=evaluate", "run=run", "data.root=other")
    assert "scored on other data than it was trained on" in line
    assert result(Path("run"))["test_reads"] == before
    assert said(capfd, "task=evaluate", "run=run", f"data.root={images}") == ""
    assert result(Path("run"))["test_reads"] == before + 1


def test_other_data_that_nobody_named_are_not_scored(images, capfd, tmp_path, monkeypatch):
    train()
    images.rename(tmp_path / "moved")
    place = tmp_path / "far"
    place.mkdir()
    write_images(place / "images", seed=1)
    monkeypatch.chdir(place)
    line = refused(capfd, "task=evaluate", "run=../run")
    assert "are not those that it was trained on" in line and "data.root=<folder>" in line


@pytest.mark.parametrize("word", ["data.batch_size=3", "data.size=[8,8]", "data.val_fraction=0.2", "data=digits"])
def test_only_paths_of_the_data_may_change(images, capfd, word):
    train()
    line = refused(capfd, "resume=run", "data.root=images", word, code=2)
    assert "cannot be changed" in line or "unknown" in line


def test_a_path_that_the_run_does_not_have_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert start(job("model=linear", "augment=[]", "probe=[]", "steps=2", "figures=never", "hydra.run.dir=run")) == 0
    assert "data.root: " in refused(capfd, "resume=run", "data.root=images", code=2)


def without_fingerprint(folder: Path) -> None:
    """Turn a run into one of a version that kept no fingerprint."""
    import hashlib

    for path in [*(folder / "checkpoints").glob("*.json"), folder / "environment.json", folder / "result.json"]:
        record = json.loads(path.read_bytes())
        record.get("meta", record).pop("data")
        if record.pop("sha256", None):
            body = json.dumps(record, separators=(",", ":")).encode()[:-1]
            path.write_bytes(body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n')
        else:
            path.write_text(json.dumps(record))


def test_a_run_without_a_fingerprint_is_accepted_with_one_line(images, capfd):
    interrupted()
    without_fingerprint(Path("run"))
    for words in (["task=evaluate", "task.split=val", "run=run"], ["resume=run"]):
        err = said(capfd, *words, "device=cpu")
        assert err.count("has no fingerprint of its data") == 1
    assert len(result(Path("run"))["data"]) == 1


def test_a_named_folder_is_for_one_set_of_data(images, capfd, tmp_path):
    train()
    first = result(Path("run"))
    # The same images elsewhere are the same run
    shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copyfile)
    assert start(job(*PARTS, "data.root=copy", "hydra.run.dir=run")) == 0
    assert result(Path("run")) == first and len(list(tmp_path.glob("run*"))) == 1
    next((images / "bees").iterdir()).unlink()
    capfd.readouterr()
    train()
    assert "holds this run on other data" in capfd.readouterr().err
    [other] = tmp_path.glob("run-data*")
    assert result(other)["data"][0].startswith(other.name[-4:]) and result(Path("run")) == first
    train()
    assert len(list(tmp_path.glob("run*"))) == 2


def test_an_unfinished_run_in_a_named_folder_goes_on_with_its_own_data_only(images, capfd, tmp_path):
    interrupted()
    next((images / "bees").iterdir()).unlink()
    train()
    [other] = tmp_path.glob("run-data*")
    assert (result(other)["status"], result(Path("run"))["status"]) == ("done", "running")
    train("resume_data=new")
    assert result(Path("run"))["status"] == "done" and len(result(Path("run"))["data"]) == 2


def group(folder: str) -> str:
    """Return the row of TensorBoard's HPARAMS page that a run is shown in."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    [content] = [about for _, tag, about in hparams(Path(folder)) if tag == "_hparams_/session_start_info"]
    return HParamsPluginData.FromString(content).session_start_info.group_name


def test_seeds_share_a_row_of_the_hparams_page_if_they_read_the_same_data(images, tmp_path):
    shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copyfile)
    write_images(tmp_path / "other", seed=1)
    # The page has the trials of sweeps
    for root, folder, seed in (("images", "one", 0), ("copy", "two", 1), ("other", "three", 1)):
        made = job(*PARTS, f"data.root={root}", f"seed={seed}", f"hydra.run.dir={folder}")
        assert start(replace(made, is_trial=True)) == 0
    assert group("one") == group("two") != group("three")


ORDER: dict[str, list[int]] = {}


@register("data", name="ordered")
def ordered(*, batch_size: PositiveInt) -> Data:
    """Return examples of three classes whose order the test chooses."""
    order = ORDER["order"]
    labels = torch.arange(30) % 3
    pixels = torch.full((30, 3, 2, 2), 20, dtype=torch.uint8)
    pixels[torch.arange(30), labels] = 220
    here = torch.tensor([order.index(int(label)) for label in labels])
    split = Images(pixels, here)
    return Data(split, split, lambda: split, (3, 2, 2), tuple("abc"[each] for each in order), batch_size)


def test_labels_are_matched_by_class_name(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "my_sets", types.ModuleType("my_sets"))
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "ordered.yaml").write_text("# Three colors\nname: ordered\nbatch_size: 10\n")
    ORDER["order"] = [0, 1, 2]
    given = ["--config-dir", "conf", "plugins=[my_sets]"]
    words = ("data=ordered", "model=linear", "optim.lr=1", "steps=40", "augment=[]", "probe=[]", "figures=never")
    assert main([*given, *words, "name=run"]) == 0
    assert result(Path("outputs/run"))["scores"]["test"]["accuracy"] == 1
    ORDER["order"] = [2, 0, 1]
    capfd.readouterr()
    assert main([*given, "task=evaluate", "run=outputs/run"]) == 0
    found = capfd.readouterr()
    assert "1.0000" in found.out and "in another order" in found.err
