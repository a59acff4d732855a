"""Benchmarks: equal work for all peers, names of missing peers, directions of bounds, output files."""

import json

import pytest

from benchmarks.__main__ import main
from benchmarks.contest import BY_HAND, OURS, Loop, Outcome, check_losses, run_contest
from benchmarks.experiments import MLP, words
from benchmarks.report import write
from benchmarks.rounds import Size, spread
from benchmarks.slices import SLICES
from benchmarks.targets import TARGETS, Result, Target

pytestmark = pytest.mark.rendered

ABSENT = Loop("a peer", "by_hand:run", "no_such_package")
BROKEN = Loop("a broken peer", "by_hand:no_such_function")
AT_MOST = Target("a", "step", "ours", "theirs", "ours / other", 1.02, 0.92, "s")
AT_LEAST = Target("b", "step", "ours", "theirs", "other / ours", 2.0, 3.0, "s")
HERE = {"date": "today", "cpu": "a cpu", "cores": "2", "load": "0.0", "threads": "1", "gpu": "none", "python": "3"}


@pytest.fixture(scope="module")
def outcome():
    """A contest of two turns of three steps."""
    return run_contest((OURS, BY_HAND, ABSENT, BROKEN), "mlp", words(MLP), Size(warm=1, turn=3, turns=2))


@pytest.mark.slow
@pytest.mark.ci_slice
def test_both_loops_take_their_turns_and_reach_the_same_loss(outcome):
    pairs = outcome.pairs(OURS, BY_HAND)
    assert len(pairs) == 2
    assert all(seconds > 0 for pair in pairs for seconds in pair)
    (ours_early, ours_last), (early, last) = outcome.losses["ours"], outcome.losses[BY_HAND.name]
    assert ours_early == pytest.approx(early, rel=1e-5)
    assert ours_last == pytest.approx(last, rel=1e-5)
    assert early < last  # twenty steps teach more than eight


@pytest.mark.slow
@pytest.mark.ci_slice
def test_an_absent_peer_is_named_and_no_fault(outcome):
    assert outcome.pairs(OURS, ABSENT) == "no_such_package is not installed"
    assert not any("a peer" in fault for fault in outcome.faults)


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_peer_that_fails_is_a_fault_and_the_others_go_on(outcome):
    assert "no_such_function" in outcome.pairs(OURS, BROKEN)
    assert [fault.startswith("a broken peer: failed") for fault in outcome.faults] == [True]


def test_a_loop_that_did_other_work_is_taken_out():
    outcome = Outcome(Size(1, 1, 1), {"ours": [1.0], "hand-written loop": [1.0]})
    outcome.losses = {"ours": (0.5, 0.1), "hand-written loop": (0.5001, 0.1)}
    check_losses(outcome, "cpu")
    assert "it did different work" in outcome.pairs(OURS, BY_HAND)
    assert outcome.faults


@pytest.mark.parametrize(
    ("target", "pair", "verdict"),
    [
        (AT_MOST, (0.9, 1.0), "stretch"),
        (AT_MOST, (1.0, 1.0), "pass"),
        (AT_MOST, (1.1, 1.0), "MISS"),
        (AT_LEAST, (1.0, 3.1), "stretch"),
        (AT_LEAST, (1.0, 2.5), "pass"),
        (AT_LEAST, (1.0, 1.9), "MISS"),
    ],
)
def test_a_bound_is_read_in_its_direction(target, pair, verdict):
    assert Result(target, [pair, pair, pair]).verdict == verdict


def test_medians_are_of_rounds_and_the_pooled_value_of_all_together():
    found = Result(AT_MOST, [(1.0, 1.0), (1.0, 1.0), (4.0, 1.0)]).as_json()
    assert (found["n"], found["median"], found["low"], found["high"], found["pooled"]) == (3, 1.0, 1.0, 4.0, 2.0)


def test_one_number_is_its_own_spread():
    assert spread([2.0]).quartile1 == spread([2.0]).median == spread([2.0]).high == 2.0


def test_the_report_leaves_every_round_a_table_and_a_chart(tmp_path):
    results = [Result(AT_MOST, [(1.0, 1.0), (3.0, 1.0)]), Result(AT_LEAST, "lightning is not installed")]
    write(tmp_path, results, HERE, {})
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["targets"][0]["pairs"] == [[1.0, 1.0], [3.0, 1.0]]
    assert found["targets"][1]["reason"] == "lightning is not installed"
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "results.md").read_text()
    assert "| ours | theirs | ours / other | <= 1.02 | <= 0.92 | 2.000 | 1.000 to 3.000 (2) |" in table
    assert "- ours vs theirs: not measured: lightning is not installed" in table


def test_what_is_not_measured_is_named_with_its_reason(tmp_path, capsys):
    assert main(["--only", "speedrun", "--out", str(tmp_path)]) == 0
    reasons = {
        target["key"]: target["reason"] for target in json.loads((tmp_path / "results.json").read_text())["targets"]
    }
    assert reasons.pop("speedrun").startswith("it needs a GPU")
    assert set(reasons.values()) == {"not asked for"}
    assert "not measured: it needs a GPU" in capsys.readouterr().out


def test_each_target_belongs_to_a_slice():
    assert {target.slice for target in TARGETS} == set(SLICES)
    assert len({target.key for target in TARGETS}) == len(TARGETS)


def test_an_unknown_slice_is_refused(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--only", "stepp"])
    assert error.value.code == 2
    assert "unknown stepp (choose from step," in capsys.readouterr().err
