"""The flat form of a config, and which parts of it say what is computed."""

from runner.engine.hparams import flat_hparams

CONFIG = {
    "data": {"name": "cifar10", "root": "/data", "workers": 4, "batch_size": 128},
    "optim": {"name": "adam", "lr": 1e-3, "betas": [0.9, 0.999], "amsgrad": False, "weight_decay": None},
    "scheduler": {"name": "step", "at": {"first": 1, "second": 2}, "empty": []},
    "augment": {"crop": {"padding": 4}, "flip": {}},
    "regularizer": {},
    "probe": {"images": {"every": 500}},
    "task": {"name": "train", "figures": True},
    "epochs": 20,
    "precision": "bf16",
    "seed": 3,
    "outputs": "outputs",
    "name": None,
    "sweep": None,
    "resume": None,
    "run": None,
    "note": "why?",
    "plugins": [],
    "device": "cuda",
    "log_every": 50,
}


def test_a_config_becomes_one_level_of_numbers_truths_and_words():
    assert flat_hparams(CONFIG) == {
        "data": "cifar10",
        "data.batch_size": 128.0,
        "optim": "adam",
        "optim.lr": 1e-3,
        "optim.betas": "0.9+0.999",
        "optim.amsgrad": False,
        "optim.weight_decay": "none",
        "scheduler": "step",
        "scheduler.at.first": 1.0,
        "scheduler.at.second": 2.0,
        "scheduler.empty": "none",
        "augment": "crop+flip",
        "augment.crop.padding": 4.0,
        "regularizer": "none",
        "epochs": 20.0,
        "precision": "bf16",
    }


def test_the_types_are_those_that_tensorboard_tells_apart():
    assert {type(value) for value in flat_hparams(CONFIG).values()} == {bool, float, str}


def test_seeds_and_places_do_not_tell_runs_apart():
    moved = {**CONFIG, "seed": 4, "outputs": "/elsewhere", "device": "cpu", "data": {**CONFIG["data"], "root": "x"}}
    assert flat_hparams(moved) == flat_hparams(CONFIG)
