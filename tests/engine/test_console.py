"""The progress lines of a run, in a pipe and on a terminal."""

import io
import os
import pty
import re
import time
from types import SimpleNamespace

import pytest
import torch

from runner.engine.logs.console import Console, format_duration
from runner.engine.logs.log import Log
from runner.engine.logs.progress_line import fitting
from runner.engine.logs.sinks import Row
from runner.engine.transfer import Arriving
from runner.screen_tables import print_table


def rows(*, validate=(5, 10)):
    """Ten steps of half a second each, with validations."""
    found = []
    for step in range(1, 11):
        values = {"train/loss": 9.0, "train/loss_average": 1 / step}
        if step in validate:
            values |= {"val/loss": 0.25, "val/accuracy": step / 10, "images": object()}
        found.append(Row(step, 100 + step / 2, values))
    return found


def test_a_pipe_gets_one_line_per_validation():
    stream = io.StringIO()
    console = Console(steps=20, steps_per_epoch=5, batch_size=64, stream=stream)
    for row in rows():
        console.write([row])
    console.close()
    assert stream.getvalue().splitlines() == [
        "epoch 1/4  step 5/20  loss 0.2000  val loss 0.2500  val accuracy 0.5000  images/s 128  left 0:08",
        "epoch 2/4  step 10/20  loss 0.1000  val loss 0.2500  val accuracy 1.0000  images/s 128  left 0:05",
    ]


def test_rows_may_come_in_any_number_at_a_time():
    one, many = io.StringIO(), io.StringIO()
    for stream, size in ((one, 1), (many, 4)):
        console = Console(steps=20, steps_per_epoch=5, batch_size=64, stream=stream)
        for start in range(0, 10, size):
            console.write(rows()[start : start + size])
    assert one.getvalue() == many.getvalue()


def test_the_monitored_score_is_shown_and_leaves_a_narrow_bar_first():
    stream = io.StringIO()
    console = Console(steps=20, steps_per_epoch=5, batch_size=64, monitor="val/f1_macro", stream=stream)
    (row,) = rows(validate=(1,))[:1]
    console.write([row._replace(values={**row.values, "val/f1_macro": 0.75, "val/ece": 0.5})])
    text = "epoch 1/4  step 1/20  loss 1.0000  val loss 0.2500  val accuracy 0.1000  val f1_macro 0.7500"
    assert stream.getvalue() == f"{text}\n"
    parts = {"epoch": "1/4", "loss": "1.0000", "val accuracy": "0.1000", "val f1_macro": "0.7500"}
    assert [fitting(parts, width) for width in (80, 45, 24)] == [
        "epoch 1/4  loss 1.0000  val accuracy 0.1000  val f1_macro 0.7500",
        "epoch 1/4  loss 1.0000  val accuracy 0.1000",
        "epoch 1/4  loss 1.0000",
    ]


def test_a_validation_in_the_first_row_has_no_speed_yet():
    stream = io.StringIO()
    Console(steps=10, steps_per_epoch=5, batch_size=64, stream=stream).write(rows(validate=(1,))[:1])
    assert stream.getvalue() == "epoch 1/2  step 1/10  loss 1.0000  val loss 0.2500  val accuracy 0.1000\n"


def test_nothing_is_said_between_validations_on_a_pipe():
    stream = io.StringIO()
    Console(steps=10, steps_per_epoch=5, batch_size=64, stream=stream).write(rows(validate=()))
    assert stream.getvalue() == ""


def test_a_log_tells_its_screens_and_closes_them(tmp_path):
    stream = io.StringIO()
    log = Log(screens=[Console(steps=2, steps_per_epoch=1, batch_size=8, stream=stream)])
    for step in (1, 2):
        log.add(step, {"train/loss": torch.tensor(2.0)})
        log.add(step, {"val/accuracy": 0.5, "val/loss": 1.0})
    log.close()
    assert [line.split("  ")[:3] for line in stream.getvalue().splitlines()] == [
        ["epoch 1/2", "step 1/2", "loss 2.0000"],
        ["epoch 2/2", "step 2/2", "loss 2.0000"],
    ]


