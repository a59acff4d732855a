"""Commands that only read need no right to write: run folders of other users, read-only disks, runs that go on."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from running import MLP, ROOT, run_in_child

from runner.__main__ import main
from runner.engine.saving.locking import lock

NOBODY = 65534
TINY = (
    *MLP,
    "figures=never",
    "steps=4",
    "device=cpu",
    "threads=1",
    "augment=[]",
    "probe=[]",
    "checkpoint_every=2steps",
)
PLACES = "outputs/run", "outputs/half"
EVALUATION = "the evaluation is not saved: "
# Command line -> what it says of what it does not write, "" if it writes nothing anyway, a line for each part
READING = {
    ("task=evaluate", "run=outputs/run", "task.split=val"): f"{EVALUATION}outputs/run/.lock: ",
    ("task=evaluate", "run=outputs/run", "task.split=train", "predict=tta"): f"{EVALUATION}outputs/run/.lock: ",
    ("task=evaluate", "run=outputs/run"): f"this read of the test split is not counted in result.json: |{EVALUATION}",
    ("task=evaluate", "run=outputs/half", "task.split=val"): f"{EVALUATION}outputs/half/.lock: ",
    ("resume=outputs/run",): "",
    ("task=compare", "runs=outputs"): "not saved: outputs/compare-outputs: ",
    ("task=notebook",): "printed, not saved: outputs/notebook.md: ",
    ("task=preview", *TINY): "nothing is saved: outputs/",
    ("task=profile", "task.steps=1", "task.warmup=0", *TINY): "nothing is saved: outputs/",
    ("task=list",): "",
}
# What stdout has of the answer
ANSWER = {"evaluate": "accuracy", "compare": "accuracy", "notebook": "## 20", "preview": "lr", "profile": "speed"}


@pytest.fixture(scope="module")
def runs():
    """A folder that other users may enter, with a finished run and one that was stopped half-way."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        Path(name).chmod(0o755)
        assert main([*TINY, "hydra.run.dir=outputs/run"]) == 0
        half = Path(shutil.copytree("outputs/run", "outputs/half"))
        result = json.loads((half / "result.json").read_text())
        (half / "result.json").write_text(json.dumps({**result, "status": "running", "exit": None, "weights": None}))
        # Other users may not read the interpreter's files: import what the commands need
        for words in READING:
            if words[0] != "resume=outputs/run" and "task.split=val" not in words:
                main([*words])
        for made in [*Path("outputs").glob("compare*"), *Path("outputs").glob("task*"), Path("outputs/notebook.md")]:
            shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)
        yield Path(name)
        os.chdir(before)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def answers() -> list[tuple[int, str, str]]:
    """Return exit code, stdout and stderr of each command."""
    found = []
    for words in READING:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*words])
        found.append((code, out.getvalue(), err.getvalue()))
    return found


def check(found: list[tuple[int, str, str]], reason: str) -> None:
    """Check that each command answered, and said in one line what it did not write."""
    for (words, said), (code, out, err) in zip(READING.items(), found, strict=True):
        assert code == 0, (words, err)
        task = words[0].removeprefix("task=")
        assert ANSWER.get(task, "") in out, (words, out)
        lines = [line for line in err.splitlines() if reason in line]
        parts = said.split("|") if said else []
        assert len(lines) == len(parts), (words, err)
        assert all(line.startswith(part) for line, part in zip(lines, parts, strict=True)), (words, err)


@pytest.mark.skipif(os.getuid() != 0, reason="drops root")
def test_folders_of_another_user_can_be_read(runs):
    before = content(runs)
    answered = runs.parent / f"{runs.name}-answers"
    answered.touch()

    def work():
        with answered.open("w") as file:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            json.dump(answers(), file)

    assert run_in_child(work) == 0
    found = json.loads(answered.read_text())
    answered.unlink()
    check(found, "Permission denied")
    assert content(runs) == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="a mount needs root on Linux")
def test_a_read_only_disk_can_be_read(runs, tmp_path):
    script = f"""
import json, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from test_read_only import answers
found = answers()
json.dump(found, open({str(tmp_path / "answers")!r}, "w"))
"""
    mount = f"mount --bind {runs} {runs} && mount -o remount,bind,ro {runs} && cd {runs} || exit 99"
    ended = subprocess.run(
        ["unshare", "--mount", "bash", "-c", f'{mount}; exec "$@"', "bash", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if ended.returncode == 99:
        pytest.skip(f"no mount here: {ended.stderr.strip()}")
    assert ended.returncode == 0, ended.stderr
    check(json.loads((tmp_path / "answers").read_text()), "Read-only file system")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chattr") is None or os.getuid() != 0, reason="needs root and chattr")
def test_folders_that_may_not_change_can_be_read(runs):
    before = content(runs)
    if subprocess.run(["chattr", "-R", "+i", "outputs"], check=False, capture_output=True).returncode:
        pytest.skip("this file system knows no files that may not change")
    try:
        found = answers()
    finally:
        subprocess.run(["chattr", "-R", "-i", "outputs"], check=True)
    check(found, "Operation not permitted")
    assert content(runs) == before


def test_a_run_that_goes_on_can_be_read_but_its_test_reads_cannot_be_counted(runs, capfd):
    before = content(runs / "outputs/half")
    with lock(runs / "outputs/half"):
        assert main(["task=evaluate", "run=outputs/half", "task.split=val"]) == 0
        assert main(["task=compare", "runs=outputs", "task.out=compared"]) == 0
        capfd.readouterr()
        assert main(["task=evaluate", "run=outputs/half"]) == 6
    assert "outputs/half: locked by pid" in capfd.readouterr().err
    assert {path: data for path, data in content(runs / "outputs/half").items() if "lock" not in path} == {
        path: data for path, data in before.items() if "lock" not in path
    }


def test_reading_without_need_writes_nothing(runs):
    def of_the_run():
        made = ("classes_", "confusion_", "calibration_", "train.safetensors", "val.safetensors")
        return {path: held for path, held in content(runs / "outputs").items() if not Path(path).name.startswith(made)}

    before = of_the_run()
    for split in ("val", "train"):
        assert main(["task=evaluate", "run=outputs/run", f"task.split={split}"]) == 0
    assert of_the_run() == before


@pytest.mark.skipif(os.getuid() != 0, reason="drops root")
def test_what_must_be_written_is_refused_in_one_line(runs, capfd):
    """A place that was asked for, and a run that would go on."""

    def work():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        for words in (
            ["task=compare", "runs=outputs", "task.out=mine"],
            ["resume=outputs/half"],
            ["task=preview", *TINY, "hydra.run.dir=mine"],
            [*TINY],
        ):
            err = io.StringIO()
            with contextlib.redirect_stderr(err):
                assert main(words) == 4, words
            assert err.getvalue().count("runner: error: ") == 1 and "Permission denied" in err.getvalue()

    assert run_in_child(work) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="drops root")
def test_a_refused_resume_says_why_and_not_that_it_may_not_write(runs):
    def work():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            assert main(["resume=outputs/half", "optim.lr=0.5"]) == 2
        assert "optim.lr: cannot be changed" in err.getvalue()

    assert run_in_child(work) == 0
