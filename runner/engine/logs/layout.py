"""The charts of TensorBoard's CUSTOM SCALARS page: what to look at first, and what to hold it against.

Tags are named by regular expressions, so that every run has the same layout: TensorBoard merges those of all runs, and
only equal charts become one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runner.engine.logs.summaries import value

CHARTS = {
    "1 is it learning?": {
        "loss: each step, its moving average, validation": [r"train/loss$", r"train/loss_average$", r"val/loss$"],
        "accuracy": [r"train/accuracy$", r"val/accuracy$"],
        "learning rate": [r"train/lr$"],
    },
    "2 how far does each step go? (log10 of update / weights, -3 is usual)": {
        "all weights together": [r"ratio/log10/_"],
        "each weight tensor": [r"ratio/log10/(?!_global)"],
        "gradient norm before clipping": [r"grad_norm/_global$"],
    },
    "3 are the layers alive?": {
        "spread of the activations: level over depth is good": [r"activations/.+/std$"],
        "saturated share": [r"activations/.+/saturated$"],
        "dead units": [r"activations/.+/dead$"],
        "mean of the activations": [r"activations/.+/mean$"],
    },
    "4 what does a step cost? (validation and checkpoints left out)": {
        "milliseconds per step": [r"time/step_ms$"],
        "examples per second": [r"time/examples_per_second$"],
        "share of the time spent waiting for data": [r"time/data_wait$"],
        "peak memory, MB": [r"time/peak_memory_mb$"],
    },
}


def layout() -> Any:
    """Return the summary that lays out the charts; written once per run."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    categories = [
        layout_pb2.Category(title=title, chart=[chart(name, tags) for name, tags in charts.items()])
        for title, charts in CHARTS.items()
    ]
    packed = np.array(layout_pb2.Layout(category=categories).SerializeToString(), dtype=object)
    return Summary(value=[value(metadata.CONFIG_SUMMARY_TAG, packed, metadata.create_summary_metadata())])


def chart(title: str, tags: list[str]) -> Any:
    """Return one chart of lines."""
    from tensorboard.plugins.custom_scalar import layout_pb2

    return layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
