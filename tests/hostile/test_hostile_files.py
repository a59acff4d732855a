"""Untrusted weights, archives, images and names: read as data or rejected, within bounded memory."""

from __future__ import annotations

import contextlib
import io
import pickle
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from hostile_runs import HEADERS, Canary, entry, in_place_of, pickled, saved, tensors, zipped
from PIL import Image
from watching import REFUSED, SMALL, assert_harmless, run_in_child, run_watched, split_cases

from runner.engine.saving import checkpoint
from runner.engine.weights_file import read_tensors
from runner.errors import RunnerError

FOREIGN = ("model=torchvision", "augment=[]", "probe=[]", "figures=never", "epochs=1", "average=none")


def escaping_tar(folder: Path) -> bytes:
    """Return a tar whose members climb out of where it is unpacked."""
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w:gz") as archive:
        for name in ("../../canary", "/tmp/canary", "cifar-10-batches-py/../../../canary"):
            member = tarfile.TarInfo(name)
            member.size = len(data := pickled(folder))
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("cifar-10-batches-py")
        link.type, link.linkname = tarfile.SYMTYPE, "../.."
        archive.addfile(link)
    return buffer.getvalue()


def torch_saved(value: object) -> bytes:
    """Return a file of torch.save."""
    torch.save(value, buffer := io.BytesIO())
    return buffer.getvalue()


PT = {
    "pickle": pickled,
    "torch.save": saved,
    "zip that climbs": zipped,
    "tar that climbs": escaping_tar,
    "a list": lambda folder: torch_saved([1, 2]),
    "a tensor": lambda folder: torch_saved(torch.zeros(3)),
    "words": lambda folder: torch_saved({"state_dict": {"a": "os.system"}}),
    "numbers for names": lambda folder: torch_saved({1: torch.zeros(1)}),
    "another model": lambda folder: torch_saved({"\x1b[31m<b>": torch.zeros(1)}),
    "cut off": lambda folder: torch_saved({"a": torch.zeros(100)})[:-50],
    "nothing": lambda folder: b"",
}
WEIGHTS = {f"{name}.pt": make for name, make in PT.items()} | {
    f"{name}.safetensors": make for name, make in HEADERS.items()
}


@pytest.mark.parametrize("name", split_cases(WEIGHTS, 15))
def test_hostile_weights_harm_nobody(work, name):
    path = work / f"weights{Path(name).suffix}"
    path.write_bytes(WEIGHTS[name](work / "it"))
    assert_harmless(run_watched([*FOREIGN, f"model.weights={path.name}"], work), work)


def batches(root: Path, data: bytes) -> None:
    """Put bytes in the places of CIFAR-10's batches, MNIST's old files and SVHN's."""
    for name in (
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
        "batches.meta",
    ):
        write_file(root / "cifar-10-batches-py" / name, data)
    for name in ("training.pt", "test.pt"):
        write_file(root / "MNIST/processed" / name, data)
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        write_file(root / "MNIST/raw" / name, data)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        write_file(root / name, data)


