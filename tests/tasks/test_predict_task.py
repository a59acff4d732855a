"""task=predict: a row per image, read and predicted exactly as the run's own evaluation does."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from image_folders import CLASSES, write_mixed_images, write_table
from running import job

from runner.__main__ import main
from runner.tasks import start
from runner.tasks.trained.trained import Trained

RUN = (
    "model=cnn", "model.channels=[4]", "model.hidden=[]", "data=imagefolder", "data.root=images", "data.size=[12,16]",
    "data.batch_size=8", "data.workers=0", "data.cache=null", "probe=[]", "steps=6", "device=cpu", "figures=never",
    "regularizer=[dropout]", "hydra.run.dir=run",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with images and a finished run on them."""
    folder = tmp_path_factory.mktemp("predict")
    before = Path.cwd()
    os.chdir(folder)
    write_mixed_images(folder / "images")
    assert start(job(*RUN, "data.alpha=white", "data.center=0.8", "data.fit=pad")) == 0
    os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def said(capfd, *words: str, code: int = 0) -> tuple[str, str]:
    """Return what a command prints."""
    capfd.readouterr()
    assert main(["run=run", "device=cpu", *words]) == code, capfd.readouterr().err
    return capfd.readouterr()


def table(capfd, *words: str) -> list[dict[str, str]]:
    """Return the rows that task=predict writes as CSV."""
    said(capfd, "task=predict", "task.out=table.csv", "task.overwrite=true", *words)
    with Path("table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "words",
    [(), ("predict=tta", "predict.views=[flip]"), ("predict=ten_crop",), ("predict=mc_dropout", "predict.passes=3")],
    ids=["plain", "tta", "ten_crop", "mc_dropout"],
)
def test_the_test_images_get_the_scores_of_an_evaluation(capfd, words):
    lines = [line.split() for line in said(capfd, "task=evaluate", *words).out.splitlines()]
    header, row = (next(line for line in lines if line[:1] == [word]) for word in ("split", "test"))
    scores = dict(zip(header, row, strict=False))
    accuracy, nll = scores["accuracy"], scores.get("nll", scores["loss"])
    rows = table(capfd, "task.images=images/test", *words)
    right = sum(row["prediction"] == row["label"] for row in rows)
    assert f"{right / len(rows):.4f}" == accuracy
    again = said(capfd, "task=predict", "task.images=images/test", *words).out
    assert f"scores        accuracy {accuracy}, nll {nll}" in again


def test_a_row_has_path_prediction_and_the_most_probable_classes(capfd):
    rows = table(capfd, "task.images=images/test", "task.top=3")
    assert [row["path"] for row in rows] == sorted(str(path) for path in Path("images/test").rglob("*.*"))
    for row in rows:
        ranked = [row["prediction"], row["prediction_2"], row["prediction_3"]]
        values = [float(row[key]) for key in ("probability", "probability_2", "probability_3")]
        assert sorted(ranked) == sorted(CLASSES) and row["label"] == Path(row["path"]).parent.name
        assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(1, abs=1e-6)


def test_json_has_the_same_rows_and_the_scores(capfd):
    rows = table(capfd, "task.images=images/test", "task.top=2")
    said(capfd, "task=predict", "task.images=images/test", "task.top=2", "task.out=table.json", "task.overwrite=true")
    found = json.loads(Path("table.json").read_text())
    assert [{key: str(value) for key, value in row.items()} for row in found["images"]] == rows
    assert found["classes"] == list(CLASSES) and found["left_out"] == []
    right = sum(row["prediction"] == row["label"] for row in rows)
    assert found["scores"]["accuracy"] == right / len(rows)


@pytest.mark.parametrize(
    ("images", "count"),
    [("images/test/bees/2.png", 1), ("images/test/*/1.jpg", 3), ("images/*/bees", 18), ("images/test/bees/", 6)],
)
def test_images_are_a_file_a_folder_or_a_pattern(capfd, images, count):
    rows = table(capfd, f"task.images={images}")
    assert len(rows) == count and "label" not in rows[0]


def test_a_prediction_does_not_depend_on_the_other_images(capfd):
    together = {row["path"]: row["probability"] for row in table(capfd, "task.images=images/test")}
    alone = table(capfd, "task.images=images/test/cats/1.jpg")[0]
    assert float(alone["probability"]) == pytest.approx(float(together[alone["path"]]), abs=1e-5)


