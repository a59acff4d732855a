"""Image folders: layouts, fixed splits, pixels, and errors for unusable folders and files."""

from __future__ import annotations

import shutil
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from runner import components  # noqa: F401  (registers all)
from runner.components.data.pixels.image_files import ImageFiles
from runner.engine.contracts import Data, Images, Split
from runner.errors import ConfigError, DataError
from runner.registry import build

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT.parent / "shared" / "data" / "cifar10-jpeg.tar.xz"
YAML = ROOT / "conf" / "data" / "imagefolder.yaml"


def imagefolder(root: Path, **changes: Any) -> Data:
    return build("data", {**yaml.safe_load(YAML.read_text()), "root": str(root), **changes})


def pixels(split: Split) -> Tensor:
    return split.fetch(torch.arange(len(split.labels)))


def rows(split: Split) -> set[bytes]:
    return {row.numpy().tobytes() for row in pixels(split)}


def opened(found: Data) -> Split:
    assert found.test is not None
    return found.test()


def unpack(folder: Path, per_class: int) -> None:
    """Put photographs of two classes of CIFAR-10 under folder/<class>, or made ones where there is no archive."""
    if not ARCHIVE.is_file():
        random = np.random.default_rng(0)
        for name in ("airplane", "automobile"):
            (folder / name).mkdir(parents=True)
            for i in range(per_class):
                coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
                coarse.resize((32, 32)).save(folder / name / f"{i:04}.jpg", quality=75)
        return
    with tarfile.open(ARCHIVE, "r|xz") as tar:
        for member in tar:
            _, name, file = Path(member.name).parts if member.name.count("/") == 2 else ("", "", "")
            if name == "bird":
                break
            if member.isfile() and int(file[:4]) < per_class:
                (folder / name).mkdir(parents=True, exist_ok=True)
                (folder / name / file).write_bytes(tar.extractfile(member).read())


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    unpack(folder, per_class=60)
    return folder


@pytest.fixture
def flat(photographs: Path, tmp_path: Path) -> Path:
    shutil.copytree(photographs, tmp_path / "flat")
    return tmp_path / "flat"


def test_pixels_are_pillows_and_labels_are_the_sorted_folders(photographs: Path, tmp_path: Path) -> None:
    shutil.copytree(photographs, tmp_path / "train")
    shutil.copytree(photographs, tmp_path / "valid")
    found = imagefolder(tmp_path)
    files = sorted((tmp_path / "train").rglob("*.jpg"))
    wanted = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]).transpose(0, 3, 1, 2)
    assert torch.equal(pixels(found.train), torch.from_numpy(wanted))
    assert found.classes == ("airplane", "automobile") and found.shape == (3, 32, 32)
    assert found.train.labels.tolist() == [0] * 60 + [1] * 60
    assert isinstance(found.train, Images) and len(found.val.labels) == 120 and found.test is None


def test_a_flat_folder_falls_into_three_fixed_stratified_parts(flat: Path) -> None:
    first, second = imagefolder(flat), imagefolder(flat)
    parts = [first.train, first.val, opened(first)]
    assert [part.labels.bincount().tolist() for part in parts] == [[48, 48], [6, 6], [6, 6]]
    assert len(set.union(*map(rows, parts))) == 120
    assert torch.equal(pixels(first.val), pixels(second.val))
    moved = flat.rename(flat.with_name("elsewhere"))
    assert rows(imagefolder(moved).val) == rows(first.val)  # paths count from the root on


def test_validation_comes_from_train_where_there_is_no_folder_for_it(photographs: Path, tmp_path: Path) -> None:
    shutil.copytree(photographs, tmp_path / "train")
    shutil.copytree(photographs, tmp_path / "test")
    found = imagefolder(tmp_path, val_fraction=0.2)
    assert found.val.labels.bincount().tolist() == [12, 12] and found.train.labels.bincount().tolist() == [48, 48]
    assert not rows(found.val) & rows(found.train)
    assert len(opened(found).labels) == 120


