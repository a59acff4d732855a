"""Provenance: the code and machine that a run depends on are recorded, and a failure never ends the run."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest
import torch

import runner
from runner.engine.provenance import cache_for_forks, commit, provenance, repository


def git(folder, *words):
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", *who, *words], cwd=folder, env=clean, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A repository with one commit, the working directory in a folder of it."""
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    (tmp_path / "sub").mkdir()
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "one")
    monkeypatch.chdir(tmp_path / "sub")
    return tmp_path


def test_the_commit_and_whether_it_is_what_runs(work):
    head = git(work, "rev-parse", "HEAD")
    assert provenance([], device="cpu")["git"] == {"commit": head, "dirty": False}
    (work / "untracked").write_text("")
    assert provenance([], device="cpu")["git"] == {"commit": head, "dirty": False}
    (work / "file").write_text("2")
    assert provenance([], device="cpu")["git"] == {"commit": head, "dirty": True}


def test_what_was_kept_is_of_when_the_code_was_loaded(work, monkeypatch):
    monkeypatch.setattr("runner.engine.provenance._loaded_commits", {})
    cache_for_forks()
    (work / "file").write_text("2")
    assert provenance([], device="cpu")["git"]["dirty"] is False


def test_the_package_has_its_own_commit_where_it_is_elsewhere(work, monkeypatch):
    package = repository(Path(runner.__file__).parent)
    said = provenance([], device="cpu")["git_package"]
    assert said == (commit(package) if package else None)
    if package:
        monkeypatch.chdir(package)
        assert provenance([], device="cpu")["git_package"] is None


def test_without_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert provenance([], device="cpu")["git"] is None
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert provenance([], device="cpu")["git"] is None


def test_a_broken_repository_and_a_missing_git_are_no_failure(work, monkeypatch):
    (work / ".git" / "HEAD").write_text("nonsense")
    assert provenance([], device="cpu")["git"] is None
    monkeypatch.setenv("PATH", "")
    assert provenance([], device="cpu")["git"] is None


def test_a_git_that_hangs_is_given_up(work, monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    (folder / "git").write_text("#!/bin/sh\nexec sleep 30\n")
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr("runner.engine.provenance.GIT_TIMEOUT", 0.2)
    began = time.monotonic()
    assert provenance([], device="cpu")["git"] is None
    assert time.monotonic() - began < 5


def test_a_repository_cannot_start_a_program(work, tmp_path_factory):
    canary = tmp_path_factory.mktemp("canary") / "ran"
    monitor = work / "monitor"
    monitor.write_text(f"#!/bin/sh\ntouch {canary}\n")
    monitor.chmod(0o755)
    git(work, "config", "core.fsmonitor", str(monitor))
    git(work, "status")
    assert canary.exists()  # git itself does run it
    canary.unlink()
    assert provenance([], device="cpu")["git"]["dirty"] is False
    assert not canary.exists()


def test_inside_a_git_hook_the_folder_still_counts(work, monkeypatch, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert provenance([], device="cpu")["git"]["commit"] == git(work, "rev-parse", "HEAD")


def test_a_repository_without_a_commit_has_none(tmp_path):
    git(tmp_path, "init", "-q")
    assert commit(tmp_path) == {"commit": None, "dirty": False}


def test_an_installed_package_belongs_to_no_repository(work):
    inside = work / "env" / "site-packages" / "runner"
    inside.mkdir(parents=True)
    assert repository(inside) is None
    assert repository(inside.parent.parent) == work.resolve()


def test_versions_threads_and_settings(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "x")
    monkeypatch.setenv("RUNNER_ANYTHING", "1")
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    said = provenance(["optim=adam"], device="NVIDIA H200")
    assert said == json.loads(json.dumps(said))
    assert said["overrides"] == ["optim=adam"] and said["argv"] == sys.argv and said["device"] == "NVIDIA H200"
    assert said["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert said["versions"]["torch"] == metadata.version("torch") and said["versions"]["runner"] == runner.__version__
    assert said["threads"]["intra"] == torch.get_num_threads()
    settings = said["environment"]
    assert settings.items() >= {"OMP_NUM_THREADS": "3", "PYTORCH_ALLOC_CONF": "x", "RUNNER_ANYTHING": "1"}.items()
    assert "hidden" not in json.dumps(said) and "CUDA_VISIBLE_DEVICES" not in settings
    age = datetime.now(UTC) - datetime.fromisoformat(said["started"])
    assert timedelta(0) <= age < timedelta(seconds=10)
