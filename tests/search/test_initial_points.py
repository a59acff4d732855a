"""Points that a search tries first: checked against the space, tried once, completed by the sampler."""

import pytest
from test_study import LR, MOMENTUM, NUMBERS, OPTIM, WIDTH, points, search

from runner.door.initial_points import check_initial
from runner.errors import ConfigError
from runner.search.space import Axis, Space
from runner.search.study import Study

MIXED = Space((OPTIM, LR, WIDTH, MOMENTUM))


def test_values_become_those_of_the_axes():
    given = [{"lr": 1, "width": 8.0}, {"optim": "adam", "lr": 0.5}, {"optim": "momentum", "momentum": 0.9}]
    assert check_initial(given, MIXED, "tpe") == (
        {"lr": 1.0, "width": 8},
        {"optim": "adam", "lr": 0.5},
        {"optim": "momentum", "momentum": 0.9},
    )
    hidden = Space((Axis(key="model.hidden", kind="choice", choices=("[8]", "[8,8]", "null")),))
    assert check_initial([{"model.hidden": [8, 8]}, {"model.hidden": None}], hidden, "tpe") == (
        {"model.hidden": "[8,8]"},
        {"model.hidden": "null"},
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"lrr": 1}], "hydra.sweeper.initial: unknown key of the search 'lrr'; did you mean 'lr'?"),
        ([{"lr": 2}], "hydra.sweeper.initial: lr: got 2, must be a number from 0.0001 to 1.0"),
        ([{"lr": "high"}], "hydra.sweeper.initial: lr: got 'high', must be a number"),
        ([{"width": 4.5}], "hydra.sweeper.initial: width: got 4.5, must be a whole number from 4 to 64"),
        ([{"optim": "sgd"}], "hydra.sweeper.initial: optim: got 'sgd', must be one of momentum, adam"),
        ([{"optim": "adam", "momentum": 0.9}], "hydra.sweeper.initial: momentum does not apply to the other values"),
        ([3], "hydra.sweeper.initial: got [3], must be a list of"),
        ({"lr": 1}, "hydra.sweeper.initial: got {'lr': 1}, must be a list of"),
    ],
)
def test_a_point_outside_the_space_is_refused_in_one_line(given, message):
    with pytest.raises(ConfigError) as caught:
        check_initial(given, MIXED, "tpe")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_grid_has_no_first_points():
    with pytest.raises(ConfigError, match="a grid tries every point anyway"):
        check_initial([{"optim": "adam"}], Space((OPTIM,)), "grid")


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_the_first_points_come_first_and_once(tmp_path, sampler):
    asked = search(NUMBERS, sampler, 4, initial=({"lr": 0.25, "width": 32}, {"lr": 0.5}))
    first = points(Study(asked, tmp_path))
    assert first[0] == {"lr": 0.25, "width": 32} and first[1]["lr"] == 0.5 and 4 <= first[1]["width"] <= 64
    assert len(first) == 4 and all(each["lr"] not in (0.25, 0.5) for each in first[2:])
    # More points in a second command: the first ones are not tried again
    assert all(each["lr"] not in (0.25, 0.5) for each in points(Study(search(NUMBERS, sampler, 6), tmp_path)))
    again = points(Study(search(NUMBERS, sampler, 7, initial=asked.initial), tmp_path))
    assert len(again) == 1 and again[0]["lr"] not in (0.25, 0.5)
