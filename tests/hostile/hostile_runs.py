"""Run folders that were altered on purpose: consistent, but not trustworthy."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

Alter = Callable[[Path], object]


class Canary:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def canary(folder: Path) -> Path:
    """Return the folder that must never come to be."""
    return folder.parent.parent / "canary"


def pickled(folder: Path) -> bytes:
    """Return a plain pickle that makes the canary."""
    return pickle.dumps(Canary(canary(folder)))


def saved(folder: Path) -> bytes:
    """Return a file of torch.save that makes the canary."""
    torch.save({"model": Canary(canary(folder))}, buffer := io.BytesIO())
    return buffer.getvalue()


def zipped(folder: Path) -> bytes:
    """Return an archive whose members climb out of where it is unpacked."""
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        for name in ("../../canary/x", "/tmp/canary", "archive/data.pkl"):
            archive.writestr(name, pickled(folder))
    return buffer.getvalue()


# --- checkpoints


def files(folder: Path, ending: str) -> list[Path]:
    """Return the files of all checkpoints of a run with an ending."""
    return sorted((folder / "checkpoints").glob(f"*{ending}"))


def sealed(record: dict[str, Any]) -> bytes:
    """Return a manifest with its right checksum."""
    body = json.dumps(record, separators=(",", ":")).encode()[:-1]
    return body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def each_manifest(edit: Callable[[dict[str, Any]], object]) -> Alter:
    """Return what edits every manifest of a run and seals it again."""

    def alter(folder: Path) -> None:
        for path in files(folder, ".json"):
            record = json.loads(path.read_bytes())
            del record["sha256"]
            edit(record)
            path.write_bytes(sealed(record))

    return alter


def in_place_of(ending: str, make: Callable[[Path], bytes]) -> Alter:
    """Return what puts bytes in the place of all files with an ending, listed with their right size and checksum."""

    def alter(folder: Path) -> None:
        data = make(folder)
        for path in files(folder, ending):
            path.write_bytes(data)
        if ending == ".json":
            return

        def relist(record: dict[str, Any]) -> None:
            for file in record["files"]:
                if file["name"].endswith(ending):
                    file.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())

        each_manifest(relist)(folder)

    return alter


def as_link(ending: str) -> Alter:
    """Return what makes links to files elsewhere of all files with an ending."""

    def alter(folder: Path) -> None:
        for path in files(folder, ending):
            away = folder.parent.parent / f"away-{path.name}"
            path.rename(away)
            path.symlink_to(away)

    return alter


def state(key: str, value: Any) -> Alter:
    """Return what sets one entry of the learner's state in every manifest."""

    def edit(record: dict[str, Any]) -> None:
        outer = record["state"]["value"]["dict"]
        learner = next(item for name, item in outer if name == "learner")
        learner["dict"] = [[name, value if name == key else item] for name, item in learner["dict"]]
        if key not in [name for name, _ in learner["dict"]]:
            learner["dict"].append([key, value])

    return each_manifest(edit)


def without_learner(record: dict[str, Any]) -> None:
    """Take the learner out of the state."""
    record["state"]["value"]["dict"] = []


def swapped_momentum(record: dict[str, Any]) -> None:
    """Give the first weight the momentum of the second, which is smaller: a fused step would read past its end."""
    text = json.dumps(record["state"]["value"])
    assert "/optimizer/state/0/" in text
    record["state"]["value"] = json.loads(text.replace("/optimizer/state/0/", "/optimizer/state/1/"))


def tensors(header: Any, data: bytes = b"") -> Callable[[Path], bytes]:
    """Return what gives the bytes of a safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return lambda folder: len(text).to_bytes(8, "little") + text + data


def entry(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict[str, Any]:
    """Return a tensor's entry in the header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


