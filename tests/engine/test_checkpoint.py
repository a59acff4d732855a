"""Checkpoints load bit for bit, rotation keeps the right ones, and evaluation reads verified weights."""

import hashlib
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file
from saving import SLOTS, is_checkpoint_of, refused, save_step, weights_at

from runner.engine.saving import storage
from runner.engine.saving.checkpoint import load, mismatch, read_weights, save, weights_file


@pytest.fixture
def run(tmp_path):
    """A run folder with the checkpoints of steps 10 and 20."""
    save_step(tmp_path, 10)
    save_step(tmp_path, 20)
    return tmp_path


# What is saved and how long it stays


def test_what_was_saved_is_loaded(run):
    snapshot = load(run)
    assert is_checkpoint_of(snapshot, 20) and snapshot.notes == []
    assert is_checkpoint_of(load(run, step=10), 10)


def test_files_are_as_promised(run):
    place = run / "checkpoints"
    assert storage.names(place) == sorted(name.replace("20", step) for name in SLOTS for step in ("10", "20"))
    record = json.loads((place / "00000020.json").read_bytes())
    assert record["format"] == 1 and record["step"] == 20
    assert record["logs"] == {"metrics.jsonl": 20} and record["meta"] == {"threads": 20}
    for file in record["files"]:
        data = (place / file["name"]).read_bytes()
        assert (file["size"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert load_file(place / SLOTS[0]).keys() == weights_at(20).keys()


def test_save_returns_the_weights_that_evaluation_reads(tmp_path):
    path = save_step(tmp_path, 30)
    assert path == tmp_path / "checkpoints" / "00000030.weights.safetensors" == weights_file(tmp_path, 30)
    assert all(torch.equal(tensor, weights_at(30)[name]) for name, tensor in read_weights(path).items())


def test_weights_that_the_state_repeats_are_stored_once(tmp_path):
    weights = {"w": torch.randn(1000, 100)}
    save(tmp_path, 1, weights, {"model": weights, "again": [weights["w"]]}, logs={}, meta={}, keep=[])
    assert (tmp_path / "checkpoints" / "00000001.state.safetensors").stat().st_size < 100
    assert torch.equal(load(tmp_path).state["again"][0], weights["w"])


def test_tied_and_strided_weights_are_saved_under_all_their_names(tmp_path):
    table = torch.randn(6, 4)
    weights = {"embed": table, "head": table, "part": table[1:3], "turned": table.T}
    read = read_weights(save(tmp_path, 1, weights, {}, logs={}, meta={}, keep=[]))
    assert all(torch.equal(read[name], weights[name]) for name in weights)


def test_a_run_without_tensors_is_saved(tmp_path):
    save(tmp_path, 0, {}, {}, logs={}, meta={}, keep=[])
    assert load(tmp_path).weights == {} == load(tmp_path).state


def steps(run):
    return sorted(int(path.stem) for path in (run / "checkpoints").glob("*.json"))


def test_the_newest_and_those_to_keep_stay(tmp_path):
    for step in range(1, 8):
        save_step(tmp_path, step, keep=[3])
    assert steps(tmp_path) == [3, 6, 7]
    assert len(storage.names(tmp_path / "checkpoints")) == 9
    save_step(tmp_path, 8, keep=[], newest=1)
    assert steps(tmp_path) == [8]
    save_step(tmp_path, 9, keep=[], newest=5)
    assert steps(tmp_path) == [8, 9]


def test_a_step_can_be_saved_again(run):
    save_step(run, 20, meta={"threads": 20, "again": True})
    snapshot = load(run)
    assert is_checkpoint_of(snapshot, 20) and snapshot.meta["again"]
    assert steps(run) == [10, 20] and len(storage.names(run / "checkpoints")) == 6
    assert is_checkpoint_of(load(run, step=10), 10)
    read_weights(weights_file(run, 20))
    save_step(run, 20)
    assert is_checkpoint_of(load(run), 20) and len(storage.names(run / "checkpoints")) == 6


def test_going_back_leaves_the_later_steps_behind(run):
    save_step(run, 15)
    assert steps(run) == [10, 15]
    save_step(run, 12, keep=[15])
    assert steps(run) == [10, 12, 15]


def test_a_checkpoint_that_lost_bytes_is_not_counted_among_the_newest(run):
    os.truncate(run / "checkpoints" / SLOTS[1], 10)
    save_step(run, 30)
    assert steps(run) == [10, 30]


def test_steps_of_more_than_eight_digits_are_in_order(tmp_path):
    for step in (99_999_999, 100_000_000):
        save_step(tmp_path, step)
    assert is_checkpoint_of(load(tmp_path), 100_000_000)


# Optimizers


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW([{"params": list(p), "lr": torch.tensor(0.01)}], foreach=False),
    "rprop": lambda p: torch.optim.Rprop(p),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_an_optimizer_goes_on_as_if_never_stopped(tmp_path, make, memory):
    def build(seed):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1)).to(memory_format=memory)
        return model, make(model.parameters())

    def train(model, optimizer, steps):
        for step in steps:
            x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    model, optimizer = build(0)
    train(model, optimizer, range(5))
    weights = model.state_dict()
    save(tmp_path, 5, weights, {"model": weights, "optimizer": optimizer.state_dict()}, logs={}, meta={}, keep=[])
    train(model, optimizer, range(5, 10))

    again, other = build(1)
    snapshot = load(tmp_path)
    again.load_state_dict(snapshot.state["model"])
    other.load_state_dict(snapshot.state["optimizer"])
    train(again, other, range(5, 10))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    ours, theirs = other.state_dict(), optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    for index, moments in theirs["state"].items():
        for name, moment in moments.items():
            back = ours["state"][index][name]
            assert torch.equal(back, moment) and back.dtype == moment.dtype and back.stride() == moment.stride()


# Evaluation


def test_weights_are_verified_where_their_manifest_is(run, tmp_path_factory):
    path = run / "checkpoints" / SLOTS[0]
    alone = tmp_path_factory.mktemp("alone") / SLOTS[0]
    shutil.copy(path, alone)
    assert torch.equal(read_weights(alone)["bias"], weights_at(20)["bias"])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert refused(read_weights, path) == f"{path}: damaged (its sha256 is not the manifest's)"
    assert "No such file" in refused(read_weights, run / "nowhere" / "x.safetensors")
    refused(weights_file, run, 7)


def test_weights_that_the_manifest_does_not_list_are_refused(run):
    stray = run / "checkpoints" / "00000020.1.weights.safetensors"
    shutil.copy(run / "checkpoints" / SLOTS[0], stray)
    assert "does not belong to the checkpoint 00000020.json" in refused(read_weights, stray)


def test_another_models_weights_are_told_by_the_first_three_differences():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).state_dict()
    assert mismatch(model, {name: tensor.clone() for name, tensor in model.items()}) is None
    other = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 1)).state_dict()
    assert mismatch(model, other) == (
        "0.weight: expected (3, 4) float32, found (5, 4) float32; 0.bias: expected (3,) float32, found (5,) float32; "
        "1.weight: expected (3,) float32, found (5,) float32; and 5 more"
    )
    assert mismatch({"a": torch.zeros(())}, {"b\n": torch.zeros(2, dtype=torch.int8)}) == (
        "a: expected () float32, found none; 'b\\n': expected none, found (2,) int8"
    )
