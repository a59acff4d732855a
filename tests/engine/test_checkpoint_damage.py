"""Damaged and hostile checkpoints are detected before they are used, and the older one is loaded with a note."""

import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from faults import file_contents
from saving import SLOTS, is_checkpoint_of, load_older, refused, save_step

from runner.engine.saving import storage
from runner.engine.saving.checkpoint import load, read_weights
from runner.errors import CheckpointError, StorageError


@pytest.fixture
def run(tmp_path):
    """A run folder with the checkpoints of steps 10 and 20."""
    save_step(tmp_path, 10)
    save_step(tmp_path, 20)
    return tmp_path


@pytest.fixture
def alarm():
    signal.alarm(10)  # a hang is a failure
    yield
    signal.alarm(0)


# Damage


def test_every_flipped_bit_is_seen(run):
    place = run / "checkpoints"
    sizes = {name: (place / name).stat().st_size for name in SLOTS}
    draw = random.Random(0)
    for _ in range(300):
        name = draw.choice(SLOTS)
        data = (place / name).read_bytes()
        bit = draw.randrange(8 * sizes[name])
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        (place / name).write_bytes(flipped)
        load_older(run)
        (place / name).write_bytes(data)
    assert is_checkpoint_of(load(run), 20)


def test_every_truncation_is_seen(run):
    place = run / "checkpoints"
    draw = random.Random(0)
    for name in SLOTS:
        data = (place / name).read_bytes()
        for size in [0, 1, 8, len(data) - 1, *(draw.randrange(len(data)) for _ in range(14))]:
            (place / name).write_bytes(data[:size])
            load_older(run)
        (place / name).write_bytes(data + b"\0")
        load_older(run)
        (place / name).write_bytes(data)
    assert is_checkpoint_of(load(run), 20)


class Canary:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def foreign(path):
    """Put something in a file's place."""
    link = path.with_name("elsewhere")
    yield "PNG", lambda: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100))
    yield "JSON", lambda: path.write_bytes(b'{"format": 1}')
    yield "list", lambda: path.write_bytes(b"[" * 100_000)
    yield "pickle", lambda: path.write_bytes(pickle.dumps(Canary(path.parent / "canary")))
    yield "torch pickle", lambda: torch.save({"w": torch.zeros(3)}, path)
    yield "nothing", lambda: None
    yield "link", lambda: path.symlink_to(link)
    yield "link to itself", lambda: path.symlink_to(path)
    yield "folder", lambda: path.mkdir()
    yield "pipe", lambda: os.mkfifo(path)
    yield "other step", lambda: shutil.copy(str(path).replace("00000020", "00000010"), path)


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("what", [name for name, _ in foreign(Path("x"))])
def test_what_is_no_checkpoint_is_passed_over(run, slot, what, alarm):
    path = run / "checkpoints" / slot
    shutil.copy(path, path.with_name("elsewhere"))
    path.unlink()
    dict(foreign(path))[what]()
    if slot.endswith(".json") and what == "nothing":  # as if killed before the commit
        assert is_checkpoint_of(load(run), 10)
    else:
        load_older(run)
    assert not (path.parent / "canary").exists()


def test_the_newest_of_several_valid_ones_is_taken_and_each_damaged_one_named(tmp_path):
    for step in (10, 20, 30, 40):
        save_step(tmp_path, step, newest=9)
    for step in (30, 40):
        (tmp_path / "checkpoints" / f"{step:08d}.state.safetensors").unlink()
    snapshot = load(tmp_path)
    assert is_checkpoint_of(snapshot, 20)
    assert [note.split("/")[-1][:8] for note in snapshot.notes] == ["00000040", "00000030"]


def test_none_valid_is_an_error_and_none_at_all_is_none(run, tmp_path_factory):
    assert load(tmp_path_factory.mktemp("empty")) is None
    for path in (run / "checkpoints").glob("*.state.safetensors"):
        path.write_bytes(b"")
    assert "no valid checkpoint among 2" in refused(load, run)
    for path in (run / "checkpoints").glob("*.json"):
        path.unlink()
    assert load(run) is None


def test_a_step_that_is_asked_for_is_given_or_refused(run):
    assert refused(load, run, step=15) == f"{run}/checkpoints: no checkpoint of step 15 (available: [10, 20])"
    (run / "checkpoints" / SLOTS[0]).write_bytes(b"")
    refused(load, run, step=20)
    assert is_checkpoint_of(load(run, step=10), 10)


def test_the_folder_of_checkpoints_must_be_one(run):
    (run / "checkpoints").rename(run / "elsewhere")
    (run / "checkpoints").symlink_to(run / "elsewhere")
    assert refused(load, run) == f"{run}/checkpoints: is not a folder"
    with pytest.raises((StorageError, FileExistsError)):
        save_step(run, 30)
    (run / "checkpoints").unlink()
    (run / "checkpoints").write_bytes(b"")
    refused(load, run)


def test_loading_writes_nothing(run):
    (run / "checkpoints" / ".tmp-1-1").write_bytes(b"half")
    (run / "checkpoints" / "00000030.weights.safetensors").write_bytes(b"half")
    (run / "checkpoints" / SLOTS[0]).write_bytes(b"")
    before = file_contents(run)
    load(run)
    assert file_contents(run) == before


# Hostility: everything fits together, checksums included, and still it must not be believed


