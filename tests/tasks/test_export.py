"""task=export: a file predicts what the run predicts, for any number of images, and says what it is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from image_folders import write_table
from running import command, job
from safetensors.torch import load_file
from small_runs import command_line_words, small
from torch import nn

import runner
from runner.__main__ import main
from runner.registry import names
from runner.tasks import start
from runner.tasks.trained import graphs

# Each model with data of a size that it takes; others are of torchvision and timm
MODELS = {
    name: {"model": name, "data": "synthetic", "data.kind": "shapes", "data.size": 32}
    for name in names("model")
    if name not in ("timm", "torchvision")
}
ARCHITECTURES = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "efficientnet_b0")
TORCHVISION = {arch: {**MODELS["mlp"], "model": "torchvision", "model.arch": arch} for arch in ARCHITECTURES}
TIMM = {
    arch: {**MODELS["mlp"], "model": "timm", "model.arch": arch} for arch in ("mobilenetv3_small_050", "convnext_atto")
}
PARTS = {
    **{f"preprocess={name}": {"preprocess": name} for name in names("preprocess")},
    **{f"norm={name}": {"model": "resnet", "norm": name} for name in names("norm")},
    "tta": {"predict": "tta"},
    "ten_crop": {"predict": "ten_crop"},
    "bce": {"loss": "bce"},
    "hinge": {"loss": "hinge"},
    "pure_bf16": {"precision": "pure_bf16"},
    "dropconnect": {"regularizer": ["dropconnect"]},
    "table": {"data": "table"},
}
EXPORTED = {**MODELS, **TORCHVISION, **TIMM, **PARTS}
SUFFIX = {"torch_export": ".pt2", "onnx": ".onnx", "safetensors": ".safetensors"}


def train(choices, folder: Path, *more: str) -> None:
    """Train two steps into a folder."""
    words = command_line_words(small({"steps": 2, "test": "never", "figures": "never", **choices}))
    assert start(job(*words, *more, f"hydra.run.dir={folder}")) == 0


def train_named(name: str, place: Path) -> None:
    """Train a run that shows one model or part into a folder of `place`."""
    choices = EXPORTED[name]
    more = ()
    if choices.get("data") == "table":
        write_table(place / "points.csv")
        more = (f"data.root={place / 'points.csv'}", "data.label=kind")
    train(choices, place / "run", *more)


def exported(capfd, folder: Path, format_: str, *words: str, code: int = 0) -> str:
    """Export a run beside its folder and return what is printed."""
    out = f"task.out={folder.with_name('model')}{SUFFIX[format_]}"
    capfd.readouterr()
    assert main(["task=export", f"run={folder}", f"task.format={format_}", out, *words]) == code, capfd.readouterr().err
    printed = capfd.readouterr()
    return printed.out if code == 0 else printed.err


def onnx_graph(path: Path):
    """Return what runs an ONNX file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def check_file(folder: Path, format_: str) -> None:
    """Compare the file beside a run with `runner.load` on batches of two sizes; a run in bfloat16 rounds its own."""
    path = folder.with_name("model").with_suffix(SUFFIX[format_])
    graph = onnx_graph(path) if format_ == "onnx" else torch.export.load(path).module()
    trained = runner.load(folder, device="cpu")
    tolerance = 1e-2 if trained.config["precision"] == "pure_bf16" else 1e-4
    for count in (2, 7):
        images = some_images(trained.shape, count)
        found, expected = graph(images), trained.predict(images).probabilities
        assert found.shape == (count, len(trained.classes)) and float(expected.std()) > 0
        assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance)


