"""Each write of a sweep's own process fails in turn: finished trials are kept, and the same command completes."""

import errno
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import kills
import pytest
from faults import WatchedDisk
from running import result

from runner import plain_yaml
from runner.__main__ import main
from runner.door import sweep
from runner.engine.saving import storage
from runner.engine.saving.disk import Disk
from runner.engine.saving.folder import Result, write_result
from runner.errors import RunnerError
from runner.sweeps.in_process import InProcess
from runner.sweeps.outcome import folder_of

SMALL = ("data=synthetic", "model=linear", "augment=[]", "probe=[]", "steps=2", "device=cpu", "sweep=s")
GRID = ("-m", *SMALL, "optim.lr=0.1,0.01,0.001", "hydra.launcher.workers=1")
SEARCH = (
    "-m", *SMALL, "hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=3",
    "optim.lr=tag(log,interval(0.01,0.1))", "hydra.launcher.workers=1",
)  # fmt: skip
COMMANDS = {"grid": GRID, "search": SEARCH}
ERRORS = (errno.EIO, errno.EACCES, errno.ENOSPC, errno.EROFS)
FOR_GOOD = 10**9
TOP = Path("outputs/sweeps/s")


class BrokenDisk(WatchedDisk):
    """A disk that refuses operations from number `at` on, `times` of them; it records what it refused."""

    def __init__(self, at: int, error: int, times: int) -> None:
        self.seen, self.refused = 0, []

        def before(number, operation, *arguments):
            self.seen = number + 1
            if at <= number < at + times and operation != "close":
                self.refused.append((operation, *arguments))
                raise OSError(error, os.strerror(error))

        super().__init__(before)


class Trials:
    """Runs a sweep whose trials take no time: each writes a result with a score, on a disk that works.

    The second one that begins leaves no result, so that the sweep writes it.
    """

    def __init__(self, monkeypatch, name: str) -> None:
        planned = []
        monkeypatch.setattr(sweep, "run_sweep", lambda *arguments: planned.append(arguments) or 0)
        assert main([*COMMANDS[name]]) == 0
        monkeypatch.undo()
        self.planned, self.ran, self.died = planned[0], [], 0
        monkeypatch.setattr(sweep, "make_launcher", lambda *_: InProcess(self._start))

    def _start(self, job) -> int:
        kept, storage.disk = storage.disk, Disk()
        try:
            if len(self.ran) + self.died == 1 and not self.died:
                self.died = 1
                return 0
            folder, scores = folder_of(job), {"accuracy": 0.5, "loss": 1.0, "step": 2}
            (folder / "config.yaml").write_bytes(plain_yaml.dump(job.config))
            write_result(folder, Result(status="done", exit=0, scores={"val": {"best": scores, "last": scores}}))
            self.ran.append(folder.name)
        finally:
            storage.disk = kept
        return 0

    def run(self, disk) -> tuple[int, str]:
        """Run the sweep on a disk; return its exit code, and the error, which must be one line."""
        storage.disk = disk
        try:
            return sweep.run_sweep(*self.planned), ""
        except RunnerError as error:
            assert "\n" not in str(error)
            return error.exit_code, str(error)
        finally:
            storage.disk = Disk()


def done() -> dict[str, bytes]:
    """Return the results that say done, by the names of their trials."""
    found = {path.parent.name: path for path in TOP.glob("*/result.json") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if result(path.parent)["status"] == "done"}


