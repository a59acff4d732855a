"""Entries of older runs on TensorBoard's HPARAMS page, brought to the types of this version.

Older versions logged null as the text "none", which spoils the column of a number for all runs beside it. An event file
is never changed: a small one whose name sorts before all others is added, and TensorBoard takes the first entry.
"""

from __future__ import annotations

import os
import socket
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from runner import plain_yaml
from runner.decoration import decorative
from runner.engine.logs.event_file import EventFile, event_files
from runner.engine.logs.plugin_pages import SESSION_START, session_start
from runner.engine.logs.sinks import Row
from runner.engine.saving import storage
from runner.engine.saving.locking import lock
from runner.engine.world import ALONE
from runner.numerics import completed
from runner.tasks.hparams import typed_hparams
from runner.user_paths import full


def update_entry(folder: Path) -> bool:
    """Update the HPARAMS entry of a run if its types differ from those of this version; return True if they did.

    What cannot be updated, as a run that another process trains, is one line.
    """
    with decorative(f"HPARAMS entry of {folder}: not updated"):
        if (entry := _read_entry(folder)) is None:
            return False
        hparams = typed_hparams(completed(plain_yaml.load(folder / "config.yaml")))
        if {name: getattr(value, value.WhichOneof("kind")) for name, value in entry.hparams.items()} == hparams:
            return False
        with lock(folder, ALONE):
            _write_first(folder, session_start(hparams, entry.group_name, began=entry.start_time_secs))
        return True
    return False


def _read_entry(folder: Path) -> Any:
    """Return the first entry that a run has on the HPARAMS page, None without one."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    for name in event_files(folder):
        for event in map(Event.FromString, RawEventFileLoader(full(folder / name)).Load()):
            for value in event.summary.value:
                if value.tag == SESSION_START:
                    return HParamsPluginData.FromString(value.metadata.plugin_data.content).session_start_info
    return None


def _write_first(folder: Path, entry: Any) -> None:
    """Write an event file that TensorBoard reads before the others of a run."""
    path, descriptor = storage.create_temporary(folder)
    os.close(descriptor)
    try:
        with closing(EventFile(path, 0)) as file:
            file.write([Row(0, 0.0, {SESSION_START: entry})])
        with storage.convert_os_errors(path):
            storage.disk.replace(path, folder / f"events.out.tfevents.{0:010d}.{socket.gethostname()}.{os.getpid()}.0")
    except BaseException:
        with suppress(OSError):
            storage.disk.unlink(path)
        raise
