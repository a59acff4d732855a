"""task=preview: curve, images and parameter groups equal those of the run; nothing is trained."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from running import MLP, events, job, metrics, result

from runner.assemble import assemble
from runner.engine.figures.preview import (
    ImageRow,
    counts_figure,
    drawable_names,
    image_figure,
    label_caption,
    row_captions,
)
from runner.tasks import start
from runner.tasks.preview import evenly_spaced_steps, lr_curves, shortened_rows
from runner.tasks.preview_images import choose_examples, image_rows

pytestmark = pytest.mark.rendered

SMALL = (*MLP, "task=preview", "preprocess=none")


def rows(*overrides, examples=8):
    """Return the rows of the picture, with the job and what it assembles."""
    asked = job(*SMALL, *overrides)
    experiment = assemble(asked.config)
    return list(image_rows(asked, experiment, examples)), experiment


def ran(folder, *overrides):
    assert start(job(*SMALL, *overrides, f"hydra.run.dir={folder}")) == 0
    return folder


def test_a_preview_leaves_a_run_folder_and_trains_nothing(tmp_path, capfd):
    folder = ran(
        tmp_path / "run", "epochs=20", "augment=[crop,hflip]", "mix=mixup", "optim.rules=[{match: head, lr: 0.1}]"
    )
    assert {path.name for path in (folder / "preview").iterdir()} == {"classes.png", "lr.png", "images.png"}
    assert not (folder / "checkpoints").exists()
    assert {"config.yaml", "overrides.yaml", "environment.json"} <= {path.name for path in folder.iterdir()}
    found = result(folder)
    assert (found["status"], found["exit"], found["steps"], found["test_reads"]) == ("done", 0, 0, 0)
    out = capfd.readouterr().out
    assert "380 steps of 64 examples, 19 steps per epoch" in out
    line = next(line.split() for line in out.splitlines() if line.startswith(" decay head"))
    assert line[2:5] == ["1", "160", "0.01"] and line[-1] == "0.0005"  # 16 x 10 weights, 0.1 * 0.1
    assert not list(folder.glob("*tfevents*"))  # else TensorBoard would list it among the trainings
    assert "tensorboard" not in out
    assert "found 1797 images in 10 classes (0 178, 1 182, 2 177, " in out
    rows = [line.split() for line in out.splitlines()]
    assert ["0", "0", "119", "29", "30"] in rows and ["all", "1200", "297", "300"] in rows


def test_a_preview_is_in_tensorboard_on_request(tmp_path, capfd):
    folder = ran(tmp_path / "run", "task.tensorboard=true")
    assert f"tensorboard --logdir {folder}" in capfd.readouterr().out
    logged = {tag for step, tag, _ in events(folder) if step == 0}
    assert logged == {f"preview/{name}" for name in ("lr", "images", "groups", "classes", "classes_table")} | {"config"}
    groups = next(raw for _, tag, raw in events(folder) if tag == "preview/groups").decode(errors="ignore")
    assert "`head.weight`" in groups and "`hidden.fc1.linear.weight`" in groups


def test_the_curve_is_the_schedules(tmp_path):
    words = ("steps=100", "scheduler.warmup=10steps", "augment=[]", "task.tensorboard=true")
    folder = ran(tmp_path / "run", *words)
    logged = {step: float(value) for step, tag, value in metrics(folder) if tag == "preview/lr/all"}
    expected = [0.1 * (s + 1) / 10 if s < 10 else 0.05 * (1 + math.cos(math.pi * (s - 10) / 90)) for s in range(100)]
    assert [logged[step] for step in range(1, 101)] == pytest.approx(expected, rel=1e-6)


def test_groups_of_one_learning_rate_are_one_curve():
    experiment = assemble(job(*SMALL, "optim.rules=[{match: head, lr: 0.5}]", "scheduler=constant").config)
    assert lr_curves(experiment, [0, 7]) == {"decay, no_decay": [0.1, 0.1], "decay head, no_decay head": [0.05, 0.05]}


def test_a_long_curve_is_drawn_from_its_first_step_to_its_last():
    assert evenly_spaced_steps(3, 10) == [0, 1, 2]
    steps = evenly_spaced_steps(100_000, 500)
    assert len(steps) == len(set(steps)) == 500 and steps[0] == 0 and steps[-1] == 99_999


def test_rows_are_the_originals_each_augmentation_all_together_and_the_mix():
    found, _ = rows("augment=[crop,hflip,cutout]", "mix=cutmix", "mix.p=1")
    names = ["original", "crop", "hflip", "cutout", "all, in order"]
    assert [row.name for row in found[:5]] == names
    assert len(found) == 7 and all(row.name.startswith("cutmix\nstep ") for row in found[5:])
    assert all(row.images.shape == (8, 1, 8, 8) and row.images.dtype == np.uint8 for row in found)
    assert [row.name for row in rows("augment=[hflip]")[0]] == ["original", "hflip"]
    assert [row.name for row in rows("augment=[]")[0]] == ["original"]


def test_each_augmentation_alone_is_as_assembled_before_fusing():
    """Two geometric augmentations, which the batches apply as one: each alone is the run's own with only this one."""
    words = ("augment=[rotate,shear]", "mix=none")
    (original, first, second, both), experiment = rows(*words)
    assert list(experiment.augmentations) == ["rotate", "shear"] and len(experiment.batches.augments) == 1
    (_, alone), _ = rows("augment=[rotate]")
    assert np.array_equal(first.images, alone.images) and not np.array_equal(first.images, second.images)
    assert not np.array_equal(first.images, original.images) and not np.array_equal(both.images, second.images)