def some_images(shape, count: int) -> torch.Tensor:
    """Return random examples."""
    source = torch.Generator().manual_seed(count)
    if shape[1:] == (1, 1):
        return torch.randn(count, *shape, generator=source)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=source)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a small run on digits."""
    folder = tmp_path_factory.mktemp("export") / "run"
    train({"model": "cnn", "average": "ema"}, folder)
    return folder


@pytest.fixture
def own(run, tmp_path):
    """Return a copy of the run in a folder of the test."""
    return shutil.copytree(run, tmp_path / "run")


def test_a_graph_of_torch_predicts_as_the_run_without_runner(capfd, own):
    printed = exported(capfd, own, "torch_export")
    assert "max difference 0 from the run's own probabilities" in printed
    trained = runner.load(own, device="cpu")
    graph = torch.export.load(own.with_name("model.pt2")).module()
    for count in (1, 2, 5, 300):
        images = some_images(trained.shape, count)
        assert torch.allclose(graph(images), trained.predict(images).probabilities, atol=1e-5)


def test_safetensors_has_the_tensors_of_the_checkpoint(capfd, own):
    exported(capfd, own, "safetensors")
    found = load_file(own.with_name("model.safetensors"))
    expected = load_file(next((own / "checkpoints").glob("*2.weights.safetensors")))
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in expected.items()}
    assert all(torch.equal(found[name], expected[name]) for name in found)
    trained = runner.load(own, device="cpu")
    state = {name.removeprefix("model."): tensor for name, tensor in found.items() if name.startswith("model.")}
    trained.model.load_state_dict(state)


def test_the_model_card_says_what_the_file_is(capfd, own):
    exported(capfd, own, "torch_export")
    card = json.loads(own.with_name("model.json").read_text())
    environment = json.loads((own / "environment.json").read_text())
    assert card["classes"] == list("0123456789")
    assert card["scores"] == json.loads((own / "result.json").read_text())["scores"]
    assert card["data"]["fingerprint"] == environment["data"]["fingerprint"]
    assert card["input"]["shape"] == ["batch", 1, 8, 8] and card["input"]["dtype"] == "uint8"
    assert card["output"] == {"name": "probabilities", "dtype": "float32", "shape": ["batch", 10]}
    assert card["sha256"] == hashlib.sha256(own.with_name("model.pt2").read_bytes()).hexdigest()
    assert card["config"]["model"]["name"] == "cnn" and card["max_difference"] <= card["tolerance"]


def test_a_file_is_not_replaced_unless_asked(capfd, own):
    exported(capfd, own, "torch_export")
    before = own.with_name("model.pt2").read_bytes()
    assert "exists; choose another name, or task.overwrite=true" in exported(capfd, own, "torch_export", code=2)
    own.with_name("model.pt2").unlink()
    assert "exists; choose another name" in exported(capfd, own, "torch_export", code=2)
    exported(capfd, own, "torch_export", "task.overwrite=true")
    assert len(own.with_name("model.pt2").read_bytes()) == len(before)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["task.out=null"], "task.out: got null; expected a file to write: task.out=model.pt2"),
        (["task.out=model.onnx"], "expected a name that ends with .pt2"),
        (["predict=mc_dropout"], "predict=mc_dropout: "),
        (["optim.lr=1"], "optim.lr: cannot be changed"),
    ],
)
def test_a_wrong_word_is_one_line_and_leaves_nothing(capfd, own, monkeypatch, words, part):
    monkeypatch.chdir(own.parent)
    given = ["task=export", "run=run", "task.out=model.pt2", *words]
    given = [word for word in given if word != "task.out=model.pt2" or not any(w.startswith("task.out") for w in words)]
    capfd.readouterr()
    assert main(given) == 2
    line = capfd.readouterr().err
    assert line.count("\n") == 1 and part in line
    assert os.listdir() == ["run"]  # noqa: PTH208


def test_random_predictions_are_refused(capfd, tmp_path):
    train({"regularizer": ["dropout"]}, tmp_path / "run", "regularizer.dropout.p=0.5")
    line = exported(capfd, tmp_path / "run", "torch_export", "predict=mc_dropout", code=2)
    assert (
        line
        == "runner: error: predict=mc_dropout: draws random numbers, which no file keeps; to export: predict=plain\n"
    )


def test_a_file_that_differs_from_the_run_is_refused(capfd, own, monkeypatch):
    make = graphs._safetensors

    def wrong(predictor, example):
        content, run = make(predictor, example)
        return content, lambda images: run(images) * 1.01

    monkeypatch.setattr(graphs, "_safetensors", wrong)
    line = exported(capfd, own, "safetensors", code=2)
    assert line.count("\n") == 1 and "max difference" in line and "task.tolerance" in line
    assert sorted(path.name for path in own.parent.iterdir()) == ["run"]
    exported(capfd, own, "safetensors", "task.tolerance=0.1")


def test_what_cannot_be_exported_says_why_in_one_line(capfd, own, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no such operator\nmore lines")

    monkeypatch.setattr(torch.export, "export", refuse)
    line = exported(capfd, own, "torch_export", code=2)
    assert line == "runner: error: task.format: this run cannot be exported as torch_export: no such operator\n"
    assert sorted(path.name for path in own.parent.iterdir()) == ["run"]


def test_a_model_with_a_fixed_number_of_images_is_refused_by_its_reason(capfd, own, monkeypatch):
    forward = nn.Flatten.forward

    def fixed(self, x):
        return forward(self, x).reshape(len(x), -1)

    monkeypatch.setattr(nn.Flatten, "forward", fixed)
    line = exported(capfd, own, "torch_export", code=2)
    assert line.count("\n") == 1 and "use x.shape[0], not len(x)" in line


def test_missing_packages_are_named(capfd, own, monkeypatch):
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda name: None)
    line = exported(capfd, own, "onnx", code=2)
    assert "which needs onnx, onnxscript, onnxruntime; install with: pip install 'runner[export]'" in line


@pytest.mark.extra
def test_an_onnx_file_predicts_as_the_run(capfd, own):
    pytest.importorskip("onnxruntime")
    exported(capfd, own, "onnx")
    check_file(own, "onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_every_model_and_part_can_be_exported(capfd, tmp_path, name):
    train_named(name, tmp_path)
    exported(capfd, tmp_path / "run", "torch_export")
    check_file(tmp_path / "run", "torch_export")


@pytest.mark.slow
@pytest.mark.extra
@pytest.mark.parametrize("name", EXPORTED)
def test_every_model_and_part_can_be_exported_as_onnx(capfd, tmp_path, name):
    pytest.importorskip("onnxruntime")
    train_named(name, tmp_path)
    exported(capfd, tmp_path / "run", "onnx")
    check_file(tmp_path / "run", "onnx")


@pytest.mark.slow
def test_the_graph_loads_in_a_process_without_runner(capfd, own, tmp_path):
    import subprocess
    import sys

    exported(capfd, own, "torch_export")
    code = (
        "import torch, sys; graph = torch.export.load('model.pt2').module(); "
        "print(graph(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)).shape, 'runner' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout == "torch.Size([3, 10]) False\n"
    assert command("task=export", "run=run", "task.out=b.pt2", cwd=tmp_path).returncode == 0
