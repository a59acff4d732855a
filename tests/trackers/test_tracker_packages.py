"""The trackers `mlflow` and `wandb` with the real packages, offline."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import ROOT, command, job, killed_in_step, result, run_in_child

import runner.tasks.train  # noqa: F401  (once, before the forks)
from runner.engine.logs.sinks import read_metrics
from runner.tasks import start

# The packages' own warnings
pytestmark = [pytest.mark.extra, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]
BASE = ("model=mlp", "model.hidden=[16]", "log_every=1", "validate_every=7steps", "figures=never", "probe=[grad_norm]")
SMALL = (*BASE, "checkpoint_every=5steps", "steps=30")


def timeless(rows):
    """Return (step, tag, number) of rows without times."""
    return sorted((step, tag, value) for step, row in rows for tag, value in row.items() if not tag.startswith("time/"))


def in_jsonl(folder):
    return timeless(read_metrics(folder / "metrics.jsonl"))


def into(path: Path, work):
    """Return what a function returns; standard error goes to a file."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.dup2(file, 2)
    return work()


def mlflow_run(database: Path):
    """Return the only run of a store, and its metrics as rows of one number each."""
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("runner")
    (run,) = client.search_runs([experiment.experiment_id])
    found = [m for key in run.data.metrics for m in client.get_metric_history(run.info.run_id, key)]
    return run, [(metric.step, {metric.key: metric.value}) for metric in found]


def records(data: bytes):
    """Yield the records of a file of W&B: LevelDB's log format after a header of 7 bytes, in blocks of 32 KiB."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        # 1: a whole record, 2 to 4: the first, a middle and the last part of one
        if kind in (1, 4):
            yield parts
            parts = b""


def in_wandb(folder: Path):
    """Return the rows in the files that W&B has written, and the text of all records."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows, texts = [], []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        for record in map(Record.FromString, records(path.read_bytes())):
            texts.append(str(record))
            if record.HasField("history"):
                items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                step = items.pop("step")
                assert record.history.step.num == step
                own = ("_runtime", "_timestamp", "_step")
                rows.append((step, {tag: float(value) for tag, value in items.items() if tag not in own}))
    return rows, "\n".join(texts)


