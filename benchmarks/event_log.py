"""Time per logged scalar: our event files against torch's SummaryWriter, and the whole log against it.

`python -m benchmarks.event_log`: 200 steps of 60 scalars, given to our file 50 steps at a time, as a run does. Both
files are closed before the clock stops, and TensorBoard reads the same events from both.
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

STEPS, TAGS, FLUSH = 200, 60, 50
Write = Callable[[Path, Sequence[Row]], None]


def rows() -> list[Row]:
    """Return what a run logs: some scalars for each of 20 layers."""
    draw = random.Random(0)
    tags = [f"update_ratio/layers.{place // 3}.weight/{'abc'[place % 3]}" for place in range(TAGS)]
    return [Row(step, 1.7e9 + step / 8, {tag: draw.gauss(0, 1) for tag in tags}) for step in range(1, STEPS + 1)]


def by_sink(folder: Path, logged: Sequence[Row]) -> None:
    """Write rows with our event file."""
    with closing(EventFile(folder / next_name(folder), 0)) as sink:
        for start in range(0, STEPS, FLUSH):
            sink.write(logged[start : start + FLUSH])


def by_log(folder: Path, logged: Sequence[Row]) -> None:
    """Log rows as the loop does: to an event file and to `metrics.jsonl`."""
    with closing(open_logs(folder, positions=None, step=0)) as log:
        for row in logged:
            log.add(row.step, row.values)
            if row.step % FLUSH == 0:
                log.flush()


def by_summary_writer(folder: Path, logged: Sequence[Row]) -> None:
    """Write rows with torch's writer."""
    with closing(SummaryWriter(str(folder))) as writer:
        for row in logged:
            for tag, value in row.values.items():
                writer.add_scalar(tag, value, row.step, row.time)


def seconds(write: Write, logged: Sequence[Row], found: list[dict[str, list[tuple[int, float]]]]) -> float:
    """Return the seconds of writing the rows; what TensorBoard reads afterwards goes into `found`."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write(Path(folder), logged)
        spent = time.perf_counter() - start
        if len(found) < 2:
            found.append(read(folder))
    return spent


def read(folder: str) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of every scalar in a folder, by tag."""
    events = EventAccumulator(folder, size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def event_log(rounds: int, write: Write = by_sink) -> list[tuple[float, float]]:
    """Return the seconds (ours, SummaryWriter's) of logging STEPS * TAGS scalars, in each round."""
    logged = rows()
    found: list[dict[str, list[tuple[int, float]]]] = []
    pairs = interleave(
        partial(seconds, write, logged, found), partial(seconds, by_summary_writer, logged, found), rounds
    )
    assert len(found[0]) == TAGS and all(len(events) == STEPS for events in found[0].values())
    assert found[0] == found[1]
    return pairs


def main(rounds: int = 7) -> None:
    """Print microseconds per scalar, and the ratio."""
    for title, write in (("event file", by_sink), ("whole log", by_log)):
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
