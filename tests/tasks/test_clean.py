"""task=clean lists first and removes only files that manifests name, of finished runs that nobody holds."""

import json
import os
import shlex
import shutil

import pytest
from faults import file_contents
from running import job, result

from runner.__main__ import main
from runner.engine.saving import checkpoint
from runner.engine.saving.locking import lock
from runner.tasks import start

WORDS = ("model=mlp", "model.hidden=[4]", "augment=[]", "probe=[]", "figures=never", "monitor=val/loss", "optim.lr=0.5")
WORDS = (*WORDS, "norm=none", "average=none", "scheduler=constant", "steps=30", "validate_every=4steps", "test=never")
WORDS = (*WORDS, "checkpoint_every=1steps")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run whose best step is not its last one."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert start(job(*WORDS, f"hydra.run.dir={folder}")) == 0
    assert result(folder)["scores"]["val"]["best"]["step"] < 28
    return folder


@pytest.fixture
def runs(trained, tmp_path, monkeypatch):
    """A folder with two copies of the run."""
    for name in ("a", "b"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def clean(capfd, *words):
    capfd.readouterr()
    assert main(["task=clean", "runs=runs", *words]) == 0
    return capfd.readouterr()


def sizes(contents):
    return {path: len(data) for path, data in contents.items() if data is not None}


def test_it_lists_first_and_then_frees_what_it_said(runs, capfd):
    before = file_contents(runs)
    listed = clean(capfd).out.splitlines()
    assert file_contents(runs) == before
    command = listed[-1].partition("to remove them: ")[2]
    assert shlex.split(command)[:3] == ["python", "-m", "runner"]
    assert main(shlex.split(command)[3:]) == 0
    freed = capfd.readouterr().out.splitlines()
    assert freed[:-1] == listed[:-1] and len(freed) == 3
    left = file_contents(runs)
    weights = result(runs / "a")["weights"]
    assert sorted(path.name for path in left if path.parent == runs / "a" / "checkpoints") == [
        f"{weights[12:20]}.json",
        weights[12:],
    ]
    # The manifest of the weights is written again, without the state
    gone = sum(size for path, size in sizes(before).items() if path not in left)
    assert freed[-1] == f"freed {gone / 1000:.1f} kB in 2 runs"
    assert {path for path in before if "checkpoints" not in path.parts} <= set(left)
    checkpoint.read_weights(runs / "a" / weights)
    assert clean(capfd, "task.delete=true").out == "freed 0 bytes in 0 runs\n"


def test_none_leaves_the_scores_and_a_result_without_weights(runs, capfd):
    scores = result(runs / "a")["scores"]
    clean(capfd, "task.keep=none", "task.delete=true")
    assert result(runs / "a")["weights"] is None and result(runs / "a")["scores"] == scores
    assert list((runs / "a" / "checkpoints").iterdir()) == []
    assert main([f"resume={runs / 'a'}"]) == 0
    # There is nothing that `best` could keep or would have to remove
    assert clean(capfd, "task.delete=true").out == "freed 0 bytes in 0 runs\n"


def test_what_no_manifest_names_stays_and_no_link_is_followed(runs, capfd, tmp_path):
    place = runs / "a" / "checkpoints"
    other = tmp_path / "precious.safetensors"
    shutil.copy(runs / "a" / result(runs / "a")["weights"], other)
    (place / "notes.txt").write_text("mine")
    (place / "00000099.weights.safetensors").write_bytes(b"mine")
    (place / "00000077.json").write_bytes(b"damaged")
    state = next(place.glob("00000030.state.*"))
    state.unlink()
    state.symlink_to(other)
    shutil.move(runs / "b" / "checkpoints", tmp_path / "elsewhere")
    (runs / "b" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    elsewhere, precious = file_contents(tmp_path / "elsewhere"), other.read_bytes()
    clean(capfd, "task.keep=none", "task.delete=true")
    assert {"notes.txt", "00000099.weights.safetensors", "00000077.json", state.name} == {
        path.name for path in place.iterdir()
    }
    assert file_contents(tmp_path / "elsewhere") == elsewhere and other.read_bytes() == precious


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_may_go_on_is_not_touched(runs, capfd, status):
    path = runs / "a" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": status}))
    before = file_contents(runs / "a")
    assert "in 1 run\n" in clean(capfd, "task.delete=true").out
    assert file_contents(runs / "a") == before


def test_a_locked_run_is_named_and_left(runs, capfd):
    with lock(runs / "a"):
        before = file_contents(runs / "a")
        pid = os.fork()
        if pid == 0:
            os._exit(main(["task=clean", "runs=runs", "task.delete=true"]))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert file_contents(runs / "a") == before
    assert "warning: left as it is: " in capfd.readouterr().err
    assert checkpoint.load(runs / "b") is None


def test_it_asks_which_runs(capfd):
    assert main(["task=clean"]) == 2
    assert "runs: got null; expected run folders" in capfd.readouterr().err
