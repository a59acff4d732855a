"""The files, modules and links in the documentation exist, and its command lines are valid as written, in bash."""

import re

import pytest
from documented import PAGES, Command, blocks, commands
from running import ROOT

import runner.door.sweep
from runner.__main__ import main

# What is not here: words of commands that need it
NEEDS = ("my_lab", "my_conf", "mish", "submitit", "resume=", "run=", "runs=", "resnt")
TASKS = ("--help", "--cfg", "--info", "-sc")


@pytest.mark.parametrize(
    "command", [each for page in PAGES for each in commands(page) if not each.is_template], ids=lambda each: each.id
)
def test_a_documented_command_line_is_accepted(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = command.words(tmp_path)
    if any(need in word for need in NEEDS for word in given):
        return
    # All trials are checked before the sweep begins
    monkeypatch.setattr(runner.door.sweep, "run_sweep", lambda *_: 0)
    answers = given[:1] and given[0].startswith(TASKS)
    assert main(given if answers or "-m" in given else [*given, "--cfg", "job"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page):
    text = page.read_text()
    links = [page.parent / link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)]
    paths = [ROOT / path for path in re.findall(r"\b(?:tests|benchmarks|runner|conf)/[\w/]+\.(?:py|yaml|json)\b", text)]
    named = [ROOT / name.replace(".", "/") for name in re.findall(r"-m (benchmarks\.\w+)", text)]
    modules = [path / "__main__.py" if path.is_dir() else path.with_suffix(".py") for path in named]
    assert [str(path) for path in (*links, *paths, *modules) if not path.exists() and path.stem != "mish"] == []


def test_commands_are_read_as_bash_reads_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Text\n\n```\n$ python -m runner a='b c' \\\n    d\nout\n```\n\n    runner e  # why\n\n`runner f`\n"
    )
    assert [each.words(tmp_path) for each in commands(page)] == [["a=b c", "d"], ["e"], ["f"]]
    assert blocks(page)[1] == "    runner e  # why\n"
    for text in ("runner seed=range(0,3)", "runner augment=[crop,hflip]"):
        with pytest.raises(Exception, match="returned non-zero exit status"):
            Command(page, text).words(tmp_path)
