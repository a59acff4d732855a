"""The notebook: recording run by run gives the same file as a rebuild, and the user's own lines stay."""

import fcntl
import multiprocessing
import os
import re
import shutil
from dataclasses import replace

import pytest
from comparing_runs import STARTED, write_run
from running import command, job
from small_runs import command_line_words, small

from runner.engine.saving.folder import read_result, write_result
from runner.notebook import book
from runner.notebook.book import rebuild, record
from runner.tasks import start

MLP = command_line_words(small({"steps": 3}))


def text(outputs):
    return (outputs / "notebook.md").read_text()


def entries(outputs):
    return [part.strip() for part in re.split(r"^## ", text(outputs), flags=re.MULTILINE)[1:]]


def filled(outputs):
    """Write two sweeps and three runs by themselves, and return their folders in an order unlike that of beginning."""
    return [
        write_run(outputs / "b", 0.7, started=5, optim__lr=0.5, note="is a larger step better?"),
        write_run(outputs / "sweeps" / "s" / "optim.lr=0.2,seed=0-0123abcd", 0.6, started=3, epochs=3, optim__lr=0.2),
        write_run(outputs / "a", 0.5, best=0.55, test=0.52, started=1),
        write_run(
            outputs / "sweeps" / "s" / "optim.lr=0.1,seed=0-4567abcd",
            None, status="failed", reason="x|y", started=2, epochs=3, optim__lr=0.1,
        ),
        write_run(outputs / "sweeps" / "t" / "seed=0-89ababcd", 0.6, started=9),
        write_run(outputs / "c", 0.9, started=7, seed=4, model={"name": "linear"}),
    ]  # fmt: skip


def test_added_run_by_run_it_is_what_is_made_again(tmp_path):
    for folder in filled(tmp_path):
        record(folder, tmp_path)
    added = text(tmp_path)
    assert rebuild(tmp_path) == 6
    assert text(tmp_path) == added and not (tmp_path / "notebook.old.md").exists()
    (tmp_path / "notebook.md").unlink()
    rebuild(tmp_path)
    assert text(tmp_path) == added


def test_runs_stand_in_order_of_beginning_with_what_was_asked_and_what_differs(tmp_path):
    for folder in filled(tmp_path):
        record(folder, tmp_path)
    first, sweep, second, third, other = entries(tmp_path)
    day = STARTED[:10]
    assert first.strip().splitlines() == [
        f"{day} 10:00:01 [a](a)",
        "",
        "- differs: the first run here",
        "- status: done after 20 steps (2 epochs) in 1.5 s",
        "- validation: accuracy 0.5000, loss 0.5000; best: accuracy 0.5500, loss 0.5000 at step 20",
        "- test: accuracy 0.5200, loss 1.0000 (read once)",
    ]
    assert sweep.splitlines()[0] == f"{day} 10:00:02 sweep [s](sweeps/s)"
    assert "- the same in all: epochs=3" in sweep
    link = "[optim.lr=0.1,seed=0](sweeps/s/optim.lr=0.1,seed=0-4567abcd)"
    assert f"| {day} 10:00:02 | {link} | 0.1 |  |  |  | failed: x\\|y |" in sweep
    assert (
        "| date | trial | optim.lr | val accuracy | best | val loss | status |\n|---|---|---|---|---|---|---|" in sweep
    )
    assert "| 0.2 | 0.6000 | 0.6000 | 0.4000 | done |" in sweep.splitlines()[-1]
    assert "- question: is a larger step better?\n- differs from [a](a): optim.lr 0.5 (was 0.1)" in second
    assert "differs from [b](b): model linear (was resnet), optim.lr 0.1 (was 0.5), seed 4 (was 0)" in third
    assert other.startswith(f"{day} 10:00:09 sweep [t](sweeps/t)")


