"""Values against their types: every error is one line that says what is allowed."""

import math
from fractions import Fraction
from typing import Annotated, Literal

import pytest

from runner.durations import date, dates_until, exact_steps_of, is_date, steps_of
from runner.errors import ConfigError, unknown
from runner.schema import BOUNDS, Duration, HalfOpenUnit, ImageSize, NotEmpty, Pair, Positive, PositiveInt, Unit, check
from runner.spelling import close, distance, nearest


@pytest.mark.parametrize(
    ("value", "kind", "line"),
    [
        (-1, Positive, "k: got -1, must be > 0"),
        (0, Positive, "k: got 0, must be > 0"),
        (1.5, Unit, "k: got 1.5, must be >= 0 and <= 1"),
        (1, HalfOpenUnit, "k: got 1, must be >= 0 and < 1"),
        (True, int, "k: got true, must be a whole number"),
        (True, float, "k: got true, must be a number"),
        (1.0, int, "k: got 1.0, must be a whole number"),
        ("abc", float, "k: got 'abc', must be a number"),
        ("a\nb", float, "k: got 'a\\nb', must be a number"),
        (None, float, "k: got null, must be a number"),
        (math.nan, float, "k: got nan, must be a number"),
        (math.inf, Positive, "k: got inf, must be finite"),
        (1, bool, "k: got 1, must be true or false"),
        ([], Annotated[list[int], NotEmpty()], "k: got [], must name at least one"),
        ([1, 2, 3], Annotated[list[float], Pair("[low, high]")], "k: got [1, 2, 3], must be [low, high]"),
        ([2, 1], Annotated[list[float], BOUNDS], "k: got [2, 1], must be [low, high]"),
        (1, Annotated[list[float], BOUNDS], "k: got 1, must be [low, high]"),
        ("28x28", ImageSize, "k: got '28x28', must be [height, width], or one number for a square"),
        ([28], ImageSize, "k: got [28], must be [height, width], or one number for a square"),
        (0, ImageSize, "k: got 0, must be >= 1"),
        (True, ImageSize, "k: got true, must be [height, width], or one number for a square"),
        ([1, "b"], Annotated[list[float], BOUNDS], "k[1]: got 'b', must be a number"),
        (3, list[int], "k: got 3, must be a list [a,b,...]"),
        ([1, 0], list[PositiveInt], "k[1]: got 0, must be >= 1"),
        ("fan", Literal["fan_in", "fan_avg"], "k: unknown value 'fan' (choose from: fan_avg, fan_in)"),
        ("faan_in", Literal["fan_in"], "k: unknown value 'faan_in'; did you mean 'fan_in'? (choose from: fan_in)"),
        ("foo", Literal["zeros"] | Positive | None, "k: got 'foo', must be 'zeros' or a number > 0"),
        ("5", Duration, "k: got '5', must be a duration like 500steps, 2epochs, 10000examples or 5%"),
        ("x" * 200, float, f"k: got '{'x' * 76}..., must be a number"),
    ],
)
def test_wrong_values_are_refused(value, kind, line):
    with pytest.raises(ConfigError) as caught:
        check("k", value, kind)
    assert str(caught.value) == line


def test_right_values_come_back_typed():
    assert check("k", 1, Positive) == 1.0
    assert check("k", [1, 1], Annotated[list[float], BOUNDS]) == [1.0, 1.0]
    assert check("k", [2, 1], Annotated[list[float], Pair("two numbers")]) == [2.0, 1.0]
    assert check("k", 28, ImageSize) == check("k", [28, 28], ImageSize) == [28, 28]
    assert type(check("k", 1, Positive)) is float
    assert check("k", None, Positive | None) is None
    assert check("k", [1, 2], list[float]) == [1.0, 2.0]
    assert check("k", 4, PositiveInt | HalfOpenUnit) == 4
    assert check("k", 0.5, PositiveInt | HalfOpenUnit) == 0.5


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("500steps", 500),
        ("1step", 1),
        ("2epochs", 38),
        ("0.5epoch", 10),
        ("640examples", 10),
        ("5%", 10),
        ("100%", 190),
    ],
)
def test_durations_become_steps(duration, steps):
    assert steps_of(duration, total_steps=190, steps_per_epoch=19, batch=64) == steps


def test_an_exact_duration_is_not_rounded():
    length = {"total_steps": 190, "steps_per_epoch": 19, "batch": 64}
    assert exact_steps_of("0.3epochs", **length) == Fraction(57, 10)
    assert exact_steps_of("100examples", **length) == Fraction(25, 16)
    assert exact_steps_of("5%", **length) == Fraction(19, 2)
    assert exact_steps_of(".5steps", **length) == Fraction(1, 2)


PERIODS = [1, 3, 7, *(Fraction(a, b) for b in (1, 2, 3, 7, 10, 16, 100) for a in range(b, 4 * b, 3 if b < 10 else 17))]


@pytest.mark.parametrize("period", PERIODS, ids=str)
def test_dates_are_the_rounded_multiples_of_the_period(period):
    dates = [round(k * period) for k in range(1, 700)]
    assert [date(k, period) for k in range(1, 700)] == dates
    for step in range(600):
        assert dates_until(step, period) == sum(d <= step for d in dates)
        assert is_date(step, period) == (step == 0 or step in dates)


def test_distance_counts_single_edits():
    words = [("resnet", "resnet", 0), ("resnt", "resnet", 1), ("resnett", "resnet", 1), ("rsenet", "resnet", 1)]
    assert all(distance(a, b) == d for a, b, d in [*words, ("adam", "adma", 1), ("kitten", "sitting", 3)])


def test_unknown_words_name_the_nearest_and_at_most_eight_choices():
    assert nearest("adm", ["sgd", "adamw", "adam"]) == ["adam", "adamw", "sgd"]
    assert close("adm", "adam")
    assert not close("xyz", "adam")
    line = str(unknown("k", "option", "a1", [f"a{i}" for i in range(12)]))
    assert line.startswith("k: unknown option 'a1'; did you mean 'a1'? (choose from: a1, ")
    assert line.endswith(", ... 4 more: task=list)")
    assert line.count(",") == 8
