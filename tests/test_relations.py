"""Relations between knobs are declared once, and checked at the front door and by the registry."""

from typing import Annotated

import pytest

from runner.components.model.resnet import _LARGE_STEM, _SMALL_STEM, _stage_plan
from runner.errors import ConfigError
from runner.registry import build, register
from runner.relations import AtMost, Divides, Leaves, OneOf, Whole, With
from runner.roles import FilePath, Unnamed, Unswept
from runner.schema import PositiveInt, Range


@register("shelf")
def planks(
    *,
    length: PositiveInt,
    parts: Annotated[int, Range(1), Divides("length")],
    low: Annotated[float | None, AtMost("high")],
    high: float,
    oak: Annotated[float, Range(0, 1), Leaves("ash")],
    ash: float,
    wood: str,
    rings: Annotated[int, Range(1), With("wood", "oak", Whole("odd", first=1, step=2, also=(4,)))],
    coats: Annotated[int, Range(0), With("wet", True, OneOf((0, 1)))],
    wet: bool,
) -> int:
    """Return the length of a part."""
    return length // parts


SIZES = {"length": 12, "parts": 4, "low": 1, "high": 1, "oak": 0.5, "ash": 0.25}
GOOD = {"name": "planks", **SIZES, "wood": "oak", "rings": 4, "coats": 1, "wet": True}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"parts": 5}, "shelf.parts: got 5, must divide shelf.length (12)"),
        ({"length": 10}, "shelf.parts: got 4, must divide shelf.length (10)"),
        ({"low": "a"}, "shelf.low: got 'a', must be a number"),
        ({"parts": 0}, "shelf.parts: got 0, must be >= 1"),
        ({"low": 1.5}, "shelf.low: got 1.5, must be <= shelf.high (1)"),
        ({"ash": 0.5}, "shelf.oak: got 0.5, must be < 1 - shelf.ash (1 - 0.5)"),
        ({"coats": 2}, "shelf.coats: got 2, must be 0 or 1 with wet=true"),
        ({"rings": 6}, "shelf.rings: got 6, must be odd with wood=oak"),
    ],
)
def test_what_does_not_go_together_is_refused(change, line):
    with pytest.raises(ConfigError) as refusal:
        build("shelf", {**GOOD, **change})
    assert str(refusal.value) == line


UNLIKE = [{"rings": 7}, {"rings": 6, "wood": "ash"}, {"coats": 2, "wet": False}]


@pytest.mark.parametrize("change", [{}, {"length": 4}, {"low": 0.5}, {"low": None}, *UNLIKE])
def test_what_goes_together_is_built(change):
    assert build("shelf", {**GOOD, **change}) == (GOOD | change)["length"] // 4


def test_rules_are_equal_by_class_and_values():
    same = [(Range(0, 1), Range(0, 1)), (Divides("a"), Divides("a")), (FilePath(), FilePath(expand=True))]
    assert all(one == other and hash(one) == hash(other) for one, other in same)
    unlike = [(Range(0, 1), Range(0, 2)), (Divides("a"), AtMost("a")), (Unnamed(), Unswept()), (OneOf((1,)), (1,))]
    assert all(one != other for one, other in unlike)
    # Python caches what it annotates by the equality of the rules
    assert Annotated[str, Unnamed()].__metadata__ != Annotated[str, Unswept()].__metadata__
    assert repr(With("a", True, OneOf((1,)))) == "With(knob='a', other=True, allowed=OneOf(values=(1,)))"


def test_whole_numbers_of_a_form():
    form = Whole("6n+4", first=10, step=6)
    assert [n for n in range(30) if n in form] == [10, 16, 22, 28]
    assert [n for n in range(-9, 60) if n in Whole("some", also=(18, 34))] == [18, 34]


def test_every_depth_that_is_taken_has_a_plan():
    for stem, numbers in (("cifar", _SMALL_STEM), ("imagenet", _LARGE_STEM)):
        assert all(sum(_stage_plan(depth, stem).blocks) for depth in range(200) if depth in numbers)
        with pytest.raises(KeyError):  # and no other has one
            next(depth for depth in range(200) if depth not in numbers and _stage_plan(depth, stem))
