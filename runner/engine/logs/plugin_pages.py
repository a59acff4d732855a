"""TensorBoard's HPARAMS page, which shows the config of a run, and the charts of its CUSTOM SCALARS page.

The hyperparameters are flat, each has one type (`runner.tasks.hparams`), and runs that differ only in the seed are one
group. No experiment record is written. TensorBoard then infers types and domains, shows the hyperparameters that differ
between runs first, uses every scalar tag as a metric, and averages over the runs of a group.

The tags of the charts are regular expressions, so that every run has the same layout. TensorBoard merges the layouts of
all runs and combines equal charts only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from runner.engine.logs import summaries

# The tag of the entry of a run on the HPARAMS page.
SESSION_START = "_hparams_/session_start_info"
# The fields of a protobuf Value by Python type.
_VALUE_FIELDS = {bool: "bool_value", float: "number_value", str: "string_value"}
# A color is a run, so that a chart of several tags cannot be read: each chart has one tag, or one tag per layer. The
# numbers before tags are those of `board_tags`; event files of older versions have none.
_CHARTS = {
    "1 Learning curves": {
        "validation accuracy": [r"(1 )?val/accuracy$"],
        "validation loss": [r"(1 )?val/loss$"],
        "loss of the training steps, moving average": [r"(2 )?train/loss_average$"],
        "loss of each training step": [r"(2 )?train/loss$"],
        "accuracy on training examples (not augmented)": [r"(3 )?train_eval/accuracy$"],
        "loss on training examples (not augmented)": [r"(3 )?train_eval/loss$"],
        "learning rate": [r"(2 )?train/lr(/.+)?$"],
    },
    "2 Update/weight ratio (log10) and gradient norm": {
        "all weights; lines: -4 small, -3 usual, -2 large": [r"ratio/log10/_"],
        "each weight tensor; lines: -4 small, -3 usual, -2 large": [r"ratio/log10/(?!_global)"],
        "gradient norm before clipping": [r"grad_norm/_global$"],
    },
    "3 Activations per layer": {
        "standard deviation (similar in all layers is good)": [r"activations/.+/std$"],
        "share of saturated outputs (tanh, sigmoid)": [r"activations/.+/saturated$"],
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


def flat_hparams(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Return a config, or a part of one, as a flat dict: `{optim: adam, optim.lr: 0.001, augment.crop.padding: 4.0}`.

    A number becomes a float, a list becomes its items joined by `+`, and null or an empty list becomes "none".
    """
    return {key: _typed(value) for key, value in flatten(config)}


def flatten(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) pairs; a group yields the name of its option under its own key, then the knobs."""
    for name, value in config.items():
        key = f"{above}{name}"
        if not isinstance(value, Mapping):
            yield key, value
        else:
            if not above:
                yield key, value.get("name", list(value))
            yield from ((knob, x) for knob, x in flatten(value, f"{key}.") if knob != f"{key}.name")


def _typed(value: Any) -> bool | float | str:
    """Return a value as one of the three types that TensorBoard supports."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return float(value)
    return to_text(value)


def to_text(value: Any) -> str:
    """Return a value as text: the items of a list joined by `+`, null or an empty list as "none"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value)) or "none"
    # A name may have bytes that are not UTF-8
    return "none" if value is None else str(value).encode(errors="backslashreplace").decode()


def session_start(hparams: Mapping[str, bool | float | str], group: str, *, began: float | None = None) -> Any:
    """Return the summary that starts a session on the HPARAMS page; runs of the same `group` share a row.

    Args:
        hparams: The hyperparameters.
        group: The name of the row.
        began: The time in seconds since 1970; None means now.
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    info = SessionStartInfo(group_name=group, start_time_secs=time.time() if began is None else began)
    for name, value in hparams.items():
        setattr(info.hparams[name], _VALUE_FIELDS[type(value)], value)
    return _hparams_summary(SESSION_START, HParamsPluginData(session_start_info=info))


def session_end(*, succeeded: bool) -> Any:
    """Return the summary that ends a session on the HPARAMS page; without it the status is unknown."""
    from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    info = SessionEndInfo(status=STATUS_SUCCESS if succeeded else STATUS_FAILURE, end_time_secs=time.time())
    return _hparams_summary("_hparams_/session_end_info", HParamsPluginData(session_end_info=info))


def _hparams_summary(tag: str, content: Any) -> Any:
    """Return the summary of a message to the HPARAMS plugin, which reads it from the metadata of an empty tensor.

    TensorBoard has functions for it, but they import far more modules (see `summaries.tensor`).
    """
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    plugin_data = SummaryMetadata.PluginData(plugin_name="hparams", content=content.SerializeToString())
    empty = np.zeros(0, dtype=np.float32)
    return Summary(value=[summaries.value(tag, empty, SummaryMetadata(plugin_data=plugin_data))])


def chart_layout() -> Any:
    """Return the summary with the layout of the CUSTOM SCALARS page; a run writes it once."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    categories = [
        layout_pb2.Category(title=title, chart=[_chart(name, tags) for name, tags in charts.items()])
        for title, charts in _CHARTS.items()
    ]
    packed = np.array(layout_pb2.Layout(category=categories).SerializeToString(), dtype=object)
    return Summary(value=[summaries.value(metadata.CONFIG_SUMMARY_TAG, packed, metadata.create_summary_metadata())])


def _chart(title: str, tags: list[str]) -> Any:
    """Return a line chart of all tags that match one of the regular expressions."""
    from tensorboard.plugins.custom_scalar import layout_pb2

    return layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
