"""A real TensorBoard server on the loopback interface, queried over HTTP for our run folders."""

import io
import urllib.parse
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard_server import served

from runner.engine.logs.log import open_logs
from runner.engine.logs.plugin_pages import chart_layout, flat_hparams, session_end, session_start
from runner.keys import hyperparameters

pytestmark = pytest.mark.rendered

STEPS = 30
CHOICES = [("sgd", 0.1), ("sgd", 0.01), ("adam", 0.1), ("adam", 0.01)]
STATUSES = ["STATUS_SUCCESS", "STATUS_RUNNING", "STATUS_UNKNOWN", "STATUS_FAILURE"]


def config(optim, lr, seed):
    return {
        "optim": {"name": optim, "lr": lr, "nesterov": True},
        "augment": {"crop": {"padding": 4}, "flip": {}},
        "regularizer": {},
        "probe": {"images": {"every": 500}},
        "epochs": 3,
        "clip": None,
        "seed": seed,
        "data": {"name": "imagefolder", "root": "/somewhere", "workers": 2, "batch_size": 64},
    }


def accuracy(optim, lr, seed):
    return 0.5 + 0.1 * CHOICES.index((optim, lr)) + 0.02 * seed


def write_run(folder, optim, lr, seed):
    """Write a small run, killed at step 12 and resumed from step 10, that ends well but for two."""
    folder.mkdir()
    log = open_logs(folder, positions=None, step=0)
    flat = flat_hparams(hyperparameters(config(optim, lr, seed)))
    log.add(
        0,
        {
            "hparams/start": session_start(flat, f"{optim}-{lr}"),
            "layout": chart_layout(),
            "config": "```yaml\nlr: 1\n```",
        },
    )
    final = accuracy(optim, lr, seed)
    write_steps(log, range(1, 11), final)
    positions, state = log.positions(), log.state_dict()
    write_steps(log, range(11, 13), final)
    log.flush()
    for file in log.files.sinks:
        file.close()
    log = open_logs(folder, positions=positions, step=10)
    log.load_state_dict(state)
    write_steps(log, range(11, STEPS + 1), final)
    if (optim, lr, seed) != ("adam", 0.01, 1):
        log.add(STEPS, {"hparams/end": session_end(succeeded=(optim, seed) != ("adam", 1))})
    log.close()


def write_steps(log, steps, final):
    for step in steps:
        log.add(step, {"train/loss": torch.tensor(1 / step)})
        if step % 10 == 0:
            log.add(step, {"ratio/log10/_global": torch.tensor(-3.0), "weights": torch.arange(100.0)})
            log.add(step, {"images/batch": torch.rand(4, 3, 8, 8)})
            log.add(step, {"val/accuracy": final * step / STEPS, "val/loss": 1.0})
            log.add(step, {"train_eval/accuracy": 1.0, "train_eval/loss": 0.5})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with 4 configurations of 2 seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    for optim, lr in CHOICES:
        for seed in (0, 1):
            write_run(folder / f"{optim}-{lr}-{seed}", optim, lr, seed)
    return folder


@pytest.fixture(scope="module", params=["true", "false"], ids=["load_fast", "python"])
def ask(request, runs, tmp_path_factory):
    """A function that asks a TensorBoard server; both readers that TensorBoard has are tried."""
    with served(runs, tmp_path_factory.mktemp("server"), fast=request.param) as server:
        query = urllib.parse.urlencode({"run": "sgd-0.1-0", "tag": "2 train/loss"})
        server.wait(lambda: len(server("data/runs")) == 2 * len(CHOICES))
        server.wait(lambda: len(server(f"data/plugin/scalars/scalars?{query}")) == STEPS)
        yield server


def scalars(ask, run, tag):
    return [
        point[1:] for point in ask("data/plugin/scalars/scalars?" + urllib.parse.urlencode({"run": run, "tag": tag}))
    ]


def test_every_step_of_a_resumed_run_is_there_once_with_its_value(ask):
    expected = [[step, float(np.float32(1 / step))] for step in range(1, STEPS + 1)]
    assert scalars(ask, "sgd-0.1-0", "2 train/loss") == expected
    averaged = scalars(ask, "sgd-0.1-0", "2 train/loss_average")
    assert [step for step, _ in averaged] == list(range(1, STEPS + 1))
    assert averaged[9][1] == pytest.approx(sum(1 / step for step in range(1, 11)) / 10, rel=1e-6)


