"""Images in tar shards: the same as in a folder; splits, labels, order; and an error for each broken shard."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from small_runs import build as build_run
from small_runs import interrupted, log_probabilities, small, uninterrupted
from tar_shards import odd_images, png, shard_of, write_shards, write_tar
from torch import Tensor

from runner.components.data.pixels.image_files import ImageFiles
from runner.components.data.shards import tar_index
from runner.engine import file_digests
from runner.engine.contracts import Data, Images, Split
from runner.errors import ConfigError, DataError
from runner.registry import build

CONF = Path(__file__).parents[2] / "conf" / "data"


def data(root: Path | str, name: str = "webdataset", **changes: Any) -> Data:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return build("data", {**values, "root": str(root), "size": [8, 8], **changes})


def pixels(split: Split) -> Tensor:
    return split.fetch(torch.arange(len(split.labels)))


def rows(split: Split) -> set[bytes]:
    return {row.numpy().tobytes() for row in pixels(split)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of images by class, and the same images, in the same order, in three shards."""
    root = tmp_path_factory.mktemp("pair")
    for label, name in enumerate(("ant", "bee", "cat")):
        (root / "folder" / name).mkdir(parents=True)
        for number in range(16):
            (root / "folder" / name / f"{number:02}.png").write_bytes(png(label, number, size=12))
    files = sorted((root / "folder").rglob("*.png"))
    for shard in range(3):
        shard_of(root / "folder", files[shard * 16 : shard * 16 + 16], root / "tars" / f"{shard}.tar")
    return root / "folder", root / "tars"


def both(pair: tuple[Path, Path], **changes: Any) -> tuple[Data, Data]:
    return data(pair[0], "imagefolder", **changes), data(pair[1], **changes)


@pytest.mark.parametrize("memory", [0, 4096])
def test_images_labels_and_splits_are_those_of_the_same_images_in_folders(pair, memory: int) -> None:
    folder, shards = both(pair, memory=memory, workers=0)
    assert shards.classes == folder.classes == ("ant", "bee", "cat")
    for a, b in ((folder.train, shards.train), (folder.val, shards.val), (folder.test(), shards.test())):
        assert isinstance(b, ImageFiles if memory == 0 else Images)
        assert torch.equal(a.labels, b.labels) and torch.equal(pixels(a), pixels(b))
    index = torch.tensor([7, 0, 30, 7])
    assert torch.equal(folder.train.fetch(index), shards.train.fetch(index))
    assert shards.found.line(shards.classes, "images") == folder.found.line(folder.classes, "images")


@pytest.mark.parametrize("changes", [{"center": 0.7, "fit": "pad"}, {"color": "gray"}, {"color": "auto"}])
def test_pixels_come_from_the_same_decoders(pair, changes: dict[str, Any]) -> None:
    folder, shards = both(pair, **changes)
    assert torch.equal(pixels(folder.train), pixels(shards.train)) and folder.shape == shards.shape


def run_of(kind: str, root: Path, **more: Any) -> dict[str, Any]:
    return small({"data": kind, "data.root": str(root), "data.size": [8, 8], "data.batch_size": 8, **more})


KINDS_OF = ("imagefolder", "webdataset")
CROPPED = {"data.crop": "resized", "data.workers": 0, "steps": 12}


WORKERS = pytest.param({"steps": 12, "data.memory": 0, "data.workers": 2}, marks=pytest.mark.slow)


@pytest.mark.parametrize("more", [{"steps": 12}, CROPPED, WORKERS])
def test_a_run_on_shards_is_the_run_on_folders_bit_for_bit(pair, more: dict[str, Any]) -> None:
    (one, folder), (two, shards) = (
        uninterrupted(run_of(kind, root, **more), 12) for kind, root in zip(KINDS_OF, pair, strict=True)
    )
    assert len(folder.rows) > 0 and folder.rows == shards.rows
    assert torch.equal(log_probabilities(one), log_probabilities(two))


