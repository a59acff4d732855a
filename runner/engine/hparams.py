"""A run's config for TensorBoard's HPARAMS page: flat, typed, and grouped so that seeds share a row.

Written into the run itself, with no experiment record: then TensorBoard infers types and domains, puts what differs
between runs first, takes every scalar tag for a metric, and averages the runs of one group.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

DROPPED = {
    *("seed", "outputs", "name", "sweep", "resume", "run", "note", "plugins", "device", "log_every", "figures", "test"),
    *("data.root", "data.workers", "data.cache", "data.placement", "probe", "task"),
}  # what says where, when or how a run is watched, not what it computes; seeds are what a group averages over


def flat_hparams(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Return the config as one level, `{optim: adam, optim.lr: 0.001, augment: crop+flip, augment.crop.padding: 4.0}`.

    A number becomes a float, a list its items joined by `+`, and what is null or empty the word none.
    """
    return {key: typed(value) for key, value in flat(config) if key not in DROPPED}


def flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value); a group gives its choice under its own name, then the knobs."""
    for word, value in config.items():
        key = f"{above}{word}"
        if key in DROPPED:
            continue
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
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    return hparams_pb(dict(hparams), trial_id=group, start_time_secs=time.time())


def session_end(*, succeeded: bool) -> Any:
    """Return the summary that ends a session; without one its status stays unknown."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    tag = metadata.SESSION_END_INFO_TAG
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])
