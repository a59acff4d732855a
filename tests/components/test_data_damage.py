"""Folders with unreadable files: reported before training, or skipped and counted."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from running import ROOT, command, job, result, run_in_child

import runner.tasks.train  # noqa: F401
from runner.assemble import assemble
from runner.engine.contracts import Data, Split
from runner.errors import DataError
from runner.registry import build
from runner.tasks import start

YAML = yaml.safe_load((ROOT / "conf" / "data" / "imagefolder.yaml").read_text())
NOBODY = 65534
PER_CLASS = 20


@pytest.fixture
def root() -> Iterator[Path]:
    """Forty pictures of two classes where other users may look (pytest's own folders are closed to them)."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    random = np.random.default_rng(0)
    for number in range(2 * PER_CLASS):
        path = folder / "root" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    yield folder / "root"
    shutil.rmtree(folder)


def imagefolder(root: Path, **changes: Any) -> Data:
    return build("data", {**YAML, "root": str(root), "size": [8, 8], "workers": 0, "cache": None, **changes})


def pixels(split: Split) -> torch.Tensor:
    return split.fetch(torch.arange(len(split.labels)))


def refusal(root: Path, **changes: Any) -> str:
    """Return the error line for a folder, the same whether its images are kept in memory or streamed."""
    lines = []
    for placement in ("host", "disk"):
        with pytest.raises(DataError) as caught:
            imagefolder(root, placement=placement, **changes)
        lines.append(str(caught.value))
    assert lines[0] == lines[1] and lines[0].isprintable() and caught.value.exit_code == 7
    return lines[0]


def run_without_root(work: Callable[[], object]) -> None:
    """Run in a child without root's rights, which read anything."""
    if os.getuid() != 0:
        work()
        return

    def run() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        work()

    assert run_in_child(run) == 0


def test_a_file_that_may_not_be_read_is_named(root: Path) -> None:
    closed = root / "b" / "01.png"
    closed.chmod(0)

    def work() -> None:
        assert refusal(root) == f"{closed}: cannot be read as an image (Permission denied)"

    run_without_root(work)


@pytest.mark.parametrize("place", ["", "a", "a/deep"])
def test_a_folder_that_may_not_be_listed_is_named(root: Path, place: str) -> None:
    closed = root / place
    closed.mkdir(exist_ok=True)
    closed.chmod(0)

    def work() -> None:
        assert refusal(root).endswith(": Permission denied") and str(closed) in refusal(root)

    run_without_root(work)
    closed.chmod(0o755)


def test_a_folder_below_one_that_is_closed_is_named(root: Path) -> None:
    root.parent.chmod(0)

    def work() -> None:
        assert refusal(root) == f"data.root: {root}: Permission denied"

    run_without_root(work)


def test_links_that_go_round_are_named(root: Path) -> None:
    loop = root / "a" / "loop.png"
    loop.symlink_to(loop)
    assert refusal(root) == f"{loop}: cannot be read as an image (Too many levels of symbolic links)"
    loop.unlink()
    (root / "round").symlink_to(root / "round")
    assert "Too many levels of symbolic links" in refusal(root)
    (root / "round").unlink()
    endless = root.with_name("endless")
    endless.symlink_to(endless)
    assert "endless" in refusal(endless)


def test_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "a" / "pipe.jpg")
    assert refusal(root) == f"{root}/a/pipe.jpg: cannot be read as an image (not a regular file)"


def test_a_root_that_cannot_be_is_one_line(root: Path) -> None:
    assert "is not a folder" in refusal(root / "0.png")
    assert "File name too long" in refusal(root / ("x" * 300))
    assert "embedded null byte" in refusal(Path(f"{root}\0"))
    assert "is not a folder" in refusal(Path(f"{root}\nx"))


def test_a_file_whose_name_breaks_the_line_stays_on_one(root: Path) -> None:
    (root / "a" / "two\nlines.png").write_bytes(b"no image")
    assert r"two\nlines.png: cannot be read as an image" in refusal(root)


