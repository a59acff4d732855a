"""A refining search: its ranges by hand, its decisions on known functions, its budget, and every point of a kill."""

import math
import random
import statistics
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from test_study import came, search

from runner.door.exclusions import check_exclusions
from runner.engine.monitor import Monitor
from runner.errors import ConfigError
from runner.search.candidates import Candidate, are_separable, winner_of
from runner.search.ranges import next_axis, next_range
from runner.search.records import RankedPoint
from runner.search.refine import Progress, RefineSettings, replay, round_cost, training_key
from runner.search.refine_report import report_lines
from runner.search.space import Axis, Space
from runner.search.study import Study

LR = Axis(key="lr", kind="float", low=1e-3, high=1.0, log=True)
WIDE = replace(LR, low=1e-5, high=100.0)
WIDTH = Axis(key="width", kind="int", low=4, high=64, step=1.0)
OPTIM = Axis(key="optim", kind="choice", choices=("momentum", "adam"))
MOMENTUM = Axis(key="momentum", kind="float", low=0.5, high=0.99, when=("optim", ("momentum",)))


def settings(start: Space, **changes) -> RefineSettings:
    values = {
        "start": start,
        "trainings": 60,
        "points": 12,
        "seeds": 3,
        "confirm_seeds": 3,
        "first_seed": 0,
        "sampler_seed": 0,
        "sign": -1.0,
    }
    return RefineSettings(**{**values, **changes})


def run(space: Space, asked: RefineSettings, score):
    """Run a search to its end; return its progress, and the trainings in order."""
    known, done = {}, []
    while (progress := replay(space, asked, known)).wanted:
        for each in progress.wanted:
            known[training_key(space, each.point, each.seed)] = score(each.point, each.seed)
            done.append(each)
    return progress, done


def bowl(best: float, noise: float = 0.0):
    """Return a loss of lr with its least value at `best`, with noise given by point and seed."""

    def score(point, seed):
        draw = random.Random(f"{point['lr']} {seed}").gauss(0.0, noise)
        return math.log10(point["lr"] / best) ** 2 + draw

    return score


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, 0.3, 0.7], (0.3, 0.7)),
        ([0.5, 0.5], (0.375, 0.625)),  # never less than a quarter
        ([0.5, 0.0, 1.0], (0.0, 1.0)),  # an end moves outwards for the best one only
        ([0.05, 0.4], (-0.25, 0.4)),
        ([0.95, 0.6], (0.6, 1.25)),
    ],
)
def test_the_next_range_is_that_of_the_survivors_and_moves_out_where_the_best_is_at_its_end(values, expected):
    assert next_range(values, 0.0, 1.0) == pytest.approx(expected)


def test_axes_keep_their_kind_and_their_limits():
    narrowed = next_axis(LR, WIDE, [0.1, 0.01])
    assert (narrowed.low, narrowed.high) == pytest.approx((0.01, 0.1))
    # Never less than a quarter of the three decades
    narrowed = next_axis(LR, WIDE, [0.01, 0.01])
    assert (narrowed.low, narrowed.high) == pytest.approx((0.01 / 10**0.375, 0.01 * 10**0.375), rel=1e-3)
    at_end = next_axis(LR, WIDE, [0.9, 0.3])
    assert at_end.high == pytest.approx(10**0.75, rel=1e-3)
    assert next_axis(LR, LR, [0.9, 0.3]).high == 1.0
    whole = next_axis(WIDTH, WIDTH, [10, 20])
    assert (whole.low, whole.high) == (4.0, 23.0) and whole.kind == "int"
    assert next_axis(OPTIM, OPTIM, ["adam", "adam"]).choices == ("adam",)
    steps = Axis(key="batch", kind="int", low=16, high=256, step=16.0)
    low, high = (lambda axis: (axis.low, axis.high))(next_axis(steps, steps, [64, 96]))
    assert low % 16 == 0 and high % 16 == 0 and 16 <= low <= 64 and 96 <= high <= 256