@pytest.fixture
def trials(request, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if request.param == "search":
        pytest.importorskip("optuna")
    return Trials(monkeypatch, request.param)


def begin_in(trials, place: Path) -> None:
    """Begin anew in an empty folder."""
    place.mkdir()
    os.chdir(place)
    trials.ran, trials.died = [], 0


def check_fault(trials, at: int, error: int, times: int) -> bool:
    """Break the disk from one operation on, and check all promises; return False if there is no such operation."""
    first, disk = list(trials.ran), BrokenDisk(at, error, times)
    code, said = trials.run(disk)
    if not disk.refused:
        return disk.seen > at
    case = (at, errno.errorcode[error], times, disk.refused[0], code, said)
    kept = done()
    assert sorted(kept) == sorted(trials.ran), case
    if times == 1 and of_a_trial(disk.refused[0]) and error != errno.ENOSPC:
        # That trial is lost, and at most the one that left no result
        assert code != 4 and len(trials.ran) - len(first) >= (0 if first else 1), case
    elif error == errno.ENOSPC and of_a_trial(disk.refused[0]):
        assert code == 4, case
    ran, trials.died = list(trials.ran), 1
    assert trials.run(Disk()) == (0, ""), case
    assert len(done()) == len(trials.ran) == 3, case
    assert trials.ran[: len(ran)] == ran and ran[: len(first)] == first, case
    assert {name: done()[name] for name in kept} == kept, case
    assert len(list(TOP.glob("*/result.json"))) == 3, case
    return True


def of_a_trial(operation: tuple) -> bool:
    """Return True if an operation is on a trial's own folder, or on a file in it."""
    paths = [each for each in operation[1:] if isinstance(each, Path)]
    return any(TOP in path.parents and (path.parent != TOP or operation[0] == "mkdir") for path in paths)


def faults_in(trials, tmp_path, again: bool, error: int, times: int, every: int = 1) -> int:
    """Break the disk at every operation in turn; return their number."""
    for at in itertools.count(step=every):
        begin_in(trials, tmp_path / f"{again}-{error}-{times}-{at}")
        if again:
            assert trials.run(Disk())[0] == 1
        if not check_fault(trials, at, error, times):
            break
    return at


ONCE_OR_FOR_GOOD = [(errno.EIO, 1), (errno.EACCES, FOR_GOOD), (errno.ENOSPC, FOR_GOOD)]


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("trials", ["grid"], indirect=True)
@pytest.mark.parametrize(("error", "times"), ONCE_OR_FOR_GOOD)
def test_any_write_of_a_grid_may_fail(trials, tmp_path, error, times):
    assert faults_in(trials, tmp_path, False, error, times) > 20
    assert faults_in(trials, tmp_path, True, error, times) > 15


@pytest.mark.parametrize("trials", ["search"], indirect=True)
@pytest.mark.parametrize(("error", "times"), ONCE_OR_FOR_GOOD)
def test_every_fifth_write_of_a_search_may_fail(trials, tmp_path, error, times):
    assert faults_in(trials, tmp_path, False, error, times, every=5) > 40


@pytest.mark.slow
@pytest.mark.parametrize("trials", COMMANDS, indirect=True)
@pytest.mark.parametrize("again", [False, True], ids=["first command", "same command again"])
@pytest.mark.parametrize("times", [1, FOR_GOOD], ids=["once", "for good"])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_each_write_may_fail_in_each_way(trials, tmp_path, again, error, times):
    assert faults_in(trials, tmp_path, again, error, times) > 15


def in_second_trial(operation, *arguments) -> bool:
    """Choose the operations on the folder of one trial."""
    paths = [each for each in arguments if isinstance(each, Path)]
    if arguments and isinstance(arguments[0], int):
        paths = [Path(f"/proc/self/fd/{arguments[0]}").readlink()]
    return any("lr=0.01-" in str(path) for path in paths)


@pytest.mark.parametrize("trials", ["grid"], indirect=True)
@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS], ids=errno.errorcode.get)
def test_a_folder_that_can_never_be_written_costs_that_trial_alone(trials, tmp_path, error):
    begin_in(trials, tmp_path / "it")
    trials.died = 1

    def before(number, operation, *arguments):
        if operation != "close" and in_second_trial(operation, *arguments):
            raise OSError(error, os.strerror(error))

    code, said = trials.run(WatchedDisk(before))
    assert (code, len(done())) == (1, 2) and said.startswith("1 of 3 trials failed: lr=0.01-")
    assert trials.run(Disk()) == (0, "") and len(done()) == 3


