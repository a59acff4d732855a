"""Hostile inputs: nothing in them is executed, downloaded or written outside of the allowed folders."""

from __future__ import annotations

import shutil

import pytest
import yaml
from config_files import RECIPES
from hostile_runs import CHECKPOINTS, FOLDERS, STATES
from watching import REFUSED, SMALL, assert_harmless, run_watched, split_cases

TASKS = {"resume": ["resume=it"], "evaluate": ["task=evaluate", "run=it"]}
ALTERED = {**CHECKPOINTS, **STATES, **FOLDERS}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("case", split_cases(ALTERED, 28))
def test_an_altered_run_folder_harms_nobody(run, work, case, task):
    shutil.copytree(run, work / "it", symlinks=True)
    ALTERED[case](work / "it")
    unread = {0} if task == "evaluate" and case in STATES else set()
    storage = {4} if case == "lock as a link" else set()
    assert_harmless(run_watched(TASKS[task], work), work, REFUSED | unread | storage)


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


@pytest.mark.parametrize("words", split_cases(LINES, 15, " ".join))
def test_a_hostile_command_line_harms_nobody(work, words):
    given = [word for word in SMALL if word.partition("=")[0] not in {each.partition("=")[0] for each in words}]
    if any(word.startswith("model=") for word in words):
        given = [word for word in given if not word.startswith("model.")]
    codes = REFUSED | FINE.get(words[0].partition("=")[0], set())
    assert_harmless(run_watched([*given, *words], work), work, codes)
    assert codes & {0} or not list(work.iterdir())


HARMFUL = ("_target_", "hydra", "os.", "!!", "&a", "oc.", "plugins")
FILES = [name for name in RECIPES if any(word in RECIPES[name] for word in HARMFUL)]


@pytest.mark.parametrize("name", split_cases(FILES, 15))
def test_a_hostile_config_file_harms_nobody(work, tmp_path, name):
    (tmp_path / "mine/recipe").mkdir(parents=True)
    (tmp_path / "mine/recipe/mine.yaml").write_text(RECIPES[name])
    assert_harmless(run_watched(["recipe=mine", "--config-dir", str(tmp_path / "mine")], work), work)
    assert not list(work.iterdir())


KEPT = {"overrides": ["seed=1,2"], "config_name": "config", "give_again": []}
SWEEPS = {
    "plugins": {"overrides": ["plugins=[os]", "seed=1,2"]},
    "plugins with a plus": {"overrides": ["++plugins=[canary]"]},
    "folder elsewhere": {"overrides": ["hydra.sweep.dir=../../canary"]},
    "outputs elsewhere": {"overrides": ["outputs=../../canary"]},
    "trials elsewhere": {"overrides": ["seed=1,2", "hydra.sweep.subdir=../../canary"]},
    "trials at the root": {"overrides": ["hydra.sweep.subdir='/tmp/canary'"]},
    "a run elsewhere": {"overrides": ["hydra.run.dir=../../canary"]},
    "another resume": {"overrides": ["resume=it"]},
    "a target": {"overrides": ["optim._target_=os.system"]},
    "a launcher's target": {"overrides": ["hydra.launcher._target_=os.system"]},
    "callbacks": {"overrides": ["hydra.callbacks.x._target_=os.mkdir"]},
    "a flag": {"overrides": ["--config-dir=/tmp"]},
    "a call": {"overrides": ["note=${oc.env:HOME}"]},
    "a list in a list": {"overrides": [["seed=1"]]},
    "a config by path": {"config_name": "../../etc/passwd"},
    "a word too many": {"more": 1},
    "words as a text": {"overrides": "seed=1"},
    "nothing": None,
}


@pytest.mark.parametrize("name", split_cases(SWEEPS, 9))
def test_a_hostile_sweep_file_harms_nobody(work, name):
    (work / "it").mkdir()
    content = {**KEPT, **SWEEPS[name]} if SWEEPS[name] else None
    (work / "it/sweep.yaml").write_text(yaml.safe_dump(content))
    assert_harmless(run_watched(["resume=it"], work), work)
    assert [path.name for path in work.rglob("*")] == ["it", "sweep.yaml"]
