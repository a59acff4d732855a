"""What a terminal shows of a running sweep: the scores, at every width."""

import io
import re

import pytest

from runner.engine.saving.folder import Result
from runner.status import Status
from runner.sweeps.display import make_display
from runner.sweeps.outcome import Ended
from runner.tasks.job import Job

VALUES = {
    "optim.lr": "0.001",
    "model.hidden": "[512,512]",
    "data.batch_size": "128",
    "optim.weight_decay": "0.0005",
    "optim.momentum": "0.95",
    "seed": "3",
}
# As the folder of a trial is named
LONG = "lr=0.001-hidden=512+512-batch_size=128-weight_decay=0.0005-momentum=0.95-seed=3"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def ended(folder, status: str = "done", score: float = 0.9712, name: str = LONG) -> Ended:
    job = Job(
        config={"monitor": "val/accuracy"},
        overrides=tuple("=".join(pair) for pair in VALUES.items()),
        folder_name=f"{name}-1a2b3c4d",
        folder=str(folder),
    )
    scores = {"val": {"best": {"accuracy": score}}}
    return Ended(number=0, job=job, result=Result(status=Status(status), scores=scores), ran=True, seconds=1.0)


@pytest.mark.parametrize("swept", [(), tuple(VALUES)], ids=["names", "keys"])
@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_live_table_shows_trials_scores_and_states_at_every_width(tmp_path, monkeypatch, width, swept):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "30")
    running = ended(tmp_path).job
    (tmp_path / "trial.log").write_text("epoch 12/40  step 228/760  loss 0.4321  val accuracy 0.8765  left 10:03\n")
    terminal = Terminal()
    display = make_display(3, terminal, swept=swept)
    display.trial_ended(ended(tmp_path))
    display.trial_ended(ended(tmp_path, "interrupted", 0.1234))
    display.refresh([running], 0, loaded=True)
    display.close()
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in terminal.getvalue().splitlines()]
    lines = lines[: len(lines) // 2]  # drawn twice
    rows = {line for line in lines if re.search("0.9712|0.1234|0.8765", line)}
    assert [re.search(r"0\.\d{4} +(done|interrupted|running)", row) is not None for row in rows] == [True] * 3
    assert all(len(line) <= width for line in lines) and not any("…" in line for line in lines)
    if swept and width >= 80:
        # At 80 columns the list is folded
        expected = ["0.001", "[512," if width == 80 else "[512,512]", "128", "0.0005", "0.95", "3"]
        assert all(row.split()[: len(VALUES)] == expected for row in rows)
        return
    # The whole name, folded after its hyphens, or the column of all swept keys, folded after its commas
    names = "".join(re.split(r" {2,}", line.strip())[0] for line in lines)
    keys = "lr=0.001,hidden=[512,512],batch_size=128,weight_decay=0.0005,momentum=0.95,seed=3"
    assert names.count(keys if swept else LONG) == 3


def test_a_live_table_with_folded_names_fits_the_height(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")
    terminal = Terminal()
    display = make_display(40, terminal)
    for number in range(30):
        display.trial_ended(ended(tmp_path, score=number / 100))
    display.refresh([ended(tmp_path).job] * 2, 8, loaded=True)
    display.close()
    frame = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).partition("of 40")[2].partition("of 40")[0]
    # Rich shows an ellipsis where a table is too high
    assert frame.count("\n") < 20 and "..." not in frame
    # The last trials, with those that run
    assert frame.count("  running ") == 2 and "0.2900" in frame and "0.0000" not in frame
