"""The examples of CONTRIBUTING.md work: an option from a plugin, and an update."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from running import command
from small_runs import build, small
from torch.func import functional_call
from torch.nn import functional as F

from runner.engine.train import update

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()


def block(language, containing):
    blocks = re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)
    return next(text for text in blocks if containing in text)


def lab(tmp_path):
    header = "from torch import nn\n\nfrom runner.registry import register\n\n\n"
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "parts.py").write_text(header + block("python", "def mish"))
    (tmp_path / "my_conf" / "activation").mkdir(parents=True)
    (tmp_path / "my_conf" / "activation" / "mish.yaml").write_text(block("yaml", "name: mish"))


@pytest.mark.ci_slice
@pytest.mark.slow
def test_the_example_of_contributing_works_from_outside(tmp_path):
    lab(tmp_path)
    arguments = ["--config-dir", "my_conf", "plugins=[my_lab.parts]", "activation=mish"]
    done = command(*arguments, "model=mlp", "steps=2", "figures=never", "name=mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "name: mish" in (tmp_path / "outputs" / "mine" / "config.yaml").read_text()
    refused = command("resume=outputs/mine", cwd=tmp_path)
    assert refused.returncode == 2
    assert "this run has activation=mish of plugins=[my_lab.parts], which must be given again" in refused.stderr
    assert command("resume=outputs/mine", "plugins=[my_lab.parts]", cwd=tmp_path).returncode == 0


def test_a_nearly_right_name_of_ours_is_suggested_with_the_users_own(tmp_path):
    lab(tmp_path)
    done = command("--config-dir", "my_conf", "activation=misch", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("runner: error: activation: unknown option 'misch'; did you mean 'mish'?")
    assert not (tmp_path / "outputs").exists()


def test_a_yaml_cannot_import_code(tmp_path):
    lab(tmp_path)
    (tmp_path / "my_conf" / "recipe").mkdir()
    (tmp_path / "my_conf" / "recipe" / "mine.yaml").write_text("# @package _global_\nplugins: [my_lab.parts]\n")
    done = command("--config-dir", "my_conf", "recipe=mine", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "plugins" in done.stderr


IMPORTS = """from collections.abc import Generator

import torch
from torch import Tensor, nn

from runner.engine.contracts import Outcome
from runner.engine.learner import Learner
from runner.engine.recipe import Batch, Recipe, Update, apply_gradients


"""


def test_the_update_of_contributing_makes_the_step_of_sam(tmp_path):
    (tmp_path / "sam_update.py").write_text(IMPORTS + block("python", "def sharpness_aware"))
    spec = importlib.util.spec_from_file_location("sam_update", tmp_path / "sam_update.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment = build(small({"optim": "sgd", "optim.lr": 0.5, "optim.weight_decay": 0.0, "scheduler": "constant"}))
    learner, recipe = experiment.learner, replace(experiment.recipe, update=module.sharpness_aware(0.1))
    images, labels = torch.randn(8, 1, 8, 8), torch.arange(8) % 10
    weights = {name: p.detach().clone() for name, p in learner.model.named_parameters()}

    def gradient(at):
        tracked = {name: p.clone().requires_grad_() for name, p in at.items()}
        loss = F.cross_entropy(functional_call(learner.model, tracked, (images,)), labels)
        return dict(zip(tracked, torch.autograd.grad(loss, list(tracked.values())), strict=True))

    first = gradient(weights)
    norm = torch.stack([g.square().sum() for g in first.values()]).sum().sqrt()
    second = gradient({name: p + 0.1 * first[name] / norm for name, p in weights.items()})
    update(recipe, learner, images, labels)
    for name, p in learner.model.named_parameters():
        torch.testing.assert_close(p.detach(), weights[name] - 0.5 * second[name], rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(first[name], second[name], rtol=1e-3) for name in weights)
