"""The tables of a sweep: their columns are the swept keys, and scores stay visible on a narrow terminal."""

import io
import re
from dataclasses import replace

import pytest
from running import command, job

from runner.engine.saving.folder import Result
from runner.keys import short_keys
from runner.status import Status
from runner.sweeps import display
from runner.sweeps.display import make_display
from runner.sweeps.final_table import show_final_table
from runner.sweeps.outcome import Ended
from runner.sweeps.swept import swept_keys, values_of

# The folder's name ends before the seed
LONG = ",".join(f"augment.option{number}.knob=0.5" for number in range(4))[:91]
AXES = {
    "loss": ("cross_entropy", "label_smoothing"),
    "optim.lr": ("0.1", "0.2"),
    "optim.weight_decay": ("0.0001", "0.0005"),
    "average": ("none", "ema"),
    "seed": ("0", "1"),
}


@pytest.fixture(scope="module")
def jobs():
    one = job("model=mlp")
    made = []
    for number in range(32):
        words = [f"{key}={values[number >> place & 1]}" for place, (key, values) in enumerate(AXES.items())]
        overrides = ("model=mlp", *words, "note=a", "hydra.launcher.workers=2")
        made.append(replace(one, overrides=overrides, folder_name=f"{LONG}-{number:08x}", folder=f"x/{number}"))
    return made


class Terminal(io.StringIO):
    def isatty(self):
        return True


def ended(jobs):
    scores = {"val": {"best": {"accuracy": 0.5, "loss": 1.0}}}
    results = [Result(status=Status.DONE, exit=0, seconds=12.5, scores=scores) for _ in jobs]
    return [Ended(number=i, job=job, result=results[i], ran=True) for i, job in enumerate(jobs)]


def rows(text):
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in text.splitlines()]
    return [re.split(r" {2,}", line.strip()) for line in lines if line.strip() and "──" not in line]


def test_swept_keys_are_those_whose_values_differ(jobs):
    assert swept_keys(jobs) == list(AXES)
    assert swept_keys(jobs[:2]) == ["loss"] and swept_keys(jobs[:1]) == []
    assert values_of(jobs[0])["seed"] == "0" and "hydra.launcher.workers" not in values_of(jobs[0])


def test_a_heading_is_the_shortest_end_of_a_key_that_no_other_key_has():
    assert short_keys(["optim.lr", "seed"]) == {"optim.lr": "lr", "seed": "seed"}
    assert list(short_keys(["optim.lr", "scheduler.lr", "augment.crop.p"]).values()) == [
        "optim.lr",
        "scheduler.lr",
        "p",
    ]
    assert list(short_keys(["a.crop.p", "a.hflip.p", "b.crop"]).values()) == ["crop.p", "hflip.p", "crop"]
    assert list(short_keys(["a.x.p", "b.x.p", "p"]).values()) == ["a.x.p", "b.x.p", "p"]


