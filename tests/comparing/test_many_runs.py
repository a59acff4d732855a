"""Comparisons of many runs: the best are shown, limits are named, and no run is compared with each other one."""

import csv
import re

import pytest
from comparing_runs import write_run

from runner.comparing import runs
from runner.comparing.csv_tables import configurations_csv, runs_csv
from runner.comparing.groups import Group
from runner.comparing.page import draw_pictures, html_page, markdown_page
from runner.comparing.report import make_report
from runner.comparing.verdicts import Criterion
from runner.tasks.compare import _print_report

pytestmark = pytest.mark.rendered

CONFIGURATIONS, SEEDS = 220, 130


@pytest.fixture(scope="module")
def configurations(tmp_path_factory):
    """One run each of many configurations; the best is the last one by its learning rate."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(CONFIGURATIONS):
        accuracy = 0.3 + 0.002 * number
        write_run(folder / f"{number}", accuracy, loss=2 - accuracy, curve=False, optim__lr=0.001 * (number + 1))
    return folder


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Many seeds of one configuration, and each of them again."""
    folder = tmp_path_factory.mktemp("seeds")
    for seed in range(SEEDS):
        for again in range(2):
            status = "failed" if seed % 5 == 4 else "done"
            write_run(folder / f"{seed}-{again}", 0.5, status=status, curve=False, seed=seed, started=again)
    return folder


def report(folder, metric="val/accuracy"):
    return make_report([str(folder)], Criterion(metric=metric, at="last"), "lr=0.1")


def first_column(text):
    """Return the learning rates of the first table on the screen, in order."""
    return [float(each) for each in re.findall(r"^ ?lr=([0-9.e-]+)", text.split("- val/")[0], re.MULTILINE)]


@pytest.mark.parametrize("metric", ["val/accuracy", "val/loss"])
def test_the_best_configurations_are_on_the_screen_and_the_limit_is_named(configurations, metric, capsys):
    _print_report(report(configurations, metric))
    shown = capsys.readouterr().out
    rates = first_column(shown)
    assert rates[0] == 0.1  # the baseline
    assert rates[1:] == pytest.approx([0.001 * (CONFIGURATIONS - place) for place in range(29)])
    assert f"30 of {CONFIGURATIONS} configurations, the best first; all in comparison.csv" in shown


def test_the_files_have_all_configurations_and_the_page_the_best(configurations):
    found = report(configurations)
    table = list(csv.DictReader(configurations_csv(found).splitlines()))
    means = [float(row["mean"]) for row in table]
    assert len(means) == CONFIGURATIONS
    assert means[1:] == sorted(means[1:], reverse=True)
    drawn = draw_pictures(found)
    page, text = html_page(found, drawn, "x"), markdown_page(found, drawn, "x")
    assert page.count("<tr>") <= 4 * 201 + 10
    for each in (page, text):
        assert f"200 of {CONFIGURATIONS} configurations, the best first; all in comparison.csv" in each
        assert f"30 of {CONFIGURATIONS} configurations: the baseline and the best." in each
    # matplotlib draws letters as paths, and writes the text in a comment
    assert f"<!-- {CONFIGURATIONS - 30} worse ones are not drawn -->" in drawn["curves"].decode()
    assert sum(map(len, drawn.values())) < 2_000_000


def test_time_grows_with_the_runs_and_not_with_their_square(seeds, monkeypatch):
    """Without a comparison of two runs, and with each log read once."""
    counts = {"equal": 0, "read": 0}

    def equal(one, other):
        counts["equal"] += 1
        return one is other

    read = runs.read_metrics

    def counting(path):
        counts["read"] += 1
        return read(path)

    monkeypatch.setattr(runs.Run, "__eq__", equal)
    monkeypatch.setattr(runs, "read_metrics", counting)
    found = make_report([str(seeds)], Criterion(metric="val/accuracy", at="last"), None)
    [row] = found.rows
    assert (len(row.group.runs), len(row.group.repeats), len(row.scores)) == (SEEDS, SEEDS, SEEDS * 4 // 5)
    drawn = draw_pictures(found)
    html_page(found, drawn, "x")
    table = list(csv.DictReader(runs_csv(found).splitlines()))
    assert [row["repeat"] for row in table] == ["False"] * SEEDS + ["True"] * SEEDS
    assert counts["equal"] == 0
    assert counts["read"] <= SEEDS


def test_the_scores_of_the_baseline_are_read_once_for_all_configurations(configurations, monkeypatch):
    asked = []
    scores = Group.scores

    def counting(group, metric, at):
        asked.append(group.label)
        return scores(group, metric, at)

    monkeypatch.setattr(Group, "scores", counting)
    report(configurations)
    assert asked.count("optim.lr=0.1") <= 3
