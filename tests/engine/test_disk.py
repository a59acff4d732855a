"""Disks that fill up, fail or disappear during a run: the last checkpoint stays, and one line names the reason."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import kills
import pytest
from faults import WatchedDisk, file_contents, limit_file_size
from running import ROOT

from runner.__main__ import main
from runner.engine.saving import storage
from runner.engine.saving.checkpoint import load
from runner.engine.saving.disk import Disk

STEPS = 10
WORDS = (
    *("model=mlp", "model.hidden=[16]", "regularizer=[dropout]", "figures=never", "probe=[]", "log_every=2"),
    *(f"steps={STEPS}", "checkpoint_every=2steps", "validate_every=5steps"),
)


def run(place, *words, before=lambda: None):
    """Answer a command line in a child, with something done before; returns the exit code and what it said."""

    def work():
        before()
        return main(list(words))

    return kills.run_child(work, place / "said")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = tmp_path_factory.mktemp("whole")
    code, said = run(place, *WORDS, f"hydra.run.dir={place / 'run'}")
    assert code == 0, said
    return place / "run"


@pytest.fixture(scope="module")
def count(tmp_path_factory):
    """How many operations on the disk a run makes."""
    place = tmp_path_factory.mktemp("count")
    disk = WatchedDisk(lambda number, *_: (place / "count").write_text(str(number)))
    run(place, *WORDS, f"hydra.run.dir={place / 'run'}", before=lambda: setattr(storage, "disk", disk))
    return int((place / "count").read_text())


def refusal(said):
    """Return the error line of a run that has ended."""
    errors = [line for line in said.splitlines() if line.startswith("runner: error: ")]
    assert len(errors) == 1 and "/" in errors[0].partition(": ")[2], said
    assert "Traceback" not in said
    return errors[0].removeprefix("runner: error: ")


def check_resume(place, whole, folder, warned=""):
    """Resume a run on a repaired disk, and compare it with a run without faults.

    Predictions of which a finished run has said, in `warned`, that they could not be written stay missing.
    """
    told = (folder / "config.yaml").exists()
    words = [f"resume={folder}"] if told else [*WORDS, f"hydra.run.dir={folder}"]
    code, said = run(place, *words)
    assert code == 0, said
    for predictions in ("predictions/val.safetensors", "predictions/test.safetensors"):
        if f"{predictions}: not written" in warned and not (folder / predictions).exists():
            (folder / "predictions").mkdir(exist_ok=True)
            shutil.copy(whole / predictions, folder / predictions)
    assert kills.differences(whole, folder) == ""


class BrokenDisk(WatchedDisk):
    """A disk that refuses operations from number `at` on: all of them, or those that `which` chooses."""

    def __init__(self, at, error, kept, *, times=10**9, which=lambda *_: True):
        def before(number, operation, *arguments):
            if at <= number < at + times and operation != "close" and which(operation, *arguments):
                if not kept.exists() and kept.with_name("run").exists():
                    shutil.copytree(kept.with_name("run"), kept)
                raise OSError(error, os.strerror(error))

        super().__init__(before)


def checkpoint_survives(folder, kept):
    """True if the newest checkpoint before a fault exists byte for byte, or a newer valid one."""
    old = load(kept) if kept.exists() else None
    if old is None:
        return True
    new = load(folder)
    if new.notes or new.step < old.step:
        return False
    names = [path.relative_to(kept) for path in (kept / "checkpoints").glob(f"{old.step:08d}.*")]
    same = all((folder / name).read_bytes() == (kept / name).read_bytes() for name in names if new.step == old.step)
    return len(names) == 3 and same


def fault_at(place, whole, at, error, **options):
    """Break the disk of a run, check all promises, and return the exit code and the output."""
    folder, kept = place / "run", place / "kept"
    disk = BrokenDisk(at, error, kept, **options)
    code, said = run(place, *WORDS, f"hydra.run.dir={folder}", before=lambda: setattr(storage, "disk", disk))
    assert code in (0, 4), said
    if code:
        assert refusal(said).rpartition(": ")[2].startswith(os.strerror(error))
    assert checkpoint_survives(folder, kept)
    check_resume(place, whole, folder, said)
    return code, said


def moments(count, number):
    return sorted(random.Random(number).sample(range(count), number))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.85, 0.97])
def test_a_disk_that_breaks_at_any_moment_costs_no_checkpoint(whole, count, tmp_path, error, share):
    code, said = fault_at(tmp_path, whole, int(share * count), error)
    # What comes after the result costs a warning
    assert code == (0 if share > 0.9 else 4), said
    assert code == 4 or ": not " in said


@pytest.mark.slow
def test_a_disk_that_breaks_at_any_of_many_moments_costs_no_checkpoint(whole, count, tmp_path):
    for number, at in enumerate(moments(count, 40)):
        for times in (1, 10**9):
            place = tmp_path / f"{at}-{times}"
            place.mkdir()
            error = (errno.ENOSPC, errno.EIO)[number % 2]
            code, said = fault_at(place, whole, at, error, times=times)
            # What comes after the result costs a warning
            assert code == 4 or times == 1 or "not removed" in said, (at, said[-2000:])


def of_the_log(operation, *arguments):
    """Choose the writes to log files."""
    if operation != "write":
        return False
    path = str(Path(f"/proc/self/fd/{arguments[0]}").readlink())
    return path.endswith("metrics.jsonl") or ".tfevents." in path


@pytest.mark.parametrize("times", [30, 10**9], ids=["for a while", "for good"])
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_a_log_that_fails_does_not_end_the_training(whole, tmp_path, times):
    code, said = fault_at(tmp_path, whole, 40, errno.ENOSPC, times=times, which=of_the_log)
    warnings = [line for line in said.splitlines() if line.startswith("runner: warning: ")]
    files = {line.split(":")[2].strip() for line in warnings}
    assert len(files) == 2  # metrics.jsonl and the event file
    assert all("No space left on device" in line or "no rows were lost" in line for line in warnings)
    assert len(warnings) == (4 if times == 30 else 2)
    assert load(tmp_path / "run").step == STEPS  # all was trained and saved
    if times == 30:
        assert code == 0
    else:
        assert code == 4 and refusal(said).startswith(f"{tmp_path / 'run' / 'metrics.jsonl'}: No space left")


@pytest.mark.parametrize("size", [500, 1_000, 3_000, 8_000])
def test_files_that_may_not_grow_cost_no_checkpoint(whole, tmp_path, size):
    folder = tmp_path / "run"
    code, said = run(tmp_path, *WORDS, f"hydra.run.dir={folder}", before=lambda: limit_file_size(size))
    assert code == 4, said
    assert "File too large" in refusal(said)
    if (folder / "checkpoints").exists():
        load(folder)
    check_resume(tmp_path, whole, folder)


def mounted(size, place, *words):
    """Run a command in a file system of `size` bytes; what is in it afterwards is copied to `place`/out."""
    inside = f"mount -t tmpfs -o size={size} none {place}/disk && cd {place}/disk || exit 99"
    script = f'{inside}; "$@"; code=$?; cp -r {place}/disk {place}/out; exit $code'
    (place / "disk").mkdir()
    return subprocess.run(
        ["unshare", "--mount", "bash", "-c", script, "bash", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="a small disk needs root on Linux")
def test_a_small_disk_that_fills_up_costs_no_checkpoint(whole, tmp_path):
    ended = mounted(96 * 1024, tmp_path, sys.executable, "-m", "runner", *WORDS, "name=run", "data.batch_size=8")
    if ended.returncode == 99:
        pytest.skip(f"no mount here: {ended.stderr.strip()}")
    assert ended.returncode == 4, ended.stderr
    assert "No space left on device (needs at least " in refusal(ended.stderr)
    assert load(tmp_path / "out" / "outputs" / "run").notes == []


@pytest.fixture
def open_place():
    """A folder that other users may enter (pytest's own are closed to them)."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def run_without_root():
    """Give up root after all imports of a run, because other users may not read the interpreter's files."""
    with tempfile.TemporaryDirectory() as name:
        assert main([*WORDS, f"hydra.run.dir={name}/warm"]) == 0
    os.setuid(65534)


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="drops root")


