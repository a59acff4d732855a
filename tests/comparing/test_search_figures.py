"""Figures of a search: buckets by hand, shares against scipy, and what the drawn lines show."""

import math

import pytest
from scipy import stats

from runner.comparing.groups import Group
from runner.comparing.search_figures import (
    buckets,
    draw_budgets,
    draw_infeasible,
    draw_isolation,
    has_budgets,
    infeasible_key,
    search_keys,
    wilson_interval,
)
from runner.comparing.verdicts import ComparedRow, Criterion

ACCURACY, LOSS = Criterion(metric="val/accuracy", at="last"), Criterion(metric="val/loss", at="last")


class Training:
    """A run, of which only the number counts here."""


def row(mean: float | None, runs: int = 1, **values) -> ComparedRow:
    """Return a configuration; without a mean, none of its runs has a score."""
    values = {key.replace("__", "."): value for key, value in values.items()}
    group = Group(label=str(values), short=str(values), values=values, runs=tuple(Training() for _ in range(runs)))
    scores = {} if mean is None else dict.fromkeys(range(runs), mean)
    return ComparedRow(
        group=group,
        scores=scores,
        mean=math.nan if mean is None else mean,
        sd=math.nan,
        is_baseline=False,
        differences={},
    )


def test_few_values_are_a_bucket_each_and_many_are_ranges_of_equal_width_of_their_logarithm():
    few = [row(0.1, optim__lr=0.1), row(0.5, optim__lr=0.01), row(0.3, optim__lr=0.1)]
    found = buckets(few, "optim.lr")
    assert [(each.label, each.middle, len(each.rows)) for each in found] == [("0.01", 0.01, 1), ("0.1", 0.1, 2)]
    assert [each.best(ACCURACY) for each in found] == [0.5, 0.3] and found[1].best(LOSS) == 0.1
    # Six decades: a bucket for each
    many = [row(power / 10, optim__lr=1.5 * 10.0**-power) for power in range(6)]
    ends = [row(0.9, optim__lr=1e-6), row(0.2, optim__lr=1.0 * 10**0)]
    found = buckets([*many, *ends, row(0.95, optim__lr=3e-3), row(None, optim__lr=3e-2)], "optim.lr")
    assert len(found) == 6 and sum(len(each.rows) for each in found) == 10
    low, high = math.log(1e-6), math.log(1.5)
    for number, each in enumerate(found):
        start, end = (math.exp(low + (high - low) * (number + more) / 6) for more in (0, 1))
        assert all(start * 0.999 <= one.group.values["optim.lr"] <= end * 1.001 for one in each.rows)
    words = [row(0.1, optim="adam"), row(0.2, optim="sgd"), *(row(0.3, optim=str(n)) for n in range(8))]
    assert len(buckets(words, "optim")) == 10


@pytest.mark.parametrize(("count", "total"), [(0, 5), (3, 7), (7, 7), (12, 300)])
def test_the_interval_of_a_share_is_that_of_scipy(count, total):
    expected = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(count, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


def grid() -> list[ComparedRow]:
    """Return a grid in which the largest learning rate has no score."""
    lrs, decays = (0.001, 0.01, 0.1, 1.0), (0.0, 0.1)
    return [
        row(None if lr == 1.0 else 0.5 + lr - decay / 10, runs=2, optim__lr=lr, optim__weight_decay=decay)
        for lr in lrs
        for decay in decays
    ]


def test_the_isolation_plot_has_the_best_score_over_the_other_knob():
    rows = grid()
    assert search_keys(rows) == ["optim.lr", "optim.weight_decay"]
    lr, decay = draw_isolation(rows, ACCURACY).make().axes[:2]
    heights = list(lr.lines[0].get_ydata())
    assert heights[:3] == pytest.approx([0.501, 0.51, 0.6]) and math.isnan(heights[3])
    assert list(decay.lines[0].get_ydata()) == pytest.approx([0.6, 0.59])
    assert [text.get_text() for text in lr.texts] == ["n=2"] * 3 and [t.get_text() for t in decay.texts] == ["n=4"] * 2
    assert lr.get_xlabel() == "optim.lr" and lr.get_xticklabels()[0].get_text() == "0.001"
    assert search_keys(rows[:7]) == [] and search_keys([row(0.1, optim__lr=n / 10) for n in range(9)]) == []


def test_the_share_without_a_score_is_drawn_against_the_learning_rate():
    assert infeasible_key(grid()) == "optim.lr"
    [axes] = draw_infeasible(grid()).make().axes
    line = axes.lines[0]
    assert list(line.get_xdata()) == [0.001, 0.01, 0.1, 1.0] and list(line.get_ydata()) == [0, 0, 0, 1]
    assert axes.get_xscale() == "log"
    scored = [each for each in grid() if each.scores]
    assert infeasible_key(scored) is None and infeasible_key([row(None, model=str(n)) for n in range(9)]) is None


@pytest.mark.parametrize(("criterion", "best"), [(ACCURACY, max), (LOSS, min)])
def test_the_line_of_budgets_ends_at_the_best_score(criterion, best):
    scores = [0.3, 0.9, 0.5, 0.6, 0.1, 0.7, 0.2, 0.8, 0.4]
    rows = [row(score, optim__lr=number) for number, score in enumerate(scores)]
    assert has_budgets(rows) and not has_budgets(rows[:7])
    [axes] = draw_budgets(rows, criterion).make().axes
    heights = list(axes.lines[0].get_ydata())
    assert heights[-1] == best(scores) and heights[0] == pytest.approx(0.5) and len(heights) == 9
