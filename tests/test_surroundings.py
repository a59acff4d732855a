"""Runs in poor surroundings: no home folder, no cache that can be written to, no working folder, ASCII only."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import MLP, ROOT, command, result, run_in_child

import runner.assemble  # noqa: F401  (once, not in each child)
from runner import __main__ as entry
from runner import user_folders
from runner.errors import ConfigError
from runner.streams import encodable, open_screen

pytestmark = pytest.mark.rendered

SMALL = (*MLP, "steps=2", "probe=[]", "name=run")
STRANGER = 12345  # no user of this system
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


@pytest.fixture
def place():
    """A folder of a user whom the system does not know (pytest's own are closed to other users)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "work").mkdir()
        (folder / "images").mkdir()
        for number in range(12):
            path = folder / "images" / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(path)
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, STRANGER, STRANGER)
        yield folder


def run(place, *arguments, before=lambda: None, user=None, warm=("figures=never",), **environment):
    """Return the exit code of a command in a forked child, and what it printed; None removes a variable."""

    def work():
        said = os.open(place / "said", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = open_screen(1), open_screen(2)
        os.chdir(place / "work")
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if "compile=true" in warm:
            # A pool of the parent process has no threads in a forked child, where the first compilation would hang
            import torch._inductor.config

            torch._inductor.config.compile_threads = 1
        if user is not None:
            # After all imports, because other users may not read the interpreter's files
            sys.argv = ["runner", *SMALL, *warm, f"outputs={place}/warm"]
            assert entry.command() == 0
            import matplotlib.font_manager  # noqa: F401

            import runner.tasks.compare  # noqa: F401

            shutil.rmtree(place / "warm")
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        before()
        sys.stdout.flush()
        os.ftruncate(1, 0)
        sys.argv = ["runner", *arguments]
        return entry.command()

    code = run_in_child(work)
    said = (place / "said").read_text()
    assert "Traceback" not in said, said
    return code, said


HOMES = {
    "no home": {"HOME": None, "XDG_CACHE_HOME": None},
    "an empty home": {"HOME": "", "XDG_CACHE_HOME": ""},
    "a relative home": {"HOME": "home", "XDG_CACHE_HOME": "cache"},
    "a home that does not exist": {"HOME": "/nonexistent", "XDG_CACHE_HOME": None},
    "a home of someone else": {"HOME": "/root", "XDG_CACHE_HOME": "/root/.cache"},
    "a home that is a file": {"HOME": "/etc/hostname", "XDG_CACHE_HOME": "/dev/null"},
    "a home with a long name": {"HOME": f"/{'x' * 300}", "XDG_CACHE_HOME": f"/{'y' * 5000}"},
    "no folder for temporary files": {"HOME": None, "XDG_CACHE_HOME": None, "TMPDIR": "/nonexistent"},
}
NAMELESS = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"))


FAST = ("no home", "a home of someone else")


@needs_root
@pytest.mark.parametrize(
    "kind",
    [each if each in FAST else pytest.param(each, marks=[pytest.mark.slow, pytest.mark.ci_slice]) for each in HOMES],
)
def test_images_are_read_without_a_home(place, kind):
    words = (*SMALL, "data=imagefolder", f"data.root={place}/images", "data.size=[8,8]", "data.batch_size=2")
    code, said = run(place, *words, "figures=never", user=STRANGER, **HOMES[kind], **NAMELESS)
    assert code == 0, said
    assert "images are kept in" in said
    assert result(place / "work" / "outputs" / "run")["status"] == "done"
    # No folder called `~` or `home`
    assert {path.name for path in (place / "work").iterdir()} == {"outputs"}


@needs_root
def test_a_path_below_an_unknown_home_is_refused_in_one_line(place):
    for words in (("outputs=~/x", *SMALL), ("data=cifar10", *SMALL), ("resume=~/x",), ("task=compare", "runs=~/x")):
        code, said = run(place, *words, user=STRANGER, HOME=None, **NAMELESS)
        assert code == 2, said
        assert said.splitlines()[-1].endswith(
            "must be a path (your home folder is not known: set HOME, or write the whole path)"
        )
        assert said.count("\n") == 1


def test_the_home_is_that_of_the_variable_or_of_the_system(monkeypatch):
    monkeypatch.setenv("HOME", "/some/where")
    assert user_folders.expand_home("~/x") == Path("/some/where/x")
    assert user_folders.expand_home("~") == Path("/some/where")
    assert user_folders.expand_home("a/~/x") == Path("a/~/x")
    for value in ("", "relative"):
        monkeypatch.setenv("HOME", value)
        assert user_folders.expand_home("~/x") == Path(pwd.getpwuid(os.getuid()).pw_dir) / "x"
    with pytest.raises(ConfigError, match="no such user"):
        user_folders.expand_home("~nobody-of-this-name/x")


def test_the_home_is_looked_up_in_one_place():
    for path in (ROOT / "runner").rglob("*.py"):
        if path.name != "user_folders.py":
            text = path.read_text()
            for word in ("expanduser(", "Path.home(", '"HOME"', "XDG_", "getpass", "gettempdir"):
                assert word not in text, (path, word)


def test_a_cache_folder_of_another_user_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"runner-{os.getuid()}"
    assert user_folders.cache_folder() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert folder not in (user_folders.cache_folder(), *user_folders.cache_folder().parents)
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert user_folders.cache_folder() != folder
    folder.unlink()
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    assert Path("/dev/null") in user_folders.cache_folder().parents  # nothing can be kept there
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "cache"))
    assert user_folders.cache_folder() == tmp_path / "new" / "cache" / "runner"
    assert not (tmp_path / "new").exists()