def reseal(run, edit, name="00000020.json"):
    """Change a manifest and give it the right checksum again."""
    path = run / "checkpoints" / name
    record = json.loads(path.read_bytes())
    del record["sha256"]
    record = edit(record) or record
    body = json.dumps(record, separators=(",", ":")).encode()[:-1]
    path.write_bytes(body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n')


def file_entry(**changes):
    return lambda record: record["files"][1].update(changes)


def field(**changes):
    return lambda record: record.update(changes)


HOSTILE = {
    **{
        f"file name {name!r}": file_entry(name=name)
        for name in (
            *("../00000020.state.safetensors", "/etc/passwd", "00000010.state.safetensors", "00000020.pt", ""),
            *("00000020.state.safetensors\0", "00000020.weights.safetensors", "x/00000020.state.safetensors", None, 7),
            *("00000020.state.safetensors\n", "٠٠٠٠٠٠٢٠.state.safetensors", ["a"], {}, "00000020.9.state.safetensors"),
        )
    },
    **{f"file size {size!r}": file_entry(size=size) for size in (-1, True, 1.5, "1", None, 10**30, 0)},
    **{f"sha256 {sha!r}": file_entry(sha256=sha) for sha in ("", None, "0" * 64, "Z" * 64, 5)},
    "an extra word in a file": file_entry(path="x"),
    "a file too many": lambda record: record["files"].append(record["files"][0]),
    "a file too few": lambda record: record["files"].pop(),
    "files that are none": field(files=["a", "b"]),
    **{f"files {value!r}": field(files=value) for value in ({}, None, [], [1, 2], "ab")},
    **{f"step {value!r}": field(step=value) for value in (10, "20", 20.0, None, True, -20, 10**40)},
    **{f"format {value!r}": field(format=value) for value in (0, -1, "1", None, True, 1.0, [1])},
    **{
        f"logs {value!r}": field(logs=value)
        for value in (None, [], "x", {"../x": 1}, {"a/b": 1}, {"": 1}, {".lock": 1})
    },
    **{f"log size {value!r}": field(logs={"metrics.jsonl": value}) for value in (-1, None, 1.5, "1", True)},
    **{f"meta {value!r}": field(meta=value) for value in (None, [], 1, "x")},
    **{f"state {value!r}": field(state=value) for value in (None, [], {}, {"value": 1}, {"value": 3, "strides": {}})},
    "state with tags of its own": field(state={"value": {"__import__": "os"}, "strides": {}}),
    "state of a missing tensor": field(state={"value": {"dict": [["a", {"tensor": "x"}]]}, "strides": {}}),
}


@pytest.mark.parametrize("edit", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_manifest_is_passed_over(run, edit):
    reseal(run, edit)
    load_older(run)


def test_resealing_alone_changes_nothing(run):
    reseal(run, lambda record: record)
    assert is_checkpoint_of(load(run), 20)


def test_a_manifest_of_nested_lists_is_passed_over(run):
    body = b'{"format":1,"meta":' + b"[" * 200_000 + b"]" * 200_000
    seal = b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    (run / "checkpoints" / "00000020.json").write_bytes(body + seal)
    load_older(run)


def test_a_huge_manifest_is_not_read(run):
    os.truncate(run / "checkpoints" / "00000020.json", 1 << 40)
    began = time.monotonic()
    assert "at most" in load_older(run)
    assert time.monotonic() - began < 1


def tensors(header, data=b""):
    """The bytes of a safetensors file with any header."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + data


def entry(shape, start, stop, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


HOSTILE_TENSORS = {
    "empty": b"",
    "huge header length": (2**63).to_bytes(8, "little") + b"{}",
    "header longer than the file": (1000).to_bytes(8, "little") + b"{}",
    "header that is no JSON": tensors(b"\x80\x04K\x01."),
    "header of nested lists": tensors(b"[" * 100_000),
    "huge shape": tensors({"a": entry([2**40, 2**40], 0, 4)}, bytes(4)),
    "shape past the data": tensors({"a": entry([2**34], 0, 2**36)}, bytes(4)),
    "negative shape": tensors({"a": entry([-1], 0, 4)}, bytes(4)),
    "empty and huge": tensors({"a": entry([0, 2**63 - 1, 2**63 - 1], 0, 0)}),
    "overlapping": tensors({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "hole": tensors({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
    "offsets backwards": tensors({"a": entry([1], 8, 4)}, bytes(8)),
    "bytes left over": tensors({"a": entry([1], 0, 4)}, bytes(5)),
    "unknown type": tensors({"a": entry([1], 0, 4, "PICKLE")}, bytes(4)),
    "type that torch lacks": tensors({"a": entry([1], 0, 1, "F8_E8M0")}, bytes(1)),
}


@pytest.mark.parametrize("data", HOSTILE_TENSORS.values(), ids=HOSTILE_TENSORS)
def test_a_hostile_tensor_file_is_passed_over(run, data):
    (run / "checkpoints" / SLOTS[1]).write_bytes(data)
    reseal(run, file_entry(size=len(data), sha256=hashlib.sha256(data).hexdigest()))
    load_older(run)
    refused(read_weights, run / "checkpoints" / SLOTS[1])


def test_a_later_format_is_refused_and_nothing_older_taken(run):
    reseal(run, field(format=2, files="of another kind"))
    assert "00000020.json: written in format 2 by a later version" in refused(load, run)


def test_what_could_not_be_loaded_is_not_committed(run):
    before = file_contents(run)
    for options in ({"logs": {"../x": 1}}, {"logs": {"a": -1}}):
        with pytest.raises(CheckpointError):
            save_step(run, 30, **options)
        assert is_checkpoint_of(load(run), 20)
    with pytest.raises(ValueError, match="JSON compliant"):
        save_step(run, 30, meta={"loss": float("nan")})
    storage.names(run)
    save_step(run, 20)
    assert len(file_contents(run)) == len(before)
