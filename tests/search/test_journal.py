"""The journal: an incomplete record is ignored and replaced, processes can share the file, damage is reported."""

import os
from pathlib import Path

import pytest
from running import run_in_child

from runner.errors import CheckpointError, ConfigError
from runner.search.storage import Journal, open_storage


def study(path: Path):
    import optuna

    return optuna.create_study(study_name="s", storage=open_storage(str(path), Path()), load_if_exists=True)


def filled(path: Path, trials: int) -> None:
    ours = study(path)
    for number in range(trials):
        trial = ours.ask()
        trial.suggest_float("x", 0, 1)
        ours.tell(trial, number)


def test_a_journal_cut_at_every_byte_of_its_last_record_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda file: None)  # it takes long, and no machine dies here
    filled(tmp_path / "whole", 3)
    data = (tmp_path / "whole").read_bytes()
    last = data.rstrip(b"\n").rfind(b"\n") + 1
    assert len(data) - last > 80
    for size in range(last, len(data) + 1):
        path = tmp_path / "cut"
        path.write_bytes(data[:size])
        again = study(path)
        done = [each.value for each in again.get_trials() if each.value is not None]
        assert done == ([0, 1, 2] if size == len(data) else [0, 1]), size
        again.tell(again.ask(), 7.0)
        assert study(path).get_trials()[-1].value == 7.0, size
        path.unlink()


@pytest.mark.parametrize("rest", [b"\0" * 4096, b"999999999999 00000000 {", b"\n", b"12 zz", os.urandom(300)])
def test_whatever_a_power_failure_leaves_at_the_end_is_passed_over(tmp_path, rest):
    filled(tmp_path / "j", 2)
    with (tmp_path / "j").open("ab") as file:
        file.write(rest)
    filled(tmp_path / "j", 1)
    assert [each.value for each in study(tmp_path / "j").get_trials()] == [0, 1, 0]


def test_damage_before_the_last_record_is_told_of(tmp_path):
    filled(tmp_path / "j", 2)
    data = bytearray((tmp_path / "j").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "j").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged at byte"):
        list(Journal(tmp_path / "j").read_logs(0))
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.storage: .*damaged"):
        open_storage(str(tmp_path / "j"), Path())


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    def work():
        for number in range(40):
            Journal(tmp_path / "j").append_logs([{"pid": os.getpid(), "number": number}])

    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                work()
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    found = list(Journal(tmp_path / "j").read_logs(0))
    assert len(found) == 120
    for pid in {each["pid"] for each in found}:
        assert [each["number"] for each in found if each["pid"] == pid] == list(range(40))


def test_a_reader_sees_what_another_process_appends(tmp_path):
    ours = Journal(tmp_path / "j")
    ours.append_logs([{"n": 0}, {"n": 1}])
    assert [each["n"] for each in ours.read_logs(0)] == [0, 1]
    run_in_child(lambda: Journal(tmp_path / "j").append_logs([{"n": 2}]))
    assert [each["n"] for each in ours.read_logs(2)] == [2]
    assert [each["n"] for each in ours.read_logs(1)] == [1, 2]


@pytest.mark.parametrize("url", ["/no/such/folder/j", "mongo://host/x", "sqlite:////no/such/folder/x.db"])
def test_a_storage_that_cannot_be_opened_is_one_line(url):
    with pytest.raises(ConfigError, match=r"^hydra\.sweeper\.storage: ") as caught:
        open_storage(url, Path())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_journal_is_told_of(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append_logs([{"something": "else"}])
    with pytest.raises(ConfigError, match="is not a journal of Optuna"):
        open_storage(str(tmp_path / "j"), Path())