@pytest.mark.parametrize("best", [0.02, 0.2, 8.0])
def test_it_finds_the_best_value_also_outside_the_given_range(best):
    progress, done = run(Space((WIDE,)), settings(Space((LR,))), bowl(best))
    assert abs(math.log10(progress.winner["lr"] / best)) < 0.15
    assert all(1e-5 <= each.point["lr"] <= 100 for each in done)
    # Never farther than the widest range
    inside, _ = run(Space((LR,)), settings(Space((LR,))), bowl(best))
    assert inside.winner["lr"] <= 1.0


def test_it_beats_random_search_of_as_many_trainings_on_a_noisy_function():
    axes = [replace(LR, key=key) for key in ("lr", "decay", "eps")]

    def loss(point):
        return sum(math.log10(value / 0.03) ** 2 for value in point.values())

    def score(point, seed):
        return loss(point) + random.Random(f"{point} {seed}").gauss(0.0, 0.05)

    ours, theirs = [], []
    for number in range(20):
        progress, done = run(Space(tuple(axes)), settings(Space(tuple(axes)), sampler_seed=number), score)
        ours.append(loss(progress.winner))
        rng = random.Random(number)
        draws = [{axis.key: axis.value_at(rng.random()) for axis in axes} for _ in done]
        theirs.append(loss(min(draws, key=lambda point: score(point, 0))))
    assert statistics.median(ours) < statistics.median(theirs) / 1.5


@pytest.mark.parametrize("trainings", [22, 24, 37, 60, 100])
def test_it_keeps_its_budget_and_confirms_with_seeds_that_chose_nothing(trainings):
    asked = settings(Space((LR,)), trainings=trainings, seeds=2, points=10, first_seed=5)
    assert round_cost(10, 2) + 6 == 20
    progress, done = run(Space((WIDE,)), asked, bowl(0.1, noise=0.3))
    assert len(done) <= trainings and progress.reason
    keys = [training_key(Space((WIDE,)), each.point, each.seed) for each in done]
    assert len(set(keys)) == len(keys)
    confirming = {each.seed for each in done if each.stage in ("winner", "incumbent")}
    assert confirming == {7, 8, 9} and {each.seed for each in done if "round" in each.stage} == {5, 6}


def test_it_ends_when_the_seeds_cannot_tell_the_best_points_apart():
    flat, done = run(Space((LR,)), settings(Space((LR,)), trainings=500), bowl(0.1, noise=50))
    assert flat.reason == "the 12 points of round 2 differ no more than seeds do" and len(done) < 60
    # Seeds that do not matter: every difference counts
    steep, _ = run(Space((LR,)), settings(Space((LR,)), trainings=100), bowl(0.1))
    assert steep.reason == "no other round fits into its 100 trainings"


def test_separable_is_what_the_analysis_of_variance_says():
    rng = np.random.default_rng(0)
    verdicts = set()
    for spread in (0.0, 0.5, 1.0, 2.0, 4.0):
        truth = rng.normal(0, spread, 8)
        points = [Candidate({"lr": float(n)}, {0: truth[n] + rng.normal()}) for n in range(8)]
        members = [Candidate({"lr": 9.0}, dict(enumerate(rng.normal(5, 1, 3)))) for _ in range(4)]
        noise = np.mean([np.var(list(each.scores.values()), ddof=1) for each in members])
        ratio = np.var([each.scores[0] for each in points], ddof=1) / noise
        expected = stats.f.sf(ratio, 7, 8) < 0.05
        verdicts.add(bool(expected))
        assert are_separable(points, members, 0) == expected
    assert verdicts == {True, False}
    # Nothing is known of the spread over seeds
    assert are_separable([Candidate({"lr": 1.0}, {0: 1.0})] * 5, [Candidate({"lr": 2.0}, {0: 1.0, 1: 1.0})], 0)


