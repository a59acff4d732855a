"""Images in Parquet, Feather and Arrow files: the same as in a folder, and an error for each broken file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from small_runs import interrupted, log_probabilities, small, uninterrupted
from tar_shards import odd_images, png
from torch import Tensor

from runner.components.data.shards import arrow_images
from runner.components.data.shards.arrow_images import _groups
from runner.engine.contracts import Data, Split
from runner.errors import ConfigError, DataError
from runner.registry import build

pa = pytest.importorskip("pyarrow")
from pyarrow import feather, ipc, parquet  # noqa: E402

CONF = Path(__file__).parents[2] / "conf" / "data"
FORMATS = ("parquet", "arrow", "stream", "feather", "zstd")
NAMES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    _groups.clear()


def data(root: Path | str, name: str = "arrow", **changes: Any) -> Data:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return build("data", {**values, "root": str(root), "size": [8, 8], **changes})


def pixels(split: Split) -> Tensor:
    return split.fetch(torch.arange(len(split.labels)))


def write(table: Any, path: Path, kind: str = "parquet", group: int = 7) -> Path:
    """Write a table in groups of some rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        parquet.write_table(table, path, row_group_size=group)
    elif kind == "feather":
        feather.write_feather(table, str(path), chunksize=group)
    else:
        make = ipc.new_stream if kind == "stream" else ipc.new_file
        options = ipc.IpcWriteOptions(compression="zstd" if kind == "zstd" else None)
        with pa.OSFile(str(path), "wb") as file, make(file, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=group)
    return path