HEADERS: dict[str, Callable[[Path], bytes]] = {
    "huge header length": lambda folder: (2**63).to_bytes(8, "little") + b"{}",
    "header past the file": lambda folder: (10**6).to_bytes(8, "little") + b"{}",
    "negative shape": tensors({"a": entry([-1], 0, 4)}, bytes(4)),
    "huge shape": tensors({"a": entry([2**40, 2**40], 0, 4)}, bytes(4)),
    "empty and huge": tensors({"a": entry([0, 2**63 - 1, 2**63 - 1], 0, 0)}),
    "overlapping offsets": tensors({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "duplicate names": tensors(b'{"a":%s,"a":%s}' % ((json.dumps(entry([1], 0, 4)).encode(),) * 2), bytes(4)),
    "nested header": tensors(b"[" * 100_000),
    "metadata that calls": tensors({"__metadata__": {"_target_": "os.system", "format": "pickle"}}),
    "name with path parts": tensors({"../../canary": entry([1], 0, 4)}, bytes(4)),
    "name with markup": tensors({"\x1b[31m<script>": entry([1], 0, 4)}, bytes(4)),
}


# --- the other files of a run


def config(**changes: Any) -> Alter:
    """Return what sets keys (a__b for a.b) of the saved config."""

    def alter(folder: Path) -> None:
        path = folder / "config.yaml"
        values = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            *above, last = key.split("__")
            place = values
            for name in above:
                place = place[name]
            place[last] = value
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    return alter


def text(name: str, content: str | bytes) -> Alter:
    """Return what puts a text in the place of a file."""
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def result(**changes: Any) -> Alter:
    """Return what sets fields of the result."""

    def alter(folder: Path) -> None:
        path = folder / "result.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return alter


def linked(name: str) -> Alter:
    """Return what makes a link to a file elsewhere of a file, or of a folder."""

    def alter(folder: Path) -> None:
        away = folder.parent.parent / f"away-{name}"
        shutil.move(folder / name, away)
        (folder / name).symlink_to(away)

    return alter


def pipe(name: str) -> Alter:
    """Return what puts a pipe that nobody writes to in the place of a file."""

    def alter(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return alter


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

WEIGHTS, STATE, MANIFEST = ".weights.safetensors", ".state.safetensors", ".json"
FILES = {"pickle": pickled, "torch.save": saved, "zip": zipped, **HEADERS}

# What resuming and evaluating reads
CHECKPOINTS: dict[str, Alter] = {
    **{f"{name} as weights": in_place_of(WEIGHTS, make) for name, make in FILES.items()},
    "pickle as manifest": in_place_of(MANIFEST, pickled),
    "torch.save as manifest": in_place_of(MANIFEST, saved),
    "link as weights": as_link(WEIGHTS),
    "link as manifest": as_link(MANIFEST),
    "checkpoints as a link": linked("checkpoints"),
    "file names that climb": each_manifest(lambda it: it["files"][0].update(name="../../a.weights.safetensors")),
    "logs that climb": each_manifest(lambda record: record.update(logs={"../../away": 1})),
}  # fmt: skip

# What resuming reads alone
STATES: dict[str, Alter] = {
    **{f"{name} as state": in_place_of(STATE, make) for name, make in FILES.items()},
    "link as state": as_link(STATE),
    "no learner": each_manifest(without_learner),
    "step as a word": state("step", "os.system"),
    "step of another": state("step", 10**9),
    "optimizer as a word": state("optimizer", "os.system"),
    "optimizer of nothing": state("optimizer", {"dict": []}),
    "optimizer of other groups": state("optimizer", {"dict": [["state", {"dict": []}], ["param_groups", []]]}),
    "momentum of another weight": each_manifest(swapped_momentum),
    "patience of nothing": state("patience", {"dict": []}),
    "model of another": state("model", {"dict": [["a", 1]]}),
    "state with a tag of its own": each_manifest(lambda record: record["state"].update(value={"__import__": "os"})),
}  # fmt: skip

FOLDERS: dict[str, Alter] = {
    "config as a pickle": lambda folder: (folder / "config.yaml").write_bytes(pickled(folder)),
    "config with a tag": text("config.yaml", "data: !!python/object/apply:os.mkdir [canary]\n"),
    "config as a bomb": text("config.yaml", BOMB),
    "config of 2 MB": text("config.yaml", "note: " + "x" * 2_000_000),
    "config nested deep": text("config.yaml", "note: " + "[" * 100_000),
    "config as a list": text("config.yaml", "- 1\n"),
    "config of nothing": text("config.yaml", ""),
    "config in Latin-1": text("config.yaml", b"note: \xe9\n"),
    "config as a pipe": pipe("config.yaml"),
    "config with another key": config(_target_="os.system"),
    "config with a target": config(optim__lr={"_target_": "os.system"}),
    "config with a part's name": config(model__name="os.system"),
    "config with a part that is none": config(model="os.system"),
    "config with a list for a part": config(model=["mlp"]),
    "config with a name that is none": config(model__name=["mlp"]),
    "config with no name": config(model={}),
    "config with a regularizer's name": config(regularizer={"os.system": {}}),
    "config with knobs that are none": config(regularizer={"l2": 3}),
    "config with a number beyond all": config(seed=2**70),
    "config with a seed that is none": config(seed="1; import os"),
    "config with a size beyond all": config(model__hidden=[2**62]),
    "config with many sizes": config(model__hidden=[2**40] * 3),
    "config with a task": config(task__name="evaluate"),
    "config with a task that is none": config(task="os.system"),
    "config with NUL": text("config.yaml", 'note: "a\\0b"\n'),
    "config with weights elsewhere": config(model={"name": "torchvision", "arch": "os.system",
    "weights": "/etc/passwd", "swap": None}),
    "result as a pickle": lambda folder: (folder / "result.json").write_bytes(pickled(folder)),
    "result with weights that climb": result(weights="../../away.safetensors"),
    "result with weights elsewhere": result(weights="/etc/passwd"),
    "result with weights as a list": result(weights=["a"]),
    "result with steps that are none": result(steps="os.system"),
    "result nested deep": text("result.json", "[" * 100_000),
    "result as a pipe": pipe("result.json"),
    "result as a link": linked("result.json"),
    "lock as a link": linked(".lock"),
}  # fmt: skip
