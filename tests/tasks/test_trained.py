"""`runner.load`: the model of a run gives the predictions of the run itself, for images in any form."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from image_folders import write_mixed_images, write_table
from PIL import Image
from running import job, killed_in_step, run_in_child
from small_runs import BASE, command_line_words, small
from torch import nn

import runner
from runner.__main__ import main
from runner.assemble import assemble
from runner.engine.parts import mode
from runner.engine.saving import checkpoint
from runner.errors import CheckpointError, ConfigError, DataError
from runner.registry import names
from runner.tasks import start

MODELS = [name for name in names("model") if name != "timm"]
CASES = [
    *({"model": name, **({"data": "gaussian"} if name == "vgg" else {})} for name in MODELS),
    *({"preprocess": name} for name in names("preprocess")),
    {"predict": "tta"},
    {"predict": "ten_crop"},
    {"predict": "mc_dropout", "regularizer": ["dropout"]},
    {"regularizer": ["dropconnect", "stochastic_depth"], "model": "resnet"},
    {"regularizer": ["fractional_pooling"], "model": "cnn"},
    {"average": "ema", "precision": "pure_bf16"},
    {"average": "none", "precision": "pure_bf16"},
    {"precision": "bf16"},
    {"average": "swa", "model": "resnet"},
    {"init": "whiten", "model": "cnn"},
    {"init": "lsuv", "init.head": "prior"},
    {"loss": "hinge"},
    {"loss": "bce"},
    {"loss": "cross_entropy", "loss.class_weights": "balanced"},
]


def train(choices, folder: Path, *more: str) -> None:
    """Train two steps into a folder."""
    words = command_line_words({**small({"steps": 2, "test": "never", "figures": "never", **choices})})
    assert start(job(*words, *more, f"hydra.run.dir={folder}")) == 0


def own_predictions(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the test images, and the predictions of the run assembled as for training, with its selected weights."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    experiment = assemble(config, fit=False)
    weights = json.loads((folder / "result.json").read_text())["weights"]
    experiment.learner.load_weights(checkpoint.read_weights(folder / weights))
    model, recipe, found = experiment.learner.average.module, experiment.recipe, []
    batches = experiment.test()
    recipe.reseed(-1)
    with torch.no_grad(), mode(model, training=False):
        for images, _ in batches:
            with recipe.autocast():
                found.append(recipe.predict(model, images))
    outputs = [each.logits.float() if each.log_p is None else each.log_p.float().exp() for each in found]
    return batches.split.fetch(torch.arange(len(batches.split.labels))), torch.cat(outputs)


@pytest.mark.parametrize("choices", CASES, ids=lambda choices: ",".join(f"{k}={v}" for k, v in choices.items()))
def test_predictions_are_those_of_the_run(choices, tmp_path):
    train(choices, tmp_path / "run")
    images, expected = own_predictions(tmp_path / "run")
    trained = runner.load(tmp_path / "run", device="cpu")
    probabilities, classes = trained.predict(images)
    assert torch.equal(probabilities, expected)
    assert classes == [trained.classes[place] for place in expected.argmax(1).tolist()]
    assert trained.has_probabilities == (choices.get("loss") != "hinge")
    assert not trained.model.training


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a small run on digits."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train({}, folder)
    return folder


def test_the_parts_work_in_plain_pytorch(run):
    trained = runner.load(run)
    images, expected = own_predictions(run)
    assert isinstance(trained.model, nn.Module) and isinstance(trained.preprocess, nn.Module)
    with torch.no_grad():
        logits = trained.model(trained.preprocess(images.to(trained.device)))
    assert torch.allclose(logits.softmax(1).cpu(), expected, atol=1e-6)
    # As torchvision's ToTensor gives them
    assert torch.equal(trained.preprocess(images.float() / 255), trained.preprocess(images))
    with pytest.raises(DataError, match=r"must be whole in 0..255, or floats in 0..1"):
        trained.preprocess(images.float() / 100)
    assert trained.classes == tuple("0123456789") and trained.shape == (1, 8, 8)
    assert trained.config["model"]["hidden"] == [16, 16]
    assert set(trained.scores) == {"val", "train_eval"}
    assert all(parameter.requires_grad for parameter in trained.model.parameters())


def test_images_in_every_form_are_the_same(run, tmp_path):
    trained = runner.load(run, device="cpu")
    images, expected = own_predictions(run)
    images, expected = images[:4], expected[:4]
    gray = images.numpy()[:, 0]
    for number, pixels in enumerate(gray):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    pictures = [Image.open(tmp_path / f"{number}.png") for number in range(4)]
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    forms = [
        *(
            images,
            images.numpy(),
            gray,
            gray[..., None],
            images.float() / 255,
            images.bfloat16(),
            gray.astype(np.int64),
        ),
        *(list(images), list(gray), pictures, paths, list(map(str, paths)), tmp_path, str(tmp_path / "*.png")),
    ]
    for form in forms:
        assert torch.equal(trained.predict(form).probabilities, expected)
    for one in (gray[0], images[0], pictures[0], paths[0], str(paths[0])):
        assert torch.allclose(trained.predict(one).probabilities, expected[:1], atol=1e-6)


def test_arrays_of_another_size_are_resized_as_files_are(tmp_path):
    images = write_mixed_images(tmp_path / "images", train=6, val=2, test=2)
    words = ("data.size=[12,16]", "data.fit=pad", "data.workers=0", "data.cache=null", f"data.root={images}")
    train({"data": "imagefolder", "model": "cnn"}, tmp_path / "run", *words)
    trained = runner.load(tmp_path / "run", device="cpu")
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "gray.png")
    assert torch.equal(trained.predict(pixels)[0], trained.predict(tmp_path / "one.png")[0])
    assert torch.equal(trained.predict(pixels[..., 0])[0], trained.predict(tmp_path / "gray.png")[0])
    chw = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    assert torch.equal(trained.preprocess(chw), trained.preprocess(trained.reader.array(pixels)))


def test_a_model_needs_no_data_and_no_right_to_write(tmp_path):
    images = write_mixed_images(tmp_path / "images", train=6, val=2, test=2)
    words = ("data.size=[12,16]", "data.workers=0", "data.cache=null", f"data.root={images}")
    train({"data": "imagefolder", "model": "cnn"}, tmp_path / "run", *words)
    photo = shutil.copy(images / "test/bees/1.jpg", tmp_path / "photo.jpg")
    before = runner.load(tmp_path / "run").predict(photo)
    shutil.rmtree(images)
    for path in sorted((tmp_path / "run").rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (tmp_path / "run").chmod(0o555)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    again = runner.load(tmp_path / "run").predict(photo)
    assert torch.equal(before.probabilities, again.probabilities) and before.classes == again.classes
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == files
    for path in (tmp_path / "run", *(tmp_path / "run").rglob("*")):
        path.chmod(0o755)


def test_a_run_that_goes_on_gives_its_newest_checkpoint(tmp_path):
    words = command_line_words(small({"steps": 6, "checkpoint_every": "1steps"}))
    work = killed_in_step(4, lambda: start(job(*words, f"hydra.run.dir={tmp_path / 'run'}")))
    assert run_in_child(work) == -9
    trained = runner.load(tmp_path / "run")
    assert trained.weights.name == "00000003.weights.safetensors"
    assert trained.predict(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).probabilities.shape == (2, 10)


def test_random_numbers_and_threads_of_the_caller_stay(run):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        trained = runner.load(run, overrides=["predict=tta", "predict.views=[flip]"])
        trained.predict(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.rand(3), expected)


def test_another_prediction_method_may_be_chosen(run):
    images, _ = own_predictions(run)
    plain, flipped = (
        runner.load(run, device="cpu", overrides=words).predict(images).probabilities
        for words in ([], ["predict=tta", "predict.views=[flip]"])
    )
    mirrored = runner.load(run, device="cpu").predict(images.flip(-1)).probabilities
    assert torch.allclose(flipped, (plain + mirrored) / 2, atol=1e-6)


def test_features_are_predicted_from_arrays(tmp_path):
    write_table(tmp_path / "points.csv")
    words = (f"data.root={tmp_path / 'points.csv'}", "data.label=kind")
    train({"data": "table", "optim.lr": 0.1, "steps": 40}, tmp_path / "run", *words)
    trained = runner.load(tmp_path / "run", device="cpu")
    table = np.random.default_rng(0).normal(size=(60, 3))
    probabilities, classes = trained.predict(table)
    right = np.mean([name == ("high" if row[0] > 0 else "low") for name, row in zip(classes, table, strict=True)])
    assert right > 0.85
    assert torch.allclose(trained.predict(table[0]).probabilities, probabilities[:1], atol=1e-6)
    with pytest.raises(DataError, match=r"features: got shape \(60, 2\); expected \(N, 3\)"):
        trained.predict(table[:, :2])


def test_a_run_of_an_older_version_reads_its_data_to_know_their_shape(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    environment = json.loads((folder / "environment.json").read_text())
    del environment["data"]["shape"], environment["data"]["reading"]
    (folder / "environment.json").write_text(json.dumps(environment))
    images, expected = own_predictions(run)
    assert torch.equal(runner.load(folder, device="cpu").predict(images).probabilities, expected)


PLUGIN = """
from torch import nn
from runner.registry import register

