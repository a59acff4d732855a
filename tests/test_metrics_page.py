"""The metric of docs/metrics.md works from outside, in runs, searches and comparisons; so do the commands."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from documented import write_files
from running import ROOT, command, result
from test_predictions import opened

PAGE = ROOT / "docs" / "metrics.md"
PLUGIN = ("--config-dir", "my_conf", "plugins=[my_lab.metrics]")
QUICK = ("model=mlp", "model.hidden=[16]", "probe=[]", "figures=never", "test=never")


def lab(folder: Path) -> None:
    assert write_files(PAGE, folder) == ["my_lab/metrics.py", "my_conf/metric/mean_rank.yaml"]


def done(*words, cwd):
    found = command(*words, cwd=cwd)
    assert found.returncode == 0, found.stderr
    return found


def refused(*words, cwd):
    found = command(*words, cwd=cwd)
    assert found.returncode == 2 and found.stderr.count("\n") == 1, found.stderr
    return found.stderr


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_metric_of_ones_own_selects_by_its_smallest_value(tmp_path):
    lab(tmp_path)
    words = (*QUICK, "steps=12", "validate_every=1steps", "monitor=val/mean_rank", "name=mine")
    ended = done(*PLUGIN, *words, cwd=tmp_path)
    folder = tmp_path / "outputs" / "mine"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    ranks = {row["step"]: row["val/mean_rank"] for row in rows}
    best = result(folder)["scores"]["val"]["best"]
    assert best["step"] == min(ranks, key=ranks.get) and len(ranks) == 12
    assert [row["_best/val_mean_rank"] for row in rows] == [min(list(ranks.values())[:n]) for n in range(1, 13)]
    assert ended.stderr.count("val mean_rank ") == 12
    (shown,) = (line.split() for line in ended.stdout.splitlines() if "validation, best" in line)
    assert shown[-2:] == [f"{best['mean_rank']:.4f}", str(best["step"])]
    assert "mean_rank" not in ended.stdout.split("more scores")[1].partition("\n")[0]
    arrays, _ = opened(folder / "predictions" / "val.safetensors")
    order = (-arrays["log_p"]).argsort(1).argsort(1) + 1
    mean_rank = order[range(len(order)), arrays["labels"]].mean()
    assert best["mean_rank"] == pytest.approx(mean_rank) and best["f1_macro"] > 0
    shown = done("task=evaluate", "run=outputs/mine", "task.split=val", "plugins=[my_lab.metrics]", cwd=tmp_path).stdout
    assert f"mean_rank {mean_rank:.4f}" in shown
    assert "has metric=mean_rank of plugins=[my_lab.metrics], which must be given" in refused(
        "resume=outputs/mine", cwd=tmp_path
    )
    done("resume=outputs/mine", "plugins=[my_lab.metrics]", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_sweep_and_a_comparison_know_the_direction_of_a_metric_of_ones_own(tmp_path):
    lab(tmp_path)
    words = (*PLUGIN, "-m", *QUICK, "steps=10", "optim.lr=0.0001,0.1", "seed=0,1,2", "metric=[mean_rank]", "sweep=s")
    done(*words, cwd=tmp_path)
    compare = ("task=compare", "runs=outputs/sweeps/s", "task.metric=val/mean_rank")
    shown = done(*PLUGIN, *compare, "task.baseline='lr=0.0001'", cwd=tmp_path).stdout
    assert re.search(r"lr=0\.1 .* -\d\.\d.* better", shown, re.M), shown
    says = refused(*compare, cwd=tmp_path)
    assert says.startswith("runner: error: task.metric: unknown value 'val/mean_rank'")
    says = refused("task=compare", "runs=outputs/sweeps/s", "task.metric=val/ece", cwd=tmp_path)
    assert "task.metric: got 'val/ece', which no run has at its last validation" in says


def test_a_search_minimizes_a_metric_whose_smaller_values_are_better(tmp_path):
    lab(tmp_path)
    words = (*PLUGIN, "-m", *QUICK, "steps=6", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "sweep=s")
    words += ("hydra/sweeper/sampler=random", "optim.lr=interval(0.0001,0.1)", "monitor=val/mean_rank")
    says = refused(*words, "hydra.sweeper.direction=maximize", cwd=tmp_path)
    assert "got 'maximize', but with monitor=val/mean_rank it is minimize" in says
    done(*words, cwd=tmp_path)
    ranked = yaml.safe_load((tmp_path / "outputs" / "sweeps" / "s" / "optimization_results.yaml").read_text())
    assert ranked["direction"] == "minimize"
    column = [line.split(",")[3] for line in (tmp_path / "outputs/sweeps/s/ranking.csv").read_text().splitlines()]
    assert column[0] == "val/mean_rank" and column[1:] == sorted(column[1:], key=float)
    assert ranked["best_value"] == float(column[1])


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_fault_in_a_metric_of_ones_own_is_the_user_s(tmp_path):
    lab(tmp_path)
    file = tmp_path / "my_lab" / "metrics.py"
    whole = file.read_text()
    for broken, line in (
        ("return 1 + (outputs > outputs.gather(1, labels)).sum(1)", "plugin my_lab/metrics.py:"),
        ("return outputs", "metric=mean_rank: its sums have"),
    ):
        changed = re.sub(r"return 1 \+ .*", broken, whole)
        if broken == "return outputs":
            changed = changed.replace("mean_over_examples(rank)", "Metric(rank, lambda total: total.sum())")
        file.write_text(changed)
        found = command(*PLUGIN, *QUICK, "steps=2", "metric=[mean_rank]", cwd=tmp_path)
        assert found.returncode == 2 and line in found.stderr, found.stderr
    file.write_text(whole.replace("mean_over_examples(rank)", "rank"))
    found = command(*PLUGIN, *QUICK, "steps=2", "metric=[mean_rank]", cwd=tmp_path)
    assert "metric=mean_rank: returns a function, must return a Metric" in found.stderr and found.returncode == 2


@pytest.mark.slow
def test_the_commands_of_the_page_work_as_written(tmp_path):
    lab(tmp_path)
    lines = [line.strip() for line in PAGE.read_text().splitlines() if line.startswith("    python -m runner")]
    assert len(lines) == 7
    for line in lines:
        done(*shlex.split(line)[3:], cwd=tmp_path)
