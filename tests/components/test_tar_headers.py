"""The members of tar files: the same as Python's `tarfile` finds, and an error for each damage."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from tar_shards import write_tar

from runner.components.data.shards.tar_headers import Member, opened
from runner.errors import DataError

LONG = "a folder with a long name/" * 12 + "x.png"
NAMES = ["0.png", "a/0.png", "../../up.png", "/etc/passwd.png", "größe.png", "deep/" * 30 + "1.png", LONG]


def members(path: Path) -> list[Member]:
    with opened(path) as reader:
        return list(reader.members())


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_tarfile(tmp_path: Path, kind: int) -> None:
    names = NAMES[:-1] if kind == tarfile.USTAR_FORMAT else NAMES
    random = np.random.default_rng(0)
    sizes = [0, 1, 511, 512, 513, 5000, 70000]
    path = write_tar(tmp_path / "x.tar", zip(names, map(random.bytes, sizes), strict=False), kind)
    with tarfile.open(path) as tar:
        assert members(path) == [(each.name, each.offset_data, each.size) for each in tar]
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        for found, each in zip(members(path), tar, strict=True):
            assert data[found.offset : found.offset + found.size] == tar.extractfile(each).read()


def test_members_beyond_8_gib_have_their_size(tmp_path: Path) -> None:
    info = tarfile.TarInfo("large.png")
    info.size = 9 << 30
    path = tmp_path / "large.tar"
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + info.size + 1024)
    assert members(path) == [("large.png", 512, 9 << 30)]


def test_folders_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assert members(tmp_path / "x.tar") == []


def test_a_tar_file_that_is_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("0.png", b"x" * 700), ("1.png", b"y" * 10)])
    data = path.read_bytes()
    end = 512 + 1024 + 512 + 512
    for length in [0, 1, 511, 512, 600, 1024, 1536, 1537, 2048, 2058, 2560, end]:
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"x\.tar: .*(cut off|no valid tar header)"):
            members(path)
    path.write_bytes(data[: end + 512])
    assert [name for name, _, _ in members(path)] == ["0.png", "1.png"]


def test_each_flipped_byte_of_a_header_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("0.png", b"x"), ("1.png", b"y")])
    data = bytearray(path.read_bytes())
    for place in range(1024, 1024 + 512, 7):
        data[place] ^= 0x15
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"x\.tar: has .* at byte 1024"):
            members(path)
        data[place] ^= 0x15


def special(kind: bytes) -> bytes:
    info = tarfile.TarInfo("odd.png")
    info.type, info.linkname = kind, "/etc/passwd"
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


SPECIAL = {
    tarfile.LNKTYPE: "a link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    b"Q": "of the unknown type",
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_links_and_devices_are_refused_by_name(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(special(kind))
    with pytest.raises(DataError, match=rf"x\.tar: the member 'odd\.png' is {SPECIAL[kind]}.* at byte 0"):
        members(tmp_path / "x.tar")


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    info = tarfile.TarInfo("p")
    info.type, info.size = kind, len(records)
    padded = records + bytes(-len(records) % 512)
    return info.tobuf(tarfile.USTAR_FORMAT) + padded + tarfile.TarInfo("0.png").tobuf() + bytes(1024)


BROKEN = {
    "attributes without a length": (pax(b"path=x\n"), "damaged attributes"),
    "an attribute that is too long": (pax(b"99 path=x\n"), "damaged attributes"),
    "a negative size": (pax(b"11 size=-1\n"), "attributes (pax) that no member can have"),
    "a name for all members": (pax(b"9 path=x\n", b"g"), "attributes (pax) that no member can have"),
    "a sparse file": (pax(b"22 GNU.sparse.major=1\n"), "a sparse file"),
    "attributes of many bytes": (pax(bytes(1 << 21)), "expected at most"),
    "a size that no file has": (pax(b"20 size=99999999999\n"), "is cut off in the member '0.png'"),
    "no tar file": (b"x" * 4096, "no valid tar header at byte 0"),
    "text": (b"hello", "cut off"),
    "gzip": (b"\x1f\x8b" + bytes(2000), "is compressed (gzip)"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(2000), "is compressed (zstd)"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_damage_is_named(tmp_path: Path, what: str) -> None:
    data, words = BROKEN[what]
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(DataError) as caught:
        members(tmp_path / "x.tar")
    assert words in str(caught.value) and str(tmp_path / "x.tar") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_joined_tar_files_are_refused(tmp_path: Path) -> None:
    one, two = (write_tar(tmp_path / f"{i}.tar", [(f"{i}.png", b"x")]).read_bytes() for i in range(2))
    (tmp_path / "both.tar").write_bytes(one + two)
    with pytest.raises(DataError, match="more members after its end mark"):
        members(tmp_path / "both.tar")
    # Zeros up to a large block are no members
    (tmp_path / "both.tar").write_bytes(one + bytes(1 << 19))
    assert len(members(tmp_path / "both.tar")) == 1


def test_a_file_that_is_not_there_or_a_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        members(tmp_path / "none.tar")
    with pytest.raises(DataError, match="cannot be read"):
        members(tmp_path)


def test_only_headers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "x.tar", [(f"{i}.png", bytes(1 << 20)) for i in range(20)])
    asked: list[int] = []
    with opened(path) as reader:
        read = reader.read
        monkeypatch.setattr(reader, "read", lambda offset, size: asked.append(size) or read(offset, size))
        assert len(list(reader.members())) == 20
    assert sum(asked) < 64 << 10