def test_decoding_per_batch_gives_the_same_pixels(flat: Path) -> None:
    kept, streamed = imagefolder(flat), imagefolder(flat, memory=0, workers=2)
    assert isinstance(streamed.train, ImageFiles)
    for a, b in zip(
        (kept.train, kept.val, opened(kept)), (streamed.train, streamed.val, opened(streamed)), strict=True
    ):
        assert torch.equal(pixels(a), pixels(b)) and torch.equal(a.labels, b.labels)
    index = torch.tensor([70, 3, 70])
    assert torch.equal(kept.train.fetch(index), streamed.train.fetch(index))


def test_the_test_split_is_not_decoded_before_it_is_opened(photographs: Path, tmp_path: Path) -> None:
    shutil.copytree(photographs, tmp_path / "train")
    (tmp_path / "test" / "airplane").mkdir(parents=True)
    (tmp_path / "test" / "airplane" / "broken.jpg").write_bytes(b"no image")
    found = imagefolder(tmp_path)
    with pytest.raises(DataError, match=r"broken.jpg"):
        opened(found)


def test_images_are_scaled_to_cover_the_size_and_cropped_at_the_center(flat: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 18:42] = 200  # the middle third, which is all that a square crop keeps, and what antialiasing reaches
    Image.fromarray(wide).save(flat / "airplane" / "9999.png")
    train = imagefolder(flat, size=[10, 10], val_fraction=0.01, test_fraction=0.0).train
    assert pixels(train).shape[1:] == (3, 10, 10)
    assert any((image == 200).all() for image in pixels(train))
    tall = imagefolder(flat, size=[10, 6], val_fraction=0.01, test_fraction=0.0)
    assert tall.shape == pixels(tall.train).shape[1:] == (3, 10, 6)


def test_every_kind_of_image_becomes_rgb_of_eight_bits(tmp_path: Path) -> None:
    gray = np.full((4, 4), 100, np.uint8)
    color = np.tile(np.array([10, 20, 30], np.uint8), (4, 4, 1))
    cases: dict[str, tuple[Image.Image, tuple[int, int, int]]] = {
        "gray.png": (Image.fromarray(gray), (100, 100, 100)),
        "sixteen.png": (Image.fromarray(gray.astype(np.uint16) << 8), (100, 100, 100)),
        "alpha.png": (Image.fromarray(np.dstack([color, gray])), (10, 20, 30)),
        "palette.png": (Image.fromarray(color).quantize(4), (10, 20, 30)),
        "cmyk.tif": (Image.fromarray(color).convert("CMYK"), (10, 20, 30)),
        "color.bmp": (Image.fromarray(color), (10, 20, 30)),
        "color.ppm": (Image.fromarray(color), (10, 20, 30)),
        "moving.gif": (Image.fromarray(gray), (100, 100, 100)),
        "UPPER.PNG": (Image.fromarray(gray), (100, 100, 100)),
    }
    for name, (image, _) in cases.items():
        folder = tmp_path / "train" / name.replace(".", "_")
        folder.mkdir(parents=True)
        extra = {"save_all": True, "append_images": [Image.fromarray(gray * 0)]} if name == "moving.gif" else {}
        image.save(folder / name, **extra)
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    found = imagefolder(tmp_path, size=[4, 4], depth=16)
    for image, label in zip(pixels(found.train), found.train.labels, strict=True):
        name = next(case for case in cases if case.replace(".", "_") == found.classes[label])
        assert (image == torch.tensor(cases[name][1])[:, None, None]).all(), name


def test_a_photograph_stands_as_its_exif_orientation_says(tmp_path: Path) -> None:
    half = np.zeros((8, 8, 3), np.uint8)
    half[:4] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(half).save(tmp_path / split / name / "0.jpg", exif=exif)
    image = pixels(imagefolder(tmp_path, size=[8, 8]).train)[0]
    assert image[:, 5:].min() > 200 and image[:, :3].max() < 50


