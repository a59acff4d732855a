"""The cache of decoded images: pixels equal decoded ones, and a cache is complete or absent after any crash."""

from __future__ import annotations

import io
import json
import os
import pty
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from running import ROOT, run_in_child
from torch import Tensor

from runner import components  # noqa: F401  (registers all)
from runner.engine.contracts import Data, Images
from runner.engine.saving import disk, storage
from runner.registry import build

YAML = yaml.safe_load((ROOT / "conf" / "data" / "imagefolder.yaml").read_text())
SIDE = 8


def imagefolder(root: Path, cache: Path | None, **changes: Any) -> Data:
    values = {"root": str(root), "cache": cache and str(cache), "size": [SIDE, SIDE], "test_fraction": 0.0, **changes}
    return build("data", {**YAML, **values})


def pixels(found: Data) -> Tensor:
    """Return all pixels, validation last."""
    assert isinstance(found.train, Images) and isinstance(found.val, Images)
    return torch.cat([found.train.pixels, found.val.pixels])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Thirty pictures of three classes; one of each validates."""
    random = np.random.default_rng(0)
    for number in range(30):
        path = tmp_path / "root" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (SIDE + 2, SIDE, 3), dtype=np.uint8)).save(path)
    return tmp_path / "root"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "caches"


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.name != ".lock")


def test_pixels_are_the_same_with_and_without_a_cache_and_for_any_number_of_workers(root: Path, cache: Path) -> None:
    wanted = pixels(imagefolder(root, None))
    for workers in (0, 1, 3, None):
        assert torch.equal(pixels(imagefolder(root, None, workers=workers)), wanted)
        assert torch.equal(pixels(imagefolder(root, cache / str(workers), workers=workers)), wanted)
        assert torch.equal(pixels(imagefolder(root, cache / str(workers), workers=0)), wanted)
    assert not (root / "caches").exists()


def test_a_second_start_takes_the_pixels_from_the_cache(root: Path, cache: Path) -> None:
    wanted = pixels(imagefolder(root, cache))
    assert files(cache) == ["manifest", "manifest", "pixels", "pixels"]  # of train and val
    for place in cache.iterdir():  # a cache that holds the negatives, and says so
        negatives = bytes(255 - byte for byte in (place / "pixels").read_bytes())
        (place / "pixels").write_bytes(negatives)
        body = {**json.loads((place / "manifest").read_text().split("\n")[1]), "sha256": sha256(negatives).hexdigest()}
        text = json.dumps(body)
        (place / "manifest").write_text(f"{sha256(text.encode()).hexdigest()}\n{text}")
    assert torch.equal(pixels(imagefolder(root, cache)), 255 - wanted)


def test_writing_to_the_pixels_does_not_change_the_cache(root: Path, cache: Path) -> None:
    wanted = pixels(imagefolder(root, cache))
    imagefolder(root, cache).train.pixels.zero_()
    assert torch.equal(pixels(imagefolder(root, cache)), wanted)


def test_a_file_that_changes_is_noticed_even_with_its_old_size_and_time(root: Path, cache: Path) -> None:
    before = imagefolder(root, cache)
    changed = sorted((root / "a").iterdir())[0]
    old = changed.stat()
    Image.fromarray(np.zeros((SIDE + 2, SIDE, 3), np.uint8)).save(changed)
    changed.write_bytes(changed.read_bytes().ljust(old.st_size, b"\0"))
    os.utime(changed, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (changed.stat().st_size, changed.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    after = imagefolder(root, cache)
    assert not torch.equal(pixels(after), pixels(before))
    assert torch.equal(pixels(after), pixels(imagefolder(root, None)))


@pytest.mark.parametrize("change", [{"size": [4, 4]}, {"center": 0.5}])
def test_another_view_is_another_cache(root: Path, cache: Path, change: dict[str, Any]) -> None:
    before = pixels(imagefolder(root, cache))
    assert torch.equal(pixels(imagefolder(root, cache, **change)), pixels(imagefolder(root, None, **change)))
    assert torch.equal(pixels(imagefolder(root, cache)), before)


def test_the_cache_lies_where_the_desktop_says(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    imagefolder(root, Path("auto"))
    assert len(list((tmp_path / "xdg" / "runner" / "images").glob("*/pixels"))) == 2
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    imagefolder(root, Path("auto"))
    assert len(list((tmp_path / "home" / ".cache" / "runner" / "images").glob("*/pixels"))) == 2


def test_a_cache_that_nobody_used_for_long_goes_when_another_is_made(root: Path, cache: Path) -> None:
    imagefolder(root, cache)
    old = set(cache.iterdir())
    long_ago = time.time() - 100 * 24 * 3600
    for place in old:
        os.utime(place / "manifest", (long_ago, long_ago))
    imagefolder(root, cache, size=[4, 4])
    assert len(list(cache.iterdir())) == 2 and not old & set(cache.iterdir())
    new = set(cache.iterdir())
    for place in new:
        os.utime(place / "manifest", (long_ago, long_ago))
    imagefolder(root, cache, size=[4, 4])  # used
    imagefolder(root, cache, size=[5, 5])
    assert new < set(cache.iterdir())


# Damage


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "bit of the pixels": lambda place: flip_bit(place / "pixels"),
    "bit of the manifest": lambda place: flip_bit(place / "manifest"),
    "pixels cut off": lambda place: os.truncate(place / "pixels", 100),
    "pixels empty": lambda place: os.truncate(place / "pixels", 0),
    "pixels gone": lambda place: (place / "pixels").unlink(),
    "manifest gone": lambda place: (place / "manifest").unlink(),
    "manifest empty": lambda place: (place / "manifest").write_text(""),
    "manifest foreign": lambda place: (place / "manifest").write_text("{}\n[]"),
    "pixels a folder": lambda place: ((place / "pixels").unlink(), (place / "pixels").mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_made_again(
    root: Path, cache: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = pixels(imagefolder(root, cache))
    for place in cache.iterdir():
        DAMAGE[damage](place)
    capsys.readouterr()
    assert torch.equal(pixels(imagefolder(root, cache)), wanted)
    printed = capsys.readouterr().err.splitlines()
    if damage == "pixels a folder":
        assert all("decoded into memory" in line or "damaged" in line for line in printed)
    else:
        assert all("damaged" in line for line in printed) and len(printed) in (0, 2)
        assert files(cache) == ["manifest", "manifest", "pixels", "pixels"]


class KillingDisk(disk.Disk):
    """Kills the process at the n-th system call that changes the disk; with n = 0, only counts these calls."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in ("at", "calls"):
            self.calls += 1
            if self.calls == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getattribute__(name)


