"""A comparison of a real sweep: important knobs are found, and one swept key gives no parallel coordinates."""

import pytest
from running import command

from runner.comparing.page import draw_pictures, html_page
from runner.comparing.report import make_report
from runner.comparing.verdicts import Criterion

SMALL = ("-m", "model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "average=none", "epochs=1", "device=cpu")
RULE = Criterion(metric="val/loss", at="last")


def compared(tmp_path, *words):
    done = command(*SMALL, *words, "sweep=s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return make_report([str(tmp_path / "outputs" / "sweeps" / "s")], RULE, None)


@pytest.mark.slow
@pytest.mark.ci_slice
def test_the_learning_rate_matters_most_where_it_spans_decades_and_the_others_hardly_change_a_step(tmp_path):
    """At 19 steps weight decay of 1e-4 moves no weight by a hundredth, and Nesterov looks one step ahead."""
    axes = ("optim.lr=1e-4,1e-3,1e-2,1e-1", "optim.weight_decay=0,1e-4", "optim=momentum,nesterov", "seed=0,1")
    found = compared(tmp_path, *axes)
    first, *others, _ = found.importance.effects
    assert first.key == "optim.lr" and first.low > 0.8
    assert sorted(each.key for each in others) == ["optim", "optim.weight_decay"]
    assert all(each.share < first.share / 5 and each.low == 0 for each in others)
    assert {"parallel", "importance", "response"} <= draw_pictures(found).keys()


def test_a_sweep_over_one_key_has_no_parallel_coordinates(tmp_path):
    found = compared(tmp_path, "optim.lr=0.01,0.1")
    drawn = draw_pictures(found)
    assert drawn.keys() == {"curves", "seeds", "response"}
    page = html_page(found, drawn, "x")
    assert "Parallel coordinates" not in page and "Importance: not computed: 2 scored runs" in page
