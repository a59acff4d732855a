"""Random options of all groups: each config trains and resumes bit for bit, or is rejected with a correct error."""

from __future__ import annotations

import random
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from running import job
from small_runs import (
    MANY,
    ONE,
    build,
    command_line_words,
    config,
    interrupted,
    results_after,
    small,
    write_color_images,
    write_teacher,
)
from test_incompatible import is_listed

import runner.components  # noqa: F401
from runner.engine.weights import classifiers
from runner.errors import RunnerError
from runner.registry import names

COUNT, SLICE, FAST, STEPS = 400, 40, 10, 4
NEED_PACKAGES = {"timm"}
LARGE = ("vgg", "torchvision")  # models that halve images more often than digits allow
SLOW = ("pca", "pca_whiten", "zca")  # on the 3,072 numbers of a colored picture
HIDDEN = ("cnn", "vgg")  # convolutional models that may do without hidden layers
PLAIN = ("sgd", "momentum", "nesterov")  # whose default rates are for models with norms
MLP_TEACHER = ["model=mlp", "model.hidden=[8]"]
PLACES = {
    "linear": ["head"],
    "mlp": ["head", "fc"],
    "vit": ["head", "fc"],
    "cnn": ["head", "fc", "block"],
    "vgg": ["head", "fc", "block"],
    "torchvision": ["head"],
}  # for dropout; the others have head and block
DROPOUTS = {"dropout", "dropout_vanilla", "alpha_dropout"}
DROPPING = (*sorted(DROPOUTS), "dropconnect")


def draw_choices(number: int, color: str) -> dict[str, Any]:
    """Return choices over all groups, a function of the number; `color` is a folder of color pictures.

    Images, places and a few knobs are drawn from those that the other parts can use. All else is left to chance.
    """
    rng = random.Random(f"pairs {number}")
    made: dict[str, Any] = {
        kind: rng.choice([name for name in names(kind) if name not in NEED_PACKAGES])
        for kind in ONE
        if kind not in ("data", "resize")
    }
    made |= {kind: rng.sample(names(kind), rng.randint(0, 3 if kind == "augment" else 2)) for kind in MANY}
    made |= model_shape(made, rng)
    made |= image_choice(made, rng, color)
    if made["predict"] == "swag":
        made["predict.samples"] = 2
        made["average"] = "swag" if rng.random() < 0.9 else made["average"]
    if made["average"] == "swag":
        made |= {"average.start": "0%", "average.every": "1step", "average.rank": rng.choice([2, 4])}
    if made["average"] == "snapshots" and rng.random() < 0.9:
        made["scheduler"] = rng.choice(["cosine_restarts", "triangular", "onecycle"])
    if made["average"] == "schedulefree" and rng.random() < 0.9:
        made["optim"] = rng.choice(["schedulefree", "schedulefree_sgd"])
    if made["predict"] == "mc_dropout":
        made["predict.passes"] = 2
        if rng.random() < 0.8 and not set(made["regularizer"]) & set(DROPPING):
            made["regularizer"] = [rng.choice(DROPPING), *made["regularizer"][:1]]
    for name in sorted(DROPOUTS & set(made["regularizer"])):
        places = ["head", "block"] if made.get("model.hidden") == [] else PLACES.get(made["model"], ["head", "block"])
        made[f"regularizer.{name}.where"] = rng.sample(places, rng.randint(1, len(places)))
    if made["distillation"] == "logits" and rng.random() < 0.9:
        own = [] if rng.random() < 0.1 else [f"preprocess={made['preprocess']}"]
        # Of its own generator, so that the other draws stay
        features = random.Random(f"features {number}")
        made["distillation.features"] = features.choice([0.0, 3.0])
        # A linear teacher has none
        kind = ["model=linear"] if features.random() < 0.1 or not made["distillation.features"] else MLP_TEACHER
        made["distillation.teacher"] = teacher_of(*teacher_words(made), *kind, *own)
        made["loss"] = rng.choice(["cross_entropy", "focal", "poly"])
    if made["optim"] in PLAIN:
        made["optim.lr"] = 1e-3
    made |= {"precision": rng.choice(["fp32", "bf16"]), "accumulate": rng.choice([1, 2]), "data.batch_size": 8}
    made |= {"clip": rng.choice([None, 1.0]), "seed": rng.randrange(1000), "steps": STEPS, "validate_every": "2steps"}
    made |= {"mix.until": "2steps"} if made["mix"] != "none" and rng.random() < 0.3 else {}
    made |= {"clip_by": rng.choice(["norm", "value", "agc"])} if made["clip"] else {}
    if made["model"] == "linear" or rng.random() < 0.7:
        made["transfer"] = "none"
    made["resize"] = "progressive" if random.Random(f"resize {number}").random() < 0.2 else "none"
    return small(made if made["transfer"] == "none" else made | start_weights(small({**made, "transfer": "none"})))


def start_weights(choices: dict[str, Any]) -> dict[str, Any]:
    """Return a file of weights for the model of these choices, all but its classifier; none if they are rejected."""
    try:
        model = build(choices).learner.model
    except RunnerError:
        return {"transfer": "none"}
    path = Path(mkdtemp()) / "weights.pt"
    heads = tuple(f"{head.path}." for head in classifiers(model))
    torch.save({name: t for name, t in model.state_dict().items() if not name.startswith(heads)}, path)
    swap = {"model.swap": ["activation", "norm"]} if choices["model"] == "torchvision" else {}
    return {"init_from": str(path), "transfer.normalization": "data", **swap}


