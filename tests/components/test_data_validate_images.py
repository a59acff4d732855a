"""Validation of image files before training: which files, which checks, and which results are cached."""

from __future__ import annotations

import io
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from running import ROOT, job, result, run_in_child

import runner.tasks.train  # noqa: F401
from runner.components.data.pixels import validate_images
from runner.components.data.pixels.color_modes import Colors
from runner.components.data.pixels.decode import CropBounds, View, check_decodable, decode, decode_crop
from runner.door.task_context import start
from runner.engine.contracts import Data, Split
from runner.errors import DataError
from runner.registry import build

YAML = yaml.safe_load((ROOT / "conf" / "data" / "imagefolder.yaml").read_text())
SIDE, PER_CLASS = 12, 30


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Sixty pictures of two classes in each of three splits: 30 or 10 of a class."""
    for split, count in {"train": PER_CLASS, "val": 10, "test": 10}.items():
        for number in range(2 * count):
            path = tmp_path / "root" / split / "ab"[number % 2] / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(path)
    return tmp_path / "root"


def imagefolder(root: Path, **changes: Any) -> Data:
    knobs = {"root": str(root), "size": [8, 8], "workers": 0, "cache": None, "placement": "disk"}
    return build("data", {**YAML, **knobs, **changes})


def damaged_in_its_middle(path: Path) -> Path:
    """Change one byte of a PNG's pixels, so that head, length and end stay as they were."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    with Image.open(path) as image:
        assert image.size == (SIDE, SIDE)
    return path


def pixels(split: Split) -> torch.Tensor:
    return split.fetch(torch.arange(len(split.labels)))


def opened(found: Data) -> Split:
    assert found.test is not None
    return found.test()


# How thoroughly


