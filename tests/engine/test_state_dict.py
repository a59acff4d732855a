"""States of modules keep the versions of their layout: what is saved can be loaded, whatever the model."""

import json
import shutil
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from running import ROOT, job, result
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models

from runner.__main__ import main
from runner.assemble import assemble
from runner.engine.saving import checkpoint, manifest
from runner.engine.state_dict import load_part, load_state, state_of, versions_in
from runner.errors import CheckpointError, ConfigError
from runner.tasks import start

MNASNET = ("model=torchvision", "model.arch=mnasnet0_5", "steps=2", "probe=[]", "figures=never", "augment=[]")
NAMES = models.list_models(module=models)
FAST = ("mnasnet0_5", "mobilenet_v3_small", "squeezenet1_1")


class Doubled(nn.Linear):
    """A layer whose first version saved half of its weights."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *rest):
        if metadata.get("version", 1) < 2:
            state[f"{prefix}weight"] = 2 * state[f"{prefix}weight"]
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def save(folder, weights):
    """Save weights as a checkpoint of step 1 and return the path of their file."""
    return checkpoint.save(folder, 1, weights, {}, logs={}, meta={}, keep=[])


def through_a_file(tmp_path, state):
    """Return a state as it is read from a checkpoint."""
    return checkpoint.read_weights(save(tmp_path, state))


def test_versions_survive_a_file_and_reach_the_module(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), Doubled(3, 3), nn.Sequential(nn.BatchNorm1d(3)))
    read = through_a_file(tmp_path, state_of(model=model, other=nn.Linear(1, 1)))
    assert read.versions == {"model.1": 2, "model.2.0": 2}
    fresh = nn.Sequential(nn.Linear(3, 3), Doubled(3, 3), nn.Sequential(nn.BatchNorm1d(3)))
    load_part("model", fresh, read)
    assert torch.equal(fresh[1].weight, model[1].weight)
    read.versions = {"model.2.0": 2}  # as the first version of the layer would save it
    load_part("model", fresh, read)
    assert torch.equal(fresh[1].weight, 2 * model[1].weight)
    read.versions = None  # a checkpoint from before versions were saved, by the same code
    load_part("model", fresh, read)
    assert torch.equal(fresh[1].weight, model[1].weight)


def test_versions_are_those_that_torch_saves():
    model = models.mnasnet0_5()
    expected = {name: meta["version"] for name, meta in model.state_dict()._metadata.items() if meta["version"] != 1}
    assert versions_in(model.state_dict()) == expected and expected[""] == 2 and len(expected) > 1
    assert versions_in(OrderedDict()) == {}


def test_loading_leaves_the_given_tensors_as_they_are():
    tensors = {"weight": torch.ones(3, 3), "bias": torch.zeros(3)}
    load_state(Doubled(3, 3), tensors, {})
    assert torch.equal(tensors["weight"], torch.ones(3, 3))


@pytest.mark.parametrize("versions", [[1], {"a": "2"}, {"a": 1.5}, {"a": None}, 3, {"a": True}])
def test_malformed_versions_are_a_damaged_checkpoint(tmp_path, versions):
    (tmp_path / "run").mkdir()
    save(tmp_path / "run", state_of(model=nn.Linear(1, 1)))
    path = tmp_path / "run" / "checkpoints" / "00000001.json"
    listed = manifest.read(path.parent, 1)
    path.write_bytes(manifest.encode(replace(listed, meta={**listed.meta, "versions": versions})))
    with pytest.raises(CheckpointError, match="versions of modules are malformed"):
        checkpoint.load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="versions of modules are malformed"):
        checkpoint.read_weights(path.with_name("00000001.weights.safetensors"))


def test_older_checkpoints_and_files_of_others_have_no_versions(tmp_path):
    old = checkpoint.load(ROOT / "tests" / "fixtures" / "runs" / "v1")
    assert old.weights.versions is None and "versions" not in old.state["learner"]
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    assert checkpoint.read_weights(tmp_path / "x.safetensors").versions is None


@pytest.mark.parametrize("average", ["none", "ema"])
def test_a_model_that_needs_its_version_is_evaluated_and_resumed(tmp_path, average):
    folder = tmp_path / "run"
    overrides = (*MNASNET, f"average={average}", "checkpoint_every=1steps", "test=never")
    assert start(job(*overrides, f"hydra.run.dir={folder}")) == 0
    assert main(["task=evaluate", f"run={folder}", "task.split=val"]) == 0
    whole = load_file(folder / result(folder)["weights"])
    for path in (folder / "checkpoints").glob("*02.*"):
        path.unlink()
    (folder / "result.json").write_text(
        json.dumps({**result(folder), "status": "interrupted", "exit": 130, "scores": {}})
    )
    assert main([f"resume={folder}"]) == 0
    again = load_file(folder / result(folder)["weights"])
    assert whole.keys() == again.keys() and all(torch.equal(again[name], value) for name, value in whole.items())


def test_weights_of_torch_files_keep_their_version(tmp_path):
    donor = models.mnasnet0_5(num_classes=7)
    torch.save(donor.state_dict(), tmp_path / "donor.pth")
    experiment = assemble(job(*MNASNET, f"model.weights={tmp_path / 'donor.pth'}", "model.swap=[]").config)
    loaded = dict(experiment.learner.model.named_parameters())
    name = next(name for name in loaded if name.endswith("layers.0.weight"))
    assert torch.equal(loaded[name], dict(donor.named_parameters())[name.removeprefix("net.")])


@pytest.mark.parametrize(
    "arch", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_every_classifier_of_torchvision_loads_what_it_saved(tmp_path, arch):
    more = {"init_weights": False} if arch in ("googlenet", "inception_v3") else {}
    torch.manual_seed(0)
    saved = through_a_file(tmp_path, state_of(model=models.get_model(arch, num_classes=10, **more)))
    shutil.rmtree(tmp_path)
    fresh = models.get_model(arch, num_classes=10, **more)
    load_part("model", fresh, saved)
    left = state_of(model=fresh)
    assert left.keys() == saved.keys() and left.versions == saved.versions
    assert all(torch.equal(left[name], tensor) for name, tensor in saved.items())


def test_tied_weights_and_odd_buffers_survive(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight
            self.register_buffer("count", torch.tensor(7))
            self.register_buffer("mask", torch.tensor([True, False]))
            self.register_buffer("nothing", torch.empty(0))
            self.register_buffer("not_saved", torch.ones(2), persistent=False)

    model, fresh = Tied(), Tied()
    fresh.count.zero_()
    load_part("model", fresh, through_a_file(tmp_path, state_of(model=model)))
    assert torch.equal(fresh.second.weight, model.first.weight) and fresh.second.weight is fresh.first.weight
    assert fresh.count == 7 and fresh.mask.tolist() == [True, False]


def test_a_state_that_is_no_tensor_is_refused_before_the_run(monkeypatch):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    experiment = job("model=mlp")
    monkeypatch.setattr(nn, "Linear", Extra)
    with pytest.raises(ConfigError, match=r"_extra_state' in its state is a dict, must be a tensor"):
        assemble(experiment.config)
