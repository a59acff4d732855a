"""Commands under torchrun: one console, one writer, errors in one line, and what is left after kills and signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from running import ROOT

import runner
from runner.engine.processes import children
from runner.engine.saving import checkpoint
from runner.errors import ConfigError

QUICK = ("model=mlp", "model.hidden=[16]", "augment=[]", "figures=never", "predictions=never", "test=never")


def launch(*words: str, size: int = 2, agent: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", *agent]
    return subprocess.Popen(
        [*command, "-m", "runner", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def said(child: subprocess.Popen[str]) -> str:
    out, _ = child.communicate(timeout=180)
    return out


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("runner: error")]


def ranks(child: subprocess.Popen[str]) -> dict[int, int]:
    """Return the process of each rank."""
    found = {}
    for pid in children(child.pid):
        words = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        found |= {int(word.removeprefix("RANK=")): pid for word in words if word.startswith("RANK=")}
    return found


def wait_for_rows(folder: Path, count: int) -> None:
    """Wait until a run has logged rows."""
    for _ in range(600):
        rows = list(folder.glob("*/metrics.jsonl"))
        if rows and len(rows[0].read_text().splitlines()) >= count:
            return
        time.sleep(0.1)
    raise AssertionError("no rows")


def result(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*/result.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_two_processes_train_one_run(tmp_path):
    child = launch(*QUICK, "epochs=2", f"outputs={tmp_path}")
    text = said(child)
    assert child.returncode == 0, text
    assert text.count("saved in") == 1 and "2 processes share each batch of 64," in text
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert json.loads((folder / "environment.json").read_text())["processes"] == 2
    assert result(tmp_path)["status"] == "done"
    one = subprocess.run(
        [sys.executable, "-m", "runner", *QUICK, "epochs=2", f"outputs={tmp_path / 'one'}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    assert not one.stderr.count(b"error")
    scores, alone = (result(path)["scores"]["val"]["last"] for path in (tmp_path, tmp_path / "one"))
    assert scores["accuracy"] == alone["accuracy"]
    assert scores["loss"] == pytest.approx(alone["loss"], rel=1e-4)


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize(
    "words, line",
    [
        (["model=mlpp"], "model: unknown option 'mlpp'"),
        (["-m", "seed=1,2"], "-m: several processes train one model"),
        (["task=compare", "runs=x"], "task=compare: runs in one process"),
        (["cuda_graphs=true"], "cuda_graphs: got true, must be false in 2 processes"),
    ],
)
def test_what_is_wrong_is_said_once(tmp_path, words, line):
    child = launch(*words, f"outputs={tmp_path}")
    text = said(child)
    assert child.returncode == 1
    found = lines_of(text)
    assert len(found) == 1 and line in found[0], text
    assert not list(tmp_path.iterdir())


def test_python_calls_are_refused_in_one_of_several_processes(monkeypatch):
    place = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    for make in (runner.train, runner.run, runner.sweep):
        with pytest.raises(ConfigError, match="one of 2 processes of torchrun"):
            make(["steps=1"])


def test_a_process_that_never_starts_is_named(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    done = subprocess.run(
        [sys.executable, "-m", "runner", *QUICK, "strategy.start_timeout=2", f"outputs={tmp_path}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **place},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 8 and not list(tmp_path.iterdir())
    assert lines_of(done.stderr) == ["runner: error: rank 1 has not started within 2 s (strategy.start_timeout)"]


@pytest.mark.slow
def test_a_killed_process_is_named_and_the_run_goes_on_as_if_nothing_was(tmp_path):
    child = launch(*QUICK, "epochs=60", "checkpoint_every=1epoch", f"outputs={tmp_path}", agent=("--max-restarts=2",))
    wait_for_rows(tmp_path, 50)
    os.kill(ranks(child)[1], signal.SIGKILL)
    text = said(child)
    assert child.returncode == 0, text
    assert "rank 1 on" in text and "does not answer" in text and "resumes after step" in text
    whole = launch(*QUICK, "epochs=60", "checkpoint_every=1epoch", f"outputs={tmp_path / 'whole'}")
    assert said(whole) and whole.returncode == 0
    assert result(tmp_path)["scores"] == result(tmp_path / "whole")["scores"]


@pytest.mark.slow
@pytest.mark.parametrize("receiver", ["agent", 0, 1])
def test_a_signal_to_any_process_saves_a_step_that_all_have_made(tmp_path, receiver):
    child = launch(*QUICK, "epochs=400", f"outputs={tmp_path}")
    wait_for_rows(tmp_path, 30)
    os.kill(child.pid if receiver == "agent" else ranks(child)[receiver], signal.SIGTERM)
    said(child)
    found = result(tmp_path)
    assert (found["status"], found["exit"]) == ("interrupted", 143)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    snapshot = checkpoint.load(folder)
    assert snapshot is not None and snapshot.step == found["steps"]


@pytest.mark.slow
def test_a_stopped_process_is_noticed(tmp_path):
    child = launch(*QUICK, "epochs=2000", f"outputs={tmp_path}", "strategy.timeout=5", agent=("--max-restarts=0",))
    wait_for_rows(tmp_path, 30)
    stopped = ranks(child)[1]
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    while result(tmp_path)["status"] == "running" and time.monotonic() - began < 40:
        time.sleep(0.2)
    found, seconds = result(tmp_path), time.monotonic() - began
    os.kill(stopped, signal.SIGCONT)
    said(child)
    assert (found["status"], found["exit"]) == ("failed", 8) and "rank 1" in found["reason"]
    assert seconds < 5 + 4 + 5
