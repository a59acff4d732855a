"""The natural order of class names, against Python's own numbers, at any length."""

import random

import pytest

from runner.components.data.labels.class_labels import natural_order


def test_whole_numbers_are_in_the_order_of_their_values():
    numbers = [*range(-120, 121), 10**40, -(10**40)]
    names = [str(number) for number in numbers]
    random.Random(0).shuffle(names)
    assert natural_order(names) == [str(number) for number in sorted(numbers)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "2", "1"], ["1", "2", "10"]),
        (["item 10", "item 9", "item 1a"], ["item 1a", "item 9", "item 10"]),
        (["007", "7", "8", "06"], ["06", "007", "7", "8"]),
        (["b", "a10", "a2", "10", "9b"], ["9b", "10", "a2", "a10", "b"]),
        (["-1", "1", "0"], ["-1", "0", "1"]),
    ],
)
def test_numbers_in_names_are_compared_as_numbers(names, expected):
    assert natural_order(names) == expected


def test_a_number_that_python_does_not_read_is_a_name_like_any_other():
    long = ["1" * 5001, "2" * 5000, "x" + "3" * 6000, "x4"]
    assert natural_order(long) == ["2" * 5000, "1" * 5001, "x4", "x" + "3" * 6000]
    assert natural_order(long[:2]) == ["2" * 5000, "1" * 5001]
