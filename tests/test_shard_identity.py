"""Runs on shards know their data: names, labels, bytes and classes count; places, times and training knobs do not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_runs import config as full_config
from tar_shards import png, write_shards, write_tar

from runner.assemble.load_data import fingerprint_before_reading, load
from runner.engine import file_digests
from runner.engine.fingerprint import Fingerprint, differences
from runner.identity import data_state


def config(name: str, root: Path | str, **changes: Any) -> dict[str, Any]:
    values = {"size": [8, 8], "workers": 0, "cache": None, **changes}
    return full_config(
        {"data": name, "data.root": str(root), **{f"data.{key}": value for key, value in values.items()}}
    )


def found(root: Path | str, name: str = "webdataset", **changes: Any) -> Fingerprint:
    return load(config(name, root, **changes)).fingerprint


def write_columns(folder: Path, last: int = 0) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir(exist_ok=True)
    for number in range(2):
        images = [png(i % 2, i + 20 * number) for i in range(20)]
        table = pyarrow.table({"image": images, "label": [*(i % 2 for i in range(19)), last]})
        parquet.write_table(table, folder / f"{number}.parquet")
    return folder


MAKERS = {"webdataset": write_shards, "arrow": write_columns}


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_shards_elsewhere_are_the_same_data(tmp_path: Path, name: str) -> None:
    root = MAKERS[name](tmp_path / "a")
    before = found(root, name)
    assert before.parts["train"].counts is not None and set(before.parts) == {"train", "val", "test"}
    copy = shutil.copytree(root, tmp_path / "far" / "away", copy_function=shutil.copyfile)
    for path in copy.iterdir():
        os.utime(path, (1e9, 1e9))
    assert found(copy, name) == before
    suffix = next(copy.iterdir()).suffix
    assert found(f"{copy}/*{suffix}", name) == before
    assert found(root, name, batch_size=3, crop="resized", order="shards", limit=10).id != ""
    assert found(root, name, batch_size=3, crop="resized", order="shards").id == before.id


def flipped(path: Path) -> None:
    """Change a byte in the pixels of the last image of a tar file."""
    data = bytearray(path.read_bytes())
    place = data.rindex(b"IDAT") + 20
    data[place] ^= 1
    path.write_bytes(data)


def relabeled(path: Path) -> None:
    data = path.read_bytes()
    write_tar(
        path, [(f"{i:04}.{end}", text) for i in range(9) for end, text in (("png", png(i % 3, i)), ("cls", b"1"))]
    )
    assert path.read_bytes() != data


CHANGES = {
    "a byte of an image": lambda root: flipped(root / "003.tar"),
    "labels": lambda root: relabeled(root / "000.tar"),
    "a shard less": lambda root: (root / "003.tar").unlink(),
    "a shard more": lambda root: shutil.copyfile(root / "003.tar", root / "004.tar"),
}


@pytest.mark.parametrize("how", CHANGES)
def test_each_change_of_a_shard_is_another_data_set(tmp_path: Path, how: str) -> None:
    root = write_shards(tmp_path)
    before = found(root, bad_images="skip")
    CHANGES[how](root)
    now = found(root, bad_images="skip")
    assert now.id != before.id and differences(before, now)


def test_a_changed_label_in_a_column_is_another_data_set(tmp_path: Path) -> None:
    before = found(write_columns(tmp_path / "a"), "arrow")
    assert found(write_columns(tmp_path / "a", last=1), "arrow").id != before.id


@pytest.mark.parametrize("pattern", ["", "*.tar", "{000..003}.tar", "00[0-3].tar"])
def test_the_state_of_the_files_behind_a_pattern_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.setattr(file_digests, "_TICK", -(10**18))
    root = write_shards(tmp_path / "x") / pattern
    made = config("webdataset", root)
    before = data_state(made)
    assert before is not None and before == data_state(made)
    assert load(made).fingerprint == fingerprint_before_reading(made)
    flipped(tmp_path / "x" / "003.tar")
    after = data_state(made)
    assert after is not None and after.key != before.key
