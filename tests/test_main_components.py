"""Components that a script or notebook registers itself are options in it, and are recorded in the run."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from running import ROOT, command

HEAD = """
import json, sys
import runner
import torch
from runner.components.optim.groups import Groups
SMALL = ["model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "steps=6", "figures=never"]


def refused(call, *words):
    try:
        call([*SMALL, *words])
    except runner.RunnerError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


def lines(tmp_path, text):
    """Return the JSON lines that a script prints."""
    (tmp_path / "script.py").write_text(HEAD + text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(('["', "{"))]


USED = """
@runner.register("optim")
def plain(groups: Groups, *, factor: float = 1.0):
    return torch.optim.SGD([{**each, "lr": factor * each["lr"]} for each in groups.param_groups()])


@runner.register("regularizer")
def half(model, *, p: float = 0.5):
    return lambda m: p * sum((w * w).sum() for w in m.parameters())


words = [*SMALL, "optim=plain", "optim.lr=0.05", "optim.weight_decay=0", "optim.factor=2", "scheduler=constant"]
print(json.dumps(runner.compose(words)["optim"]))
own = runner.train([*words, "name=own"])
sgd = ["optim=sgd", "optim.lr=0.1", "optim.weight_decay=0", "scheduler=constant"]
shipped = runner.train([*SMALL, *sgd, "name=shipped"])
torch.testing.assert_close(own.history["val/loss"].values, shipped.history["val/loss"].values)
print(json.dumps(["same", own.config["plugins"]]))
print(json.dumps(["shipped", shipped.config["plugins"]]))
trials = runner.sweep([*words, "seed=0,1", "sweep=two"])
print(json.dumps(["trials", [str(each.status) for each in trials]]))
print(json.dumps(["equal", trials[0].history["val/loss"] == own.history["val/loss"]]))
again = runner.sweep(["resume=outputs/sweeps/two"])
print(json.dumps(["again", [str(each.folder) for each in again] == [str(each.folder) for each in trials]]))
refused(runner.sweep, "optim=plain", "optim.lr=1", "optim.weight_decay=0", "seed=0,1", "hydra.launcher.workers=2")
refused(runner.train, "optim=plain", "optim.lr=1")
"""


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_component_of_a_script_trains_as_the_same_one_of_runner(tmp_path):
    printed = lines(tmp_path, USED)
    assert printed[0] == {
        "name": "plain",
        "lr": 0.05,
        "weight_decay": 0,
        "no_decay": ["bias", "norm", "prelu", "position", "token", "scale"],
        "rules": [],
        "factor": 2,
    }
    assert printed[1:6] == [
        ["same", ["__main__"]],
        ["shipped", []],
        ["trials", ["done", "done"]],
        ["equal", True],
        ["again", True],
    ]
    assert printed[6][0] == "ConfigError"
    assert printed[6][1].startswith("hydra.launcher.workers: not supported with components of __main__")
    assert printed[7][0] == "ConfigError"
    assert printed[7][1].startswith("optim.weight_decay: ")
    run = tmp_path / "outputs" / "own"
    assert "def plain(groups: Groups" in (run / "main_components.py").read_text()
    code = json.loads((run / "environment.json").read_text())["code"]
    assert {"__main__.optim.plain", "__main__.regularizer.half"} == code.keys()
    assert not (tmp_path / "outputs" / "shipped" / "main_components.py").exists()
    # The command line cannot know them, and says so
    for words in (["plugins=[__main__]"], ["resume=outputs/own", "plugins=[__main__]"]):
        refused = command(*words, cwd=tmp_path)
        assert refused.returncode == 2
        assert refused.stderr.startswith("runner: error: plugins: got __main__, the components of a notebook or script")
    for key, *words in (["resume"], ["run", "task=evaluate"]):
        refused = command(*words, f"{key}=outputs/own", cwd=tmp_path)
        line = f"{key}: this run has optim=plain of a notebook or script; call runner there"
        assert (refused.returncode, refused.stderr) == (2, f"runner: error: {line}\n")
    assert yaml.safe_load((tmp_path / "outputs/sweeps/two/sweep.yaml").read_text())["give_again"] == [
        "plugins=[__main__]"
    ]


CHOSEN_BY_FILES = """
from pathlib import Path
HEADER = "# @package _global_\\ndefaults:\\n  - override "
SEARCH = "/hydra/sweeper: optuna\\nhydra: {sweeper: {n_trials: 2, params: {activation: 'relu,leaky'}}}\\n"
Path("my_conf/recipe").mkdir(parents=True)
Path("my_conf/recipe/mine.yaml").write_text(f"{HEADER}/activation: leaky\\n")
Path("my_conf/recipe/tried.yaml").write_text(HEADER + SEARCH)
shipped = runner.train([*SMALL, "name=shipped"])


@runner.register("activation")
def leaky(*, slope: float = 0.1):
    return torch.nn.LeakyReLU(slope)


def recorded(call, *words):
    found = call(words)
    found = found[0] if isinstance(found, list) else found
    print(json.dumps({" ".join(words[-2:]): found["plugins"] if isinstance(found, dict) else found.config["plugins"]}))


own = [*SMALL, "--config-dir", "my_conf"]
recorded(runner.train, *own, "name=a", "recipe=mine")
recorded(runner.compose, *own, "name=b", "recipe=mine")
recorded(runner.sweep, *own, "seed=0,1", "recipe=mine")
recorded(runner.sweep, *own, "sweep=tried", "recipe=tried")
recorded(runner.train, *SMALL, "seed=2", "name=leaky")
recorded(runner.train, "steps=9", "extend=outputs/a")
recorded(runner.train, "steps=9", "extend=outputs/shipped")
refused(runner.sweep, "--config-dir", "my_conf", "recipe=mine", "seed=0,1", "hydra.launcher.workers=2")
"""


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_run_records_the_plugin_if_a_file_or_an_earlier_run_chooses_a_component_of_it(tmp_path):
    *printed, refused = lines(tmp_path, CHOSEN_BY_FILES)
    assert printed == [
        {"name=a recipe=mine": ["__main__"]},
        {"name=b recipe=mine": ["__main__"]},
        {"seed=0,1 recipe=mine": ["__main__"]},
        {"sweep=tried recipe=tried": ["__main__"]},
        {"seed=2 name=leaky": []},
        {"steps=9 extend=outputs/a": ["__main__"]},
        {"steps=9 extend=outputs/shipped": []},
    ]
    assert refused[1].startswith("hydra.launcher.workers: not supported with components of __main__")
    assert (tmp_path / "outputs" / "a" / "main_components.py").exists()


FAULTY = """
def attempt(kind, name, make):
    make.__name__ = name
    try:
        runner.register(kind)(make)
    except runner.RunnerError as error:
        print(json.dumps([type(error).__name__, str(error)]))


attempt("optim", "sgd", lambda model: None)


@runner.register("activation")
def broken():
    raise ValueError("no such thing")


refused(runner.train, "activation=broken")
refused(runner.train, "activation=brokn")


@runner.register("activation")
def strange(*, shape=object()):
    return torch.nn.ReLU()


refused(runner.train, "activation=strange")
"""


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    return lines(tmp_path_factory.mktemp("faults"), FAULTY)


def test_faults_of_a_component_are_one_line(faults):
    assert faults == [
        ["ConfigError", "optim=sgd: comes with runner; register yours under another name"],
        ["PluginError", "plugin __main__.broken, line 3: ValueError: no such thing"],
        ["ConfigError", faults[2][1]],
        ["ConfigError", "activation=strange: a default must be a number, a text, a list or a mapping"],
    ]
    assert faults[2][1].startswith("activation: unknown option 'brokn'; did you mean 'broken'?")


def test_an_unknown_kind_is_refused(tmp_path):
    text = '@runner.register("optimm")\ndef mine(model):\n    return None\n\n\nrefused(runner.train)\n'
    (error,) = lines(tmp_path, text)
    assert error[1].startswith("register('optimm'): unknown kind 'optimm'; did you mean 'optim'?")