WORDS = (
    "-m",
    "data=synthetic",
    "model=linear",
    "augment=[]",
    "probe=[]",
    "steps=2",
    "device=cpu",
    "sweep=s",
    "seed=0,1,2",
)


def spoil(folder: Path, how: str) -> None:
    """Make the folder of a trial one that cannot be written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if how == "a file":
        folder.write_text("mine")
    elif how == "a dangling link":
        folder.symlink_to("nowhere")
    else:
        folder.mkdir()
    if how in ("result.json", "trial.log", ".lock"):
        (folder / how).mkdir()
    elif how == "immutable":
        done = subprocess.run(["chattr", "+i", str(folder)], check=False, capture_output=True)
        if done.returncode:
            pytest.skip("no immutable folders here")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    subprocess.run(["chattr", "-R", "-i", "outputs"], check=False, capture_output=True)


def names_of_trials(words) -> list[str]:
    """Return the names of the trials of a sweep."""
    planned = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "run_sweep", lambda _, plan, *more: planned.extend(plan.jobs) or 0)
        assert main([*words]) == 0
    return [Path(job.folder).name for job in planned]


BAD = ("a file", "a dangling link", "immutable", "result.json", "trial.log", ".lock")
MANY = [word.replace("seed=0,1,2", f"seed=range({len(BAD) + 2})") for word in WORDS]


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize("launcher", ["hydra.launcher.workers=1", "hydra.launcher.workers=2", "hydra/launcher=basic"])
def test_each_bad_folder_costs_its_trial_alone(place, capfd, launcher):
    names = names_of_trials(MANY)
    for name, how in zip(names[1:], BAD, strict=False):
        spoil(TOP / name, how)
    bad = [name for name, _ in zip(names[1:], BAD, strict=False)]
    for count in (0, len(names) - len(bad)):
        capfd.readouterr()
        assert main([*MANY, launcher]) == 1
        out, err = capfd.readouterr()
        assert {name for name in names if name not in bad} == set(done())
        assert out.count("already done") == count
        lines = [each for each in err.splitlines() if each.startswith("failed: ")]
        assert sorted(line.split(": ")[1] for line in lines) == sorted(bad)
        assert all(f"/{line.split(': ')[1]}" in line.partition(": ")[2].partition(": ")[2] for line in lines), lines
        assert err.splitlines()[-1].startswith(f"runner: error: {len(bad)} of {len(names)} trials failed: ")


def test_all_writes_of_the_sweeps_process_go_through_the_disk_that_tests_break(tmp_path, monkeypatch):
    """What else it opens for writing, creates, renames or removes, seen by an audit hook."""
    monkeypatch.chdir(tmp_path)

    def work():
        inside, seen = [0], []

        class Counted(WatchedDisk):
            def __getattribute__(self, name):
                operation = object.__getattribute__(self, name)
                if name not in (*WatchedDisk.OPERATIONS, "fsync_folder"):
                    return operation

                def call(*arguments):
                    inside[0] += 1
                    try:
                        return operation(*arguments)
                    finally:
                        inside[0] -= 1

                return call

        def hook(event, arguments):
            writes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")
            if event == "open":
                writes = bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if (
                writes
                and not inside[0]
                and type(arguments[0]) is not int
                and tmp_path in Path(str(arguments[0])).absolute().parents
            ):
                seen.append((event, os.path.relpath(str(arguments[0]), tmp_path)))

        storage.disk = Counted(lambda *_: None)
        sys.addaudithook(hook)
        code = main([*WORDS, "hydra.launcher.workers=2"])
        (tmp_path.parent / "seen.json").write_text(json.dumps(seen))
        return code

    code, said = kills.run_child(work, tmp_path.parent / "said")
    assert code == 0, said
    seen = {(event, name) for event, name in json.loads((tmp_path.parent / "seen.json").read_text())}
    assert seen == {("open", "outputs/sweeps/s/.lock")}, seen
