"""Distillation: the loss and its gradients by hand and in torch, what the teacher sees, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.cases import teacher_folder
from running import command, job, killed_in_step, metrics, result, run_in_child
from small_runs import build, small, uninterrupted, write_teacher
from torch import Tensor, nn
from torch.nn import functional as F

from runner import load
from runner.components.distillation import logits as distill
from runner.engine.distillation import Distillation, Distiller
from runner.engine.saving import checkpoint
from runner.engine.weights_file import sha256_of_tensors
from runner.errors import ConfigError, RunnerError
from runner.tasks import start


def distillation(temperature: float, alpha: float = 0.1) -> Distillation:
    return distill(teacher=None, teacher_sha256=None, temperature=temperature, alpha=alpha, features=0.0, stages=None)


def test_two_classes_by_hand() -> None:
    # T = 2: the teacher's logits (2 ln 3, 0) give p = (3/4, 1/4), the model's (0, 0) give q = (1/2, 1/2)
    z, v = torch.zeros(1, 2, dtype=torch.double), torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.double)
    wanted = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert distillation(2.0).soft(z, v).item() == pytest.approx(wanted, rel=1e-12)
    assert distillation(2.0).soft(v, v).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_loss_is_torchs_divergence_and_its_gradient_the_closed_form(temperature: float) -> None:
    torch.manual_seed(0)
    z, v = torch.randn(7, 5, dtype=torch.double, requires_grad=True), 3 * torch.randn(7, 5, dtype=torch.double)
    loss = distillation(temperature).soft(z, v)
    divergence = nn.KLDivLoss(reduction="batchmean")(F.log_softmax(z / temperature, 1), F.softmax(v / temperature, 1))
    torch.testing.assert_close(loss, temperature**2 * divergence)
    # dL/dz = T (q - p) / B (Hinton et al. 2015, equation 2, times T ** 2)
    (gradient,) = torch.autograd.grad(loss, z)
    q, p = (F.softmax(each.detach() / temperature, 1) for each in (z, v))
    torch.testing.assert_close(gradient, temperature * (q - p) / len(z))


def test_at_high_temperature_it_matches_centered_logits() -> None:
    """For large T the gradient is that of half the squared distance of centered logits over K (equation 4)."""
    torch.manual_seed(1)
    z, v = torch.randn(3, 4, dtype=torch.double, requires_grad=True), torch.randn(3, 4, dtype=torch.double)
    (gradient,) = torch.autograd.grad(distillation(1e4).soft(z, v), z)
    centered = [each.detach() - each.detach().mean(1, keepdim=True) for each in (z, v)]
    torch.testing.assert_close(gradient, (centered[0] - centered[1]) / (4 * 3), rtol=1e-3, atol=1e-6)


def distilling(**more: Any) -> dict[str, Any]:
    return small({"distillation": "logits", "distillation.teacher": teacher_folder(), "average": "none", **more})


PLAIN = {"optim": "sgd", "optim.lr": 0.3, "optim.weight_decay": 0.0, "norm": "none", "scheduler": "constant"}


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_gradients_of_a_run_equal_those_in_torch(accumulate: int) -> None:
    made = build(distilling(**PLAIN, accumulate=accumulate, **{"distillation.alpha": 0.3}))
    images, labels = next(made.batches.stream(0, 1))
    loss = made.recipe.gradients(made.recipe, made.learner, images, labels)
    found = [p.grad.clone() for p in made.learner.model.parameters()]
    z, v = made.learner.model(images), load(teacher_folder()).model(images)
    soft = 16 * F.kl_div((z / 4).log_softmax(1), (v / 4).softmax(1), reduction="batchmean")
    total = 0.3 * F.cross_entropy(z, labels) + 0.7 * soft
    torch.testing.assert_close(loss, total.detach(), rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(found, torch.autograd.grad(total, made.learner.model.parameters()), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_the_teacher_stays_as_it_is_and_gets_no_gradients() -> None:
    made = build(distilling(model="cnn", norm="batch"))
    before = checkpoint.read_weights(Path(teacher_folder()) / result(Path(teacher_folder()))["weights"])
    teach = made.recipe.gradients.__self__.teach
    images = next(made.batches.stream(0, 1))[0]
    first = teach(images)
    assert not first.requires_grad
    uninterrupted(distilling(model="cnn", norm="batch"), 2)
    assert torch.equal(teach(images), first)
    assert any(name.startswith("model.") for name in before)


def test_both_losses_are_logged_with_their_weighted_sum() -> None:
    _, left = uninterrupted(distilling(accumulate=2, update="sam", mix="mixup", **{"distillation.alpha": 0.25}), 3)
    rows = {(step, tag): float(value) for step, tag, value in left.rows if tag.startswith("train/")}
    for step in (1, 2, 3):
        soft, hard = rows[step, "train/soft_loss"], rows[step, "train/hard_loss"]
        assert soft > 0 and hard > 0
        assert rows[step, "train/loss"] == pytest.approx(0.25 * hard + 0.75 * soft, rel=1e-5)


def test_logged_losses_are_those_of_the_first_pass_whatever_asks_for_more() -> None:
    made = build(distilling())
    distiller: Distiller = made.recipe.gradients.__self__
    images, labels = next(made.batches.stream(0, 1))
    watch = distiller.probe.watch(None)
    next(watch)
    first = distiller.gradients(made.recipe, made.learner, images, labels)
    with torch.no_grad():
        for p in made.learner.parameters.values():
            p.add_(0.5)
    assert distiller.gradients(made.recipe, made.learner, images, labels) != first
    with pytest.raises(StopIteration) as end:
        watch.send(None)
    found = end.value.value
    torch.testing.assert_close(0.1 * found["train/hard_loss"] + 0.9 * found["train/soft_loss"], first)


def seen_by_teacher(choices: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the teacher's logits in a run, and those that it has by itself for the same raw images."""
    made = build(choices)
    split = made.loaded.data.train
    raw = split.fetch(torch.arange(12))
    trained = load(teacher_folder())
    with torch.no_grad():
        theirs = trained.model(trained.preprocess(raw))
    return made.recipe.gradients.__self__.teach(made.learner.preprocess(raw)), theirs


