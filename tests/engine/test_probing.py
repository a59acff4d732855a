"""Probes are generators with one yield round one update."""

import pytest
import torch
from torch import nn

from runner.engine.contracts import Outcome, Probe, Watched
from runner.engine.probing import due, probing


def watched():
    return Watched(nn.Linear(2, 2), {}, torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), 0)


def outcome():
    return Outcome(torch.tensor(1.5), None)


def test_a_probe_sees_before_and_after():
    seen_order = []

    def watch(what):
        before = what.model.weight.detach().clone()
        seen_order.append("before")
        result = yield
        seen_order.append("after")
        return {"change": (what.model.weight - before).norm(), "loss": result.loss}

    what = watched()
    with probing([Probe(1, watch)], what) as seen:
        seen_order.append("update")
        with torch.no_grad():
            what.model.weight += 1
        seen.outcome = outcome()
    assert seen_order == ["before", "update", "after"]
    assert seen.values["change"].item() == pytest.approx(2.0)
    assert seen.values["loss"].item() == 1.5


def test_a_second_yield_is_an_error_that_says_so():
    def watch(what):
        yield
        yield
        return {}

    with pytest.raises(TypeError, match="yielded twice"), probing([Probe(1, watch)], watched()) as seen:
        seen.outcome = outcome()


def test_a_probe_is_closed_when_the_update_fails():
    closed = []

    def watch(what):
        try:
            yield
        finally:
            closed.append(True)
        return {}

    with pytest.raises(ZeroDivisionError), probing([Probe(1, watch)], watched()):
        raise ZeroDivisionError
    assert closed == [True]


def test_probes_are_due_at_the_first_step_and_then_every_so_many():
    probe = Probe(50, watched)
    assert [step for step in range(1, 151) if due([probe], step)] == [1, 50, 100, 150]
