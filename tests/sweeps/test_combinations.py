"""Grids that are no plain product: zipped keys, knobs of some options, and combinations that are left out."""

import itertools

import pytest
from running import command
from sklearn.model_selection import ParameterGrid

from runner.door.also import further_grids
from runner.door.grid import Axes, grid_of
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.errors import ConfigError

CONF = find_conf()


def trials_with(also, *words: str, **sweeper) -> list[str]:
    """Return the trials of a command line with further grids."""
    combinations = grid_of(CONF, Axes(read_overrides(CONF, words), [], further_grids(CONF, also)), sweeper)
    return [" ".join(each.word for each in given) for given in combinations.all()]


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


def test_further_grids_take_the_values_of_the_command_but_for_their_own_keys():
    """The union of the grids that scikit-learn makes of the same dicts."""
    also = [{"optim": "sgd", "optim.lr": [0.1, 0.3]}, {"optim": ["momentum"], "optim.lr": "0.03,0.01", "epochs": 2}]
    found = trials_with(also, "optim=adam", "optim.lr=0.001,0.003", "seed=0,1")
    seeds = {"seed": [0, 1]}
    grids = [
        {"optim": ["adam"], "optim.lr": [0.001, 0.003], **seeds},
        {"optim": ["sgd"], "optim.lr": [0.1, 0.3], **seeds},
        {"optim": ["momentum"], "optim.lr": [0.03, 0.01], "epochs": [2], **seeds},
    ]
    assert len(found) == len(set(found)) == 12
    expected = [{f"{key}={value}" for key, value in point.items()} for point in ParameterGrid(grids)]
    assert sorted(map(sorted, expected)) == sorted(sorted(each.split()) for each in found)


def test_values_of_further_grids_are_as_on_the_command_line():
    rest = "model=mlp"
    hidden = trials_with([{"model.hidden": [[64], [64, 32], []]}], rest, "model.hidden=[8]")
    assert hidden[1:] == [f"{rest} model.hidden={each}" for each in ("[64]", "[64,32]", "[]")]
    assert trials_with([{"seed": "range(5,7)"}], "seed=0")[1:] == ["seed=5", "seed=6"]
    assert trials_with([{"model.hidden": [8, 16]}], rest, "model.hidden=4,8")[-1:] == [f"{rest} model.hidden=16"]
    assert trials_with([{"clip": [None, 1.0]}], "clip=2")[1:] == ["clip=null", "clip=1.0"]
    assert trials_with([{"optim.amsgrad": True}], "optim=adam", "optim.amsgrad=false")[1:] == [
        "optim=adam optim.amsgrad=true"
    ]


def test_a_knob_of_the_command_is_left_out_where_a_further_grid_has_no_such_knob():
    found = trials_with([{"optim": "sgd", "optim.lr": 0.1}], "optim=adam", "optim.betas=[0.9,0.999],[0.8,0.99]")
    assert found == [
        "optim=adam optim.betas=[0.9,0.999]",
        "optim=adam optim.betas=[0.8,0.99]",
        "optim=sgd optim.lr=0.1",
    ]


def test_what_two_grids_have_runs_once_and_combinations_are_left_out_of_all():
    assert trials_with([{"seed": [1, 2]}], "seed=0,1", "epochs=3") == [f"seed={n} epochs=3" for n in range(3)]
    also = [{"optim": "sgd", "optim.lr": [0.1, 1]}]
    left = trials_with(also, "optim=adam", "optim.lr=0.1,1", exclude=[{"optim": "sgd", "optim.lr": 1}])
    assert left == ["optim=adam optim.lr=0.1", "optim=adam optim.lr=1", "optim=sgd optim.lr=0.1"]
    zipped = trials_with([{"seed": [5, 6], "epochs": [7, 8]}], "seed=0,1", "epochs=1,2", zip=[["seed", "epochs"]])
    assert zipped == ["seed=0 epochs=1", "seed=1 epochs=2", "seed=5 epochs=7", "seed=6 epochs=8"]


@pytest.mark.parametrize(
    ("also", "message"),
    [
        ({"optim": "sgd"}, "hydra.sweeper.also: got {'optim': 'sgd'}, must be a list of grids such as"),
        ([{}], "hydra.sweeper.also: got [{}], must be a list of grids"),
        ([{"optm.lr": 0.1}], "optm"),
        ([{"plugins": ["a"]}], "plugins: allowed on the command line only"),
        ([{"hydra.launcher.workers": 2}], "hydra.sweeper.also: hydra.launcher.workers: is of the whole sweep"),
        ([{"seed": []}], "hydra.sweeper.also: seed: got [], which has no values"),
        ([{"optim": "sgd", "optim.betas": [[0.9, 0.99]]}], "also: optim.betas: optim=sgd has no such knob"),
        ([{"seed": {"a": 1}}], "hydra.sweeper.also.seed: must be text"),
        ([{"optim.lr": "interval(0.1,1)"}], "optim.lr: got interval(0.1,1), but a grid tries listed values only"),
        ([{"seed": "range(0,20000)"}], "seed: the sweep has 20000 trials or more, must be at most 10000"),
    ],
)
def test_a_further_grid_that_makes_no_sense_is_refused_in_one_line(also, message):
    with pytest.raises(ConfigError) as caught:
        trials_with(also, "optim=momentum", "optim.lr=0.1,0.01")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_command_with_further_grids_checks_names_and_resumes_all_of_them(tmp_path):
    words = ("-m", "model=mlp", "model.hidden=[4]", "optim=adam", "optim.lr=0.01", "seed=choice(0)", "epochs=1")
    words += (
        "probe=[]",
        "hydra.sweeper.also=[{optim: sgd, optim.lr: [0.1, 0.3]}, {optim: adam, optim.lr: 1e-2}]",
        "augment=[]",
    )
    done = command(*words, "hydra.sweeper.scientific=[optim]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [sweep] = (tmp_path / "outputs" / "sweeps").iterdir()
    names = sorted(each.name.rpartition("-")[0] for each in sweep.iterdir() if (each / "result.json").is_file())
    optims = ["optim=adam-lr=0.01", "optim=sgd-lr=0.1", "optim=sgd-lr=0.3"]
    assert names == [f"{optim}-seed=0" for optim in optims]
    assert len((sweep / "scientific.csv").read_text().splitlines()) == 3
    again = command(f"resume={sweep}", cwd=tmp_path)
    assert again.returncode == 0 and "3 trials" in again.stdout