def write_file(path: Path, data: bytes) -> None:
    """Write a file, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize("data", split_cases(["cifar10", "mnist", "svhn"], 3))
@pytest.mark.parametrize("what", split_cases(["pickle", "torch.save", "zip that climbs", "tar that climbs"], 4))
def test_hostile_data_sets_harm_nobody(work, data, what):
    content = PT[what](work / "it")
    batches(work / "data", content)
    write_file(work / "data/cifar-10-python.tar.gz", escaping_tar(work / "it"))
    seen = run_watched([*SMALL, f"data={data}", "data.root=data", "data.download=false"], work)
    assert_harmless(seen, work, REFUSED | {7})


PICTURES = {
    "PostScript": lambda folder: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) (w) file pop\n",
    "a pickle": pickled,
    "a zip": zipped,
    "huge": lambda folder: b"P6 100000 100000 255\n" + bytes(100),
    "a picture that is text": lambda folder: b"#define x_width 8\n#define x_height 8\nstatic char x_bits[] = {0x00};\n",
}


def pictures(root: Path, odd: str = "0", data: bytes | None = None) -> None:
    """Make a folder of two classes of pictures, one with an odd name, some of its files replaced."""
    for number, name in enumerate((odd, "1")):
        for i in range(12):
            path = root / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (100 * number, 9 * i, 50)).save(path)
    if data is not None:
        for i in range(8):
            (root / f"1/{i}.png").write_bytes(data)


FOLDER = ("data=imagefolder", "data.root=data", "data.size=[8,8]", "data.batch_size=8", "data.cache=null")


@pytest.mark.parametrize("what", split_cases(PICTURES, 5))
def test_hostile_pictures_harm_nobody(work, what):
    pictures(work / "data", data=PICTURES[what](work / "it"))
    assert_harmless(run_watched([*SMALL, *FOLDER], work), work, {7})


MARKUP = "[bold]<script>alert(1)<|script>\x1b[31m‮[|x]"


@pytest.mark.slow
@pytest.mark.ci_slice
def test_markup_in_names_stays_text(work):
    """A class folder and a note with HTML, ANSI and rich's markup: the run ends well, and no terminal is moved."""
    pictures(work / "data", odd=MARKUP)
    words = [word for word in SMALL if not word.startswith(("probe", "figures"))]
    seen = run_watched([*words, *FOLDER, "probe=[confusion,images]", f"note={MARKUP}", "name=run"], work)
    assert (seen.code, seen.events) == (0, []), seen.err
    assert "\x1b" not in seen.out + seen.err
    assert all(tag.isprintable() and "<" not in tag for tag in event_tags(work / "outputs/run"))


def event_tags(run: Path) -> set[str]:
    """Return the tags in the event files of a run."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    events = [Event.FromString(raw) for path in run.glob("events*") for raw in RawEventFileLoader(str(path)).Load()]
    return {value.tag for event in events for value in event.summary.value}


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_run_folder_that_is_a_link_is_used_where_it_leads(run, work):
    shutil.copytree(run, work / "there")
    (work / "it").symlink_to(work / "there")
    assert run_watched(["task=evaluate", "run=it"], work).code == 0


@pytest.mark.parametrize("name", ["out", "out/x"])
def test_a_link_in_the_place_of_a_new_run_is_not_followed(work, name):
    away = work.parent / "away"
    away.mkdir()
    (work / "outputs").mkdir()
    (work / "outputs/run").symlink_to(away / name)
    seen = run_watched([*SMALL, "name=run"], work)
    assert (seen.code, seen.events) == (0, []), seen.err
    assert not list(away.iterdir()) and (work / "outputs/run-2/result.json").is_file()


SIZE = 48 << 20
SLACK = 32 << 20
LARGE = {
    "zeros": tensors({"a": entry([SIZE // 4], 0, SIZE)}, bytes(SIZE)),
    "bytes left over": tensors({"a": entry([1], 0, 4)}, bytes(SIZE)),
    "as many names as may be": tensors(
        b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(38_000)) + b"}"
    ),
    "many names": tensors(
        b"{"
        + b",".join(b'"%d":%s' % (i, b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}') for i in range(200_000))
        + b"}"
    ),
    "a header of blanks": tensors(b"{" + b" " * (SIZE - 2) + b"}"),
    "huge shape": tensors({"a": entry([2**40], 0, 2**42)}, bytes(SIZE)),
    "pickle": lambda folder: pickle.dumps(Canary(folder / "canary")) + bytes(SIZE),
}


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("slot", [".weights.safetensors", ".state.safetensors", "init_from"])
def test_a_hostile_file_takes_at_most_twice_its_size(run, work, name, slot):
    shutil.copytree(run, work / "it")
    data = LARGE[name](work)
    (work / "w.safetensors").write_bytes(data)
    if slot != "init_from":
        in_place_of(slot, lambda folder: data)(work / "it")
    size = len(data)

    def load() -> int:
        before = memory_in_use("VmRSS")
        with contextlib.suppress(RunnerError):
            read_tensors(Path("w.safetensors"), "init_from") if slot == "init_from" else checkpoint.load(Path("it"))
        return memory_in_use("VmHWM") - before

    taken = run_in_child(load, work)
    assert taken <= 2 * size + SLACK, f"{taken / size:.1f} times the file"


def memory_in_use(what: str) -> int:
    """Return bytes of memory of this process; the peak is forgotten when the present is asked for."""
    if what == "VmRSS":
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) << 10
