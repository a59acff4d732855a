"""Values keep every character on the way: command line -> trial -> override -> folder name -> saved command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.door.arguments import read_arguments
from runner.door.compose import compose_parts, compose_run, hydra_opened
from runner.door.grid import Axes, grid_of
from runner.door.options import find_conf
from runner.door.overrides import choice_texts, parse_override, read_overrides
from runner.door.plan import Plan, plan_sweep
from runner.door.resume_sweep import save_command, sweep_command
from runner.door.search_space import make_space, search_overrides
from runner.errors import ConfigError

TEXTS = [
    "a b", "z,w", "a=b", "it's", 'say "x"', "c\\d", "end\\", "ü é", "日本", "", "null", "true", "1.50", "[a]", "{b: c}",
    "a: b", "a#b", "  padded ", "(x)", "choice(a,b)", "~x", "%", "a\tb", "'", '"', "\\'", "-1", "null ", "a;b",
    "*", "$x",
]  # fmt: skip
ROOT = ("data=imagefolder", "model=mlp")


def planned(*words: str) -> Plan:
    conf = find_conf()
    given = read_overrides(conf, words)
    with hydra_opened(conf):
        return plan_sweep(conf, compose_parts(conf, [each for each in given if not each.swept]), given)


def composed(*words: str) -> dict[str, Any]:
    """Return the config of a single run."""
    conf = find_conf()
    given = read_overrides(conf, words)
    with hydra_opened(conf):
        return compose_run(conf, compose_parts(conf, given), given)


def quoted(text: str, mark: str) -> str:
    """Return a text in quotes, by Hydra's rules: a backslash counts before a quote only."""
    ends = re.sub(r"(\\+)(?=" + mark + r"|$)", lambda match: match[1] * 2, text)
    return mark + ends.replace(mark, f"\\{mark}") + mark


def all_quoted(mark: str) -> str:
    return ",".join(quoted(text, mark) for text in TEXTS)


def read_value(word: str) -> Any:
    return parse_override(word).value


def value_at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("mark", ["'", '"'])
@pytest.mark.parametrize("form", ["choice({})", "{}"])
def test_texts_reach_their_trials_and_the_overrides_of_the_trials(form: str, mark: str) -> None:
    jobs = planned("data=table", "model=mlp", f"data.label={form.format(all_quoted(mark))}").jobs
    assert [job.config["data"]["label"] for job in jobs] == TEXTS
    # Hydra's launchers compose the overrides again
    assert [read_value(job.overrides[-1]) for job in jobs] == TEXTS
    assert composed(*jobs[1].overrides)["data"]["label"] == TEXTS[1]
    assert all(re.fullmatch(r"[A-Za-z0-9._=,+-]+", job.folder_name) for job in jobs)
    assert len({job.folder_name for job in jobs}) == len(TEXTS)


@pytest.mark.parametrize("mark", ["'", '"'])
def test_paths_whose_text_is_taken_as_typed_keep_it_in_each_trial(mark: str) -> None:
    given = read_overrides(find_conf(), [f"data.root=choice({all_quoted(mark)})"])
    words = [each.word for [each] in grid_of(find_conf(), Axes(given, []), {}).all()]
    assert list(map(read_value, words)) == TEXTS
    assert [read_value(f"data.root={text}") for text in choice_texts(given[0])] == TEXTS
    jobs = planned(*ROOT, f"data.root=choice({quoted('a b', mark)},{quoted('z,w', mark)})").jobs
    assert [job.config["data"]["root"] for job in jobs] == ["a b", "z,w"]


def test_a_search_tries_the_texts_that_are_written() -> None:
    conf = find_conf()
    given = read_overrides(conf, [*ROOT, f"data.root=choice({all_quoted(chr(39))})"])
    with hydra_opened(conf):
        parts = compose_parts(conf, [each for each in given if not each.swept])
        space = make_space(conf, parts, search_overrides(conf, {}, given))[0]
    (axis,) = space.axes
    found = [space.words({"data.root": choice}) for choice in axis.choices]
    assert [read_value(f"{key}={text}") for [(key, text)] in found] == TEXTS


VALUES = [
    ("clip=null,1.0,2", "clip", [None, 1.0, 2.0]),
    ("model.hidden=[8],[16,16],[]", "model.hidden", [[8], [16, 16], []]),
    ("compile=true,false,auto", "compile", [True, False, "auto"]),
    (
        "optim.rules=[{match:\"a b, c=d\"}],[{match:'it\\'s'},{match:bias,lr:0}],[]",
        "optim.rules",
        [[{"match": "a b, c=d"}], [{"match": "it's"}, {"match": "bias", "lr": 0}], []],
    ),
]


@pytest.mark.parametrize(("word", "key", "wanted"), VALUES)
def test_nulls_truth_values_lists_and_mappings_reach_their_trials(word: str, key: str, wanted: list[Any]) -> None:
    jobs = planned("model=mlp", word).jobs
    assert [value_at(job.config, key) for job in jobs] == wanted
    assert [value_at(composed(*job.overrides), key) for job in jobs] == wanted


def test_a_saved_command_is_the_command_that_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    word = f"data.label=choice({all_quoted(chr(34))})"
    folder = tmp_path / "it's a, sweep"
    folder.mkdir()
    save_command(folder, find_conf(), read_overrides(find_conf(), ["data=table", "model=mlp", word]))
    assert word in yaml.safe_load((folder / "sweep.yaml").read_text())["overrides"]
    plan = planned(*sweep_command(read_arguments([f"resume={folder}"])).overrides)
    assert [job.config["data"]["label"] for job in plan.jobs] == TEXTS
    assert plan.folder == folder


def test_values_that_differ_only_in_what_names_leave_out_are_said_so() -> None:

    with pytest.raises(
        ConfigError, match="two trials of this sweep differ only in what their folders' names leave out"
    ):
        planned(*ROOT, "data.root=choice('a b','a-b')")
