"""Names of folders, and hashes that are equal for runs of the same configuration."""

import re

import pytest

from runner.door.naming import name_in, run_name, sweep_names, trial_folders, trial_name, value_in_name
from runner.hashes import digest, group_hash, hash8
from runner.keys import experiment
from runner.schema import FolderName, check

CONFIG = {
    "model": {"name": "mlp", "hidden": [8]},
    "optim": {"name": "sgd", "lr": 1.0},
    "augment": {"crop": {"padding": 1}, "hflip": {"p": 0.5}},
    "data": {"name": "imagefolder", "batch_size": 64, "root": "/here", "workers": 2, "cache": "auto"},
    "epochs": 3,
    "seed": 0,
    "device": "cpu",
    "log_every": 50,
    "outputs": "outputs",
    "name": None,
    "sweep": None,
    "resume": None,
    "run": None,
    "note": "",
    "plugins": [],
    "test": "end",
}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ([], "default"),
        ([("model", "resnet"), ("optim", "adam"), ("seed", 1)], "model=resnet-optim=adam-seed=1"),
        ([("seed", 1), ("model", "resnet")], "seed=1-model=resnet"),
        ([("augment", ["crop", "hflip"])], "augment=crop+hflip"),
        ([("augment", [])], "augment=none"),
        ([("optim.lr", 1e-5), ("clip", None), ("optim.fused", True)], "optim.lr=1e-05-clip=null-optim.fused=true"),
        ([("optim.lr", 0.1), ("optim.wd", 3.0)], "optim.lr=0.1-optim.wd=3"),
        ([("monitor", "val/loss")], "monitor=val-loss"),
        ([("optim.rules", [{"match": "a b"}])], "optim.rules=match-a-b"),
        (
            [("note", "why"), ("device", "cuda"), ("data.root", "/x"), ("hydra.run.dir", "y"), ("plugins", ["z"])],
            "default",
        ),
    ],
)
def test_a_run_is_named_by_what_differs(given, name):
    assert run_name(given) == name


def test_a_trial_and_its_sweep_are_named_by_short_keys():
    given = [("optim", "adam"), ("optim.lr", 0.1), ("seed", 3)]
    assert trial_name(given, CONFIG) == f"optim=adam-lr=0.1-seed=3-{hash8(CONFIG)}"
    given = [("optim.lr", 0.1), ("scheduler.lr", 1), ("augment.crop.p", 0.5)]
    assert trial_name(given, CONFIG).startswith("optim.lr=0.1-scheduler.lr=1-p=0.5-")
    assert sweep_names(["optim", "optim.lr", "seed"], "end") == ("optim+lr-end", "optim+optim.lr+seed-end")
    assert sweep_names(["seed"], "end")[0] == "seed-end" and sweep_names([], "end")[0] == "default-end"


@pytest.mark.parametrize("name", ["optim.lr=0.1,seed=3-{}", "lr=0.1,seed=3-{}", "lr=0.1-seed=3-{}"])
def test_a_trial_is_found_by_the_name_of_either_version(name, tmp_path):
    given = [("optim.lr", 0.1), ("seed", 3)]
    own = trial_name(given, CONFIG)
    (tmp_path / "optim.lr=0.1,seed=4-01234567").mkdir()
    assert name_in(tmp_path, own, CONFIG, given) == own
    trial_folders.cache_clear()
    (tmp_path / name.format(hash8(CONFIG))).mkdir()
    assert name_in(tmp_path, own, CONFIG, given) == name.format(hash8(CONFIG))


def test_a_long_name_is_cut_and_stays_distinct():
    long, other = ([("optim.rules", ["x" * 200, end])] for end in "ab")
    name = run_name(long)
    assert len(name) == 100
    assert re.fullmatch(r"optim\.rules=x+-[0-9a-f]{8}", name)
    assert name != run_name(other)


@pytest.mark.parametrize("value", ["é\n/..", "$(rm)", {"a": 1}, ["a", None], 0.1 + 0.2, "..", "x" * 500])
def test_every_name_is_a_folder_name(value):
    check("name", run_name([("augment.x", value)]), FolderName)


def test_floats_are_named_exactly():
    assert float(value_in_name(0.1 + 0.2)) == 0.1 + 0.2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("outputs", "/else"),
        ("name", "x"),
        ("sweep", "x"),
        ("resume", "x"),
        ("run", "x"),
        ("note", "x"),
        ("plugins", ["x"]),
        ("device", "cuda"),
        ("test", "never"),
        ("log_every", 1),
        ("checkpoint_every", "7steps"),
        ("compile", True),
        ("probe", {"images": {"every": 5}}),
    ],
)
def test_the_hash_does_not_count_places_and_logging(key, value):
    assert hash8({**CONFIG, key: value}) == hash8(CONFIG)


@pytest.mark.parametrize("key", ["root", "workers", "cache", "placement", "memory"])
def test_the_hash_does_not_count_where_the_data_lie(key):
    assert hash8({**CONFIG, "data": {**CONFIG["data"], key: "else"}}) == hash8(CONFIG)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 4},
        {"seed": 1},
        {"model": {"name": "mlp", "hidden": [8, 8]}},
        {"data": {**CONFIG["data"], "batch_size": 32}},
        {"augment": {"hflip": {"p": 0.5}, "crop": {"padding": 1}}},
    ],
)
def test_the_hash_counts_all_else_and_the_order_of_augmentations(change):
    assert hash8({**CONFIG, **change}) != hash8(CONFIG)


RULE = {"match": "fc", "lr": 0.5}


def test_the_hash_does_not_count_the_label_of_a_rule_and_is_that_of_the_rule_without_it():
    plain, named = ({**CONFIG, "optim": {**CONFIG["optim"], "rules": [rule]}} for rule in (RULE, {**RULE, "name": "a"}))
    assert (hash8(named), group_hash(named)) == (hash8(plain), group_hash(plain))
    assert digest([{**experiment(CONFIG), "optim": plain["optim"]}, 0]) == hash8(named)
    assert hash8({**CONFIG, "optim": {**CONFIG["optim"], "rules": [{**RULE, "lr": 2}]}}) != hash8(plain)


def test_the_group_hash_is_the_same_for_all_seeds():
    assert group_hash({**CONFIG, "seed": 7}) == group_hash(CONFIG)
    assert group_hash({**CONFIG, "epochs": 7}) != group_hash(CONFIG)


def test_the_hash_is_of_values_not_of_spelling():
    spelled = {**dict(reversed(CONFIG.items())), "optim": {"lr": 1, "name": "sgd"}, "epochs": 3.0}
    assert hash8(spelled) == hash8(CONFIG)
    assert hash8({**CONFIG, "epochs": True}) != hash8({**CONFIG, "epochs": 1})


def test_the_hash_is_sha256_of_canonical_json():
    import hashlib

    assert digest({"b": 1.0, "a": ["é", None]}) == hashlib.sha256('{"a":["é",null],"b":1}'.encode()).hexdigest()[:8]
