"""`outputs/notebook.md`: each setting and its result, written down at the end of each run (CS231n: keep a notebook).

An entry for each run by itself, a block with a line per trial for each sweep, in order of beginning. All of it follows
from the run folders, so that what was added run by run is what `rebuild` writes. Lines that begin with `>` are the
user's own: they stay with their entry.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runner.comparing.entries import entry, is_training, opening, stamp, trial
from runner.comparing.runs import run_folders
from runner.comparing.sections import ROW, Section, Sections, in_order, parsed, rendered
from runner.engine.saving import storage
from runner.errors import RunnerError

NAME = "notebook.md"
OLD = "notebook.old.md"
SWEEPS = "sweeps"
SIZE = 64 << 20  # bytes


@contextmanager
def noted(folder: Path, outputs: Path) -> Iterator[None]:
    """Write a run, or all trials of a sweep, into the notebook when the body is over, however it ended."""
    try:
        yield
    finally:
        record(folder, outputs)


def record(folder: Path, outputs: Path) -> None:
    """Write the runs at and below a folder into the notebook of `outputs`, if they lie there.

    What fails is told of, and no more.
    """
    try:
        top = outputs.resolve()
        links = [each.resolve().relative_to(top).as_posix() for each in run_folders(folder) if is_training(each)]
        if not links:  # nothing was trained
            return
        with held(outputs):
            sections = parsed(text_of(outputs))
            put_all(sections, outputs, links)
            replace(outputs / NAME, rendered(sections))
    except ValueError:
        return  # it was sent elsewhere, out of this notebook
    except (OSError, RunnerError) as error:
        sys.stderr.write(
            f"runner: warning: {storage.shown(outputs / NAME)}: not written ({error}); see task=notebook\n"
        )


def rebuild(outputs: Path) -> int:
    """Make the notebook again from all run folders and return how many there are; the old one stays beside it."""
    with held(outputs):
        before = text_of(outputs)
        kept = {link: section.own for link, section in parsed(before).items()}
        found = [folder for folder in run_folders(outputs) if is_training(folder)]
        sections: Sections = {}
        found.sort(key=lambda folder: (stamp(folder), str(folder)))
        put_all(sections, outputs, [folder.relative_to(outputs).as_posix() for folder in found])
        for link, section in sections.items():
            section.own = kept.get(link, [])
        text = rendered(sections)
        if before and before != text:
            replace(outputs / OLD, before)
        replace(outputs / NAME, text)
    return len(found)


@contextmanager
def held(outputs: Path) -> Iterator[None]:
    """Keep other processes from this folder's notebook; the kernel frees it when the process is gone."""
    with storage.refusing(outputs):
        folder = os.open(outputs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def replace(path: Path, text: str) -> None:
    """Put a text in a file's place as a whole; not waiting for the disk, since it can be made again."""
    temporary, file = storage.fresh(path.parent)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(text.encode())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def text_of(outputs: Path) -> str:
    """Return the notebook as it stands, empty where there is none."""
    try:
        return storage.read(outputs / NAME, SIZE).decode(errors="replace")
    except FileNotFoundError:
        return ""


def put_all(sections: Sections, outputs: Path, links: Sequence[str]) -> None:
    """Put runs into the sections, anew if they are there already; the trials of a sweep into one."""
    sweeps: dict[str, list[str]] = {}
    for link in links:
        parts = link.split("/")
        if parts[0] == SWEEPS and len(parts) > 2:
            sweeps.setdefault("/".join(parts[:2]), []).append(link)
        else:
            put(sections, outputs, link)
    for sweep, trials in sweeps.items():
        put_trials(sections, outputs, trials, sweep=sweep)


def put(sections: Sections, outputs: Path, link: str) -> None:
    """Put a run by itself into the sections."""
    folder = outputs / link
    own = sections[link].own if link in sections else []
    sections[link] = Section(stamp(folder), [], own)
    alone = [each for each, section in in_order(sections) if not section.rows and (outputs / each).is_dir()]
    place = alone.index(link)
    for each in range(place, min(place + 2, len(alone))):  # the next one is held against this one now
        before = (outputs / alone[each - 1], alone[each - 1]) if each else None
        sections[alone[each]].lines = entry(outputs / alone[each], alone[each], before)


def put_trials(sections: Sections, outputs: Path, links: Sequence[str], *, sweep: str) -> None:
    """Put trials into the block of their sweep, whose opening is its first trial's."""
    section = sections.get(sweep) or Section("", [])
    before = section.rows
    rows = before | {link: trial(outputs / link, link) for link in links}
    rows = dict(sorted(rows.items(), key=lambda item: (item[1][2:21], item[0])))
    leader = next(iter(rows))
    head = [line for line in section.lines if not ROW.fullmatch(line)]
    if leader != next(iter(before), None) or leader in links:
        head = opening(outputs / leader, sweep)
    sections[sweep] = Section(rows[leader][2:21], [*head, *rows.values()], section.own)
