"""Run folders: one per run, one process per folder, a result in strict JSON, and no path that leads out."""

import json
import math
import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
from faults import run_in_child, start_child, wait_for_child

from runner.engine.saving import storage
from runner.engine.saving.folder import RESULT, Result, create, read_result, within, write_result
from runner.engine.saving.locking import lock
from runner.errors import CheckpointError, ConfigError, Locked, StorageError

DONE = Result(
    status="done",
    exit=0,
    steps=100,
    epochs=2.5,
    seconds=1.25,
    scores={
        "val": {
            "best": {"accuracy": 0.9, "loss": 0.1, "step": 80},
            "last": {"accuracy": 0.8, "loss": 0.2, "step": 100},
        },
        "test": {"accuracy": 0.85, "loss": 0.15},
    },
    weights="checkpoints/00000080.weights.safetensors",
    test_reads=1,
)


# Making folders


def test_a_folder_is_made_with_its_parents(tmp_path):
    assert create(tmp_path / "a" / "b" / "run") == tmp_path / "a" / "b" / "run"
    assert (tmp_path / "a" / "b" / "run").is_dir()


def test_a_taken_name_gets_a_number(tmp_path):
    (tmp_path / "run-3").write_text("a file")
    (tmp_path / "run-4").symlink_to("nowhere")
    made = [create(tmp_path / "run").name for _ in range(4)]
    assert made == ["run", "run-2", "run-5", "run-6"]


def test_ten_processes_at_the_same_instant_get_ten_folders(tmp_path):
    gate, opener = os.pipe()

    def body():
        os.close(opener)
        os.read(gate, 1)  # returns when the parent closes its end, in all children at once
        (create(tmp_path / "run") / "mine").touch(exist_ok=False)

    pids = [start_child(body) for _ in range(10)]
    os.close(opener)
    assert [wait_for_child(pid) for pid in pids] == [0] * 10
    os.close(gate)
    assert sorted(storage.names(tmp_path)) == sorted(["run", *(f"run-{n}" for n in range(2, 11))])


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Not a directory|File exists"):
        create(tmp_path / "file" / "run")


# Locking


def test_a_second_process_is_told_who_holds_the_folder(tmp_path):
    def body():
        with pytest.raises(Locked) as caught:
            lock(tmp_path)
        assert str(caught.value) == f"{tmp_path}: locked by pid {os.getppid()} on {socket.gethostname()}"
        assert caught.value.exit_code == 6

    (tmp_path / ".lock").write_text("1234567890 a-longer-name-than-ours.of.an.earlier.host\n")
    with lock(tmp_path):
        assert run_in_child(body) == 0
    lock(tmp_path).release()


def test_the_same_process_cannot_lock_twice(tmp_path):
    held = lock(tmp_path)
    with pytest.raises(Locked):
        lock(tmp_path)
    held.release()
    held.release()
    with lock(tmp_path), pytest.raises(Locked):
        lock(tmp_path)


def test_a_killed_process_leaves_no_lock(tmp_path):
    def body():
        lock(tmp_path)
        (tmp_path / "ready").touch()
        time.sleep(60)

    pid = start_child(body)
    while not (tmp_path / "ready").exists():
        time.sleep(0.005)
    with pytest.raises(Locked, match=f"pid {pid} on "):
        lock(tmp_path)
    os.kill(pid, signal.SIGKILL)
    wait_for_child(pid)
    lock(tmp_path).release()


def test_a_lock_file_with_strange_words_is_not_repeated(tmp_path):
    held = lock(tmp_path)
    (tmp_path / ".lock").write_bytes(b"\x1b[31m1 host\nx")
    with pytest.raises(Locked) as caught:
        lock(tmp_path)
    assert str(caught.value) == f"{tmp_path}: locked by pid {os.getpid()} on {socket.gethostname()}"
    held.release()