@needs_root
def test_libraries_get_folders_where_there_is_no_home(place):
    report = place / "work" / "report"

    def before():
        tempfile.tempdir = None  # the folder of the test process
        user_folders.set_library_folders()
        names = ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "TORCH_HOME")
        report.write_text("\n".join(os.environ[name] for name in names))

    run(place, "--version", before=before, user=STRANGER, HOME=None, XDG_CACHE_HOME=None, TMPDIR=str(place), **NAMELESS)
    own = place / f"runner-{STRANGER}"
    assert report.read_text().split() == [str(own / name) for name in ("matplotlib", "torchinductor", "torch")]


@needs_root
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcc"), reason="torch.compile needs a compiler")
def test_a_compiled_run_needs_no_home(place):
    words = (*SMALL, "compile=true", "figures=always")
    homeless = {"HOME": None, "XDG_CACHE_HOME": None, **NAMELESS}
    code, said = run(place, *words, user=STRANGER, warm=("compile=true", "figures=always"), **homeless)
    assert code == 0, said
    assert result(place / "work" / "outputs" / "run")["status"] == "done"
    assert "trains without it" not in said


def test_a_working_folder_that_was_removed_is_refused_in_one_line(place):
    def before():
        (place / "gone").mkdir()
        os.chdir(place / "gone")
        (place / "gone").rmdir()

    for words in (SMALL, ("-m", *SMALL[:-1], "seed=0,1"), ("task=list",), ("task=compare",), ("--cfg", "job"), ("-x",)):
        code, said = run(place, *words, before=before)
        assert (code, said) in (
            (
                4,
                "runner: error: the working folder cannot be used (No such file or directory); change to another one\n",
            ),
            (2, said),
        )
        assert said.count("\n") == 1
    assert run(place, "--help", before=before)[0] == 0


