"""Check that every file of a split can be decoded, before training starts."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.components.data.decode import check_decodable
from runner.components.data.image_files import FILES_PER_TASK, Progress, Unreadable, collect_failures, map_chunks
from runner.engine.loading import prefetched

# Starting processes takes longer than validating fewer files
_MIN_FILES_FOR_PROCESSES = 2000
_BROKEN = 255


@dataclass(frozen=True)
class _ValidationSplit:
    """Files as one-pixel images, 0 or _BROKEN, so that the loader's worker processes can validate them."""

    files: Sequence[str]
    labels: Tensor
    workers: int
    uniforms: int = 0

    def fetch(self, index: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Return pixels (B, 1, 1, 1) uint8."""
        files = [self.files[i] for i in index.tolist()]
        out = torch.zeros(len(files), 1, 1, 1, dtype=torch.uint8)
        for place in collect_failures(files, range(len(files)), check_decodable, keep=True):
            out[place] = _BROKEN
        return out


def find_unreadable(files: Sequence[str], threads: int, processes: int, what: str, *, keep: bool) -> Unreadable:
    """Return why files cannot be decoded if `keep`; else raise DataError for the first.

    Each file is decoded once, in the cheapest way that finds every error: by processes, or by threads if there are none
    or few files. `what` labels the progress bar.
    """
    if processes == 0 or len(files) < _MIN_FILES_FOR_PROCESSES:
        looks = map_chunks(
            lambda *of: collect_failures(files, range(*of), check_decodable, keep=keep), len(files), threads, what
        )
        return {place: why for failed in looks for place, why in failed.items()}
    found: Unreadable = {}
    with contextlib.closing(_suspects(files, processes, what)) as all_suspects:
        for places in all_suspects:
            found |= collect_failures(files, places, check_decodable, keep=keep)
    return found


def _suspects(files: Sequence[str], processes: int, what: str) -> Generator[Sequence[int], None, None]:
    """Yield the positions of files that a process could not decode, in order; the caller finds the reason."""
    split = _ValidationSplit(files, torch.zeros(len(files), dtype=torch.int64), processes)
    places = torch.split(torch.arange(len(files)), FILES_PER_TASK)
    requests = ((index, None) for index in places)
    looks = prefetched(split, requests, torch.device("cpu"), workers=processes, ahead=4 * processes)
    progress: Progress | None = None
    try:
        for index, pixels in zip(places, looks, strict=True):
            # Start the clock only when the processes have started
            progress = progress or Progress(what, len(files))
            yield index[pixels.flatten() == _BROKEN].tolist()
            progress.move(int(index[-1]) + 1)
    finally:
        looks.close()
        if progress:
            progress.close()