def table(entry):
    """Return the rows of a sweep's table as dicts."""
    lines = [line for line in entry.splitlines() if line.startswith("| ")]
    head, *rows = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_swept_keys_are_read_from_the_trials_and_not_from_names_that_are_cut(tmp_path):
    """The name of each folder ends before the seed, and one of the three is of another rate."""
    sweep = tmp_path / "sweeps" / "s"
    for number, (rate, seed) in enumerate([(0.1, 0), (0.1, 1), (0.2, 0)]):
        name = f"data.root={'x' * 80}-{number:08x}"
        write_run(sweep / name, 0.5, started=number, epochs=3, optim__lr=rate, seed=seed, note="a|b")
    record(sweep, tmp_path)
    [entry] = entries(tmp_path)
    assert "- the same in all: epochs=3\n" in entry
    assert [(row["optim.lr"], row["seed"]) for row in table(entry)] == [("0.1", "0"), ("0.1", "1"), ("0.2", "0")]
    assert list(table(entry)[0]) == ["date", "trial", "optim.lr", "seed", "val accuracy", "best", "val loss", "status"]


def test_a_trial_that_comes_later_adds_its_column_and_gone_ones_keep_their_rows(tmp_path):
    sweep = tmp_path / "sweeps" / "s"
    gone = write_run(sweep / "a-00000000", 0.5, started=1, optim__lr=0.1, seed=0)
    write_run(sweep / "b-00000000", 0.6, started=2, optim__lr=0.2, seed=0)
    record(sweep, tmp_path)
    assert "- the same in all: seed=0" in entries(tmp_path)[0] and "seed" not in table(entries(tmp_path)[0])[0]
    shutil.rmtree(gone)
    record(write_run(sweep / "c-00000000", 0.7, started=3, optim__lr=0.2, seed=1), tmp_path)
    rows = table(entries(tmp_path)[0])
    found = [(row["trial"].split("]")[0], row["optim.lr"], row["seed"], row["val accuracy"]) for row in rows]
    assert found == [("[a", "0.1", "", "0.5000"), ("[b", "", "0", "0.6000"), ("[c", "", "1", "0.7000")]


def test_a_trial_without_a_command_line_has_the_values_of_its_config(tmp_path):
    sweep = tmp_path / "sweeps" / "s"
    for number, rate in enumerate((0.1, 0.2)):
        write_run(sweep / f"{number}-00000000", 0.5, started=number, epochs=3, optim__lr=rate)
    (sweep / "1-00000000" / "overrides.yaml").unlink()
    write_run(sweep / "2-00000000", 0.5, started=2, epochs=3, optim__lr=0.3)
    record(sweep, tmp_path)
    assert "- the same in all: epochs=3\n" in entries(tmp_path)[0]
    assert [row["optim.lr"] for row in table(entries(tmp_path)[0])] == ["0.1", "0.2", "0.3"]


def test_a_run_on_other_data_differs_in_them(tmp_path):
    for number, data in enumerate(("0123456789abcdef", "0123456789abcdef", "fedcba9876543210")):
        folder = write_run(tmp_path / str(number), 0.5, started=number)
        write_result(folder, replace(read_result(folder), data=[data]))
        record(folder, tmp_path)
    _, same, other = entries(tmp_path)
    assert "differs from [0](0): in nothing" in same
    assert "differs from [1](1): data.fingerprint fedcba98 (was 01234567)" in other


def test_own_lines_stay_with_their_entry(tmp_path):
    for folder in filled(tmp_path)[:3]:
        record(folder, tmp_path)
    path = tmp_path / "notebook.md"
    path.write_text(text(tmp_path).replace("is a larger step better?", "is a larger step better?\n> no: see a\n\nlost"))
    record(write_run(tmp_path / "z", 0.7, started=6), tmp_path)
    assert "> no: see a" in entries(tmp_path)[2] and "lost" in entries(tmp_path)[2]
    before = text(tmp_path)
    rebuild(tmp_path)
    assert "> no: see a" in next(entry for entry in entries(tmp_path) if "[b](b)" in entry)
    assert "lost" not in text(tmp_path) and (tmp_path / "notebook.old.md").read_text() == before


def test_a_resumed_run_takes_its_own_place(tmp_path):
    folders = filled(tmp_path)
    for folder in [*folders, folders[1], folders[2]]:
        record(folder, tmp_path)
    assert len(entries(tmp_path)) == 5 and text(tmp_path).count("\n| 2026-") == 3


