"""Copies of images in several splits: same bytes or same pixels, reported, dropped or refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from running import ROOT

from runner import components  # noqa: F401  (registers all)
from runner.components.data.layout import find_copies as find_copies_module
from runner.components.data.layout import pixel_digests as module
from runner.components.data.layout.find_copies import find_copies
from runner.components.data.layout.pixel_digests import pixel_digests
from runner.engine.contracts import Data
from runner.engine.data_summary import found_in
from runner.errors import DataError
from runner.registry import build

YAML = yaml.safe_load((ROOT / "conf" / "data" / "imagefolder.yaml").read_text())


def imagefolder(root: Path, **changes: Any) -> Data:
    return build("data", {**YAML, "root": str(root), "size": [8, 8], "workers": 0, "cache": None, **changes})


def photo(seed: int, size: tuple[int, int] = (24, 16), mode: str = "RGB") -> Image.Image:
    """Return a smooth random image; JPEG keeps it nearly as it is."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def save(path: Path, image: Image.Image, **form: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **form)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder of three splits and two classes without copies."""
    for number, (split, count) in enumerate((("train", 6), ("val", 3), ("test", 4))):
        for label, word in enumerate(("cat", "dog")):
            for place in range(count):
                save(tmp_path / split / word / f"{place}.png", photo(1000 * number + 100 * label + place))
    return tmp_path


def notes(data: Data) -> list[str]:
    return [note for note in data.notes if "images" in note and "left out hidden" not in note]


def sizes(data: Data) -> list[int]:
    return [len(data.train.labels), len(data.val.labels), len(data.test().labels) if data.test else 0]


def test_a_folder_without_copies_says_nothing(root: Path) -> None:
    for mode in ("warn", "drop", "error", "ignore"):
        data = imagefolder(root, duplicates=mode)
        assert notes(data) == [] and sizes(data) == [12, 6, 8]


def test_copied_files_are_counted_and_named(root: Path) -> None:
    shutil.copy(root / "test/cat/0.png", root / "train/cat/again.png")
    shutil.copy(root / "test/dog/1.png", root / "train/dog/again.png")
    data = imagefolder(root)
    assert notes(data) == [
        "data: 2 of 8 test images are in train too, 2 with the same bytes (test/cat/0.png = train/cat/again.png, "
        "test/dog/1.png = train/dog/again.png); data.duplicates=drop leaves them out of training"
    ]
    assert sizes(data) == [14, 6, 8]
    assert notes(imagefolder(root, duplicates="ignore")) == []


LOSSLESS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "another compression": ("png", "RGB", {"compress_level": 0}),
    "bmp": ("bmp", "RGB", {}),
    "tiff": ("tiff", "RGB", {}),
    "tiff lzw": ("tif", "RGB", {"compression": "tiff_lzw"}),
    "ppm": ("ppm", "RGB", {}),
    "webp": ("webp", "RGB", {"lossless": True}),
    "with alpha": ("png", "RGBA", {}),
}


@pytest.mark.parametrize("form", LOSSLESS)
def test_a_file_in_another_form_is_found_by_its_pixels(root: Path, form: str) -> None:
    suffix, mode, settings = LOSSLESS[form]
    with Image.open(root / "test/cat/2.png") as image:
        copy = save(root / f"train/cat/copy.{suffix}", image.convert(mode), **settings)
    assert copy.read_bytes() != (root / "test/cat/2.png").read_bytes()
    (note,) = notes(imagefolder(root))
    assert note.startswith(
        f"data: 1 of 8 test images is in train too, 1 with the same pixels (test/cat/2.png = train/cat/copy.{suffix})"
    )


def test_gray_and_palette_images_are_compared_as_rgb(root: Path) -> None:
    gray = photo(7, mode="L")
    save(root / "test/cat/gray.png", gray)
    save(root / "train/cat/rgb.bmp", gray.convert("RGB"))
    few = photo(8).quantize(16)
    save(root / "test/dog/palette.gif", few)
    save(root / "val/dog/rgb.png", few.convert("RGB"))
    found = notes(imagefolder(root))
    assert len(found) == 2
    assert "test/cat/gray.png = train/cat/rgb.bmp" in found[0] and "test/dog/palette.gif = val/dog/rgb.png" in found[1]


