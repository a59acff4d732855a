"""The weights files of a finished run that can be members of an ensemble."""

import json

import pytest
import torch
from running import job, result

from runner.engine.saving import checkpoint
from runner.errors import CheckpointError
from runner.tasks import start
from runner.tasks.trained.members import Member, members_of
from runner.tasks.trained.read_run import read_run
from runner.tasks.trained.saved_run import read_member

WORDS = ("model=mlp", "model.hidden=[4]", "augment=[]", "probe=[]", "figures=never", "monitor=val/loss", "optim.lr=0.5")
WORDS = (*WORDS, "norm=none", "average=none", "scheduler=constant", "steps=30", "validate_every=4steps", "test=never")


@pytest.fixture
def trained(tmp_path):
    """Train a run whose best step is not its last one, and return its folder."""

    def train(*words):
        folder = tmp_path / "run"
        given = {word.partition("=")[0]: word for word in (*WORDS, *words, f"hydra.run.dir={folder}")}
        assert start(job(*given.values())) == 0
        return folder

    return train


def test_the_selected_and_the_last_weights_are_members(trained):
    folder = trained("keep=best+last")
    best = result(folder)["scores"]["val"]["best"]["step"]
    name = "checkpoints/{:08d}.weights.safetensors".format
    assert members_of(folder) == [Member(name(best), best, ("selected",)), Member(name(30), 30, ("last",))]


def test_weights_that_are_both_are_one_member(trained):
    folder = trained("keep=best", "optim.lr=0.001")
    assert [(each.step, each.roles) for each in members_of(folder)] == [(30, ("selected", "last"))]


def test_the_last_weights_are_no_member_where_they_were_not_kept(trained):
    assert [each.roles for each in members_of(trained("keep=best"))] == [("selected",)]


def test_a_member_is_loaded_in_place_of_the_selected_weights(trained):
    folder = trained("keep=best+last")
    run = read_run(job(f"run={folder}", "task=predict"), task="predict")
    last = read_member(folder, job("task=predict"), key="run", weights=members_of(folder)[-1].file)
    snapshot = checkpoint.load(folder)
    assert snapshot.step == 30 and last.path.name.startswith("00000030.")
    assert all(torch.equal(last.weights[name], tensor) for name, tensor in snapshot.weights.items())
    assert any(not torch.equal(run.weights[name], tensor) for name, tensor in last.weights.items())


def test_what_has_no_members_is_one_line(trained, tmp_path):
    folder = trained("keep=best+last")
    (folder / members_of(folder)[0].file).unlink()
    with pytest.raises(CheckpointError, match=r"weights.safetensors: is missing, although its manifest names it$"):
        members_of(folder)
    saved = result(folder)
    (folder / "result.json").write_text(json.dumps({**saved, "weights": None}))
    with pytest.raises(CheckpointError, match="has no weights"):
        members_of(folder)
    (folder / "result.json").write_text(json.dumps({**saved, "status": "interrupted"}))
    with pytest.raises(CheckpointError, match="is not finished"):
        members_of(folder)
    with pytest.raises(CheckpointError, match=r"result.json: No such file"):
        members_of(tmp_path / "nothing")