@register("model")
def mine_of_test_trained(shape, num_classes):
    \"\"\"Return a linear model.\"\"\"
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], num_classes))
"""


def test_plugins_are_given_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_of_test.py").write_text(PLUGIN)
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine_of_test_trained.yaml").write_text("name: mine_of_test_trained\n")
    words = command_line_words({**BASE, "model": "mine_of_test_trained", "steps": 2, "test": "never"})
    conf = ["--config-dir", str(tmp_path / "conf"), "plugins=[mine_of_test]"]
    assert main([*conf, *words, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    for plugin in ("mine_of_test", sys.modules["mine_of_test"]):
        trained = runner.result(tmp_path / "run").load(plugins=[plugin], device="cpu")
        assert trained.predict(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).probabilities.shape == (1, 10)
    config = (tmp_path / "run/config.yaml").read_text()
    (tmp_path / "run/config.yaml").write_text(config.replace("mine_of_test_trained", "not_imported"))
    with pytest.raises(ConfigError) as error:
        runner.load(tmp_path / "run")
    assert str(error.value) == (
        "run: this run has model=not_imported of plugins=[mine_of_test], which must be given again"
    )
    with pytest.raises(ConfigError, match=r"model: unknown option 'not_imported'"):
        runner.load(tmp_path / "run", plugins=["mine_of_test"])


def test_wrong_folders_and_words_are_one_line(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="must be a run folder"):
        runner.load(tmp_path / "empty")
    with pytest.raises(ConfigError, match="must be a run folder"):
        runner.load(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"overrides: got 'optim.lr=1'; expected only predict=... or resume_numeric"):
        runner.load(run, overrides=["optim.lr=1"])
    with pytest.raises(ConfigError, match=r"runner.load: overrides must be a list of strings"):
        runner.load(run, overrides="predict=tta")
    (tmp_path / "empty" / "sweep.yaml").touch()
    with pytest.raises(ConfigError, match=r"must be a run folder \(name one of the runs in it\)"):
        runner.load(tmp_path / "empty")
    with pytest.raises(ConfigError, match="device"):
        runner.load(run, device="gpu")
    folder = shutil.copytree(run, tmp_path / "run")
    next((folder / "checkpoints").glob("*.weights.safetensors")).write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        runner.load(folder)


def test_wrong_images_are_one_line(run, tmp_path):
    trained = runner.load(run, device="cpu")
    for images, part in (
        (tmp_path / "none.png", "expected an image file"),
        (np.zeros((2, 2, 2, 2, 2)), "expected"),
        (None, "images: got NoneType; expected files, Pillow images, or arrays"),
        (3, "images: got int"),
        ((image for image in ()), "images: got generator"),
        ([[1, 2], [3]], "images: got list"),
        (np.full((1, 1, 8, 8), -1), "pixels are in"),
        (np.full((1, 1, 8, 8), np.nan), "NaN"),
    ):
        with pytest.raises(DataError, match=part) as error:
            trained.predict(images)
        assert "\n" not in str(error.value)
    (tmp_path / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"half.png: cannot be read as an image"):
        trained.predict(tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_predictions(run):
    images, expected = own_predictions(run)
    trained = runner.load(run, device="cuda")
    assert trained.device.type == "cuda"
    assert torch.allclose(trained.predict(images).probabilities, expected, atol=0.02)
