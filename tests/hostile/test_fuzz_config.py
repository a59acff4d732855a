"""Random command lines and config files: rejected in one line or used as given, never ignored."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from asking import Answer, answers, write
from command_lines import SHOW, Case, cases
from config_files import damaged_file, listed_recipe
from omegaconf import OmegaConf

from runner.door.options import Conf, find_conf

SEED = 20_261_121
SLICE = 25  # of the fast suite
FULL = 5_000


def drawn(conf: Conf, seed: int, count: int) -> list[Case]:
    """Return the cases of a seed: four command lines to one file."""
    rng = random.Random(seed)
    lines = cases(conf, seed, count)
    files = (source(conf, rng) for source in itertools.cycle((listed_recipe, damaged_file)))
    return [next(files) if index % 5 == 4 else next(lines) for index in range(count)]


def argv(case: Case, folder: Path) -> list[str]:
    """Return the words of a case that is shown and not run; its files are written."""
    words = [str(write(folder, case.files)) if word == "{folder}" else word for word in case.words]
    return words if "-m" in words or "--cfg" in words else [*words, *SHOW]


def problem_with(case: Case, answer: Answer) -> str:
    """Return what is wrong with the answer to a case, empty if nothing is."""
    if answer.wrong:
        return answer.wrong
    if case.refused is not None and case.refused != (answer.code == 2):
        return f"{'accepted' if case.refused else 'refused'}: {answer.err}"
    return first_ignored_key(case, answer) if answer.code == 0 and "--help" not in answer.out else ""


def first_ignored_key(case: Case, answer: Answer) -> str:
    """Return the first key that the shown config does not have as it was given."""
    config = OmegaConf.create(answer.out)
    for key, value in case.given.items():
        found = OmegaConf.select(config, key)
        found = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
        if found != value or type(found) is not type(value):
            return f"{key} is {found!r}, was given as {value!r}"
    for word in case.words:
        key, _, text = word.lstrip("+").partition("=")
        if (
            text
            and not word.startswith(("-", "hydra", "recipe="))
            and OmegaConf.select(config, key, default="no") == "no"
        ):
            return f"{key} is not in the config"
    return ""


def as_recipe(conf: Conf, shown: str, folder: Path) -> list[str]:
    """Return a command line that gives a shown config again, as a recipe."""
    config: dict[str, Any] = yaml.safe_load(shown)
    groups = [group for group in conf.defaults if group in config and group != "recipe"]
    choices = [
        {f"override /{group}": list(config[group]) if conf.several(group) else config[group]["name"]}
        for group in groups
    ]
    head = f"# @package _global_\n{yaml.safe_dump({'defaults': choices})}"
    plugins = [f"plugins={config['plugins']}".replace(" ", "")] if config["plugins"] else []
    body = shown.replace(f"plugins:\n{yaml.safe_dump(config['plugins'])}", "") if plugins else shown
    write(folder, {"recipe/again.yaml": f"{head}{body}".encode()})
    return ["--config-dir", str(folder), "recipe=again", *plugins, *SHOW]


def count_outcomes(conf: Conf, drawn: list[Case], tmp_path: Path) -> tuple[Counter[str], list[str]]:
    """Return how many cases were accepted and refused, and a line for each that went wrong."""
    lines = [argv(case, tmp_path / str(index)) for index, case in enumerate(drawn)]
    given = list(answers(lines))
    found = [
        f"{case.kind}: {[word[:120] for word in case.words]}: {what}"
        for case, answer in zip(drawn, given, strict=True)
        if (what := problem_with(case, answer))
    ]
    shown = [
        (case, answer)
        for case, answer in zip(drawn, given, strict=True)
        if answer.code == 0
        and answer.out.startswith("data:")
        and not any("--config-dir" in word for word in case.words)
    ]
    again = answers(as_recipe(conf, answer.out, tmp_path / f"again{index}") for index, (_, answer) in enumerate(shown))
    for (case, first), second in zip(shown, again, strict=True):
        if second.out != first.out:
            found.append(f"{case.kind}: {[word[:120] for word in case.words]}: comes back otherwise: {second.err}")
    return Counter(answer.code for answer in given), found


def test_a_slice_of_the_drawn_configs(tmp_path):
    conf = find_conf()
    counts, found = count_outcomes(conf, drawn(conf, SEED, SLICE), tmp_path)
    assert counts[2] > counts[0] > 0
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_drawn_configs(tmp_path, part):
    conf = find_conf()
    counts, found = count_outcomes(conf, drawn(conf, SEED + part, FULL // 10), tmp_path)
    print(dict(counts))  # noqa: T201
    assert not found, "\n".join(found)
