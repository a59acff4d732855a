"""Distillation of features: the loss in NumPy, its gradient by differences, resume, and what is refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from contracts.cases import teacher_folder
from running import job, metrics
from small_runs import build, interrupted, small, uninterrupted, write_teacher
from test_distillation_ensemble import ensemble_of
from torch import Tensor, nn

from runner import load
from runner.engine.forward import plain_forward
from runner.engine.similarity import FeatureDistiller, _similarities, _similarity_loss
from runner.engine.stage_inputs import reading_stages
from runner.errors import ConfigError, RunnerError
from runner.numerics import completed
from runner.tasks import start


def by_hand(own: np.ndarray, theirs: np.ndarray) -> float:
    """Return the loss of two features as its paper writes it, in float64."""
    matrices = []
    for features in (own, theirs):
        f = features.reshape(len(features), -1).astype(np.float64)
        g = np.zeros((len(f), len(f)))
        for i in range(len(f)):
            row = [float(np.sum(f[i] * f[j])) for j in range(len(f))]
            g[i] = np.array(row) / np.sqrt(sum(x * x for x in row))
        matrices.append(g)
    return float(np.linalg.norm(matrices[0] - matrices[1], "fro") ** 2 / len(own) ** 2)


def test_two_images_by_hand() -> None:
    # F F^T is [[1, 0], [0, 4]] of the one and [[1, 1], [1, 1]] of the other, with rows of length 1:
    # [[1, 0], [0, 1]] and all 1 / sqrt(2); the loss is 1/4 (2 (1 - 1 / sqrt(2)) ** 2 + 2 * 1/2)
    own, theirs = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.double), torch.ones(2, 1, dtype=torch.double)
    wanted = (2 * (1 - 0.5**0.5) ** 2 + 1) / 4
    assert _similarity_loss(_similarities(own), _similarities(theirs)).item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("last", [False, True])
def test_any_two_shapes_as_in_numpy(last: bool) -> None:
    torch.manual_seed(0)
    own, theirs = torch.randn(6, 4, 5, 5, dtype=torch.double), torch.randn(6, 17, dtype=torch.double)
    given = own.to(memory_format=torch.channels_last) if last else own
    found = _similarity_loss(_similarities(given), _similarities(theirs)).item()
    assert found == pytest.approx(by_hand(own.numpy(), theirs.numpy()), rel=1e-10)


def test_gradient_by_differences() -> None:
    torch.manual_seed(0)
    theirs = _similarities(torch.randn(4, 7, dtype=torch.double))
    own = torch.randn(4, 3, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: _similarity_loss(_similarities(x), theirs), own)


def test_equal_features_have_no_loss_and_no_gradient() -> None:
    x = torch.randn(5, 9, requires_grad=True)
    loss = _similarity_loss(_similarities(x), _similarities(x.detach()))
    loss.backward()
    assert loss.item() == 0 and not x.grad.any()
    # Nor do equal features of another size, or in other coordinates
    turned = torch.linalg.qr(torch.randn(9, 9, dtype=torch.double)).Q
    wide = 3 * x.detach().double() @ turned
    assert _similarity_loss(_similarities(x.detach().double()), _similarities(wide)).item() < 1e-25


def test_one_image_has_loss_0() -> None:
    x = torch.randn(1, 8, requires_grad=True)
    loss = _similarity_loss(_similarities(x), _similarities(torch.randn(1, 3)))
    loss.backward()
    assert loss.item() == 0 and not x.grad.any()


def test_an_image_without_features_is_like_none_and_its_gradient_is_bounded() -> None:
    x = torch.randn(3, 4)
    x[1] = 0
    x.requires_grad_()
    found = _similarities(x)
    assert not found[1].any() and not found[:, 1].any() and found[0, 0] > 0
    _similarity_loss(found, _similarities(torch.randn(3, 5))).backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() < 100


def test_half_precision_features_are_compared_in_float32() -> None:
    x = torch.randn(8, 64).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = _similarities(x)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, _similarities(x.float()), rtol=0, atol=0)


def test_a_layer_that_changes_its_input_in_place_does_no_harm() -> None:
    def gradients(inplace: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(inplace=inplace), nn.Linear(4, 2)))
        found: dict[str, Tensor] = {}
        keep = lambda name, _, x: found.update({name: _similarities(x)})  # noqa: E731
        with reading_stages(model, {"first": ["1"]}, keep):
            logits = model(torch.randn(5, 3))
        return list(torch.autograd.grad(logits.sum() + found["first"].square().sum(), list(model.parameters())))

    for one, other in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(one, other)


def distilling(**more: Any) -> dict[str, Any]:
    given = {"distillation": "logits", "distillation.teacher": teacher_folder(), "distillation.features": 3.0}
    return small({**given, "average": "none", **more})


def features_by_hand(model: nn.Module, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Return the inputs of a layer and the logits, without runner's own hooks."""
    inputs: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    logits = model(images)
    handle.remove()
    return inputs[0], logits