def test_a_large_jpeg_is_close_to_its_full_decoding(flat: Path) -> None:
    small = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize((800, 800), Image.Resampling.BICUBIC).save(flat / "airplane" / "9999.jpg", quality=95)
    with Image.open(flat / "airplane" / "9999.jpg") as image:
        wanted = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1).astype(int)
    train = imagefolder(flat, val_fraction=0.01, test_fraction=0.0).train
    assert min(np.abs(found.numpy() - wanted).max() for found in pixels(train)) <= 4


# What cannot be used, found before a run starts


def refused(root: Path, *words: str, **changes: Any) -> None:
    with pytest.raises(DataError) as caught:
        imagefolder(root, **changes)
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 7
    for word in words:
        assert word in message, message


def test_hidden_files_and_folders_do_not_count(flat: Path) -> None:
    (flat / "airplane" / "._0000.jpg").write_bytes(b"what macOS leaves beside a file")
    (flat / ".git").mkdir()
    (flat / "__MACOSX").mkdir()
    (flat / "readme.txt").write_text("not a class")
    assert len(imagefolder(flat).train.labels) == 96


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", str(tmp_path / "nowhere"), "not a folder")


def test_a_folder_without_classes_is_named(tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    refused(tmp_path, str(tmp_path), "no class folders")


def test_one_class_is_nothing_to_learn(flat: Path) -> None:
    shutil.rmtree(flat / "airplane")
    refused(flat, "only one class", "automobile")


def test_an_empty_class_is_named(flat: Path) -> None:
    (flat / "zebra").mkdir()
    (flat / "zebra" / "notes.txt").write_text("none yet")
    refused(flat, "class 'zebra' has no images")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_unknown_to_train_is_named(photographs: Path, tmp_path: Path, split: str) -> None:
    shutil.copytree(photographs, tmp_path / "train")
    shutil.copytree(photographs, tmp_path / split)
    (tmp_path / split / "airplane").rename(tmp_path / split / "glider")
    refused(tmp_path, f"{split}/glider", "class 'glider' is not in the training split")


def test_two_validation_folders_are_refused(photographs: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "valid"):
        shutil.copytree(photographs, tmp_path / split)
    refused(tmp_path, "keep one")


BROKEN = {
    "empty": b"",
    "text": b"this is no image",
    "jpeg head": b"\xff\xd8\xff\xe0",
    "png of zeros": b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
}


@pytest.mark.parametrize("memory", [4096, 0])
@pytest.mark.parametrize("broken", [*BROKEN, "half jpeg", "half png", "gone"])
def test_a_broken_file_is_named_whether_kept_or_streamed(flat: Path, broken: str, memory: int) -> None:
    path = flat / "automobile" / ("bad.png" if broken == "half png" else "bad.jpg")
    whole = flat / "automobile" / "0000.jpg"
    if broken in BROKEN:
        path.write_bytes(BROKEN[broken])
    elif broken == "half jpeg":
        path.write_bytes(whole.read_bytes()[:500])
    elif broken == "half png":
        Image.open(whole).save(path)
        path.write_bytes(path.read_bytes()[:1500])
    else:
        path.symlink_to(flat / "nothing.jpg")
    refused(flat, str(path), "cannot be read as an image", memory=memory)


def test_a_decompression_bomb_is_refused(flat: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (flat / "airplane" / "bomb.png").write_bytes(bomb)
    refused(flat, "bomb.png", "decompression bomb")


def test_a_link_back_to_its_own_folder_ends(flat: Path) -> None:
    (flat / "airplane" / "again").symlink_to(flat, target_is_directory=True)
    assert len(imagefolder(flat, test_fraction=0.0).train.labels) == 108


def test_fractions_that_leave_nothing_are_refused(flat: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.val_fraction: got 0.5, must be < 1 - data.test_fraction"):
        imagefolder(flat, val_fraction=0.5, test_fraction=0.5)
    with pytest.raises(ConfigError, match=r"data.size: got \[32\]"):
        imagefolder(flat, size=[32])
    refused(flat, "data.val_fraction: got 0.001; must select at least one of the 120 images", val_fraction=0.001)
