"""Overrides that rules advise, made from a run's config."""

import pytest
from comparing_runs import changed_config

from runner.doctor.advice import divided_lr, rounded


@pytest.mark.parametrize(
    ("value", "word"), [(1 / 300, "0.0033"), (1e-5, "1e-05"), (2.0, "2"), (0.1, "0.1"), (512.0, "510")]
)
def test_numbers_have_two_digits(value, word):
    assert rounded(value) == word
    assert float(word) == pytest.approx(value, rel=0.05)


def test_a_rate_is_divided_where_the_optimizer_has_one():
    assert divided_lr(changed_config(optim__lr=0.3), 3) == [("optim.lr=0.1",)]
    assert divided_lr(changed_config(optim={"name": "of_a_user"}), 3) == []
    assert divided_lr(changed_config(optim={"name": "of_a_user", "lr": "auto"}), 3) == []
