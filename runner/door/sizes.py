"""Sizes of images: one number stands for a square, here made the two numbers that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.annotations import annotation
from runner.door.options import Conf, template, templates
from runner.schema import check, is_square


def sizes_as_pairs(conf: Conf, config: dict[str, Any], chosen: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return a config with two numbers wherever one stands for two, so that both forms are one configuration."""
    found = dict(config)
    for group in conf.defaults:
        values = config.get(group)
        if not isinstance(values, Mapping) or not chosen.get(group):
            continue
        if not conf.several(group):
            known = template(conf, group, chosen[group][0])
            found[group] = _with_pairs(group, values, known, (group, str(values.get("name"))))
            continue
        entries = templates(conf, group, chosen[group])
        found[group] = {
            entry: _with_pairs(f"{group}.{entry}", knobs, entries.get(entry, {}), (group, str(entry)))
            for entry, knobs in values.items()
        }
    return found


def _with_pairs(key: str, values: Any, known: Mapping[str, Any], component: tuple[str, str]) -> Any:
    """Return a component's knobs with two numbers wherever one stands for two."""
    if not isinstance(values, Mapping):
        return values
    found = dict(values)
    for knob, value in values.items():
        # The types of the other knobs need not be read
        if type(value) is int and isinstance(known.get(knob), list):
            kind = annotation(*component, str(knob))
            found[knob] = check(f"{key}.{knob}", value, kind) if is_square(value, kind) else value
    return found