@needs_linux
def test_a_process_starts_in_a_working_folder_that_was_removed(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    script = 'cd "$0" && rmdir "$0" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, str(folder), sys.executable, "-m", "runner", *SMALL],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)


@needs_root
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o555])
def test_a_working_folder_that_is_closed_is_not_needed(place, mode):
    (place / "out").mkdir()
    os.chown(place / "out", STRANGER, STRANGER)

    def before():
        (place / "work").chmod(mode)

    words = (*SMALL, "figures=never", f"outputs={place}/out")
    code, said = run(place, *words, before=before, user=STRANGER)
    assert code == 0, said
    (place / "work").chmod(0o755)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_working_folder_that_is_removed_during_a_run_costs_at_most_what_was_in_it(place, absolute):
    outputs = place / "out" if absolute else place / "work" / "outputs"

    def before():
        from runner.engine import train

        validate = train.validate

        def removing(*arguments):
            shutil.rmtree(place / "work", ignore_errors=True)
            return validate(*arguments)

        train.validate = removing

    code, said = run(place, *SMALL, f"outputs={outputs if absolute else 'outputs'}", before=before)
    if absolute:
        assert (code, result(outputs / "run")["status"]) == (0, "done"), said
    else:
        assert code == 4, said
        assert sum(line.startswith("runner: error: ") for line in said.splitlines()) == 1


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TASKS = {
    "list": ("task=list",),
    "markdown": ("task=list", "task.format=markdown"),
    "help": ("--help",),
    "train": (*SMALL, "figures=always", "note=gr\u00f6\u00dfer"),
    "sweep": ("-m", *SMALL[:-1], "figures=never", "seed=0,1", "sweep=two"),
    "compare": ("task=compare", "runs=outputs/sweeps/two"),
    "preview": (*SMALL, "task=preview"),
    "profile": (*SMALL, "task=profile", "task.steps=2", "task.warmup=1"),
    "init_report": (*SMALL, "task=init_report"),
    "notebook": ("task=notebook",),
}


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_every_task_prints_readable_text_in_a_narrow_encoding(tmp_path, encoding):
    for task, words in TASKS.items():
        written = tmp_path / task

        def work(words=words, written=written):
            os.chdir(tmp_path)
            file = os.open(written, os.O_RDWR | os.O_CREAT, 0o666)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.stdout, sys.stderr = (os.fdopen(each, "w", encoding=encoding, closefd=False) for each in (1, 2))
            sys.argv = ["runner", *words]
            return entry.command()

        assert run_in_child(work) == 0, task
        said = written.read_bytes().decode(encoding)
        assert "\\u" not in said, task
        if task == "compare":
            assert "difference +- 95 %" in said or "difference \u00b1 95 %" in said
            assert "|configuration" in said


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_run_works_in_an_ascii_locale(tmp_path):
    ended = command(*SMALL, "figures=always", cwd=tmp_path, **ASCII)
    assert ended.returncode == 0, ended.stderr
    ended = command("task=compare", "runs=outputs", cwd=tmp_path, **ASCII)
    assert ended.returncode == 0, ended.stderr
    assert "\\u" not in ended.stdout
    ended = command(*SMALL, "outputs=ausg\u00e4nge", cwd=tmp_path, **ASCII)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)


def test_names_that_are_not_utf8_are_compared(tmp_path):
    names = [b"caf\xe9", b"two\nlines", b"red\x1b[31m"]
    assert run_here(tmp_path, *SMALL, "figures=never") == (0, None)
    for name in names:
        shutil.copytree(
            tmp_path / "outputs" / "run", Path(os.fsdecode(os.fsencode(tmp_path / "outputs") + b"/" + name))
        )
    assert run_here(tmp_path, "task=compare", "runs=outputs/*")[0] == 0
    assert run_here(tmp_path, "task=notebook")[0] == 0
    assert run_here(tmp_path, "task=notebook")[0] == 0
    text = (tmp_path / "outputs" / "notebook.md").read_text()
    assert text.count("\n## ") == 4
    assert "caf%E9" in text
    for path in (tmp_path / "outputs").glob("compare*/*.*"):
        path.read_text()


def run_here(folder, *words):
    """Run a command in a folder; return its exit code."""

    def work():
        os.chdir(folder)
        sys.argv = ["runner", *words]
        return entry.command()

    return run_in_child(work), None


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("a \u00b1 b \u2026", "ascii", "a +- b ..."),
        ("a \u00b1 b \u2026", "latin-1", "a \u00b1 b ..."),
        ("gr\u00f6\u00dfer \u732b", "ascii", "gr\\xf6\\xdfer \\u732b"),
        ("caf\udce9", "ascii", "caf\\xe9"),
        ("caf\udce9 \u732b", "utf-8", "caf\\xe9 \u732b"),
    ],
)
def test_what_an_encoding_lacks_is_readable(text, encoding, shown):
    assert encodable(text, encoding) == shown
