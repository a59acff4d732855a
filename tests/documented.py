"""The commands that the documentation shows, read as bash reads them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from running import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCED = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.M | re.S)
_INDENTED = re.compile(r"(?:^    [^\n]*\n)+", re.M)
_INLINE = re.compile(r"`((?:python -m runner|runner) [^`\n]+)`")
_COMMAND = re.compile(r"^ *(?:\$ )?((?:\w+=\S+ )*(?:python -m runner|runner)(?: (?:.*\\\n)*.*)?)$", re.M)
# Words are printed with NUL between them; a pattern that bash would expand is an error, as it is in zsh; in fish,
# `source` reads its standard input
_SHELL = """
shopt -s failglob; exec 3>&1; mkdir docs
runner() { [ $# = 0 ] || printf "%s\\0" "$@" >&3; }
python() { shift 2; runner "$@"; }
source() { cat > /dev/null; }
"""


@dataclass(frozen=True)
class Command:
    """A command line of runner in a page."""

    page: Path
    text: str

    @property
    def is_template(self) -> bool:
        """True if it holds a placeholder as in `run=<folder>`, or leaves words out."""
        return "<" in self.text or "..." in self.text

    @property
    def id(self) -> str:
        """The name of a test about it."""
        return f"{self.page.name}: {' '.join(self.text.split())}"[:90]

    def words(self, folder: Path) -> list[str]:
        """Return the arguments that bash hands over in an empty folder; raises CalledProcessError if it refuses."""
        done = subprocess.run(
            ["bash", "-c", _SHELL + self.text], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout.split("\0")[:-1]


def blocks(page: Path) -> list[str]:
    """Return the code blocks of a page in its order, those of shell commands and output."""
    text = page.read_text()
    fenced = [(each.start(), each[2]) for each in _FENCED.finditer(text) if each[1] in ("", "bash", "sh", "console")]
    bare = _FENCED.sub(lambda each: " \n" * each[0].count("\n"), text)
    assert len(fenced) * 2 <= text.count("```")
    lines = [(text.find(each[0]), each[0]) for each in _INDENTED.finditer(bare)]
    return [block for _, block in sorted(fenced + lines)]


def commands(page: Path, *, inline: bool = True) -> list[Command]:
    """Return the command lines of a page in its order, then those within sentences."""
    shown = [each[1] for block in blocks(page) for each in _COMMAND.finditer(block)]
    return [Command(page, text) for text in (*shown, *(_INLINE.findall(page.read_text()) if inline else ()))]


def write_files(page: Path, folder: Path) -> list[str]:
    """Write the files of a page, `name` at the end of a sentence and a block; return their names in order.

    Blocks of one name become one file, as the reader adds them to it.
    """
    found: dict[str, str] = {}
    for name, content in re.findall(r"`([\w/]+\.(?:py|yaml))`[^`\n]*:\n\n```\w+\n(.*?)```", page.read_text(), re.S):
        found[name] = f"{found[name]}\n\n{content}" if name in found else content
    for name, content in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return list(found)
