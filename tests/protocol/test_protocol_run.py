"""task=protocol in real runs: what it leaves, that nothing is repeated after a kill, and the recipe at its end."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sick_parts
import yaml
from finished import finished_runs
from running import ROOT, command, metrics

MLP = ("model=mlp", "model.hidden=[32]", "augment=[]", "probe=[]", "device=cpu", "optim=adam")
FEW = ("task.find_lr={iters: 25, seeds: 1, lrs: [0.001, 0.01, 1.0]}", "task.overfit={max_steps: 200, controls: false}")
PROTOCOL = ("task=protocol", *MLP, *FEW, "name=p", "task.steps=[1,2,3]")
STEPS = ("01_check_init", "02_overfit", "03_find_lr")


def results(folder: Path):
    return {name: json.loads((folder / name / "result.json").read_text()) for name in STEPS if (folder / name).exists()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The protocol on a small network, run once."""
    place = tmp_path_factory.mktemp("protocol")
    done = command(*PROTOCOL, cwd=place)
    assert done.returncode == 0, done.stderr
    return place, done


def test_what_the_protocol_leaves(made):
    place, done = made
    folder = place / "outputs" / "p"
    found = results(folder)
    assert [each["status"] in ("pass", "warn") for each in found.values()] == [True] * 3
    chosen = found["03_find_lr"]["handoff"]["optim.lr"]
    assert yaml.safe_load((folder / "handoff.yaml").read_text()) == [f"optim.lr={chosen}"]
    state = json.loads((folder / "state.json").read_text())
    assert state["trainings"] == sum(each["trainings"] for each in found.values()) == 4
    assert {each["key"] for each in found.values()} == {each["key"] for each in state["steps"].values()}
    for name in ("report.md", "report.html", "check_init.png", "overfit.png", "find_lr.png"):
        assert (folder / name).stat().st_size > 0
    for text in (done.stdout, (folder / "report.md").read_text(), (folder / "report.html").read_text()):
        assert f"{chosen:.4g}" in text and "The test split was not read" in text and "How sure" in text
    assert "<script" not in (folder / "report.html").read_text()
    assert list(folder.glob("events.out.tfevents.*"))


def test_no_run_of_the_protocol_reads_the_test_split(made):
    place, _ = made
    runs = list((place / "outputs").rglob("environment.json"))
    assert len(runs) == 5
    for path in runs:
        assert json.loads((path.parent / "result.json").read_text())["test_reads"] == 0
    configs = [yaml.safe_load((path.parent / "config.yaml").read_text()) for path in runs]
    assert sum(each["test"] == "never" for each in configs) == 4


