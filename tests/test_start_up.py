"""Imports of a run before its second step and until its end, and garbage collection."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest

from runner.__main__ import main
from tests.components.test_data import write_idx
from tests.running import ROOT

# After each step it notes what is imported; `heavy` is what a first step has no use for.
PROGRAM = """
import sys
from runner.__main__ import main
from runner.engine.learner import Learner
heavy = {"matplotlib", "PIL", "sklearn", "torchvision", "rich", "absl", "tensorboard.compat.tensorflow_stub"}
late = set()
def note(learner, name, value):
    object.__setattr__(learner, name, value)
    if name == "step" and value == 2:
        late.update(heavy & set(sys.modules))
Learner.__setattr__ = note
for words in sys.argv[1:]:
    assert main([*words.split(), "steps=2", "figures=never"]) == 0, words
    assert "torch._dynamo" not in sys.modules, words
"""


def ended(program, *words, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", program, *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.ci_slice
@pytest.mark.slow
def test_no_run_imports_what_only_compiling_needs(tmp_path):
    runs = [
        "model=mlp",
        "augment=[]",
        "model=mlp optim=adamw average=swa clip=1",
        "model=mlp optim=muon average=lookahead accumulate=2",
        "model=mlp optim=schedulefree average=schedulefree scheduler=constant precision=bf16",
        "model=mlp optim=lamb regularizer=[l1,max_norm] loss=focal",
    ]
    ended(PROGRAM, *runs, cwd=tmp_path)


def test_the_first_steps_import_nothing_heavy(tmp_path):
    ended(PROGRAM + "assert not late, late\n", "model=mlp", cwd=tmp_path)


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_set_that_torchvision_reads_does_not_bring_all_of_it(tmp_path):
    for part, count in (("train", 100), ("t10k", 30)):
        write_idx(tmp_path / f"MNIST/raw/{part}-images-idx3-ubyte", np.zeros((count, 28, 28), np.uint8))
        write_idx(tmp_path / f"MNIST/raw/{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    words = "data=mnist data.root=. data.download=false data.val_size=20 data.batch_size=40 model=mlp probe=[]"
    ended(PROGRAM.replace(', "PIL"', "") + "assert not late, late\n", words, cwd=tmp_path)


ANSWERED = """
import sys
from runner.__main__ import main
assert main(["--help"]) == 0
late = {"omegaconf", "hydra", "dataclasses", "inspect", "importlib.metadata", "traceback", "runner.settings"}
assert not late & set(sys.modules), late & set(sys.modules)
"""


def test_the_help_imports_neither_hydra_nor_what_takes_long_to_define(tmp_path):
    assert "Usage" in ended(ANSWERED, cwd=tmp_path)


LEFT_OUT = """
import sys
from runner.__main__ import main
words = sys.argv[1].split()
assert main(words) == int(sys.argv[2])
late = set(sys.argv[3].split(","))
assert not late & set(sys.modules), late & set(sys.modules)
"""


def test_a_config_without_overrides_is_printed_without_hydra(tmp_path):
    assert "optim:" in ended(LEFT_OUT, "--cfg job", "0", "hydra,torch,numpy", cwd=tmp_path)


@pytest.mark.parametrize(
    ("words", "code"), [("optim.lr=abc", "2"), ("model=resnett", "2"), ("--cfg job recipe=digits model=mlp", "0")]
)
def test_options_that_come_with_runner_are_not_composed_by_hydra(tmp_path, words, code):
    # Imported by the scan for Hydra's plugins, when Hydra composes
    late = "runner.door.hydra_compose,hydra._internal.core_plugins.file_config_source,torch,numpy"
    ended(LEFT_OUT, words, code, late, cwd=tmp_path)


COLLECTED = """
import gc, sys
from runner import tasks
from runner.__main__ import command
def look(kind, config, **context):
    print("frozen", gc.isenabled() and gc.get_freeze_count() > 100_000)
    return 0
tasks.build = look
sys.argv[1:] = ["model=mlp"]
print("collecting", gc.isenabled())
command()
"""


def test_imports_are_not_searched_for_garbage_but_a_task_is(tmp_path):
    assert ended(COLLECTED, cwd=tmp_path).split() == ["collecting", "True", "frozen", "True"]


@pytest.mark.parametrize("words", [["--version"], ["optim.lr=abc"]])
def test_who_calls_the_door_from_python_keeps_the_collector(words):
    frozen = gc.get_freeze_count()
    main(words)
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
