"""`outputs/notebook.md`: the settings and the result of each run, recorded when it ends (CS231n: keep a notebook).

A single run has an entry, a sweep a block with a line per trial; both in order of their start. Everything is read from
the run folders, so recording run by run gives the same file as `rebuild`. Lines that begin with `>` are the user's own
and stay with their entry.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from runner.comparing.runs import run_folders
from runner.decoration import decorative
from runner.engine.saving import storage
from runner.errors import StorageError
from runner.notebook.entries import STAMP, is_training, run_lines, start_time, unquoted
from runner.notebook.sweep_block import link_of, read_rows, sweep_block
from runner.user_paths import full, is_dir, real

NAME = "notebook.md"
_OLD_NAME = "notebook.old.md"
_SWEEPS = "sweeps"
_MAX_BYTES = 64 << 20
# Seconds to wait for other processes that write the notebook
LONGEST_WAIT = 60.0
_PAUSE = 0.02
_HEADING = re.compile(rf"## (?P<stamp>{STAMP}) (?P<sweep>sweep )?\[[^\]]*\]\((?P<link>[^)]*)\)")
_PREAMBLE = """# Notebook

Each run: the question, what differs from the run before, and the result; times in UTC, oldest first.
Ask a question with `note="..."` on the command line. Begin your own lines with `>` below an entry: they are kept.
`python -m runner task=notebook` writes this file again from the run folders.
"""


@dataclass
class _Section:
    """The entry of a run or the block of a sweep: generated lines and the user's lines."""

    stamp: str
    lines: list[str]
    user_lines: list[str] = field(default_factory=list)

    @property
    def is_sweep(self) -> bool:
        """True for the block of a sweep."""
        return any(link_of(line) for line in self.lines)


# link -> section
_Sections = dict[str, _Section]


def record(folder: Path, outputs: Path) -> None:
    """Write the training runs of a run folder or sweep folder into the notebook of `outputs`, if the folder is there.

    A notebook that cannot be written is a warning, not an error.
    """
    with decorative(f"{storage.printable(outputs / NAME)}: cannot write the notebook; task=notebook writes it later"):
        top = real(outputs)
        paths = [real(each) for each in run_folders(folder) if is_training(each)]
        links = [path.relative_to(top).as_posix() for path in paths if path.is_relative_to(top)]
        if not links:
            return
        with _locked(outputs):
            sections = _parse(_read(outputs))
            _insert_runs(sections, outputs, links)
            _write(outputs / NAME, _render(sections))


def rebuild(outputs: Path) -> int:
    """Write the notebook again from all run folders, keep the old file beside it, and return the number of runs."""
    with _locked(outputs):
        before = _read(outputs)
        text, count = _made_again(outputs, before)
        with storage.convert_os_errors(outputs / NAME):
            if before and before != text:
                _write(outputs / _OLD_NAME, before)
            _write(outputs / NAME, text)
    return count


def text_of(outputs: Path) -> str:
    """Return what `rebuild` writes."""
    return _made_again(outputs, _read(outputs))[0]


def _made_again(outputs: Path, before: str) -> tuple[str, int]:
    """Return the text of a notebook from all run folders, with the user's lines of an old one, and their number."""
    kept = {link: section.user_lines for link, section in _parse(before).items()}
    found = [folder for folder in run_folders(outputs) if is_training(folder)]
    sections: _Sections = {}
    found.sort(key=lambda folder: (start_time(folder), str(folder)))
    _insert_runs(sections, outputs, [folder.relative_to(outputs).as_posix() for folder in found])
    for link, section in sections.items():
        section.user_lines = kept.get(link, [])
    return _render(sections), len(found)


