"""The benchmark of growth: runner takes the fabricated trials for finished ones, and compares them."""

import pytest

from benchmarks.growth import measure


@pytest.mark.slow
def test_fabricated_trials_are_finished_ones_and_have_scores_of_their_own(tmp_path):
    found = measure(60, tmp_path)
    assert found["trials"] == 60
    assert found["start"]["text"].count("already done") == 60
    scores = {line.split()[2] for line in found["start"]["text"].splitlines() if "already done" in line}
    assert len(scores) > 30