@pytest.mark.parametrize(
    "own", ["standardize", "scale01", "none", "global_mean", "channel_mean", "mean_image", "per_feature"]
)
def test_the_teacher_sees_images_under_its_own_preprocessing(own: str) -> None:
    found, wanted = seen_by_teacher(distilling(preprocess=own))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(found, wanted) or own != "standardize"


def test_classes_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(teacher_folder(), tmp_path / "teacher"))
    found = json.loads((folder / "environment.json").read_text())
    text = json.dumps(found)
    classes = [str(digit) for digit in range(10)]
    assert json.dumps(classes) in text
    (folder / "environment.json").write_text(text.replace(json.dumps(classes), json.dumps(classes[::-1])))
    images = next(build(distilling()).batches.stream(0, 1))[0]
    own, turned = (
        build(distilling(**{"distillation.teacher": str(each)})).recipe.gradients.__self__.teach(images)
        for each in (teacher_folder(), folder)
    )
    assert torch.equal(turned, own.flip(1))


def test_features_before_the_head_are_not_cached(tmp_path: Path) -> None:
    folder = write_teacher(tmp_path / "start")
    made = build(distilling(init_from=folder, transfer="feature_extraction", **{"model.hidden": [16]}))
    assert "not cached: distillation=logits needs the images in each step" in made.features.line


