"""The command line as a process: fast, without torch, without leftover files; help, version, config, and a run."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from runner import hashes
from runner.__main__ import main

ROOT = Path(__file__).parents[2]
WATCHED = """
import sys
from runner.__main__ import main
code = main(sys.argv[1:])
heavy = {"torch", "numpy", "runner.components", "runner.engine.train", "runner.assemble"} & set(sys.modules)
sys.exit(code if not heavy else f"imported {heavy}")
"""


def tree(folder: Path) -> str:
    files = sorted(folder.rglob("*"))
    seen = [(str(path), path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in files]
    return hashlib.sha256(repr(seen).encode()).hexdigest()


def process(*argv: str, cwd: Path, program=("-c", WATCHED)) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *program, *argv], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["model=resnt"], "model: unknown option 'resnt'; did you mean 'resnet'?"),
        (["--config-dir", "nowhere"], "--config-dir: got 'nowhere', must be a folder that exists"),
        (["optim.lr=abc", "-m", "seed=0,1"], "optim.lr: got 'abc', must be a number"),
    ],
)
def test_a_refusal_imports_no_torch_and_creates_nothing(tmp_path, argv, line):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    before, began = tree(tmp_path), time.monotonic()
    done = process(*argv, cwd=tmp_path)
    assert time.monotonic() - began < 10  # 0.4 s on a machine that does nothing else
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"runner: error: {line}")
    assert done.stderr.count("\n") == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["--cfg", "job"], ["seed=1", "--cfg", "job", "--resolve"]])
def test_what_only_prints_imports_no_torch_and_creates_nothing(tmp_path, argv):
    done = process(*argv, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert not list(tmp_path.iterdir())


def test_python_m_runner_and_the_exit_code(tmp_path):
    done = process("foo=1", cwd=tmp_path, program=("-m", "runner"))
    assert done.returncode == 2
    assert done.stderr.startswith("runner: error: foo: unknown key 'foo'")


@pytest.mark.parametrize("columns", [80, 100])
def test_help_shows_every_option_and_field_in_the_columns_of_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    words = set(re.findall(r"[\w]+\*?", text))
    for path in (ROOT / "conf").glob("*/*.yaml"):
        assert {path.stem, f"{path.stem}*"} & words, path
    for option in ("digits", "resnet", "cosine", "update_ratio"):
        assert f"{option}*" in words
    assert "mlp*" not in words
    for field in ("epochs=30", "monitor=val/accuracy", 'note=""'):
        assert f"  {field} " in text
    assert columns - 5 <= max(map(len, text.splitlines())) <= columns


def test_help_shows_a_users_own_options(bench, user, capsys):
    folder = user({"optim/mine": "name: sgd\n"})
    assert main(["--help", "--config-dir", str(folder)]) == 0
    assert re.search(r"optim +adam  mine  sgd\*\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "argv",
    [
        ["--cfg", "job", "optim=adam", "seed=3"],
        ["optim=adam", "--cfg", "job", "seed=3"],
        ["optim=adam", "seed=3", "--cfg=job"],
        ["optim=adam", "-c", "job", "--config-name", "config", "seed=3"],
    ],
)
def test_flags_may_stand_anywhere(bench, capsys, argv):
    assert main(argv) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["optim"]["name"] == "adam"
    assert shown["seed"] == 3
    assert "hydra" not in shown


def test_cfg_shows_interpolations_and_resolve_their_values(bench, capsys):
    assert main(["--cfg", "job", "optim.lr=${epochs}"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["optim"]["lr"] == "${epochs}"
    assert main(["--cfg", "job", "--resolve", "optim.lr=${epochs}"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["optim"]["lr"] == 30


def test_cfg_prints_no_wrong_config(refused):
    assert refused("--cfg", "job", "optim.lr=abc") == "runner: error: optim.lr: got 'abc', must be a number"


def test_info_is_hydras(tmp_path):
    found = process("--info", "defaults", "model=mlp", cwd=tmp_path)
    assert found.returncode == 0
    assert "model/mlp" in found.stdout
    assert not list(tmp_path.iterdir())


def test_a_run_gets_its_job(echo):
    assert main([*echo, "+optim.lr=0.2", "note=is it (so)?", "model=mlp"]) == 0
    job = json.loads(Path("task=echo-optim.lr=0.2-model=mlp/job.json").read_text())
    assert job["overrides"] == ["plugins=[lab_echo]", "task=echo", "+optim.lr=0.2", "note=is it (so)?", "model=mlp"]
    assert job["folder"] is None
    assert job["config"]["optim"] == {"name": "sgd", "lr": 0.2, "fused": False}
    assert job["config"]["note"] == "is it (so)?"
    assert job["config"]["augment"] == {}
    assert job["config"]["test"] == "end"
    assert job["hash8"] == hashes.hash8(job["config"])
    assert job["group_hash"] == hashes.group_hash(job["config"])


def test_a_folder_that_is_given_is_taken_as_it_is(echo):
    assert main([*echo, "hydra.run.dir=here/and there", "name=first"]) == 0
    job = json.loads(Path("here/and there/job.json").read_text())
    assert job["folder"] == "here/and there"
    assert job["folder_name"] == "first"
    assert "hydra" not in str(job["overrides"])


def test_names_of_folders_are_taken_as_typed(echo):
    assert main([*echo, "run=outputs/model=mlp,optim=adam", "test=never"]) == 0
    (job,) = (json.loads(path.read_text()) for path in Path().glob("*/job.json"))
    assert job["config"]["run"] == "outputs/model=mlp,optim=adam"
    assert job["config"]["test"] == "never"


def test_a_failing_task_is_one_line_with_its_own_exit_code(echo, capsys):
    assert main([*echo, "task.fail=0"]) == 7
    assert capsys.readouterr().err == "runner: error: no such pictures\n"


@pytest.mark.parametrize(
    ("key", "reader"),
    [("run", "evaluate, predict, export, probe_stages or doctor"), ("runs", "compare, clean, ensemble or doctor")],
)
@pytest.mark.parametrize("task", ["train", "list", "preview"])
def test_what_another_task_reads_is_refused_by_name(capsys, key, reader, task):
    assert main([f"task={task}", f"{key}=outputs/x"]) == 2
    assert capsys.readouterr().err == f"runner: error: {key}: requires task={reader}; got task={task}\n"