def test_images_histograms_and_texts_are_shown(ask):
    assert set(ask("data/plugin/images/tags")["sgd-0.1-0"]) == {"images/batch"}
    shown = ask("data/plugin/images/images?run=sgd-0.1-0&tag=images/batch&sample=0")
    assert shown[-1]["step"] == STEPS
    picture = Image.open(io.BytesIO(ask("data/plugin/images/individualImage?" + shown[-1]["query"])))
    assert picture.size == (3 * 66 - 2, 2 * 66 - 2)
    histogram = ask("data/plugin/histograms/histograms?run=sgd-0.1-0&tag=weights")
    assert [point[1] for point in histogram] == [10, 20, 30]
    assert sum(count for _, _, count in histogram[0][2]) == 100
    text = ask("data/plugin/text/text?run=sgd-0.1-0&tag=config")
    assert "<code" in text[0]["text"] and "lr: 1" in text[0]["text"]


def test_the_layout_of_all_runs_is_one_and_its_charts_find_their_tags(ask):
    shown = ask("data/plugin/custom_scalars/layout")
    charts = {chart["title"]: chart["multiline"]["tag"] for part in shown["category"] for chart in part["chart"]}
    assert sum(len(part["chart"]) for part in shown["category"]) == len(charts) == 18
    found = {}
    for title, tags in charts.items():
        queries = [urllib.parse.urlencode({"run": "sgd-0.1-0", "tag": tag}) for tag in tags]
        answers = [ask(f"data/plugin/custom_scalars/scalars?{query}") for query in queries]
        assert all(answer["regex_valid"] for answer in answers)
        found[title] = {tag for answer in answers for tag in answer["tag_to_events"]}
    assert found["validation loss"] == {"1 val/loss"}
    assert found["loss of each training step"] == {"2 train/loss"}
    assert found["loss of the training steps, moving average"] == {"2 train/loss_average"}
    assert found["accuracy on training examples (not augmented)"] == {"3 train_eval/accuracy"}
    assert found["all weights; lines: -4 small, -3 usual, -2 large"] == {"ratio/log10/_global"}
    assert found["each weight tensor; lines: -4 small, -3 usual, -2 large"] == set()


def test_seeds_share_a_row_of_the_hyperparameter_table_with_their_mean(ask):
    body = {"startIndex": 0, "sliceSize": 100, "allowedStatuses": STATUSES, "colParams": []}
    rows = ask("data/plugin/hparams/session_groups", body)["sessionGroups"]
    assert {row["name"] for row in rows} == {f"{optim}-{lr}" for optim, lr in CHOICES}
    for row in rows:
        assert len(row["sessions"]) == 2
        metrics = {metric["name"]["tag"]: metric["value"] for metric in row["metricValues"]}
        optim, lr = row["hparams"]["optim"], row["hparams"]["optim.lr"]
        mean = sum(accuracy(optim, lr, seed) for seed in (0, 1)) / 2
        assert metrics["1 val/accuracy"] == pytest.approx(mean, rel=1e-6)
        assert metrics["10 best/val_accuracy"] == pytest.approx(mean, rel=1e-6)
        assert row["hparams"]["augment"] == "crop+flip" and row["hparams"]["augment.crop.padding"] == 4
        assert row["hparams"]["optim.nesterov"] is True and row["hparams"]["clip"] == "none"
    status = {s["name"]: s["status"] for row in rows for s in row["sessions"]}
    assert status["adam-0.01-1"] == "STATUS_UNKNOWN" and status["adam-0.1-1"] == "STATUS_FAILURE"
    assert sum(s == "STATUS_SUCCESS" for s in status.values()) == 6


def test_what_differs_comes_first_and_scores_are_among_the_metrics_shown(ask):
    experiment = ask("data/plugin/hparams/experiment", {"hparamsLimit": 100})
    columns = [info["name"] for info in experiment["hparamInfos"]]
    assert set(columns[:2]) == {"optim", "optim.lr"}
    assert not set(columns) & {"seed", "data.root", "data.workers", "probe", "probe.images.every"}
    metrics = [info["name"]["tag"] for info in experiment["metricInfos"]]
    best = ["10 best/val_accuracy", "10 best/val_loss"]
    assert metrics[:5] == ["1 val/accuracy", "1 val/loss", *best, "2 train/loss"]  # the page shows five