def test_a_jpeg_is_found_without_metadata_and_as_a_lossless_file(root: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a photo"
    big = photo(9, (200, 120))
    jpeg = save(root / "test/cat/photo.jpg", big, quality=90, exif=exif)
    save(root / "train/cat/plain.jpg", big, quality=90, optimize=True)
    with Image.open(jpeg) as decoded:
        save(root / "val/cat/decoded.png", decoded.convert("RGB"))
    found = notes(imagefolder(root))
    assert [note.partition(" (")[2].partition(")")[0] for note in found] == [
        "test/cat/photo.jpg = train/cat/plain.jpg",
        "test/cat/photo.jpg = val/cat/decoded.png",
        "val/cat/decoded.png = train/cat/plain.jpg",
    ]


def test_a_turned_file_is_compared_upright(root: Path) -> None:
    image = photo(11, (24, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(root / "test/cat/turned.png", image, exif=exif)
    save(root / "train/cat/upright.png", image.transpose(Image.Transpose.ROTATE_270))
    (note,) = notes(imagefolder(root))
    assert "test/cat/turned.png = train/cat/upright.png" in note


def test_images_that_are_only_alike_are_no_copies(root: Path) -> None:
    image = np.asarray(photo(12, (200, 120))).copy()
    save(root / "test/cat/a.png", Image.fromarray(image))
    image[0, 0, 0] ^= 1
    save(root / "train/cat/one-pixel.png", Image.fromarray(image))
    save(root / "train/cat/again.jpg", Image.fromarray(image), quality=90)
    save(root / "val/cat/other-quality.jpg", Image.fromarray(image), quality=92)
    save(root / "val/cat/resized.png", Image.fromarray(image).resize((100, 60)))
    flat = np.full((16, 24, 4), 200, np.uint8)
    save(root / "test/dog/opaque.png", Image.fromarray(flat[..., :3]))
    flat[0, 0, 3] = 0
    save(root / "train/dog/transparent.png", Image.fromarray(flat))
    deep = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24) * 100
    save(root / "test/dog/deep.png", Image.fromarray(deep))
    save(root / "train/dog/deep.png", Image.fromarray(deep + 1))
    assert [note for note in notes(imagefolder(root)) if " too, " in note] == []


def test_files_of_16_bits_are_compared_as_such(root: Path) -> None:
    deep = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24) * 100
    save(root / "test/dog/deep.png", Image.fromarray(deep))
    save(root / "train/dog/deep.png", Image.fromarray(deep), compress_level=1)
    (note,) = [note for note in notes(imagefolder(root)) if " too, " in note]
    assert "test/dog/deep.png = train/dog/deep.png" in note


def test_drop_keeps_the_test_images_and_takes_from_training_first(root: Path) -> None:
    shutil.copy(root / "test/cat/0.png", root / "train/cat/x.png")
    shutil.copy(root / "test/cat/0.png", root / "val/cat/x.png")
    shutil.copy(root / "val/dog/1.png", root / "train/dog/x.png")
    shutil.copy(root / "val/dog/1.png", root / "train/dog/y.png")
    data = imagefolder(root, duplicates="drop")
    assert sizes(data) == [12, 6, 8]
    assert data.notes[-1] == "data: left out 3 training and 1 validation images (data.duplicates=drop)"
    plain = imagefolder(root, duplicates="ignore")
    assert sizes(plain) == [15, 7, 8]

    def rows(data: Data) -> list[set[bytes]]:
        parts = [data.train, data.val, data.test()]
        return [{p.numpy().tobytes() for p in part.fetch(torch.arange(len(part.labels)))} for part in parts]

    train, val, test = rows(data)
    assert not train & val and not train & test and not val & test
    assert val | train | test == set.union(*rows(plain))
    assert (
        found_in(data)
        .line(data.classes, "images")
        .endswith("train 12 (3 copies left out), val 6 (1 copy left out), test 8")
    )


def test_drop_takes_copies_away_before_the_limit(root: Path) -> None:
    shutil.copy(root / "test/cat/0.png", root / "train/cat/x.png")
    assert sizes(imagefolder(root, duplicates="drop", limit=12)) == [12, 6, 8]
    data = imagefolder(root, duplicates="drop", limit=10)
    assert "train 10 (of 12, data.limit, 1 copy left out), val 6, " in found_in(data).line(data.classes, "images")


def test_drop_that_leaves_nothing_is_refused(root: Path) -> None:
    for file in (root / "train/cat").iterdir():
        shutil.copy(file, root / "test/cat" / f"copy-{file.name}")
    with pytest.raises(DataError, match="leaves no training image of class 'cat': all have copies in other splits"):
        imagefolder(root, duplicates="drop")
    shutil.rmtree(root / "val")
    shutil.copytree(root / "test", root / "val")
    with pytest.raises(DataError, match="leaves no validation image"):
        imagefolder(root, duplicates="drop")


def test_error_refuses_with_the_names(root: Path) -> None:
    shutil.copy(root / "val/cat/0.png", root / "train/cat/x.png")
    with pytest.raises(DataError) as caught:
        imagefolder(root, duplicates="error")
    assert str(caught.value) == (
        "data.duplicates: 1 of 6 val images is in train too, 1 with the same bytes (val/cat/0.png = train/cat/x.png); "
        "remove them, or choose drop or warn"
    )


def test_copies_with_another_label_are_named_in_one_split_too(root: Path) -> None:
    shutil.copy(root / "train/cat/0.png", root / "train/dog/x.png")
    shutil.copy(root / "train/cat/1.png", root / "train/cat/same-label.png")
    data = imagefolder(root)
    assert notes(data) == [
        "data: 2 images have copies with another label (train/cat/0.png 'cat' = train/dog/x.png 'dog')"
    ]
    assert notes(imagefolder(root, duplicates="error")) == notes(data)


def test_the_splits_that_a_run_makes_are_checked_too(tmp_path: Path) -> None:
    for word in ("cat", "dog"):
        for place in range(30):
            save(tmp_path / word / f"{place}.png", photo(place // 2 + 100 * len(word) * (word == "cat")))
    found = notes(imagefolder(tmp_path))
    assert any(" test images " in note and "in train too" in note for note in found)


def test_broken_files_and_links_and_pipes_are_left_to_the_reader(root: Path) -> None:
    (root / "train/cat/broken.png").write_bytes(b"")
    (root / "test/cat/broken.png").write_bytes(b"")
    (root / "train/dog/text.png").write_text("no image")
    (root / "val/dog/text.png").write_text("an image, no")
    (root / "train/dog/link.png").symlink_to("nowhere")
    (root / "train/dog/link2.png").symlink_to(root / "test/dog/0.png")
    os.mkfifo(root / "train/dog/pipe.png")
    data = imagefolder(root, bad_images="skip")
    assert [note for note in notes(data) if "too" in note] == [
        "data: 1 of 9 test images is in train too, 1 with the same bytes (test/dog/0.png = train/dog/link2.png); "
        "data.duplicates=drop leaves them out of training"
    ]


def test_digests_are_kept_and_follow_a_change(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(map(str, root.rglob("*.png")))
    old = 1_000_000_000
    monkeypatch.setattr(module.time, "time_ns", lambda: 4 * 10**18)
    for file in files:
        os.utime(file, (old, old))
    shutil.copy(files[0], root / "copy.png")
    files.append(str(root / "copy.png"))
    looked: list[str] = []
    look = module._look
    monkeypatch.setattr(module, "_look", lambda path, *, eighth: looked.append(path) or look(path, eighth=eighth))
    first = pixel_digests(root, files)
    assert first[0] == first[-1] is not None and first[1:-1] == [None] * (len(files) - 2)
    assert len(looked) == len(files) + 2
    looked.clear()
    assert pixel_digests(root, files) == first and looked == []
    # Other contents of equal size with the old time
    data = Path(files[1]).read_bytes()
    Path(files[1]).write_bytes(data)
    os.utime(files[1], (old, old))
    pixel_digests(root, files)
    assert set(looked) == {files[1]}


def test_the_answer_for_an_unchanged_set_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(root / "test/cat/0.png", root / "train/cat/x.png")
    files = sorted(map(str, root.rglob("*.png")))
    monkeypatch.setattr(find_copies_module.time, "time_ns", lambda: 4 * 10**18)
    calls: list[int] = []
    compare = find_copies_module._compare
    monkeypatch.setattr(find_copies_module, "_compare", lambda *given: calls.append(1) or compare(*given))
    first = find_copies(root, files)
    assert [[files[place].removeprefix(f"{root}/") for place, _ in group] for group in first] == [
        ["test/cat/0.png", "train/cat/x.png"]
    ]
    assert find_copies(root, files) == first and calls == [1]
    # Another order is another question
    assert len(find_copies(root, files[::-1])) == 1 and calls == [1, 1]
    for damage in (b"", b"[[[0, 0], [99, 0]]]", b"{}x", b"[1]"):
        for path in find_copies_module.cache_home().glob("*.copies"):
            path.write_bytes(damage)
        assert find_copies(root, files) == first
    calls.clear()
    (root / "train/cat/x.png").unlink()
    assert find_copies(root, [file for file in files if not file.endswith("x.png")]) == [] and calls == [1]


def test_few_files_are_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in range(50):
        save(tmp_path / f"{place}.jpg", photo(place, (64, 48)), quality=90)
    save(tmp_path / "other.png", photo(999, (64, 48)))
    whole: list[str] = []
    look = module._look
    monkeypatch.setattr(
        module, "_look", lambda path, *, eighth: (None if eighth else whole.append(path)) or look(path, eighth=eighth)
    )
    found = [each for each in pixel_digests(tmp_path, sorted(map(str, tmp_path.iterdir()))) if each]
    assert len(set(found)) == len(found) == len(whole) <= 10
