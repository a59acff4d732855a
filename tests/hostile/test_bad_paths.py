"""Paths that the system refuses, below every key that takes a path: one line, the right exit code, nothing left.

The keys come from their annotations, so a new one fails here until it has a command line that reaches its path.
"""

import errno
import io
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import MLP, ROOT, run_in_child

from runner.__main__ import main
from runner.annotations import marks
from runner.keys import key_marks
from runner.settings import SETTINGS

CONF = ROOT / "conf"
NOBODY = 65534
TINY = (*MLP, "data=synthetic", "steps=1", "device=cpu", "threads=1", "compile=false", "augment=[]", "probe=[]")
WRONG, DAMAGED, STORAGE, DATA = 2, 3, 4, 7
# Key and option, or key of a setting -> words before it, and the exit code
READING = {
    "resume": ((), WRONG),
    "run": (("task=evaluate",), WRONG),
    "runs": (("task=compare",), WRONG),
    "init_from": (TINY, WRONG),
    "distillation.teacher logits": ((*TINY, "distillation=logits"), WRONG),
    "extend": ((), WRONG),
    "task.images predict": (("task=predict", "run=seen", "task.out=rows.csv"), DATA),
    "data.labels": ((*MLP, "data=imagefolder", "data.root=images"), WRONG),
    "--config-dir": ((), WRONG),
    "hydra.sweeper.storage": (("-m", "hydra/sweeper=optuna", "optim.lr=interval(0.1,1)", *TINY), WRONG),
    **{
        f"data.root {option}": ((*MLP, f"data={option}", *more), DATA)
        for option, more in {
            **dict.fromkeys(("cifar10", "cifar100", "mnist", "fashion_mnist", "svhn"), ("data.download=false",)),
            **dict.fromkeys(("arrays", "table", "imagefolder"), ()),
        }.items()
    },
}
WRITING = {
    "outputs": (TINY, STORAGE),
    "hydra.run.dir": (TINY, STORAGE),
    "hydra.sweep.dir": (("-m", "seed=0,1", *TINY), STORAGE),
    "task.out compare": (("task=compare", "runs=run"), STORAGE),
    "task.out doctor": (("task=doctor", "run=seen"), STORAGE),
    "task.out predict": (("task=predict", "run=seen", "task.images=images"), STORAGE),
    "task.out export": (("task=export", "run=seen", "task.format=safetensors"), STORAGE),
    "task.out ensemble": (("task=ensemble", "runs=seen"), STORAGE),
}
# The files that are written below a path, where its name says what it holds
FILES = {"task.out predict": "/x.csv", "task.out export": "/x.safetensors"}
# A cache that cannot be written is no cache, with one line
CACHES = {"data.cache imagefolder": (*MLP, "data=imagefolder", "data.root=images", "data.size=[8,8]", "steps=1")}
CASES = {**READING, **WRITING}
# Their paths are read by the code of another case, or late
SLOW = {
    *(f"data.root {option}" for option in ("cifar100", "mnist", "fashion_mnist", "svhn", "table")),
    "task.out compare",
    "task.out doctor",
    "task.out ensemble",
}
EACH = [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES]
TOO_LONG, LOOPS, NO_FOLDER = "File name too long", "Too many levels of symbolic links", "Not a directory"
BAD = {"n" * 300: TOO_LONG, "n/" * 2100: TOO_LONG, "loop": LOOPS, "loop/x": LOOPS, "file/x": NO_FOLDER}
# The folder above is made, and removed again
ALSO_BAD = {f"new/{'n' * 300}": TOO_LONG}


def path_keys() -> set[str]:
    """Return all keys that take a path, with their options."""
    found = {key for key in SETTINGS if key_marks(key).path}
    for group in filter(Path.is_dir, CONF.iterdir()):
        for option in sorted(path.stem for path in group.glob("*.yaml")):
            found |= {f"{group.name}.{knob} {option}" for knob, each in marks(group.name, option).items() if each.path}
    return found