@pytest.mark.parametrize("order", ["global", "shards"])
def test_a_run_resumes_in_the_middle_of_an_epoch(pair, tmp_path: Path, order: str) -> None:
    choices = run_of("webdataset", pair[1], **{"data.order": order, "data.window": 1, "data.memory": 0})
    choices |= {"data.workers": 0, "steps": 12}
    _, whole = uninterrupted(choices, 12)
    parts = interrupted(choices, 7, 12, tmp_path)  # an epoch has 5 steps
    assert (whole.state, whole.rows) == (parts.state, parts.rows)


def test_the_order_of_shards_keeps_to_a_window_and_draws_each_image_once(tmp_path: Path) -> None:
    found = build_run(run_of("webdataset", write_shards(tmp_path, 7, 9), **{"data.order": "shards", "data.window": 2}))
    batches = found.batches
    assert batches.sampler.length == len(batches.split.labels)
    files = data(tmp_path, order="shards", window=2, memory=0, workers=0)
    shard_of_image = torch.from_numpy(files.train.files.groups)
    orders = []
    for epoch in range(4):
        drawn = batches.sampler.draw(0, epoch).examples
        assert sorted(drawn.tolist()) == list(range(len(shard_of_image)))
        assert torch.equal(drawn, batches.sampler.draw(0, epoch).examples)
        left, place = set(range(7)), 0
        while left:
            # The next images are those of two shards, or of the last one, and no others
            window = shard_of_image[drawn[place:]].unique_consecutive()[:1].tolist()
            for shard in shard_of_image[drawn[place:]].tolist():
                if shard not in window:
                    window.append(shard)
                    break
            window = window[: min(2, len(left))]
            size = int(torch.isin(shard_of_image, torch.tensor(window)).sum())
            assert set(shard_of_image[drawn[place : place + size]].tolist()) == set(window)
            left -= set(window)
            place += size
        orders.append(drawn.tolist())
    assert len({tuple(order) for order in orders}) == 4


def test_splits_come_from_the_names_of_the_files(tmp_path: Path) -> None:
    for prefix, count in (("set-train-", 3), ("set-val-", 1), ("set-test-", 2)):
        write_shards(tmp_path, count, 6, prefix)
    found = data(tmp_path)
    assert [len(part.labels) for part in (found.train, found.val, found.test())] == [18, 6, 12]
    alone = data(tmp_path / "set-val-000.tar", splits=None, val_fraction=0.5, test_fraction=0.0)
    assert rows(found.val) == rows(alone.val) | rows(alone.train)
    with pytest.raises(DataError, match=r"no training file among set-val-000\.tar"):
        data(tmp_path / "set-val-000.tar")
    (tmp_path / "set-val-000.tar").unlink()
    assert len(data(tmp_path, val_fraction=1 / 3).val.labels) == 6


def test_splits_come_from_patterns(tmp_path: Path) -> None:
    write_shards(tmp_path / "a", 3, 6)
    write_shards(tmp_path / "b", 2, 6)
    found = data(tmp_path, splits={"train": "a/{000..001}.tar", "val": "b/*.tar", "test": "a/002.tar"})
    assert [len(part.labels) for part in (found.train, found.val, found.test())] == [12, 12, 6]
    assert len(data(tmp_path, splits=None, test_fraction=0.2, val_fraction=0.2).test().labels) == 6


PATTERNS = {"": 36, "001.tar": 9, "*.tar": 36, "00[12].tar": 18, "{000..002}.tar": 27, "{000,003}.tar": 18}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_root_is_a_folder_a_file_or_a_pattern(tmp_path: Path, pattern: str) -> None:
    root = write_shards(tmp_path / "x") / pattern
    found = data(root, val_fraction=0.5, test_fraction=0.0)
    assert len(found.train.labels) + len(found.val.labels) == PATTERNS[pattern]