def on_terminal(write):
    """Return the output on a terminal."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        write(stream)
    said = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        said += piece
    os.close(master)
    return said.decode()


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")

    def write(stream):
        console = Console(steps=20, steps_per_epoch=5, batch_size=64, stream=stream)
        for row in rows():
            console.write([row])
        console.close()
        console.close()

    said = on_terminal(write)
    for accuracy in ("0.5000", "1.0000"):
        assert f"val accuracy {accuracy}" in said
    assert "\u2501" in said and "epoch 1/4  loss 1.0000" in said and "left 0:0" in said
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h") == 1  # the cursor is hidden, and comes back
    assert said.rstrip().endswith("\x1b[2K")


def steps_on_terminal(monkeypatch, width, *, count=3, averaged=False, resized=None):
    """Return what a terminal of a width shows of some steps and a validation; redrawn at each step."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("runner.engine.logs.console._REDRAW", 0.0)
    clock = SimpleNamespace(time=iter(range(101, 200)).__next__, monotonic=time.monotonic)
    monkeypatch.setattr("runner.engine.logs.console.time", clock)

    def write(stream):
        console = Console(steps=20, steps_per_epoch=5, batch_size=64, averaged=averaged, stream=stream)
        log = Log(screens=[console], ticks=console.ticks)
        for step in range(1, count + 1):
            log.add(step, {"train/loss": torch.tensor(2.0 / step)})
            log.add(step, {"train/lr": 0.1})
            if resized:
                console._bar._progress.console.width = resized
        console.write([Row(count, 100.0 + count, {"train/loss_average": 1.0, "val/loss": 0.25, "val/accuracy": 0.5})])
        log.close()

    return on_terminal(write)


def texts(said):
    """Return the lines that were drawn, without control sequences."""
    return [line for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\r", said)) if line.strip()]


def test_the_bar_moves_with_each_step(monkeypatch):
    said = "".join(texts(steps_on_terminal(monkeypatch, 100)))
    first, second = said.index("epoch 1/4  loss 2.0000"), said.index("epoch 1/4  loss 1.0000  images/s 64  left 0:18")
    assert first < second < said.index("loss 0.6667  images/s 64  left 0:17")


def test_a_line_on_a_terminal_says_once_that_the_weights_are_averaged(monkeypatch):
    said = steps_on_terminal(monkeypatch, 120, averaged=True)
    assert said.count("val loss 0.2500  val accuracy 0.5000  (averaged weights)  images/s") == 1
    assert "averaged" not in steps_on_terminal(monkeypatch, 120)


@pytest.mark.parametrize("width", [40, 47, 60, 80, 100])
def test_what_a_terminal_shows_fits_it_and_no_part_is_cut(monkeypatch, width):
    score = r"(val )?loss \d\.\d{4}|val accuracy 0\.5000|\(averaged weights\)"
    whole = rf"(epoch \d/4|step \d/20|{score}|images/s 64|left 0:\d\d|\s)*"
    lines = texts(steps_on_terminal(monkeypatch, width, averaged=True))
    assert max(map(len, lines)) <= width
    for line in lines:
        assert re.fullmatch(whole, line.lstrip("\u2501\u257a\u2578")), line


def test_lines_that_a_narrower_terminal_wraps_are_erased(monkeypatch):
    """The first bar of 35 cells takes two lines in a terminal of 20; the later ones fit it."""
    erased = "\x1b[2K\x1b[1A"
    assert steps_on_terminal(monkeypatch, 100, resized=20).count(erased) == 1
    assert steps_on_terminal(monkeypatch, 100, resized=90).count(erased) == 0


def test_a_pipe_has_no_ticks():
    assert Console(steps=2, steps_per_epoch=1, batch_size=8, stream=io.StringIO()).ticks == []


def test_a_number_on_the_cpu_arrives_at_once():
    assert Arriving().offer(torch.tensor(0.5)) == 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_number_of_a_gpu_arrives_without_waiting():
    numbers, found = Arriving(), []
    busy = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(20):
            busy = (busy @ busy).clamp(-1, 1)
        found.append(numbers.offer(busy.sum() * 0 + 3))
        found.append(numbers.offer(busy.sum() * 0 + 4))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert found == [None, None] and numbers.offer(busy.sum() * 0 + 5) == 3


def test_times_are_read_as_on_a_clock():
    assert [format_duration(s) for s in (0.4, 7, 59.6, 3599, 3600, 90061)] == [
        "0:00",
        "0:07",
        "1:00",
        "59:59",
        "1:00:00",
        "25:01:01",
    ]


def test_the_table_holds_every_value_in_full():
    stream = io.StringIO()
    name = "a name that is longer than a terminal of eighty columns is wide, " * 2
    print_table(
        [{"run": name, "val accuracy": 0.98765432, "n": 5}, {"run": "[b]", "val accuracy": None, "n": 1}],
        title="scores",
        stream=stream,
    )
    text = stream.getvalue()
    assert "scores" in text and name.strip() in text and "0.9877" in text and "[b]" in text and "None" not in text
    assert "\x1b" not in text


def test_an_empty_table_is_no_error():
    stream = io.StringIO()
    print_table([], stream=stream)
    assert stream.getvalue().strip() == ""
