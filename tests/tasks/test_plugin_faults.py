"""Whatever a plugin does wrong, at import, when built, at the first examples or in a step, is the user's."""

import json
import os
import sys
from pathlib import Path

import pytest
from running import run_in_child

import runner.assemble  # noqa: F401  (once, not in each child)
from runner import __main__ as entry
from runner.streams import open_screen

LAB = Path(__file__).parent.parent / "fixtures" / "plugin_lab"
SMALL = (
    "model=net",
    "loss=plain",
    "mix=as_is",
    "scheduler=flat",
    "augment=[same]",
    "optim=own",
    "data=four",
    "probe=[]",
)
COMMAND = ("--config-dir", str(LAB / "conf"), "plugins=[faulty]", *SMALL, "steps=8", "figures=never", "name=run")


def run(folder, fault, *words):
    """Return exit code, the lines from the error on, and the result of the run if there is one."""

    def work():
        os.chdir(folder)
        os.environ["FAULT"] = fault
        sys.path[:0] = [str(LAB)]
        with open("said", "w") as said:  # noqa: PTH123
            os.dup2(said.fileno(), 2)
        sys.stderr = open_screen(2)
        sys.argv = ["runner", *COMMAND, *words]
        return entry.command()

    code = run_in_child(work)
    found = folder / "outputs" / "run" / "result.json"
    lines = (folder / "said").read_text().splitlines()
    lines = lines[next((i for i, line in enumerate(lines) if line.startswith("runner: error")), len(lines)) :]
    return code, lines, json.loads(found.read_text()) if found.exists() else None


def line_of(fault):
    """Return the line of the lab where a fault is."""
    text = (LAB / "faulty.py").read_text().splitlines()
    return next(i for i, line in enumerate(text, 1) if line.endswith(f'# "{fault}"'))


def test_the_lab_without_a_fault_trains(tmp_path):
    code, lines, result = run(tmp_path, "")
    assert (code, lines, result["status"]) == (0, [], "done")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("import raises", "plugins: cannot import 'faulty': ValueError: at import"),
        ("build raises", "KeyError: 'width'"),
        ("forward raises", "ValueError: forward"),
        ("loss raises", "KeyError: 'weight'"),
    ],
)
def test_an_exception_before_step_1_leaves_nothing_behind(tmp_path, fault, said):
    code, lines, result = run(tmp_path, fault)
    assert (code, result) == (2, None)
    assert said in lines[0] and f"faulty.py:{line_of(fault)}" in lines[0]
    assert lines[1] == "Traceback (most recent call last):" and str(LAB / "faulty.py") in lines[2]
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "fault", ["step raises", "loss in a step", "mix in a step", "schedule in a step", "optim step"]
)
def test_an_exception_in_a_step_ends_the_run_with_its_reason(tmp_path, fault):
    code, lines, result = run(tmp_path, fault)
    assert code == 2
    [line] = [line for line in lines if line.startswith("runner: error")]
    assert f"plugin {LAB / 'faulty.py'}:{line_of(fault)}: " in line
    assert (result["status"], result["exit"]) == ("failed", 2)
    assert line == f"runner: error: {result['reason']}"
    assert f'File "{LAB / "faulty.py"}", line {line_of(fault)}' in "".join(lines)
    assert "bug" not in line


def test_an_exception_in_a_module_that_a_plugin_imports_is_the_users(tmp_path):
    code, lines, _ = run(tmp_path, "helper raises")
    assert code == 2
    assert lines[0] == f"runner: error: plugin {LAB / 'plugin_helper.py'}:5: RuntimeError: from the helper"
    assert f'File "{LAB / "faulty.py"}", line {line_of("helper raises")}' in lines[2]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("model is None", "model=net returned None, must return a torch.nn.Module"),
        ("too few logits", "model=net returned float32 (4, 3) on cpu, must return logits (4, 4) on cpu"),
        ("tuple of logits", "model=net returned a tuple, must return logits (4, 4) on cpu"),
        ("loss of each", "loss=plain returned float32 (4,) on cpu, must return the mean loss () on cpu"),
        ("loss is a number", "loss=plain returned a float, must return the mean loss () on cpu"),
        ("no loss function", "loss=plain returned None, must return a function"),
        ("loss elsewhere", "loss=plain returned float32 () on meta, must return the mean loss () on cpu"),
        ("mix of one", "mix=as_is returned float32 (4, 1, 4, 4) on cpu, must return two tensors: images, labels"),
        ("flat images", "augment=same returned uint8 (4, 16) on cpu, must return images (4, C, H, W) on cpu"),
        ("augment is a function", "augment=same returned a function, must return an Augment"),
        ("factor is text", "scheduler=flat returned a str, must return a number"),
        ("no optimizer", "optim=own returned None, must return a torch.optim.Optimizer"),
        ("float images", "data=four has the images float32 (2, 1, 4, 4) on cpu in train, must be uint8 (2, 1, 4, 4)"),
        ("labels too large", "data=four has labels from 0 to 6 in train, must be 0 to 3"),
        ("float labels", "data=four has the labels float32 (64,) on cpu in train, must be one int64 per example (N,)"),
    ],
)
def test_what_a_component_returns_is_checked_before_step_1(tmp_path, fault, said):
    code, lines, _ = run(tmp_path, fault)
    assert code == 2
    assert lines[0].startswith(f"runner: error: plugin {LAB / 'faulty.py'}:") and f": {said}" in lines[0], lines
    assert len(lines) == 1
    assert not (tmp_path / "outputs").exists()


def test_trying_the_components_changes_no_number(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, _, first = run(tmp_path / "a", "")
    _, _, second = run(tmp_path / "b", "no checks")
    assert first["scores"] == second["scores"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("frozen moves", "optim=own breaks the invariant 'frozen': the weight still is frozen and changed in step 1"),
        ("misses a weight", "optim=own breaks the invariant 'optimizer': the optimizer does not have the weight"),
        ("labels in a step", "mix=as_is breaks the invariant 'labels': labels are float32"),
        (
            "counts in validation",
            "model=net breaks the invariant 'evaluation': averaged count changed during validation",
        ),
    ],
)
def test_an_invariant_that_a_plugin_breaks_is_the_users(tmp_path, fault, said):
    code, lines, result = run(tmp_path, fault)
    assert code == 2
    assert lines[0].startswith(f"runner: error: plugin {LAB / 'faulty.py'}:") and f": {said}" in lines[0], lines
    assert result["status"] == "failed"


def test_without_the_invariants_a_plugin_may_break_them(tmp_path):
    assert run(tmp_path, "frozen moves", "invariants=never")[0] == 0
