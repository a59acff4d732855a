"""Untrusted shards: tar members and columns are read as images and labels, or rejected; nothing in them runs."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_runs import pickled, saved, zipped
from tar_shards import png, write_tar
from watching import SMALL, Effects, assert_harmless, run_watched, split_cases

Members = list[tuple[str, bytes]]
QUICK = (*SMALL, "data.size=[8,8]", "data.batch_size=8", "data.cache=null", "data.workers=0")


def good(count: int = 24) -> Members:
    return [each for i in range(count) for each in ((f"{i}.png", png(i % 2, i)), (f"{i}.cls", b"%d" % (i % 2)))]


def run(work: Path, *words: str) -> Effects:
    return run_watched([*QUICK, "data=webdataset", "data.root=it", *words], work)


def tar(work: Path, members: Members, *odd: tarfile.TarInfo) -> None:
    with tarfile.open(write_tar(work / "it" / "x.tar", members), "a") as archive:
        for member in odd:
            archive.addfile(member, io.BytesIO(bytes(member.size)))


def special(kind: bytes, name: str = "x.png", target: str = "../../canary") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


LEFT_OUT: dict[str, Callable[[Path], Members]] = {
    "pickles": lambda work: [(f"{i}.{end}", pickled(work)) for end in ("pkl", "pickle", "npy") for i in range(24)],
    "modules": lambda work: [(f"{i}.{end}", pickled(work)) for end in ("pyd", "so", "py", "pth") for i in range(24)],
    "weights": lambda work: [("__init__.py", b"raise SystemExit"), ("0.pt", saved(work)), ("conftest.py", b"1/0")],
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_members_that_are_no_images_or_labels_are_left_out(work: Path, what: str) -> None:
    tar(work, good() + LEFT_OUT[what](work / "it"))
    before = {path.name for path in work.iterdir()}
    seen = run(work)
    assert_harmless(Effects(0, seen.out, "", seen.events), work, {0})
    assert seen.code == 0, seen.err
    assert {path.name for path in work.iterdir()} - before == {"outputs"}
    assert "left out members that are neither images nor labels" in seen.out + seen.err


def test_members_whose_names_climb_out_are_read_and_stay_inside(work: Path) -> None:
    names = ("../../canary/", "/tmp/canary/", "..", "a/../../../canary", "\x1b[31m[red]<b>")
    members = [(f"{names[i // 2 % len(names)]}{name}", data) for i, (name, data) in enumerate(good())]
    tar(work, members)
    seen = run(work)
    assert (seen.code, seen.events) == (0, []), seen.err
    assert not Path("/tmp/canary").exists() and "\x1b" not in seen.out + seen.err


BROKEN: dict[str, Callable[[Path], tuple[Members, list[tarfile.TarInfo]]]] = {
    "a pickle as a label": lambda work: ([("x.png", png(0, 0)), ("x.cls", pickled(work))], []),
    "a pickle as JSON": lambda work: ([("x.png", png(0, 0)), ("x.json", pickled(work))], []),
    "a pickle as an image": lambda work: ([("x.png", pickled(work)), ("x.cls", b"1")], []),
    "a zip as an image": lambda work: ([("x.png", zipped(work)), ("x.cls", b"1")], []),
    "PostScript": lambda work: ([("x.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n(x) (w) file pop\n"), ("x.cls", b"1")], []),
    "a huge image": lambda work: ([("x.ppm", b"P6 100000 100000 255\n" + bytes(100)), ("x.cls", b"1")], []),
    "a symbolic link": lambda work: ([], [special(tarfile.SYMTYPE)]),
    "a hard link": lambda work: ([], [special(tarfile.LNKTYPE, target="/etc/passwd")]),
    "a device": lambda work: ([], [special(tarfile.CHRTYPE)]),
    "a pipe": lambda work: ([], [special(tarfile.FIFOTYPE)]),
    "markup in a name": lambda work: ([("\x1b[31m[bold]<b>.png", png(0, 0))], []),
}


@pytest.mark.parametrize("what", split_cases(BROKEN, 4))
def test_hostile_members_are_named_and_harm_nobody(work: Path, what: str) -> None:
    members, odd = BROKEN[what](work / "it")
    tar(work, good() + members, *odd)
    seen = run(work)
    assert_harmless(seen, work, {7})
    assert "x.tar" in seen.err


HEADERS = {
    "a size beyond the file": tarfile.TarInfo.tobuf,
    "attributes of 4 GiB": lambda member: special(tarfile.XHDTYPE).tobuf()[:124] + b"40000000000\0" + bytes(376),
}


@pytest.mark.parametrize("what", split_cases(HEADERS, 2))
def test_sizes_that_lie_take_no_memory(work: Path, what: str) -> None:
    member = tarfile.TarInfo("x.png")
    member.size = 1 << 40
    (work / "it").mkdir()
    (work / "it" / "x.tar").write_bytes(HEADERS[what](member) + bytes(1024))
    assert_harmless(run(work), work, {7})


@pytest.mark.parametrize(
    "root", split_cases(["pipe:touch canary", "http://127.0.0.1:9/x.tar", "s3://a/b", "-|touch canary", "`touch x`"], 2)
)
@pytest.mark.parametrize("data", ["webdataset", "arrow"])
def test_no_command_or_address_is_read(work: Path, data: str, root: str) -> None:
    assert_harmless(run_watched([*QUICK, f"data={data}", f"data.root={root}"], work), work, {2, 7})


def columns(**more: Any) -> Any:
    pyarrow = pytest.importorskip("pyarrow")
    cells = [{"bytes": png(i % 2, i), "path": "/etc/passwd"} for i in range(24)]
    return pyarrow.table({"image": cells, "label": [i % 2 for i in range(24)], **more})


def write_parquet(work: Path, table: Any) -> None:
    from pyarrow import parquet

    (work / "it").mkdir(exist_ok=True)
    parquet.write_table(table, work / "it" / "x.parquet")


def with_type(work: Path, name: str) -> Any:
    """Return columns of which one has an extension type that old versions of pyarrow unpickle."""
    import pyarrow

    marks = {"ARROW:extension:name": name, "ARROW:extension:metadata": pickled(work)}
    field = pyarrow.field("odd", pyarrow.int64(), metadata=marks)
    return columns().append_column(field, pyarrow.array([1] * 24))


def with_features(work: Path) -> Any:
    features = {"label": {"_type": "ClassLabel", "names": ["os.system", "!!python/object/apply:os.mkdir [canary]"]}}
    code = {"_target_": "os.mkdir", "info": {"features": features}, "module": "canary", "pickle": "gASV"}
    return columns().replace_schema_metadata({"huggingface": json.dumps(code), "pandas": "{" * 5000})


def no_bytes(work: Path) -> Any:
    cells = [{"bytes": None, "path": "/etc/passwd"} for _ in range(24)]
    return columns().set_column(0, "image", [cells])


ARROW: dict[str, tuple[Callable[[Path], Any], set[int]]] = {
    "a type that is a pickle": (lambda work: with_type(work, "arrow.py_extension_type"), {0}),
    "an unknown type": (lambda work: with_type(work, "canary.type"), {0}),
    "code in the features": (with_features, {0}),
    "paths in place of bytes": (no_bytes, {7}),
    "a pickle as a label": (lambda work: columns().set_column(1, "label", [[pickled(work)] * 24]), {2, 7}),
}


@pytest.mark.parametrize("what", ARROW)
def test_hostile_columns_harm_nobody(work: Path, what: str) -> None:
    pytest.importorskip("pyarrow")
    make, codes = ARROW[what]
    (work / "it").mkdir()
    write_parquet(work, make(work / "it"))
    seen = run_watched([*QUICK, "data=arrow", "data.root=it", "data.image=image"], work)
    assert_harmless(seen if seen.code else Effects(0, "", "", seen.events), work, codes)


def test_a_folder_of_code_is_no_data_set(work: Path) -> None:
    (work / "it").mkdir()
    (work / "it" / "it.py").write_text("import os; os.mkdir('canary')")
    (work / "it" / "dataset_infos.json").write_text("{}")
    assert_harmless(run_watched([*QUICK, "data=arrow", "data.root=it"], work), work, {7})
