"""Remake the pictures of the documentation: PYTHONPATH=. python docs/make_screenshots.py [picture ...].

Small runs are trained in a temporary folder, with the commands of the pages, and photographed in a headless Chromium
(`apt-get install chromium`). It takes about three minutes.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from chromium import Page, browse
from PIL import Image

DOCS = Path(__file__).parent
# Colors of a picture, which keep it small
_COLORS = 128
_PATIENCE = 90
# The tour of the README, shorter
_TOUR = (
    "",
    "model=mlp activation=tanh init=small_normal norm=none augment=[crop,hflip] regularizer=[dropout,l2]",
    "-m optim=momentum,adam optim.lr=0.1,0.01 seed=0,1",
    "task=preview augment=[crop,rotate,cutout] mix=cutmix",
)
# The example of docs/comparing.md
_GRID = (
    "-m model=mlp optim.lr=0.003,0.03,0.3 optim.weight_decay=0,0.005 seed=0,1,2 epochs=4 init.head=null "
    "probe=[update_ratio] probe.update_ratio.every=10 sweep=lr_wd"
)
_COMPARE = "task=compare runs=outputs/sweeps/lr_wd task.baseline=lr=0.03,weight_decay=0 task.out=page"
# Pictures that other programs draw, and the command that does
ELSEWHERE = {
    "benchmarks.png": "python -m benchmarks.compare (results.png)",
    "width.png": "python -m benchmarks.mup",
}


@contextmanager
def _tensorboard(folder: Path) -> Iterator[str]:
    """Yield the address of a TensorBoard that has read the runs of a folder."""
    said = folder.parent / "tensorboard.txt"
    words = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0", "--host", "127.0.0.1"]
    with said.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output)
    try:
        end = time.monotonic() + _PATIENCE
        while not (found := re.search(r"http://[\w.]+:\d+/", said.read_text())):
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError(said.read_text())
            time.sleep(0.2)
        time.sleep(5)  # its reader starts after the address is printed
        yield found[0]
    finally:
        process.kill()
        process.wait()


@cache
def _folder() -> Path:
    """Return the folder of all runs of this process."""
    return Path(tempfile.mkdtemp(prefix="screenshots"))


def _run(words: str, name: str) -> Path:
    """Run a command line of runner in a folder of this name, and return the folder."""
    folder = _folder() / name
    folder.mkdir(exist_ok=True)
    sys.stderr.write(f"python -m runner {words}\n")
    command = [sys.executable, "-m", "runner", *shlex.split(words)]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


@cache
def _tour() -> Path:
    """Return the `outputs` of the README's tour."""
    for words in _TOUR:
        _run(f"{words} epochs=10", "tour")
    return _folder() / "tour" / "outputs"


@cache
def _comparison() -> Path:
    """Return the HTML page of a comparison of six configurations."""
    _run(_GRID, "grid")
    _run(_COMPARE, "grid")
    return _folder() / "grid" / "page" / "comparison.html"


@cache
def _one_run() -> Path:
    """Return the `outputs` of one run with frequent measurements."""
    return _run("name=cosine probe.update_ratio.every=10 probe.grad_norm.every=10", "one") / "outputs"


def _shot(
    tab: str, *, height: int, runs: Callable[[], Path] = _tour, prepare: Callable[[Page], None] = lambda page: None
) -> bytes:
    """Return a picture of a page of TensorBoard; `prepare` clicks or scrolls first."""
    with _tensorboard(runs()) as address, browse(1280, height) as page:
        page.open(f"{address}#{tab}")
        time.sleep(8)
        prepare(page)
        time.sleep(8)
        return page.screenshot()


def _parallel_coordinates(page: Page) -> None:
    """Open the second view of HPARAMS."""
    page.evaluate("all(document).find(e => e.tagName == 'PAPER-TAB' && /PARALLEL/i.test(e.textContent)).click()")


def _ratios(page: Page) -> None:
    """Scroll CUSTOM SCALARS to its second group."""
    page.evaluate("all(document).find(e => /^\\s*2 Update/.test(e.textContent) && e.offsetHeight).scrollIntoView()")


def _html(width: int, height: int) -> bytes:
    """Return the first part of the page of a comparison."""
    with browse(width, height) as page:
        page.open(_comparison().as_uri())
        return page.screenshot()


def _init_report() -> bytes:
    """Return the picture of the lectures' experiment on initialization."""
    folder = _run("recipe=lecture_init name=report", "lecture")
    return (folder / "outputs" / "report" / "report.png").read_bytes()


PICTURES: dict[str, Callable[[], bytes]] = {
    "tensorboard.png": lambda: _shot("timeseries", height=800),
    "custom_scalars.png": lambda: _shot("custom_scalars", height=740),
    "ratios.png": lambda: _shot("custom_scalars", height=640, runs=_one_run, prepare=_ratios),
    "hparams.png": lambda: _shot("hparams", height=620, prepare=_parallel_coordinates),
    "comparison.png": lambda: _html(1100, 1000),
    "comparison_phone.png": lambda: _html(390, 844),
    "init_report.png": _init_report,
}


def _small(picture: bytes) -> bytes:
    """Return a PNG with few colors."""
    made = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(_COLORS).save(made, format="PNG", optimize=True)
    return made.getvalue()


def main(names: list[str]) -> None:
    """Write the named pictures, or all."""
    for name in names or PICTURES:
        content = _small(PICTURES[name]())
        (DOCS / name).write_bytes(content)
        sys.stderr.write(f"{name}: {len(content):,} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1:])
