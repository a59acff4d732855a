"""The report on an ensemble says what the statistics say, on every kind of page and in odd cases."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import special

from runner.ensembles.calibration import prediction_scores, with_temperature
from runner.ensembles.figures import ensemble_figure
from runner.ensembles.gains import Gain
from runner.ensembles.report import EnsembleReport, curve_table, points, scores_table, sentences
from runner.ensembles.report_pages import board_values, html_report, markdown_report, print_report
from runner.ensembles.statistics import combine, statistics


def report(members=3, copies=False, **changes):
    draw = np.random.default_rng(0)
    labels = draw.integers(4, size=80)
    log_p = special.log_softmax(draw.normal(size=(members, 80, 4)) + 1.5 * np.eye(4)[labels], axis=-1)
    log_p = log_p[:1].repeat(members, 0) if copies else log_p
    weights = np.full(members, 1 / members)
    found = EnsembleReport(
        title=f"ensemble of {members} runs",
        split="validation",
        names=tuple(f"seed={seed}" for seed in range(members)),
        statistics=statistics(log_p, labels, weights, "probabilities", best=1 % members, seed=0),
        how="probabilities",
        cost=members,
        temperature=1.25,
        calibrated=prediction_scores(with_temperature(combine(log_p, weights, "probabilities"), 1.25), labels),
        fitted_on="40 examples",
    )
    return replace(found, **changes)


def printed(found, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    stream = io.StringIO()
    print_report(found, stream)
    return stream.getvalue()


def test_a_gain_is_in_points_with_its_interval():
    assert points(Gain(0.0131, 0.0042, 0.0209), 360) == "+1.3 points [0.4, 2.1]"
    assert points(Gain(0.0131, -0.0042, 0.0209), 5000) == "+1.31 points [-0.42, 2.09]"
    assert points(Gain(-0.0001, -0.0002, 0.0), 10) == "+0.0 points [0.0, 0.0]"
    assert points(Gain(1.0, math.nan, math.nan), 1) == "+100.0 points"
    assert points(Gain(math.nan, math.nan, math.nan), 0) == "not defined"


def test_the_sentences_have_the_numbers_of_the_statistics():
    found = report()
    lines = sentences(found)
    mean, best = (points(gain, 80) for gain in (found.statistics.gain_over_mean, found.statistics.gain_over_best))
    assert lines[0] == f"gain over the mean of the members: {mean}"
    assert lines[1] == f"gain over the best member by validation (seed=1): {best}"
    assert f"the lectures say about 2 %; measured here: {mean} over the mean" in lines
    after = found.calibrated
    assert f"NLL {found.statistics.ensemble.nll:.4f} -> {after.nll:.4f}" in "".join(lines)
    assert lines[-1] == "cost: 3 times the forward passes of one member"


def test_copies_gain_nothing_in_words():
    lines = sentences(report(copies=True))
    assert sum("+0.0 points [0.0, 0.0]" in line for line in lines) == 3
    assert "two members disagree on 0.0 % of the examples" in lines and "correlation of their errors: 1.00" in lines


def test_one_member_has_no_pair_and_no_sd_in_words():
    found = report(1)
    assert not any("disagree" in line or "correlation" in line for line in sentences(found))
    assert [row["predictions"].split()[0] for row in scores_table(found)] == ["mean", "best", "ensemble", "ensemble"]
    assert [row["subsets"] for row in curve_table(found)] == ["all 1"]


def test_without_a_temperature_nothing_is_said_of_it():
    found = report(temperature=None, calibrated=None, expected="")
    assert not any("temperature" in line or "lectures" in line for line in sentences(found))
    assert len(scores_table(found)) == 4


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_terminal_shows_every_number_that_its_width_has_room_for(width, monkeypatch):
    found = report()
    text = printed(found, width, monkeypatch)
    assert all(len(line) <= width for line in text.splitlines())
    for value in (found.statistics.ensemble.accuracy, found.statistics.ensemble.nll, found.calibrated.ece):
        assert f"{value:.4f}" in text


def test_pages_have_the_same_numbers_and_escape_names(monkeypatch):
    found = report(names=("<script>alert(1)</script>", "a|b", "c"))
    page, text = html_report(found, b"png", "command <x>"), markdown_report(found, "ensemble.png", "command")
    assert "<script>" not in page and "src=" in page and "command &lt;x&gt;" in page and "http:" not in page
    assert "a\\|b" in text and "![" in text and "](ensemble.png)" in text
    for row in scores_table(found):
        assert row["accuracy"] in page and row["accuracy"] in text
    assert "<img" not in html_report(found, None, "c") and "![" not in markdown_report(found, None, "c")


def test_tensorboard_gets_the_curve_by_number_of_members():
    found = report()
    values = board_values(found)
    assert list(values) == [0, 1, 2, 3]
    assert values[3]["ensemble/accuracy"] == found.statistics.ensemble.accuracy
    assert values[1]["ensemble/accuracy"] == pytest.approx(found.statistics.mean.accuracy)
    assert "lectures" in values[0]["ensemble/report"]


@pytest.mark.rendered
@pytest.mark.parametrize("found", [report(), report(1), report(2, copies=True), report(temperature=None)])
def test_the_figure_can_be_drawn(found):
    assert ensemble_figure(found).draw().startswith(b"\x89PNG")
