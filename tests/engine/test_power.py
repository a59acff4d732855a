"""A power cut at any moment of a run, or of a resumed run: the run can always be resumed."""

import json
import pickle
import shutil
import signal

import kills
import pytest
from power import RecordingDisk, disk_contents, power_cuts, restore

from runner.__main__ import main
from runner.engine.logs import files
from runner.engine.saving import storage
from runner.engine.saving.checkpoint import load
from runner.errors import CheckpointError

WORDS = (
    *("model=mlp", "model.hidden=[16]", "regularizer=[dropout]", "probe=[]", "log_every=2", "figures=never"),
    *("steps=10", "checkpoint_every=3steps", "validate_every=4steps", "optim.lr=1.0"),
)


def recorded(place, *words):
    """Run a command line in a child, and return its disk operations."""

    def work():
        storage.disk = RecordingDisk()
        code = main(list(words))
        (place / "events").write_bytes(pickle.dumps(storage.disk.events))
        return code

    code, said = kills.run_child(work, place / "said")
    assert code == 0, said
    return pickle.loads((place / "events").read_bytes())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("power")


@pytest.fixture(scope="module")
def fresh(root):
    """A complete run on an empty disk, and its disk operations."""
    events = recorded(root, *WORDS, f"hydra.run.dir={root / 'outputs' / 'run'}")
    return root / "outputs" / "run", {}, events


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A resumed run, and its disk operations after the kill."""
    place = tmp_path_factory.mktemp("resumed")
    folder = place / "outputs" / "run"
    made = kills.job(*WORDS, f"hydra.run.dir={folder}")
    code, said = kills.run_child(lambda: kills.run(made, "step.forward:9"), place / "said")
    assert code == -signal.SIGKILL, said
    held = disk_contents(place)
    return folder, held, recorded(place, f"resume={folder}")


@pytest.fixture(params=["fresh", "resumed"])
def case(request):
    return request.getfixturevalue(request.param)


def test_a_run_reaches_the_disk_in_many_steps(fresh):
    assert len(fresh[2]) > 150
    kinds = {event[0] for event in fresh[2]}
    assert {"create", "write", "fsync", "replace", "unlink", "mkdir", "fsync_folder"} <= kinds


def committed(events):
    """The newest step that was said to be saved, after each number of events: the one after its commit's rename."""
    steps, renamed = [0, 0], 0
    for kind, *what in events:
        steps.append(renamed)
        if kind == "replace" and what[1].parent.name == "checkpoints" and what[1].suffix == ".json":
            renamed = int(what[1].stem)
    return steps


def whole_up_to_the_last_commit(held, events, root, tmp_path):
    """Check every disk that a power cut can leave; return their number."""
    count = 0
    for count, (step, disk) in enumerate(power_cuts(held, events, committed(events)), 1):  # noqa: B007
        restore(disk, root, tmp_path / "disk")
        run = tmp_path / "disk" / "outputs" / "run"
        snapshot = load(run)
        assert (snapshot.step if snapshot else 0) >= step
        if snapshot:
            assert snapshot.notes == [] and (run / "config.yaml").stat().st_size
            assert json.loads((run / "result.json").read_text())["status"] in ("running", "done")
            for name, length in snapshot.logs.items():
                files.check_log(run, name, length)
        shutil.rmtree(tmp_path / "disk", ignore_errors=True)
    return count


def test_whatever_the_power_leaves_is_a_whole_run_up_to_the_last_commit(case, tmp_path):
    folder, held, events = case
    assert whole_up_to_the_last_commit(held, events, folder.parent.parent, tmp_path) > 30


@pytest.mark.parametrize("missing", ["fsync", "fsync_folder"])
def test_a_missing_sync_would_be_found(fresh, tmp_path, missing):
    folder, held, events = fresh
    without = [event for event in events if event[0] != missing]
    with pytest.raises((AssertionError, CheckpointError)):
        whole_up_to_the_last_commit(held, without, folder.parent.parent, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("part", [pytest.param(9, marks=pytest.mark.ci_slice), 1], ids=["every ninth", "every"])
def test_whatever_the_power_leaves_goes_on_as_if_it_never_went(case, fresh, tmp_path, part):
    folder, held, events = case
    disks = [disk for _, disk in power_cuts(held, events, [0] * (len(events) + 1))]
    place = folder.parent.parent
    wrong = {}
    for number in range(0, len(disks), part):
        where = tmp_path / str(number)
        where.mkdir()
        restore(disks[number], place, where)
        run = where / "outputs" / "run"
        words = [f"resume={run}"] if (run / "config.yaml").exists() else [*WORDS, f"hydra.run.dir={run}"]
        output = tmp_path / f"{number}.txt"
        code, said = kills.run_child(lambda words=words: main(words), output)
        differing = said if code else kills.differences(fresh[0], run)
        if differing:
            wrong[number] = differing
        shutil.rmtree(where)
    assert wrong == {}