def test_the_winner_is_among_the_points_with_most_seeds_and_has_every_score():
    lucky, steady = Candidate({"lr": 1.0}, {0: 0.99}), Candidate({"lr": 2.0}, {0: 0.9, 1: 0.9})
    assert winner_of([lucky, steady, Candidate({"lr": 3.0}, {0: math.nan, 1: 1.0})], 1.0) is steady


def test_diverged_trainings_are_avoided_and_a_search_of_nothing_else_ends():
    def score(point, seed):
        return math.nan if point["lr"] > 0.3 else -math.log10(point["lr"])

    progress, done = run(Space((WIDE,)), settings(Space((LR,))), score)
    assert 0.1 < progress.winner["lr"] <= 0.3
    lost = [each for each in done if each.point["lr"] > 0.3]
    assert all(each.seed == 0 for each in lost)  # no further seeds for them
    nothing, done = run(Space((WIDE,)), settings(Space((LR,))), lambda point, seed: math.nan)
    assert nothing.reason and len(done) <= 60


def test_conditions_choices_and_given_points():
    space = Space((OPTIM, LR, WIDTH, MOMENTUM))

    def score(point, seed):
        best = {"adam": 0.01, "momentum": 0.3}[point["optim"]]
        return math.log10(point["lr"] / best) ** 2 + (point["optim"] == "momentum") + abs(point["width"] - 40) / 100

    given = ({"optim": "adam", "lr": 0.5, "width": 8},)
    progress, done = run(space, settings(space, initial=given, trainings=100), score)
    assert done[0].point == given[0] and progress.incumbent == given[0]
    assert all(("momentum" in each.point) == (each.point["optim"] == "momentum") for each in done)
    assert progress.winner["optim"] == "adam" and abs(math.log10(progress.winner["lr"] / 0.01)) < 0.5


def test_a_search_that_is_killed_after_any_training_makes_the_same_ones():
    space, asked = Space((LR, WIDTH)), settings(Space((LR, WIDTH)), trainings=40, points=8, confirm_seeds=2)
    score = bowl(0.1, noise=0.1)
    _, whole = run(space, asked, score)
    keys = [training_key(space, each.point, each.seed) for each in whole]
    for count in range(len(whole) + 1):
        done = zip(keys[:count], whole[:count], strict=True)
        known = {key: score(each.point, each.seed) for key, each in done}
        wanted = [training_key(space, each.point, each.seed) for each in replay(space, asked, known).wanted]
        assert wanted == keys[count : count + len(wanted)] and bool(wanted) == (count < len(keys))


def test_a_study_gives_each_training_once_and_continues_after_a_kill(tmp_path):
    space = Space((LR,))
    rounds = settings(space, trainings=24, points=6, seeds=2, confirm_seeds=2)
    asked = search(space, "refine", 24, refine=rounds)
    score = bowl(0.1, noise=0.1)

    def tell(study, point):
        study.tell(point, came(score(point.point, point.seeds[0])))
        return training_key(space, point.point, point.seeds[0])

    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, study = [], Study(asked, tmp_path / "whole")
    while (point := study.ask()) is not None:
        whole.append(tell(study, point))
    rng, killed = random.Random(0), []
    while True:
        study, running = Study(asked, tmp_path / "killed"), []
        while len(running) < 3 and (point := study.ask()) is not None:
            running.append(point)
        if not running:
            break
        # A kill in the middle of some trainings: they are asked for again
        killed += [tell(study, point) for point in running if rng.random() < 0.6]
        study.close()
    assert sorted(killed) == sorted(whole) and len(set(whole)) == len(whole) <= 24
    rows = study.rows()
    assert sum(len(row.scores) + len(row.fresh) for row in rows) == len(whole)
    assert rows[0].stage == "winner" and len(rows[0].fresh) == 2
    expected = [score({"lr": float(dict(rows[0].words)["lr"])}, seed) for seed in (2, 3)]
    assert sorted(rows[0].fresh) == pytest.approx(sorted(expected))