def test_a_picture_of_another_kind_than_its_name_says_is_read(root: Path) -> None:
    kinds = [("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "RGB"), ("GIF", "P"), ("BMP", "RGB")]
    for number, (form, mode) in enumerate(kinds):
        Image.new("RGB", (8, 8), "white").convert(mode).save(root / "a" / f"9{number}.jpg", form)
    found = imagefolder(root, test_fraction=0.0)
    assert sum(bool((image >= 250).all()) for part in (found.train, found.val) for image in pixels(part)) == 5


# Left out


def broken(root: Path) -> list[Path]:
    """Break three files in different ways."""
    (root / "a" / "00.png").write_bytes(b"")
    (root / "b" / "01.png").write_bytes((root / "b" / "01.png").read_bytes()[:100])
    (root / "b" / "extra.jpg").write_text("this is no image")
    return [root / "a" / "00.png", root / "b" / "01.png", root / "b" / "extra.jpg"]


@pytest.mark.parametrize("placement", ["host", "disk"])
def test_broken_files_are_left_out_counted_and_told(root: Path, tmp_path: Path, placement: str) -> None:
    rows = {row.numpy().tobytes() for part in parts(imagefolder(root)) for row in pixels(part)}
    whole = {Path(path): np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() for path in root.rglob("*.png")}
    bad = broken(root)
    for cache in (None, str(tmp_path), str(tmp_path)):  # none, made, used
        found = imagefolder(root, bad_images="skip", placement=placement, cache=cache)
        left = {row.numpy().tobytes() for part in parts(found) for row in pixels(part)}
        assert left == rows - {whole[path] for path in bad[:2]}
        counts = [note.split(" images, the first is ")[0] for note in found.notes]
        lost = 41 - sum(len(part.labels) for part in parts(found))
        assert lost == 3
        assert sum(int(words.split()[2]) for words in counts) in (2, 3)  # the test split speaks when it is opened
        assert all("cannot be read as an image (" in note and note.isprintable() for note in found.notes)
        with pytest.raises(DataError, match=r"cannot be read as an image"):
            for part in parts(imagefolder(root, placement=placement, cache=cache)):
                pixels(part)


def parts(found: Data) -> list[Split]:
    assert found.test is not None
    return [found.train, found.val, found.test()]


def test_the_splits_of_the_others_do_not_move(root: Path) -> None:
    found = imagefolder(root)
    validation = {row.numpy().tobytes() for row in pixels(found.val)}
    broken(root)
    (root / "b" / "extra.jpg").unlink()  # a file more is another set
    less = {row.numpy().tobytes() for row in pixels(imagefolder(root, bad_images="skip").val)}
    assert less <= validation and len(validation - less) <= 2


def test_a_file_that_is_mended_comes_back(root: Path, tmp_path: Path) -> None:
    victim = root / "a" / "00.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:60])
    count = lambda: sum(  # noqa: E731
        len(part.labels) for part in parts(imagefolder(root, bad_images="skip", cache=str(tmp_path)))
    )
    assert count() == 39
    victim.write_bytes(whole)
    assert count() == 40


def test_a_class_of_which_nothing_is_left_is_named(root: Path) -> None:
    for path in (root / "a").iterdir():
        path.write_bytes(b"")
    assert "class 'a' has no image to train on that can be read" in refusal(root, bad_images="skip")


def test_what_was_left_out_stands_in_the_summary(root: Path) -> None:
    broken(root)
    words = ["data=imagefolder", f"data.root={root}", "data.size=[8,8]", "data.bad_images=skip", "model=linear"]
    summary = "\n".join(assemble(job(*words, "augment=[]").config).summary)
    assert "data: skipped" in summary and "cannot be read as an image" in summary


def test_a_run_refused_for_its_images_leaves_nothing(root: Path, tmp_path: Path) -> None:
    victim = broken(root)[0]
    run = command(
        "data=imagefolder", f"data.root={root}", "data.size=[8,8]", "model=linear", "augment=[]", "steps=3",
        cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "caches"),
    )  # fmt: skip
    assert run.returncode == 7
    assert run.stderr == f"runner: error: {victim}: cannot be read as an image (cannot identify image file)\n"
    # Only digests of files stay, for the next start
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "fingerprints"] == []


def test_a_run_with_loader_processes_is_the_run_without(root: Path, tmp_path: Path) -> None:
    from running import checkpoint_checksums, metrics

    words = ("data=imagefolder", f"data.root={root}", "data.size=[8,8]", "data.crop=resized", "data.batch_size=8",
             "model=linear", "augment=[hflip]", "steps=12", "figures=never", "probe=[]")  # fmt: skip
    for workers in (0, 2):
        start(job(*words, f"data.workers={workers}", f"hydra.run.dir={tmp_path / str(workers)}"))
    assert result(tmp_path / "2")["status"] == "done"
    assert metrics(tmp_path / "0") == metrics(tmp_path / "2")
    assert checkpoint_checksums(tmp_path / "0") == checkpoint_checksums(tmp_path / "2")