def teacher_words(made: dict[str, Any]) -> list[str]:
    """Return the words of a command for a teacher on the data of some choices."""
    words = command_line_words({key: value for key, value in made.items() if key.partition(".")[0] == "data"})
    return [*words, "data.batch_size=8", "test=never"]


@cache
def teacher_of(*words: str) -> str:
    """Return the folder of a teacher, trained once for each data set."""
    return write_teacher(Path(mkdtemp()) / "teacher", *words)


def model_shape(made: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return knobs of the model's shape."""
    if made["model"] in HIDDEN and (made["norm"] == "instance" or rng.random() < 0.5):
        return {"model.hidden": []}
    if made["model"] == "resnet":
        stem = {"model.stem": "imagenet", "model.depth": 18} if "fractional_pooling" in made["regularizer"] else {}
        return {"model.order": rng.choice(["post", "pre"]), **stem}
    return {}


def image_choice(made: dict[str, Any], rng: random.Random, color: str) -> dict[str, Any]:
    """Return the choice of images that are large enough for the model, and colored where an augmentation asks."""
    large = made["model"] in LARGE or "model.stem" in made
    side = 64 if large and made["norm"] == "instance" else 32 if large else 16
    if {"pca_color", "grayscale"} & set(made["augment"]) or rng.random() < 0.1:
        return {"data": "imagefolder", "data.root": color, "data.size": [side, side], **quick_preprocess(made, side)}
    if large or made["norm"] == "instance" or rng.random() < 0.2:
        pictures = {"data": "synthetic", "data.kind": "shapes", "data.size": side, "data.classes": 5, "data.train": 64}
        return {**pictures, **(quick_preprocess(made, side) if side > 32 else {})}
    return {"data": "digits"}


def quick_preprocess(made: dict[str, Any], side: int) -> dict[str, Any]:
    """Return another preprocessing where the one drawn would decompose a matrix of thousands of rows."""
    return {"preprocess": "standardize"} if made["preprocess"] in SLOW and side > 16 else {}


@pytest.fixture(scope="session")
def color(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder of 60 small color pictures in three classes."""
    return write_color_images(tmp_path_factory.mktemp("color"))


def outcome(choices: dict[str, Any], folder: Path) -> str:
    """Return how a config ends: `works`, `diverged`, or at assembly with a line; anything else is a failure.

    It works if a run that is saved half way and taken up in a fresh assembly equals the uninterrupted one bit for bit.
    """
    try:
        experiment = build(choices)
    except RunnerError as error:
        assert error.exit_code == 2, error
        return str(error)
    whole = results_after(experiment, STEPS)
    again = interrupted(choices, STEPS // 2, STEPS, folder)
    assert again.state == whole.state
    assert again.printed == whole.printed
    assert again.rows == whole.rows
    return "works"


def refusal(choices: dict[str, Any]) -> str:
    """Return the error line of assembly for a config, or nothing."""
    try:
        build(choices)
    except RunnerError as error:
        return str(error)
    return ""


def check_config(number: int, color: str, folder: Path) -> None:
    """Check that one config trains and resumes bit for bit, or is rejected with a listed error."""
    choices = draw_choices(number, color)
    ending = outcome(choices, folder)
    assert ending == "works" or is_listed(ending), f"docs/incompatible.md does not explain: {ending}"
    assert "\n" not in ending


@pytest.mark.parametrize(
    "number",
    [*range(FAST), *(pytest.param(n, marks=[pytest.mark.slow, pytest.mark.ci_slice]) for n in range(FAST, SLICE))],
)
def test_drawn_configs_work_or_are_refused(number: int, color: str, tmp_path: Path) -> None:
    check_config(number, color, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(SLICE, COUNT))
def test_more_drawn_configs_work_or_are_refused(number: int, color: str, tmp_path: Path) -> None:
    check_config(number, color, tmp_path)


@pytest.mark.slow
def test_four_in_ten_drawn_configs_train(color: str) -> None:
    lines = [refusal(draw_choices(number, color)) for number in range(COUNT)]
    assert 0.4 * COUNT <= lines.count("") < COUNT


def test_the_draws_reach_every_option(color: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The draws are the same without training teachers and making weights
    monkeypatch.setattr(sys.modules[__name__], "teacher_of", lambda *words: "a teacher")
    monkeypatch.setattr(sys.modules[__name__], "start_weights", lambda made: {})
    drawn = [draw_choices(number, color) for number in range(COUNT)]
    for kind in (*ONE, *MANY):
        seen = {name for each in drawn for name in ([each[kind]] if kind in ONE else each[kind])}
        assert seen >= set(names(kind)) - NEED_PACKAGES or kind == "data"


@pytest.mark.parametrize("number", [0, 3, 6])
def test_a_drawn_config_is_what_the_front_door_makes(number: int, color: str) -> None:
    choices = draw_choices(number, color)
    made = job(*command_line_words(choices)).config
    # Only the front door finds what identifies weights
    found = {key: made["distillation"][key] for key in ("teacher_sha256",) if key in made["distillation"]}
    by_hand = {"init_sha256": made["init_sha256"], **{f"distillation.{key}": value for key, value in found.items()}}
    assert config({**choices, "test": "end", **by_hand}) == made
