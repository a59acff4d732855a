"""Every key has one role, which determines its part in hash, session group and hyperparameters."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from running import ROOT, job
from small_runs import config as config_of

import runner.components  # noqa: F401  (registers them)
from runner import annotations, registry
from runner.annotations import marks, marks_of_kind
from runner.door.options import find_conf
from runner.errors import ConfigError
from runner.hashes import group_hash, hash8
from runner.keys import hyperparameters, key_marks, settings_with
from runner.relations import Fields, OneOf, Whole
from runner.roles import Role, marks_in
from runner.schema import Range, alone, check
from runner.settings import GROUPS, SETTINGS
from runner.tasks import load_tasks

load_tasks()
CONF = find_conf()
OPTIONS = [(group, option) for group, files in CONF.files.items() if group != "recipe" for option in files]
TEXTS = (
    "auto",
    "word",
    "other",
    "cpu",
    "cuda:1",
    "2steps",
    "3epochs",
    "5%",
    "head",
    "a.b",
    "0" * 64,
    "0123abcd@20",
    "all",
    "best:3",
)
NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 16, 22, 28, 34, 50, 64, 100, 0.1, 0.25, 0.5, 0.75, 1.5, 2.5)


def candidates(annotation: Any) -> list[Any]:
    """Return values that a type may take, drawn from the type itself."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kind, rule = alone(annotation)
        if isinstance(rule, Fields):
            found = [{name: next(iter(candidates(of))) for name, of in rule.types if name in rule.needed}]
            return [*found, *({**found[0], name: v} for name, of in rule.types for v in candidates(of)[:2])]
        if isinstance(rule, Whole):
            return [*rule.also, rule.first, rule.first + rule.step]
        if isinstance(rule, OneOf):
            return list(rule.values)
        if isinstance(rule, Range):
            return [x for x in (*NUMBERS, rule.low, rule.high) if abs(x) < 1e300]
        return candidates(kind)
    if origin is Literal:
        return list(arguments)
    if origin is Union or type(annotation).__name__ == "UnionType":
        return [value for each in arguments for value in candidates(each)]
    if origin is list:
        items = [value for value in candidates(arguments[0]) if is_valid(arguments[0], value)][:9]
        return [list(some) for n in (0, 1, 2, 3) for some in itertools.islice(itertools.product(items, repeat=n), 90)]
    if origin is dict:
        return [{}, *({"word": value} for value in candidates(arguments[1])[:3])]
    return {bool: [True, False], int: [*NUMBERS], float: [*NUMBERS], str: [*TEXTS], type(None): [None]}[annotation]


def is_valid(annotation: Any, value: Any) -> bool:
    try:
        check("key", value, annotation)
    except ConfigError:
        return False
    return True


def other_value(annotation: Any, value: Any) -> Any:
    """Return a value of a type that is another one."""

    return next(each for each in candidates(annotation) if is_valid(annotation, each) and each != value)


def config_with(group: str, option: str) -> dict[str, Any]:
    """Return the default config with another option of a group, as its YAML has it."""
    config = config_of({})
    config[group] = yaml.safe_load((ROOT / "conf" / group / f"{option}.yaml").read_text())
    return config


def holder(config: dict[str, Any], group: str, option: str) -> dict[str, Any]:
    return config[group] if "name" in config[group] else config[group][option]


def equal_hashes(before: dict[str, Any], after: dict[str, Any]) -> tuple[bool, bool, bool]:
    return (
        hash8(before) == hash8(after),
        group_hash(before) == group_hash(after),
        hyperparameters(before) == hyperparameters(after),
    )


def expected(role: Role, group: str = "") -> tuple[bool, bool, bool]:
    changes = role is Role.EXPERIMENT
    return (not changes and role is not Role.SEED, not changes, not changes or group == "task")


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_changes_what_its_role_says(key):
    before = config_of({})
    after = {**before, key: other_value(SETTINGS[key], before[key])}
    assert equal_hashes(before, after) == expected(marks_in(SETTINGS[key]).role)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_a_knob_changes_what_its_role_says(group, option):
    before = config_with(group, option)
    knobs = registry.knobs(registry.find(group, option))
    assert set(holder(before, group, option)) - {"name"} == set(knobs)
    for knob, annotation in knobs.items():
        after = copy.deepcopy(before)
        values = holder(after, group, option)
        values[knob] = other_value(annotation, values[knob])
        role = Role.OBSERVATION if group in GROUPS else marks_in(annotation).role
        assert equal_hashes(before, after) == expected(role, group), f"{group}={option}: {knob}"


def test_a_field_of_an_entry_changes_what_its_role_says():
    """A rule of an optimizer is one knob, but its label is an observation."""
    found = []
    for group, option in OPTIONS:
        for knob, annotation in registry.knobs(registry.find(group, option)).items():
            entry = get_args(annotation)[0] if get_origin(annotation) is list else None
            rule = alone(entry)[1] if hasattr(entry, "__metadata__") else None
            if not isinstance(rule, Fields):
                continue
            needed = {name: next(iter(candidates(kind))) for name, kind in rule.types if name in rule.needed}
            for name, kind in rule.types:
                before, after = config_with(group, option), config_with(group, option)
                holder(before, group, option)[knob] = [needed, needed]
                holder(after, group, option)[knob] = [needed, {**needed, name: other_value(kind, needed.get(name))}]
                found.append((name, marks_in(kind).role))
                assert equal_hashes(before, after) == expected(found[-1][1]), f"{group}={option}: {knob}: {name}"
    assert {name for name, role in found if role is Role.OBSERVATION} == {"name"}
    changing = {"match", "lr", "weight_decay", "active", "until"}
    assert {name for name, role in found if role is Role.EXPERIMENT} == changing


