"""Check that every file of a split can be decoded, before training starts."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from runner.components.data.pixels.color_modes import Colors, DeepImageError
from runner.components.data.pixels.decode import call_decoder, check_decodable
from runner.components.data.pixels.decoder_messages import Findings, routed
from runner.components.data.pixels.image_files import FILES_PER_TASK, Progress, examine, map_chunks
from runner.engine.loading import prefetched
from runner.engine.read_ahead import read_ahead
from runner.errors import DataError

# Starting processes takes longer than validating fewer files
_MIN_FILES_FOR_PROCESSES = 2000
# First byte of the answer about a file
_BROKEN = 255
# Bytes of the answer: whether it is broken, and the decoder's messages, a line each
_ANSWER = 1024


@dataclass(frozen=True)
class _ValidationSplit:
    """Files as answers in the form of images, so that the loader's worker processes can validate them."""

    files: Sequence[str]
    labels: Tensor
    workers: int
    colors: Colors
    uniforms: int = 0

    def fetch(self, index: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Return pixels (B, 1, 1, _ANSWER) uint8."""
        files = [self.files[i] for i in index.tolist()]
        read_ahead(files)
        with routed:
            answers = b"".join(self._answer(file) for file in files)
        return torch.frombuffer(bytearray(answers), dtype=torch.uint8).view(len(files), 1, 1, _ANSWER)

    def _answer(self, file: str) -> bytes:
        """Return the answer about one file."""
        try:
            _, messages = call_decoder(file, partial(check_decodable, colors=self.colors))
        except (DataError, DeepImageError):
            return bytes([_BROKEN]).ljust(_ANSWER, b"\0")
        # A file with very many messages keeps the first
        text = "\n".join(dict.fromkeys(messages)).encode(errors="replace")
        return (b"\0" + text)[:_ANSWER].ljust(_ANSWER, b"\0")


def find_unreadable(
    files: Sequence[str], threads: int, processes: int, what: str, *, keep: bool, colors: Colors
) -> Findings:
    """Return why files cannot be decoded if `keep` (else raise DataError for the first), and what decoders say.

    Each file is decoded once, in the cheapest way that finds every error: by processes, or by threads if there are none
    or few files. `what` labels the progress bar.
    """
    check = partial(check_decodable, colors=colors)
    findings = Findings()
    if processes == 0 or len(files) < _MIN_FILES_FOR_PROCESSES:
        for found in map_chunks(lambda *of: examine(files, range(*of), check, keep=keep), len(files), threads, what):
            findings.merge(found)
        return findings
    with contextlib.closing(_answers(files, processes, what, colors)) as all_answers:
        for places, answers in all_answers:
            for place, answer in zip(places, answers, strict=True):
                if answer[0] == _BROKEN:
                    # The process that asks finds the reason
                    findings.merge(examine(files, [place], check, keep=keep))
                elif text := answer[1:].rstrip(b"\0"):
                    findings.add(place, text.decode(errors="replace").split("\n"))
    return findings


def _answers(
    files: Sequence[str], processes: int, what: str, colors: Colors
) -> Generator[tuple[list[int], list[bytes]], None, None]:
    """Yield positions of files and the answers about them, in order."""
    split = _ValidationSplit(files, torch.zeros(len(files), dtype=torch.int64), processes, colors)
    places = torch.split(torch.arange(len(files)), FILES_PER_TASK)
    requests = ((index, None) for index in places)
    looks = prefetched(split, requests, torch.device("cpu"), workers=processes, ahead=4 * processes)
    progress: Progress | None = None
    try:
        for index, pixels in zip(places, looks, strict=True):
            # Start the clock only when the processes have started
            progress = progress or Progress(what, len(files))
            yield index.tolist(), [answer.numpy().tobytes() for answer in pixels.flatten(1)]
            progress.move(int(index[-1]) + 1)
    finally:
        looks.close()
        if progress:
            progress.close()
