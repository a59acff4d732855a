"""Whether every file of a split can be decoded, found out before anything is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.components.data.decode import complete
from runner.components.data.files import CHUNK, Bad, failures, in_chunks
from runner.components.data.progress import Progress
from runner.engine.loading import prefetched

FEW = 2000  # files; processes take longer to start than fewer take to look at
BROKEN = 255


@dataclass(frozen=True)
class Looks:
    """Files as images of one pixel each, 0 or BROKEN, so that the processes which load images can look at them."""

    files: Sequence[str]
    labels: Tensor
    workers: int
    uniforms: int = 0

    def fetch(self, index: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Return pixels (B, 1, 1, 1) uint8."""
        files = [self.files[i] for i in index.tolist()]
        out = torch.zeros(len(files), 1, 1, 1, dtype=torch.uint8)
        for place in failures(files, range(len(files)), complete, keep=True):
            out[place] = BROKEN
        return out


def broken(files: Sequence[str], threads: int, processes: int, what: str, *, keep: bool) -> Bad:
    """Return why files cannot be decoded, if all such are to be kept; else the first is a DataError.

    Each is decoded once, as cheaply as finds all that is wrong with it: by so many processes, or by threads where there
    are to be none or the files are few. `what` is said beside the bar.
    """
    if processes == 0 or len(files) < FEW:
        looks = in_chunks(lambda *of: failures(files, range(*of), complete, keep=keep), len(files), threads, what)
        return {place: why for failed in looks for place, why in failed.items()}
    found: Bad = {}
    with contextlib.closing(suspects(files, processes, what)) as all_suspects:
        for places in all_suspects:
            found |= failures(files, places, complete, keep=keep)
    return found


def suspects(files: Sequence[str], processes: int, what: str) -> Generator[Sequence[int], None, None]:
    """Yield the places of files that a process could not decode, in order; the caller looks at these for the reason."""
    split = Looks(files, torch.zeros(len(files), dtype=torch.int64), processes)
    places = torch.split(torch.arange(len(files)), CHUNK)
    requests = ((index, None) for index in places)
    looks = prefetched(split, requests, torch.device("cpu"), workers=processes, ahead=4 * processes)
    progress: Progress | None = None
    try:
        for index, pixels in zip(places, looks, strict=True):
            progress = progress or Progress(what, len(files))  # now: the processes took their time to start
            yield index[pixels.flatten() == BROKEN].tolist()
            progress.move(int(index[-1]) + 1)
    finally:
        looks.close()
        if progress:
            progress.close()