def test_labels_of_some_images_only_give_no_scores(capfd, tmp_path):
    (tmp_path / "bees").mkdir()
    for name in ("bees/1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(Path("images/test/bees/1.jpg").read_bytes())
    printed = said(capfd, "task=predict", f"task.images={tmp_path}")
    assert "no scores: 1 of 2 images are not in a folder named by a class of the run" in printed.err
    assert "scores" not in printed.out


def test_a_damaged_image_is_an_error_that_names_it_and_leaves_nothing(capfd, tmp_path):
    (tmp_path / "good.jpg").write_bytes(Path("images/test/bees/1.jpg").read_bytes())
    (tmp_path / "half.jpg").write_bytes(Path("images/test/bees/1.jpg").read_bytes()[:400])
    words = ("task=predict", f"task.images={tmp_path}", f"task.out={tmp_path}/new/table.csv")
    line = said(capfd, *words, code=7).err
    assert line.count("\n") == 1 and "half.jpg: cannot be read as an image" in line
    assert "task.bad_images=skip" in line and not (tmp_path / "new").exists()
    assert "left out 1 of 2 images, the first is" in said(capfd, *words, "task.bad_images=skip").err
    rows = list(csv.DictReader((tmp_path / "new/table.csv").read_text().splitlines()))
    assert [Path(row["path"]).name for row in rows] == ["good.jpg"]


def test_only_damaged_images_are_an_error(capfd, tmp_path):
    (tmp_path / "half.jpg").write_bytes(b"\xff\xd8\xff")
    line = said(capfd, "task=predict", f"task.images={tmp_path}", "task.bad_images=skip", code=7).err
    assert "no image can be read, the first is" in line and "half.jpg" in line


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "task.images: got null"),
        (["task.images=nowhere"], "task.images: got 'nowhere'; expected an image file"),
        (["task.images=images/*/x.jpg"], "expected an image file"),
        (["task.images=images", "task.out=table.txt"], "expected a name that ends with .csv or .json"),
        (["task.images=images", "task.out=images"], "expected a name that ends with"),
        (["task.images=images", "task.out=run/config.csv"], "exists; choose another name, or task.overwrite=true"),
        (["task.images=images", "task.top=4"], "task.top: got 4; expected at most 3"),
        (["task.images=images", "optim.lr=1"], "optim.lr: cannot be changed with run=..."),
    ],
)
def test_a_wrong_word_is_one_line_and_leaves_nothing(capfd, words, part):
    Path("run/config.csv").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    capfd.readouterr()
    assert main(["task=predict", "run=run", "device=cpu", *words]) in (2, 7)
    line = capfd.readouterr().err
    assert line.count("\n") == 1 and part in line
    Path("table.csv").unlink(missing_ok=True)
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")}.items() <= before.items()
    assert Path("run/config.csv").read_text() == "mine"


@pytest.mark.parametrize("name", ["run/config.yaml/table.csv", f"{'x' * 300}/table.csv", "/proc/table.csv"])
def test_a_place_that_cannot_be_written_is_refused_before_the_images_are_read(capfd, name):
    before = sorted(Path().rglob("*"))
    line = said(capfd, "task=predict", "task.images=nowhere", f"task.out={name}", code=4).err
    assert line.count("\n") == 1 and name.partition("/")[0][:20] in line
    assert sorted(Path().rglob("*")) == before


def test_a_confident_mistake_has_a_finite_nll(capfd, monkeypatch):
    def saved(name) -> dict:
        said(capfd, "task=predict", "task.images=images/test", f"task.out={name}", "task.overwrite=true")
        return json.loads(Path(name).read_text())

    plain = saved("table.json")["scores"]["nll"]
    own = Trained.outputs
    monkeypatch.setattr(Trained, "outputs", lambda self, chunks: (1000 * each for each in own(self, chunks)))
    assert saved("table.json")["scores"]["nll"] == pytest.approx(1000 * plain)


def test_the_folder_of_the_run_is_only_read(capfd):
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    said(capfd, "task=predict", "task.images=images/test")
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_the_data_of_the_run_are_not_needed(capfd, place):
    (place / "images/train").rename(place / "images/gone")
    try:
        assert len(table(capfd, "task.images=images/test")) == 18
    finally:
        (place / "images/gone").rename(place / "images/train")


def test_many_rows_are_shown_in_part(capfd):
    printed = said(capfd, "task=predict", "task.images=images").out
    assert "20 of 54 images; for all of them: task.out=<file>.csv" in printed
    assert "predicted     54 images: " in printed


def test_points_are_predicted_in_python(capfd, tmp_path, monkeypatch):
    photo = Path("images/test/bees/1.jpg").absolute()
    monkeypatch.chdir(tmp_path)
    write_table(Path("points.csv"))
    words = ("data=table", "data.root=points.csv", "data.label=kind", "model=mlp", "augment=[]", "probe=[]", "steps=2")
    assert start(job(*words, "device=cpu", "figures=never", "hydra.run.dir=run")) == 0
    line = said(capfd, "task=predict", f"task.images={photo}", code=7).err
    assert line.count("\n") == 1 and "runner.load(<run folder>).predict(array)" in line


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_a_name_that_is_no_utf8_keeps_its_bytes(capfd, tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(name)).write_bytes(Path("images/test/bees/1.jpg").read_bytes())
    said(capfd, "task=predict", f"task.images={tmp_path}", "task.out=odd.csv", "task.overwrite=true")
    assert name in Path("odd.csv").read_bytes()