def test_every_key_that_takes_a_path_is_tried():
    assert path_keys() <= CASES.keys() | CACHES.keys()


@pytest.fixture(autouse=True)
def reachable(request):
    """Skip the keys of a package that is not installed."""
    if "timm" in request.node.name:
        pytest.importorskip("timm")


@pytest.fixture(scope="module")
def folder():
    """A folder with a run, images and bad paths, which is the working folder; other users may enter it."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        Path(name).chmod(0o777)
        assert main([*TINY, "hydra.run.dir=run"]) == 0
        Path("file").write_text("x")
        Path("loop").symlink_to("loop")
        for label, number in ((label, number) for label in "ab" for number in range(4)):
            Path("images", label).mkdir(parents=True, exist_ok=True)
            pixels = np.full((8, 8, 3), 20 * number + ord(label), np.uint8)
            Image.fromarray(pixels).save(f"images/{label}/{number}.png")
        seeing = (
            *MLP,
            "data=imagefolder",
            "data.root=images",
            "data.size=8",
            "data.cache=null",
            "augment=[]",
            "probe=[]",
        )
        assert main([*seeing, "steps=1", "device=cpu", "threads=1", "hydra.run.dir=seen"]) == 0
        # Other users may not read the interpreter's files: import what the commands need
        assert main(["task=compare", "runs=run", "task.out=warm"]) == main(["task=list"]) == 0
        yield Path(name)
        os.chdir(before)


def content(folder: Path) -> set[str]:
    """Return the relative paths of all that is in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def words(case: str, path: str) -> list[str]:
    """Return the command line that gives a path to a key."""
    key, path = case.partition(" ")[0], path + FILES.get(case, "")
    value = f"{key}={path}" if not key.startswith("hydra.") else f"{key}='{path}'"
    return [*CASES[case][0], value]


def refusal(case: str, path: str, folder: Path, capfd) -> str:
    """Return the one line that answers a bad path; nothing is left of the command."""
    before = content(folder)
    capfd.readouterr()
    code = main(words(case, path))
    err = capfd.readouterr().err
    assert "Traceback" not in err, err[-2000:]
    lines = [line for line in err.splitlines() if line.startswith("runner: error: ")]
    assert len(lines) == 1, err
    assert code == CASES[case][1], lines
    assert content(folder) == before
    return lines[0]


@pytest.mark.parametrize("case", EACH)
def test_a_path_that_cannot_be_is_one_line(folder, capfd, case):
    for path, reason in (BAD | ALSO_BAD if case in WRITING else BAD).items():
        said = refusal(case, path, folder, capfd)
        # Whoever only reads finds no folder there, and says so
        assert reason in said or (case in READING and reason == NO_FOLDER)
        assert path[:4] in said


@pytest.mark.parametrize("case", EACH)
def test_a_path_that_is_no_text_is_one_line(folder, capfd, case):
    before = content(folder)
    # NUL, the byte 0xE9 in a name that is not UTF-8, and half a character
    for path in ("a\0b", "a\udce9b", "a\ud800b"):
        assert main(words(case, path)) in (WRONG, CASES[case][1])
        err = capfd.readouterr().err
        assert err.count("runner: error: ") == 1 and "Traceback" not in err
        assert content(folder) == before


@pytest.mark.skipif(os.getuid() != 0, reason="drops root")
@pytest.mark.parametrize("case", EACH)
def test_a_path_below_a_closed_folder_is_one_line(folder, capfd, case):
    closed = folder / "closed"
    (closed / "inside").mkdir(parents=True, exist_ok=True)
    closed.chmod(0)

    def as_nobody():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.dup2(os.open(folder / "said", os.O_WRONLY), 2)
        return main(words(case, "closed/inside"))

    (folder / "said").write_text("")
    (folder / "said").chmod(0o666)
    try:
        code = run_in_child(as_nobody)
    finally:
        closed.chmod(0o755)
    said = (folder / "said").read_text()
    assert "Traceback" not in said
    [line] = [line for line in said.splitlines() if line.startswith("runner: error: ")]
    assert "Permission denied" in line
    assert code == CASES[case][1]


