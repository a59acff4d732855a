"""Values of the right type but out of range: a one-line error before training, and no files."""

from __future__ import annotations

import random
from typing import Any

import pytest
from command_lines import RECIPE, as_typed, knobs_of, option_word, place_of
from watching import run_in_child, split_cases

import runner.components  # noqa: F401  (registers them)
from runner.__main__ import main
from runner.door.options import Conf, find_conf
from runner.errors import ConfigError
from runner.registry import checked, find, knobs
from runner.schema import Pattern, Range, check
from runner.tasks import load_tasks

SEED = 20_261_121


def beyond(kind: Any) -> list[Any]:
    """Return values of a type's own kind that its range does not hold."""
    rule = getattr(kind, "__metadata__", [None])[0]
    if isinstance(rule, Pattern):
        words = ["", "x", "-1steps", "1 epoch", "1e3%", "\u0661steps", "../x"]
        return [word for word in words if not rule.expression.fullmatch(word)]
    if not isinstance(rule, Range):
        return []
    number = kind.__origin__
    low = [rule.low, rule.low - 1, -(10**9)] if rule.low > -float("inf") else []
    high = [rule.high, rule.high + 1, 10**9] if rule.high < float("inf") else []
    return [number(value) for value in [*low, *high] if number(value) not in rule]


def all_knobs(conf: Conf) -> list[tuple[str, str, str, Any]]:
    """Return group, option, knob and type of every knob whose type has a range or a form."""
    load_tasks()
    options = [(group, name) for group, files in conf.files.items() if group != RECIPE for name in files]
    kinds = ((group, name, knob, kind) for group, name in options for knob, kind in knobs(find(group, name)).items())
    return [(group, name, knob, kind) for group, name, knob, kind in kinds if beyond(kind)]


def test_every_range_and_form_of_every_knob_is_held():
    conf, count = find_conf(), 0
    for group, name, knob, kind in all_knobs(conf):
        for value in beyond(kind):
            with pytest.raises(ConfigError) as caught:
                checked(find(group, name), place_of(conf, group, name), {**knobs_of(conf, group, name), knob: value})
            assert str(caught.value).startswith(f"{place_of(conf, group, name)}.{knob}: got ")
            assert "\n" not in str(caught.value)
            count += 1
    assert count > 200


def test_a_value_that_a_type_takes_is_not_changed():
    """No silent coercion but the one that is printed: a whole number where a number is asked for."""
    for kind, values in {int: [0, 1, 2**62], float: [0.5, 1.0], str: ["", "1", "true"], bool: [True, False]}.items():
        for value in values:
            assert check("x", value, kind) == value and type(check("x", value, kind)) is kind
    assert check("x", 1, float) == 1.0
    for kind, value in [(int, 1.0), (int, True), (float, True), (float, "1"), (bool, 1), (bool, "true"), (str, 1)]:
        with pytest.raises(ConfigError):
            check("x", value, kind)


def wrong_values(conf: Conf, count: int) -> list[list[str]]:
    """Return command lines, each with one value out of its knob's range."""
    rng, found = random.Random(SEED), []
    listed = all_knobs(conf)
    for group, name, knob, kind in rng.sample(listed, min(count, len(listed))):
        if name not in ("timm", "cifar10", "cifar100", "mnist", "fashion_mnist", "svhn") and group not in (
            "predict",
            "task",
        ):
            value = rng.choice(beyond(kind))
            found.append(
                [option_word(conf, group, name), f"{place_of(conf, group, name)}.{knob}={as_typed('', value)}"]
            )
    return found


@pytest.mark.parametrize("words", split_cases(wrong_values(find_conf(), 100), 40, " ".join))
def test_a_run_with_a_value_out_of_range_ends_in_one_line(imported, tmp_path, words):
    small = [] if words[0].startswith("model=") else ["model=mlp"]
    code, err, left = run_in_child(lambda: ran([*small, *words]), tmp_path)
    assert code == 2, err
    assert err.startswith("runner: error: ") and err.count("\n") == 1
    assert left == []


def ran(argv: list[str]) -> tuple[int, str, list[str]]:
    """Run a command line here and return exit code, standard error and what it left."""
    import contextlib
    import io
    from pathlib import Path

    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):
        code = main(argv)
    return code, err.getvalue(), sorted(map(str, Path().iterdir()))