def kill_at(root: Path, cache: Path, at: int) -> int:
    def work() -> None:
        storage.disk = KillingDisk(at)
        imagefolder(root, cache)

    return run_in_child(work)


def test_preparation_killed_at_each_of_its_steps_recovers(root: Path, cache: Path) -> None:
    wanted = pixels(imagefolder(root, None))
    counting = storage.disk = KillingDisk(0)
    try:
        imagefolder(root, cache / "counted")
    finally:
        storage.disk = disk.Disk()
    points = range(1, counting.calls + 1)
    assert len(points) >= 20
    for point in points:
        assert kill_at(root, cache / str(point), point) == -signal.SIGKILL
        assert torch.equal(pixels(imagefolder(root, cache / str(point))), wanted), point
        assert files(cache / str(point)) == ["manifest", "manifest", "pixels", "pixels"], point


@pytest.mark.slow
@pytest.mark.ci_slice
def test_preparation_killed_at_random_times_recovers(root: Path, cache: Path) -> None:
    wanted = pixels(imagefolder(root, None))
    random = np.random.default_rng(0)
    for _ in range(20):
        child = os.fork()
        if child == 0:
            imagefolder(root, cache)
            os._exit(0)
        time.sleep(random.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert torch.equal(pixels(imagefolder(root, cache)), wanted)
        assert files(cache) == ["manifest", "manifest", "pixels", "pixels"]
        for place in cache.iterdir():
            (place / "manifest").unlink()


def test_two_processes_that_want_the_same_cache_both_get_it(root: Path, cache: Path) -> None:
    wanted = pixels(imagefolder(root, None))

    def work() -> None:
        assert torch.equal(pixels(imagefolder(root, cache)), wanted)

    def both() -> None:
        others = [os.fork() for _ in range(1)]
        if 0 in others:
            work()
            os._exit(0)
        work()
        assert os.waitstatus_to_exitcode(os.waitpid(others[0], 0)[1]) == 0

    for _ in range(3):
        assert run_in_child(both) == 0
        assert files(cache) == ["manifest", "manifest", "pixels", "pixels"]
        for place in cache.iterdir():
            (place / "manifest").unlink()


def test_who_waits_for_a_process_that_is_killed_goes_on(
    root: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from runner.components.data.download import locked

    wanted = pixels(imagefolder(root, cache))
    (place,) = [each for each in cache.iterdir() if len((each / "pixels").read_bytes()) == 27 * 3 * SIDE * SIDE]
    (place / "manifest").unlink()
    ready, go = os.pipe()
    holder = os.fork()
    if holder == 0:
        with locked(place):
            os.write(go, b"!")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    killer = os.fork()
    if killer == 0:
        time.sleep(0.5)
        os.kill(holder, signal.SIGKILL)
        os._exit(0)
    start = time.monotonic()
    assert torch.equal(pixels(imagefolder(root, cache)), wanted)
    assert time.monotonic() - start > 0.2
    for child in (holder, killer):
        os.waitpid(child, 0)
    os.close(ready), os.close(go)
    assert f"waiting for another process that prepares {place}" in capfd.readouterr().err


# A disk that does not take it


def without_cache(work: Callable[[], Tensor], wanted: Tensor, message: Path, *words: str) -> None:
    """Run in a child; hold that the pixels are right and that standard error has one line per split with the words."""

    def run() -> None:
        with message.open("w") as sys.stderr:
            assert torch.equal(work(), wanted)

    assert run_in_child(run) == 0
    lines = message.read_text().splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.endswith("; the images are decoded into memory")
        assert all(word in line for word in words), line


def test_a_disk_that_is_full_costs_the_cache_only(root: Path, cache: Path, tmp_path: Path) -> None:
    wanted = pixels(imagefolder(root, None))

    def work() -> Tensor:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
        return pixels(imagefolder(root, cache))

    def quiet() -> Tensor:
        made = work()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        return made

    without_cache(quiet, wanted, tmp_path / "printed", str(cache), "File too large")
    assert files(cache) == []


def test_a_disk_without_room_is_seen_before_decoding(
    root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    wanted = pixels(imagefolder(root, None))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    assert torch.equal(pixels(imagefolder(root, cache)), wanted)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "needs 5184 bytes, 100 are free" in lines[0]
    assert files(cache) == []


def test_a_cache_folder_that_cannot_be_made_costs_the_cache_only(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert torch.equal(pixels(imagefolder(root, tmp_path / "file" / "caches")), pixels(imagefolder(root, None)))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("Not a directory" in line for line in lines)


# Too large for memory


def test_what_is_looked_through_once_is_not_looked_through_again(root: Path, cache: Path) -> None:
    found = imagefolder(root, cache, memory=0)
    assert found.placement == "disk" and files(cache) == ["manifest", "manifest"]
    stamps = {path: path.stat().st_ino for path in cache.rglob("manifest")}
    again = imagefolder(root, cache, memory=0)
    assert {path: path.stat().st_ino for path in cache.rglob("manifest")} == stamps
    wanted = pixels(imagefolder(root, None))
    index = torch.arange(27)
    assert torch.equal(again.train.fetch(index), wanted[:27])


@pytest.mark.parametrize(("placement", "kept"), [("auto", True), ("host", True), ("device", True), ("disk", False)])
def test_placement_says_whether_pixels_are_kept(root: Path, cache: Path, placement: str, kept: bool) -> None:
    found = imagefolder(root, cache, placement=placement)
    assert found.placement == placement and isinstance(found.train, Images) is kept
    index = torch.tensor([5, 0, 5])
    assert torch.equal(found.train.fetch(index), imagefolder(root, None).train.fetch(index))
    if placement in ("host", "device"):
        assert isinstance(imagefolder(root, cache, placement=placement, memory=0).train, Images)


def test_splits_and_caches_do_not_depend_on_how_the_root_is_written(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = pixels(imagefolder(root, cache))
    monkeypatch.chdir(root)
    for words in (".", "../root", f"{root}/", "./../root/."):
        assert torch.equal(pixels(imagefolder(Path(words), cache)), wanted)
    assert len(list(cache.iterdir())) == 2


def test_a_quick_preparation_says_nothing_and_a_long_one_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.components.data.pixels import image_files

    for patience, lines in ((60.0, 0), (0.0, 1)):
        monkeypatch.setattr(image_files, "_SHOW_AFTER", patience)
        printed = io.StringIO()
        shown = image_files.Progress("decoding x", 100, printed)
        for done in range(1, 101):
            shown.move(done)
        shown.close()
        assert printed.getvalue().count("\n") == lines
        assert not lines or printed.getvalue().startswith("decoding x: 100 in about 0:0")


def test_on_a_terminal_a_bar_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.components.data.pixels import image_files

    monkeypatch.setattr(image_files, "_SHOW_AFTER", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    above, below = pty.openpty()
    with os.fdopen(below, "w") as screen:
        shown = image_files.Progress("decoding x", 100, screen)
        shown.move(40)
        shown.close()
        seen = b""
        while b"40/100" not in seen and select.select([above], [], [], 1)[0]:
            seen += os.read(above, 10000)
    os.close(above)
    assert b"decoding x 40/100" in seen
