"""What a terminal shows of a running sweep: the scores, at every width."""

import io
import re

import pytest

from runner.engine.saving.folder import Result
from runner.status import Status
from runner.sweeps.display import make_display
from runner.sweeps.outcome import Ended
from runner.tasks.job import Job

LONG = "optim.lr=0.001,model.hidden=[512,512],data.batch_size=128,optim.weight_decay=0.0005,seed=3"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def ended(folder, status: str = "done", score: float = 0.9712, name: str = LONG) -> Ended:
    job = Job(config={"monitor": "val/accuracy"}, overrides=(), folder_name=f"{name}-1a2b3c4d", folder=str(folder))
    scores = {"val": {"best": {"accuracy": score}}}
    return Ended(number=0, job=job, result=Result(status=Status(status), scores=scores), ran=True, seconds=1.0)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_live_table_shows_scores_and_states_at_every_width(tmp_path, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "30")
    running = ended(tmp_path).job
    (tmp_path / "trial.log").write_text("epoch 12/40  step 228/760  loss 0.4321  val accuracy 0.8765  left 10:03\n")
    terminal = Terminal()
    display = make_display(3, terminal)
    display.trial_ended(ended(tmp_path))
    display.trial_ended(ended(tmp_path, "interrupted", 0.1234))
    display.refresh([running], 0, loaded=True)
    display.close()
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in terminal.getvalue().splitlines()]
    rows = {line for line in lines if re.search("0.9712|0.1234|0.8765", line)}  # drawn twice
    assert [re.search(r"0\.\d{4} +(done|interrupted|running)", row) is not None for row in rows] == [True] * 3
    # Both ends of the name, where trials differ
    assert all(row.lstrip().startswith("optim.") and re.search("seed=3 +", row) for row in rows)
    assert all(len(line) <= width for line in lines)