@pytest.mark.parametrize("rules", [None, "name", ["name"], [["name"]], [{"name": None}], {"name": 1}])
def test_rules_of_another_form_in_an_edited_config_have_a_hash(rules):
    config = config_of({})
    assert hash8({**config, "optim": {**config["optim"], "rules": rules}})


@pytest.mark.parametrize("group", sorted(group for group, n in Counter(g for g, _ in OPTIONS).items() if n > 1))
def test_another_option_is_another_experiment_but_for_observations(group):
    first, second = [option for each, option in OPTIONS if each == group][:2]
    found = equal_hashes(config_with(group, first), config_with(group, second))
    assert found == expected(Role.OBSERVATION if group in GROUPS else Role.EXPERIMENT, group)


@pytest.mark.parametrize("words", [["checkpoint_every=3steps"], ["probe=[]"], ["data=cifar10", "data.download=false"]])
def test_what_once_split_repeats_into_groups_does_so_no_more(words):
    before, after = job(*words[:-1]), job(*words)
    assert before.config != after.config
    assert (before.hash8, before.group_hash) == (after.hash8, after.group_hash)


def test_every_mark_that_the_source_gives_is_the_component_s():
    found = {place: dict(marks(*place)) for place in OPTIONS}
    wanted = {
        (group, option): {
            knob: mark
            for knob, kind in registry.knobs(registry.find(group, option)).items()
            if (mark := marks_in(kind)) != marks_in(str)
        }
        for group, option in OPTIONS
    }
    assert found == wanted
    assert sum(map(len, found.values())) > 30


def test_a_knob_has_the_same_role_in_all_components_of_its_kind():
    """So that the command line knows it by its key, whichever option is chosen."""
    for group, option in OPTIONS:
        for knob, mark in marks(group, option).items():
            other = marks_of_kind(group)[knob]
            assert (mark.role, mark.unnamed, mark.unswept, mark.verbatim) == (
                other.role,
                other.unnamed,
                other.unswept,
                other.verbatim,
            )
            assert (mark.path and (mark.path.expand, mark.path.lists)) == (
                other.path and (other.path.expand, other.path.lists)
            )
        for knob in registry.knobs(registry.find(group, option)):
            assert (knob in marks(group, option)) == (knob in marks_of_kind(group)), f"{group}={option}: {knob}"


def test_a_key_that_is_none_of_ours_has_no_marks():
    for key in ("mine", "mine.lr", "optim", "optim.lr", "../x.lr", "hydra.run.dir", f"{'x' * 5000}.lr"):
        assert key_marks(key).role is Role.EXPERIMENT and key_marks(key).path is None


PLUGIN = """
from typing import Annotated
from runner.registry import register
from runner.roles import Role

Threads = Annotated[int, Role.EXECUTION]

@register("model")
def lab_net(shape, *, width: int, threads: Threads, folder: Annotated[str, Role.PATH]): ...
"""


@pytest.mark.parametrize("package", [False, True])
def test_a_user_s_component_says_its_roles_before_it_is_imported(package, tmp_path, monkeypatch):
    place = tmp_path / "lab_nets" / "parts.py" if package else tmp_path / "lab_nets.py"
    place.parent.mkdir(exist_ok=True)
    place.write_text(PLUGIN)
    if package:
        (place.parent / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = {**config_of({}), "plugins": ["lab_nets"]}
    before["model"] = {"name": "lab_net", "width": 1, "threads": 1, "folder": "a"}
    moved = {**before, "model": {**before["model"], "threads": 2, "folder": "b"}}
    assert equal_hashes(before, moved) == expected(Role.EXECUTION)
    assert equal_hashes(before, {**before, "model": {**before["model"], "width": 2}}) == expected(Role.EXPERIMENT)
    annotations.marks.cache_clear()


@pytest.mark.parametrize("plugins", [[], ["nowhere"], ["..", "/etc", "a" * 5000, "torch", 3, None]])
def test_a_component_that_is_found_nowhere_has_the_roles_of_ours_by_name(plugins):
    before = {**config_of({}), "plugins": plugins}
    before["data"] = {"name": "elsewhere", "root": "a", "workers": 1, "size": 1}
    moved = {**before, "data": {**before["data"], "root": "b", "workers": 2}}
    assert equal_hashes(before, moved) == expected(Role.PATH)
    assert equal_hashes(before, {**before, "data": {**before["data"], "size": 2}}) == expected(Role.EXPERIMENT)


def test_the_settings_that_resume_and_evaluate_may_change():
    can = {"plugins", "device", "memory_format", "compile", "cuda_graphs", "resume_numerics", "resume_data", "threads"}
    can |= {"rerun", "init_download"}
    assert set(settings_with(Role.EXECUTION)) == can
