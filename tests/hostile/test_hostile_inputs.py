"""Inputs written to harm: nothing in them is run, fetched, or written out of place, whoever the file came from."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from audit import Watch
from config_files import RECIPES
from hostile_runs import CHECKPOINTS, FOLDERS, STATES

from runner.__main__ import main
from runner.tasks import load_tasks

SMALL = ("model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "epochs=1", "average=none", "figures=never")
PATIENCE = 60  # seconds until a child that has not answered is a hang
REFUSED = {2, 3}


@dataclass(frozen=True)
class Seen:
    """What a hostile input led to."""

    code: int
    out: str
    err: str
    events: list[str]


def watched(argv: list[str], folder: Path) -> Seen:
    """Run a command line in a forked child, in a folder that is the only place it may write to."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(PATIENCE)
            os.chdir(folder)
            sys.dont_write_bytecode = True
            out, err, watch = io.StringIO(), io.StringIO(), Watch([folder])
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(argv)
            events, watch.allowed = list(watch.seen), [Path("/")]
            os.write(writer, json.dumps([code, out.getvalue()[-9000:], err.getvalue()[-9000:], events]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    assert data, f"a hang, or a crash: {argv}"
    return Seen(*json.loads(data))


def harmless(seen: Seen, folder: Path, codes: set[int] = REFUSED) -> None:
    """Check that an input was refused in one line and did nothing."""
    assert seen.events == []
    assert not (folder.parent / "canary").exists() and not (folder / "canary").exists()
    assert "Traceback" not in seen.err, seen.err
    assert seen.code in codes, (seen.code, seen.err)
    if seen.code:
        assert seen.err.startswith("runner: error: ") and seen.err.count("\n") == 1, seen.err
        assert all(letter.isprintable() for letter in seen.err[:-1])


@pytest.fixture(scope="module", autouse=True)
def imported():
    import tempfile

    import torchvision.models  # noqa: F401

    tempfile.gettempdir()
    """Import once what every child would."""
    torch.set_num_threads(1)
    load_tasks()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a small run with its checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    seen = watched([*SMALL, "name=run"], folder)
    assert seen.code == 0 and seen.events == [], (seen.err, seen.events)
    return folder / "outputs/run"


@pytest.fixture
def work(tmp_path):
    """The only folder that may be written to."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


TASKS = {"resume": ["resume=it"], "evaluate": ["task=evaluate", "run=it"]}
ALTERED = {**CHECKPOINTS, **STATES, **FOLDERS}


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("case", ALTERED)
def test_an_altered_run_folder_harms_nobody(run, work, case, task):
    shutil.copytree(run, work / "it", symlinks=True)
    ALTERED[case](work / "it")
    codes = (
        REFUSED
        | ({0} if task == "evaluate" and case in STATES else set())
        | ({4} if case == "lock as a link" else set())
    )
    harmless(watched(TASKS[task], work), work, codes)


FEW = [
    "pickle as weights",
    "torch.save as state",
    "zip as weights",
    "overlapping offsets as weights",
    "huge shape as state",
    "config with a tag",
    "config as a bomb",
    "config with a part's name",
    "result with weights that climb",
    "step as a word",
]


@pytest.mark.parametrize("case", FEW)
def test_some_altered_run_folders_harm_nobody(run, work, case):
    shutil.copytree(run, work / "it", symlinks=True)
    ALTERED[case](work / "it")
    harmless(watched(TASKS["resume"], work), work)


# --- command lines and config files

LINES = [
    ["_target_=os.system"],
    ["optim._target_=os.system"],
    ["optim={_target_: os.system}"],
    ["+model._partial_=true"],
    ["optim.rules={a: [{b: {_target_: os.mkdir, path: canary}}]}"],
    ["optim.lr={_args_: [x], _target_: os.system}"],
    ["hydra.callbacks.x._target_=os.mkdir"],
    ["+hydra.callbacks.x={_target_: os.mkdir, path: canary}"],
    ["hydra.launcher._target_=os.mkdir", "-m"],
    ["hydra.sweeper._target_=os.mkdir", "-m"],
    ["hydra.job_logging.x=1"],
    ["hydra.sweeper.params={plugins: [os]}", "-m"],
    ["hydra.searchpath=[file:///tmp]"],
    ["hydra/job_logging=stdout"],
    ["hydra.job.env_set.A=1"],
    ["hydra/launcher=../../x", "-m"],
    ["hydra.hydra_logging.formatters.x.()=os.mkdir"],
    ["optim=os.system"],
    ["model=torch.load"],
    ["model=__import__"],
    ["augment=[os.system]"],
    ["loss=builtins.eval"],
    ["task=os.system"],
    ["probe=[__class__]"],
    ["model.name=os.system"],
    ["task.name=os.system"],
    ["activation=../relu"],
    ["model=torchvision", "model.arch=os.system"],
    ["model=torchvision", "model.arch=__init__"],
    ["init=conf/init/kaiming"],
    ["name=../../canary"],
    ["name=/tmp/canary"],
    ["name=.."],
    ["sweep=../../canary", "-m", "seed=1,2"],
    ["name=a/../../canary"],
    ["note=${oc.env:HOME}"],
    ["note=${oc.create:{_target_: os.system}}"],
    ["plugins=${oc.decode:'[os]'}"],
    ["plugins=[../canary]"],
    ["plugins=[canary.that.is.not]"],
    ["plugins=['']"],
    ["plugins=[/tmp/canary]"],
    ["resume=../../etc"],
    ["resume=/etc/passwd"],
    ["run=/dev/zero", "task=evaluate"],
    ["resume=" + "x" * 5000],
    ["hydra.run.dir=" + "x" * 5000],
    ["hydra.run.dir="],
    ["model.hidden=[4611686018427387904]"],
    ["model.hidden=[1099511627776,1099511627776]"],
    ["data.batch_size=9223372036854775807"],
    ["data=gaussian", "data.size=4000000000"],
    ["data=synthetic", "data.train=4611686018427387904"],
    ["model.hidden=[0]"],
    ["model=torchvision", "model.weights=/etc/passwd"],
    ["model=torchvision", "model.weights=/dev/zero"],
    ["data=imagefolder", "data.root=/proc/self"],
    ["data=imagefolder", "data.root=" + "x" * 5000],
    ["data=cifar10", "data.download=false"],
]
FINE = {"data.batch_size": {0}, "plugins": {2}, "data": {2, 7}, "hydra.run.dir": {2, 4}}


@pytest.mark.parametrize("words", LINES, ids=lambda words: " ".join(words)[:60])
def test_a_hostile_command_line_harms_nobody(work, words):
    given = [word for word in SMALL if word.partition("=")[0] not in {each.partition("=")[0] for each in words}]
    if any(word.startswith("model=") for word in words):
        given = [word for word in given if not word.startswith("model.")]
    codes = REFUSED | FINE.get(words[0].partition("=")[0], set())
    harmless(watched([*given, *words], work), work, codes)
    assert codes & {0} or not list(work.iterdir())


@pytest.mark.parametrize(
    "name",
    [name for name in RECIPES if any(word in RECIPES[name] for word in ("_target_", "hydra", "os", "!!", "&a", "oc."))],
)
def test_a_hostile_config_file_harms_nobody(work, tmp_path, name):
    (tmp_path / "mine/recipe").mkdir(parents=True)
    (tmp_path / "mine/recipe/mine.yaml").write_text(RECIPES[name])
    harmless(watched(["recipe=mine", "--config-dir", str(tmp_path / "mine")], work), work)
    assert not list(work.iterdir())
