"""Trackers get the rows of `metrics.jsonl`, each once, whatever fails; the run does not notice."""

import csv
import json
import math
import sys
import threading
import time
from dataclasses import replace
from importlib import util

import pytest
from running import checkpoint_checksums, command, events, job, killed_in_step, metrics, result, run_in_child

import runner.tasks.train  # noqa: F401  (once, before the forks)
from runner import registry
from runner.components import tracker as trackers
from runner.engine.logs.sinks import read_metrics, read_rows
from runner.errors import CheckpointError, ConfigError, Locked
from runner.tasks import start, track_run
from runner.trackers import follower, in_process
from runner.trackers.contract import TrackedRun
from runner.trackers.csv_file import CsvFile
from runner.trackers.follower import End, Follower
from runner.trackers.in_process import InProcess
from runner.trackers.record import Record

BASE = (
    "model=mlp",
    "model.hidden=[16]",
    "validate_every=7steps",
    "checkpoint_every=5steps",
    "log_every=1",
    "figures=never",
    "probe=[grad_norm]",
)
SMALL = (*BASE, "steps=30")


class Kept:
    """A tracker that keeps what it gets, and fails as told."""

    from_first_row = False

    def __init__(self, failures=(), hangs=False):
        self.failures, self.hangs = list(failures), hangs
        self.rows, self.runs, self.ends, self.closed = [], [], [], 0
        self.goes_on = threading.Event()

    def start(self, run):
        self.runs.append(run)

    def log(self, rows):
        if self.hangs:
            self.goes_on.wait(20)
        if self.failures:
            raise self.failures.pop(0)
        self.rows += rows

    def finish(self, status, scores):
        self.ends.append((status, dict(scores)))

    def close(self):
        self.closed += 1
        self.goes_on.set()


@pytest.fixture
def kept(monkeypatch):
    """Return a tracker that is the option `kept`, and a function that makes the job of a run with it."""
    tracker = Kept()
    monkeypatch.setitem(registry._parts["tracker"], "kept", lambda: tracker)
    monkeypatch.setattr(follower, "_PAUSES", (0.01,))

    def run(*words):
        made = job(*words)
        return replace(made, config={**made.config, "tracker": {"kept": {}}})

    return tracker, run