KINDS = {
    "cls": [("cls", b" 7\n")],
    "txt": [("txt", "größe".encode())],
    "json": [("json", json.dumps({"label": 7, "more": [1]}).encode())],
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_text_or_numbers_in_a_member(tmp_path: Path, kind: str) -> None:
    members = []
    for number in range(12):
        own = KINDS[kind] if number % 2 else [(kind, b'{"label": "other"}' if kind == "json" else b"other")]
        members += [(f"{number}.png", png(number % 2, number)), *((f"{number}.{end}", text) for end, text in own)]
    write_tar(tmp_path / "x.tar", members)
    name = "größe" if kind == "txt" else "7"
    for label in ("auto", kind):
        found = data(tmp_path, label=label, val_fraction=0.3, test_fraction=0.0)
        assert found.classes == tuple(sorted((name, "other")))
        assert sum(part.labels.bincount()[1].item() for part in (found.train, found.val)) == 6


def test_json_labels_have_a_key_and_classes_can_be_chosen(tmp_path: Path) -> None:
    words = ("b", "a", "c10", "c9")
    members = []
    for number in range(40):
        text = json.dumps({"y": words[number % 4], "label": 0}).encode()
        members += [(f"{number}.PNG", png(number % 3, number)), (f"{number}.json", text)]
    write_tar(tmp_path / "x.tar", members)
    assert data(tmp_path, label_key="y").classes == ("a", "b", "c9", "c10")
    assert data(tmp_path, label_key="y", class_order="text").classes == ("a", "b", "c10", "c9")
    found = data(tmp_path, label_key="y", classes=["c9", "a"], test_fraction=0.0, limit=8)
    assert found.classes == ("c9", "a") and found.train.labels.bincount().tolist() == [4, 4]


def test_members_with_directories_and_several_dots_belong_together(tmp_path: Path) -> None:
    members = []
    for number in range(12):
        folder = f"../{number % 2}/.."
        members.append((f"{folder}/{number}.seen.png", png(number % 2, number)))
        members += [(f"{folder}/{number}.npy", b"no"), (f"{folder}/{number}.info.cls", str(number % 2).encode())]
    write_tar(tmp_path / "tars" / "x.tar", [("__meta__.json", b"{}"), ("README", b"x"), (".DS_Store", b""), *members])
    found = data(tmp_path / "tars", val_fraction=0.3, test_fraction=0.0)
    assert len(found.train.labels) + len(found.val.labels) == 12
    assert any("15 (.npy 12" in line and ".json 1" in line for line in found.notes)
    assert [path.name for path in tmp_path.iterdir()] == ["tars"]


def test_names_that_repeat_in_other_files_are_other_images(tmp_path: Path) -> None:
    write_shards(tmp_path, 1, 12, "a")
    write_shards(tmp_path, 1, 12, "b")
    found = data(tmp_path, val_fraction=0.25, test_fraction=0.0)
    assert len(found.train.labels) == 18 and len(found.val.labels) == 6


def one(path: Path, *members: tuple[str, bytes]) -> None:
    """Write a shard of good examples, and some more members."""
    good = [each for i in range(12) for each in ((f"{i}.png", png(i % 2, i)), (f"{i}.cls", b"%d" % (i % 2)))]
    write_tar(path, [*good, *members])


BROKEN: dict[str, tuple[list[tuple[str, bytes]], str, dict[str, Any]]] = {
    "no label": ([("x.png", b"")], r"the example 'x' has no member \.cls.* at byte \d+", {}),
    "no image": ([("x.cls", b"1")], r"the example 'x' has no image at byte \d+", {}),
    "no member of that kind": ([], r"the example '0' has no member \.json", {"label": "json"}),
    "a label of two lines": ([("x.cls", b"1\n2"), ("x.png", b"")], r"member 'x\.cls' has the label '1.n2'", {}),
    "an empty label": ([("x.cls", b" "), ("x.png", b"")], r"member 'x\.cls' has the label ''; expected one class", {}),
    "a label that is no text": ([("x.cls", b"\xff\xfe"), ("x.png", b"")], r"'x\.cls' is not text in UTF-8", {}),
    "a label of many bytes": ([("x.cls", b"1" * 2000), ("x.png", b"")], r"'x\.cls' has 2000 bytes", {}),
    "a pickle as label": ([("x.cls", pickle.dumps({"a": 1})), ("x.png", b"")], r"'x\.cls' is not text in UTF-8", {}),
    "two examples of one name": ([("3.png", b""), ("3.cls", b"1")], "two examples are called '3', the second", {}),
    "two images": ([("x.png", b""), ("x.jpg", b""), ("x.cls", b"1")], r"two members image: 'x\.png' and 'x\.jpg'", {}),
    "two labels": ([("x.png", b""), ("x.cls", b"1"), ("x.b.cls", b"1")], r"two members cls: 'x\.cls' and 'x", {}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_shard_is_named_with_member_and_place(tmp_path: Path, what: str) -> None:
    members, words, changes = BROKEN[what]
    one(tmp_path / "x.tar", *members)
    with pytest.raises(DataError, match=words) as caught:
        data(tmp_path, **changes)
    assert str(caught.value).startswith(str(tmp_path / "x.tar")) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 7


JSON = {
    "no key": (b'{"a": 1}', "has no key 'label' (data.label_key)"),
    "a list": (b'{"label": [1, 2]}', "has the label [1, 2]; expected one class"),
    "a fraction": (b'{"label": 1.5}', "has the label 1.5; expected one class"),
    "true": (b'{"label": true}', "has the label True; expected one class"),
    "null": (b'{"label": null}', "has the label None; expected one class"),
    "no object": (b"[1]", "is not a JSON object"),
    "no JSON": (b"{", "is not a JSON object"),
    "deep": (b"[" * 100_000, "is not a JSON object"),
}


@pytest.mark.parametrize("what", JSON)
def test_a_broken_json_label_is_named(tmp_path: Path, what: str) -> None:
    text, words = JSON[what]
    write_tar(tmp_path / "x.tar", [("x.png", png(0, 0)), ("x.json", text)])
    with pytest.raises(DataError, match=rf"{re.escape(words)}.* at byte \d+"):
        data(tmp_path)


def test_a_broken_image_is_named_when_it_is_read_or_left_out_before(tmp_path: Path) -> None:
    one(tmp_path / "x.tar", ("x.png", png(0, 3)[:60]), ("x.cls", b"1"))
    words = r"x\.tar, member 'x\.png' at byte \d+: cannot be read as an image"
    with pytest.raises(DataError, match=words):
        data(tmp_path, splits=None, test_fraction=0.0)
    streamed = data(tmp_path, placement="disk", workers=0, test_fraction=0.0, val_fraction=0.2)
    with pytest.raises(DataError, match=words):
        pixels(streamed.train)
    kept = data(tmp_path, bad_images="skip", placement="disk", workers=0, test_fraction=0.0, order="shards")
    assert len(kept.train.labels) + len(kept.val.labels) == 12
    assert kept.order is not None and len(kept.order.shards) == len(kept.train.labels)
    assert any(re.search(rf"skipped 1 of \d+ images.*{words}", line) for line in kept.notes)


def test_a_shard_that_shrinks_while_it_is_used_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, 1, 12)
    found = data(tmp_path, placement="disk", workers=0)
    path = tmp_path / "000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"000\.tar.* at byte \d+: cannot be read as an image \(the file ends after"):
        pixels(found.train)


def test_deep_images_of_a_streamed_set_need_a_depth(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "deep.png")
    one(tmp_path / "s" / "x.tar", ("deep.png", (tmp_path / "deep.png").read_bytes()), ("deep.cls", b"1"))
    whole = data(tmp_path / "s", test_fraction=0.0, val_fraction=0.1, limit_seed=1)
    assert whole.reading["depth"] == (4000.0, 4000.0) or whole.reading["depth"] is None
    streamed = data(tmp_path / "s", placement="disk", workers=0, test_fraction=0.0)
    with pytest.raises(DataError, match=r"deep\.png.*set data\.depth"):
        [pixels(part) for part in (streamed.train, streamed.val)]


def test_transparency_and_extra_bands_are_those_of_folders(tmp_path: Path) -> None:
    images = odd_images(tmp_path / "odd")
    one(tmp_path / "s" / "x.tar", ("a.png", images["clear.png"]), ("a.cls", b"1"))
    for number in range(12):
        (tmp_path / "f" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / str(number % 2) / f"{number}.png").write_bytes(png(number % 2, number))
    (tmp_path / "f" / "1" / "a.png").write_bytes(images["clear.png"])
    whole: dict[str, set[bytes]] = {}
    for alpha in ("drop", "white", "black"):
        splits = [
            [rows(part) for part in (found.train, found.val)]
            for found in (data(tmp_path / "s", alpha=alpha, test_fraction=0.0), folder_of(tmp_path / "f", alpha=alpha))
        ]
        assert set.union(*splits[0]) == set.union(*splits[1])
        whole[alpha] = set.union(*splits[0])
    assert len({frozenset(each) for each in whole.values()}) == 3
    one(tmp_path / "s" / "x.tar", ("a.tif", images["bands.tif"]), ("a.cls", b"1"))
    with pytest.raises(DataError, match=r"member 'a\.tif' at byte \d+: .*data\.extra_bands=drop"):
        data(tmp_path / "s")
    assert len(data(tmp_path / "s", extra_bands="drop", test_fraction=0.0).train.labels) == 12


def folder_of(root: Path, **changes: Any) -> Data:
    return data(root, "imagefolder", test_fraction=0.0, **changes)


ADDRESSES = ("pipe:curl -s x.tar", "http://host/x.tar", "https://host/{0..3}.tar", "s3://b/x", "file:x.tar", "hf:a/b")


@pytest.mark.parametrize("root", ADDRESSES)
def test_addresses_and_commands_are_refused(root: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.root: got .*; expected local files, '{root.partition(':')[0]}:'"):
        data(root)


def test_files_whose_split_is_not_known_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, 1, 6, "train-")
    write_shards(tmp_path, 1, 6, "other-")
    with pytest.raises(DataError, match=r"no split is in the name of other-000\.tar; choose 'data\.splits="):
        data(tmp_path)
    with pytest.raises(DataError, match=r"no file below .* matches 'x\*'"):
        data(tmp_path, splits={"train": "train*", "val": "x*"})
    with pytest.raises(DataError, match="is in train and in val"):
        data(tmp_path, splits={"train": "*", "val": "train*"})
    write_shards(tmp_path, 1, 6, "train-val-")
    with pytest.raises(DataError, match="words of two splits"):
        data(tmp_path)


def test_a_file_of_a_range_that_is_missing_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, 3, 6)
    with pytest.raises(DataError, match=r"003\.tar does not exist, which .*\{000\.\.003\}\.tar names"):
        data(tmp_path / "{000..003}.tar")
    with pytest.raises(DataError, match="matches no file"):
        data(tmp_path / "x*.tar")
    with pytest.raises(DataError, match="does not exist"):
        data(tmp_path / "x.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no file that ends in \.tar"):
        data(tmp_path / "empty")


def test_balanced_draws_and_folds_go_with_any_order_only(tmp_path: Path) -> None:
    write_shards(tmp_path, 2, 12)
    with pytest.raises(ConfigError, match=r"data\.order: got 'shards', must be 'global' with sampling=balanced"):
        data(tmp_path, order="shards", sampling="balanced")
    with pytest.raises(ConfigError, match=r"folds: not supported with data\.order=shards"):
        build_run(run_of("webdataset", tmp_path, **{"data.order": "shards", "folds": 3, "fold": 1}))
    assert len(build_run(run_of("webdataset", tmp_path, folds=3, fold=1)).batches.split.labels) > 0


def test_the_headers_of_a_shard_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digests, "_TICK", -(10**18))
    read: list[Path] = []
    samples = tar_index.read_samples
    monkeypatch.setattr(tar_index, "read_samples", lambda path, *more: read.append(path) or samples(path, *more))
    write_shards(tmp_path, 3)
    before = data(tmp_path)
    assert torch.equal(pixels(data(tmp_path).train), pixels(before.train)) and len(read) == 3
    shutil.copyfile(tmp_path / "001.tar", tmp_path / "new.tar")
    data(tmp_path)
    assert [path.name for path in read[3:]] == ["new.tar"]
    for path in file_digests.cache_home().glob("*.tar"):
        path.write_bytes(b"\0" * 99)
    assert len(data(tmp_path).train.labels) and len(read) == 8


def test_workers_get_no_names(tmp_path: Path) -> None:
    write_shards(tmp_path, 2, 50)
    split = data(tmp_path, placement="disk", workers=0).train
    state = pickle.dumps(split.files)
    assert b"0001.png" not in state and len(state) / len(split.labels) < 60
