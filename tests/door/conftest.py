"""A small set of configs, so that exact error lines can be tested whatever options are shipped."""

import textwrap
from pathlib import Path

import pytest

from runner.__main__ import main
from runner.door import check, options, sizes

SHIPPED = options.conf_folder()

FILES = {
    "data/digits": "name: digits\nbatch_size: 64\n",
    "model/resnet": "name: resnet\ndepth: 8\nscale: null\n",
    "model/mlp": "name: mlp\nhidden: [128]\n",
    "model/cnn": "name: cnn\nchannels: [16, 32]\n",
    "optim/sgd": "name: sgd\nlr: 0.1\nfused: false\n",
    "optim/adam": "name: adam\nlr: 1e-3\nbetas: [0.9, 0.999]\nrules: {}\n",
    "scheduler/cosine": "name: cosine\nfinal: 0.0\nwarmup: 0%\n",
    "task/train": "name: train\n",
    "augment/crop": "crop:\n  padding: 1\n  mode: reflect\n",
    "augment/hflip": "hflip:\n  p: 0.5\n",
    "probe/images": "images:\n  every: 500\n",
    "recipe/fast": """
        # @package _global_
        defaults:
          - override /model: mlp
          - override /optim: adam
          - override /augment: [hflip, crop]
        epochs: 3
        optim: {lr: 0.02}
        augment: {crop: {padding: 2}}
    """,
    "recipe/search": """
        # @package _global_
        hydra:
          mode: MULTIRUN
          sweeper:
            params:
              optim.lr: 0.1,0.2
              model: choice(mlp,cnn)
    """,
}
DEFAULTS = """
    defaults:
      - data: digits
      - model: resnet
      - optim: sgd
      - scheduler: cosine
      - task: train
      - augment: []
      - probe: [images]
      - _self_
      - recipe: null
      - override hydra/job_logging: disabled
      - override hydra/hydra_logging: disabled
"""


def write(folder: Path, files: dict) -> Path:
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
    return folder


def bench_config() -> str:
    shipped = (SHIPPED / "config.yaml").read_text()
    rest = shipped[shipped.index("\nepochs:") :]
    return textwrap.dedent(DEFAULTS).lstrip() + "\naugment: {}\nprobe: {}\n" + rest


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Put the small configs in the place of ours, and the process into an empty folder."""
    conf = write(tmp_path / "conf", {**FILES, "config": bench_config()})
    monkeypatch.setattr(options, "conf_folder", lambda: conf)
    # Behind these configs there are no components
    for module in (check, sizes):
        monkeypatch.setattr(module, "annotation", lambda *knob: None)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return conf


@pytest.fixture
def refused(bench, capsys):
    """Return a function that gives the one line that a refused command line prints."""

    def line(*argv: str, code: int = 2) -> str:
        assert main(list(argv)) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert not list(Path().iterdir())
        return err.removesuffix("\n")

    return line


@pytest.fixture
def user(tmp_path):
    """Return a function that writes a user's config folder."""
    return lambda files: write(tmp_path / "mine", files)


ECHO = """
import json
from pathlib import Path
from runner.engine.saving.folder import Result, write_result
from runner.errors import DataError
from runner.registry import register

@register("task", "echo")
def echo(job, *, fail, code):
    folder = Path(job.folder or job.folder_name)
    if fail == job.config["seed"]:
        raise DataError("no such pictures")
    if code == job.config["seed"]:
        raise ZeroDivisionError("a mistake")
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: getattr(job, name) for name in ("overrides", "folder_name", "folder", "hash8", "group_hash")}
    (folder / "job.json").write_text(json.dumps({**kept, "config": job.config}))
    scores = {"val": {"best": {"accuracy": job.config["seed"] / 10}}}
    write_result(folder, Result(status="done", exit=0, scores=scores))
    return 0
"""


@pytest.fixture
def echo(bench, user, monkeypatch):
    """Return the arguments of a task of the user's own that writes down the job it gets."""
    folder = user({"task/echo": "name: echo\nfail: null\ncode: null\n"})
    (folder / "lab_echo.py").write_text(ECHO)
    monkeypatch.syspath_prepend(folder)
    return ["--config-dir", str(folder), "plugins=[lab_echo]", "task=echo"]
