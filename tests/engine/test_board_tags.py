"""The order of TensorBoard's pages: tags sorted as its pages sort them, and what then comes first."""

import re

from runner.engine.logs.board_tags import board_tag
from runner.engine.logs.plugin_pages import chart_layout

LOGGED = (
    *("train/loss", "train/loss_average", "train/lr", "train/lr/head", "val/accuracy", "val/loss", "val/nll"),
    *("train_eval/accuracy", "train_eval/loss", "train_eval/nll", "val/f1_macro", "val/ece", "time/step_ms"),
    *("_best/val_accuracy", "_best/val_loss", "_best/val_nll", "activations/hidden.fc1.act/std", "curves"),
    *("ratio/log10/_global", "ratio/log10/_guide/1e-3", "ratio/l2/head.weight", "grad_norm/_global", "images/batch"),
)
# Scores that only some runs have: those of losses with probabilities, and of metrics that were asked for
SOME = ("val/nll", "val/f1_macro", "val/ece", "_best/val_nll", "train/lr/head")


def natural(tag):
    """Return the key by which TIME SERIES sorts: `/` and numbers before letters, numbers by their value."""
    parts = re.findall(r"\d+(?:\.\d+)?|/|[^\d/]", tag)
    return [(part != "/", not part[0].isdigit(), float(part) if part[0].isdigit() else 0, part) for part in parts]


def test_the_first_two_groups_are_the_scores_and_the_loss_of_the_steps():
    tags = sorted(map(board_tag, LOGGED), key=natural)
    groups = list(dict.fromkeys(tag.partition("/")[0] for tag in tags))
    assert groups[:5] == ["1 val", "2 train", "3 train_eval", "4 val", "5 best"]
    assert tags[:5] == ["1 val/accuracy", "1 val/loss", "2 train/loss", "2 train/loss_average", "2 train/lr"]
    assert groups.index("10 best") > groups.index("4 val")


def test_the_five_metrics_of_hparams_are_in_every_run():
    shown = sorted(map(board_tag, LOGGED))[:5]
    best = ["10 best/val_accuracy", "10 best/val_loss"]
    assert shown == ["1 val/accuracy", "1 val/loss", *best, "2 train/loss"]
    assert not {board_tag(tag) for tag in SOME} & set(shown)


def test_tags_stay_apart_and_contain_what_a_user_searches():
    found = {tag: board_tag(tag) for tag in LOGGED}
    assert len(set(found.values())) == len(LOGGED)
    for tag, renamed in found.items():
        words = tag.removeprefix("_best/").removeprefix("_")
        assert words in renamed or "_guide" in tag


def test_charts_find_the_tags_of_this_version_and_of_older_ones():
    (value,) = chart_layout().value
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    layout = Layout.FromString(value.tensor.string_val[0])
    charts = [chart for category in layout.category for chart in category.chart if chart.HasField("multiline")]
    patterns = [pattern for chart in charts for pattern in chart.multiline.tag]
    for tag in LOGGED:
        if tag.startswith(("train", "val/acc", "val/loss", "ratio/log10", "time")):
            matching = [pattern for pattern in patterns if re.match(pattern, tag)]
            assert matching == [pattern for pattern in patterns if re.match(pattern, board_tag(tag))], tag
