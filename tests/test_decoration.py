"""Decoration costs no result: TensorBoard pages, notebook, tables and the like fail here one by one in real tasks."""

import io
import json
import os
import sys
from dataclasses import replace

import kills
import numpy as np
import pytest
from comparing_runs import write_sweep
from running import MLP, checkpoint_checksums, events, job, metrics, result

import runner.assemble  # noqa: F401  (once, not in each child)
from runner import decoration
from runner.__main__ import main
from runner.comparing import page, report
from runner.engine import provenance
from runner.engine.logs import console, summaries
from runner.engine.logs.event_file import EventFile
from runner.engine.logs.sinks import Row
from runner.notebook import book
from runner.tasks import compare, diagnose_run, start
from runner.tasks import report as task_report

TRAIN = (*MLP, "steps=4", "probe=[]", "name=run", "test=end", "figures=never")


def broken(*_, **__):
    raise RuntimeError("broken on purpose")


def no_tensorboard():
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        del sys.modules[name]
    sys.modules["tensorboard"] = None


# What is broken: where, and the line that says so
DECORATION = {
    "charts": ((task_report, "chart_layout"), "TensorBoard's CUSTOM SCALARS page: not written"),
    "a text": ((summaries, "text"), "TensorBoard's config: not written"),
    "notebook": ((book, "_parse"), "outputs/notebook.md: cannot write the notebook; task=notebook writes it later"),
    "git": ((provenance, "repository"), "git in environment.json: not known"),
    "the machine": ((provenance.platform, "machine"), "platform in environment.json: not known"),
    "the doctor": ((diagnose_run, "diagnose"), "diagnosis.json: not written"),
    "speed": ((task_report, "median_cost"), "speed: not shown"),
    "the table": ((task_report, "print_table"), "summary: not shown"),
}


def run(folder, arguments, before=lambda: None):
    """Run a command in a child in a folder of its own, with something done before; return its code and its output."""
    folder.mkdir(exist_ok=True)

    def work():
        os.chdir(folder)
        before()
        code = main(list(arguments))
        sys.stdout.flush()
        return code

    return kills.run_child(work, folder / "output")


def left(folder):
    """Return what a training leaves, without times."""
    return {**result(folder), "seconds": 0}, metrics(folder), checkpoint_checksums(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    code, output = run(folder, TRAIN)
    assert code == 0, output
    return folder / "outputs/run"


@pytest.mark.parametrize("name", DECORATION)
def test_a_training_ends_the_same_without_any_of_its_decoration(tmp_path, whole, name):
    (module, function), line = DECORATION[name]
    code, output = run(tmp_path, TRAIN, lambda: setattr(module, function, broken))
    assert code == 0 and "Traceback" not in output, output
    warnings = [each for each in output.splitlines() if "broken on purpose" in each]
    assert f"runner: warning: {line} (RuntimeError: broken on purpose)" in warnings
    assert len(warnings) <= 2
    assert left(tmp_path / "outputs/run") == left(whole)
    environment = json.loads((tmp_path / "outputs/run/environment.json").read_text())
    assert environment.keys() == json.loads((whole / "environment.json").read_text()).keys()


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("session_start", "TensorBoard's HPARAMS page: not written"),
        ("session_end", "TensorBoard's HPARAMS page: end of the run not written"),
    ],
)
def test_a_trial_ends_the_same_without_its_row_of_hparams(tmp_path, whole, function, line, monkeypatch, capfd):
    monkeypatch.setattr(task_report, function, broken)
    words = [word for word in TRAIN if not word.startswith("name=")]
    assert start(replace(job(*words, f"hydra.run.dir={tmp_path / 'run'}"), is_trial=True)) == 0
    assert f"runner: warning: {line} (RuntimeError: broken on purpose)" in capfd.readouterr().err.splitlines()
    assert left(tmp_path / "run")[1:] == left(whole)[1:]


def test_a_training_needs_no_tensorboard(tmp_path, whole):
    code, output = run(tmp_path, TRAIN, no_tensorboard)
    assert output.count("warning") == 1
    assert code == 0, output
    assert output.count("TensorBoard's event file: not written (ModuleNotFoundError") == 1
    assert not list((tmp_path / "outputs/run").glob("events.out*"))
    assert left(tmp_path / "outputs/run") == left(whole)
    for arguments in (("task=preview", *TRAIN[:-2]), ("task=init_report", *TRAIN[:-2])):
        code, output = run(tmp_path, [word for word in arguments if word != "name=run"], no_tensorboard)
        assert code == 0, output


def test_a_note_of_any_bytes_costs_no_run(tmp_path):
    code, output = run(tmp_path, (*TRAIN, "note='\udcff \x00 \x1b[31m'"))
    assert code in (0, 2) and "Traceback" not in output, output


