"""The test whether a file counts as an image."""

from __future__ import annotations

# Suffixes of the formats that `decode` reads
_SUFFIXES = frozenset(
    {
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "bmp", "dib", "webp", "gif"),
        *("ppm", "pgm", "pbm", "pnm", "tif", "tiff"),
    }
)


def is_image(path: str) -> bool:
    """Return True if a file counts as an image, by its name."""
    return path.rpartition(".")[2].lower() in _SUFFIXES
