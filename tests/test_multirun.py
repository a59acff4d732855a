"""A sweep by Hydra multirun, and what a TensorBoard server shows of it over HTTP."""

import json
import shutil
import time
import urllib.request
from dataclasses import replace

import pytest
from running import command, job, result
from tensorboard_server import served

from runner.errors import Diverged
from runner.tasks import start

SWEEP = ("-m", "model=mlp", "model.hidden=[16]", "optim=momentum,adam", "optim.lr=0.1,0.01", "seed=0,1", "epochs=2")
STATUSES = ["STATUS_SUCCESS", "STATUS_RUNNING", "STATUS_UNKNOWN", "STATUS_FAILURE"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    where = tmp_path_factory.mktemp("sweep")
    done = command(*SWEEP, "sweep=grid", cwd=where)
    assert done.returncode == 0, done.stderr
    return where / "outputs"


@pytest.fixture(scope="module")
def ask(outputs, tmp_path_factory):
    """Return a function that asks a TensorBoard server on loopback."""
    with served(outputs, tmp_path_factory.mktemp("server")) as server:
        server.wait(lambda: len(server("data/runs")) == 8)
        time.sleep(1)
        yield server


def test_every_trial_has_a_folder_named_by_what_differs(outputs):
    trials = sorted(path.name for path in (outputs / "sweeps" / "grid").iterdir() if path.is_dir())
    assert len(trials) == 8
    assert trials[0].rpartition("-")[0] == "optim=adam-lr=0.01-seed=0"
    assert all(result(outputs / "sweeps" / "grid" / trial)["status"] == "done" for trial in trials)


def test_a_sweep_never_reads_the_test_split(outputs):
    for path in (outputs / "sweeps" / "grid").glob("*/result.json"):
        found = json.loads(path.read_text())
        assert found["test_reads"] == 0
        assert "test" not in found["scores"]


def test_tensorboard_shows_the_runs_with_curves_and_pictures(ask):
    runs = ask("data/runs")
    assert len(runs) == 8
    scalars = ask("data/plugin/scalars/tags")
    for run in runs:
        assert {
            "1 val/accuracy",
            "1 val/loss",
            "2 train/loss",
            "2 train/loss_average",
            "2 train/lr",
            "3 train_eval/accuracy",
            "3 train_eval/loss",
            "3 train_eval/nll",
            "4 val/nll",
        } <= set(scalars[run])
        assert any(tag.startswith("ratio/l2/") for tag in scalars[run])
    curve = ask(f"data/plugin/scalars/scalars?run={urllib.request.quote(runs[0])}&tag=2%20train/loss")
    assert [step for _, step, _ in curve] == list(range(1, 39))
    assert set(ask("data/plugin/images/tags")) == set(runs)
    assert set(ask("data/plugin/text/tags")) == set(runs)
    layout = ask("data/plugin/custom_scalars/layout")
    assert any("Update/weight ratio" in category["title"] for category in layout["category"])


def test_tensorboard_shows_one_row_per_configuration_seeds_averaged(ask, outputs):
    experiment = ask("data/plugin/hparams/experiment", {"hparamsLimit": 100})
    differing = {info["name"] for info in experiment["hparamInfos"] if info["differs"]}
    assert {"optim", "optim.lr"} <= differing
    assert "seed" not in {info["name"] for info in experiment["hparamInfos"]}
    body = {"startIndex": 0, "sliceSize": 100, "allowedStatuses": STATUSES, "colParams": []}
    groups = ask("data/plugin/hparams/session_groups", body)["sessionGroups"]
    assert len(groups) == 4
    assert {len(group["sessions"]) for group in groups} == {2}
    one = next(g for g in groups if (g["hparams"]["optim"], g["hparams"]["optim.lr"]) == ("adam", 0.01))
    row = next(m["value"] for m in one["metricValues"] if m["name"]["tag"] == "1 val/loss")
    trials = (outputs / "sweeps" / "grid").glob("optim=adam-lr=0.01-*/result.json")
    losses = [json.loads(path.read_text())["scores"]["val"]["last"]["loss"] for path in trials]
    assert row == pytest.approx(sum(losses) / 2, rel=1e-6)
    assert {group["sessions"][0]["status"] for group in groups} == {"STATUS_SUCCESS"}
    assert [info["name"] for info in experiment["hparamInfos"]][:2] == ["optim", "optim.lr"]
    shown = [info["name"]["tag"] for info in experiment["metricInfos"]][:5]  # those that the page ticks
    assert shown == ["1 val/accuracy", "1 val/loss", "10 best/val_accuracy", "10 best/val_loss", "2 train/loss"]
    assert all({metric["name"]["tag"] for metric in group["metricValues"]} >= set(shown) for group in groups)
    names = {group["name"].rpartition(" (")[0] for group in groups}
    assert names == {f"optim={optim}, lr={lr}" for optim in ("momentum", "adam") for lr in (0.1, 0.01)}


def test_loss_and_ratio_curves_of_all_trials_are_told_apart_by_their_names(ask):
    for tag in ("2 train/loss_average", "ratio/log10/_global"):
        body = json.dumps([{"plugin": "scalars", "tag": tag}])
        found = ask(f"data/plugin/timeseries/timeSeries?requests={urllib.request.quote(body)}")[0]
        names = {run.rpartition("-")[0] for run in found["runToSeries"]}
        wanted = {f"optim={o}-lr={lr}-seed={s}" for o in ("momentum", "adam") for lr in (0.1, 0.01) for s in (0, 1)}
        assert {name.rpartition("/")[2] for name in names} == wanted


def test_a_run_that_failed_is_told_of_in_the_table(tmp_path):
    from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    with pytest.raises(Diverged):
        one = job("model=mlp", "norm=none", "optim.lr=1e30", "epochs=1", f"hydra.run.dir={tmp_path / 'run'}")
        start(replace(one, is_trial=True))
    ends = [value for _, tag, value in hparams(tmp_path / "run") if tag == "_hparams_/session_end_info"]
    content = HParamsPluginData.FromString(ends[0])
    assert len(ends) == 1 and content.session_end_info.status == STATUS_FAILURE


def hparams(folder):
    """Return (step, tag, content) of what a run tells the HPARAMS page."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in map(Event.FromString, RawEventFileLoader(str(path)).Load()):
            for value in event.summary.value:
                if value.tag.startswith("_hparams_/"):
                    yield event.step, value.tag, value.metadata.plugin_data.content


def test_the_same_sweep_again_trains_nothing(outputs, tmp_path):
    shutil.copytree(outputs, tmp_path / "outputs")
    grid = tmp_path / "outputs" / "sweeps" / "grid"
    events = {path: path.stat().st_mtime_ns for path in grid.glob("*/metrics.jsonl")}
    done = command(*SWEEP, "sweep=grid", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len([path for path in grid.iterdir() if path.is_dir()]) == 8
    assert {path: path.stat().st_mtime_ns for path in grid.glob("*/metrics.jsonl")} == events


@pytest.mark.parametrize(("value", "says"), [("abc", "got 'abc', must be a number"), ("-1", "got -1, must be > 0")])
def test_a_wrong_trial_stops_the_sweep_before_the_first(tmp_path, value, says):
    done = command("-m", "model=mlp", f"optim.lr=0.1,{value}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"runner: error: optim.lr: {says}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_trial_costs_itself_alone(tmp_path):
    trials = ("model=mlp", "steps=3", "norm=none", "average=none,schedulefree", "figures=never")
    done = command("-m", *trials, cwd=tmp_path)
    assert done.returncode == 1
    reason = "average=schedulefree: needs optim=schedulefree or schedulefree_sgd, whose average it reads"
    assert reason in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("runner: error: 1 of 2 trials failed: ")
    results = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/sweeps/*/*/result.json")]
    assert sorted((one["status"], one["reason"]) for one in results) == [
        ("done", None),
        ("failed", reason),
    ]
