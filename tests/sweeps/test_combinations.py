"""Grids that are no plain product: zipped keys, knobs of some options, and combinations that are left out."""

import itertools

import pytest

from runner.door.grid import Axes, grid_of
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.errors import ConfigError

CONF = find_conf()


def trials(*words: str, **sweeper) -> list[str]:
    return [" ".join(each.word for each in given) for given in grid(*words, **sweeper).all()]


def grid(*words: str, **sweeper):
    return grid_of(CONF, Axes(read_overrides(CONF, words), []), sweeper)


def test_zipped_keys_go_together_and_the_others_are_combined_with_each_pair():
    words = ("optim=momentum,adam", "seed=0,1", "optim.lr=0.1,0.001", "epochs=3")
    pairs = [("momentum", "0.1"), ("adam", "0.001")]
    expected = [f"optim={o} seed={s} optim.lr={lr} epochs=3" for (o, lr), s in itertools.product(pairs, (0, 1))]
    assert trials(*words, zip=[["optim", "optim.lr"]]) == expected
    three = trials("seed=range(0,3)", "epochs=1,2,3", "optim.lr=0.1,0.2,0.3", zip=[["seed", "epochs", "optim.lr"]])
    assert three == [f"seed={n} epochs={n + 1} optim.lr=0.{n + 1}" for n in range(3)]


def test_a_knob_applies_to_the_options_that_have_it_and_each_trial_is_made_once():
    found = grid("optim=momentum,adam,sgd", "optim.betas=[0.9,0.999],[0.8,0.99]", "optim.momentum=0.9")
    assert [" ".join(each.word for each in given) for given in found.all()] == [
        "optim=momentum optim.momentum=0.9",
        "optim=adam optim.betas=[0.9,0.999]",
        "optim=adam optim.betas=[0.8,0.99]",
        "optim=sgd",
    ]
    assert found.notes == [
        "optim.betas: applies to optim=adam only, the other trials are without it",
        "optim.momentum: applies to optim=momentum only, the other trials are without it",
    ]


def test_a_knob_that_every_option_has_or_none_is_left_to_the_check_of_the_config():
    assert grid("optim=momentum,adam", "optim.lr=0.1,0.2").notes == []
    assert len(trials("optim=momentum,adam", "optim.lr=0.1,0.2")) == 4
    assert "optim=adam optim.momenta=1" in trials("optim=momentum,adam", "optim.momenta=1")


def test_excluded_combinations_are_left_out_by_value():
    words = ("optim=momentum,adam", "optim.lr=1,0.1", "seed=0,1")
    left = trials(*words, exclude=[{"optim": "adam", "optim.lr": 1.0}, {"optim.lr": 0.1, "seed": 1}])
    whole = itertools.product(("momentum", "adam"), ("1", "0.1"), ("0", "1"))
    kept = [(o, lr, s) for o, lr, s in whole if (o, lr) != ("adam", "1") and (lr, s) != ("0.1", "1")]
    assert left == [f"optim={o} optim.lr={lr} seed={s}" for o, lr, s in kept]


@pytest.mark.parametrize(
    ("sweeper", "message"),
    [
        ({"zip": [["optim", "seed"]]}, "hydra.sweeper.zip: optim has 2, seed has 3 values; zipped keys have the same"),
        ({"zip": [["optim", "optim.lr"], ["optim.lr", "seed"]]}, "hydra.sweeper.zip: got optim.lr twice"),
        ({"zip": [["optim"]]}, "hydra.sweeper.zip: got [['optim']], must be lists of two keys or more"),
        ({"zip": [["optim", "epochs"]]}, "hydra.sweeper.zip: unknown key with several values 'epochs'"),
        ({"zip": "optim"}, "hydra.sweeper.zip: got optim, must be lists"),
        ({"exclude": [{"optim": "sgd"}]}, "hydra.sweeper.exclude: {'optim': 'sgd'} is not a combination of this grid"),
        ({"exclude": [{"seed": True}]}, "hydra.sweeper.exclude: {'seed': True} is not a combination of this grid"),
        (
            {"exclude": [{"sed": 1}]},
            "hydra.sweeper.exclude: unknown key with several values 'sed'; did you mean",
        ),
        ({"exclude": [{"seed": n} for n in range(3)]}, "hydra.sweeper.exclude: leaves out every combination"),
        ({"exclude": {"seed": 1}}, "hydra.sweeper.exclude: got {'seed': 1}, must be a list of"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(sweeper, message):
    with pytest.raises(ConfigError) as caught:
        trials("optim=momentum,adam", "optim.lr=0.1,0.01", "seed=0,1,2", "epochs=3", **sweeper)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_zipped_grid_may_have_long_axes_but_not_too_many_trials():
    assert len(trials("seed=range(0,200)", "epochs=range(1,201)", zip=[["seed", "epochs"]])) == 200
    words = ("seed=range(0,200)", "epochs=range(1,201)", "optim.lr=range(1,61)")
    with pytest.raises(ConfigError, match="the sweep has 12000 trials or more, must be at most 10000"):
        trials(*words, zip=[["seed", "epochs"]])