def in_csv(folder):
    """Return (step, numbers by tag) of the lines of metrics.csv, read by Python's csv module."""
    with (folder / "metrics.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    return [(int(line.pop("step")), {tag: float(cell) for tag, cell in line.items() if cell}) for line in lines]


def in_jsonl(folder):
    return list(read_metrics(folder / "metrics.jsonl"))


def entry(folder, name):
    return json.loads((folder / "trackers.json").read_text())[name]


def test_the_table_has_the_numbers_of_the_log(tmp_path):
    assert start(job(*SMALL, "tracker=[csv]", f"hydra.run.dir={tmp_path / 'run'}")) == 0
    assert in_csv(tmp_path / "run") == in_jsonl(tmp_path / "run")
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert header[0] == "step" and header[1:] == sorted(header[1:]) and "val/accuracy" in header
    assert entry(tmp_path / "run", "csv") | {"id": "any"} == {"id": "any", "step": 30, "finished": True}


def kept_events(folder):
    """Return the events except the text of the config."""
    return [each for each in events(folder) if each[1] != "config"]


def test_a_run_is_the_same_with_a_tracker_and_without(tmp_path):
    for name, more in (("with", ["tracker=[csv]"]), ("without", [])):
        assert run_in_child(lambda n=name, m=more: start(job(*SMALL, *m, f"hydra.run.dir={tmp_path / n}"))) == 0
    one, other = tmp_path / "with", tmp_path / "without"
    assert checkpoint_checksums(one) == checkpoint_checksums(other)
    assert metrics(one) == metrics(other) and kept_events(one) == kept_events(other)
    assert not (other / "trackers.json").exists()


@pytest.mark.parametrize("step", [3, 19, 28])
def test_a_killed_run_that_is_resumed_has_each_row_once(step, tmp_path):
    folder = tmp_path / "run"
    begin = killed_in_step(step, lambda: start(job(*SMALL, "tracker=[csv]", f"hydra.run.dir={folder}")))
    assert run_in_child(begin) == -9
    assert run_in_child(lambda: start(job(f"resume={folder}"))) == 0
    found = in_csv(folder)
    assert found == in_jsonl(folder)
    assert [each for each, _ in found] == list(range(1, 31))


@pytest.mark.parametrize("step", [12, 24])
def test_a_resumed_run_goes_on_after_the_last_acknowledged_step(step, tmp_path, kept):
    tracker, run = kept
    folder = tmp_path / "run"
    assert start(run(*SMALL, f"hydra.run.dir={folder}")) == 0
    whole = list(tracker.rows)
    assert whole == in_jsonl(folder) and len(tracker.runs) == 1 and len(tracker.runs[0].id) == 16
    # As a kill leaves it: the checkpoint is older than what the tracker has
    (folder / "trackers.json").write_text(json.dumps({"kept": {"id": "id-1", "step": step, "finished": False}}))
    tracker.rows.clear()
    assert start(job(f"resume={folder}")) == 0
    assert tracker.rows == [row for row in whole if row[0] > step]
    assert tracker.runs[-1].id == "id-1" and len(tracker.runs) == 2
    assert entry(folder, "kept") == {"id": "id-1", "step": 30, "finished": True}


def test_a_finished_run_is_cleaned_before_its_trackers_write(tmp_path, kept, monkeypatch):
    tracker, run = kept
    folder = tmp_path / "run"
    assert start(run(*SMALL, f"hydra.run.dir={folder}")) == 0
    (folder / "trackers.json").write_text(json.dumps({"kept": {"id": "id-1", "step": 12, "finished": False}}))
    (folder / ".tmp-1-1").write_text("of a disk that failed")
    seen = []

    def begins(given):
        seen.append((folder / ".tmp-1-1").exists())
        (folder / ".tmp-2-2").write_text("half of trackers.json")

    train = sys.modules["runner.tasks.train"]
    clean = train.clean
    monkeypatch.setattr(tracker, "start", begins)
    # Long enough for the thread of a tracker that was started already
    monkeypatch.setattr(train, "clean", lambda place: (time.sleep(0.5), clean(place)))
    assert start(job(f"resume={folder}")) == 0
    assert seen == [False] and (folder / ".tmp-2-2").exists()


def test_a_tracker_is_told_of_the_run_without_passwords(tmp_path, kept):
    tracker, run = kept
    made = run(*SMALL, "note=see postgresql://me:secret@host/db", f"hydra.run.dir={tmp_path / 'run'}")
    assert start(made) == 0
    told = tracker.runs[0]
    assert (told.folder, told.name, told.group, told.sweep) == (tmp_path / "run", "run", made.group_hash, None)
    assert told.config["optim"] == made.config["optim"]
    assert "secret" not in str(told.config) and "postgresql://me:***@host/db" in told.config["note"]
    ((status, scores),) = tracker.ends
    assert status == "done" and scores["test/accuracy"] == result(tmp_path / "run")["scores"]["test"]["accuracy"]


def test_a_tracker_that_fails_is_tried_again_and_gets_each_row_once(tmp_path, kept, capsys):
    tracker, run = kept
    tracker.failures = [OSError("no route to host")]
    assert start(run(*SMALL, f"hydra.run.dir={tmp_path / 'run'}")) == 0
    assert tracker.rows == in_jsonl(tmp_path / "run")
    printed = capsys.readouterr().err
    assert printed.count("runner: warning: tracker=kept: failed after step 0 (no route to host); the run goes on") == 1
    assert "not sent" not in printed and result(tmp_path / "run")["status"] == "done"


def test_a_tracker_that_always_fails_costs_two_lines_and_the_rows_can_be_sent_later(tmp_path, kept, capsys):
    tracker, run = kept
    tracker.failures = [OSError("down")] * 10_000
    folder = tmp_path / "run"
    assert start(run(*SMALL, f"hydra.run.dir={folder}")) == 0
    assert result(folder)["status"] == "done" and result(folder)["exit"] == 0
    printed = capsys.readouterr().err
    assert f"runner: warning: tracker=kept: 30 rows not sent; resume={folder} sends them\n" in printed
    assert printed.count("tracker=kept") == 2
    tracker.failures = []
    with track_run.tracked(track_run.Run(folder, _result(folder)), run(*SMALL), {"kept": tracker}):
        pass
    assert tracker.rows == in_jsonl(folder)


def _result(folder):
    from runner.engine.saving.folder import read_result

    return read_result(folder)


def test_a_tracker_that_hangs_does_not_keep_the_run(tmp_path, kept, capsys, monkeypatch):
    tracker, run = kept
    tracker.hangs = True
    monkeypatch.setattr(track_run, "PATIENCE", 0.1)
    folder = tmp_path / "run"
    assert start(run(*SMALL, f"hydra.run.dir={folder}")) == 0
    assert "tracker=kept: 30 rows not sent" in capsys.readouterr().err
    assert tracker.closed and result(folder)["status"] == "done" and len(tracker.runs) == 1


def test_a_process_that_reads_nothing_is_killed_although_a_request_fills_its_pipe(tmp_path, monkeypatch):
    monkeypatch.setattr(in_process, "_PATIENCE", 0.2)
    answer_once = "import time; input(); print('{{\"answer\": null}}', flush=True); time.sleep(100)"
    monkeypatch.setattr(in_process, "_MAIN", answer_once)
    tracker, failures = InProcess("none", {}, {}), []
    tracker.start(TrackedRun(tmp_path, "n", "g", None, {}))

    def send():
        try:
            # More than a pipe holds
            tracker.log([(step, {f"tag{k}": 1.0 for k in range(100)}) for step in range(100)])
        except Exception as error:
            failures.append(error)

    sending = threading.Thread(target=send)
    sending.start()
    while not tracker._writing.locked():
        time.sleep(0.01)
    closing = threading.Thread(target=tracker.close, daemon=True)
    closing.start()
    closing.join(30)
    sending.join(30)
    assert not closing.is_alive() and "its process has ended" in str(failures)


def test_a_damaged_record_costs_a_warning(tmp_path, kept, capsys):
    tracker, run = kept
    folder = tmp_path / "run"
    assert start(run(*SMALL, f"hydra.run.dir={folder}")) == 0
    (folder / "trackers.json").write_text('{"kept": [1]}')
    with pytest.raises(CheckpointError, match="is malformed; remove it to send all rows again"):
        Record(folder)
    tracker.rows.clear()
    with track_run.tracked(track_run.Run(folder, _result(folder)), run(*SMALL), {"kept": tracker}):
        pass
    assert not tracker.rows and "trackers: not started" in capsys.readouterr().err


def test_a_follower_sends_what_is_written_meanwhile_and_knows_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(follower, "_INTERVAL", 0.01)
    monkeypatch.setattr(follower, "_CHUNK", 50)
    path, tracker = tmp_path / "metrics.jsonl", Kept()
    path.write_text("")
    record = Record(tmp_path)
    following = Follower("kept", tracker, TrackedRun(tmp_path, "a", "b", None, {}), record)
    for step in range(200):
        with path.open("a") as file:
            # A line in two pieces, as a reader may see it
            file.write(f'{{"step": {step}, "a": ')
            file.flush()
            file.write(f'{step / 7!r}, "b": "NaN"}}\n')
    following.end(End("done", finished=True))
    assert following.wait(10)
    assert [(step, row["a"]) for step, row in tracker.rows] == [(step, step / 7) for step in range(200)]
    assert all(math.isnan(row["b"]) for _, row in tracker.rows)
    assert record.entry("kept").step == 199 and following.missing() == 0 and tracker.ends == [("done", {})]
    record.close()
    with pytest.raises(Locked):
        record.change("kept", step=3)


def test_rows_are_read_in_pieces_of_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1.5}\n{"step": 2, "a": 2.5}\n{"step": 3, "a"')
    assert read_rows(path, 0, 5) == ([(1, {"a": 1.5})], 22)
    assert read_rows(path, 22, 1000) == ([(2, {"a": 2.5})], 44)
    assert read_rows(path, 44, 1000) == ([], 44)


def test_a_late_tag_becomes_a_column_in_its_place(tmp_path):
    table = CsvFile()
    table.start(TrackedRun(tmp_path, "a", "b", None, {}))
    table.log([(1, {"m": 0.1}), (2, {"m": float("inf"), 'z, "w"': 1e-300})])
    table.log([(3, {"b": float("nan")}), (4, {})])
    table.close()
    assert (tmp_path / "metrics.csv").read_text() == 'step,b,m,"z, ""w"""\n1,,0.1,\n2,,inf,1e-300\n3,nan,,\n4,,,\n'


def test_a_tracker_changes_neither_hash_nor_name():
    one, other = job("tracker=[csv]", "steps=3"), job("steps=3")
    assert (one.hash8, one.group_hash, one.folder_name) == (other.hash8, other.group_hash, other.folder_name)
    assert other.config["tracker"] == {}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["tracker=[tensorboard,csv]"],
            "tracker: unknown option 'tensorboard'; TensorBoard's event file is always written",
        ),
        (["tracker=[weights_and_biases]"], "tracker: unknown option 'weights_and_biases'; did you mean 'wandb'?"),
        (
            ["tracker=[wandb]", "tracker.wandb={mode:online}"],
            "tracker.wandb.mode: got 'online'; allowed on the command line only",
        ),
        (
            ["tracker=[mlflow]", "tracker.mlflow.uri=http://me:secret@host"],
            r"tracker.mlflow.uri: got 'http://me:\*\*\*@host', must",
        ),
        (
            ["tracker=[mlflow]", "tracker.mlflow.uri='postgresql://h/d?password=secret'"],
            "tracker.mlflow.uri: got 'postgresql://h/d",
        ),
    ],
)
def test_a_wrong_word_is_one_line(words, line):
    with pytest.raises(ConfigError, match=rf"^{line}") as caught:
        job(*words)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http://host:5000", "requires tracker.mlflow.mode=online"),
        ("file:./mlruns", "MLflow no longer supports it, expected sqlite:///<file>"),
        ("sqlite:///nowhere/a.db", "there is no folder nowhere, create it"),
    ],
)
def test_a_store_that_cannot_be_opened_is_one_line_before_the_run(uri, says, tmp_path, monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: True)
    monkeypatch.setattr("runner.components.tracker.find_spec", lambda name: True)
    with pytest.raises(ConfigError, match=rf"^tracker.mlflow.uri: got '{uri}'; {says}"):
        start(job(*SMALL, "tracker=[mlflow]", f"tracker.mlflow.uri={uri}", f"hydra.run.dir={tmp_path / 'run'}"))
    assert not (tmp_path / "run").exists()


