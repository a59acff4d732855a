"""The files, modules and links in the documentation exist, and its command lines are valid."""

import re
import shlex

import pytest
from running import ROOT

from runner.__main__ import main

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^ *(?:\$ )?python -m runner ?((?:.*\\\n)*.*)", re.M)
NEEDS = (
    "my_lab",
    "submitit",
    "resume=",
    "run=",
    "runs=",
    "path/to",
    "<",
    "resnt",
)  # what is not here


def commands():
    """Yield the documented command lines that can be composed in an empty folder."""
    for page in PAGES:
        for words in COMMAND.findall(page.read_text()):
            given = shlex.split(words.replace("\\\n", " "), comments=True)
            if not any(need in word for need in NEEDS for word in given) and "-m" not in given:
                yield pytest.param(given, id=f"{page.name}: {' '.join(given)}"[:90])


@pytest.mark.parametrize("given", [*commands()])
def test_a_documented_command_line_is_accepted(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(given if given[:1] in (["--help"], ["--cfg"]) else [*given, "--cfg", "job"]) == 0, (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page):
    text = page.read_text()
    links = [page.parent / link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)]
    paths = [ROOT / path for path in re.findall(r"\b(?:tests|benchmarks|runner|conf)/[\w/]+\.(?:py|yaml|json)\b", text)]
    modules = [ROOT / f"{name.replace('.', '/')}.py" for name in re.findall(r"-m (benchmarks\.\w+)", text)]
    assert [str(path) for path in (*links, *paths, *modules) if not path.exists() and path.stem != "mish"] == []
