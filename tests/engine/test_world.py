"""One process exchanges nothing; two agree on flags, sums, shares, folders, signals and scores."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from running import ROOT
from small_runs import build, small
from test_batches import AsFloat, Numbered

from runner.assemble.device import device_of
from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.interruption import Stop
from runner.engine.process_group import ProcessGroup
from runner.engine.randomness import reseeder, step_keys
from runner.engine.world import ALONE

CPU = torch.device("cpu")


def test_alone_gives_back_what_it_is_given():
    flag, tensor, index = torch.zeros(()), torch.ones(3), torch.arange(5)
    assert ALONE.any(flag) is flag
    assert ALONE.sum(tensor) is tensor
    assert ALONE.slice(index) is index
    assert (ALONE.rank, ALONE.size, ALONE.is_main, ALONE.max(15)) == (0, 1, True, 15)
    assert ALONE.device(torch.device("cuda")) == torch.device("cuda")
    assert ALONE.from_main(lambda: "made") == "made"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [0, 1, 4, 7, 10])
def test_shares_are_disjoint_in_order_and_differ_by_one_at_most(rows, size):
    shares = [ProcessGroup(rank, size).slice(torch.arange(rows)) for rank in range(size)]
    assert torch.cat(shares).tolist() == list(range(rows))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("size", [2, 3])
def test_the_shares_of_a_step_make_up_the_step_of_one_process(size):
    def stream(world):
        split = Numbered(torch.arange(23))
        return list(
            TrainBatches(split, batch=5, seed=0, augments=(), preprocess=AsFloat(), device=CPU, world=world).stream(
                0, 7
            )
        )

    whole = stream(ALONE)
    shares = [stream(ProcessGroup(rank, size)) for rank in range(size)]
    for step, (images, labels) in enumerate(whole):
        assert torch.equal(torch.cat([share[step][0] for share in shares]), images)
        assert torch.equal(torch.cat([share[step][1] for share in shares]), labels)


@pytest.mark.parametrize("rows", [1, 10])
def test_the_shares_of_an_evaluation_make_up_the_split_and_its_length_counts_all(rows):
    def batches(world):
        return EvalBatches(Numbered(torch.arange(rows)), batch=4, preprocess=AsFloat(), device=CPU, world=world)

    shares = [batches(ProcessGroup(rank, 2)) for rank in (0, 1)]
    assert [len(share) for share in shares] == [rows, rows]
    assert torch.cat([labels for share in shares for _, labels in share]).tolist() == list(range(rows))


def test_random_keys_are_those_of_one_process_on_rank_0_and_others_on_other_ranks():
    plain, first, second = step_keys(3, "mix"), step_keys(3, "mix", rank=0), step_keys(3, "mix", rank=1)
    assert [plain(step) for step in range(9)] == [first(step) for step in range(9)]
    assert not {plain(step) for step in range(1000)} & {second(step) for step in range(1000)}

    def drawn(**rank):
        reseeder(3, CPU, **rank)(7)
        return torch.rand(4).tolist()

    assert drawn() == drawn(rank=0) != drawn(rank=1)


def test_each_process_computes_on_its_own_gpu_unless_one_is_numbered():
    world = ProcessGroup(rank=5, size=8, local_rank=1)
    assert world.device(torch.device("cuda")) == torch.device("cuda", 1)
    assert world.device(torch.device("cuda:0")) == torch.device("cuda", 0)
    assert device_of("cpu", world) == CPU


class Agreeing(ProcessGroup):
    """Two processes, of which the other one agrees to everything."""

    def any(self, flag):
        return flag.fill_(1)

    def max(self, number):
        return max(number, 15)


def test_a_stop_follows_the_other_process():
    stop = Stop(world=Agreeing(0, 2))
    assert (stop.agree(), stop.agreed, stop.signal) == (15, 15, 0)


# What each of two processes does; it writes what it saw as JSON.
PROGRAM = """
import json, os, sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from runner.engine.division import Shared
from runner.engine.evaluation import evaluate
from runner.engine.finite import Gate
from runner.engine.interruption import Stop
from runner.engine.logs.log import Log
from runner.engine.saving.folder import create
from runner.engine.saving.locking import lock
from runner.engine.train import train
from runner.engine.process_group import ProcessGroup
from runner.errors import Locked
from small_runs import build, small

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2,
                               timeout=timedelta(seconds=60))