def test_a_picture_shows_raw_pixels_whatever_preprocesses_them():
    (raw, flipped), _ = rows("augment=[hflip]")
    asked = job(*MLP, "task=preview", "preprocess=standardize", "augment=[hflip]")
    other, too = image_rows(asked, assemble(asked.config), 8)
    assert np.array_equal(raw.images, other.images) and np.array_equal(flipped.images, too.images)


def test_columns_are_the_same_examples():
    (original, flipped), experiment = rows("augment=[hflip]", "augment.hflip.p=1")
    assert np.array_equal(flipped.images, original.images[..., ::-1])
    pixels, labels = experiment.batches.split.fetch(torch.arange(1200)), experiment.batches.split.labels
    for image, name in zip(original.images, row_captions(original, experiment.classes), strict=True):
        where = (pixels == torch.from_numpy(image)).flatten(1).all(1)
        assert int(name) in labels[where].tolist()


def test_all_together_are_the_images_of_the_first_epoch():
    found, experiment = rows("augment=[crop,hflip,cutout]")
    epoch = torch.cat([images for images, _ in experiment.batches.stream(0, 19)])
    for image in found[-1].images:
        assert (epoch == torch.from_numpy(image).float()).flatten(1).all(1).any()


def test_shares_of_labels_are_those_of_the_pixels():
    found, experiment = rows("augment=[]", "mix=mixup", "mix.alpha=1")
    original = found[0].images.astype(float)
    names, *mixed_captions = [row_captions(row, experiment.classes) for row in found]
    assert len(set(names)) == 8
    soft = [dict(line.rsplit(" ", 1) for line in caption.split("\n")) for row in mixed_captions for caption in row]
    mixed = np.concatenate([row.images for row in found[1:]]).astype(float)
    for image, label in zip(mixed, soft, strict=True):
        weights = {name: float(share.rstrip("%")) / 100 for name, share in label.items()}
        assert sum(weights.values()) == pytest.approx(1, abs=0.011)
        blend = sum(weight * original[names.index(name)] for name, weight in weights.items())
        assert np.abs(image - blend).max() <= 255 * 0.006 + 1
    assert any(len(label) == 2 for label in soft)


def test_examples_are_of_different_classes_first():
    labels = torch.tensor([0, 0, 0, 1, 2, 1])
    assert choose_examples(torch.tensor([2, 1, 0, 5, 3, 4]), labels, 5).tolist() == [2, 5, 4, 1, 3]
    assert len(choose_examples(torch.arange(6), labels, 50)) == 6


def test_points_have_a_curve_and_no_images(tmp_path):
    folder = ran(tmp_path / "run", "data=synthetic", "augment=[]", "steps=1", "task.lr_axis=log")
    assert sorted(path.name for path in (folder / "preview").iterdir()) == ["classes.png", "lr.png"]


def test_labels_name_what_weighs_heaviest_first():
    classes = ("cat", "dog", "a class with a long name")
    assert label_caption([0.2, 0.0, 0.8], classes) == "a class wit… 80%\ncat 20%"
    assert label_caption([0.0, 1.0, 0.0], classes) == "dog 100%"


def test_images_are_drawn_in_their_colours():
    red = np.zeros((2, 3, 4, 4), np.uint8)
    red[:, 0] = 255
    png = image_figure([ImageRow("red", red, [None, None])], ["red"]).draw()
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert (picture == (255, 0, 0)).all(2).sum() > 2 * 90**2


def test_class_names_are_drawn_as_they_are_or_by_number(recwarn):
    assert drawable_names(["cat", "caf\\xe9", "Grüße", "猫"]) == ["cat", "caf\\xe9", "Grüße", "class 3"]
    red = np.zeros((2, 3, 4, 4), np.uint8)
    image_figure([ImageRow("red", red, [0, 1])], ["$x$", "a_b^$"]).draw()
    counts_figure({"train": [1, 2], "val": [1, 1]}, ["$x$", "猫"], noun="images").draw()
    assert not recwarn


@pytest.mark.parametrize("classes", [2, 60, 61, 1000])
def test_counts_are_drawn_for_few_and_many_classes(classes):
    counts = {"train": list(range(1, classes + 1)), "val": [1] * classes, "test": [0] * classes}
    picture = counts_figure(counts, [f"n{label:08}" for label in range(classes)], noun="images").draw()
    assert Image.open(io.BytesIO(picture)).size[0] == 990


def test_a_long_table_of_classes_ends_with_the_sums():
    def rows(count):
        table = [{"label": i, "class": str(i), "train": 1} for i in range(count)]
        return shortened_rows([*table, {"label": None, "class": "all", "train": count}])

    assert len(rows(23)) == 24 and rows(23)[22]["class"] == "22"
    assert len(rows(1000)) == 24 and [row["class"] for row in rows(1000)[-3:]] == ["21", "... 978 more", "all"]
