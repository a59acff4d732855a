"""The password in the URL of a storage: used by every process, and found in no file and no output."""

from pathlib import Path

import pytest
from postgres import postgres
from test_search_run import LR, SEARCH

from runner.__main__ import main

WORDS = [*SEARCH, "hydra/sweeper/sampler=random", "hydra/sweeper/pruner=median", "hydra.sweeper.n_trials=2", LR]
STORAGE = "hydra.sweeper.storage"


@pytest.fixture(scope="module")
def url():
    with postgres() as found:
        yield found


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("STUDY_STORAGE", "")


def holds(folder: Path) -> list[Path]:
    """Return the files that have the password in them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    return [path for path in files if any(word in path.read_bytes() for word in (b"pass word", b"pass%20word"))]


@pytest.mark.parametrize("launcher", ["runner", "basic", "joblib"])
def test_the_password_of_a_storage_is_in_no_file_and_the_sweep_can_be_resumed(
    url, tmp_path, capfd, launcher, monkeypatch
):
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    named = [f"hydra/launcher={launcher}", f"hydra.sweeper.study_name={launcher}"]
    monkeypatch.setattr("sys.argv", ["runner", *WORDS, *named, f"{STORAGE}={url}"])
    assert main([*WORDS, *named, f"{STORAGE}={url}"]) == 0
    folder = tmp_path / "outputs/sweeps/s"
    assert len(list(folder.glob("*/result.json"))) == 2
    assert holds(tmp_path) == []
    assert f"{STORAGE}=postgresql" in (folder / "sweep.yaml").read_text()
    assert "lab:***@/postgres" in (folder / "sweep.yaml").read_text()
    # Without the password the sweep cannot go on, and says how it can
    assert main([f"resume={folder}"]) == 2
    shown = capfd.readouterr()
    assert "resume: the password of hydra.sweeper.storage is not saved; give hydra.sweeper.storage=... " in shown.err
    assert main([f"resume={folder}", f"{STORAGE}={url}"]) == 0
    monkeypatch.setenv("PGPASSWORD", "pass word")
    assert main([f"resume={folder}"]) == 0
    # A wrong one is one line
    monkeypatch.delenv("PGPASSWORD")
    wrong = url.replace("pass%20word", "no%20pass")
    assert main([*WORDS, *named, f"{STORAGE}={wrong}"]) == 2
    last = capfd.readouterr()
    for text in (shown.out, shown.err, last.out, last.err):
        assert "pass word" not in text and "pass%20word" not in text and "no%20pass" not in text
    assert last.err.count("\n") == 1 and "cannot use postgresql" in last.err