@pytest.mark.ci_slice
@pytest.mark.slow
def test_mlflow_has_config_numbers_scores_and_status(tmp_path):
    pytest.importorskip("mlflow")
    folder = tmp_path / "outputs" / "run"
    words = (*SMALL, "tracker=[mlflow]", f"outputs={tmp_path / 'outputs'}", "name=run")
    assert run_in_child(lambda: start(job(*words))) == 0
    run, rows = mlflow_run(tmp_path / "outputs" / "mlflow.db")
    test = {f"test/{name}": value for name, value in result(folder)["scores"]["test"].items()}
    assert {m: run.data.metrics[m] for m in test} == test
    assert timeless((s, row) for s, row in rows if not row.keys() & test.keys()) == in_jsonl(folder)
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params["optim.name"] == "momentum" and run.data.params["steps"] == "30"
    assert run.data.tags["runner.folder"] == str(folder) and run.data.tags["runner.status"] == "done"


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("step", [12, 23])
def test_mlflow_has_each_row_once_after_a_kill(step, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    # A slow disk may take longer than a user would wait
    monkeypatch.setattr("runner.tasks.track_run.PATIENCE", 300.0)
    printed = tmp_path / "printed"
    folder = tmp_path / "outputs" / "run"
    words = (*SMALL, "tracker=[mlflow]", f"outputs={tmp_path / 'outputs'}", "name=run")
    assert run_in_child(killed_in_step(step, lambda: start(job(*words)))) == -9
    assert run_in_child(lambda: into(printed, lambda: start(job(f"resume={folder}")))) == 0
    assert "tracker" not in printed.read_text()
    run, rows = mlflow_run(tmp_path / "outputs" / "mlflow.db")
    found = timeless((s, row) for s, row in rows if not next(iter(row)).startswith("test/"))
    assert found == in_jsonl(folder) and run.info.status == "FINISHED"


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_store_whose_creation_is_killed_is_created_by_the_next_run(tmp_path):
    pytest.importorskip("mlflow")
    from runner.trackers.mlflow_run import make_mlflow as make

    uri = f"sqlite:///{tmp_path / 'm.db'}"

    def killed_in_creation():
        import sqlite3

        import sqlalchemy

        tables = []

        def count(connection, cursor, statement, *more):
            tables.append(statement)
            if sum("CREATE TABLE" in each for each in tables) == 10:
                # Those before are in the file
                assert sqlite3.connect(next(tmp_path.glob(".*.new"))).execute("select * from sqlite_master").fetchall()
                os.kill(os.getpid(), signal.SIGKILL)

        sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", count)
        make(uri=uri, experiment="runner")

    assert run_in_child(killed_in_creation) == -9
    assert not (tmp_path / "m.db").exists() and list(tmp_path.glob(".m.db.new*"))
    told = {"folder": "f", "name": "n", "group": "g", "sweep": None, "config": {"a": 1}}
    tracker = make(uri=uri, experiment="runner")
    tracker.start(**told, key="k")
    tracker.log(rows=[(1, {"a": 0.5})])
    assert mlflow_run(tmp_path / "m.db")[1] == [(1, {"a": 0.5})]
    assert [path.name for path in tmp_path.iterdir()] == ["m.db"]


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_resumed_run_waits_for_the_last_request_of_the_killed_one(tmp_path):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    from runner.trackers.mlflow_run import make_mlflow

    uri, folder = f"sqlite:///{tmp_path / 'm.db'}", tmp_path / "run"
    folder.mkdir()
    told = {"folder": str(folder), "name": "n", "group": "g", "sweep": None, "config": {f"k{i}": i for i in range(250)}}
    make_mlflow(uri=uri, experiment="runner")
    reader, writer = os.pipe()
    earlier = os.fork()
    if earlier == 0:
        log = MlflowClient.log_batch

        def slow(*given, **named):
            log(*given, **named)
            os.write(writer, b"1")
            time.sleep(1)

        MlflowClient.log_batch = slow
        try:
            make_mlflow(uri=uri, experiment="runner").start(**told, key="k")
        finally:
            os._exit(0)
    os.read(reader, 1)
    tracker = make_mlflow(uri=uri, experiment="runner")
    tracker.start(**told, key="k")
    assert os.waitpid(earlier, os.WNOHANG) != (0, 0)
    tracker.log(rows=[(1, {"a": 0.5})])
    run, rows = mlflow_run(tmp_path / "m.db")
    assert rows == [(1, {"a": 0.5})] and len(run.data.params) == 250


@pytest.mark.ci_slice
@pytest.mark.slow
def test_mlflow_drops_rows_that_it_has_but_did_not_acknowledge(tmp_path):
    pytest.importorskip("mlflow")
    from runner.trackers.mlflow_run import make_mlflow as make

    uri = f"sqlite:///{tmp_path / 'm.db'}"
    told = {"folder": "f", "name": "n", "group": "g", "sweep": "s", "config": {"a": {"b": 1}}}
    first = make(uri=uri, experiment="runner")
    first.start(**told, key="k")
    first.log(rows=[(1, {"a": 0.5, "b[x]": math.inf}), (2, {"a": 1.5})])
    again = make(uri=uri, experiment="runner")
    again.start(**told, key="k")
    again.log(rows=[(2, {"a": 1.5}), (3, {"a": 2.5})])
    again.log(rows=[(4, {f"t{i}": float(i) for i in range(1500)})])
    again.finish(status="interrupted", scores={})
    run, rows = mlflow_run(tmp_path / "m.db")
    assert [row for row in sorted(rows, key=str) if "a" in row[1]] == [
        (1, {"a": 0.5}),
        (2, {"a": 1.5}),
        (3, {"a": 2.5}),
    ]
    assert len([step for step, _ in rows if step == 4]) == 1500
    assert run.info.status == "KILLED" and run.data.tags["runner.sweep"] == "s" and run.data.params["a.b"] == "1"


def test_wandb_has_numbers_config_and_nothing_else(tmp_path):
    pytest.importorskip("wandb")
    words = (*SMALL, "tracker=[wandb]", "name=run", "note=why")
    changes = {"WANDB_MODE": "online", "TRACKER_TEST_VALUE": "value-of-the-environment"}
    done = command(*words, cwd=tmp_path, **changes)
    assert done.returncode == 0 and "warning" not in done.stderr
    folder = tmp_path / "outputs" / "run"
    rows, text = in_wandb(folder)
    assert timeless(rows) == in_jsonl(folder)
    assert '"momentum"' in text.replace("\\", "") and "test/accuracy" in text
    kept = "".join(p.read_text(errors="replace") for p in (folder / "wandb").rglob("*") if p.is_file()) + text
    assert "value-of-the-environment" not in kept
    assert not [p for p in (folder / "wandb").rglob("*") if p.name in ("requirements.txt", "output.log", "diff.patch")]


def test_wandb_has_each_row_once_after_a_kill_and_keeps_its_run(tmp_path):
    pytest.importorskip("wandb")
    folder = tmp_path / "outputs" / "run"
    words = (
        *BASE,
        "steps=400",
        "checkpoint_every=150steps",
        "tracker=[wandb]",
        f"outputs={tmp_path / 'outputs'}",
        "name=run",
    )
    assert run_in_child(killed_in_step(390, lambda: start(job(*words)))) == -9
    assert run_in_child(lambda: start(job(f"resume={folder}"))) == 0
    rows, _ = in_wandb(folder)
    assert timeless(rows) == in_jsonl(folder)
    assert len({path.name for path in (folder / "wandb").glob("offline-run-*/*.wandb")}) == 1


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_an_interrupted_run_leaves_no_process_and_goes_on(name, tmp_path):
    pytest.importorskip(name)
    words = [sys.executable, "-m", "runner", *BASE, "steps=200000", f"tracker=[{name}]", "name=run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    record = tmp_path / "outputs" / "run" / "trackers.json"
    while process.poll() is None and not (record.is_file() and '"step": -1' not in record.read_text()):
        pass
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=100)
    assert process.returncode == 130 and "not sent" not in printed, printed
    environments = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not [line for line in environments if f"serve('{name}'".encode() in line]