def in_torch(features: Tensor) -> Tensor:
    rows = features.reshape(len(features), -1)
    return nn.functional.normalize(rows @ rows.T, dim=1)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradients_of_a_run_equal_those_in_torch(accumulate: int) -> None:
    plain = {"norm": "none", "optim": "sgd", "optim.weight_decay": 0.0, "scheduler": "constant"}
    made = build(distilling(model="cnn", accumulate=accumulate, **plain, **{"distillation.alpha": 0.3}))
    images, labels = next(made.batches.stream(0, 1))
    loss = made.recipe.gradients(made.recipe, made.learner, images, labels)
    found = [p.grad.clone() for p in made.learner.model.parameters()]
    teacher, total = load(teacher_folder()).model, torch.zeros(())
    for x, y in zip(images.chunk(accumulate), labels.chunk(accumulate), strict=True):
        (own, z), (theirs, v) = (features_by_hand(each, x, "head") for each in (made.learner.model, teacher))
        soft = 16 * nn.functional.kl_div((z / 4).log_softmax(1), (v / 4).softmax(1), reduction="batchmean")
        features = (in_torch(own) - in_torch(theirs)).square().sum() / len(x) ** 2
        part = 0.3 * nn.functional.cross_entropy(z, y) + 0.7 * soft + 3 * features
        total = total + part * len(x) / len(images)
    torch.testing.assert_close(loss, total.detach(), rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(found, torch.autograd.grad(total, made.learner.model.parameters()), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_pairs_of_stages_are_averaged(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher", "model=cnn", "model.hidden=[8]", "model.channels=[4,8]")
    pairs = [["hidden.fc1", "block1"], ["hidden.fc2", "hidden"], ["hidden.fc1", "block2"]]
    given = distilling(**{"distillation.teacher": teacher, "distillation.stages": pairs})
    made = build(given)
    distiller: FeatureDistiller = made.recipe.gradients.__self__
    images, labels = next(made.batches.stream(0, 1))
    with torch.no_grad():
        found = distiller.losses_of(made.recipe, made.learner.model, images, labels)["train/feature_loss"].item()
    student, trained = made.learner.model, load(teacher).model
    names = [name for name, _ in trained.named_modules()]
    second = next(name for name in names if "block2" in name)
    hidden = next(name for name in names if name.split(".")[-1] in ("hidden", "fc1"))
    layers = {"block1": second, "block2": hidden, "hidden": "head"}
    own = {"hidden.fc1": "hidden.fc2", "hidden.fc2": "head"}
    with torch.no_grad():
        each = [
            by_hand(
                features_by_hand(student, images, own[a])[0].numpy(),
                features_by_hand(trained, images, layers[b])[0].numpy(),
            )
            for a, b in pairs
        ]
    assert found == pytest.approx(sum(each) / 3, rel=1e-4)
    assert any("hidden.fc1 with block1 of the teacher" in line for line in made.summary)


def test_a_student_equal_to_its_teacher_has_loss_0(tmp_path: Path) -> None:
    # BatchNorm normalizes by the batch in the student, and by all batches in the teacher
    folder = write_teacher(tmp_path / "teacher", "norm=none")
    start_there = {"model.hidden": [16], "norm": "none", "init_from": folder, "distillation.teacher": folder}
    made = build(distilling(**start_there))
    distiller: FeatureDistiller = made.recipe.gradients.__self__
    images, labels = next(made.batches.stream(0, 1))
    losses = distiller.losses_of(made.recipe, made.learner.model, images, labels)
    assert losses["train/feature_loss"].item() == 0


def test_the_losses_are_logged_and_add_up() -> None:
    given = distilling(model="cnn", accumulate=2, update="sam", mix="mixup", **{"distillation.alpha": 0.25})
    _, left = uninterrupted(given, 3)
    rows = {(step, tag): float(value) for step, tag, value in left.rows if tag.startswith("train/")}
    for step in (1, 2, 3):
        soft, hard, features = (rows[step, f"train/{name}_loss"] for name in ("soft", "hard", "feature"))
        assert features > 0
        assert rows[step, "train/loss"] == pytest.approx(0.25 * hard + 0.75 * soft + 3 * features, rel=1e-5)


def test_without_features_a_run_is_that_of_before() -> None:
    plain = distilling(**{"distillation.features": 0.0})
    made = build(plain)
    assert not isinstance(made.recipe.gradients.__self__, FeatureDistiller)
    before = small({"distillation": "logits", "distillation.teacher": teacher_folder(), "average": "none"})
    one, other = uninterrupted(plain, 2)[1], uninterrupted(before, 2)[1]
    assert one.rows == other.rows and not any(tag == "train/feature_loss" for _, tag, _ in one.rows)
    saved = {"distillation": {"name": "logits", "teacher": "t", "alpha": 0.1, "temperature": 4.0}}
    now = completed(saved)["distillation"]
    assert now["features"] == 0.0 and now["stages"] is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_resumes_bit_for_bit(precision: str, tmp_path: Path) -> None:
    given = distilling(model="cnn", norm="batch", precision=precision, steps=4, update="sam", accumulate=2)
    whole, again = uninterrupted(given, 4)[1], interrupted(given, 2, 4, tmp_path)
    assert (again.state, again.printed, again.rows) == (whole.state, whole.printed, whole.rows)


def test_hooks_are_gone_after_a_step() -> None:
    made = build(distilling())
    distiller: FeatureDistiller = made.recipe.gradients.__self__
    images, labels = next(made.batches.stream(0, 1))
    made.recipe.gradients(made.recipe, made.learner, images, labels)
    for model in (made.learner.model, distiller.teacher):
        assert not any(module._forward_pre_hooks for module in model.modules())
    assert made.recipe.forward is plain_forward


@pytest.mark.parametrize("model", ["cnn", "mlp", "patch_cnn", "resnet", "vgg", "vit", "wide_resnet", "torchvision"])
def test_any_student_gets_features(model: str) -> None:
    size = {"data": "synthetic", "data.kind": "shapes", "data.size": 32, "data.train": 64, "data.classes": 5}
    words = [f"{key}={value}" for key, value in size.items()]
    given = distilling(model=model, **size, **{"distillation.teacher": shapes_teacher(*words)})
    made = build(given)
    images, labels = next(made.batches.stream(0, 1))
    distiller: FeatureDistiller = made.recipe.gradients.__self__
    loss = distiller.losses_of(made.recipe, made.learner.model, images, labels)["train/feature_loss"]
    below = [p for name, p in made.learner.model.named_parameters() if not name.startswith("head")]
    gradients = torch.autograd.grad(loss, below, allow_unused=True)
    assert any(each is not None and each.any() for each in gradients)


@cache
def shapes_teacher(*words: str) -> str:
    """Return the folder of a run on larger images."""
    return write_teacher(Path(mkdtemp()) / "teacher", *words)


@pytest.mark.parametrize(
    ("choices", "line"),
    [
        ({"model": "linear"}, r"^distillation.features: got 3, must be 0 with model=linear, whose one stage is the"),
        (
            {"distillation.stages": [["hidden.fc3", "hidden"]]},
            r"stages\[0\]\[0\]: unknown stage of model=mlp 'hid.*fc1",
        ),
        (
            {"distillation.stages": [["hidden.fc1", "hiden"]]},
            r"\[0\]\[1\]: unknown stage of the teacher .*mean 'hidden'",
        ),
        ({"distillation.stages": [["head", "hidden"]]}, r"^distillation.stages\[0\]\[0\]: unknown stage of .* 'head'"),
        ({"compile": True}, r"^compile: got true, must be false with distillation.features > 0"),
    ],
)
def test_what_has_no_features_is_refused(choices: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line) as refusal:
        build(distilling(**choices))
    assert "\n" not in str(refusal.value)


def test_a_teacher_of_one_stage_and_an_ensemble_are_refused(tmp_path: Path) -> None:
    linear = write_teacher(tmp_path / "linear", "model=linear")
    with pytest.raises(ConfigError, match=r"must be 0 with the teacher \(linear\), whose one stage is the head"):
        build(distilling(**{"distillation.teacher": linear}))
    place = ensemble_of(tmp_path / "one", [teacher_folder()])
    with pytest.raises(ConfigError, match=r"^distillation.features: got 3, must be 0 with an ensemble as teacher"):
        build(distilling(**{"distillation.teacher": place}))


def test_frozen_stages_are_refused_and_later_ones_are_not() -> None:
    frozen = {"init_from": teacher_folder(), "model.hidden": [16], "transfer": "feature_extraction"}
    with pytest.raises(RunnerError, match=r"but transfer=feature_extraction never trains stage hidden or one below"):
        build(distilling(**frozen))
    build(distilling(**{**frozen, "transfer": "staged", "steps": 10}))


WORDS = ("distillation=logits", "model=mlp", "augment=[]", "probe=[]", "steps=3", "figures=never", "test=never")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["distillation.features=-1"], "distillation.features: got -1, must be >= 0"),
        (["distillation.features=1", "distillation.stages=[]"], "distillation.stages: got [], must name at least one"),
        (["distillation.features=1", "distillation.stages=[[a]]"], "distillation.stages[0]: got ['a'], must be [stage"),
        (["distillation.stages=[[a,b]]"], "distillation.stages: got [['a', 'b']], must be null with features=0"),
    ],
)
def test_the_command_line_is_refused(words: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        job(*WORDS, f"distillation.teacher={teacher_folder()}", *words)
    assert str(refusal.value).startswith(line)


def test_features_alone_on_the_command_line(tmp_path: Path) -> None:
    words = ("distillation.alpha=1", "distillation.features=30", "distillation.stages=[[hidden.fc1,hidden]]")
    made = job(*WORDS, *words, f"distillation.teacher={teacher_folder()}", f"hydra.run.dir={tmp_path / 'run'}")
    assert start(made) == 0
    assert any("train/feature_loss" in str(row) for row in metrics(tmp_path / "run"))
    other = job(*WORDS, *words[:2], f"distillation.teacher={teacher_folder()}")
    assert other.hash8 != made.hash8


def test_features_come_closer_to_those_of_the_teacher(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher", "steps=60")
    found = []
    for weight in (1e-9, 1000.0):
        given = distilling(**{"distillation.teacher": teacher, "distillation.features": weight, "data.batch_size": 64})
        _, left = uninterrupted({**given, "optim.lr": 0.01}, 30)
        found.append([float(value) for _, tag, value in left.rows if tag == "train/feature_loss"])
    assert found[0][0] == found[1][0]
    assert found[1][-1] < 0.5 * min(found[1][0], found[0][-1])
