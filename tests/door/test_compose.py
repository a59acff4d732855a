"""Composing choices once and setting values on a copy gives what Hydra's own composition gives."""

import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf

from runner.door.compose import compose_parts, compose_run, hydra_opened
from runner.door.jobs import single_job
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.errors import ConfigError

REAL = [
    [],
    ["model=mlp", "optim=adam"],
    ["optim.lr=0.2", "optim=adam", "model.hidden=[64,32]", "model=mlp"],
    ["augment=[hflip,crop]", "augment.crop.padding=2", "regularizer=[l2]", "probe=[]"],
    ["augment=crop", "regularizer.l2.strength=1e-3", "regularizer=[l1,l2]"],
    ["optim={lr: 0.3}", "epochs=2.5", "clip=1", "steps=null"],
    ["optim.lr=${epochs}", "epochs=2", "seed=${data.batch_size}", "scheduler.warmup=2epochs"],
    ["optim=adam", "optim.betas.0=0.8", "optim.no_decay=[]"],
    ["plugins=[a.b,c]", "note='what, if'", "outputs=/tmp/x", "monitor=val/loss"],
]
BENCH = [
    ["recipe=fast"],
    ["recipe=fast", "optim=sgd"],
    ["optim.lr=7", "recipe=fast", "augment.crop.mode=zero"],
    ["recipe=fast", "augment=[crop]", "epochs=1"],
    ["recipe=fast", "augment.hflip={p: 0.1}"],
    ["augment=[hflip,crop]", "augment.hflip.p=1"],
]


def ours(*overrides, **place):
    conf = find_conf(**place)
    given = read_overrides(conf, overrides)
    with hydra_opened(conf):
        return conf, compose_run(conf, compose_parts(conf, given), given)


def hydras(conf, overrides):
    with hydra_opened(conf):
        return OmegaConf.to_container(compose(conf.primary, overrides), resolve=True)


@pytest.mark.parametrize("overrides", REAL, ids=" ".join)
def test_a_config_is_the_one_that_hydra_composes(overrides):
    conf, config = ours(*overrides)
    expected = hydras(conf, overrides)
    assert config == expected
    assert list(config["augment"]) == list(expected["augment"])


@pytest.mark.parametrize("overrides", BENCH, ids=" ".join)
def test_a_recipe_is_composed_as_hydra_does(bench, overrides):
    conf, config = ours(*overrides)
    assert config == hydras(conf, overrides)
    assert list(config["augment"]) == list(hydras(conf, overrides)["augment"])


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_plus_before_a_known_key_makes_no_difference(bench, prefix):
    assert ours(f"{prefix}optim.lr=0.5", f"{prefix}model=mlp")[1] == ours("optim.lr=0.5", "model=mlp")[1]


def test_a_new_key_goes_into_an_open_mapping(bench):
    assert ours("optim=adam", "optim.rules.bias=2")[1]["optim"]["rules"] == {"bias": 2}


def test_an_exponent_in_a_yaml_is_a_number(bench):
    assert ours("optim=adam")[1]["optim"]["lr"] == 0.001


def test_an_integer_stands_for_a_float_and_null_is_left_to_assembly(bench):
    config = ours("optim.lr=1", "model.depth=null", "model.scale=0.5")[1]
    assert (config["optim"]["lr"], config["model"]["depth"], config["model"]["scale"]) == (1, None, 0.5)


def test_the_users_choice_wins_over_the_recipes(bench):
    config = ours("recipe=fast", "model=cnn")[1]
    assert config["model"]["name"] == "cnn"
    assert config["epochs"] == 3


def test_knobs_that_a_recipe_sets_for_another_option_are_named(bench):
    (bench / "recipe/fast.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /optim: adam\noptim: {betas: [0.5, 0.9]}\n"
    )
    with pytest.raises(ConfigError) as error:
        ours("recipe=fast", "optim=sgd")
    expected = (
        "optim.betas: unknown key 'betas'; did you mean 'optim=adam' 'optim.betas=[0.5,0.9]'? "
        "(choose from: fused, lr, name) (set by recipe=fast)"
    )
    assert str(error.value) == expected


def test_text_is_taken_as_typed(bench):
    given = ["note=Does it (ever), help?", "name=a=b,c", "resume=out/model=mlp,seed=1-0a", "outputs=/x/김 y", "sweep=5"]
    config = ours(*given)[1]
    assert [f"{key}={config[key]}" for key in ("note", "name", "resume", "outputs", "sweep")] == given
    assert ours("resume=null", "note='x'")[1]["note"] == "x"
    assert ours("resume=null")[1]["resume"] is None


def test_composing_leaves_nothing_of_one_run_in_the_next(bench):
    conf = find_conf()
    first, second = (read_overrides(conf, words) for words in (["optim.lr=5"], []))
    with hydra_opened(conf):
        parts = compose_parts(conf, second)
        assert compose_run(conf, parts, first)["optim"]["lr"] == 5
        assert compose_run(conf, parts, second)["optim"]["lr"] == 0.1


def test_every_shipped_option_passes_the_check_as_it_is(tmp_path):
    torch.save({"head.weight": torch.zeros(10, 4)}, tmp_path / "weights.pt")
    conf = find_conf()
    many = [f"{group}=[{','.join(files)}]" for group, files in conf.files.items() if conf.several(group)]
    single = [group for group, files in conf.files.items() if files and not conf.several(group) and group != "recipe"]
    # distillation=logits needs a finished run: tests/test_distillation.py
    one = {group: list(conf.files[group]) for group in single if group != "distillation"}
    with hydra_opened(conf):
        for turn in range(max(map(len, one.values()))):
            words = [f"{group}={options[turn % len(options)]}" for group, options in one.items()]
            given = read_overrides(conf, [*words, *many, f"init_from={tmp_path}/weights.pt"])
            assert single_job(compose_run(conf, compose_parts(conf, given), given), given).hash8


def test_every_shipped_recipe_passes_the_check_as_it_is():
    conf = find_conf()
    for recipe in conf.files["recipe"]:
        with hydra_opened(conf):
            given = read_overrides(conf, [f"recipe={recipe}", "init_from=weights.pt"])
            assert compose_run(conf, compose_parts(conf, given), given)


def test_no_recipe_is_the_default(bench):
    assert ours("recipe=null")[1] == ours()[1]