def failing(function, number: int):
    """Return a function of the system that fails with an error for paths below a disk that fails."""

    def fails(path, *arguments, **options):
        if "disk" in str(path):
            raise OSError(number, os.strerror(number), str(path))
        return function(path, *arguments, **options)

    return fails


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_disk_that_fails_is_one_line(folder, capfd, monkeypatch, case):
    number = errno.EIO if case in READING else errno.ESTALE
    for name in ("stat", "lstat", "listdir", "scandir", "open", "mkdir", "access"):
        monkeypatch.setattr(os, name, failing(getattr(os, name), number))
    monkeypatch.setattr(io, "open", failing(io.open, number))
    assert os.strerror(number) in refusal(case, "disk/x", folder, capfd)


@pytest.mark.parametrize("case", CACHES)
def test_a_cache_that_cannot_be_written_is_none(folder, capfd, tmp_path, case):
    for number, (path, reason) in enumerate(BAD.items()):
        assert main([*CACHES[case], f"{case.partition(' ')[0]}={path}", f"hydra.run.dir={tmp_path}/{number}"]) == 0
        err = capfd.readouterr().err
        assert "Traceback" not in err and f"{reason}; the images are decoded into memory" in err


def test_a_pipe_is_not_waited_for(folder, tmp_path, capfd):
    os.mkfifo(tmp_path / "pipe")
    assert main([*CASES["hydra.sweeper.storage"][0], f"hydra.sweeper.storage={tmp_path}/pipe"]) == WRONG
    assert capfd.readouterr().err.endswith(f"hydra.sweeper.storage: {tmp_path}/pipe: not a regular file\n")
    shutil.copytree("run", tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    os.mkfifo(tmp_path / "run" / "metrics.jsonl")
    for words in (["task=compare", f"runs={tmp_path}/run", f"task.out={tmp_path}/out"], [f"resume={tmp_path}/run"]):
        main(words)
        assert "Traceback" not in capfd.readouterr().err


# Files that are read because of a word: recipes, options and plugins


@pytest.fixture
def place(folder):
    """A folder for config files and plugins, which other users may read."""
    (folder / "own" / "recipe").mkdir(parents=True)
    yield folder / "own"
    shutil.rmtree(folder / "own")


def spoil(path: Path, how: str) -> None:
    """Put something into the place of a file that no one can read."""
    path.unlink(missing_ok=True)
    if how == "loop":
        path.symlink_to(path)
    elif how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "dangling":
        path.symlink_to(path.with_name("nowhere"))
    else:
        path.write_text("# @package _global_\nepochs: 1\n")
        path.chmod(0)


HOW = ["loop", "folder", "pipe", "dangling", "closed"]


@pytest.mark.skipif(os.getuid() != 0, reason="drops root")
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("what", ["recipe", "recipe in the list", "config", "plugin"])
def test_a_file_that_cannot_be_read_is_one_line(place, monkeypatch, what, how):
    file, asked = {
        "recipe": ("recipe/own.yaml", ["recipe=own"]),
        "recipe in the list": ("recipe/own.yaml", ["task=list", "task.kind=recipe"]),
        "config": ("own.yaml", ["--config-name", "own"]),
        "plugin": ("own_part.py", ["plugins=[own_part]"]),
    }[what]
    spoil(place / file, how)
    monkeypatch.syspath_prepend(str(place))
    said = place / "said"
    said.touch()
    said.chmod(0o666)

    def as_nobody():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.dup2(os.open(said, os.O_WRONLY), 2)
        return main(["--config-dir", "own", *asked])

    before = content(place.parent)
    code = run_in_child(as_nobody)
    text = said.read_text()
    assert code == WRONG and "Traceback" not in text
    assert text.count("runner: error: ") == 1 and "own" in text
    assert content(place.parent) == before
