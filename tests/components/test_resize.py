"""Progressive resizing: sizes by hand, pixels of torch and torchvision, full size in evaluation, resume, refusals."""

from __future__ import annotations

import pytest
import torch
from running import checkpoint_checksums, job, metrics, starter
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision

from runner.assemble import assemble
from runner.components.resize import none, progressive
from runner.engine.clock import Clock
from runner.engine.forward import FastForward
from runner.engine.learner import Learner
from runner.engine.short_run import short_run
from runner.errors import ConfigError
from runner.tasks import start

CLOCK = Clock(total_steps=100, steps_per_epoch=10, batch=8)
USUAL = {"start_scale": 0.5, "begin": "50%", "end": "80%", "multiple": 4}


def size_after(resize, step, shape=(3, 32, 32)):
    return tuple(resize(torch.zeros(2, *shape), step).shape[2:])


def changes(resize, shape=(3, 32, 32)):
    """Return the sizes, each with the first step that has it."""
    found = {}
    for step in range(100):
        found.setdefault(size_after(resize, step, shape), step)
    return found


def test_sizes_by_hand():
    # 16 + 16 (s - 50) / 30 is 18, 22, 26 and 30 at steps 53.75, 61.25, 68.75 and 76.25
    assert changes(progressive((3, 32, 32), CLOCK, **USUAL)) == {
        (16, 16): 0,
        (20, 20): 54,
        (24, 24): 62,
        (28, 28): 69,
        (32, 32): 77,
    }


def test_sizes_of_images_that_are_no_squares_and_no_multiples():
    resize = progressive((1, 10, 21), CLOCK, **{**USUAL, "begin": "0steps", "end": "100steps"})
    # Heights: 5 to 10 in multiples of 4, at most 10. Widths: 10.5 to 21, at most 21
    wanted = {(4, 12): 0, (8, 12): 20, (8, 16): 34, (8, 20): 72}
    assert changes(resize, (1, 10, 21)) == wanted
    assert size_after(resize, 100, (1, 10, 21)) == (10, 21)
    assert resize.sizes == list(wanted)


def test_a_jump():
    resize = progressive((3, 32, 32), CLOCK, **{**USUAL, "begin": "30steps", "end": "30steps"})
    assert changes(resize) == {(16, 16): 0, (32, 32): 30}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_are_those_of_torch_and_torchvision(layout):
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    found = progressive((3, 32, 32), CLOCK, **USUAL)(images, 55)
    assert torch.equal(found, F.interpolate(images, (20, 20), mode="bilinear", align_corners=False, antialias=True))
    torch.testing.assert_close(found, vision.resize(images, [20, 20], antialias=True))
    assert progressive((3, 32, 32), CLOCK, **USUAL)(images, 80) is images
    assert none()(images, 0) is images


RUN = (
    "model=resnet",
    "model.depth=8",
    "model.width=4",
    "device=cpu",
    "augment=[crop]",
    "resize=progressive",
    "mix=mixup",
)
RUN = (*RUN, "resize.multiple=2", "resize.begin=2steps", "resize.end=8steps", "steps=10", "figures=never", "test=never")
RUN = (*RUN, "predictions=never", "log_every=1", "validate_every=5steps", "checkpoint_every=1steps")


def test_training_images_grow_and_validation_has_full_size():
    experiment = assemble(job(*RUN, "average=none").config)
    seen = []
    experiment.learner.model.register_forward_pre_hook(
        lambda model, inputs: seen.append((model.training, tuple(inputs[0].shape[2:])))
    )
    short_run(experiment.recipe, experiment.learner, experiment.batches, steps=10, validation=experiment.validation)
    trained = [size for training, size in seen if training]
    # 4 + 4 (s - 2) / 6 is 5 at step 3.5 and 7 at step 6.5
    assert trained == [(4, 4)] * 4 + [(6, 6)] * 3 + [(8, 8)] * 3
    evaluated = [size for training, size in seen if not training]
    assert len(evaluated) >= 4 and set(evaluated) == {(8, 8)}


@pytest.mark.parametrize("step", [2, 4, 7])
def test_a_resumed_run_has_the_same_bits(tmp_path, monkeypatch, step):
    starter(tmp_path / "whole", *RUN)()
    step_optimizer = Learner.step_optimizer

    def fails(learner, loss):
        if learner.step == step:
            raise KeyboardInterrupt
        step_optimizer(learner, loss)

    monkeypatch.setattr(Learner, "step_optimizer", fails)
    with pytest.raises(KeyboardInterrupt):
        starter(tmp_path / "broken", *RUN)()
    monkeypatch.setattr(Learner, "step_optimizer", step_optimizer)
    assert start(job(f"resume={tmp_path / 'broken'}")) == 0
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")
    assert checkpoint_checksums(tmp_path / "broken") == checkpoint_checksums(tmp_path / "whole")


@pytest.mark.parametrize("model", ["mlp", "linear", "vit", "cnn"])
def test_a_model_of_one_size_is_refused_in_one_line(model):
    with pytest.raises(ConfigError) as error:
        assemble(job(f"model={model}", "resize=progressive", "device=cpu").config)
    line = str(error.value)
    assert line.startswith(f"resize=progressive: model={model} does not take images of 4x4 (")
    assert line.endswith("; expected convolutions with global pooling, or larger sizes") and "\n" not in line


def test_the_check_of_the_sizes_leaves_model_and_random_numbers_as_they_are():
    words = ("regularizer=[dropout]", "regularizer.dropout.where=[head]", "device=cpu")
    plain = assemble(job(*words).config).learner.model.state_dict()
    state = torch.get_rng_state()
    resized = assemble(job(*words, "resize=progressive").config).learner.model.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(plain.values(), resized.values(), strict=True))


@pytest.mark.parametrize(
    ("words", "start_of_line"),
    [
        (
            ("resize.start_scale=0.8",),
            "resize.start_scale: got 0.8, which leaves images of 8x8 as they are with resize.m",
        ),
        (("resize.start_scale=1.0",), "resize.start_scale: got 1.0, must be > 0 and < 1"),
        (("resize.end=2000epochs",), "resize.end: got '2000epochs', must be at most the run's 30 epochs"),
        (("resize.begin=90%",), "resize.begin: got '90%', must be at most"),
    ],
)
def test_what_would_do_nothing_is_refused(words, start_of_line):
    with pytest.raises(ConfigError) as error:
        assemble(job("resize=progressive", *words).config)
    assert str(error.value).startswith(start_of_line)


def test_only_images_of_full_size_are_compiled():
    model, made = nn.Flatten(), []

    def make(model, images):
        made.append(tuple(images.shape))
        return model

    forward = FastForward(model, make, examples=2, on_failure=lambda error: None, size=(8, 8))
    for side in (4, 6, 8, 8):
        assert forward(model, torch.zeros(2, 1, side, side)).shape == (2, side * side)
    assert made == [(2, 1, 8, 8)]