def test_the_command_that_it_prints_trains_the_recipe(made):
    place, done = made
    words = re.search(r"^train +python -m runner (.*)$", done.stdout, re.M)[1].split()
    trained = command(*words, "steps=3", "figures=never", "test=never", "name=t", cwd=place)
    assert trained.returncode == 0, trained.stderr
    config = yaml.safe_load((place / "outputs" / "t" / "config.yaml").read_text())
    assert config["optim"]["lr"] == results(place / "outputs" / "p")["03_find_lr"]["handoff"]["optim.lr"]
    assert config["model"]["hidden"] == [32] and config["optim"]["name"] == "adam" and config["augment"] == {}
    assert config["task"]["name"] == "train"


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("name", [(), ("name=a=b,c+d",), ("name=3",)])
def test_the_command_trains_the_recipe_whatever_the_name(name, tmp_path):
    knobs = ("task.iters=25", "task.seeds=1", "task.lrs=[0.001,0.01,1.0]")
    done = command("task=find_lr", *MLP, *knobs, *name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = shlex.split(re.search(r"^train +python -m runner (.*)$", done.stdout, re.M)[1])
    trained = command(*words, "steps=3", "figures=never", "test=never", "name=t", cwd=tmp_path)
    assert trained.returncode == 0, (words, trained.stderr)
    assert yaml.safe_load((tmp_path / "outputs" / "t" / "config.yaml").read_text())["optim"]["name"] == "adam"


def test_a_repetition_trains_nothing(made):
    place, first = made
    before = {path: path.stat().st_mtime_ns for path in (place / "outputs" / "p").glob("0*/**/result.json")}
    assert len(before) == 7
    done = command("resume=outputs/p", cwd=place)
    assert done.returncode == 0 and done.stderr.count("from the earlier command") == 3, done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert done.stdout.split("saved in")[0] == first.stdout.split("saved in")[0]


def test_a_budget_and_a_pinned_learning_rate_are_each_one_line(tmp_path):
    done = command(*PROTOCOL, "task.budget=2 trainings", "optim.lr=0.02", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not begun") == 1
    assert (
        "step 3 find_lr: not begun, it needs 3 trainings, of which the budget has 1 left (task.budget)" in done.stdout
    )
    assert results(tmp_path / "outputs" / "p")["02_overfit"]["trainings"] == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["task.steps=[9]"], "task.steps"),
        (["task.steps=[]"], "task.steps"),
        (["task.budget=soon"], "task.budget: got 'soon'; expected"),
        (["task.find_lr={iter: 5}"], "task.find_lr.iter"),
        (["task.overfit={max_steps: 0}"], "task.overfit.max_steps: got 0"),
        (["test=end"], "test: got end, but task=protocol never reads the test split"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(words, line, tmp_path):
    done = command("task=protocol", *MLP, "name=p", *words, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("runner: error: ") and line in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_the_learning_rate_of_the_command_line_wins(tmp_path):
    done = command(*PROTOCOL[:-1], "optim.lr=0.02", "task.steps=[3]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"optim\.lr pinned by the command line: 0\.02 \(step 3 measured 0\.0", done.stdout)
    text = (tmp_path / "outputs" / "p" / "conf" / "recipe" / "found-p.yaml").read_text()
    assert yaml.safe_load(text)["optim"]["lr"] == 0.02
    assert "# optim.lr pinned by the command line: 0.02 (step 3 measured 0.0" in text


@pytest.mark.slow
def test_a_learning_rate_that_never_works_is_not_handed_on(tmp_path):
    words = ("task=find_lr", *MLP[:-1], "optim=sgd", "name=p", "task.iters=25", "task.seeds=1", "task.lrs=[1e-7,1e-6]")
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "runner: error: find_lr failed: the loss goes down: no learning rate"
    )
    assert not (tmp_path / "outputs" / "p" / "conf").exists()


@pytest.mark.slow
def test_a_range_test_is_a_hint_and_hands_on_nothing(tmp_path):
    done = command("task=find_lr", *MLP, "name=p", "task.method=range", "task.iters=60", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "outputs" / "p" / "03_find_lr" / "result.json").read_text())
    assert found["criteria"][0]["level"] == "hint" and found["handoff"] == {} and found["trainings"] == 0
    valleys = [each["suggested"]["valley"] for each in found["measurements"]["range_test"]]
    assert len(valleys) == 3 and all(1e-5 < valley < 1 for valley in valleys)


@pytest.mark.slow
def test_changed_code_of_a_plugin_repeats_the_steps(tmp_path):
    sick_parts.write(tmp_path)
    words = (*sick_parts.GIVEN, "task=protocol", "task.steps=[1]", "model=sick")
    text = (tmp_path / "sick_parts.py").read_text()
    (tmp_path / "sick_parts.py").write_text(
        text.replace("return self.head(h)", "").replace("z = self.head(h)", "z = self.head(h).softmax(1)")
    )
    failed = command(*words, cwd=tmp_path)
    assert failed.returncode == 1 and "softmax before" in failed.stderr
    (tmp_path / "sick_parts.py").write_text(text)
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "from the earlier command" not in done.stderr
    assert [path.name for path in (tmp_path / "outputs").iterdir() if path.is_dir()] == ["s"]


def start(place):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return subprocess.Popen(
        [sys.executable, "-m", "runner", *PROTOCOL], cwd=place, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_kill_anywhere_loses_nothing_and_repeats_nothing(after, tmp_path, made):
    child = start(tmp_path)
    deadline = time.monotonic() + 200
    while len(finished_runs(tmp_path)) < after or not (tmp_path / "outputs" / "p" / "config.yaml").exists():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    before = finished_runs(tmp_path)
    assert len(before) >= after
    done = command(*PROTOCOL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "outputs").iterdir() if path.is_dir()] == ["p"]
    assert {path: stamp for path, stamp in finished_runs(tmp_path).items() if path in before} == before
    whole, resumed = results(made[0] / "outputs" / "p"), results(tmp_path / "outputs" / "p")
    for name in STEPS:
        assert resumed[name]["criteria"] == whole[name]["criteria"] and resumed[name]["key"] == whole[name]["key"]
        assert resumed[name]["trainings"] == whole[name]["trainings"]


@pytest.mark.slow
def test_two_protocols_train_alike(made, tmp_path):
    done = command(*PROTOCOL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = [
        sorted((place / "outputs" / "p" / "03_find_lr").glob("runs-*/*/metrics.jsonl")) for place in (made[0], tmp_path)
    ]
    assert len(runs[0]) == 3
    assert [metrics(path.parent) for path in runs[0]] == [metrics(path.parent) for path in runs[1]]


@pytest.mark.slow
def test_a_protocol_may_go_on_after_a_failure(tmp_path):
    few = ("task.overfit={max_steps: 5, controls: false, lr_ladder: [1.0]}", FEW[0])
    done = command("task=protocol", *MLP, *few, "name=p", "task.keep_going=true", PROTOCOL[-1], cwd=tmp_path)
    assert done.returncode == 1
    assert [each["status"] for each in results(tmp_path / "outputs" / "p").values()][1:] == ["fail", "pass"]
    assert not (tmp_path / "outputs" / "p" / "conf").exists()


@pytest.mark.slow
def test_a_learning_rate_whose_loss_rises_is_not_taken(tmp_path):
    words = (
        "task=find_lr",
        *MLP,
        "name=p",
        "task.iters=25",
        "task.seeds=1",
        "task.lrs=[0.001,0.01,0.1]",
        "task.stop=1.01",
    )
    command(*words, cwd=tmp_path)
    found = json.loads((tmp_path / "outputs" / "p" / "03_find_lr" / "result.json").read_text())
    assert [each["outcome"] for each in found["table"]].count("diverges") >= 1


@pytest.mark.parametrize("precision", ["bf16", pytest.param("pure_bf16", marks=pytest.mark.slow)])
def test_the_protocol_computes_in_the_precision_of_the_run(tmp_path, precision):
    # pure_bf16 cannot hold the averages of adam
    network = (each for each in MLP if each != "optim=adam")
    words = ("task=protocol", *network, FEW[0], "task.overfit={max_steps: 60}", "name=p", "task.keep_going=true")
    done = command(*words, f"precision={precision}", cwd=tmp_path)
    assert "Error" not in done.stdout + done.stderr
    assert list(results(tmp_path / "outputs" / "p")) == list(STEPS)
