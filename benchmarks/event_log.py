"""Time per logged scalar: runner's event files, and its whole log, against torch's SummaryWriter.

`python -m benchmarks.event_log`: 200 steps of 60 scalars, written 50 steps at a time, as in a run. Both files are
closed before the clock stops, and TensorBoard reads the same events from both.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from benchmarks.rounds import interleave
from runner.engine.logs.event_file import EventFile, next_name
from runner.engine.logs.log import open_logs
from runner.engine.logs.sinks import Row

STEPS, TAGS, _FLUSH = 200, 60, 50
_Write = Callable[[Path, Sequence[Row]], None]


def _rows() -> list[Row]:
    """Return the rows that a run logs: three scalars for each of 20 layers."""
    draw = random.Random(0)
    tags = [f"update_ratio/layers.{place // 3}.weight/{'abc'[place % 3]}" for place in range(TAGS)]
    return [Row(step, 1.7e9 + step / 8, {tag: draw.gauss(0, 1) for tag in tags}) for step in range(1, STEPS + 1)]


def _by_sink(folder: Path, logged: Sequence[Row]) -> None:
    """Write rows with runner's event file."""
    with closing(EventFile(folder / next_name(folder), 0)) as sink:
        for start in range(0, STEPS, _FLUSH):
            sink.write(logged[start : start + _FLUSH])


def _by_log(folder: Path, logged: Sequence[Row]) -> None:
    """Log rows as the loop does: to an event file and to `metrics.jsonl`."""
    with closing(open_logs(folder, positions=None, step=0)) as log:
        for row in logged:
            log.add(row.step, row.values)
            if row.step % _FLUSH == 0:
                log.flush()


def _by_summary_writer(folder: Path, logged: Sequence[Row]) -> None:
    """Write rows with torch's SummaryWriter."""
    with closing(SummaryWriter(str(folder))) as writer:
        for row in logged:
            for tag, value in row.values.items():
                writer.add_scalar(tag, value, row.step, row.time)


def seconds(write: _Write, logged: Sequence[Row], found: list[dict[str, list[tuple[int, float]]]]) -> float:
    """Return the seconds of writing the rows; append the events that TensorBoard reads to `found`."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write(Path(folder), logged)
        spent = time.perf_counter() - start
        if len(found) < 2:
            found.append(_read(folder))
    return spent


def _read(folder: str) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of every scalar in a folder, by tag."""
    events = EventAccumulator(folder, size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def event_log(rounds: int, write: _Write = _by_sink) -> list[tuple[float, float]]:
    """Return the seconds (runner, SummaryWriter) of logging STEPS * TAGS scalars, in each round."""
    logged = _rows()
    found: list[dict[str, list[tuple[int, float]]]] = []
    pairs = interleave(
        partial(seconds, write, logged, found), partial(seconds, _by_summary_writer, logged, found), rounds
    )
    assert len(found[0]) == TAGS and all(len(events) == STEPS for events in found[0].values())
    assert found[0] == found[1]
    return pairs


def main(rounds: int = 7) -> None:
    """Print microseconds per scalar, and the ratio."""
    for title, write in (("event file", _by_sink), ("whole log", _by_log)):
        pairs = event_log(rounds, write)
        ratios = sorted(other / mine for mine, other in pairs)
        mine, other = (statistics.median(column) / (STEPS * TAGS) * 1e6 for column in zip(*pairs, strict=True))
        print(
            f"{title}: ours {mine:.2f} us per scalar, SummaryWriter {other:.2f} us, "
            f"1/{statistics.median(ratios):.1f} (1/{ratios[0]:.1f} to 1/{ratios[-1]:.1f}, n={len(ratios)})",
            flush=True,
        )


if __name__ == "__main__":
    main()