@needs_root
def test_a_read_only_folder_is_refused_in_one_line(whole, open_place):
    shutil.copytree(whole, open_place / "run")
    before = file_contents(open_place / "run")
    path = open_place / "run" / "result.json"
    path.write_text(path.read_text().replace('"done"', '"running"'))
    before[path] = path.read_bytes()
    for words in (
        (f"resume={open_place / 'run'}",),
        (*WORDS, f"outputs={open_place}/outputs"),
        (*WORDS, f"hydra.run.dir={open_place}/new"),
    ):
        code, said = run(open_place, *words, before=run_without_root)
        assert code == 4, said
        assert refusal(said).endswith("Permission denied")
    assert file_contents(open_place / "run") == before


@needs_root
def test_a_folder_that_becomes_read_only_under_a_run_costs_no_checkpoint(whole, open_place):
    folder = open_place / "mine" / "run"
    folder.parent.mkdir()
    os.chown(folder.parent, 65534, 65534)

    def before():
        run_without_root()
        disk = Disk()

        def closing(number, operation, *arguments):
            if operation == "replace" and arguments[1].name == "00000006.json":
                disk.replace(*arguments)
                (folder / "checkpoints").chmod(0o555)

        storage.disk = WatchedDisk(closing)

    code, said = run(open_place, *WORDS, f"hydra.run.dir={folder}", before=before)
    assert code == 4, said
    assert "checkpoints/" in refusal(said)
    (folder / "checkpoints").chmod(0o755)
    assert load(folder).step in (4, 6)
    check_resume(open_place, whole, folder)


@pytest.mark.parametrize("what", ["the folder", "checkpoints", "metrics.jsonl"])
def test_what_is_taken_away_under_a_run_ends_it_in_one_line(tmp_path, whole, what):
    folder = tmp_path / "run"

    def before():
        def taking(number, operation, *arguments):
            if operation == "create" and arguments[0].parent.name == "checkpoints" and load(folder):
                storage.disk = Disk()
                {
                    "the folder": lambda: shutil.rmtree(folder),
                    "checkpoints": lambda: shutil.rmtree(folder / "checkpoints"),
                    "metrics.jsonl": lambda: (folder / "metrics.jsonl").unlink(),
                }[what]()

        storage.disk = WatchedDisk(taking)

    code, said = run(tmp_path, *WORDS, f"hydra.run.dir={folder}", before=before)
    assert code == 4, said
    assert refusal(said).startswith(str(folder))
    assert refusal(said).endswith("No such file or directory")


def test_an_interrupt_is_told_of_though_the_log_cannot_be_finished(tmp_path):
    folder = tmp_path / "run"
    disk = BrokenDisk(40, errno.ENOSPC, tmp_path / "kept", which=of_the_log)

    def before():
        storage.disk = disk
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from runner.engine import train

        validate = train.validate

        def interrupted(*arguments):
            os.kill(os.getpid(), signal.SIGINT)
            return validate(*arguments)

        train.validate = interrupted

    code, said = run(tmp_path, *WORDS, f"hydra.run.dir={folder}", before=before)
    assert code == 130, said
    assert "resume=" in said
