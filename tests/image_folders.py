"""Folders of image files in every color mode, with orientations, for tests of loading and predicting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ants", "bees", "cats")


def write_mixed_images(root: Path, *, train: int = 8, val: int = 4, test: int = 6, seed: int = 0) -> Path:
    """Write splits of three classes: JPEG, rotated by EXIF, gray, transparent, palette and 16-bit files, 20 to 60."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val), ("test", test)):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                _write(folder, number, label, random)
    return root


def _write(folder: Path, number: int, label: int, random: np.random.Generator) -> None:
    height, width = random.integers(20, 60, 2)
    pixels = random.integers(0, 150, (height, width, 3), dtype=np.uint8)
    pixels[..., label] += 80
    image = Image.fromarray(pixels)
    kind = number % 6
    if kind < 2:
        exif = Image.Exif()
        exif[0x0112] = int(random.integers(2, 9)) if kind else 1
        image.save(folder / f"{number}.jpg", quality=95, exif=exif)
    elif kind == 2:
        image.convert("L").save(folder / f"{number}.png")
    elif kind == 3:
        image.putalpha(Image.fromarray(random.integers(0, 256, (height, width), dtype=np.uint8)))
        image.save(folder / f"{number}.png")
    elif kind == 4:
        image.convert("P").save(folder / f"{number}.gif")
    else:
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(folder / f"{number}.png")


def write_table(path: Path, rows: int = 60) -> None:
    """Write a CSV file of three features and a class that follows from the first."""
    random = np.random.default_rng(0)
    features = random.normal(size=(rows, 3))
    lines = [",".join(f"{x:.6f}" for x in row) + (",high" if row[0] > 0 else ",low") for row in features]
    path.write_text("\n".join(["a,b,c,kind", *lines]) + "\n")
