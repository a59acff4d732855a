"""A plugin may change the working folder at any moment: what a run reads and writes stays where it was asked for."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from running import ROOT, metrics
from worker_server import stop_worker_server

from runner.__main__ import main
from runner.registry import _parts

PLUGIN = '''
import dataclasses, functools, os, tempfile

import torch
from torch import nn

from runner.components.data.pixels.image_files import ImageFiles
from runner.registry import find, register


def go(moment):
    """Go elsewhere at the moment that the test chose: to another folder, or to one that is then deleted."""
    if os.environ["MOMENT"] == moment:
        os.chdir(os.environ["ELSEWHERE"])
        if os.environ["DELETED"]:
            os.mkdir(gone := tempfile.mkdtemp() + "/gone")
            os.chdir(gone)
            os.rmdir(gone)


class Files(ImageFiles):
    def fetch(self, index, uniforms=None):
        if torch.utils.data.get_worker_info():
            go("worker")
        return super().fetch(index, uniforms)


def wandering(kind, option):
    inner = find(kind, option)

    @functools.wraps(inner)
    def build(*arguments, **knobs):
        go(f"build {kind}")
        made = inner(*arguments, **knobs)
        if kind == "data" and isinstance(made.train, ImageFiles):
            made = dataclasses.replace(made, train=Files(**vars(made.train)))
        return made

    register(kind, f"my_{option}")(build)


for each in os.environ["PARTS"].split():
    wandering(*each.split("="))


@register("activation")
def my_relu() -> nn.Module:
    """Return a ReLU that goes elsewhere in the first batch, or in validation."""
    go("build activation")
    return MyReLU()


class MyReLU(nn.ReLU):
    def forward(self, x):
        go("batch" if self.training else "validation")
        return super().forward(x)


go("import")
'''
PICK_ONE = {
    "data": "imagefolder", "preprocess": "standardize", "model": "mlp", "norm": "none", "init": "kaiming",
    "optim": "sgd", "scheduler": "cosine", "loss": "cross_entropy", "mix": "mixup", "average": "ema",
    "predict": "plain",
}  # fmt: skip
PICK_MANY = {"augment": "hflip", "regularizer": "l2", "probe": "grad_norm"}
FAST = ("data", "optim")
BUILDS = [
    pytest.param(f"build {kind}", marks=[] if kind in FAST else pytest.mark.slow)
    for kind in [*PICK_ONE, *PICK_MANY, "activation"]
]
WORDS = (
    *("--config-dir", "own", "plugins=[wanderer]", "activation=my_relu", "device=cpu", "threads=1", "model.hidden=[8]"),
    *(f"{kind}=my_{option}" for kind, option in PICK_ONE.items()),
    *(f"{kind}=[my_{option}]" for kind, option in PICK_MANY.items()),
    *(
        "data.root=images",
        "data.size=[8,8]",
        "data.batch_size=4",
        "data.test_fraction=0.25",
        "steps=4",
        "figures=always",
    ),
)
CACHED = ("data.cache=caches",)
STREAMED = ("data.cache=null", "data.placement=disk", "data.workers=1")
SEARCH = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optim.lr=interval(0.01,0.1)", "sweep=s")


DATABASE = "hydra.sweeper.storage='sqlite:///study.db'"


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The working folder, with images, a plugin and its config files."""
    home = tmp_path / "home"
    for kind, option in {**PICK_ONE, **PICK_MANY}.items():
        values = yaml.safe_load((ROOT / "conf" / kind / f"{option}.yaml").read_text())
        own = {f"my_{option}": values[option]} if kind in PICK_MANY else {**values, "name": f"my_{option}"}
        (home / "own" / kind).mkdir(parents=True)
        (home / "own" / kind / f"my_{option}.yaml").write_text(yaml.safe_dump(own))
    (home / "own" / "activation").mkdir()
    (home / "own" / "activation" / "my_relu.yaml").write_text("name: my_relu\n")
    (home / "wanderer.py").write_text(PLUGIN)
    draw = np.random.default_rng(0)
    for label in "ab":
        (home / "images" / label).mkdir(parents=True)
        for number in range(12):
            pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(home / "images" / label / f"{number}.png")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.setenv("PYTHONPATH", f"{home}:{ROOT}")
    monkeypatch.setenv("PARTS", " ".join(f"{kind}={option}" for kind, option in {**PICK_ONE, **PICK_MANY}.items()))
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(home)
    return home


def wander(lab, monkeypatch, moment, *words, deleted=False):
    """Run a command with a plugin that goes elsewhere at a moment; nothing is left there."""
    monkeypatch.setenv("MOMENT", moment)
    monkeypatch.setenv("DELETED", "1" if deleted else "")
    # Else workers would have the moment of an earlier command in their environment
    stop_worker_server()
    # The plugin is imported by each command, as in a process of its own
    sys.modules.pop("wanderer", None)
    for parts in _parts.values():
        for name in [name for name in parts if name.startswith("my_")]:
            del parts[name]
    os.chdir(lab)
    code = main([*words])
    moved = os.open(".", os.O_RDONLY)
    os.close(moved)
    os.chdir(lab)
    assert code == 0
    assert list((lab.parent / "elsewhere").iterdir()) == []


