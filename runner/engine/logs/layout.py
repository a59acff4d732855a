"""The charts of TensorBoard's CUSTOM SCALARS page.

Tags are regular expressions, so that every run has the same layout: TensorBoard merges the layouts of all runs, and
only equal charts become one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runner.engine.logs.summaries import value

_CHARTS = {
    "1 Learning curves": {
        "loss: training steps, moving average, validation": [r"train/loss$", r"train/loss_average$", r"val/loss$"],
        "accuracy": [r"train/accuracy$", r"val/accuracy$"],
        "learning rate": [r"train/lr(/.+)?$"],
    },
    "2 Update/weight ratio (log10; about -3 is usual) and gradient norm": {
        "update/weight ratio of all weights": [r"ratio/log10/_"],
        "update/weight ratio per weight tensor": [r"ratio/log10/(?!_global)"],
        "gradient norm before clipping": [r"grad_norm/_global$"],
    },
    "3 Activations per layer": {
        "standard deviation (similar in all layers is good)": [r"activations/.+/std$"],
        "share of saturated outputs": [r"activations/.+/saturated$"],
        "share of dead units": [r"activations/.+/dead$"],
        "mean": [r"activations/.+/mean$"],
    },
    "4 Cost of a step (without validation and checkpoints)": {
        "milliseconds per step": [r"time/step_ms$"],
        "examples per second": [r"time/examples_per_second$"],
        "share of time waiting for data": [r"time/data_wait$"],
        "peak memory, MB": [r"time/peak_memory_mb$"],
    },
}


def layout() -> Any:
    """Return the summary with the layout of the charts; written once per run."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    categories = [
        layout_pb2.Category(title=title, chart=[_chart(name, tags) for name, tags in charts.items()])
        for title, charts in _CHARTS.items()
    ]
    packed = np.array(layout_pb2.Layout(category=categories).SerializeToString(), dtype=object)
    return Summary(value=[value(metadata.CONFIG_SUMMARY_TAG, packed, metadata.create_summary_metadata())])


def _chart(title: str, tags: list[str]) -> Any:
    """Return a line chart of all tags that match."""
    from tensorboard.plugins.custom_scalar import layout_pb2

    return layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
