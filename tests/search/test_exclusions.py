"""Points that a search never tries: none is proposed twice or trained, others take their place, also after a kill."""

import itertools
import os

import pytest
from running import command, run_in_child
from test_study import LR, MIXED, NUMBERS, OPTIM, WIDTH, points, search

from runner.door.exclusions import check_exclusions
from runner.errors import ConfigError
from runner.search.samplers import distinct_points, first_allowed
from runner.search.space import Axis, Space
from runner.search.study import Study

# Of adam only rates below 0.01, and no narrow network at all
EXCLUDE = [{"optim": "adam", "lr": "interval(0.01,1)"}, {"width": "interval(4,7)"}]
DEPTH = Axis(key="depth", kind="int", low=1, high=4, step=1.0)
HEADS = Axis(key="heads", kind="choice", choices=("1", "2", "4"))


def allowed(point) -> bool:
    return not (point["optim"] == "adam" and point["lr"] >= 0.01) and point["width"] > 7


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_no_point_is_excluded_and_as_many_as_asked_for_are_tried(tmp_path, sampler):
    asked = search(MIXED, sampler, 25, exclusions=check_exclusions(EXCLUDE, MIXED))
    study = Study(asked, tmp_path)
    found = points(study)
    assert len(found) == len({tuple(each.items()) for each in found}) == 25 and all(map(allowed, found))
    # Without the exclusion the same sampler proposes some of them
    (tmp_path / "free").mkdir()
    free = points(Study(search(MIXED, sampler, 25), tmp_path / "free"))
    assert not all(map(allowed, free))
    rows = study.rows()
    assert len(rows) == 25 and {row.state for row in rows} == {"complete"}
    study.close()
    # A resumed search adds points, and repeats none
    more = points(Study(search(MIXED, sampler, 30, exclusions=asked.exclusions), tmp_path))
    assert len(more) == 5 and all(map(allowed, more)) and not [each for each in more if each in found]


def test_a_sampler_whose_favorite_points_are_excluded_gets_random_ones_instead(tmp_path):
    """The best learning rate is in the middle of what is left out, so tpe proposes it again and again."""
    exclusions = check_exclusions([{"lr": "interval(0.0002,0.9)"}], NUMBERS)
    found = points(Study(search(NUMBERS, "tpe", 8, exclusions=exclusions), tmp_path))
    assert len(found) == 8 and all(not 0.0002 <= each["lr"] <= 0.9 for each in found)


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_samplers_of_numbers_leave_points_out(tmp_path, sampler):
    exclusions = check_exclusions([{"lr": "interval(0.5,1)"}, {"width": 5}], NUMBERS)
    found = points(Study(search(NUMBERS, sampler, 7, exclusions=exclusions), tmp_path))
    assert len(found) == 7 and all(each["lr"] < 0.5 and each["width"] != 5 for each in found)


def test_a_grid_tries_all_other_points_and_ends(tmp_path):
    space = Space((DEPTH, HEADS))
    exclusions = check_exclusions([{"depth": 1, "heads": 4}, {"depth": 3}], space)
    asked = search(space, "grid", None, exclusions=exclusions)
    assert asked.most_points == 8
    found = points(Study(asked, tmp_path), score=lambda point: 0.0)
    whole = set(itertools.product((1, 2, 3, 4), ("1", "2", "4")))
    expected = {(d, h) for d, h in whole if (d, h) != (1, "4") and d != 3}
    assert len(found) == 8 and {(each["depth"], each["heads"]) for each in found} == expected
    # The numbers of the sequence stay, so that an entry that is added later repeats nothing
    kept = [each for each in distinct_points(space, {"name": "grid", "seed": 0}) if not asked.excludes(each)]
    assert found == kept


def test_a_first_point_that_is_excluded_is_not_tried(tmp_path):
    exclusions = check_exclusions([{"lr": "interval(0.2,0.3)"}], NUMBERS)
    asked = search(NUMBERS, "random", 3, exclusions=exclusions, initial=({"lr": 0.25, "width": 9},))
    assert 0.25 not in [each["lr"] for each in points(Study(asked, tmp_path))]


def test_a_point_that_a_killed_process_proposed_is_left_out_by_the_next_command(tmp_path):
    def propose():
        Study(search(NUMBERS, "tpe", 4), tmp_path).ask()
        os._exit(0)

    run_in_child(propose)
    left = Study(search(NUMBERS, "tpe", 4), tmp_path)._trials()[0].params
    exclusions = check_exclusions([{"width": left["width"]}], NUMBERS)
    found = points(Study(search(NUMBERS, "tpe", 4, exclusions=exclusions), tmp_path))
    assert len(found) == 4 and left["width"] not in [each["width"] for each in found]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"lrr": 1}], "hydra.sweeper.exclude: unknown key of the search 'lrr'; did you mean 'lr'?"),
        ([{"lr": 0.1}], "hydra.sweeper.exclude: lr: got 0.1, which is never drawn exactly; use interval(low,high)"),
        ([{"lr": "interval(2,3)"}], "hydra.sweeper.exclude: lr: got interval(2,3), must overlap with 0.0001 to 1"),
        ([{"lr": "interval(0.1)"}], "lr=interval(0.1): cannot read interval(...); must be like interval(0.1,1)"),
        ([{"width": 4.5}], "hydra.sweeper.exclude: width: got 4.5, must be a whole number from 4 to 64"),
        ([{"optim": "sgd"}], "hydra.sweeper.exclude: optim: got 'sgd', must be one of momentum, adam"),
        ([3], "hydra.sweeper.exclude: got [3], must be a list of"),
        ({"lr": 1}, "hydra.sweeper.exclude: got {'lr': 1}, must be a list of"),
    ],
)
def test_an_entry_outside_the_space_is_refused_in_one_line(given, message):
    with pytest.raises(ConfigError) as caught:
        check_exclusions(given, Space((OPTIM, LR, WIDTH)))
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_an_exclusion_of_everything_is_refused():
    exclusions = check_exclusions([{"optim": "momentum"}, {"optim": "adam"}], MIXED)
    with pytest.raises(ConfigError, match="leaves out each of 10000 random points"):
        first_allowed(MIXED, exclusions)


def test_a_command_may_exclude_combinations_that_a_config_refuses(tmp_path):
    """Three heads do not divide 64 channels: without the entry the command is refused."""
    words = (
        "-m",
        "hydra/sweeper=optuna",
        "hydra/sweeper/sampler=grid",
        "model=vit",
        "model.dim=64,48",
        "model.heads=3,4",
    )
    words += ("model.depth=1", "steps=2", "probe=[]", "augment=[]", "average=none", "device=cpu")
    refused = command(*words, cwd=tmp_path)
    assert refused.returncode == 2 and "heads" in refused.stderr
    done = command(*words, "hydra.sweeper.exclude=[{model.dim: 64, model.heads: 3}]", "sweep=s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "outputs" / "sweeps" / "s" / "ranking.csv").read_text().splitlines()
    assert len(rows) == 4
    everything = command(*words, "hydra.sweeper.exclude=[{model.heads: 3}, {model.heads: 4}]", cwd=tmp_path)
    assert everything.returncode == 2 and "leaves out each" in everything.stderr