KINDS: list[tuple[str, str, dict[str, Any]]] = [
    *[("JPEG", mode, {}) for mode in ("RGB", "L", "CMYK")],
    *[("JPEG", "RGB", {"progressive": True}), ("JPEG", "RGB", {"restart_marker_blocks": 4})],
    *[("PNG", mode, {}) for mode in ("RGB", "P", "RGBA")],
    *[("GIF", "P", {}), ("BMP", "RGB", {}), ("WEBP", "RGB", {}), ("PPM", "RGB", {}), ("TIFF", "RGB", {})],
]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Cut a file, or change, blank or take out a part of it."""
    changed, place, length = bytearray(content), draw.randrange(len(content)), draw.randint(1, 400)
    kind = draw.randrange(5)
    if kind == 0:
        return content[:place]
    if kind == 1:
        changed[place] ^= 1 << draw.randrange(8)
    elif kind == 2:
        changed[place % 300] = draw.randrange(256)
    elif kind == 3:
        changed[place : place + length] = bytes(len(changed[place : place + length]))
    else:
        del changed[place : place + length]
    return bytes(changed)


def refuses(work: Callable[[], object]) -> bool:
    try:
        work()
    except Exception:  # whatever a decoder says
        return True
    return False


@pytest.mark.filterwarnings("ignore")  # Pillow's, on damaged metadata and on sizes that damage made large
def test_a_look_refuses_what_any_later_decode_refuses_and_nothing_else(tmp_path: Path) -> None:
    draw, path = random.Random(0), str(tmp_path / "x")
    views = [View((8, 8)), View((32, 32), 0.875), View((96, 96))]
    crop = View((16, 16), crop=CropBounds((0.08, 1.0), (0.75, 4 / 3)))
    coarse = picture(0).resize((70, 50), Image.Resampling.BICUBIC)
    looks, later = [], []
    for form, mode, knobs in KINDS:
        buffer = io.BytesIO()
        coarse.convert(mode).save(buffer, form, **knobs)
        for _ in range(25):
            Path(path).write_bytes(damaged(buffer.getvalue(), draw))
            looks.append(refuses(lambda: check_decodable(path, Colors())))
            uniforms = [draw.random() for _ in range(4)]
            works = [lambda view=view: decode(path, view) for view in views]
            works.append(lambda uniforms=uniforms: decode_crop(path, crop, uniforms))
            later.append(any(refuses(work) for work in works))
    assert looks == later
    assert 100 < sum(looks) < len(looks) - 50


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("placement", ["disk", "host"])
def test_a_file_damaged_in_its_middle_is_named_before_the_first_step(
    root: Path, tmp_path: Path, split: str, placement: str
) -> None:
    victim = damaged_in_its_middle(root / split / "b" / "07.png")
    words = ("data=imagefolder", f"data.root={root}", "data.size=[8,8]", f"data.placement={placement}", "augment=[]")
    made = job(*words, "data.workers=0", "data.cache=null", "model=linear", f"hydra.run.dir={tmp_path / 'run'}")
    with pytest.raises(DataError) as caught:
        start(made)
    assert str(caught.value).startswith(f"{victim}: cannot be read as an image (")
    assert caught.value.exit_code == 7
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("placement", ["disk", "host"])
def test_what_is_skipped_is_exactly_what_is_broken_counted_in_the_summary(
    root: Path, tmp_path: Path, placement: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, name in (("train", "b/07"), ("train", "a/00"), ("val", "a/02"), ("test", "b/05")):
        damaged_in_its_middle(root / split / f"{name}.png")
    found = imagefolder(root, bad_images="skip", placement=placement)
    assert [len(part.labels) for part in (found.train, found.val, opened(found))] == [58, 19, 19]
    capsys.readouterr()
    words = ("data=imagefolder", f"data.root={root}", "data.size=[8,8]", f"data.placement={placement}", "augment=[]")
    more = ("data.workers=0", "data.cache=null", "data.bad_images=skip", "model=linear", "steps=2", "figures=never")
    assert start(job(*words, *more, f"hydra.run.dir={tmp_path / 'run'}")) == 0
    assert result(tmp_path / "run")["status"] == "done"
    printed = "".join(capsys.readouterr())
    told = [f"{root}/train/a/00.png", f"{root}/val/a/02.png", f"{root}/test/b/05.png"]
    for (bad, count), first in zip([(2, 60), (1, 20), (1, 20)], told, strict=True):
        assert f"data: skipped {bad} of {count} images, the first is {first}: cannot be read" in printed


def small(root: Path, folder: Path, *more: str) -> Any:
    """Return the job of a quick run on these pictures."""
    words = ("data=imagefolder", f"data.root={root}", "data.size=[8,8]", "data.cache=null", "augment=[]")
    fast = ("data.workers=0", "model=mlp", "model.hidden=[4]", "steps=2", "figures=never")
    return job(*words, *fast, *more, f"hydra.run.dir={folder}")


NOT_READ = {
    "train": ["test=never"],
    "preview": ["task=preview"],
    "profile": ["task=profile", "task.steps=1", "task.warmup=1"],
    "init_report": ["task=init_report"],
}


@pytest.mark.parametrize("words", NOT_READ.values(), ids=NOT_READ)
def test_a_test_split_that_is_not_read_is_not_looked_at(root: Path, tmp_path: Path, words: list[str]) -> None:
    damaged_in_its_middle(root / "test" / "b" / "07.png")
    assert start(small(root, tmp_path / "run", *words)) == 0


def test_an_evaluation_of_another_split_does_not_look_at_the_test_split(root: Path, tmp_path: Path) -> None:
    assert start(small(root, tmp_path / "run")) == 0
    damaged_in_its_middle(root / "test" / "b" / "07.png")
    assert start(job("task=evaluate", f"run={tmp_path / 'run'}", "task.split=val")) == 0


def test_a_test_split_that_cannot_be_read_is_not_counted_as_read(root: Path, tmp_path: Path) -> None:
    assert start(small(root, tmp_path / "run", "test=never")) == 0
    victim = damaged_in_its_middle(root / "test" / "b" / "07.png")
    with pytest.raises(DataError) as caught:
        start(job("task=evaluate", f"run={tmp_path / 'run'}"))
    assert str(caught.value).startswith(f"{victim}: cannot be read as an image (")
    assert result(tmp_path / "run")["test_reads"] == 0


@pytest.mark.parametrize("bad_images", ["error", "skip"])
@pytest.mark.parametrize("placement", ["disk", "host"])
def test_a_file_that_breaks_after_the_look_is_an_error_that_names_it(
    root: Path, tmp_path: Path, bad_images: str, placement: str
) -> None:
    found = imagefolder(root, bad_images=bad_images, placement=placement, cache=str(tmp_path / "cache"))
    assert found.check_test() == ()
    victim = damaged_in_its_middle(root / "test" / "b" / "07.png")
    with pytest.raises(DataError, match="cannot be read as an image") as caught:
        pixels(opened(found))
    assert str(caught.value).startswith(f"{victim}: ")
    if placement == "disk":
        victim = damaged_in_its_middle(root / "train" / "a" / "00.png")
        with pytest.raises(DataError, match=r"00\.png: cannot be read as an image"):
            pixels(found.train)


# By whom


def test_processes_find_what_threads_find(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate_images, "_MIN_FILES_FOR_PROCESSES", 1)
    monkeypatch.setattr(validate_images, "FILES_PER_TASK", 8)
    files = sorted(str(path) for path in (root / "train").rglob("*.png"))
    assert validate_images.find_unreadable(files, 1, 2, "looking", keep=True, colors=Colors()).bad == {}
    for place in (3, 4, 41, 59):
        damaged_in_its_middle(Path(files[place]))
    one = validate_images.find_unreadable(files, 1, 0, "looking", keep=True, colors=Colors())
    assert list(one.bad) == [3, 4, 41, 59]
    assert validate_images.find_unreadable(files, 1, 2, "looking", keep=True, colors=Colors()) == one
    for processes in (0, 2):
        with pytest.raises(DataError) as caught:
            validate_images.find_unreadable(files, 1, processes, "looking", keep=False, colors=Colors())
        assert str(caught.value) == f"{files[3]}: {one.bad[3]}"


# What is remembered


def unread(root: Path) -> None:
    """Make every file unreadable without changing what a look is remembered by."""

    from runner.components.data.pixels import prepare_images

    def fail(*_: object, **__: object) -> Any:
        raise AssertionError("looked again")

    prepare_images.find_unreadable = fail


@pytest.mark.parametrize("broken", [False, True])
def test_a_second_start_looks_at_nothing(root: Path, tmp_path: Path, broken: bool) -> None:
    if broken:
        damaged_in_its_middle(root / "test" / "b" / "07.png")
    knobs: dict[str, Any] = {"bad_images": "skip", "cache": str(tmp_path / "cache")}
    first = imagefolder(root, **knobs)
    lost = first.check_test()
    assert len(lost) == broken

    def again() -> None:
        unread(root)
        for size in ([8, 8], [6, 6]):  # a look is of any size
            found = imagefolder(root, **knobs, size=size)
            assert found.check_test() == lost
            assert len(opened(found).labels) == 20 - broken

    assert run_in_child(again) == 0


def test_a_file_that_changes_is_looked_at_again(root: Path, tmp_path: Path) -> None:
    assert imagefolder(root, cache=str(tmp_path / "cache")).check_test() == ()
    victim = root / "test" / "b" / "07.png"
    before = victim.stat()
    damaged_in_its_middle(victim)
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match=r"07\.png"):
        imagefolder(root, cache=str(tmp_path / "cache")).check_test()


def test_a_look_that_is_killed_leaves_nothing_that_is_believed(root: Path, tmp_path: Path) -> None:
    damaged_in_its_middle(root / "train" / "b" / "07.png")
    draw, cache = random.Random(0), tmp_path / "cache"
    for _ in range(10):
        child = os.fork()
        if child == 0:
            imagefolder(root, cache=str(cache), bad_images="skip").check_test()
            os._exit(0)
        time.sleep(draw.uniform(0, 0.04))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = imagefolder(root, cache=str(cache), bad_images="skip")
        assert len(found.train.labels) == 2 * PER_CLASS - 1
        for manifest in cache.rglob("manifest"):
            manifest.unlink()