def confirmed(stage: str, fresh: list[float]) -> RankedPoint:
    return RankedPoint(
        number=0, words=[("lr", "0.1")], state="complete", value=0.95, scores=[0.95], fresh=fresh, stage=stage
    )


@pytest.mark.parametrize("gap", [0.001, 0.004, 0.01, -0.02])
def test_the_winner_is_compared_with_the_incumbent_by_pairs_of_fresh_seeds(gap):
    winner, incumbent = [0.93, 0.94, 0.91, 0.92], [0.931 - gap, 0.937 - gap, 0.911 - gap, 0.921 - gap]
    rows = [confirmed("winner", winner), confirmed("incumbent", incumbent)]
    line = report_lines(rows, Progress(), Monitor("val/accuracy"))[-1]
    test = stats.ttest_rel(winner, incumbent)
    low, high = test.confidence_interval(0.95)
    verdict = "not distinguishable" if test.pvalue > 0.05 else "better" if gap > 0 else "worse"
    mean = np.mean(winner) - np.mean(incumbent)
    assert line.startswith(f"winner against incumbent: {verdict}, difference {mean:+.4f} ")
    assert f"(95 % {low:.4f} to {high:.4f}, n = 4;" in line
    # Of a loss, smaller is better
    as_loss = report_lines(rows, Progress(), Monitor("val/loss"))[-1]
    assert f"(95 % {-high:.4f} to {-low:.4f}, n = 4;" in as_loss


def test_without_fresh_seeds_no_score_is_shown_as_that_of_the_winner():
    chosen = confirmed("round 1", [])
    assert report_lines([chosen], Progress(notes=["round 1: ..."]), Monitor("val/accuracy")) == [
        "round 1: ...",
        "no val/accuracy of fresh seeds yet: those above chose the points, so they are too good",
    ]
    alone = report_lines([confirmed("winner", [0.9])], Progress(), Monitor("val/accuracy"))
    assert alone == ["winner    lr=0.1: val/accuracy 0.9000 on 1 fresh seed (0.9500 on the 1 that chose it)"]


def test_excluded_points_are_never_tried_and_the_budget_is_kept():
    space = Space((LR, WIDTH))
    # The best rate is in the middle of what is left out
    exclusions = check_exclusions([{"lr": "interval(0.02,0.2)"}, {"width": "interval(4,9)"}], space)
    start, wide = space, Space((WIDE, WIDTH))
    progress, done = run(wide, settings(start, exclusions=exclusions), bowl(0.06, 0.1))
    tried = {(each.point["lr"], each.point["width"]) for each in done}
    assert not [lr for lr, width in tried if 0.02 <= lr <= 0.2 or width <= 9]
    assert len([each for each in done if each.stage == "round 1" and each.seed == 0]) == 12
    assert progress.winner is not None and 40 <= len(done) <= 60
    _, free = run(wide, settings(start), bowl(0.06, 0.1))
    assert [lr for each in free if 0.02 <= (lr := each.point["lr"]) <= 0.2]


def test_without_an_exclusion_that_applies_the_points_are_the_same():
    space = Space((LR, WIDTH))
    none = check_exclusions([{"lr": "interval(1,1)", "width": 4}], space)
    assert run(space, settings(space, exclusions=none), bowl(0.06))[1] == run(space, settings(space), bowl(0.06))[1]


def test_a_round_of_which_everything_is_left_out_ends_the_search():
    space = Space((WIDTH,))
    only = check_exclusions([{"width": "interval(4,63)"}], space)
    progress, done = run(space, settings(space, exclusions=only), lambda point, seed: float(seed))
    assert {each.point["width"] for each in done} == {64} and progress.reason is not None
    everything = check_exclusions([{"width": "interval(4,64)"}], space)
    with pytest.raises(ConfigError, match="leaves out each of"):
        run(space, settings(space, exclusions=everything), bowl(0.06))
