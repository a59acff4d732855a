"""Options that come with runner are composed without Hydra, into what Hydra composes of them."""

import json

import pytest
from hydra import compose
from omegaconf import OmegaConf

from runner.door.arguments import read_arguments
from runner.door.command import checked_command
from runner.door.compose import compose_parts, hydra_opened
from runner.door.options import RECIPE, find_conf
from runner.door.overrides import read_overrides

CONF = find_conf()
OF_HYDRA = {"search_finetune", "search_lr_wd"}  # recipes that configure Hydra
MOST = max(len(files) for group, files in CONF.files.items() if not CONF.several(group))


def choices(number):
    """Return a choice in each group; the numbers from 0 to MOST choose every option, and every order of lists."""
    words = []
    for group, files in CONF.files.items():
        names = sorted(files)
        turn = number % len(names) if names else 0
        if CONF.several(group):
            words.append(f"{group}=[{','.join([*names[turn:], *names[:turn]][: number % 4 + 1])}]")
        elif group != RECIPE:
            words.append(f"{group}={names[turn]}")
    return words


def both(words, conf=CONF):
    """Return the composition, and Hydra's own."""
    parts = compose_parts(conf, read_overrides(conf, words))
    with hydra_opened(conf):
        return parts, compose(conf.primary, words, return_hydra_config=True)


def is_the_same(words):
    parts, expected = both(words)
    own = {key: value for key, value in OmegaConf.to_container(expected).items() if key != "hydra"}
    # As text, for the order of the keys
    assert json.dumps(OmegaConf.to_container(parts.config)) == json.dumps(own)
    made = {group: name for group, name in expected.hydra.runtime.choices.items() if not group.startswith("hydra/")}
    assert {**parts.choices} == made
    assert OmegaConf.is_struct(parts.config) and OmegaConf.is_struct(expected)
    return parts


@pytest.mark.parametrize("number", range(MOST))
def test_every_option_is_composed_as_hydra_does(number):
    assert not is_the_same(choices(number)).sets_hydra


@pytest.mark.parametrize("recipe", sorted(set(CONF.files[RECIPE]) - OF_HYDRA))
def test_every_recipe_is_composed_as_hydra_does(recipe):
    assert not is_the_same([f"recipe={recipe}"]).sets_hydra
    # The command line wins over the recipe
    is_the_same([f"recipe={recipe}", "model=vit", "augment=[hflip,cutout]", "optim=lion"])


@pytest.mark.parametrize("recipe", sorted(OF_HYDRA))
def test_a_recipe_that_configures_hydra_is_left_to_it(recipe):
    parts, expected = both([f"recipe={recipe}"])
    assert parts.sets_hydra
    assert parts.hydra.sweeper == expected.hydra.sweeper
    assert parts.searched == OmegaConf.to_container(expected.hydra.sweeper.params)


def test_hydras_own_config_is_composed_when_it_is_needed():
    parts, expected = both(["model=mlp"])
    assert parts.hydra.launcher == expected.hydra.launcher
    assert parts.hydra.runtime.choices == expected.hydra.runtime.choices
    assert not parts.many
    assert parts.searched == {}


def test_what_a_word_sets_of_hydra_is_hydras():
    assert checked_command(read_arguments(["hydra.mode=MULTIRUN", "seed=1,2"])).sweep is not None


USERS = {
    "model/own.yaml": "defaults: [mlp]\nhidden: [8]\n",
    "recipe/mine.yaml": "# @package _global_\ndefaults:\n  - digits\n  - override /model: own\nepochs: 2\n",
}


@pytest.mark.parametrize("word", ["model=own", "recipe=mine", "model=mlp"])
def test_a_file_of_a_user_is_composed_by_hydra(tmp_path, word):
    for name, text in USERS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    conf = find_conf(str(tmp_path))
    parts = compose_parts(conf, read_overrides(conf, [word]))
    assert parts.sets_hydra == (word != "model=mlp")
    if parts.sets_hydra:
        assert parts.config.model.hidden == [8]
        assert parts.choices["model"] == "own"
