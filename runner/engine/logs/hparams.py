"""A run's config for TensorBoard's HPARAMS page: flat, typed, and grouped so that seeds share a row.

Written into the run itself, with no experiment record: then TensorBoard infers types and domains, puts what differs
between runs first, takes every scalar tag for a metric, and averages the runs of one group.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from runner.engine.logs import summaries


def flat_hparams(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Return a config, or a part of one, on one level: `{optim: adam, optim.lr: 0.001, augment.crop.padding: 4.0}`.

    A number becomes a float, a list its items joined by `+`, and what is null or empty the word none.
    """
    return {key: typed(value) for key, value in flat(config)}


def flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value); a group gives its choice under its own name, then the knobs."""
    for word, value in config.items():
        key = f"{above}{word}"
        if not isinstance(value, Mapping):
            yield key, value
        else:
            if not above:
                yield key, value.get("name", list(value))
            yield from ((knob, x) for knob, x in flat(value, f"{key}.") if knob != f"{key}.name")


def typed(value: Any) -> bool | float | str:
    """Return a value as one of the three types that TensorBoard knows."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def session_start(hparams: Mapping[str, bool | float | str], group: str) -> Any:
    """Return the summary that starts a session; runs of the same `group` share one row."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    info = SessionStartInfo(group_name=group, start_time_secs=time.time())
    for name, value in hparams.items():
        setattr(info.hparams[name], VALUES[type(value)], value)
    return summary("session_start_info", HParamsPluginData(session_start_info=info))


def session_end(*, succeeded: bool) -> Any:
    """Return the summary that ends a session; without one its status stays unknown."""
    from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    info = SessionEndInfo(status=STATUS_SUCCESS if succeeded else STATUS_FAILURE, end_time_secs=time.time())
    return summary("session_end_info", HParamsPluginData(session_end_info=info))


VALUES = {bool: "bool_value", float: "number_value", str: "string_value"}


def summary(tag: str, content: Any) -> Any:
    """Return the summary of a message to the HPARAMS plugin, which reads it from the metadata of an empty tensor.

    TensorBoard's own functions for it import far more than the messages (see `summaries.tensor`).
    """
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    about = SummaryMetadata.PluginData(plugin_name="hparams", content=content.SerializeToString())
    empty = np.zeros(0, dtype=np.float32)
    return Summary(value=[summaries.value(f"_hparams_/{tag}", empty, SummaryMetadata(plugin_data=about))])