def final(jobs, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()
    show_final_table(ended(jobs), "val/accuracy", list(AXES), stream)
    return rows(stream.getvalue())


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_final_table_has_the_swept_keys_and_the_scores_at_every_width(jobs, width, monkeypatch):
    found = final(jobs, width, monkeypatch)
    # A heading in several lines ends in the last one
    head = next(row for row in found if "status" in row)
    assert head[:2] == ["loss", "lr"] and head[3:5] == ["average", "seed"]
    assert sum("0.5000" in row and "done" in row for row in found) == 32
    if width >= 100:
        assert head[:6] == ["loss", "lr", "weight_decay", "average", "seed", "val/accuracy (best)"]
    assert ("trial" in head) == (width >= 80)
    last = " ".join(found[-1])
    assert last == {60: "not shown: seconds, trial", 80: "not shown: seconds"}.get(width, " ".join(found[-1]))


def test_a_wide_final_table_tells_every_value_and_the_folder(jobs, monkeypatch):
    head, *found = final(jobs, 140, monkeypatch)
    scores = ["val/accuracy (best)", "status", "seconds", "trial"]
    assert head == ["loss", "lr", "weight_decay", "average", "seed", *scores]
    assert [row[:5] for row in found] == [[values_of(job)[key] for key in AXES] for job in jobs]
    assert [row[-1] for row in found] == [f"{number:08x}" for number in range(32)]
    head, *found = final(jobs, 240, monkeypatch)
    assert [row[-1] for row in found] == [job.folder_name for job in jobs]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_live_table_has_the_swept_keys_and_the_scores_at_every_width(jobs, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "30")
    progress = {"epoch": "12/20", "loss": "0.1234", "val accuracy": "0.4321", "left": "1:23"}
    monkeypatch.setattr(display, "_last_progress", lambda folder: progress)
    stream = Terminal()
    table = make_display(32, stream, swept=list(AXES))
    table.trial_ended(ended(jobs)[3])
    table.refresh(jobs[4:6], 20, loaded=True)
    text = stream.getvalue()
    table.close()
    head = next(row for row in rows(text) if "state" in row)
    lines = [row for row in rows(text) if "running" in row or row[-1] == "done" or "done" in row[-2:]]
    assert "score" in head and "lr" in head and "average" in head and head[0] == "loss"
    assert [sum(word in row for row in lines) for word in ("0.5000", "0.4321")] == [1, 2]
    if width >= 100:
        assert [row[:5] for row in lines] == [[values_of(jobs[at])[key] for key in AXES] for at in (3, 4, 5)]


def test_a_live_table_without_trials_is_its_title(monkeypatch, capfd):
    stream = Terminal()
    table = make_display(2, stream, swept=["seed"])
    table.refresh([], 2, loaded=False)
    table.close()
    assert "loading torch and the data" in stream.getvalue() and capfd.readouterr().err == ""


def test_a_sweep_without_known_keys_has_the_names_of_its_trials(jobs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    stream = Terminal()
    show_final_table(ended(jobs[:2]), "val/accuracy", (), stream)
    assert [row[0] for row in rows(stream.getvalue())] == ["trial", jobs[0].folder_name, jobs[1].folder_name]


def test_keys_without_room_for_columns_are_one_column(jobs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    stream = Terminal()
    show_final_table(ended(jobs), "val/accuracy", list(AXES), stream)
    found = rows(stream.getvalue())
    assert found[1][0] == "configuration" and sum("0.5000" in row for row in found) == 32
    named = "".join(row[0] for row in found)
    for each in jobs:
        values = values_of(each)
        assert ",".join(f"{key.rpartition('.')[2]}={values[key]}" for key in AXES) in named


def test_the_name_of_a_trial_stays_at_every_width(jobs, monkeypatch):
    for width in ("40", "60", "80"):
        monkeypatch.setenv("COLUMNS", width)
        stream = Terminal()
        show_final_table(ended(jobs[:2]), "val/accuracy", (), stream)
        found = rows(stream.getvalue())
        assert jobs[0].folder_name in "".join(row[0] for row in found) and "0.5000" in stream.getvalue()


def test_a_live_table_that_fails_is_one_line_and_the_trials_go_on(jobs, monkeypatch, capfd):
    monkeypatch.setattr(display._LiveTable, "refresh", lambda *_, **__: 1 / 0)
    stream = Terminal()
    table = make_display(2, stream, swept=["seed"])
    for each in ended(jobs[:2]):
        table.refresh(jobs[:1], 1, loaded=True)
        table.trial_ended(each)
    table.close()
    assert capfd.readouterr().err == "runner: warning: live table: not shown (ZeroDivisionError: division by zero)\n"
    assert stream.getvalue().count("done") == 2


def test_a_real_sweep_whose_names_are_cut(tmp_path):
    """The folder's name is cut inside the second of two swept paths, before the seed."""
    words = ("data=synthetic", "augment=[]", "probe=[]", "model=mlp", "steps=2", "sweep=s")
    layers = "model.hidden=[8],[" + ",".join(["8"] * 45) + "]"
    done = command("-m", *words, layers, "optim.lr=0.1,0.2", "hydra.launcher.workers=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head = next(row for row in rows(done.stdout) if row[0] == "hidden")
    assert head == ["hidden", "lr", "val/accuracy (best)", "status", "seconds", "trial"]
    written = (tmp_path / "outputs" / "notebook.md").read_text()
    [shared] = [line for line in written.splitlines() if line.startswith("- the same in all: ")]
    assert shared == "- the same in all: " + ", ".join(words[:-1])
    [head] = [line for line in written.splitlines() if line.startswith("| date")]
    assert head.split(" | ")[2:4] == ["model.hidden", "optim.lr"]
    found = [line.split(" | ")[2:4] for line in written.splitlines() if line.startswith("| 20")]
    assert sorted((len(hidden), rate) for hidden, rate in found) == [(3, "0.1"), (3, "0.2"), (91, "0.1"), (91, "0.2")]