def outcome(folder: Path) -> tuple:
    """Return all that a run leaves, without what depends on time: names of files, logged numbers, scores, config."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "tfevents" not in path.name)
    rows = [row for row in metrics(folder) if not row[1].startswith("time/")]
    result = json.loads((folder / "result.json").read_text())
    return names, rows, result["scores"], result["status"], (folder / "config.yaml").read_text()


@pytest.fixture(scope="module")
def stayed():
    """The outcomes of commands whose plugin stayed where it was, by their words."""
    return {}


def expected(lab, monkeypatch, stayed, *words):
    if words not in stayed:
        wander(lab, monkeypatch, "never", *words, "outputs=quiet")
        [folder] = [path.parent for path in (lab / "quiet").rglob("result.json")]
        stayed[words] = outcome(folder)
        shutil.rmtree(lab / "quiet")
    return stayed[words]


def same(found, wanted) -> bool:
    """Return True if two outcomes are equal but for the place of the outputs."""
    return [*found[:4], found[4].replace("outputs: outputs", "")] == [
        *wanted[:4],
        wanted[4].replace("outputs: quiet", ""),
    ]


SLOW = pytest.mark.slow


@pytest.mark.parametrize("deleted", [False, True], ids=["elsewhere", "deleted"])
@pytest.mark.parametrize(
    "moment", ["import", pytest.param("batch", marks=SLOW), pytest.param("validation", marks=SLOW)]
)
def test_a_run_stays_where_it_was_started(lab, monkeypatch, capfd, stayed, moment, deleted):
    wanted = expected(lab, monkeypatch, stayed, *WORDS, *CACHED, "name=run")
    shutil.rmtree(lab / "caches", ignore_errors=True)
    capfd.readouterr()
    wander(lab, monkeypatch, moment, *WORDS, *CACHED, "name=run", deleted=deleted)
    assert same(outcome(lab / "outputs" / "run"), wanted)
    assert (lab / "outputs" / "notebook.md").exists() and list((lab / "caches").iterdir())
    assert "saved in      outputs/run\n" in capfd.readouterr().out


@pytest.mark.parametrize("moment", BUILDS)
def test_a_run_stays_whichever_part_goes_elsewhere(lab, monkeypatch, stayed, moment):
    wanted = expected(lab, monkeypatch, stayed, *WORDS, *CACHED, "name=run")
    wander(lab, monkeypatch, moment, *WORDS, *CACHED, "name=run", deleted=True)
    assert same(outcome(lab / "outputs" / "run"), wanted)


@pytest.mark.parametrize("moment", ["import", pytest.param("worker", marks=SLOW)])
def test_worker_processes_read_where_the_run_was_started(lab, monkeypatch, stayed, moment):
    wanted = expected(lab, monkeypatch, stayed, *WORDS, *STREAMED, "name=run")
    wander(lab, monkeypatch, moment, *WORDS, *STREAMED, "name=run", deleted=True)
    assert same(outcome(lab / "outputs" / "run"), wanted)


@pytest.mark.parametrize("moment", ["import", "validation"])
def test_a_resumed_and_an_evaluated_run_stay(lab, monkeypatch, capfd, stayed, moment):
    wander(lab, monkeypatch, "never", *WORDS, *CACHED, "name=run", "checkpoint_every=2steps")
    folder = lab / "outputs" / "run"
    whole = outcome(folder)
    for path in (folder / "checkpoints").glob("*0004*"):
        path.unlink()
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "status": "interrupted", "exit": 130, "weights": None}))
    again = ("--config-dir", "own", "plugins=[wanderer]")
    wander(lab, monkeypatch, moment, *again, "resume=outputs/run", deleted=True)
    assert outcome(folder)[1:] == whole[1:]
    capfd.readouterr()
    wander(lab, monkeypatch, moment, *again, "task=evaluate", "run=outputs/run", deleted=True)
    assert capfd.readouterr().out.startswith("outputs/run: ")
    assert json.loads((folder / "result.json").read_text())["test_reads"] == result["test_reads"] + 2


@pytest.mark.parametrize("moment", ["import", pytest.param("batch", marks=SLOW)])
@pytest.mark.parametrize(
    "words",
    [
        ("-m", "seed=0,1", "sweep=s"),
        pytest.param(SEARCH, marks=SLOW),
        pytest.param(
            (*SEARCH, "hydra/sweeper/pruner=median", "hydra.sweeper.storage='sqlite:///study.db'"), marks=SLOW
        ),
        pytest.param((*SEARCH, "hydra.sweeper.storage=study.db"), marks=SLOW),
    ],
    ids=["sweep", "search", "sqlite", "journal"],
)
def test_sweeps_and_searches_stay(lab, monkeypatch, words, moment):
    wander(lab, monkeypatch, moment, *WORDS, *CACHED, *words, deleted=True)
    trials = sorted(path.parent for path in (lab / "outputs" / "sweeps" / "s").glob("*/result.json"))
    assert [json.loads((trial / "result.json").read_text())["status"] for trial in trials] == ["done", "done"]
    assert not [path.name for path in lab.iterdir() if path.name not in KNOWN]
    # The same command finds all of it
    before = {path: path.read_bytes() for trial in trials for path in trial.rglob("*") if path.is_file()}
    wander(lab, monkeypatch, moment, *WORDS, *CACHED, *words, deleted=True)
    assert {path: path.read_bytes() for path in before} == before


KNOWN = {"outputs", "caches", "own", "images", "wanderer.py", "__pycache__", "study.db", "study.db.lock"}


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=SLOW)])
def test_hydras_launchers_stay(lab, monkeypatch, launcher):
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ("-m", "seed=0,1", "sweep=s", f"hydra/launcher={launcher}")
    wander(lab, monkeypatch, "import", *WORDS, *CACHED, *words, deleted=True)
    trials = sorted(path.parent for path in (lab / "outputs" / "sweeps" / "s").glob("*/result.json"))
    assert [json.loads((trial / "result.json").read_text())["status"] for trial in trials] == ["done", "done"]
    assert not [path.name for path in lab.iterdir() if path.name not in KNOWN]