def test_a_module_that_fails_when_it_is_asked_for_what_it_lacks_costs_no_run(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def __getattr__(name):\n    raise ImportError(f'no {name}')\n")
    lazy = type("Lazy", (type(sys),), {"__getattr__": broken})("lazy_module")
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)
    monkeypatch.syspath_prepend(tmp_path)
    code, output = run(tmp_path, (*TRAIN, "plugins=[mine]"))
    assert (code, "warning" in output) == (0, False), output
    assert "mine" in json.loads((tmp_path / "outputs/run/environment.json").read_text())["code"]


def test_a_value_that_tensorboard_cannot_hold_is_left_out_with_one_line(tmp_path, capfd):
    """numpy makes no bins for values that are as near as numbers can be; the scalars of the step are there."""
    near = np.array([1.0, np.nextafter(1.0, 2.0)])
    with pytest.raises(ValueError, match="bins"):
        np.histogram(near, bins=30)
    file = EventFile(tmp_path / "events.out.tfevents.1000000000.here.1.0", 0)
    for step in (1, 2):
        file.write([Row(step, 0.0, {"loss": 0.5, "weights": near, "text": "a"})])
    file.close()
    assert [(step, tag) for step, tag, _ in events(tmp_path)] == [(1, "loss"), (1, "text"), (2, "loss"), (2, "text")]
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("runner: warning: TensorBoard's weights: not written (ValueError: ")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("when", ["start", "redraw"])
def test_a_progress_bar_that_fails_leaves_the_lines(monkeypatch, capfd, when):
    stream = Terminal()
    if when == "start":
        monkeypatch.setattr(console, "_start_progress", broken)
    screen = console.Console(steps=2, steps_per_epoch=1, batch_size=8, stream=stream)
    if when == "redraw":
        monkeypatch.setattr(screen._bar._progress, "update", broken)
    for step in (1, 2):
        screen.write([Row(step, float(step), {"val/loss": 0.5})])
    screen.close()
    assert capfd.readouterr().err == ("runner: warning: progress bar: not shown (RuntimeError: broken on purpose)\n")
    assert "epoch 2/2  step 2/2  val loss 0.5000" in stream.getvalue()


@pytest.mark.parametrize("part", ["explain_divergence", "_last_checkpoint_in_words"])
def test_a_divergence_stays_one_if_its_cause_cannot_be_found(tmp_path, part):
    words = (*TRAIN, "optim.lr=1e30", "norm=none")
    code, output = run(tmp_path, words, lambda: setattr(task_report, part, broken))
    assert code == 5 and "Traceback" not in output, output
    found = result(tmp_path / "outputs/run")
    assert (found["status"], found["exit"]) == ("diverged", 5) and "broken on purpose" in output


PICTURES = {"curves.svg", "response.svg", "seeds.svg"}
PAGES = {
    "html": ((page, "html_table"), "comparison.html: not written", {"comparison.html"}),
    "markdown": ((compare, "markdown_page"), "comparison.md: not written", {"comparison.md"}),
    "figures": (
        (page, "draw_all"),
        "figures of the comparison: not drawn",
        PICTURES,
    ),
    "importance": ((report, "importance"), "importance of the hyperparameters: not computed", set()),
    "screen": ((compare, "screen_table"), "comparison: not shown", set()),
}


def compared(folder, before=lambda: None):
    folder.mkdir()
    write_sweep(folder / "runs", {0.1: [0.80, 0.82, 0.81], 0.5: [0.90, 0.91, 0.92]})
    code, output = run(folder, ("task=compare", "runs=runs", "task.out=out"), before)
    assert code == 0 and "Traceback" not in output, output
    return output, {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


def test_a_comparison_has_its_numbers_without_any_of_its_pages(tmp_path):
    _, whole = compared(tmp_path / "whole")
    for name, ((module, function), line, missing) in PAGES.items():
        output, found = compared(tmp_path / name, lambda m=module, f=function: setattr(m, f, broken))
        assert output.count(f"runner: warning: {line} (RuntimeError: broken on purpose)") == 1
        assert found.keys() == whole.keys() - missing
        assert (found["comparison.csv"], found["runs.csv"]) == (whole["comparison.csv"], whole["runs.csv"])
        assert ("view " in output) == (name != "html")


def test_a_failure_is_one_short_line_whatever_is_raised(capfd):
    class Unspeakable(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    for error in (ValueError("a\nb\x1b[31m"), MemoryError(), SystemExit(1), Unspeakable(), ValueError("x" * 10**6)):
        with decoration.decorative("page: not written"):
            raise error
    lines = capfd.readouterr().err.splitlines()
    assert [line[:35] for line in lines] == ["runner: warning: page: not written "] * 5
    assert max(map(len, lines)) < 2100 and not any(ord(letter) < 32 for line in lines for letter in line)
    with pytest.raises(KeyboardInterrupt), decoration.decorative("page: not written"):
        raise KeyboardInterrupt
    assert capfd.readouterr().err == ""