def pictures(count: int = 24, start: int = 0) -> Any:
    """Return a table as Hugging Face's `datasets` writes it, with names of classes."""
    cells = [{"bytes": png(i % 3, i), "path": f"{i}.png"} for i in range(start, start + count)]
    features = {"image": {"_type": "Image"}, "label": {"names": list(NAMES), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    labels = [i % 3 for i in range(start, start + count)]
    return pa.table({"image": cells, "id": list(range(count)), "label": labels}).replace_schema_metadata(metadata)


@pytest.fixture(scope="module", params=FORMATS)
def pair(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of images by class, and the same images in the same order in files of each split."""
    root = tmp_path_factory.mktemp("pair")
    cells: dict[str, list[tuple[bytes, str]]] = {"train": [], "val": []}
    for split, count in (("train", 14), ("val", 4)):
        for label, name in enumerate(NAMES):
            (root / "folder" / split / name).mkdir(parents=True)
            for number in range(count):
                data = png(label, number + 100 * (split == "val"), size=12)
                (root / "folder" / split / name / f"{number:02}.png").write_bytes(data)
                cells[split].append((data, name))
    for split, rows in cells.items():
        for number, start in enumerate(range(0, len(rows), 14)):
            images, labels = zip(*rows[start : start + 14], strict=True)
            suffix = "arrow" if request.param in ("stream", "zstd") else request.param
            path = root / "files" / f"{split}-{number}.{suffix}"
            write(pa.table({"picture": pa.array(images, pa.binary()), "label": list(labels)}), path, request.param, 5)
    return root / "folder", root / "files"


@pytest.mark.parametrize("memory", [0, 4096])
def test_images_and_labels_are_those_of_the_same_images_in_folders(pair, memory: int) -> None:
    folder, files = (data(root, name, memory=memory, workers=0) for name, root in zip(KINDS, pair, strict=True))
    assert files.classes == folder.classes == NAMES
    for a, b in ((folder.train, files.train), (folder.val, files.val)):
        assert torch.equal(a.labels, b.labels) and torch.equal(pixels(a), pixels(b))
    index = torch.tensor([7, 0, 41, 7])
    assert torch.equal(folder.train.fetch(index), files.train.fetch(index))


KINDS = ("imagefolder", "arrow")


def run_of(kind: str, root: Path, **more: Any) -> dict[str, Any]:
    return small({"data": kind, "data.root": str(root), "data.size": [8, 8], "data.batch_size": 8, **more})


def test_a_run_on_files_is_the_run_on_folders_bit_for_bit(pair) -> None:
    more = {"data.crop": "resized", "data.workers": 0, "steps": 8}
    (one, folder), (two, files) = (uninterrupted(run_of(*each, **more), 8) for each in zip(KINDS, pair, strict=True))
    assert len(folder.rows) > 0 and folder.rows == files.rows
    assert torch.equal(log_probabilities(one), log_probabilities(two))


@pytest.mark.slow
def test_worker_processes_read_the_same_images(tmp_path: Path) -> None:
    write(pictures(30), tmp_path / "x.parquet")
    runs = [
        uninterrupted(run_of("arrow", tmp_path, **{"data.memory": 0, "data.workers": workers, "steps": 4}), 4)[1]
        for workers in (0, 2)
    ]
    assert runs[0].rows == runs[1].rows


def test_a_run_resumes_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    write(pictures(60), tmp_path / "d" / "x.parquet")
    choices = run_of("arrow", tmp_path / "d", **{"data.order": "shards", "data.window": 2, "data.memory": 0})
    choices |= {"data.workers": 0, "steps": 12}
    (tmp_path / "run").mkdir()
    _, whole = uninterrupted(choices, 12)
    parts = interrupted(choices, 8, 12, tmp_path / "run")
    assert (whole.state, whole.rows) == (parts.state, parts.rows)


def test_classes_have_the_names_that_the_file_keeps(tmp_path: Path) -> None:
    write(pictures(), tmp_path / "x.parquet")
    found = data(tmp_path, test_fraction=0.0, classes=["cat", "ant"])
    assert found.classes == ("cat", "ant") and data(tmp_path).classes == NAMES
    bare = pictures().replace_schema_metadata({"huggingface": b"{[not JSON"})
    write(bare, tmp_path / "x.parquet")
    assert data(tmp_path).classes == ("0", "1", "2")


LABELS = {
    "text": (["b", "a"] * 12, ("a", "b")),
    "whole floats": ([0.0, 3.0] * 12, ("0", "3")),
    "categories": (["b", "a"] * 12, ("a", "b")),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_text_or_whole_numbers(tmp_path: Path, kind: str) -> None:
    values, classes = LABELS[kind]
    column = pa.array(values).dictionary_encode() if kind == "categories" else pa.array(values)
    images = pa.array([png(i % 2, i) for i in range(24)], pa.large_binary())
    for form in ("parquet", "arrow", "stream"):
        write(pa.table({"jpg": images, "target": column}), tmp_path / form / "x.arrow", form)
        assert data(tmp_path / form / "x.arrow").classes == classes


def test_a_window_of_row_groups_is_read_once_per_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_images, "_MOST_BYTES", 0)
    write(pictures(84), tmp_path / "x.parquet")
    more = {"order": "shards", "window": 2, "placement": "disk", "workers": 0, "test_fraction": 0.0}
    found = data(tmp_path, **more)
    from runner.engine.sampling import ShardShuffle

    drawn = ShardShuffle(found.order).draw(0, 0).examples
    read: list[int] = []
    real = arrow_images.ArrowFile.__subclasses__()[0].read
    monkeypatch.setattr(
        arrow_images.ArrowFile.__subclasses__()[0], "read", lambda self, *of: read.append(of[0]) or real(self, *of)
    )
    for part in drawn.split(6):
        found.train.fetch(part)
    assert sorted(read) == sorted(set(found.train.files.groups.tolist()))


def test_slow_orders_of_large_row_groups_are_named(tmp_path: Path) -> None:
    cells = [os.urandom(1 << 20) + bytes([i]) for i in range(12)]
    write(pa.table({"image": cells, "label": [i % 2 for i in range(12)]}), tmp_path / "x.parquet", group=6)
    more = {"placement": "disk", "workers": 0, "test_fraction": 0.0, "val_fraction": 0.2}
    assert any("order=global reads 6 MiB of a Parquet file" in line for line in data(tmp_path, **more).notes)
    assert not any("order=" in line for line in data(tmp_path, **more, order="shards").notes)


def changed(**columns: Any) -> Any:
    table = pictures()
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    return table


BROKEN: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "no image": (pictures().drop_columns(["image"]), r"data\.image: got null, and no column may be it.*table", {}),
    "two images": (pictures().append_column("b", pictures()["image"]), r"image and b may be it; name the column", {}),
    "no label": (pictures().drop_columns(["label"]), r"data\.label: got null, and no column may be it", {}),
    "an unknown column": (pictures(), r"data\.label: unknown column 'lable'", {"label": "lable"}),
    "a column of numbers": (
        pictures(),
        r"data\.image: column 'id' is of type int64; expected encoded",
        {"image": "id"},
    ),
    "no value": (changed(label=[None, *[0, 1] * 11, 1]), r"column 'label', row 1: the label is None", {}),
    "a fraction": (changed(label=[0.5, *[0.0, 1.0] * 11, 1.0]), r"column 'label', row 1: the label is 0\.5", {}),
    "a list": (changed(label=[[0, 1]] * 24), r"column 'label', row 1: the label is \[0, 1\]", {}),
    "a class too many": (changed(label=[0, 1, 2, 3] * 6), r"row 4: the label is 3; expected 0 to 2, the classes", {}),
    "one class": (changed(label=[1] * 24), r"all 24 training images have the label 'bee'", {}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_table_is_named(tmp_path: Path, what: str) -> None:
    table, words, changes = BROKEN[what]
    write(table, tmp_path / "x.parquet")
    with pytest.raises((DataError, ConfigError), match=words) as caught:
        data(tmp_path, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_cut_is_named(tmp_path: Path, kind: str) -> None:
    path = write(pictures(), tmp_path / "x.arrow", kind)
    whole = path.read_bytes()
    for length in (0, 3, 8, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:length])
        if kind == "stream" and length == len(whole) - 9:
            continue  # the end mark of a stream may be missing
        with pytest.raises(DataError, match=rf"{re.escape(str(path))}.*(cannot be read|has no image)") as caught:
            data(path, val_fraction=0.2, test_fraction=0.0)
        assert "\n" not in str(caught.value)


def test_a_cell_that_is_no_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    cells = pictures()["image"].to_pylist()
    cells[9]["bytes"] = cells[9]["bytes"][:50]
    write(changed(image=cells), tmp_path / "x.parquet")
    words = r"x\.parquet, column 'image', row 10: cannot be read as an image"
    streamed = data(tmp_path, placement="disk", workers=0, val_fraction=0.2, test_fraction=0.0)
    with pytest.raises(DataError, match=words):
        [pixels(part) for part in (streamed.train, streamed.val)]
    cells[9]["bytes"] = None
    write(changed(image=cells), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"row 10: .*the cell has no bytes"):
        data(tmp_path)
    kept = data(tmp_path, bad_images="skip", test_fraction=0.0)
    assert len(kept.train.labels) + len(kept.val.labels) == 23


def test_transparency_depth_and_extra_bands_are_asked_for(tmp_path: Path) -> None:
    cells = pictures()["image"].to_pylist()
    images = odd_images(tmp_path / "odd")
    kept: list[Tensor] = []
    cells[4]["bytes"] = images["clear.png"]
    write(changed(image=cells), tmp_path / "x.parquet")
    more = {"test_fraction": 0.0, "cache": None}
    for alpha in ("drop", "white", "black"):
        found = data(tmp_path, alpha=alpha, **more)
        kept.append(torch.cat([pixels(found.train), pixels(found.val)]))
    assert (kept[1] >= kept[2]).all() and not torch.equal(kept[1], kept[2]) and not torch.equal(kept[0], kept[1])
    cells[4]["bytes"] = images["bands.tif"]
    write(changed(image=cells), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"row 5: .*data\.extra_bands=drop"):
        data(tmp_path, **more)
    data(tmp_path, extra_bands="drop", **more)
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "deep.png")
    cells[4]["bytes"] = (tmp_path / "deep.png").read_bytes()
    write(changed(image=cells), tmp_path / "x.parquet")
    deep = data(tmp_path, depth=12, **more)
    found = torch.cat([pixels(deep.train), pixels(deep.val)])
    assert (found == 4000 >> 4).flatten(1).all(1).sum() == 1


def test_class_order_is_by_numbers_or_text(tmp_path: Path) -> None:
    write(pictures().set_column(2, "label", [["c10", "c9"] * 12]), tmp_path / "x.parquet")
    assert data(tmp_path).classes == ("c9", "c10")
    assert data(tmp_path, class_order="text").classes == ("c10", "c9")


def test_a_compressed_stream_is_refused(tmp_path: Path) -> None:
    table = pictures()
    options = ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, ipc.new_stream(file, table.schema, options=options) as out:
        out.write_table(table)
    with pytest.raises(DataError, match=r"x\.arrow: .*compressed stream"):
        data(tmp_path)


def test_files_must_have_the_columns_of_the_first(tmp_path: Path) -> None:
    write(pictures(), tmp_path / "a.parquet")
    write(pictures().rename_columns(["image", "id", "y"]), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: has no column 'label', which the first file has"):
        data(tmp_path)


def test_hub_names_are_no_paths(tmp_path: Path) -> None:
    for root in ("hf://datasets/ylecun/mnist", "https://host/x.parquet", "pipe:cat x"):
        with pytest.raises(ConfigError, match="expected local files"):
            data(root)
    with pytest.raises(DataError, match="does not exist"):
        data("ylecun/mnist")


def test_an_old_pyarrow_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(pictures(), tmp_path / "x.parquet")
    monkeypatch.setattr(pa, "__version__", "13.0.0")
    with pytest.raises(ConfigError, match=r"pyarrow 13\.0\.0 runs code from files; install 14\.0\.1"):
        data(tmp_path)


def test_memory_holds_few_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_images, "_MOST_BYTES", 1 << 12)
    write(pictures(90), tmp_path / "x.parquet")
    found = data(tmp_path, placement="disk", workers=0)
    pixels(found.train)
    assert len(_groups._groups) == 2 and _groups._bytes == sum(g.nbytes for g in _groups._groups.values())
    assert np.unique(found.train.files.groups).size > 5
