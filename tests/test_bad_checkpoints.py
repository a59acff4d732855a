"""Runs with damaged or foreign checkpoints, or of another model: an older one is used and named, or an error."""

import json
import random
import shutil
import signal

import kills
import pytest

from runner.__main__ import main
from runner.engine.saving.checkpoint import load

WORDS = (
    *("model=mlp", "model.hidden=[16]", "regularizer=[dropout]", "average=ema", "probe=[]", "figures=never"),
    *("steps=12", "checkpoint_every=4steps", "validate_every=6steps", "optim.lr=1e-3"),
)
FILES = ("00000008.json", "00000008.state.safetensors", "00000008.weights.safetensors")


def command(place, *words):
    output = place / "printed"
    return kills.run_child(lambda: main(list(words)), output)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A whole run, one killed at step 11 with the checkpoints of 4 or 6, and 8, and one of another model."""
    place = tmp_path_factory.mktemp("runs")
    for name, words in {"whole": WORDS, "other": (*WORDS[:1], "model.hidden=[8]", *WORDS[2:])}.items():
        code, printed = command(place, *words, f"hydra.run.dir={place / name}")
        assert code == 0, printed
    made = kills.job(*WORDS, f"hydra.run.dir={place / 'killed'}")
    code, printed = kills.run_child(lambda: kills.run(made, "step.forward:11"), place / "s")
    assert code == -signal.SIGKILL, printed
    made = kills.job(*WORDS[:1], "model.hidden=[8]", *WORDS[2:], f"hydra.run.dir={place / 'foreign'}")
    code, printed = kills.run_child(lambda: kills.run(made, "step.forward:11"), place / "s")
    assert code == -signal.SIGKILL, printed
    return place


@pytest.fixture
def run(runs, tmp_path):
    shutil.copytree(runs / "killed", tmp_path / "run")
    return tmp_path / "run"


def older(run):
    return max(int(path.stem) for path in (run / "checkpoints").glob("*.json") if path.name != FILES[0])


def check_fallback(run, runs, tmp_path, because, left=()):
    """Resume; check that the older checkpoint is used, with a reason, and that the run ends like an undamaged one.

    `left` are folders in the run, which are not its own and stay.
    """
    step = older(run)
    code, printed = command(tmp_path, f"resume={run}")
    assert code == 0, printed
    assert because in printed
    assert f"going back to {step:08d}.json" in printed or f"going back to step {step}" in printed
    assert f"resumes after step {step} of 12" in printed
    for path in left:
        path.rmdir()
    assert kills.differences(runs / "whole", run) == ""


DAMAGE = {
    "a flipped bit": lambda path: path.write_bytes(flipped(path.read_bytes(), 12_345)),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "zero length": lambda path: path.write_bytes(b""),
    "a picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize(
    ("damage", "name"),
    [(damage, name) for damage in DAMAGE for name in FILES if (damage, name) != ("a folder", FILES[0])],
)
def test_a_run_goes_back_to_the_newest_whole_checkpoint_and_says_so(run, runs, tmp_path, name, damage):
    path = run / "checkpoints" / name
    DAMAGE[damage](path)
    check_fallback(run, runs, tmp_path, "checkpoints/00000008.", left=[path] if damage == "a folder" else [])


def test_a_folder_in_the_place_of_a_checkpoint_is_left_alone_and_named(run, tmp_path):
    path = run / "checkpoints" / FILES[0]
    DAMAGE["a folder"](path)
    code, printed = command(tmp_path, f"resume={run}")
    assert code == 4
    assert printed.endswith(f"runner: error: {path}: Is a directory\n")


def test_a_run_goes_back_from_another_models_checkpoint_and_says_so(run, runs, tmp_path):
    for name in FILES:
        shutil.copy(runs / "foreign" / "checkpoints" / name, run / "checkpoints" / name)
    check_fallback(
        run, runs, tmp_path, "the checkpoint of step 8 is of another model: model.hidden.fc1.linear.weight: "
    )


def test_three_hundred_flipped_bits_of_a_runs_own_checkpoint_are_seen(run):
    draw, step = random.Random(1), older(run)
    for _ in range(300):
        path = run / "checkpoints" / draw.choice(FILES)
        data = path.read_bytes()
        path.write_bytes(flipped(data, draw.randrange(8 * len(data))))
        snapshot = load(run)
        assert snapshot.step == step and len(snapshot.notes) == 1
        path.write_bytes(data)
    assert load(run).step == 8


@pytest.mark.parametrize("damage", [*DAMAGE, "another model's"])
def test_without_a_valid_one_nothing_starts_over_and_nothing_is_changed(run, runs, tmp_path, damage):
    place = run / "checkpoints"
    if damage in DAMAGE:
        for path in place.glob("*.json"):
            DAMAGE[damage](path)
    else:
        shutil.rmtree(place)
        shutil.copytree(runs / "foreign" / "checkpoints", place)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    code, printed = command(tmp_path, f"resume={run}")
    assert code == 3
    assert printed.count("\n") == 1 and printed.startswith("runner: error: ")
    assert "no valid checkpoint among 2" in printed or "is of another model" in printed
    assert {path: path.read_bytes() for path in before} == before
    code, printed = command(tmp_path, "task=evaluate", f"run={run}")
    assert code == 3
    assert printed.count("\n") == 1 and printed.startswith("runner: error: ")


def test_the_weights_of_a_damaged_checkpoint_are_not_evaluated(runs, tmp_path):
    shutil.copytree(runs / "whole", tmp_path / "run")
    weights = tmp_path / "run" / json.loads((tmp_path / "run" / "result.json").read_text())["weights"]
    weights.write_bytes(flipped(weights.read_bytes(), 30_000))
    code, printed = command(tmp_path, "task=evaluate", f"run={tmp_path / 'run'}")
    assert code == 3
    assert printed == f"runner: error: {weights.parent}/{weights.name}: damaged (its sha256 is not the manifest's)\n"