def test_the_path_of_a_store_is_that_of_the_command_wherever_a_plugin_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("runner.components.tracker.find_spec", lambda name: True)
    monkeypatch.chdir(tmp_path)
    uris = ("sqlite:///a.db", "sqlite:///./b.db?timeout=9", "sqlite:////tmp/c.db", "http://host:5000")
    found = [trackers.mlflow(str(tmp_path), mode="online", uri=uri, experiment="runner")._knobs["uri"] for uri in uris]
    assert found == [f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db?timeout=9", *uris[2:]]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(name, tmp_path, monkeypatch):
    monkeypatch.setattr("runner.components.tracker.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"^tracker={name}: {name} is not installed; pip install {name}"):
        start(job(*SMALL, f"tracker=[{name}]", f"hydra.run.dir={tmp_path / 'run'}"))
    assert not (tmp_path / "run").exists()


def test_a_file_does_not_go_online_and_neither_does_a_saved_run(tmp_path):
    (tmp_path / "conf" / "recipe").mkdir(parents=True)
    (tmp_path / "conf" / "recipe" / "ours.yaml").write_text(
        f"{RECIPE.replace('[csv]', '[wandb]')}tracker:\n  wandb: {{mode: online}}\n"
    )
    words = ("--config-dir=conf", *BASE, "steps=3", "name=a")
    refused = command(*words, "recipe=ours", cwd=tmp_path)
    assert refused.returncode == 2 and "tracker.wandb.mode: got 'online'; allowed on the" in refused.stderr
    assert command(*words, cwd=tmp_path).returncode == 0
    path = tmp_path / "outputs" / "a" / "config.yaml"
    path.write_text(path.read_text().replace("tracker: {}", "tracker:\n  wandb:\n    mode: online\n    project: lab"))
    assert "online" in path.read_text()
    refused = command("resume=outputs/a", cwd=tmp_path)
    assert refused.returncode == 2 and "tracker.wandb.mode: got 'online'; allowed on" in refused.stderr


RECIPE = "# @package _global_\n# Ours\ndefaults:\n  - override /tracker: [csv]\n"


@pytest.mark.slow
@pytest.mark.ci_slice
def test_trials_have_the_trackers_that_the_command_names_only(tmp_path):
    (tmp_path / "conf" / "recipe").mkdir(parents=True)
    (tmp_path / "conf" / "recipe" / "ours.yaml").write_text(RECIPE)
    words = ("--config-dir=conf", *BASE, "steps=3", "recipe=ours")
    for name, more in (("single", ["name=single"]), ("off", ["-m", "seed=0,1", "sweep=off"])):
        assert command(*words, *more, cwd=tmp_path).returncode == 0, name
    assert command(*words, "-m", "seed=0,1", "sweep=on", "tracker=[csv]", cwd=tmp_path).returncode == 0
    outputs = tmp_path / "outputs"
    assert (outputs / "single" / "metrics.csv").is_file()
    assert not list((outputs / "sweeps" / "off").glob("*/metrics.csv"))
    tables = list((outputs / "sweeps" / "on").glob("*/metrics.csv"))
    assert len(tables) == 2
    for table in tables:
        assert in_csv(table.parent) == in_jsonl(table.parent)
    # One name, one configuration
    assert {p.parent.name for p in tables} == {
        p.name for p in (outputs / "sweeps" / "off").iterdir() if p.is_dir() and (p / "metrics.jsonl").exists()
    }


def test_a_finished_run_is_sent_by_resuming_it_with_a_tracker(tmp_path):
    folder = tmp_path / "run"
    assert start(job(*SMALL, f"hydra.run.dir={folder}")) == 0
    assert start(job(f"resume={folder}", "tracker=[csv]")) == 0
    assert in_csv(folder) == in_jsonl(folder)
