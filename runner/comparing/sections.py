"""The text of a notebook and its sections: an entry for each run by itself, a block for each sweep."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from runner.comparing.entries import STAMP

HEADING = re.compile(rf"## (?P<stamp>{STAMP}) (?P<sweep>sweep )?\[[^\]]*\]\((?P<link>[^)]*)\)")
ROW = re.compile(rf"\| (?P<stamp>{STAMP}) \| \[[^\]]*\]\((?P<link>[^)]*)\) \|.*")
PREAMBLE = """# Notebook

Each run with what was asked, what differs and what came of it, the first at the top; times in UTC.
Ask with `note="..."` on the command line. Begin your own lines with `>` below an entry: they are kept.
`python -m runner task=notebook` makes this file again from the run folders.
"""


@dataclass
class Section:
    """An entry as it stands: the lines that follow from folders, and the user's own."""

    stamp: str
    lines: list[str]
    own: list[str] = field(default_factory=list)

    @property
    def rows(self) -> dict[str, str]:
        """Return the trials' lines by link, none for a run by itself."""
        return {unquote(match["link"]): line for line in self.lines if (match := ROW.fullmatch(line))}


Sections = dict[str, Section]  # by link


def parsed(text: str) -> Sections:
    """Return the sections of a notebook."""
    sections: Sections = {}
    here: Section | None = None
    for line in text.splitlines():
        if match := HEADING.fullmatch(line):
            here = sections[unquote(match["link"])] = Section(match["stamp"], [])
        if here is not None:
            (here.own if line.startswith(">") else here.lines).append(line)
    for section in sections.values():
        while section.lines and not section.lines[-1].strip():
            section.lines.pop()
    return sections


def rendered(sections: Sections) -> str:
    """Return the notebook's text."""
    parts = [PREAMBLE]
    for _, section in in_order(sections):
        own = ["", *section.own] if section.own else []
        parts.append("\n".join([*section.lines, *own]) + "\n")
    return "\n".join(parts)


def in_order(sections: Sections) -> list[tuple[str, Section]]:
    """Return links and sections in order of beginning."""
    return sorted(sections.items(), key=lambda item: (item[1].stamp, item[0]))
