"""The progress lines of a run, in a pipe and on a terminal."""

import io
import os
import pty

import torch

from runner.engine.logs.console import Console, format_duration
from runner.engine.logs.log import Log
from runner.engine.logs.sinks import Row
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
