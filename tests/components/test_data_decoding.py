"""From files to pixels: formats, orientations, depths, transparency, bands, shapes and what decoders say."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin
from torch import Tensor

from runner import components  # noqa: F401  (registers all)
from runner.components.data.pixels import validate_images
from runner.components.data.pixels.color_modes import Alpha, Colors
from runner.components.data.pixels.decode import CropBounds, View, call_decoder, decode, decode_crop
from runner.components.data.pixels.decoder_messages import Findings, routed
from runner.components.data.pixels.image_kinds import is_image
from runner.engine.contracts import Data, Split
from runner.errors import ConfigError, DataError
from runner.registry import build

YAML = Path(__file__).parents[2] / "conf" / "data" / "imagefolder.yaml"
WHOLE = View((12, 16))
GRAY = View((12, 16), colors=Colors(channels=1))
DRAW = np.random.default_rng(0)
# Smooth and pale, so that lossy formats are close to it
COLOR = np.asarray(Image.fromarray(DRAW.integers(90, 166, (3, 4, 3), dtype=np.uint8)).resize((16, 12)))


def imagefolder(root: Path, **changes: Any) -> Data:
    knobs = {**yaml.safe_load(YAML.read_text()), "size": [4, 4], "cache": None, "workers": 0, "root": str(root)}
    return build("data", {**knobs, **changes})


def pixels(split: Split) -> Tensor:
    return split.fetch(torch.arange(len(split.labels)))


def written(path: Path, image: Image.Image, form: str, **knobs: Any) -> str:
    image.save(path, form, **knobs)
    return str(path)


def said(path: str, view: View = WHOLE) -> list[str]:
    with routed:
        return call_decoder(path, lambda file: decode(file, view))[1]


def put(root: Path, split: str, images: list[NDArray[Any]], kind: str = "png") -> None:
    """Write images under root/<split>/a and b, in turn."""
    for i, image in enumerate(images):
        folder = root / split / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.{kind}")


# Formats


@pytest.mark.parametrize(
    ("form", "suffixes", "tolerance"),
    [
        ("JPEG", ["jpg", "jpeg", "jpe", "jfif"], 40),
        ("PNG", ["png", "apng"], 0),
        ("BMP", ["bmp"], 0),
        ("WEBP", ["webp"], 40),
        ("GIF", ["gif"], 40),
        ("PPM", ["ppm", "pnm"], 0),
        ("TIFF", ["tif", "tiff"], 0),
        ("AVIF", ["avif"], 40),
        ("JPEG2000", ["jp2", "j2k"], 40),
        ("SGI", ["sgi", "rgb"], 0),
        ("QOI", ["qoi"], 0),
        ("DDS", ["dds"], 0),
    ],
)
def test_a_format_is_known_by_its_content_under_any_name(
    tmp_path: Path, form: str, suffixes: list[str], tolerance: int
) -> None:
    names = [
        *(f"x.{suffix}" for suffix in suffixes),
        "X." + suffixes[0].upper(),
        "bare",
        "b.0001",
        "wrong.jpg",
        "w.png",
    ]
    for name in names:
        path = written(tmp_path / name, Image.fromarray(COLOR), form)
        assert is_image(path), name
        found = decode(path, WHOLE).transpose(1, 2, 0).astype(int)
        assert np.abs(found - COLOR).max() <= tolerance, name


@pytest.mark.parametrize(("suffix", "form"), [("tga", "TGA"), ("pcx", "PCX"), ("dib", "DIB")])
def test_a_format_without_a_signature_is_known_by_its_suffix(tmp_path: Path, suffix: str, form: str) -> None:
    path = written(tmp_path / f"x.{suffix}", Image.fromarray(COLOR), form)
    assert is_image(path) and (decode(path, WHOLE) == COLOR.transpose(2, 0, 1)).all()


@pytest.mark.parametrize(("magic", "body"), [(b"P1", b"0 1 1 0"), (b"P2", b"255 0 0 255"), (b"P4", b"\x40\x80")])
def test_bitmaps_and_graymaps_of_every_spelling(tmp_path: Path, magic: bytes, body: bytes) -> None:
    header = magic + b"\n2 2\n" + (b"255\n" if magic == b"P2" else b"")
    for name in ("x.pbm", "x.pgm", "x.pnm", "x"):
        (tmp_path / name).write_bytes(header + body)
        assert is_image(str(tmp_path / name))
        found = decode(str(tmp_path / name), View((2, 2), colors=Colors(channels=1)))
        assert found.tolist() == [[[255, 0], [0, 255]]]


@pytest.mark.parametrize("name", ["notes.txt", "x.csv", "x.mp4", "a.zip", "photo.nef", "page.eps", "README", "x.part"])
def test_other_files_are_no_images(tmp_path: Path, name: str) -> None:
    content = b"II*\0" if name == "photo.nef" else b"BMW, P5 and GIF are words"
    (tmp_path / name).write_bytes(content)
    assert not is_image(str(tmp_path / name))


def test_a_known_suffix_is_not_opened() -> None:
    assert is_image("/nowhere/x.jpg") and not is_image("/nowhere/x.txt") and not is_image("/nowhere/x")


def test_heic_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "x.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 20)
    try:
        import pillow_heif  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        assert is_image(str(path))
        with routed, pytest.raises(DataError, match=r"x\.heic: .* require pillow-heif: pip install pillow-heif"):
            call_decoder(str(path), lambda file: decode(file, WHOLE))


# Orientation


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def oriented(path: Path, source: str, orientation: int) -> str:
    """Write COLOR with an orientation in some place of the file."""
    image, exif, xmp = Image.fromarray(COLOR), Image.Exif(), f'<x tiff:Orientation="{orientation}"/>'
    exif[0x0112] = orientation
    if source == "exif":
        return written(path, image, "JPEG", exif=exif, quality=95)
    if source in ("xmp in JPEG", "xmp in WebP"):
        form = source.split()[-1].upper()
        return written(path, image, form, xmp=xmp.encode(), quality=95)
    if source in ("exif in AVIF", "exif in WebP", "exif in TIFF"):
        return written(path, image, source.split()[-1].upper(), exif=exif)
    info = PngImagePlugin.PngInfo()
    if source == "xmp in PNG":
        info.add_itxt("XML:com.adobe.xmp", xmp)
    if source == "raw profile":
        body = exif.tobytes()
        info.add_text("Raw profile type exif", f"\nexif\n{len(body):8}\n{body.hex()}\n")
    path = Path(written(path, image, "PNG", pnginfo=info))
    if source == "exif after the pixels":
        whole = path.read_bytes()
        end = whole.index(b"IEND") - 4
        path.write_bytes(whole[:end] + chunk(b"eXIf", exif.tobytes()[6:]) + whole[end:])
    return str(path)


SOURCES = [
    *("exif", "xmp in JPEG", "xmp in WebP", "exif in AVIF", "exif in WebP", "exif in TIFF"),
    *("xmp in PNG", "raw profile", "exif after the pixels"),
]
# By the definition of the tag: what must be done to the stored rows and columns
UPRIGHT = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2), 8: lambda a: np.rot90(a, 1),
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("orientation", [2, 3, 5, 6, 7, 8])
def test_an_orientation_is_applied_wherever_it_stands(tmp_path: Path, source: str, orientation: int) -> None:
    path = oriented(tmp_path / "x", source, orientation)
    wanted = UPRIGHT[orientation](COLOR)
    height, width = wanted.shape[:2]
    view = View((height, width), crop=CropBounds((1.0, 1.0), (width / height, width / height)))
    for found in (decode(path, view), decode_crop(path, view, [0.5] * 4)):
        assert np.abs(found.transpose(1, 2, 0).astype(int) - wanted).max() <= 60
    with Image.open(path) as image:
        image.load()
        assert (decode(path, view).transpose(1, 2, 0) == np.asarray(ImageOps.exif_transpose(image))).all()


def test_unreadable_exif_costs_the_orientation_only(tmp_path: Path) -> None:
    path = written(tmp_path / "x.png", Image.fromarray(COLOR), "PNG", exif=b"Exif\0\0no tags at all")
    assert (decode(path, WHOLE) == COLOR.transpose(2, 0, 1)).all()
    assert len(said(path)) == 1 and "its EXIF cannot be read" in said(path)[0]


# More than eight bits

DEEP = DRAW.integers(300, 3000, (12, 16))


@pytest.mark.parametrize(
    ("kind", "form"),
    [("<u2", "PNG"), ("<u2", "TIFF"), (">u2", "TIFF"), ("<i4", "TIFF"), ("<f4", "TIFF"), ("<u2", "JPEG2000")],
)
@pytest.mark.parametrize("depth", [(250.0, 3100.0), 12, 16])
def test_deep_gray_is_scaled_as_numpy_scales_it(tmp_path: Path, kind: str, form: str, depth: Any) -> None:
    image = Image.fromarray(DEEP.astype(kind))
    path = written(tmp_path / "x", image, form, **({"irreversible": False} if form == "JPEG2000" else {}))
    found = decode(path, View((12, 16), colors=Colors(channels=1, depth=depth)))[0]
    low_high = depth if isinstance(depth, tuple) else (0, 1)
    ranged = np.rint((DEEP - low_high[0]) * 255 / (low_high[1] - low_high[0]))
    wanted = DEEP >> (depth - 8) if isinstance(depth, int) else ranged
    assert (found == wanted).all()


def test_values_outside_the_range_and_not_a_number_are_clipped(tmp_path: Path) -> None:
    values = np.array([[np.nan, -np.inf, np.inf, -5, 0, 5, 10, 11]], np.float32)
    path = written(tmp_path / "x", Image.fromarray(values), "TIFF")
    found = decode(path, View((1, 8), colors=Colors(channels=1, depth=(0.0, 10.0))))
    assert found.tolist() == [[[0, 0, 255, 0, 0, 128, 255, 255]]]


def test_white_is_zero_in_sixteen_bits(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    path = Path(written(tmp_path / "x", Image.fromarray(DEEP.astype("<u2")), "TIFF", tiffinfo=tags))
    entry = struct.pack("<HHI", 262, 3, 1)
    whole = bytearray(path.read_bytes())
    whole[whole.index(entry) + 8] = 0
    path.write_bytes(whole)
    found = decode(str(path), View((12, 16), colors=Colors(channels=1, depth=12)))[0]
    assert (found == 255 - (DEEP >> 4)).all()


@pytest.mark.parametrize("memory", [4096, 0])
@pytest.mark.parametrize("cached", [False, True])
def test_the_range_is_that_of_all_training_images_and_of_no_other(tmp_path: Path, cached: bool, memory: int) -> None:
    train = [np.full((4, 4), value, np.uint16) for value in (1000, 1400, 2000, 1200)]
    put(tmp_path / "d", "train", [*train, np.full((4, 4), 77, np.uint8)])
    put(tmp_path / "d", "val", [np.full((4, 4), value, np.uint16) for value in (0, 1500, 9000, 1250)])
    knobs = {"cache": str(tmp_path / "cache") if cached else None, "memory": memory}
    for _ in range(2):
        found = imagefolder(tmp_path / "d", **knobs)
        assert pixels(found.train)[:, 0, 0, 0].tolist() == [0, 255, 77, 102, 51]
        assert pixels(found.val)[:, 0, 0, 0].tolist() == [0, 255, 128, 64]
        values = "values 1000 to 2000 become 0 to 255 in all splits (data.depth)"
        line = f"data: 4 training images have more than 8 bits, {values}"
        assert [note for note in found.notes if "8 bits" in note] == [line]
    fixed = imagefolder(tmp_path / "d", **knobs, depth=16)
    assert pixels(fixed.val)[:, 0, 0, 0].tolist() == [0, 35, 5, 4]
    assert not any("8 bits" in note for note in fixed.notes)


def test_a_deep_image_of_another_split_only_needs_the_knob(tmp_path: Path) -> None:
    put(tmp_path, "train", [np.zeros((4, 4), np.uint8)] * 2)
    put(tmp_path, "val", [np.zeros((4, 4), np.uint16)] * 2)
    with pytest.raises(DataError, match=r"val/a/0\.png: .*more than 8 bits.*set data\.depth"):
        imagefolder(tmp_path)
    assert len(imagefolder(tmp_path, depth=[0, 9]).val.labels) == 2
    with pytest.raises(ConfigError, match=r"data\.depth: got \[3, 3\], must be \[low, high\] with low < high"):
        imagefolder(tmp_path, depth=[3, 3])


def test_color_of_sixteen_bits_is_noted(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + b"\x12\x34" * 3 * 16 for _ in range(12))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 12, 16, 2, 0, 0, 0))
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert (decode(str(path), WHOLE) == 0x12).all() and said(str(path)) == ["16-bit color keeps its upper 8 bits"]


# Transparency and bands


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L with a color key"])
def test_transparent_pixels_get_the_background(tmp_path: Path, mode: str) -> None:
    gray = np.full((12, 16), 100, np.uint8)
    alpha = np.zeros((12, 16), np.uint8)
    alpha[:6] = 255
    knobs: dict[str, Any] = {}
    if mode == "RGBA":
        image = Image.fromarray(np.dstack([gray, gray, gray, alpha]))
    elif mode == "LA":
        image = Image.merge("LA", (Image.fromarray(gray), Image.fromarray(alpha)))
    else:
        image = Image.fromarray(np.where(alpha > 0, gray, 7).astype(np.uint8))
        image = image.convert("P") if mode == "P" else image
        knobs = {"transparency": 7}
    path = written(tmp_path / "x.png", image, "PNG", **knobs)
    under = 100 if mode in ("RGBA", "LA") else 7
    backgrounds: dict[Alpha, int] = {"drop": under, "white": 255, "black": 0}
    for alpha_knob, value in backgrounds.items():
        for channels in (1, 3):
            view = View((12, 16), colors=Colors(channels=channels, alpha=alpha_knob))
            found = decode(path, view)
            assert found.shape == (channels, 12, 16)
            assert (found[:, :6] == 100).all() and (found[:, 6:] == value).all()
            assert said(path, view) == (
                ["transparent pixels keep the color under them (data.alpha=white or black: a background)"]
                if alpha_knob == "drop"
                else []
            )


def test_opaque_transparency_is_not_worth_a_word(tmp_path: Path) -> None:
    path = written(tmp_path / "x.png", Image.fromarray(COLOR).convert("RGBA"), "PNG")
    assert said(path) == [] and (decode(path, WHOLE) == COLOR.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("extra", [(0,), None])
def test_a_fourth_band_is_an_error_that_names_the_knob(tmp_path: Path, extra: tuple[int, ...] | None) -> None:
    image = Image.fromarray(np.dstack([COLOR, COLOR[..., 0]]))
    path = Path(written(tmp_path / "x.tif", image, "TIFF"))
    whole = bytearray(path.read_bytes())
    entry = struct.pack("<HHI", 338, 3, 1)
    place = whole.index(entry)
    if extra is None:
        # Another tag, which nobody reads
        whole[place : place + 2] = struct.pack("<H", 65000)
    else:
        whole[place + 8] = 0
    path.write_bytes(whole)
    with routed, pytest.raises(DataError, match=r"x\.tif: .*4 bands, 1 more than color and .*data\.extra_bands=drop"):
        call_decoder(str(path), lambda file: decode(file, WHOLE))
    dropped = decode(str(path), View((12, 16), colors=Colors(extra_bands="drop")))
    assert (dropped == COLOR.transpose(2, 0, 1)).all()


def test_cmyk_and_a_declared_alpha_are_no_extra_bands(tmp_path: Path) -> None:
    for mode in ("CMYK", "RGBA", "LA", "YCbCr", "LAB"):
        path = written(tmp_path / "x.tif", Image.fromarray(COLOR).convert(mode), "TIFF")
        wanted = np.asarray(Image.open(path).convert("RGB"))
        assert (decode(path, WHOLE).transpose(1, 2, 0) == wanted).all(), mode


# Color


def test_gray_is_the_luma(tmp_path: Path) -> None:
    path = written(tmp_path / "x.png", Image.fromarray(COLOR), "PNG")
    wanted = COLOR @ [0.299, 0.587, 0.114]
    assert np.abs(decode(path, GRAY)[0] - wanted).max() <= 1


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tif", "bmp", "webp"])
def test_auto_is_gray_where_every_training_file_is_gray(tmp_path: Path, kind: str) -> None:
    ramp = np.arange(16, dtype=np.uint8).reshape(4, 4) * 10
    put(tmp_path, "train", [ramp, ramp + 3], kind)
    put(tmp_path, "val", [np.dstack([ramp, ramp, ramp + 60])] * 2)
    gray = kind != "webp"  # which has no gray
    found = imagefolder(tmp_path, color="auto")
    assert found.shape == pixels(found.train).shape[1:] == pixels(found.val).shape[1:] == (1 if gray else 3, 4, 4)
    assert sum("data: color=" in note for note in found.notes) == 1
    put(tmp_path, "train", [ramp, ramp, np.dstack([ramp, ramp, ramp + 60])])
    assert imagefolder(tmp_path, color="auto").shape == (3, 4, 4)
    assert imagefolder(tmp_path, color="gray", memory=0).train.fetch(torch.arange(2)).shape == (2, 1, 4, 4)


# Fit


@pytest.mark.parametrize("shape", [(30, 90), (90, 30), (41, 40), (1, 300), (12, 16)])
@pytest.mark.parametrize("size", [(12, 16), (16, 16), (20, 7)])
def test_fits_are_pillows(tmp_path: Path, shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = Image.fromarray(DRAW.integers(0, 256, (*shape, 3), dtype=np.uint8))
    path, turned = written(tmp_path / "x.png", image, "PNG"), size[::-1]
    bilinear = Image.Resampling.BILINEAR
    wanted = {"crop": ImageOps.fit(image, turned, bilinear), "squish": image.resize(turned, bilinear)}
    if shape != (1, 300):  # of which Pillow leaves no line
        wanted["pad"] = ImageOps.pad(image, turned, bilinear)
    for fit, expected in wanted.items():
        found = decode(path, View(size, fit=fit))  # type: ignore[arg-type]
        assert (found.transpose(1, 2, 0) == np.asarray(expected)).all(), fit
    assert decode(path, View(size, fit="pad")).any()


def test_the_center_is_cut_before_any_fit(tmp_path: Path) -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[10:30, 20:60] = 200
    path = written(tmp_path / "x.png", Image.fromarray(image), "PNG")
    assert (decode(path, View((8, 8), 0.5, fit="squish"))[:, 1:-1, 1:-1] == 200).all()
    padded = decode(path, View((8, 8), 0.5, fit="pad"))
    assert not padded[:, :2].any() and not padded[:, 6:].any() and (padded[:, 3:5, 1:-1] == 200).all()


# What decoders say


def damaged_fax(path: Path, seed: int) -> str:
    """Write a bilevel TIFF with damaged lines, of which libtiff complains on standard error."""
    bits = np.random.default_rng(seed).integers(0, 2, (64, 64), dtype=np.uint8) * 255
    buffer = io.BytesIO()
    Image.fromarray(bits).convert("1").save(buffer, "TIFF", compression="group4")
    whole = bytearray(buffer.getvalue())
    for place in range(200, 600, 7):
        whole[place] ^= 0x55
    path.write_bytes(whole)
    return str(path)


def test_libtiff_speaks_to_us_and_names_no_file_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = [damaged_fax(tmp_path / f"{i}.tif", seed=i) for i in range(8)]
    texts: list[str] = []

    def look(path: str) -> list[str]:
        try:
            return said(path)
        except DataError as error:
            return [str(error)]

    with ThreadPoolExecutor(4) as pool:
        for path, found in zip(paths, pool.map(look, paths), strict=True):
            assert not any(other in text for text in found for other in paths if other != path)
            texts += found
    assert sum("Fax4" in text for text in texts) >= len(paths)
    assert capfd.readouterr() == ("", "")


def test_warnings_reach_the_file_that_caused_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    large = written(tmp_path / "large.png", Image.fromarray(COLOR), "PNG")
    small = written(tmp_path / "small.png", Image.fromarray(COLOR[:4, :4]), "PNG")
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(said, [large, small] * 20))
        warnings.warn("of somebody else", stacklevel=1)
    assert [str(other.message) for other in others] == ["of somebody else"]
    assert [len(texts) for texts in found] == [1, 0] * 20 and "decompression bomb" in found[0][0]


@pytest.mark.parametrize("memory", [4096, 0])
@pytest.mark.parametrize("processes", [False, True])
def test_one_line_per_kind_with_count_and_first_file(
    tmp_path: Path, memory: int, processes: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(validate_images, "_MIN_FILES_FOR_PROCESSES", 1)
    clear = np.zeros((4, 4, 4), np.uint8)
    put(tmp_path / "d", "train", [clear, clear[..., :3], clear, clear])
    put(tmp_path / "d", "val", [clear, clear])
    put(tmp_path / "d", "test", [clear[..., :3], clear])
    frame = Image.fromarray(np.zeros((4, 4), np.uint8))
    other = Image.fromarray(np.full((4, 4), 9, np.uint8))
    frame.save(tmp_path / "d" / "val" / "b" / "9.gif", save_all=True, append_images=[other])
    for _ in range(2):
        found = imagefolder(tmp_path / "d", memory=memory, cache=str(tmp_path / "cache"), workers=2 if processes else 0)
        root = tmp_path / "d"
        start = "data: transparent pixels keep the color under them (data.alpha=white or black: a background)"
        assert found.notes[-2:] == (
            f"{start}: 5 images, the first is {root / 'train' / 'a' / '0.png'}",
            f"data: only the first frame or page is used: 1 image, {root / 'val' / 'b' / '9.gif'}",
        )
        assert found.check_test() == (f"{start}: 1 image, {root / 'test' / 'b' / '1.png'}",)
        assert found.test is not None
        pixels(found.train), pixels(found.val)
    assert capfd.readouterr().err == ""


def test_messages_that_differ_in_numbers_are_of_one_kind() -> None:
    findings, later = Findings(), Findings()
    findings.add(3, ["line 5 is bad", "line 6 is bad"])
    later.add(7, ["line 9 is bad", "other"])
    findings.merge(later.moved(10))
    assert findings.lines([f"/{i}" for i in range(20)]) == (
        "data: line 5 is bad: 2 images, the first is /3",
        "data: other: 1 image, /17",
    )