@contextmanager
def _locked(outputs: Path) -> Iterator[None]:
    """Lock the notebook of a folder for this process; the kernel unlocks it when the process ends.

    Raises StorageError if another process, which may be stopped, keeps the lock: a run must not wait for it forever.
    """
    with storage.convert_os_errors(outputs):
        folder = os.open(full(outputs), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + LONGEST_WAIT
        while not _take_lock(folder):
            if time.monotonic() > until:
                raise StorageError(
                    f"another process has kept the lock of {storage.printable(outputs)} for {LONGEST_WAIT:g} s"
                )
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(folder)


def _take_lock(folder: int) -> bool:
    """Return True if this process has the lock of an open folder."""
    with suppress(BlockingIOError):
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _write(path: Path, text: str) -> None:
    """Replace a file atomically, without waiting for the disk: a lost notebook can be written again."""
    temporary, file = storage.create_temporary(path.parent)
    try:
        try:
            storage.write_all(file, memoryview(text.encode()), hashlib.sha256())
        finally:
            storage.disk.close(file)
        storage.disk.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            storage.disk.unlink(temporary)
        raise


def _read(outputs: Path) -> str:
    """Return the text of the notebook, empty if there is none; raise StorageError if it cannot be read."""
    with storage.convert_os_errors(outputs / NAME), suppress(FileNotFoundError):
        return storage.read(outputs / NAME, _MAX_BYTES).decode(errors="replace")
    return ""


def _insert_runs(sections: _Sections, outputs: Path, links: Sequence[str]) -> None:
    """Put runs into the sections, replacing older entries; the trials of a sweep share one section."""
    sweeps: dict[str, list[str]] = {}
    for link in links:
        parts = link.split("/")
        if parts[0] == _SWEEPS and len(parts) > 2:
            sweeps.setdefault("/".join(parts[:2]), []).append(link)
        else:
            _insert_run(sections, outputs, link)
    for sweep, trials in sweeps.items():
        _insert_trials(sections, outputs, trials, sweep=sweep)


def _insert_run(sections: _Sections, outputs: Path, link: str) -> None:
    """Put a single run into the sections."""
    folder = outputs / link
    user_lines = sections[link].user_lines if link in sections else []
    sections[link] = _Section(start_time(folder), [], user_lines)
    alone = [each for each, section in _in_order(sections) if not section.is_sweep and is_dir(outputs / each)]
    position = alone.index(link)
    # The next run is now compared with this one
    for each in range(position, min(position + 2, len(alone))):
        before = (outputs / alone[each - 1], alone[each - 1]) if each else None
        sections[alone[each]].lines = run_lines(outputs / alone[each], alone[each], before)


def _insert_trials(sections: _Sections, outputs: Path, links: Sequence[str], *, sweep: str) -> None:
    """Put trials into the block of their sweep; the first trial gives its opening lines."""
    section = sections.get(sweep) or _Section("", [])
    lines = sweep_block(outputs, sweep, links, read_rows(section.lines))
    stamp = _HEADING.fullmatch(lines[0])
    sections[sweep] = _Section(stamp["stamp"] if stamp else "", lines, section.user_lines)


def _parse(text: str) -> _Sections:
    """Return the sections of a notebook's text."""
    sections: _Sections = {}
    here: _Section | None = None
    for line in text.splitlines():
        if match := _HEADING.fullmatch(line):
            here = sections[unquoted(match["link"])] = _Section(match["stamp"], [])
        if here is not None:
            (here.user_lines if line.startswith(">") else here.lines).append(line)
    for section in sections.values():
        while section.lines and not section.lines[-1].strip():
            section.lines.pop()
    return sections


def _render(sections: _Sections) -> str:
    """Return the text of a notebook."""
    parts = [_PREAMBLE]
    for _, section in _in_order(sections):
        user_lines = ["", *section.user_lines] if section.user_lines else []
        parts.append("\n".join([*section.lines, *user_lines]) + "\n")
    return "\n".join(parts)


def _in_order(sections: _Sections) -> list[tuple[str, _Section]]:
    """Return links and sections in order of their start."""
    return sorted(sections.items(), key=lambda item: (item[1].stamp, item[0]))
