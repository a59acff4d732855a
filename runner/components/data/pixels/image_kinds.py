"""Recognize images by their suffix or first bytes, and open them.

A known suffix decides without opening the file. Any other file, such as one without a suffix, is an image if its first
bytes say so. The suffix of an image does not choose its decoder: an AVIF file named `.jpg` is read as AVIF.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from runner.user_paths import full

# Formats whose first bytes are unmistakable, with their suffixes, the frequent ones first
_BY_CONTENT = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif", "mpo"),
    "PNG": ("png", "apng"),
    "BMP": ("bmp",),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "PPM": ("ppm", "pgm", "pbm", "pnm", "pam", "pfm"),
    "TIFF": ("tif", "tiff"),
    "AVIF": ("avif", "avifs"),
    "JPEG2000": ("jp2", "j2k", "jpc", "jpf", "jpx", "j2c"),
    "ICO": ("ico",),
    "PSD": ("psd",),
    "QOI": ("qoi",),
    "DDS": ("dds",),
    "SGI": ("sgi", "rgb", "rgba", "bw"),
    "SUN": ("ras",),
    "ICNS": ("icns",),
    "XPM": ("xpm",),
    "FITS": ("fits",),
    "BLP": ("blp",),
    "FTEX": ("ftc", "ftu"),
}
_FORMATS = tuple(_BY_CONTENT)
# Formats that other files may seem to have: only tried where the suffix names them
_BY_SUFFIX = {
    "TGA": ("tga", "icb", "vda", "vst"),
    "DIB": ("dib",),
    "PCX": ("pcx",),
    "DCX": ("dcx",),
    "CUR": ("cur",),
    "FLI": ("fli", "flc"),
    "MSP": ("msp",),
    "PIXAR": ("pxr",),
    "XBM": ("xbm",),
}
# Read if the package pillow-heif is installed
_HEIF = ("heic", "heics", "heif", "heifs", "hif")
_WEAK = {suffix: name for name, suffixes in _BY_SUFFIX.items() for suffix in suffixes}
_SUFFIXES = frozenset({*_WEAK, *_HEIF, *(suffix for suffixes in _BY_CONTENT.values() for suffix in suffixes)})
# Never opened. Raw photographs are TIFF files of which Pillow would read the thumbnail; PostScript is a program
_OTHERS = frozenset(
    {
        *("txt", "csv", "tsv", "json", "jsonl", "md", "rst", "xml", "yaml", "yml", "toml", "ini", "cfg", "conf"),
        *("log", "html", "htm", "url", "lnk", "md5", "sha1", "sha256", "lock", "tmp", "part"),
        *("css", "js", "ts", "py", "ipynb", "pyc", "sh", "bat", "c", "h", "cpp", "m", "r", "exe", "dll", "so"),
        *("mp4", "mov", "avi", "mkv", "webm", "wmv", "m4v", "mpg", "mpeg", "mp3", "wav", "flac", "ogg", "m4a"),
        *("zip", "tar", "gz", "tgz", "bz2", "xz", "7z", "rar", "zst", "npy", "npz", "pkl", "pickle", "pt", "pth"),
        *("ckpt", "onnx", "h5", "hdf", "hdf5", "mat", "parquet", "arrow", "feather", "db", "sqlite"),
        *("sqlite3", "lmdb", "mdb", "tfrecord", "xls", "xlsx", "doc", "docx", "ppt", "pptx", "odt"),
        *("pdf", "ps", "eps", "ai", "svg", "pts", "lab", "obj", "stl", "ply", "pcd", "dcm", "nii", "exr", "hdr", "jxl"),
        *("dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf", "pef", "srw"),
    }
)
_HEAD = 32
_MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"MM*\0"),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"8BPS\0\1", b"qoif", b"DDS ", b"\x59\xa6\x6a\x95", b"icns"),
    *(b"\0\0\1\0", b"\1\xda\0", b"\1\xda\1", b"/* XPM */", b"SIMPLE  =", b"BLP1", b"BLP2", b"FTEX"),
)
_FTYP_IMAGES = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevx", b"mif1", b"msf1")


def is_image(path: str) -> bool:
    """Return True if a file is an image: by its suffix, or by its first bytes where the suffix is unknown."""
    suffix = _suffix(path)
    return suffix in _SUFFIXES or (suffix not in _OTHERS and _has_magic(first_bytes(path)))


def open_image(path: str) -> Any:
    """Return an opened Pillow image, of whatever format the content has.

    Raises:
        ValueError: It is of no format that Pillow reads; the message says what to do where something helps.
    """
    from PIL import Image, UnidentifiedImageError

    weak = _WEAK.get(_suffix(path))
    formats = (*_FORMATS, weak) if weak else _FORMATS
    try:
        return Image.open(full(path), formats=formats)
    except KeyError as error:
        # Other versions of Pillow have fewer formats
        if error.args[0] not in formats:
            raise
        return Image.open(full(path), formats=[name for name in formats if name in Image.OPEN])
    except UnidentifiedImageError as error:
        head = first_bytes(path)
        if head[4:8] == b"ftyp" and head[8:12] in _FTYP_IMAGES:
            return _open_heif(path, error)
        if head.startswith((b"II", b"MM")):
            raise ValueError("a TIFF with more bands, or of other types, than Pillow reads") from error
        raise


def _open_heif(path: str, error: Exception) -> Any:
    """Return an opened HEIC image if pillow-heif is installed."""
    from PIL import Image

    try:
        from pillow_heif import register_heif_opener  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ValueError("HEIC and HEIF images require pillow-heif: pip install pillow-heif") from error
    register_heif_opener()
    return Image.open(full(path), formats=("HEIF",))


def _suffix(path: str) -> str:
    """Return what follows the last dot of a path, in lower case."""
    return path.rpartition(".")[2].lower()


def first_bytes(path: str) -> bytes:
    """Return the first bytes of a regular file, none of a file that cannot be read."""
    try:
        # Opening a pipe would wait for a writer
        file = os.open(full(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return b""
    try:
        return os.read(file, _HEAD) if stat.S_ISREG(os.fstat(file).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(file)


def _has_magic(head: bytes) -> bool:
    """Return True if a file with these first bytes is an image."""
    return (
        head.startswith(_MAGIC)
        or (head[:2] == b"BM" and head[6:10] == b"\0\0\0\0")
        or (head[:1] == b"P" and head[1:2] in b"1234567fFy" and head[2:3] in b" \t\r\n" and len(head) > 2)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in _FTYP_IMAGES)
    )