def test_a_lock_that_is_no_file_or_has_no_folder_is_refused(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        lock(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(StorageError, match="No such file or directory"):
        lock(tmp_path / "missing")


# Results


def test_a_result_is_what_was_promised(tmp_path):
    write_result(tmp_path, DONE)
    assert json.loads((tmp_path / RESULT).read_bytes()) == {
        "schema": 2,
        "status": "done",
        "exit": 0,
        "reason": None,
        "steps": 100,
        "epochs": 2.5,
        "seconds": 1.25,
        "scores": DONE.scores,
        "weights": "checkpoints/00000080.weights.safetensors",
        "test_reads": 1,
    }
    assert read_result(tmp_path) == DONE


def test_a_new_result_is_running(tmp_path):
    write_result(tmp_path, Result())
    assert read_result(tmp_path) == Result(status="running", exit=None, steps=0, scores={}, weights=None, test_reads=0)


def test_numbers_that_are_not_finite_become_null(tmp_path):
    scores = {"val": {"last": {"accuracy": 0.1, "loss": math.nan, "step": 5}}, "train": {"loss": -math.inf}}
    write_result(tmp_path, replace(DONE, status="diverged", exit=5, reason="the loss is nan", scores=scores))
    text = (tmp_path / RESULT).read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert read_result(tmp_path).scores == {
        "val": {"last": {"accuracy": 0.1, "loss": None, "step": 5}},
        "train": {"loss": None},
    }


@pytest.mark.parametrize(
    "wrong",
    [{"status": "finished"}, {"status": "done\n"}, {"steps": -1}, {"steps": 1.5}, {"exit": "0"}, {"seconds": math.nan}],
    ids=str,
)
def test_a_wrong_result_is_our_bug_and_leaves_the_old_one(tmp_path, wrong):
    write_result(tmp_path, DONE)
    with pytest.raises(ValueError, match=f"^result: {next(iter(wrong))}: got"):
        write_result(tmp_path, replace(DONE, **wrong))
    assert read_result(tmp_path) == DONE


OLD_SCORES = {"val": {"best": {"accuracy": 0.5, "loss": 1.0}}, "train": {"best": {"accuracy": 0.75, "loss": 0.5}}}


def test_a_result_of_schema_1_is_read_with_the_present_names_and_written_back_as_it_was(tmp_path):
    content = edited(schema=1, scores=OLD_SCORES)
    (tmp_path / RESULT).write_bytes(content)
    found = read_result(tmp_path)
    assert found.schema == 1 and found.scores == {"val": OLD_SCORES["val"], "train_eval": OLD_SCORES["train"]}
    write_result(tmp_path, replace(found, test_reads=2))
    assert json.loads((tmp_path / RESULT).read_bytes()) == json.loads(content) | {"test_reads": 2}


def edited(**changes):
    return json.dumps({**json.loads(DONE.to_json()), **changes}).encode()


STRANGE = {
    "empty": b"",
    "list": b"[]",
    "nested": b"[" * 100_000,
    "binary": b"\x89PNG\r\n",
    "cut": DONE.to_json()[:-10],
    "big": b" " * (1 << 20) + b"{}",
    "later schema": edited(schema=3),
    "schema of truth": edited(schema=True),
    "more fields": edited(extra=1),
    "status": edited(status="\x1b[31mdone"),
    "weights outside": edited(weights="../other/checkpoints/00000080.weights.safetensors"),
    "weights absolute": edited(weights="/etc/passwd"),
    "weights of a number": edited(weights=1),
    "scores of a list": edited(scores=[1]),
    "scores of text": edited(scores={"val": {"best": "high"}}),
    "scores of truth": edited(scores={"val": {"accuracy": True}}),
    "steps": edited(steps=True),
}


@pytest.mark.parametrize("data", STRANGE.values(), ids=STRANGE)
def test_a_strange_result_is_refused_in_one_line(tmp_path, data):
    (tmp_path / RESULT).write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_result(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/result.json: ") and str(caught.value).isprintable()


def test_a_missing_result_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"result.json: No such file or directory"):
        read_result(tmp_path)


# Paths


@pytest.mark.parametrize("name", ["run", "a/b/c", "lr=0.1,wd=5e-4", "x" * 120, "a+b_c-d.e"])
def test_plain_names_lie_within(tmp_path, name):
    assert within(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../b",
        "/etc",
        "a//b",
        "a/",
        ".hidden",
        "a\0b",
        "a\n",
        "a b",
        "x" * 121,
        "é",
        "a\\b",
        "~",
    ],
)
def test_other_names_do_not(tmp_path, name):
    with pytest.raises(ConfigError, match=r"^name: got "):
        within(tmp_path, name)


def test_a_link_that_leads_out_is_refused(tmp_path):
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (root / "to_inside").symlink_to(root / "inside")
    (root / "out").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    assert within(root, "to_inside/x") == root / "to_inside" / "x"
    for name in ("out", "out/x", "loop", "loop/x"):
        with pytest.raises(ConfigError, match="a symbolic link leads out"):
            within(root, name)


def test_a_root_that_is_a_link_is_as_good_as_its_target(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "outputs").symlink_to(tmp_path / "disk")
    assert within(tmp_path / "outputs", "run") == tmp_path / "outputs" / "run"


def test_no_descriptor_stays_open(tmp_path):
    def count():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    for _ in range(3):
        with lock(tmp_path), pytest.raises(Locked):
            lock(tmp_path)
    write_result(tmp_path, DONE)
    read_result(tmp_path)
    assert count() == before
