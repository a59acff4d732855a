"""The command line knows types from the YAML files only, and accepts every value that a component accepts."""

import importlib
import pkgutil
from typing import Literal, get_args, get_origin

import pytest

import runner.components
import runner.tasks
from runner import registry, schema
from runner.annotations import annotation as door_annotation
from runner.door.check import check_type
from runner.door.options import find_conf, template, templates
from runner.errors import ConfigError

SAMPLES = (0, 1, 2, 0.5, 1.5, True, False, "word", "5%", [], [1], [0.5], ["word"], {}, {"word": 1})


@pytest.fixture(scope="module", autouse=True)
def _registered():
    for module in pkgutil.iter_modules(runner.tasks.__path__, "runner.tasks."):
        importlib.import_module(module.name)


def words(annotation):
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def taken(check, *arguments):
    try:
        check("knob", *arguments)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("group", [group for group, files in find_conf().files.items() if files and group != "recipe"])
def test_a_value_that_a_component_takes_passes_the_door(group):
    conf = find_conf()
    for option in conf.files[group]:
        known = templates(conf, group, [option])[option] if conf.several(group) else template(conf, group, option)
        for knob, annotation in registry.knobs(registry.find(group, option)).items():
            values = [value for value in (*SAMPLES, *words(annotation)) if taken(schema.check, value, annotation)]
            read = door_annotation(group, option, knob)
            refused = [
                value
                for value in values
                if not (taken(check_type, value, known[knob]) if read is None else taken(schema.check, value, read))
            ]
            assert not refused, f"{group}.{option}.{knob}: {known[knob]} in the YAML, but {annotation} in the component"
