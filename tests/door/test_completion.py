"""Completion of the command line, as bash asks for it."""

import os
import shutil
import subprocess
import sys

import pytest
from running import ROOT

from runner.__main__ import main
from runner.door.completion import completion

ASK = """
eval "$({command} -sc install=bash)"
{breaks}
COMP_LINE='{line}' COMP_POINT=${{#COMP_LINE}}
_runner_complete
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def asked(monkeypatch, line):
    monkeypatch.setenv("COMP_LINE", line)
    return completion(["query"]).split()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("runner opt", ["optim="]),
        ("runner see", ["seed="]),
        ("runner optim=ad", ["optim=adafactor", "optim=adagrad", "optim=adam", "optim=adamax", "optim=adamw"]),
        (
            "runner -m optim=sgd,ada",
            [f"optim=sgd,{each}" for each in ("adafactor", "adagrad", "adam", "adamax", "adamw")],
        ),
        ("runner 'augment=[crop,hf", ["'augment=[crop,hflip"]),
        ("runner optim=adam optim.be", ["optim.betas="]),
        ("runner optim.be", []),
        ("runner optim.mo", ["optim.momentum="]),
        ("runner augment.crop.p", ["augment.crop.padding="]),
        ("runner recipe=speedrun_cifar10 norm.mo", ["norm.momentum="]),
        ("runner precision=b", ["precision=bf16"]),
        ("runner data.placement=d", ["data.placement=device"]),
        ("runner optim.lr=", ["optim.lr=0.1"]),
        ("runner clip=", ["clip=null"]),
        ("runner --config-d", ["--config-dir"]),
        ("runner nothing=", []),
        ("runner nothing.x=", []),
    ],
)
def test_the_last_word_is_completed(monkeypatch, line, found):
    assert asked(monkeypatch, line) == found


def test_options_of_the_users_folder_are_completed(monkeypatch, tmp_path):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _global_\nepochs: 3\n")
    assert asked(monkeypatch, f"runner --config-dir {tmp_path} recipe=mi") == ["recipe=mine"]
    (tmp_path / "recipe" / "speedrun_cifar10.yaml").write_text("a: [")
    assert asked(monkeypatch, f"runner --config-dir {tmp_path} recipe=mi") == []


@pytest.mark.parametrize("breaks", ["", "COMP_WORDBREAKS=${COMP_WORDBREAKS//=}"])
def test_bash_completes_the_module(breaks, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for line, found in (
        ("python -m runner optim=ada", ["adafactor", "adagrad", "adam", "adamax", "adamw"]),
        ("python other.py optim=ada", [""]),
    ):
        script = ASK.format(command=f"{sys.executable} -m runner", breaks=breaks, line=line)
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path)
        prefix = "optim=" if breaks and found != [""] else ""
        assert done.stdout.splitlines() == [f"{prefix}{each}" for each in found], done.stderr


# What a shell would insert, and whether it would show files instead
ASK_ZSH = """
compdef() { }; compadd() { print -l -- ${(P)@[-1]} }; _default() { print files }
eval "$(COMMAND -sc install=zsh)"
BUFFER=$0 CURSOR=${#0}
_runner_complete
"""
ASK_FISH = "COMMAND -sc install=fish | source; complete -C $argv[1]"


@pytest.mark.parametrize(("start", "program"), [(["zsh", "-fc"], ASK_ZSH), (["fish", "--no-config", "-c"], ASK_FISH)])
def test_zsh_and_fish_complete_the_module(start, program, tmp_path):
    shell = start[0]
    if not shutil.which(shell):
        pytest.skip(f"no {shell}")
    (tmp_path / "other.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    # fish adds the quote itself
    quote = "'" if shell == "zsh" else ""
    for line, found in (
        (
            "python -m runner optim=ada",
            [f"optim={each}" for each in ("adafactor", "adagrad", "adam", "adamax", "adamw")],
        ),
        ("python -m runner 'augment=[crop,hf", [f"{quote}augment=[crop,hflip"]),
        ("python othe", ["other.py"] if shell == "fish" else ["files"]),
        ("python -m runner nothing=", [] if shell == "fish" else ["files"]),
    ):
        words = [*start, program.replace("COMMAND", f"{sys.executable} -m runner"), line]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.stdout.splitlines() == found, (line, done.stderr)


def test_a_query_imports_neither_torch_nor_hydra(tmp_path):
    program = "import sys; from runner.__main__ import main; main(['-sc', 'query'])\n"
    program += "assert not {'torch', 'hydra', 'omegaconf'} & sys.modules.keys()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COMP_LINE": "runner optim=adam optim.l"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "optim.lr=\n"), done.stderr


def test_a_wrong_shell_is_one_line(capsys):
    assert main(["-sc", "install=bahs"]) == 2
    assert capsys.readouterr().err.startswith("runner: error: -sc: unknown shell 'bahs'; did you mean 'bash'?")
    assert main(["-sc"]) == 2
    assert "must be install=bash" in capsys.readouterr().err
    for shell in ("zsh", "fish"):
        assert main(["-sc", f"install={shell}"]) == 0
        assert "runner -sc query" in capsys.readouterr().out


def test_the_console_script_finds_plugins_in_the_working_folder(tmp_path):
    (tmp_path / "quiet_lab.py").write_text("print('imported')\nraise SystemExit(0)\n")
    # What the script that pip installs does; its own folder is the first of the path
    program = "import sys; sys.path[0] = '/nowhere'; from runner.__main__ import command; sys.exit(command())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", program, "plugins=[quiet_lab]", "steps=1"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert "imported" in done.stdout