def test_a_run_elsewhere_is_not_written_down(tmp_path):
    record(write_run(tmp_path / "elsewhere", 0.5), (tmp_path / "outputs"))
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_other_tasks_are_no_runs(tmp_path):
    write_run(tmp_path / "a", 0.5, task={"name": "preview", "examples": 8, "lr_axis": "linear"})
    assert rebuild(tmp_path) == 0


def write_down(place, number):
    record(write_run(place / f"r{number:02}", number / 100, started=number), place)


def test_runs_that_end_at_once_are_all_written_down(tmp_path):
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=write_down, args=(tmp_path, number)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    added = text(tmp_path)
    assert len(entries(tmp_path)) == 8
    rebuild(tmp_path)
    assert text(tmp_path) == added


@pytest.mark.parametrize(
    "damage", ["", "no heading at all\n", "## 2026-11-21 10:00:01 [gone](gone)\n\n- status: done\n"]
)
def test_a_damaged_notebook_harms_nobody(tmp_path, damage):
    (tmp_path / "notebook.md").write_text(damage)
    record(write_run(tmp_path / "a", 0.5), tmp_path)
    assert "[a](a)" in text(tmp_path)
    assert ("[gone](gone)" in text(tmp_path)) == ("gone" in damage)


def test_a_folder_that_takes_no_notebook_is_a_warning(tmp_path, capfd):
    (tmp_path / "notebook.md").mkdir()
    record(write_run(tmp_path / "a", 0.5), tmp_path)
    warning = capfd.readouterr().err
    assert warning.startswith(f"runner: warning: {tmp_path}/notebook.md: cannot write ") and warning.count("\n") == 1


def test_a_process_that_keeps_the_lock_delays_no_run_forever(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(book, "LONGEST_WAIT", 0.1)
    folder = write_run(tmp_path / "a", 0.5)
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    record(folder, tmp_path)
    warning = capfd.readouterr().err
    assert "another process has kept the lock" in warning and warning.count("\n") == 1
    os.close(holder)
    record(folder, tmp_path)
    assert "[a](a)" in text(tmp_path)


def test_training_writes_itself_down_however_it_ends(tmp_path):
    words_ = [*MLP, f"outputs={tmp_path}"]
    assert start(job(*words_, "name=a_good", "note=does it run?")) == 0
    with pytest.raises(Exception, match="diverged"):
        start(job(*words_, "name=bad", "optim.lr=1e30", "norm=none"))
    good, bad = entries(tmp_path)
    assert "- question: does it run?" in good and "- status: done after 3 steps" in good and "- test: " in good
    assert re.search(r"- status: diverged: at step \d", bad) and "- validation:" not in bad
    assert start(job("task=evaluate", f"run={tmp_path / 'a_good'}")) == 0
    assert "(read 2 times)" in entries(tmp_path)[0]
    added = text(tmp_path)
    assert start(job("task=notebook", f"outputs={tmp_path}")) == 0
    assert text(tmp_path) == added


def test_no_outputs_is_one_line(tmp_path):
    done = command("task=notebook", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "runner: error: outputs: got 'outputs', must be a folder with runs\n")


def test_a_sweep_is_written_down_at_its_end_with_all_its_trials(tmp_path):
    words = ("-m", "model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "epochs=1", "sweep=s", "note=which?")
    done = command(*words, "seed=0,1", "average=none,schedulefree", cwd=tmp_path)
    assert done.returncode == 1  # two trials are wrong, and stand there all the same
    written = text(tmp_path / "outputs")
    assert written.count("- question: which?") == written.count("## ") == 1
    rows = [line for line in written.splitlines() if line.startswith(("| 20", "| ??"))]
    assert sorted(row.split(" | ")[-1].split(":")[0].removesuffix(" |") for row in rows) == [
        *("done", "done", "failed", "failed"),
    ]
    rebuild(tmp_path / "outputs")
    assert text(tmp_path / "outputs") == written
    assert command(*words, "task=preview", "hydra.sweep.dir=elsewhere", cwd=tmp_path).stderr == ""
