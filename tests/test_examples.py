"""The notebooks in examples/ run as they are, and are kept without outputs."""

import json
import os
import subprocess
import sys

import pytest
from running import ROOT

BOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
# The first cells train, load and predict; a sweep and a comparison follow
HEAVY = ("runner.sweep", "task=compare")


def code_cells(book):
    """Return the source of each code cell."""
    return ["".join(cell["source"]) for cell in json.loads(book.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
def test_a_notebook_is_kept_without_outputs(book):
    cells = json.loads(book.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 3
    assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []
    assert len({cell["id"] for cell in cells}) == len(cells)


def executed(text, folder, *, cells):
    """Run cells one after the other in one process, as a notebook does; return what they print."""
    (folder / "cells.json").write_text(json.dumps(cells))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


PLAIN = """
import json
for cell in json.load(open("cells.json")):
    exec(cell, globals())
"""


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
def test_a_notebook_trains_and_predicts(book, tmp_path):
    cells = [cell for cell in code_cells(book) if not any(word in cell for word in HEAVY)]
    printed = executed(
        "import warnings; warnings.simplefilter('ignore', ResourceWarning)\n" + PLAIN, tmp_path, cells=cells
    )
    assert "<Result done, val/accuracy 0.9" in printed
    assert "predicted ['0', '1', '2', '3'," in printed
    assert "model: unknown option 'mlpp'; did you mean 'mlp'?" in printed


def kernel_run(book, folder, monkeypatch):
    """Run a notebook in a real kernel and return it with its outputs."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(folder / name.lower()))
    # The warnings of these packages are not runner's
    client = nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return nbformat.reads(nbformat.writes(book), as_version=4).cells


ALWAYS_DRAWN = """
from runner.engine.logs import console, notebook_bar
console._REDRAW = notebook_bar._REDRAW = 0
"""


def printed_by(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_in_a_kernel(path, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.read(path, as_version=4)
    # On a fast machine the run takes no longer than the time between two redraws
    book.cells.insert(0, nbformat.v4.new_code_cell(ALWAYS_DRAWN))
    cells = kernel_run(book, tmp_path, monkeypatch)
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    # Nothing is shown as an alarm
    assert {output.get("name") for output in outputs if output.output_type == "stream"} == {"stdout"}
    assert [output for output in outputs if output.output_type == "error"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    text = "".join(map(printed_by, (cell for cell in cells if cell.cell_type == "code")))
    # The bar writes its line again and removes it at the end
    assert "\r[####" in text
    assert "6 runs of 2 configurations" in text


CHECKS = """
import os, signal, sys, threading
import runner
state = lambda: (sys.stdout, sys.stderr, os.getcwd(), signal.getsignal(signal.SIGINT), dict(os.environ))
before, threads = state(), threading.active_count()
runner.train(["model=mlp", "model.hidden=[8]", "probe=[]", "steps=4"])
assert state() == before
import matplotlib.pyplot as plt
print(plt.get_backend())
#---
import threading
found = []
worker = threading.Thread(target=lambda: found.append(runner.train(["model=mlp", "probe=[]", "steps=4"])))
worker.start(); worker.join()
print(found[0].status)
#---
import torch
torch.set_num_threads(4)
(torch.rand(500, 500) @ torch.rand(500, 500)).sum()
trials = runner.sweep(["model=mlp", "probe=[]", "steps=4", "seed=0,1"])
print([str(each.status) for each in trials], torch.get_num_threads())
#---
from runner.engine.learner import Learner
step, sent = Learner.step_optimizer, []
def interrupting(learner, loss):
    step(learner, loss)
    if learner.step == 2 and not sent:
        sent.append(os.kill(os.getpid(), signal.SIGINT))
Learner.step_optimizer = interrupting
try:
    runner.train(["model=mlp", "probe=[]", "steps=4", "name=stopped"])
except KeyboardInterrupt as error:
    print("interrupted", error.folder.name)
print(runner.train(["resume=outputs/stopped"]).status)
"""


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_calls_leave_a_kernel_as_it_was(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CHECKS.split("#---\n")])
    printed = list(map(printed_by, kernel_run(book, tmp_path, monkeypatch)))
    # The user's figures are still drawn in the page
    assert "inline" in printed[0].splitlines()[-1]
    assert printed[1].endswith("done\n")
    assert printed[2].endswith("['done', 'done'] 4\n")
    assert "interrupted stopped\n" in printed[3]
    assert printed[3].endswith("done\n")