world = ProcessGroup(rank, 2)
seen = {"is_main": world.is_main}
seen["any"] = [world.any(torch.tensor(float(rank == 1))).item(), world.any(torch.zeros(())).item()]
seen["sum"] = world.sum(torch.tensor([rank + 1.5, 10.0], dtype=torch.float64)).tolist()
seen["slice"] = world.slice(torch.arange(5)).tolist()
seen["max"] = world.max(15 if rank else 0)
stop = Stop(15 if rank else 0, world)
seen["stop"] = stop.agree()
model = torch.nn.Linear(2, 1, bias=False)
gate = Gate(torch.optim.SGD(model.parameters(), lr=0.1))
shared = Shared(world, 1, lambda step: 2, lambda logits, labels: logits.mean(), whole=True, local_norms=False)
def open_after(value):
    model.weight.grad = torch.full((1, 2), value if rank else 1.0)
    loss = shared.add_up(model, torch.tensor(0.5))
    return gate.check(loss, [model.weight.grad])
seen["gate"] = [open_after(1.0), open_after(float("nan")), gate.skipped_steps()]
seen["alike"] = []
for values in ({"a": 1, "b": 2}, {"a": 1, "b": 2 + rank}):
    try:
        world.check_alike(values, "the weights")
        seen["alike"].append("")
    except Exception as error:
        seen["alike"].append(str(error))
seen["made"] = Path(world.from_main(lambda: str(create(folder / "run")))).name
with lock(folder / "run", world):
    try:
        lock(folder / "run", world)
    except Exception as error:
        seen["locked"] = [str(error), getattr(error, "exit_code", None)]
made = build(small({"model": "mlp", "norm": "batch"}))
for batches in made.validation.values():
    batches.world = world
    batches.index = torch.arange(97)
seen["scores"] = {split: evaluate(made.recipe, made.learner, batches) for split, batches in made.validation.items()}
made = build(small({"steps": 10, "validate_every": "10steps", "checkpoint_every": "10steps"}))
stop, mix, saved = Stop(world=world), made.recipe.mix, []
def signalled(images, labels, step):
    if rank and step == 3:
        stop.signal = 15
    return mix(images, labels, step)
status = train(replace(made.recipe, mix=signalled), made.learner, made.batches, {}, Log(),
               lambda: saved.append(made.learner.step), stop)
seen["stopped"] = [status, made.learner.step, saved]
(folder / f"{rank}.json").write_text(json.dumps(seen))
distributed.barrier()
distributed.destroy_process_group()
os._exit(0)
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Return what two processes saw, and their folder."""
    folder = tmp_path_factory.mktemp("world")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(folder)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    for child in children:
        _, said = child.communicate(timeout=240)
        assert child.returncode == 0, said
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)], folder


def test_two_processes_exchange(seen):
    main, other = seen[0]
    assert (main["is_main"], other["is_main"]) == (True, False)
    assert (main["slice"], other["slice"]) == ([0, 1, 2], [3, 4])
    for process in (main, other):
        assert process["any"] == [1.0, 0.0]
        assert process["sum"] == [4.0, 20.0]
        assert (process["max"], process["stop"]) == (15, 15)


def test_a_gradient_that_is_not_finite_in_one_process_is_applied_in_none(seen):
    for process in seen[0]:
        assert process["gate"] == [True, False, 1]


def test_a_signal_to_one_process_stops_both_after_the_same_step_which_is_saved(seen):
    for process in seen[0]:
        assert process["stopped"] == ["stopped", 4, [4]]


def test_the_main_process_alone_makes_and_locks_the_folder_and_its_failure_reaches_all(seen):
    (main, other), folder = seen
    assert (main["made"], other["made"]) == ("run", "run")
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"run"}
    assert main["locked"] == other["locked"]
    assert "locked by pid" in main["locked"][0]
    assert main["locked"][1] == 6


def test_two_processes_score_a_split_as_one_does(seen):
    from runner.engine.evaluation import evaluate

    made = build(small({"model": "mlp", "norm": "batch"}))
    for split, batches in made.validation.items():
        batches.index = torch.arange(97)
        alone = evaluate(made.recipe, made.learner, batches)
        for process in seen[0]:
            assert process["scores"][split]["accuracy"] == alone["accuracy"]
            assert process["scores"][split]["loss"] == pytest.approx(alone["loss"], rel=1e-6)
