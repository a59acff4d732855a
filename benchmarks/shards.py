"""Images per second and memory of a run on shards that grow: `python -m benchmarks.shards FOLDER [GB ...]`.

Writes JPEGs of 256 x 256 pixels with labels into FOLDER, in tar or Parquet files (`--data arrow`) of 256 MB, and trains
a linear model for one epoch, decoded batch by batch. Memory is the largest sum of anonymous and shared memory over all
processes of the run; pages that they share count once. `20` is the 20 GB of a large set. The files stay.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

_SHARD = 256 << 20
_SIDE, _CLASSES, _KINDS = 256, 10, 64
_BATCH = 64
_PAUSE = 0.5


def _jpegs() -> list[bytes]:
    """Return noisy JPEGs of about 100 kB, whose color says the class."""
    random, found = np.random.default_rng(0), []
    for number in range(_KINDS):
        pixels = random.normal(128, 40, (_SIDE, _SIDE, 3))
        pixels[..., number % 3] += 4 * (number % _CLASSES)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=92)
        found.append(file.getvalue())
    return found


def _write_tar(path: Path, start: int, images: list[bytes]) -> None:
    """Write a tar file of about `_SHARD` bytes whose images are numbered from `start`."""
    with tarfile.open(path, "w") as tar:
        while path.stat().st_size < _SHARD:
            kind = start % _KINDS
            for end, data in (("jpg", images[kind]), ("cls", b"%d" % (kind % _CLASSES))):
                member = tarfile.TarInfo(f"{start:09}.{end}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            start += 1


def _write_parquet(path: Path, start: int, images: list[bytes]) -> None:
    """Write a Parquet file of about `_SHARD` bytes in row groups of 100 images, as `datasets` does."""
    import pyarrow
    from pyarrow import parquet

    count = _SHARD // len(images[0])
    kinds = [number % _KINDS for number in range(start, start + count)]
    cells = [{"bytes": images[kind], "path": None} for kind in kinds]
    table = pyarrow.table({"image": cells, "label": [kind % _CLASSES for kind in kinds]})
    parquet.write_table(table, path, row_group_size=100, use_dictionary=False)


def write_shards(folder: Path, size: float, data: str) -> list[Path]:
    """Write shards of `size` GB if they are not there, and return the first ones that have this size together."""
    folder.mkdir(parents=True, exist_ok=True)
    images, found = _jpegs(), []
    write, suffix = (_write_tar, "tar") if data == "webdataset" else (_write_parquet, "parquet")
    for number in range(max(1, round(size * 2**30 / _SHARD))):
        path = folder / f"{number:05}.{suffix}"
        if not path.exists():
            write(path.with_suffix(".tmp"), number * 10_000, images)
            path.with_suffix(".tmp").replace(path)
        found.append(path)
    return found


def _tree(process: int) -> Iterator[int]:
    """Yield a process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            parents.setdefault(int(entry.read_text().rpartition(")")[2].split()[1]), []).append(int(entry.parent.name))
    waiting = [process]
    while waiting:
        yield (found := waiting.pop())
        waiting += parents.get(found, [])


def _memory(process: int) -> int:
    """Return the bytes of memory of a process and all below it, pages that they share once."""
    total = 0
    for each in _tree(process):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total


def measure(files: list[Path], data: str, order: str) -> tuple[float, int, float]:
    """Return images per second, the largest memory in bytes, and the seconds before training and after it."""
    with tempfile.TemporaryDirectory() as place:
        root = f"{files[0].parent}/{{{files[0].stem}..{files[-1].stem}}}{files[0].suffix}"
        words = [f"data={data}", f"data.root={root}", f"data.order={order}", "data.placement=disk", "model=linear"]
        words += ["epochs=1", "augment=[]", "probe=[]", "figures=never", "test=never", "device=cpu", "doctor=never"]
        words += [
            "data.test_fraction=0",
            "data.val_fraction=0.02",
            f"data.batch_size={_BATCH}",
            f"hydra.run.dir={place}/run",
        ]
        begun = time.perf_counter()
        run = subprocess.Popen([sys.executable, "-m", "runner", *words], stdout=subprocess.DEVNULL)
        most = 0
        while run.poll() is None:
            most = max(most, _memory(run.pid))
            time.sleep(_PAUSE)
        spent = time.perf_counter() - begun
        if run.returncode:
            raise SystemExit(run.returncode)
        result = json.loads((Path(place) / "run" / "result.json").read_text())
        return result["steps"] * _BATCH / result["seconds"], most, spent - result["seconds"]


def main(words: list[str] | None = None) -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("sizes", type=float, nargs="*", default=[0.5, 1.0, 2.0], metavar="GB")
    parser.add_argument("--data", choices=("webdataset", "arrow"), default="webdataset")
    parser.add_argument("--order", choices=("global", "shards"), default="global")
    given = parser.parse_args(words)
    for size in given.sizes:
        files = write_shards(given.folder / given.data, size, given.data)
        speed, memory, rest = measure(files, given.data, given.order)
        whole = sum(path.stat().st_size for path in files) / 2**30
        what = f"{given.data}, order={given.order}, {whole:.2f} GiB"
        print(f"{what}: {speed:.0f} images/s, {memory >> 20} MiB, {rest:.1f} s beside training", flush=True)


if __name__ == "__main__":
    main()