REFUSED = {
    r"^loss: got bce, but this loss has no softmax probabilities": {"loss": "bce"},
    r"^loss: got hinge, but this loss has no softmax": {"loss": "hinge"},
    r"^distillation.teacher: got null; expected the folder of a finished run": {"distillation.teacher": None},
    r"^distillation.teacher: .* was trained on images of 1x8x8, and these are 1x16x16": {
        "data": "synthetic",
        "data.kind": "shapes",
        "data.size": 16,
        "data.classes": 5,
        "data.train": 64,
    },
    r"^distillation.teacher: .* knows other classes than these data \(0, 1, .*, triangle\); expected the same": {
        "data": "synthetic",
        "data.kind": "shapes",
        "data.size": 8,
        "data.classes": 5,
        "data.train": 64,
    },
    r"^distillation.teacher: its images had another preprocessing, and preprocess=pca_whiten cannot be undone": {
        "preprocess": "pca_whiten"
    },
    r"^distillation.teacher: the tensors of .* have the SHA-256 .*, expected 000000000000": {
        "distillation.teacher_sha256": "0" * 64
    },
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(line: str) -> None:
    with pytest.raises(RunnerError, match=line) as refusal:
        build(distilling(**REFUSED[line]))
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2


def test_a_teacher_without_softmax_is_refused(tmp_path: Path) -> None:
    folder = write_teacher(tmp_path / "teacher", "loss=mse")
    with pytest.raises(ConfigError, match=r"^distillation.teacher: got .*, but its loss=mse has no softmax"):
        build(distilling(**{"distillation.teacher": folder}))


WORDS = ("distillation=logits", "model=linear", "augment=[]", "probe=[]", "steps=6", "figures=never", "test=never")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("distillation.alpha=1", "distillation.alpha: got 1, must be"),
        ("distillation.temperature=0", "distillation.temperature: got 0, must be > 0"),
        ("distillation.teacher=null", "distillation.teacher: got null; expected the folder of a finished run"),
        ("distillation.teacher=nowhere", "distillation.teacher: got 'nowhere'; expected the folder of a finished run"),
    ],
)
def test_the_command_line_is_refused(word: str, line: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        job(*WORDS, *([] if "teacher=" in word else [f"distillation.teacher={teacher_folder()}"]), word)
    assert str(refusal.value).startswith(line)


def test_tensors_identify_the_teacher_and_not_its_path(tmp_path: Path) -> None:
    moved = shutil.copytree(teacher_folder(), tmp_path / "moved")
    jobs = [job(*WORDS, f"distillation.teacher={each}") for each in (teacher_folder(), moved, teacher_folder(1))]
    assert jobs[0].hash8 == jobs[1].hash8 != jobs[2].hash8
    model = load(teacher_folder()).model.state_dict()
    assert jobs[0].config["distillation"]["teacher_sha256"] == sha256_of_tensors(model)
    with pytest.raises(ConfigError, match=r"^distillation.teacher_sha256: got 000000000000"):
        job(*WORDS, f"distillation.teacher={moved}", f"distillation.teacher_sha256={'0' * 64}")


def test_a_run_resumes_with_a_teacher_that_was_moved(tmp_path: Path) -> None:
    teacher = shutil.copytree(teacher_folder(), tmp_path / "teacher")
    words = (*WORDS, "update=sam", "checkpoint_every=2steps", f"distillation.teacher={teacher}")
    assert run_in_child(lambda: start(job(*words, f"hydra.run.dir={tmp_path / 'whole'}"))) == 0
    assert run_in_child(killed_in_step(5, lambda: start(job(*words, f"hydra.run.dir={tmp_path / 'run'}")))) == -9
    moved = shutil.move(teacher, tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"^distillation.teacher: got .*it has no config.yaml"):
        start(job(f"resume={tmp_path / 'run'}"))
    again = f"resume={tmp_path / 'run'}"
    other = command(again, f"distillation.teacher={teacher_folder(1)}", cwd=tmp_path)
    assert other.returncode == 2 and ", expected " in other.stderr
    printed = command(again, f"distillation.teacher={moved}", cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_a_distilled_model_needs_no_teacher_to_predict(tmp_path: Path) -> None:
    teacher = shutil.copytree(teacher_folder(), tmp_path / "teacher")
    start(job(*WORDS, f"distillation.teacher={teacher}", f"hydra.run.dir={tmp_path / 'run'}"))
    shutil.rmtree(teacher)
    assert load(tmp_path / "run").predict(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).probabilities.shape == (2, 10)


def test_a_student_comes_closer_to_its_teacher(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher", "steps=60")
    given = distilling(**{"distillation.teacher": teacher, "distillation.alpha": 0.0, "optim.lr": 0.05})
    _, left = uninterrupted(given, 30)
    soft = [float(value) for _, tag, value in left.rows if tag == "train/soft_loss"]
    assert soft[-1] < 0.5 * soft[0]
